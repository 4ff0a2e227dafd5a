"""The training loop: one for all objectives, resumable at any step."""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.store import GOLDEN, WEIGHTS
from stn_cli.checkpoints.weights import load_model
from stn_cli.errors import DivergedError, OutputExistsError, UsageError
from stn_cli.images import exclusive, make_folder, remove_leftovers, write_atomically
from stn_cli.networks.model import Rectifier, channels_last
from stn_cli.training.collapse import symptoms
from stn_cli.training.config import TrainConfig
from stn_cli.training.data import TrainingData
from stn_cli.training.objectives import Losses, losses
from stn_cli.training.outset import MovingAverage, model_config, new_model, optimizer_of, start_from
from stn_cli.training.revival import revive
from stn_cli.training.samples import Batch, batches, split
from stn_cli.training.starts import disturbed
from stn_cli.training.states import States
from stn_cli.training.team import ALONE, Team
from stn_cli.training.validation import Validation, validate
from stn_cli.training.watching import Watcher

CONFIG, LOG = "config.json", "log.jsonl"
_WRITTEN = (LOG, WEIGHTS, GOLDEN, "report.md", "report.json", "curves.png", "training.gif")
"""What a run, and its report, write beside it."""
_LOG_EVERY = 50
_LOOKED_AT = 8
"""Batches on which a hidden unit must fire once, or begins anew."""


class Trainer:
    """A run in its folder: the last `keep` states to go on from, `config.json`, `log.jsonl`.

    N steps equal k steps, an interruption and N − k steps, bit for bit on a CPU with the same number of threads:
    samples and dropout depend on (seed, step) alone.

    Several processes that share a run each take their part of every batch, and average their gradients; the first
    alone validates, logs and writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        run: Path,
        *,
        workers: int = 1,
        keep: int = 2,
        device: str = "cpu",
        team: Team = ALONE,
    ) -> None:
        self.config, self.data, self.run, self.workers = config, data, run, workers
        self.device, self.team = device, team
        self.states = States(run, keep)
        torch.manual_seed(config.seed)
        self.model_config = model_config(config, data.classes)
        self.model = new_model(self.model_config)
        for transformer in self.model.transformers:
            transformer.resample = config.resample
        if config.start is not None:
            start_from(self.model, load_model(open_checkpoint(config.start)))
            revive(self.model, self._looked_at(), first=config.frozen)
        self.model.transformer.stages[: config.frozen].requires_grad_(False)
        if config.bypassed:
            for transformer in self.model.transformers:
                transformer.requires_grad_(False)
        self.layout = channels_last(self.model_config.dims)
        self.model.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        self.shared: Any = self.model
        self.average = MovingAverage(self.model, config.ema)
        self.optimizer = optimizer_of(self.model, config)
        self.parameters = list(self.model.parameters())
        self.step, self.best_score, self.best_step, self.last_norm = 0, -math.inf, 0, 0.0
        self.recent = _Recent()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_validation: dict[str, Any] = {}

    def train(self, *watchers: Watcher, is_stopped: Callable[[], bool] = lambda: False) -> bool:
        """Trains to the last step, validating and saving on the way; returns whether it came so far.

        Args:
            watchers: hear of every step, in the first process of a team.
            is_stopped: once it says so, the state is saved and no further step is made.

        Raises:
            DivergedError: the loss or its gradient is no longer finite.
            StorageError, UsageError: the folder cannot be used, or is that of another run or of one under way.
        """
        watchers = watchers if self.team.is_first else ()
        with self._folder():
            self._prepare(watchers)
            for watcher in watchers:
                watcher.started(self)
            self.shared = self.team.share(self.model)
            finished = self._train(watchers, is_stopped)
            self.shared = self.model
            for watcher in watchers if finished else ():
                watcher.finished(self)
            return finished

    def _train(self, watchers: Sequence[Watcher], is_stopped: Callable[[], bool]) -> bool:
        started, recent = time.monotonic(), self.recent
        for batch in self._batches() if not self.is_over() else ():
            if self.team.any(is_stopped()):
                self.save()
                return False
            parts = self.one_step(batch)
            self.step += 1
            recent.add(parts)
            for watcher in watchers:
                watcher.stepped(self, recent.means())
            if self.step % _LOG_EVERY == 0:
                seconds = time.monotonic() - started
                self._log({"step": self.step, "seconds": round(seconds, 1), **recent.means(), "rate": self._rate()})
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self._validate(watchers)
                self.save()
                if self.is_over():
                    break
        return True

    def best_model(self) -> Rectifier:
        """The averaged weights with the best validation score so far."""
        if not self.best_weights:
            raise UsageError(f"{self.run} holds no validated weights yet", remedy="Let the run go on.")
        model = new_model(self.model_config)
        model.load_state_dict(self.best_weights)
        return model.eval()

    def averaged_model(self) -> Rectifier:
        """The running average of the weights, as it is now; where it is, not a copy."""
        return cast("Rectifier", self.average.module).eval()

    def save(self) -> None:
        """Writes the state from which the run can go on; DivergedError, and those before stay, if it is not finite."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise self._diverged("a weight")
        state: dict[str, Any] = {
            "step": self.step,
            "data": self.data.fingerprint,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "recent": self.recent.values,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best_weights": self.best_weights,
            "best_validation": json.dumps(self.best_validation),
        }
        if self.team.is_first:
            self.states.save(self.step, state)

    @contextmanager
    def _folder(self) -> Iterator[None]:
        """The folder of the run, for this process or its team alone."""
        make_folder(self.run)
        with exclusive(self.run) if self.team.is_first else nullcontext():
            yield

    def _prepare(self, watchers: Sequence[Watcher]) -> None:
        """A new run, or the newest state of the one that is there."""
        if self.team.is_first:
            check_run(self.run, self.config)
            remove_leftovers(self.run, is_ours=True)
            write_atomically(self.run / CONFIG, msgspec.json.format(msgspec.json.encode(self.config)) + b"\n")
        self.team.wait()
        for damage in self.states.restore(self._load):
            for watcher in watchers:
                watcher.warned(damage)
        if self.team.is_first:
            _truncate_log(self.run / LOG, self.step)

    def _load(self, state: dict[str, Any]) -> None:
        if state["data"] != self.data.fingerprint:
            raise UsageError(
                f"the data is not what it was when the run in {self.run} began",
                remedy="Choose another folder with -o, or bring the data back to what it was.",
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_score, self.best_step = state["step"], state["best_score"], state["best_step"]
        self.recent.values = state["recent"]
        self.best_weights, self.best_validation = state["best_weights"], json.loads(state["best_validation"])

    def is_over(self) -> bool:
        """All steps were made, or the score has not risen for too many validations."""
        patience = self.config.patience * self.config.validate_every
        return self.step >= self.config.steps or (patience > 0 and self.step - self.best_step >= patience)

    def _looked_at(self) -> Float[Tensor, "n c *size"]:
        some = itertools.islice(batches(self.data.training, self.config.batch_size, workers=self.workers), _LOOKED_AT)
        return torch.cat([batch.canvas for batch in some]).float() / 255

    def _batches(self) -> Iterator[Batch]:
        part = self.team.rank, self.team.size
        return batches(self.data.training, self.config.batch_size, first=self.step, workers=self.workers, part=part)

    def one_step(self, batch: Batch) -> Losses:
        if not self.model.training:
            self.model.train()
        seeded = torch.default_generator if self.device == "cpu" else torch  # all devices take 2 ms
        seeded.manual_seed(hash((self.config.seed, self.step)))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate() * group["scale"]
        self.optimizer.zero_grad()
        sums: Losses = {}
        pieces = split(batch, self.config.accumulate)
        for number, piece in enumerate(pieces, 1):
            share = len(piece.label) / len(batch.label)
            with self.team.gradients_kept(self.shared, last=number == len(pieces)):
                parts = {name: share * part for name, part in self._losses(piece).items()}
                torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.detach()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        if not bool(torch.isfinite(norm)):
            raise self._diverged("the gradient")
        self.last_norm = float(norm)
        self.optimizer.step()
        self.average.follow()
        return sums

    def _losses(self, batch: Batch) -> Losses:
        config, bent = self.config, batch.truth.shape[1] > 4 and self.model_config.dims == 2
        batch = batch.to(self.device)
        images = (batch.canvas.float() / 255).contiguous(memory_format=self.layout)
        device = torch.device(self.device).type
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            output = self.shared(
                images,
                detach="straighten" in config.objectives,
                start=disturbed(batch.truth, near=config.frozen > 0) if bent else None,
                skip=config.frozen,
                bypass=config.bypassed,
            )
        parts = losses(output, batch, self.model_config, config)
        broken = [name for name, part in parts.items() if not bool(torch.isfinite(part))]
        if broken:
            raise self._diverged(f"the loss ({' + '.join(broken)})")
        return parts

    def _diverged(self, what: str) -> DivergedError:
        before = f"the gradient before had a norm of {self.last_norm:.3g}, at a learning rate of {self._rate():.3g}"
        return DivergedError(f"{what} is no longer a finite number after step {self.step}; {before}")

    def _rate(self) -> float:
        """Linear warm-up, a plateau, and half a cosine to zero."""
        config = self.config
        if self.step < config.warmup:
            return config.learning_rate * (self.step + 1) / config.warmup
        falling = config.cooldown * (config.steps - config.warmup)
        left = min(1.0, (config.steps - self.step) / max(1.0, falling))
        return config.learning_rate * 0.5 * (1 - math.cos(math.pi * left))

    def _validate(self, watchers: Sequence[Watcher]) -> None:
        """Measures the averaged weights, and keeps them if they are the best so far."""
        score = 0.0
        if self.team.is_first:
            model = self.averaged_model()
            result = validate(model, self.data.held_out, self.config, device=self.device, workers=self.workers)
            if result.score > self.best_score:
                self.best_validation = asdict(result)
                self.best_weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
            self._log({"step": self.step, "validation": asdict(result)})
            for watcher in watchers:
                watcher.validated(self, result)
            self._examine(result, watchers)
            score = result.score
        score = self.team.told(score)
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step

    def _examine(self, result: Validation, watchers: Sequence[Watcher]) -> None:
        """Names what is amiss, in the log and to whoever watches."""
        if self.config.bypassed:
            return
        is_warm = self.step > 2 * self.config.warmup  # who has hardly moved yet does not stand still
        for symptom in symptoms(result.overall, self.step / self.config.steps if is_warm else 0.0):
            self._log({"step": self.step, "warning": symptom.what, "remedy": symptom.remedy})
            for watcher in watchers:
                watcher.warned(
                    f"at step {self.step} the transformer is {symptom.what}; {symptom.remedy} (entries of --config)"
                )

    def _log(self, entry: dict[str, Any]) -> None:
        if self.team.is_first:
            with (self.run / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry) + "\n")


def check_run(run: Path, config: TrainConfig) -> None:
    """Whether a folder can be that of a run of this configuration.

    Raises:
        OutputExistsError: it holds files of such names that no run wrote.
        UsageError: it is that of a run of another configuration.
    """
    path = run / CONFIG
    if not path.exists() and (others := [name for name in _WRITTEN if (run / name).exists()]):
        raise OutputExistsError(
            f"{run / others[0]} exists already, and no run wrote it", remedy="Choose another folder with -o."
        )
    if path.exists() and (before := _read_config(path)) != config:
        raise UsageError(
            f"{run} holds a run with another configuration{_differences(before, config)}",
            remedy="Repeat the options that started the run, on the same data, or choose another folder with"
            " -o; with --from, the new run begins with what one that was finished has learned.",
        )


class _Recent:
    """Running means of the parts of the loss."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, parts: Losses) -> None:
        values = {name: float(value.detach()) for name, value in parts.items()}
        for name, new in {**values, "loss": sum(values.values())}.items():
            self.values[name] = 0.95 * self.values.get(name, new) + 0.05 * new

    def means(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in self.values.items()}


def _read_config(path: Path) -> TrainConfig | None:
    """What a run was started with; None if that cannot be told."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, UsageError):
        return None


def _differences(before: TrainConfig | None, now: TrainConfig) -> str:
    if before is None:
        return ""
    return ": " + ", ".join(name for name in now.__struct_fields__ if getattr(before, name) != getattr(now, name))


def _truncate_log(path: Path, step: int) -> None:
    """Drops what an interrupted run logged after its last saved state."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    write_atomically(path, b"".join(line for line in lines if _step_of(line) <= step))


def _step_of(line: bytes) -> float:
    """Of a line of the log; infinite if it is torn."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
