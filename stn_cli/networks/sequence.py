"""Trunks that are described layer by layer, as plain data. Neither torch nor NumPy here."""

import math

import msgspec

from stn_cli.errors import UsageError

_MOST_OF_A_LAYER = 8192


class Conv(msgspec.Struct, frozen=True, tag="conv", tag_field="layer", forbid_unknown_fields=True):
    """A convolution to `width` channels."""

    width: int
    kernel: int = 3
    padding: int = 0
    bias: bool = True


class Norm(msgspec.Struct, frozen=True, tag="norm", tag_field="layer", forbid_unknown_fields=True):
    """Normalisation over the batch, of channels or of units."""


class Relu(msgspec.Struct, frozen=True, tag="relu", tag_field="layer", forbid_unknown_fields=True):
    """Rectification."""


class MaxPool(msgspec.Struct, frozen=True, tag="max_pool", tag_field="layer", forbid_unknown_fields=True):
    """The largest of each `size` × `size` pixels."""

    size: int = 2


class MeanPool(msgspec.Struct, frozen=True, tag="mean_pool", tag_field="layer", forbid_unknown_fields=True):
    """The mean of each channel."""


class Flatten(msgspec.Struct, frozen=True, tag="flatten", tag_field="layer", forbid_unknown_fields=True):
    """Channels, rows and columns as one row of units."""


class Linear(msgspec.Struct, frozen=True, tag="linear", tag_field="layer", forbid_unknown_fields=True):
    """Fully connected, to `units`."""

    units: int


Layer = Conv | Norm | Relu | MaxPool | MeanPool | Flatten | Linear


class SequenceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trunk given layer by layer, as other projects have theirs.

    Attributes:
        layers: from the image to the units that the head sees; the last is rectified units.
        mean, deviation: of the channels that it sees, 0…1, as they are normalised.
    """

    layers: tuple[Layer, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not all(deviation > 0 for deviation in self.deviation):
            raise UsageError("a sequence has as many means as deviations, and these are positive")
        sides = [side for layer in self.layers for side in _numbers(layer)]
        if not self.layers or not all(1 <= side <= _MOST_OF_A_LAYER for side in sides):
            raise UsageError(f"a sequence has layers, of sizes of 1 to {_MOST_OF_A_LAYER}")

    def shapes(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        """(channels, height, width), or (units,), of an image of (height, width), and of what each layer makes of it.

        Raises:
            UsageError: the layers do not fit each other, or the image.
        """
        shapes: list[tuple[int, ...]] = [(len(self.mean), *size)]
        for layer in self.layers:
            shapes.append(_shape_after(layer, shapes[-1]))
            if min(shapes[-1]) < 1:
                raise UsageError(f"an input of {size[0]}x{size[1]} is too small for the layers of the sequence")
        return shapes


def _numbers(layer: Layer) -> tuple[int, ...]:
    match layer:
        case Conv():
            return layer.width, layer.kernel, layer.padding + 1
        case MaxPool():
            return (layer.size,)
        case Linear():
            return (layer.units,)
    return ()


def _shape_after(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if (len(shape) == 1) != isinstance(layer, Linear) and not isinstance(layer, Relu | Norm):
        raise UsageError("layers of images come first in a sequence, then one that flattens, then those of units")
    match layer:
        case Conv():
            return layer.width, *(side + 2 * layer.padding - layer.kernel + 1 for side in shape[1:])
        case MaxPool():
            return shape[0], *(side // layer.size for side in shape[1:])
        case MeanPool():
            return (shape[0],)
        case Flatten():
            return (math.prod(shape),)
        case Linear():
            return (layer.units,)
    return shape
