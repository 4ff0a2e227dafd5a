"""What is minimised: the geometric error against a known truth, and the classification error behind the crop."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from stn_cli.geometry import Transform, outline
from stn_cli.networks.config import ModelConfig
from stn_cli.networks.localization import Pose
from stn_cli.networks.model import Rectified

RIGHT = 0.1
"""A pose counts as right when the corners of its frame err by less than this share of the frame's side, on average."""
_SMOOTH = 0.05
"""Where the corner loss turns from quadratic to linear, in half sides of the frame."""


class Losses(NamedTuple):
    """The parts of the loss, each a mean over the batch, weighted as they add up."""

    corners: Tensor
    angle: Tensor
    confidence: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        return self.corners + self.angle + self.confidence + self.classes


def losses(
    output: Rectified,
    truth: Float64[Tensor, "b 3 3"],
    label: Int64[Tensor, " b"],
    config: ModelConfig,
    classify_weight: float,
) -> Losses:
    """The losses of a batch; samples without truth or without label do not count in the respective part."""
    zero = output.crop.new_zeros(())
    known = torch.isfinite(truth).all(dim=(1, 2))
    corners = angle = confidence = classes = zero
    if bool(known.any()):
        errors = [corner_errors(transform, truth, known) for transform in output.located.transforms]
        corners = torch.stack([_robust(error) for error in errors]).sum()
        angle = _angle_loss(output.located.poses[0], truth, known)
        right = (errors[-1].detach().mean(dim=1) / 2 < RIGHT).float()
        logit = output.located.poses[-1].confidence[known]
        confidence = 0.1 * F.binary_cross_entropy_with_logits(logit, right)
    labelled = label >= 0
    if config.classifier is not None and bool(labelled.any()):
        classes = classify_weight * F.cross_entropy(output.logits[labelled].float(), label[labelled])
    return Losses(corners, angle, confidence, classes)


def corner_errors(
    transform: Transform, truth: Float64[Tensor, "b 3 3"], known: Bool[Tensor, " b"]
) -> Float[Tensor, "known 4"]:
    """Distances of the predicted frame's corners from the true ones, measured in half sides of the true frame."""
    points = torch.from_numpy(outline()).to(transform.theta.dtype)
    predicted = transform(points)[known]
    back = torch.linalg.inv(truth[known]).to(predicted.dtype)
    homogeneous = predicted @ back[:, :2, :2].mT + back[:, None, :2, 2]
    weight = predicted @ back[:, 2:, :2].mT + back[:, None, 2:, 2]
    distances: Tensor = torch.linalg.vector_norm(homogeneous / weight - points, dim=-1)
    return distances


def _robust(distance: Float[Tensor, "b 4"]) -> Tensor:
    """Smooth L1 with a ceiling on what a single hopeless sample can pull: linear, then logarithmic."""
    smooth = torch.where(distance < _SMOOTH, 0.5 * distance**2 / _SMOOTH, distance - 0.5 * _SMOOTH)
    return torch.where(distance < 1.0, smooth, 1.0 - 0.5 * _SMOOTH + torch.log(distance.clamp(min=1.0))).mean()


def _angle_loss(pose: Pose, truth: Float64[Tensor, "b 3 3"], known: Bool[Tensor, " b"]) -> Tensor:
    """Cross-entropy of the angle votes; the true angle is shared by the two bins beside it."""
    votes = pose.angle_votes[known]
    bins = votes.shape[1]
    if bins == 0:
        return pose.theta.new_zeros(())
    turned = truth[known][:, :2, 0]
    position = torch.atan2(turned[:, 1], turned[:, 0]) * (bins / (2 * math.pi)) % bins
    lower = position.floor()
    share = (position - lower).to(votes.dtype)
    log_votes = F.log_softmax(votes, dim=1)
    below = log_votes.gather(1, (lower.long() % bins)[:, None])[:, 0]
    above = log_votes.gather(1, ((lower.long() + 1) % bins)[:, None])[:, 0]
    return -0.1 * ((1 - share) * below + share * above).mean()
