"""What is minimised: the geometric error against a known truth, and the classification error behind the crop."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stn_cli.annotations import Bool, Float, Int64
from stn_cli.geometry import BorderLayout, Transform, corners
from stn_cli.geometry.arrays import like
from stn_cli.networks.config import LocalizerConfig, ModelConfig
from stn_cli.networks.localization import Pose
from stn_cli.networks.model import Rectified
from stn_cli.networks.transformer import Asked, Located
from stn_cli.training.config import TrainConfig
from stn_cli.training.penalties import penalties
from stn_cli.training.samples import Batch

_SMOOTH = 0.05
"""Where the point loss turns from quadratic to linear, in half heights of the frame."""

Points = Float[Tensor, "b 2n d"]
"""Border points of a frame, `border 2xN`: the upper row from left to right, then the lower. Of volumes, the corners."""


Losses = dict[str, Tensor]
"""The parts of the loss by name, each a mean over the batch, weighted as they add up."""


def losses(output: Rectified, batch: Batch, model: ModelConfig, config: TrainConfig) -> Losses:
    """The losses of a batch; samples without truth, label or text do not count in the respective part."""
    located, parts = output.located, Losses()
    truth = batch.truth if "straighten" in config.objectives else torch.full_like(batch.truth, math.nan)
    known = torch.isfinite(truth).all(dim=(1, 2))
    if bool(known.any()) and located.poses:
        parts |= _pose_losses(located, known, truth[known].float(), model, config)
    if bool(known.any()) and located.asked is not None:
        parts["direction"] = _direction_loss(located.asked, known, truth[known].float())
    if located.poses and not bool(known.all()):
        for head in output.heads:
            for name, penalty in penalties(head.transform[~known], config.penalties).items():
                parts[name] = parts.get(name, 0.0) + penalty
    labelled = batch.label >= 0
    right: list[tuple[Tensor, Tensor]] = []
    if output.logits is not None and bool(labelled.any()):
        logits, label = output.logits[labelled].float(), batch.label[labelled]
        parts["classes"] = config.classify_weight * F.cross_entropy(logits, label)
        right.append((labelled, logits.argmax(dim=1) == label))
    read = _readable(output, batch)
    if output.characters is not None and bool(read.any()):
        characters, text = output.characters[read].float(), batch.text[read]
        parts["characters"] = config.read_weight * _reading_loss(characters, text)
        right.append((read, read_right(characters, text)))
    if right and located.poses and not bool(known.any()):
        which, correct = right[-1]
        sure = torch.stack([head.poses[-1].confidence[which] for head in output.heads])
        parts["confidence"] = _confidence_loss(sure, correct.expand_as(sure))
    return parts or {"unlabelled": _nothing(output)}


def _nothing(output: Rectified) -> Tensor:
    """Zero, and a gradient of zeros, where nothing is known of a batch, or of a piece of it."""
    told = [part for part in (output.logits, output.characters) if part is not None]
    return 0.0 * torch.stack([part.float().sum() for part in told]).sum()


def _readable(output: Rectified, batch: Batch) -> Bool[Tensor, " b"]:
    """Whether there is a text, all of it in the alphabet."""
    most = 0 if output.characters is None else output.characters.shape[2] - 1
    return (batch.text > 0).any(dim=1) & (batch.text <= most).all(dim=1)


def read_right(characters: Float[Tensor, "b columns k"], text: Int64[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Whether the most probable path through the columns spells the text."""
    best, wanted = characters.argmax(dim=2).cpu(), text.cpu()
    kept = (best != 0) & (best != F.pad(best, (1, 0), value=0)[:, :-1])
    spelled = [row[keep].tolist() for row, keep in zip(best, kept, strict=True)]
    meant = [row[row > 0].tolist() for row in wanted]
    return torch.tensor([a == b for a, b in zip(spelled, meant, strict=True)], device=text.device)


def _reading_loss(characters: Float[Tensor, "b columns k"], text: Int64[Tensor, "b t"]) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), a character's share."""
    lengths = (text > 0).sum(dim=1)
    columns = torch.full_like(lengths, characters.shape[1])
    log_probabilities = F.log_softmax(characters, dim=2).transpose(0, 1)
    return F.ctc_loss(log_probabilities, text, columns, lengths, zero_infinity=True)


def _confidence_loss(logit: Float[Tensor, "*heads b"], right: Bool[Tensor, "*heads b"]) -> Tensor:
    return 0.1 * F.binary_cross_entropy_with_logits(logit, right.float())


def _pose_losses(located: Located, known: Tensor, true: Points, model: ModelConfig, config: TrainConfig) -> Losses:
    weight = config.straighten_weight
    passes = [1 if _is_bent(true) else stage.repeat for stage in model.stages]  # each starts near what is bent once
    stages = [stage for stage, times in zip(model.stages, passes, strict=True) for _ in range(times)]
    stages = stages[-len(located.poses) :]
    steps = list(zip(stages, located.transforms, located.poses, located.starts, strict=True))
    points = torch.stack([_point_loss(stage, found, known, true) for stage, found, *_ in steps]).sum()
    angle = torch.stack([_angle_loss(stage, pose, start, known, true) for stage, _, pose, start in steps]).sum()
    error = _either_way(model.stages[-1], located.transform, known, true).detach() / 2
    confidence = _confidence_loss(located.poses[-1].confidence[known], error < config.right)
    return {"points": weight * points, "angle": weight * angle, "confidence": weight * confidence}


def point_errors(transform: Transform, truth: Float[Tensor, "b 2n d"]) -> Float[Tensor, "b 2n"]:
    """Distances of the predicted frame's border points from the true ones, in half heights of the true frame."""
    true = truth.to(transform.theta.dtype)
    errors: Tensor = _distances(border(transform, true), true) / _half_height(true)[:, None]
    return errors


def direction(points: Points) -> Float[Tensor, "b 2"]:
    """From the left to the right of a frame: at a right angle to the mean way down, which bends do not turn."""
    upper, lower = _rows(points)
    if points.shape[1] == 4:
        return (points[:, 1] - points[:, 0]) + (points[:, 3] - points[:, 2])
    down = (lower - upper).mean(dim=1)
    return torch.stack((down[:, 1], -down[:, 0]), dim=1)


def box_around(points: Points) -> Float[Tensor, "b 4 2"]:
    """The corners of the smallest rectangle around a bent frame that is turned as the frame is."""
    along = F.normalize(direction(points), dim=1)
    across = torch.stack((-along[:, 1], along[:, 0]), dim=1)
    x, y = (torch.einsum("bnd,bd->bn", points, axis) for axis in (along, across))
    (left, right), (top, bottom) = ((axis.amin(dim=1), axis.amax(dim=1)) for axis in (x, y))
    corners = ((left, top), (right, top), (left, bottom), (right, bottom))
    return torch.stack([u[:, None] * along + v[:, None] * across for u, v in corners], dim=1)


def _is_bent(true: Points) -> bool:
    return true.shape[1] > 4 and true.shape[2] == 2


def _target(stage: LocalizerConfig, true: Points) -> Points:
    """What a stage is asked for: where its transforms cannot bend, the box around what is bent."""
    return box_around(true) if _is_bent(true) and stage.transform.kind != "tps" else true


def _point_loss(stage: LocalizerConfig, found: Transform, known: Tensor, true: Points) -> Tensor:
    """Where votes decide which way is up, the points are right either way: the votes have a loss of their own."""
    target = _target(stage, true)
    predicted = border(found, target)[known].float()
    unit = _half_height(target) if target.shape[1] == true.shape[1] else _half_side(target)
    return _robust(_nearer(stage, predicted, target) / unit[:, None])


def _nearer(stage: LocalizerConfig, predicted: Points, target: Points) -> Float[Tensor, "b k"]:
    """Distances from the target, or from the target turned over where that is nearer and up is voted on."""
    distances = _distances(predicted, target)
    if not stage.angle_bins:
        return distances
    over = _distances(predicted, target.flip(1))
    return torch.where((over.mean(dim=1) < distances.mean(dim=1))[:, None], over, distances)


def _either_way(stage: LocalizerConfig, found: Transform, known: Tensor, true: Points) -> Float[Tensor, " b"]:
    """Mean errors in half heights; of a spline whichever way is up, since its confidence does not speak of that."""
    predicted = border(found, true)[known].float()
    distances = _nearer(stage, predicted, true) if stage.votes_on_up else _distances(predicted, true)
    return distances.mean(dim=1) / _half_height(true)


def _angle_loss(stage: LocalizerConfig, pose: Pose, start: Transform, known: Tensor, true: Points) -> Tensor:
    if not stage.angle_bins:
        return pose.theta.new_zeros(())
    if stage.transform.kind != "tps":
        return _circle_loss(pose.angle_votes[known], _as_shown(direction(_target(stage, true)), start, known))
    return 0.2 * F.cross_entropy(pose.angle_votes[known].float(), _turned_over(start, known, true).long())


def _direction_loss(asked: Asked, known: Tensor, true: Points) -> Tensor:
    """Of whether a straightened line is upright, as it was shown."""
    return F.binary_cross_entropy_with_logits(asked.odds[known], (~_turned_over(asked.shown, known, true)).float())


def _turned_over(shown: Transform, known: Tensor, true: Points) -> Bool[Tensor, " k"]:
    """Whether what was shown is upside down."""
    begun = border(shown, true)
    begun = begun.expand(len(known), -1, -1)[known].float()
    return (direction(begun) * direction(true)).sum(dim=1) < 0


def _as_shown(along: Float[Tensor, "b 2"], start: Transform, known: Tensor) -> Float[Tensor, "b 2"]:
    """Directions in the image as a net sees them that is shown `start`, which may be oblong, or slanted."""
    jacobian = start.jacobian(like([[0.0, 0.0]], start.theta)).detach()
    (a, b), (c, d) = (row.unbind(-1) for row in jacobian[..., 0, :, :].unbind(-2))
    x, y = along.unbind(1)
    a, b, c, d = (entry.expand(len(known))[known].to(along.dtype) for entry in (a, b, c, d))
    is_turned_over = (a * d - b * c)[:, None] < 0
    seen = torch.stack((d * x - b * y, a * y - c * x), dim=1)  # by the inverse, but for a positive factor
    return torch.where(is_turned_over, -seen, seen)


def _circle_loss(votes: Float[Tensor, "b bins"], along: Float[Tensor, "b 2"]) -> Tensor:
    """Cross-entropy of the angle votes; the true angle is shared by the two bins beside it."""
    bins = votes.shape[1]
    position = torch.atan2(along[:, 1], along[:, 0]) * (bins / (2 * math.pi)) % bins
    lower = position.floor()
    share = (position - lower).to(votes.dtype)
    log_votes = F.log_softmax(votes, dim=1)
    below = log_votes.gather(1, (lower.long() % bins)[:, None])[:, 0]
    above = log_votes.gather(1, ((lower.long() + 1) % bins)[:, None])[:, 0]
    return -0.1 * ((1 - share) * below + share * above).mean()


def _robust(distance: Float[Tensor, "b k"]) -> Tensor:
    """Smooth L1 with a ceiling on what a single hopeless sample can pull: linear, then logarithmic."""
    smooth = torch.where(distance < _SMOOTH, 0.5 * distance**2 / _SMOOTH, distance - 0.5 * _SMOOTH)
    return torch.where(distance < 1.0, smooth, 1.0 - 0.5 * _SMOOTH + torch.log(distance.clamp(min=1.0))).mean()


def border(transform: Transform, beside: Points) -> Points:
    """The transform's border points, as many as `beside` has."""
    layout = BorderLayout(beside.shape[1] // 2).points if transform.dims == 2 else corners(3)
    points: Tensor = transform(like(layout, transform.theta))
    return points


def _rows(points: Points) -> tuple[Tensor, Tensor]:
    upper, lower = points.chunk(2, dim=1)
    return upper, lower


def _half_height(points: Points) -> Float[Tensor, " b"]:
    upper, lower = _rows(points)
    half: Tensor = 0.5 * _distances(upper, lower).mean(dim=1)
    return half


def _half_side(box: Float[Tensor, "b 4 2"]) -> Float[Tensor, " b"]:
    """Of the square of a box's area."""
    area = _distances(box[:, 0], box[:, 1]) * _distances(box[:, 0], box[:, 2])
    half: Tensor = 0.5 * area.sqrt()
    return half


def _distances(a: Tensor, b: Tensor) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(a - b, dim=-1)
    return distances
