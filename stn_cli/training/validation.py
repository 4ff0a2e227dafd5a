"""How good a model is on held-out images, scene by scene."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stn_cli.networks.model import Rectifier
from stn_cli.training.objectives import RIGHT, corner_errors
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
def validate(model: Rectifier, samples: Samples, *, workers: int = 1) -> Validation:
    """Measures the model on all samples."""
    model.eval()
    columns: list[dict[str, np.ndarray]] = []
    for batch in batches(samples, workers=workers):
        output = model(batch.canvas.float() / 255)
        known = torch.isfinite(batch.truth).all(dim=(1, 2))
        error = torch.full((len(batch.label),), float("nan"))
        transform = output.located.transform
        if bool(known.any()):
            error[known] = corner_errors(transform, batch.truth, known).float().mean(dim=1) / 2
        correct = torch.full_like(error, float("nan"))
        labelled = batch.label >= 0
        if output.logits.shape[1]:
            correct[labelled] = (output.logits.argmax(1) == batch.label)[labelled].float()
        columns.append(
            {
                "error": error.numpy(),
                "rotation": _rotation_error(transform.jacobian(torch.zeros(1, 2))[:, 0], batch.truth),
                "confidence": torch.sigmoid(output.located.poses[-1].confidence).numpy(),
                "correct": correct.numpy(),
                "scene": batch.scene.numpy(),
            }
        )
    table = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    scenes = {
        scene.name: _measures({name: values[table["scene"] == number] for name, values in table.items()})
        for number, scene in enumerate(samples.config.scenes)
        if bool(np.any(table["scene"] == number))
    }
    return Validation(_measures(table), scenes)


def _rotation_error(jacobian: Tensor, truth: Tensor) -> np.ndarray:
    """|predicted − true| angle of the frame's x axis in degrees."""
    found = torch.atan2(jacobian[:, 1, 0], jacobian[:, 0, 0]).double()
    difference = found - torch.atan2(truth[:, 1, 0], truth[:, 0, 0])
    degrees: np.ndarray = torch.rad2deg(torch.atan2(difference.sin(), difference.cos())).abs().numpy()
    return degrees


def _measures(table: dict[str, np.ndarray]) -> dict[str, float]:
    measures = {"samples": float(len(table["error"]))}
    known = np.isfinite(table["error"])
    if known.any():
        error, rotation = table["error"][known], table["rotation"][known]
        right = error < RIGHT
        measures |= {
            "right": float(right.mean()),
            "corner_error_median": float(np.median(error)),
            "corner_error_p95": float(np.quantile(error, 0.95)),
            "rotation_median": float(np.median(rotation)),
            "rotation_p95": float(np.quantile(rotation, 0.95)),
            "confidence_brier": float(np.mean((table["confidence"][known] - right) ** 2)),
        }
    labelled = np.isfinite(table["correct"])
    if labelled.any():
        measures["accuracy"] = float(table["correct"][labelled].mean())
    return measures
