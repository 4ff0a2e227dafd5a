"""What a checkpoint says of itself, and what is believed of it."""

import math
from typing import Any, Literal

import msgspec

from stn_cli.errors import ModelError, StnError
from stn_cli.networks.config import MOST_ELEMENTS, LocalizerConfig, ModelConfig, Size
from stn_cli.networks.sequence import Conv, Layer, Linear

SCHEMA = "stn.checkpoint/1"
CLASSIFIER, READER, DIRECTION = "classifier.onnx", "reader.onnx", "direction.onnx"
_MOST_PARAMETERS = 1 << 27
_WIDEST_MARGIN = 2.0
_MOST_STAGES, _LONGEST_SIDE, _MOST_UNITS, _MOST_CLASSES = 8, 1024, 8192, 100_000


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measures of held-out samples by name: over all, and of each scene."""

    overall: dict[str, float | None] = {}
    scenes: dict[str, dict[str, float | None]] = {}


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON header in `model.safetensors`.

    Attributes:
        schema: `stn.checkpoint/1`.
        name, description: of the model.
        model: its architecture, from which it is rebuilt.
        graphs: SHA-256 of each ONNX file by name.
        tensors_sha256: over all tensors in the order of their names.
        min_confidence: below it an image passes through unchanged, unless the user says otherwise.
        crop_margin: how far the crop reaches beyond the predicted frame, in heights of the frame: beyond each end,
            and above and below.
        crop_resample: how crops are read, unless the user says otherwise, as in `sampling`.
        straight_within: an image passes through unchanged if the edges of its predicted frame stray from an upright
            box by less than this many heights of the frame.
        second_look: an image of which the model is less sure than `min_confidence` is looked at once more, turned by a
            right angle, and the surer look counts. For splines in images that may lie any way.
        training: how it came about: data, configuration, seed, steps, version.
        metrics: what it reached on held-out samples.
    """

    schema: str
    name: str
    model: ModelConfig
    graphs: dict[str, str]
    tensors_sha256: str
    description: str = ""
    min_confidence: float = 0.0
    crop_margin: tuple[float, float] = (0.0, 0.0)
    crop_resample: Literal["sharp", "auto"] = "auto"
    straight_within: float = 0.0
    second_look: bool = False
    training: dict[str, Any] = {}
    metrics: Metrics = Metrics()


def graph_names(model: ModelConfig) -> tuple[str, ...]:
    """The ONNX files of a model, in the order in which they run."""
    others = {DIRECTION: model.direction, CLASSIFIER: model.classifier, READER: model.reader}
    localizers = [name for head in range(model.heads) for name in localizer_names(model, head)]
    return (*localizers, *(name for name, config in others.items() if config is not None))


def localizer_names(model: ModelConfig, head: int = 0) -> tuple[str, ...]:
    """The ONNX files of the localization nets of a head."""
    of = f"head-{head + 1}-" if head else ""
    return (f"{of}localizer.onnx", *(f"{of}localizer-{n}.onnx" for n in range(2, len(model.stages) + 1)))


def parse_header(text: str) -> Header:
    """The header, checked; ModelError says what is wrong with it."""
    try:
        schema = msgspec.json.decode(text, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise ModelError(f"its schema is {schema!r}; this version of stn reads {SCHEMA!r}")
        header = msgspec.json.decode(text, type=Header)
        check_header(header)
    except (msgspec.DecodeError, UnicodeError, RecursionError, StnError) as error:
        raise ModelError(f"its header is not valid: {error}") from error
    if set(header.graphs) != set(graph_names(header.model)):
        raise ModelError(f"it names the graphs {', '.join(sorted(header.graphs))}, its architecture has others")
    return header


def check_header(header: Header) -> None:
    """ModelError for a network, or for habits, that no checkpoint has."""
    _check_plausible(header.model)
    _check_habits(header)


def _check_plausible(model: ModelConfig) -> None:
    """Refuses architectures whose mere construction would exhaust the machine."""
    numbers = [len(model.stages) / _MOST_STAGES]
    for stage in model.stages:
        numbers += [max(stage.input_size) / _LONGEST_SIDE, max((*stage.widths, stage.hidden)) / _MOST_UNITS]
        numbers += [len(stage.widths) / 16, stage.angle_bins / 720, stage.channels / 4]
    if model.classifier:
        classifier = model.classifier
        numbers += [max(classifier.input_size) / _LONGEST_SIDE, len(classifier.classes) / _MOST_CLASSES]
        numbers += [max((*classifier.widths, classifier.hidden)) / _MOST_UNITS, len(classifier.widths) / 16]
    if model.reader:
        reader = model.reader
        numbers += [max(reader.input_size) / _LONGEST_SIDE, len(reader.alphabet) / _MOST_CLASSES]
        numbers += [max((*reader.widths, reader.hidden)) / _MOST_UNITS, len(reader.widths) / 16]
    if model.direction:
        direction = model.direction
        numbers += [max(direction.input_size) / _LONGEST_SIDE, max((*direction.widths, direction.hidden)) / _MOST_UNITS]
        numbers += [len(direction.widths) / 16, direction.blocks / 64]
    nets = [net for net in (*model.stages, model.direction, model.classifier, model.reader) if net is not None]
    numbers += [_computed(net.input_size, net.widths, net.channels) / MOST_ELEMENTS for net in nets]
    layered = [shape for stage in model.stages if stage.sequence for shape in stage.sequence.shapes(stage.input_size)]
    numbers += [math.prod(shape) / MOST_ELEMENTS for shape in layered]
    numbers.append(sum(_parameters(stage) for stage in model.stages) / _MOST_PARAMETERS)
    if max(numbers) > 1:
        raise ModelError("it describes a network beyond all reasonable size")


def _check_habits(header: Header) -> None:
    if not all(0.0 <= margin <= _WIDEST_MARGIN for margin in header.crop_margin):
        raise ModelError(f"its crop_margin {header.crop_margin} is not 0 to {_WIDEST_MARGIN:g} heights of the frame")
    of_images = any(header.crop_margin) or header.straight_within or header.crop_resample != "auto"
    if header.model.dims == 3 and of_images:
        raise ModelError("it is of volumes, which have no crop_margin, no crop_resample and no straight_within")
    if not 0.0 <= header.min_confidence <= 1.0:
        raise ModelError(f"its min_confidence {header.min_confidence} is not 0 to 1")
    if not 0.0 <= header.straight_within <= 1.0:
        raise ModelError(f"its straight_within {header.straight_within} is not 0 to 1 height of the frame")
    if header.second_look and header.model.stages[-1].transform.kind != "tps":
        raise ModelError("it has a second_look, which is for splines")


def _computed(size: Size, widths: tuple[int, ...], channels: int) -> int:
    """Values of one image, or of one volume, as a net sees it, or as the largest of its levels makes them."""
    levels = (math.prod(-(-side >> level) for side in size) * width for level, width in enumerate(widths, 1))
    return max((math.prod(size) * channels, *levels))


def _parameters(stage: LocalizerConfig) -> int:
    """Weights of the layer where they are most: the first that is fully connected; of a sequence, of all layers."""
    if stage.sequence is not None:
        pairs = zip(stage.sequence.layers, stage.sequence.shapes(stage.input_size), strict=False)
        return sum(_weights(layer, shape) for layer, shape in pairs)
    if stage.trunk == "fc":
        return stage.channels * math.prod(stage.input_size) * stage.widths[0]
    shrunk = 1 << len(stage.widths)
    return stage.widths[-1] * math.prod(-(-side // shrunk) for side in stage.input_size) * stage.hidden


def _weights(layer: Layer, shape: tuple[int, ...]) -> int:
    match layer:
        case Conv():
            return shape[0] * layer.width * layer.kernel**2
        case Linear():
            return shape[0] * layer.units
    return 0
