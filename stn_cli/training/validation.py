"""How good a model is on held-out images, scene by scene."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stn_cli.geometry import Transform, determinants, grid, zooms
from stn_cli.geometry.arrays import like
from stn_cli.geometry.rotation import angle, rotation
from stn_cli.networks.model import Rectified, Rectifier
from stn_cli.training.config import TrainConfig
from stn_cli.training.objectives import Points, border, direction, point_errors, read_right
from stn_cli.training.overlap import overlap
from stn_cli.training.samples import Batch, Samples, batches

Table = dict[str, np.ndarray]
"""Columns of one number a sample; NaN where there is none."""

_LATTICES = {dims: grid((5,) * dims) for dims in (2, 3)}
_SATURATED = 0.97
"""Share of a bound beyond which a number of a localization net counts as stuck to it."""


@dataclass(frozen=True)
class Validation:
    """Measures over all held-out samples (`overall`) and for each scene by name; `score` chooses the best weights."""

    overall: dict[str, float]
    scenes: dict[str, dict[str, float]]
    score: float


def validate(
    model: Rectifier, samples: Samples, config: TrainConfig, *, device: str = "cpu", workers: int = 1
) -> Validation:
    """Measures the model on all samples."""
    table = measured(model, samples, config, device=device, workers=workers)
    scenes = {
        name: _measures({key: values[table["scene"] == number] for key, values in table.items()}, config.right)
        for number, name in enumerate(samples.scene_names)
        if bool(np.any(table["scene"] == number))
    }
    overall = _measures(table, config.right)
    return Validation(overall, scenes, _score(overall, config))


@torch.inference_mode()
def measured(
    model: Rectifier, samples: Samples, config: TrainConfig, *, device: str = "cpu", workers: int = 1
) -> Table:
    """What the model makes of each sample."""
    model.eval()
    columns: list[Table] = []
    for batch in batches(samples, config.batch_size, workers=workers):
        moved = batch.to(device)
        image = moved.canvas.float() / 255
        output = model(image, bypass=config.bypassed)
        crop = model.transformer.sample(image, output.located.transform)
        columns.append(
            {
                "scene": batch.scene.numpy(),
                "contrast": (_deviation(crop) / _deviation(image).clamp(min=1e-3)).cpu().numpy(),
                **_poses(output, moved),
                **_right(output, moved, ""),
                **_right(model(image, bypass=True), moved, "_unrectified"),
            }
        )
    return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}


def _deviation(images: Tensor) -> Tensor:
    """Of the pixels of each image (b, c, *size)."""
    return images.float().flatten(1).std(dim=1)


def _poses(output: Rectified, batch: Batch) -> Table:
    located = output.located
    transform = located.transform
    points = like(_LATTICES[transform.dims], transform.theta)
    determinant = determinants(transform, points)
    middle, found = transform(points).mean(dim=1), border(transform, batch.truth).to(batch.truth.dtype)
    reached = located.poses[-1].reached if located.poses else None
    confidence = located.confidence if located.poses else torch.full((len(batch.label),), math.nan)
    values = {
        "error": point_errors(transform, batch.truth).float().mean(dim=1) / 2,
        "rotation_error": _rotation_error(found, batch.truth),
        "confidence": confidence,
        "zoom": zooms(transform),
        "turn": _turn(found),
        "x": middle[:, 0],
        "y": middle[:, 1],
        "out_of_frame": (transform(points).abs() > 1).any(dim=2).float().mean(dim=1),
        "fold": (determinant <= 0).any(dim=1).float(),
        "saturated": torch.zeros(len(batch.label))
        if reached is None
        else (reached.abs() > _SATURATED).float().mean(dim=1),
    }
    table = {name: value.float().cpu().numpy() for name, value in values.items()}
    return {**table, "iou": _overlaps(transform, batch.truth)}


def _right(output: Rectified, batch: Batch, suffix: str) -> Table:
    """1 where the class, or the text, is right; 0 where it is wrong."""
    correct, read = (torch.full((len(batch.label),), math.nan) for _ in range(2))
    labelled, with_text = (batch.label >= 0).cpu(), (batch.text > 0).any(dim=1).cpu()
    if output.logits is not None:
        correct[labelled] = (output.logits.argmax(1) == batch.label).float().cpu()[labelled]
    if output.characters is not None:
        read[with_text] = read_right(output.characters.float(), batch.text).float().cpu()[with_text]
    return {f"correct{suffix}": correct.numpy(), f"read{suffix}": read.numpy()}


def _turn(frame: Points) -> Tensor:
    """By how many degrees a frame is turned; of a volume, about whatever axis."""
    if frame.shape[2] == 3:
        return torch.rad2deg(angle(rotation(frame)))
    along = direction(frame)
    return torch.rad2deg(torch.atan2(along[:, 1], along[:, 0]))


def _rotation_error(found: Points, truth: Points) -> Tensor:
    """|predicted − true| angle of the frame in degrees."""
    if truth.shape[2] == 3:
        known = torch.isfinite(truth).all(dim=(1, 2))
        errors = torch.full((len(truth),), math.nan, dtype=truth.dtype, device=truth.device)
        errors[known] = torch.rad2deg(angle(rotation(found[known]).mT @ rotation(truth[known])))
        return errors
    along, true = direction(found), direction(truth)
    cross = along[:, 0] * true[:, 1] - along[:, 1] * true[:, 0]
    return torch.rad2deg(torch.atan2(cross, (along * true).sum(dim=1))).abs()


def _overlaps(transform: Transform, truth: Tensor) -> np.ndarray:
    """Intersection over union of the window that the transform shows and the true frame, both convex quadrangles."""
    if truth.shape[1] != 4:  # bent, or of a volume
        return np.full(len(truth), np.nan, np.float32)
    found, true = border(transform, truth).float().cpu().numpy(), truth.float().cpu().numpy()
    return np.array([overlap(*pair) for pair in zip(found, true, strict=True)], np.float32)


def _measures(table: Table, most: float) -> dict[str, float]:
    measures = {"samples": float(len(table["error"]))}
    known = np.isfinite(table["error"])
    if known.any():
        error, rotation = table["error"][known], table["rotation_error"][known]
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
    if np.isfinite(table["iou"]).any():
        measures["iou"] = float(np.nanmean(table["iou"]))
    for name, column in (("accuracy", "correct"), ("words", "read")):
        for suffix in ("", "_unrectified"):
            values = table[column + suffix]
            if np.isfinite(values).any():
                measures[name + suffix] = float(np.nanmean(values))
    for name in ("zoom", "turn", "x", "y"):
        measures |= {f"{name}_mean": float(table[name].mean()), f"{name}_spread": float(table[name].std())}
    for name in ("contrast", "out_of_frame", "fold", "saturated"):
        measures[name] = float(table[name].mean())
    return measures


def _score(overall: dict[str, float], config: TrainConfig) -> float:
    """Right poses, classes and words, as far as a run is to learn them; higher is better."""
    named = {"straighten": "right", "classify": "accuracy", "read": "words"}
    known = [overall[named[objective]] for objective in config.objectives if named[objective] in overall]
    return float(np.mean(known)) if known else -math.inf
