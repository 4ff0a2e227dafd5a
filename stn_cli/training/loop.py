"""The training loop: one for all objectives, resumable at any step."""

import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.weights import load_model
from stn_cli.errors import StnError, StorageError, TrainingDataError, UsageError
from stn_cli.images import exclusive, remove_leftovers, write_atomically
from stn_cli.networks.config import ClassifierConfig, ModelConfig
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import TrainConfig
from stn_cli.training.data import TrainingData
from stn_cli.training.objectives import Losses, losses
from stn_cli.training.revival import revive
from stn_cli.training.samples import Batch, batches
from stn_cli.training.starts import disturbed
from stn_cli.training.states import States
from stn_cli.training.validation import Validation, validate

CONFIG, LOG = "config.json", "log.jsonl"
_LOG_EVERY = 50
_LOOKED_AT = 8
"""Batches on which a hidden unit must fire once, or begins anew."""

Progress = Callable[[int, dict[str, float]], None]


class Diverged(StnError):
    """The loss is no longer a number; the last good state is kept."""

    exit_code = 9
    default_remedy = "Lower learning_rate or clip, and train into a new folder; the states before are kept in this one."


def model_config(config: TrainConfig, classes: tuple[str, ...]) -> ModelConfig:
    """The model that a run trains, given the classes that its data turned out to have."""
    if "classify" in config.objectives and len(classes) < 2:
        raise TrainingDataError(f"classify needs two classes or more; the data has {len(classes)}")
    classifier = None
    if "classify" in config.objectives:
        classifier = ClassifierConfig(
            classes=classes,
            input_size=config.classifier_size,
            widths=config.classifier_widths,
            hidden=config.classifier_hidden,
        )
    return ModelConfig(stages=config.stages, classifier=classifier, upright_odds=config.upright_odds)


class Trainer:
    """A run in its folder: the last `keep` states to go on from, `config.json`, `log.jsonl`.

    N steps equal k steps, an interruption and N − k steps, bit for bit on a CPU with the same number of threads:
    samples and dropout depend on (seed, step) alone.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, run: Path, *, workers: int = 1, keep: int = 2) -> None:
        self.config, self.data, self.run, self.workers = config, data, run, workers
        self.states = States(run, keep)
        torch.manual_seed(config.seed)
        self.model_config = model_config(config, data.classes)
        self.model = Rectifier(self.model_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.transformer.resample = config.resample
        if config.start is not None:
            _start_from(self.model, load_model(open_checkpoint(config.start)))
            revive(self.model, self._looked_at(), first=config.frozen)
        self.model.transformer.stages[: config.frozen].requires_grad_(False)
        self.average = AveragedModel(
            self.model,
            multi_avg_fn=get_ema_multi_avg_fn(config.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.optimizer = _optimizer(self.model, config)
        self.step, self.best_score, self.last_norm = 0, -math.inf, 0.0
        self.recent = _Recent()
        self.best_weights: dict[str, torch.Tensor] = {}
        self.best_validation: dict[str, Any] = {}

    def train(
        self,
        progress: Progress,
        is_stopped: Callable[[], bool] = lambda: False,
        warn: Callable[[str], None] = warnings.warn,
    ) -> bool:
        """Trains to the last step, validating and saving on the way; returns whether it came so far.

        Args:
            progress: hears of every step.
            is_stopped: once it says so, the state is saved and no further step is made.
            warn: hears of states that are damaged; the run goes on from an earlier one then.

        Raises:
            Diverged: the loss or its gradient is no longer finite.
            StorageError, UsageError: the folder cannot be used, or is that of another run or of one under way.
        """
        self._make_folder()
        with exclusive(self.run):
            self._prepare(warn)
            return self._train(progress, is_stopped)

    def _train(self, progress: Progress, is_stopped: Callable[[], bool]) -> bool:
        started, recent = time.monotonic(), self.recent
        for batch in self._batches():
            if is_stopped():
                self.save()
                return False
            parts = self._one_step(batch)
            self.step += 1
            recent.add(parts)
            progress(self.step, recent.means())
            if self.step % _LOG_EVERY == 0:
                seconds = time.monotonic() - started
                self._log({"step": self.step, "seconds": round(seconds, 1), **recent.means(), "rate": self._rate()})
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self._validate()
                self.save()
        return True

    def best_model(self) -> Rectifier:
        """The averaged weights with the best validation score so far."""
        if not self.best_weights:
            raise UsageError(f"{self.run} holds no validated weights yet", remedy="Let the run go on.")
        model = Rectifier(self.model_config)
        model.load_state_dict(self.best_weights)
        return model.eval()

    def save(self) -> None:
        """Writes the state from which the run can go on; Diverged, and the states before stay, if it is not finite."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise self._diverged("a weight")
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "recent": self.recent.values,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "best_validation": json.dumps(self.best_validation),
        }
        self.states.save(self.step, state)

    def _make_folder(self) -> None:
        try:
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.run} cannot be created: {error.strerror}") from error

    def _prepare(self, warn: Callable[[str], None]) -> None:
        """A new run, or the newest state of the one that is there."""
        wanted = msgspec.json.format(msgspec.json.encode(self.config)) + b"\n"
        path = self.run / CONFIG
        if path.exists() and _read_config(path) != self.config:
            raise UsageError(
                f"{self.run} holds a run with another configuration",
                remedy="Choose another folder with -o, or repeat the options that started the run.",
            )
        remove_leftovers(self.run, is_ours=True)
        write_atomically(path, wanted)
        for damage in self.states.restore(self._load):
            warn(damage)
        _truncate_log(self.run / LOG, self.step)

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_score = state["step"], state["best_score"]
        self.recent.values = state["recent"]
        self.best_weights, self.best_validation = state["best_weights"], json.loads(state["best_validation"])

    def _looked_at(self) -> Float[Tensor, "n c side side"]:
        some = itertools.islice(batches(self.data.training, self.config.batch_size, workers=self.workers), _LOOKED_AT)
        return torch.cat([batch.canvas for batch in some]).float() / 255

    def _batches(self) -> Iterator[Batch]:
        return batches(self.data.training, self.config.batch_size, first=self.step, workers=self.workers)

    def _one_step(self, batch: Batch) -> Losses:
        self.model.train()
        torch.manual_seed(hash((self.config.seed, self.step)))
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate() * group["scale"]
        images = (batch.canvas.float() / 255).contiguous(memory_format=torch.channels_last)
        config, bent = self.config, batch.truth.shape[1] > 4
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            output = self.model(
                images,
                detach="straighten" in config.objectives,
                start=disturbed(batch.truth, near=config.frozen > 0) if bent else None,
                skip=config.frozen,
            )
        parts = losses(
            output,
            batch.truth,
            batch.label,
            self.model_config,
            right=config.right,
            classify_weight=config.classify_weight,
        )
        broken = [name for name, part in parts._asdict().items() if not bool(torch.isfinite(part))]
        if broken:
            raise self._diverged(f"the loss ({' + '.join(broken)})")
        self.optimizer.zero_grad()
        parts.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if not bool(torch.isfinite(norm)):
            raise self._diverged("the gradient")
        self.last_norm = float(norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return parts

    def _diverged(self, what: str) -> Diverged:
        before = f"the gradient before had a norm of {self.last_norm:.3g}, at a learning rate of {self._rate():.3g}"
        return Diverged(f"{what} is no longer a finite number after step {self.step}; {before}")

    def _rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        if self.step < self.config.warmup:
            return self.config.learning_rate * (self.step + 1) / self.config.warmup
        progress = (self.step - self.config.warmup) / max(1, self.config.steps - self.config.warmup)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def _validate(self) -> Validation:
        model = cast("Rectifier", self.average.module)
        result = validate(model, self.data.held_out, self.config, workers=self.workers)
        if result.score > self.best_score:
            self.best_score, self.best_validation = result.score, asdict(result)
            self.best_weights = {name: value.clone() for name, value in self.average.module.state_dict().items()}
        self._log({"step": self.step, "validation": asdict(result), "score": result.score})
        return result

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")


def _start_from(model: Rectifier, other: Rectifier) -> None:
    """Takes over the weights that have the same name and shape in both; the rest keeps its own start."""
    mine, theirs = model.state_dict(), other.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    model.load_state_dict({**mine, **fitting})


class _Recent:
    """Running means of the parts of the loss."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, parts: Losses) -> None:
        for name, value in {**parts._asdict(), "loss": parts.total}.items():
            new = float(value.detach())
            self.values[name] = 0.95 * self.values.get(name, new) + 0.05 * new

    def means(self) -> dict[str, float]:
        return {name: round(value, 5) for name, value in self.values.items()}


def _optimizer(model: Rectifier, config: TrainConfig) -> torch.optim.AdamW:
    """Localization nets have their own scale; weight decay spares biases and normalisation."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = config.localizer_scale if name.startswith("transformer.") else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()],
        lr=config.learning_rate,
    )


def _read_config(path: Path) -> TrainConfig | None:
    """What a run was started with; None if that cannot be told."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, UsageError):
        return None


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
