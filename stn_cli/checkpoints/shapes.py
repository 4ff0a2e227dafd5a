"""The tensors that an architecture has, known without building it: strangers' weights are looked at without torch."""

import itertools
import math
from collections.abc import Iterator

from stn_cli.networks.config import ClassifierConfig, DirectionConfig, LocalizerConfig, ModelConfig, ReaderConfig, Size
from stn_cli.networks.sequence import Conv, Linear, Norm, SequenceConfig

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def tensor_shapes(model: ModelConfig) -> dict[str, Shape]:
    """By name, as in the state of `networks.model.Rectifier`."""
    shapes: dict[str, Shape] = {}
    for head in ("transformer", *(f"others.{number}" for number in range(model.heads - 1))):
        for number, stage in enumerate(model.stages):
            inside = ".net" if model.insert_at else ""
            shapes.update(_within(f"{head}.stages.{number}.localizer{inside}", _localizer(model.localizer(stage))))
    if model.direction is not None:
        shapes.update(_within("transformer.direction", _direction(model.direction)))
    if model.classifier is not None and not model.classifier.backbone:
        shapes.update(_within("classifier.layers", _classifier(model.classifier, model.heads)))
    if model.reader is not None:
        shapes.update(_within("reader", _reader(model.reader)))
    return shapes


def _localizer(config: LocalizerConfig) -> Named:
    if config.sequence is not None:
        yield from _within("trunk.1", _sequence(config.sequence, config.input_size))
    elif config.trunk == "conv":
        yield from _within("trunk.1", _conv_trunk(config.channels, config.widths, dims=len(config.input_size)))
    else:
        pixels = config.channels * math.prod(config.input_size)
        for layer, (narrow, wide) in enumerate(itertools.pairwise((pixels, *config.widths))):
            yield from _within(f"trunk.1.{1 + 2 * layer}", _linear(narrow, wide))
    if config.sequence is None:
        yield from _within("trunk.2", _linear(_features(config), config.hidden))
    said = config.transform.spec.dof + 1 + (0 if config.pooled_votes else config.angle_bins)
    yield from _within("head", _linear(config.hidden, said))
    if config.pooled_votes:
        rows = _halved(config.input_size[0], len(config.widths) - 1)
        yield from _within("votes", _convolution(0, config.widths[-2], config.widths[-1]))
        yield from _within("votes.5", _linear(config.widths[-1] * rows, config.hidden))
        yield from _within("votes.7", _linear(config.hidden, config.angle_bins))


def _sequence(config: SequenceConfig, size: Size) -> Named:
    for number, (layer, shape) in enumerate(zip(config.layers, config.shapes(size), strict=False)):
        match layer:
            case Conv():
                yield f"{number}.weight", (layer.width, shape[0], layer.kernel, layer.kernel)
                if layer.bias:
                    yield f"{number}.bias", (layer.width,)
            case Norm():
                yield from _within(f"{number}", _norm(shape[0]))
            case Linear():
                yield from _within(f"{number}", _linear(shape[0], layer.units))


def _direction(config: DirectionConfig) -> Named:
    *levels, last = config.widths
    yield from _within("letters", _conv_trunk(config.channels, tuple(levels), first=1))
    first, width = 1 + 3 + 6 * (len(levels) - 1), levels[-1]
    for block in range(config.blocks):
        for layer in (0, 3):
            yield from _within(f"letters.{first + block}.layers", _convolution(layer, width, width))
    yield from _within("letters", _convolution(first + config.blocks, width, last))
    yield from _within("head.0", _linear(last * _halved(config.input_size[0], len(levels)), config.hidden))
    yield from _within("head.2", _linear(config.hidden, 1))


def _classifier(config: ClassifierConfig, crops: int) -> Named:
    yield from _within("1", _conv_trunk(crops * config.channels, config.widths, dims=len(config.input_size)))
    yield from _within("3", _linear(_features(config), config.hidden))
    yield from _within("5", _linear(config.hidden, len(config.classes)))


def _reader(config: ReaderConfig) -> Named:
    yield from _within("columns", _conv_trunk(config.channels, config.widths, first=1))
    for layer, features in enumerate((config.widths[-1] * config.rows, config.hidden)):
        yield f"line.{3 * layer}.weight", (config.hidden, features, 5)
        yield from _within(f"line.{3 * layer + 1}", _norm(config.hidden))
    yield "head.weight", (len(config.alphabet) + 1, config.hidden, 1)
    yield "head.bias", (len(config.alphabet) + 1,)


def _features(config: LocalizerConfig | ClassifierConfig) -> int:
    if isinstance(config, LocalizerConfig) and config.trunk == "fc":
        return config.widths[-1]
    return config.widths[-1] * math.prod(_halved(side, len(config.widths)) for side in config.input_size)


def _conv_trunk(channels: int, widths: tuple[int, ...], *, first: int = 0, dims: int = 2) -> Named:
    """Levels of two convolutions of three layers each, the first level of one."""
    yield from _convolution(first, channels, widths[0], kernel=5, dims=dims)
    for level, (narrow, wide) in enumerate(itertools.pairwise(widths)):
        yield from _convolution(first + 6 * level + 3, narrow, narrow, dims=dims)
        yield from _convolution(first + 6 * level + 6, narrow, wide, dims=dims)


def _convolution(layer: int, narrow: int, wide: int, *, kernel: int = 3, dims: int = 2) -> Named:
    yield f"{layer}.weight", (wide, narrow, *(kernel,) * dims)
    yield from _within(f"{layer + 1}", _norm(wide))


def _norm(channels: int) -> Named:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield name, (channels,)
    yield "num_batches_tracked", ()


def _linear(narrow: int, wide: int) -> Named:
    yield "weight", (wide, narrow)
    yield "bias", (wide,)


def _halved(size: int, times: int) -> int:
    halved: int = -(-size // 2**times)
    return halved


def _within(prefix: str, named: Named) -> Named:
    for name, shape in named:
        yield f"{prefix}.{name}", shape
