"""Several processes that share a run, as `torchrun` starts them; most runs have one."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Team:
    """This process's place among those that share a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, model: nn.Module) -> Any:
        """The model, whose gradients are those of all processes on average."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, find_unused_parameters=True)

    @contextmanager
    def gradients_kept(self, model: Any, *, last: bool) -> Iterator[None]:
        """While gradients of a piece of a batch are added up, and not yet averaged unless it is the last."""
        if self.size == 1 or last:
            yield
        else:
            with model.no_sync():
                yield

    def wait(self) -> None:
        """Until all have come so far."""
        if self.size > 1:
            dist.barrier()

    def told(self, value: float) -> float:
        """The value that the first process has."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return float(shared)

    def any(self, value: bool) -> bool:
        """Whether any process says so."""
        if self.size == 1:
            return value
        shared = torch.tensor([int(value)])
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared)


ALONE = Team()


@contextmanager
def joined_team(device: str) -> Iterator[Team]:
    """The team that `torchrun` has told this process of by its environment, joined for a while."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Team(dist.get_rank(), size)
    finally:
        gc.collect()  # what shares gradients has to go before the group that it holds: it would wait for ever later
        dist.destroy_process_group()
