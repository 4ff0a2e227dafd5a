"""How good a model is on held-out images, scene by scene."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stn_cli.geometry import Transform
from stn_cli.networks.model import Rectifier
from stn_cli.training.config import TrainConfig
from stn_cli.training.objectives import border, direction, point_errors
from stn_cli.training.samples import Samples, batches


@dataclass(frozen=True)
class Validation:
    """Measures over all held-out samples (`overall`) and for each scene by name."""

    overall: dict[str, float]
    scenes: dict[str, dict[str, float]]

    @property
    def score(self) -> float:
        """What the best checkpoint is chosen by, higher is better: right poses and right labels, as far as known."""
        known = [self.overall[name] for name in ("right", "accuracy") if name in self.overall]
        return float(np.mean(known))


@torch.inference_mode()
def validate(model: Rectifier, samples: Samples, config: TrainConfig, *, workers: int = 1) -> Validation:
    """Measures the model on all samples."""
    model.eval()
    columns: list[dict[str, np.ndarray]] = []
    for batch in batches(samples, config.batch_size, workers=workers):
        output = model(batch.canvas.float() / 255)
        transform = output.located.transform
        error = point_errors(transform, batch.truth).float().mean(dim=1) / 2
        correct = torch.full_like(error, float("nan"))
        labelled = batch.label >= 0
        if output.logits.shape[1]:
            correct[labelled] = (output.logits.argmax(1) == batch.label)[labelled].float()
        columns.append(
            {
                "error": error.numpy(),
                "rotation": _rotation_error(transform, batch.truth),
                "confidence": output.located.confidence.numpy(),
                "correct": correct.numpy(),
                "scene": batch.scene.numpy(),
            }
        )
    table = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    scenes = {
        scene.name: _measures({name: values[table["scene"] == number] for name, values in table.items()}, config.right)
        for number, scene in enumerate(samples.scenes)
        if bool(np.any(table["scene"] == number))
    }
    return Validation(_measures(table, config.right), scenes)


def _rotation_error(transform: Transform, truth: Tensor) -> np.ndarray:
    """|predicted − true| angle of the frame's direction in degrees."""
    found, true = direction(border(transform, truth).double()), direction(truth)
    cross = found[:, 0] * true[:, 1] - found[:, 1] * true[:, 0]
    degrees: np.ndarray = torch.rad2deg(torch.atan2(cross, (found * true).sum(dim=1))).abs().numpy()
    return degrees


def _measures(table: dict[str, np.ndarray], most: float) -> dict[str, float]:
    measures = {"samples": float(len(table["error"]))}
    known = np.isfinite(table["error"])
    if known.any():
        error, rotation = table["error"][known], table["rotation"][known]
        right = error < most
        measures |= {
            "right": float(right.mean()),
            "error_median": float(np.median(error)),
            "error_p95": float(np.quantile(error, 0.95)),
            "rotation_median": float(np.median(rotation)),
            "rotation_p95": float(np.quantile(rotation, 0.95)),
            "rotation_within_15": float((rotation <= 15).mean()),
            "turned_over": float((rotation > 90).mean()),
            "confidence_brier": float(np.mean((table["confidence"][known] - right) ** 2)),
        }
    labelled = np.isfinite(table["correct"])
    if labelled.any():
        measures["accuracy"] = float(table["correct"][labelled].mean())
    return measures
