"""Localization nets: from what they see to θ (Jaderberg et al. 2015, section 3.1)."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.errors import UsageError
from stn_cli.geometry.arrays import at_least_float32, matmul
from stn_cli.networks.config import LocalizerConfig, Size
from stn_cli.networks.layers import GreyConv2d
from stn_cli.networks.limited import limited
from stn_cli.networks.sequence import Conv, Flatten, Layer, Linear, MaxPool, MeanPool, Norm, SequenceConfig

_LAST_LEVEL = 7
"""Layers of a convolutional trunk's last level, with the flattening."""
_SHARPNESS = 3.0
"""Exponent on the votes of the angle bins."""
_ROUNDING = 1e-3
_PRIOR_CONCENTRATION = 4.0
"""Of the initial votes about angle 0 (von Mises)."""


class Pose(NamedTuple):
    """What a localization net says of a batch.

    Attributes:
        theta: parameters of its transform.
        confidence: logit of the probability that the pose is right.
        angle_votes: logits over the angle bins, of none where the net has none. Those of a spline, for what it was
            shown being upright or upside down, are not yet in θ: others may have a say in that.
        reached: how far each number behind θ has gone towards its bound, −1…1; None where nobody can tell.
    """

    theta: Float[Tensor, "b dof"]
    confidence: Float[Tensor, " b"]
    angle_votes: Float[Tensor, "b bins"]
    reached: Float[Tensor, "b dof"] | None = None


class Standardize(nn.Module):
    """Zero mean and unit deviation over each image or volume, so that brightness and contrast do not matter."""

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        all_of_it = tuple(range(1, x.ndim))
        centred = x - x.mean(dim=all_of_it, keepdim=True)
        deviation = (centred * centred).mean(dim=all_of_it, keepdim=True).add(1e-4).sqrt()
        return centred / deviation


def conv_trunk(channels: int, widths: tuple[int, ...], dims: int = 2) -> nn.Sequential:
    """A convolution of 5×5, then levels of two of 3×3; the first, and the second of each level, halve the size.

    Of volumes (`dims` 3), of 5×5×5 and 3×3×3.
    """
    layers: list[nn.Module] = [*conv_layers(channels, widths[0], kernel=5, stride=2, dims=dims)]
    for narrow, wide in itertools.pairwise(widths):
        layers += [*conv_layers(narrow, narrow, dims=dims), *conv_layers(narrow, wide, stride=2, dims=dims)]
    return nn.Sequential(*layers, nn.Flatten())


def layers_of(levels: int) -> int:
    """How many layers of a convolutional trunk its first levels are."""
    return 6 * levels - 3


def fc_trunk(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Fully connected layers over all pixels."""
    layers: list[nn.Module] = [nn.Flatten()]
    for narrow, wide in itertools.pairwise((inputs, *widths)):
        layers += [nn.Linear(narrow, wide), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class LocalizationNet(nn.Module):
    """Trunk and head; the head's weights start at zero and its bias at the identity."""

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _trunk(config)
        spec = config.transform.spec
        self.head = nn.Linear(config.hidden, spec.dof + 1 + (0 if config.pooled_votes else config.angle_bins))
        self.votes = _pooled_votes(config) if config.pooled_votes else None
        self.register_buffer("identity", torch.tensor(spec.identity_theta).float(), persistent=False)
        angles = torch.arange(config.angle_bins) * (2 * math.pi / max(1, config.angle_bins))
        self.register_buffer("directions", torch.stack((angles.cos(), angles.sin())), persistent=False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if config.angle_bins:
            concentration = 1.0 if config.transform.kind == "tps" else _PRIOR_CONCENTRATION
            last = self.head if self.votes is None else self.votes[-1]
            with torch.no_grad():
                cast("Tensor", last.bias)[-config.angle_bins :] = concentration * angles.cos()

    identity: Tensor
    directions: Tensor

    def forward(self, x: Float[Tensor, "b c *size"]) -> Pose:
        """Of one look, or of all `looks`, joined along the channels; UsageError for any other number of channels."""
        channels, looks = self.config.channels, self.config.looks
        if x.shape[1] not in (channels, channels * len(looks)):
            raise UsageError(f"a localization net that sees {channels} channels was shown {x.shape[1]}")
        levels = cast("nn.Sequential", self.trunk[1])
        fine = levels[:-_LAST_LEVEL](self.trunk[0](x.reshape(-1, channels, *x.shape[2:])))
        raw = at_least_float32(self.head(self.trunk[2:](levels[-_LAST_LEVEL:](fine))))
        dof = len(self.identity)
        votes = raw[:, dof + 1 :] if self.votes is None else at_least_float32(self.votes(fine))
        if x.shape[1] != channels:
            votes = self._agreed(votes.unflatten(0, (-1, len(looks))))
            raw = raw.unflatten(0, (-1, len(looks)))[:, 0]
        theta, reached = self._theta(raw[:, :dof], votes)
        return Pose(theta, raw[:, dof], votes, reached)

    def _theta(
        self, raw: Float[Tensor, "b dof"], votes: Float[Tensor, "b bins"]
    ) -> tuple[Float[Tensor, "b dof"], Float[Tensor, "b dof"]]:
        config = self.config
        if config.limits is not None:
            return limited(raw, self.identity, config.transform, config.limits)
        reached = torch.tanh(raw / config.bound) if config.bound else torch.zeros_like(raw)
        step = config.bound * reached if config.bound else raw
        if config.angle_bins and config.transform.kind != "tps":
            return self._by_votes(step, votes), reached
        return self.identity + step, reached

    def _by_votes(self, step: Float[Tensor, "b dof"], votes: Float[Tensor, "b bins"]) -> Float[Tensor, "b dof"]:
        """θ whose angle the votes decide; the step leads from the identity to it as if nothing were turned."""
        if self.config.transform.kind == "affine":
            return _turned_box(step, self._angle(votes))
        log_scale, _, shift_x, shift_y = step.unbind(1)
        return torch.stack((log_scale, self._angle(votes), shift_x, shift_y), dim=1)

    def _agreed(self, votes: Float[Tensor, "b looks bins"]) -> Float[Tensor, "b bins"]:
        """The mean of the looks' logits, turned back: the geometric mean of their probabilities."""
        bins = votes.shape[2]
        each = zip(self.config.looks, votes.unbind(1), strict=True)
        return torch.stack([said.roll(round(look * bins / 360), dims=1) for look, said in each]).mean(dim=0)

    def _angle(self, votes: Float[Tensor, "b bins"]) -> Float[Tensor, " b"]:
        """The mean direction of the votes near the strongest: opposite opinions do not mix.

        Near is within a right angle. Where sums in windows are compared, it is within twice their reach: so far may the
        windows lie from each other that hold all of an opinion.
        """
        window = self.config.angle_window
        if window:
            strength = weights = _windowed(F.softmax(votes.detach(), dim=1), window)
            least_cosine = math.cos(math.radians(2 * window)) - _ROUNDING
        else:
            strength, weights, least_cosine = votes, F.softmax(_SHARPNESS * votes, dim=1), _ROUNDING
        strongest = strength.argmax(dim=1, keepdim=True) == torch.arange(votes.shape[1], device=votes.device)
        directions = self.directions.to(votes.dtype)
        near = matmul(matmul(strongest.to(votes.dtype), directions.T), directions) > least_cosine
        cos, sin = matmul(weights * near, directions.T).unbind(1)
        return torch.atan2(sin, cos)


def _windowed(votes: Float[Tensor, "b bins"], window: float) -> Float[Tensor, "b bins"]:
    """Means over the circle's bins within so many degrees of each."""
    bins = votes.shape[1]
    reach = int(window * bins / 360 + _ROUNDING)
    around = torch.cat((votes[:, bins - reach :], votes, votes[:, :reach]), dim=1)
    return F.avg_pool1d(around[:, None], 2 * reach + 1, stride=1)[:, 0]


def _trunk(config: LocalizerConfig) -> nn.Sequential:
    """From what the net sees to the units that its head sees."""
    if config.sequence is not None:
        normalize = Normalize(config.sequence.mean, config.sequence.deviation)
        return nn.Sequential(normalize, _sequence_trunk(config.sequence, config.input_size))
    if config.trunk == "conv":
        trunk = conv_trunk(config.channels, config.widths, len(config.input_size))
    else:
        trunk = fc_trunk(config.channels * math.prod(config.input_size), config.widths)
    features = trunk_features(trunk, config.channels, config.input_size)
    return nn.Sequential(Standardize(), trunk, nn.Linear(features, config.hidden), nn.ReLU(inplace=True))


def _sequence_trunk(config: SequenceConfig, size: Size) -> nn.Sequential:
    return nn.Sequential(*(_layer(*pair) for pair in zip(config.layers, config.shapes(size), strict=False)))


def _layer(layer: Layer, shape: tuple[int, ...]) -> nn.Module:
    """The layer, for what has the shape (channels, height, width) or (units,)."""
    made: nn.Module = nn.ReLU(inplace=True)
    match layer:
        case Conv():
            made = nn.Conv2d(shape[0], layer.width, layer.kernel, padding=layer.padding, bias=layer.bias)
        case Norm():
            made = nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])
        case MaxPool():
            made = nn.MaxPool2d(layer.size)
        case MeanPool():
            made = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Flatten():
            made = nn.Flatten()
        case Linear():
            made = nn.Linear(shape[0], layer.units)
    return made


class Normalize(nn.Module):
    """Channels of 0…1 as networks elsewhere are shown them."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    mean: Tensor
    deviation: Tensor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return (x - self.mean) / self.deviation


def _pooled_votes(config: LocalizerConfig) -> nn.Sequential:
    """From what enters the last level of a trunk, averaged along the width, to votes; the last layer starts at zero."""
    height = halved(config.input_size[0], len(config.widths) - 1)
    last = nn.Linear(config.hidden, config.angle_bins)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    letters = conv_layers(config.widths[-2], config.widths[-1])
    hidden = nn.Linear(config.widths[-1] * height, config.hidden)
    return nn.Sequential(*letters, MeanOfLast(), nn.Flatten(), hidden, nn.ReLU(inplace=True), last)


class MeanOfLast(nn.Module):
    """What is alike along a line."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h"]:
        return x.mean(dim=-1)


def halved(size: int, times: int) -> int:
    """A side after so many layers of stride 2."""
    for _ in range(times):
        size = -(-size // 2)
    return size


def _turned_box(step: Float[Tensor, "b 6"], angle: Float[Tensor, " b"]) -> Float[Tensor, "b 6"]:
    """The affine map of a box turned by an angle: a step of (log-width, shear, x, unused, log-height, y)."""
    log_width, shear, shift_x, _, log_height, shift_y = step.unbind(1)
    width, height, cos, sin = log_width.exp(), log_height.exp(), angle.cos(), angle.sin()
    along, across = (width * cos, width * sin), (shear * cos - height * sin, shear * sin + height * cos)
    return torch.stack((along[0], across[0], shift_x, along[1], across[1], shift_y), dim=1)


def conv_layers(
    narrow: int, wide: int, *, kernel: int = 3, stride: int | tuple[int, int] = 1, dims: int = 2
) -> tuple[nn.Module, ...]:
    """A convolution that keeps the size, or divides it by its stride, normalised over the batch and rectified."""
    convolution: type[nn.Module] = nn.Conv2d if dims == 2 else nn.Conv3d
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    if (narrow, stride, dims) == (1, 2, 2):
        first: nn.Module = GreyConv2d(wide, kernel)
    else:
        first = convolution(narrow, wide, kernel, stride, kernel // 2, bias=False)
    return first, norm(wide), nn.ReLU(inplace=True)


def trunk_features(trunk: nn.Module, channels: int, size: Size) -> int:
    """Length of what the trunk makes of an image, or a volume, of that size."""
    training = trunk.training
    with torch.no_grad():
        length = trunk.eval()(torch.zeros(1, channels, *size)).shape[1]
    trunk.train(training)
    return int(length)
