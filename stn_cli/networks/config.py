"""What a model is made of: plain data that travels with the weights. Neither torch nor NumPy here."""

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from stn_cli.errors import UsageError

if TYPE_CHECKING:
    from stn_cli.geometry import TransformSpec

Size = tuple[int, int]
Kind = Literal["translation", "attention", "similarity", "affine", "projective", "affine3d", "tps"]
_LAYOUT = re.compile(r"grid (\d+)x\1|border 2x(\d+)")
_MOST_CONTROL_POINTS_A_ROW = 64


class TransformConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A family of transforms as configurations name it.

    Attributes:
        kind: the family.
        layout: `grid NxN` or `border 2xN`, N of 2 to 64; of `tps`, and of no other.
    """

    kind: Kind
    layout: str | None = None

    def __post_init__(self) -> None:
        if (self.layout is not None) != (self.kind == "tps"):
            raise UsageError("a layout belongs to tps, and to no other transform")
        if self.layout is not None:
            match = _LAYOUT.fullmatch(self.layout)
            if match is None or not 2 <= int(match[1] or match[2]) <= _MOST_CONTROL_POINTS_A_ROW:
                raise UsageError(f"layout {self.layout!r} is neither 'grid NxN' nor 'border 2xN' with N of 2 to 64")

    @property
    def spec(self) -> "TransformSpec":
        """The family itself."""
        from stn_cli.geometry import TransformSpec  # noqa: PLC0415  configurations are read without NumPy

        return TransformSpec(self.kind, self.layout)


class LocalizerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One localization net.

    Attributes:
        transform: the family whose θ it predicts.
        input_size: (height, width) of what it sees; every level of the trunk halves it.
        trunk: `conv`, or `fc` (fully connected).
        widths: channels of the convolutional levels, or units of the fully connected layers.
        hidden: units between trunk and head.
        channels: of what it sees.
        margin: it sees the region found so far enlarged by this factor.
        bound: no parameter moves further than this from the identity (tanh).
        angle_bins: bins over the full circle that vote on a similarity's angle; 0 regresses it.
    """

    transform: TransformConfig
    input_size: Size
    trunk: Literal["conv", "fc"] = "conv"
    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    hidden: int = 128
    channels: int = 3
    margin: float = 1.0
    bound: float = 2.0
    angle_bins: int = 0

    def __post_init__(self) -> None:
        if self.angle_bins and self.transform.kind != "similarity":
            raise UsageError("angle_bins vote on the angle of a similarity, and of no other transform")
        if self.margin <= 0 or self.bound <= 0 or min(self.hidden, self.channels) < 1 or self.angle_bins < 0:
            raise UsageError("margin and bound are positive, hidden and channels at least 1, angle_bins at least 0")
        _check_levels(self.widths, self.input_size)


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A classifier of the rectified crop: its classes in order, what it sees, and its convolutional levels."""

    classes: tuple[str, ...]
    input_size: Size = (28, 28)
    widths: tuple[int, ...] = (24, 48, 64)
    hidden: int = 64
    channels: int = 3

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UsageError("a classifier needs two classes or more, each with a name of its own")
        if min(self.hidden, self.channels) < 1:
            raise UsageError("hidden and channels are at least 1")
        _check_levels(self.widths, self.input_size)


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rectifier of images: localization nets in series, and perhaps a classifier behind them. All see RGB.

    Attributes:
        stages: each refines the composed transform of those before it.
        fit: how the first stage sees an image: `letterbox` keeps its aspect, `stretch` squeezes it.
        classifier: reads the crop.
    """

    stages: tuple[LocalizerConfig, ...]
    fit: Literal["letterbox", "stretch"] = "letterbox"
    classifier: ClassifierConfig | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError("a model needs at least one localization net")
        if any(stage.transform.kind == "affine3d" for stage in self.stages):
            raise UsageError("affine3d is a transform of volumes, not of images")
        if any(stage.channels != 3 for stage in self.stages) or (self.classifier and self.classifier.channels != 3):
            raise UsageError("the nets of a model see colour images: channels is 3")


def _check_levels(widths: tuple[int, ...], input_size: Size) -> None:
    if not widths or min(widths) < 1:
        raise UsageError(f"widths {widths} make no network; there is at least one, and each is positive")
    if min(input_size) < 2 ** (len(widths) - 1):
        raise UsageError(f"an input of {input_size} is too small for {len(widths)} levels")
