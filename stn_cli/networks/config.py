"""What a model is made of: plain data that travels with the weights. No torch here."""

from typing import Literal

import msgspec

from stn_cli.errors import UsageError
from stn_cli.geometry import TransformSpec

Size = tuple[int, int]


class LocalizerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One localization net.

    Attributes:
        transform: the family whose θ it predicts.
        input_size: (height, width) of what it sees; every convolution of the trunk but the first of all halves it.
        trunk: `conv`, or `fc` (fully connected).
        widths: channels of the convolutional levels, or units of the fully connected layers.
        hidden: units between trunk and head.
        channels: of the image, 1 or 3.
        margin: it sees the region found so far enlarged by this factor.
        bound: no parameter moves further than this from the identity (tanh).
        angle_bins: bins over the full circle that vote on a similarity's angle; 0 regresses it.
    """

    transform: TransformSpec
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
        if not self.widths or min(self.widths) < 1 or min(self.input_size) < 2 ** (len(self.widths) - 1):
            raise UsageError(f"an input of {self.input_size} is too small for {len(self.widths)} levels")


class ClassifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A classifier of the rectified crop: its classes in order, what it sees, and its convolutional levels."""

    classes: tuple[str, ...]
    input_size: Size = (28, 28)
    widths: tuple[int, ...] = (24, 48, 64)
    hidden: int = 64
    channels: int = 3


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rectifier: localization nets in series, and perhaps a classifier behind them.

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
