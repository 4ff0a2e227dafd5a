"""Spatial transformers that people have trained elsewhere, as checkpoints of ours.

Weights alone are read, never a program. What differs between projects is converted exactly: normalisation of the
input, order of channels, and coordinates that run across pixel centres (`align_corners=True`) instead of edges. A point
x of the former is x·(W − 1)/W of ours on an image W pixels wide; both ends of a transform are converted.

    pytorch-tutorial  "Spatial Transformer Networks Tutorial" (PyTorch): affine, of any square input
    lprnet            STNet of LPRNet (xuexingyu24/License_Plate_Detection_Pytorch): affine, BGR 24×94
    clova-tps         deep-text-recognition-benchmark (clovaai): thin-plate spline, grey 32×100
    aster             aster.pytorch (ayumiymk): thin-plate spline, RGB, a look of 32×64 at images of 64×256
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stn_cli.errors import ModelError, StorageError, UsageError
from stn_cli.networks.config import LocalizerConfig, ModelConfig, Size, TransformConfig
from stn_cli.networks.model import Rectifier
from stn_cli.networks.sequence import Conv, Flatten, Layer, Linear, MaxPool, MeanPool, Norm, Relu, SequenceConfig

Weights = Mapping[str, Tensor]
LAYOUTS = ("pytorch-tutorial", "lprnet", "clova-tps", "aster")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = (
    "module.",
    "model.",
    "Transformation.LocalizationNetwork.",
    "LocalizationNetwork.",
    "stn_head.",
    "stn.",
    "STN.",
)


@dataclass(frozen=True)
class ImportOptions:
    """What an import is told of the network, beyond its weights.

    Attributes:
        input_size: (height, width) of what the net sees; None: as its weights or its project have it.
        mean, deviation: of its channels in their order, 0…1; None: as its project has them.
        align_corners: whether its coordinates run across pixel centres; None: as its project has them.
    """

    input_size: Size | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    align_corners: bool | None = None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one that torch saved, by name.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        ModelError: it cannot be read without running what is in it, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged or hostile archive raises nearly anything, and torch advises to trust it
        raise ModelError(
            f"{path} holds no plain weights, or is damaged",
            remedy="Save the state_dict of the model alone: torch.save(model.state_dict(), FILE).",
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    tensors = {} if not isinstance(found, dict) else {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no tensors", remedy="Save the state_dict of the model.")
    return {name: tensor.detach() for name, tensor in tensors.items()}


def imported(weights: Weights, layout: str, options: ImportOptions | None = None) -> Rectifier:
    """The rectifier that these weights of a layout make.

    Raises:
        UsageError: there is no such layout, or an option does not fit it.
        ModelError: tensors are missing or of another shape than the layout has.
    """
    options = options or ImportOptions()
    makers: dict[str, Callable[[Weights, ImportOptions], Rectifier]] = {
        "pytorch-tutorial": _tutorial,
        "lprnet": _lprnet,
        "clova-tps": _clova,
        "aster": _aster,
    }
    if layout not in makers:
        raise UsageError(f"there is no layout {layout!r}", remedy=f"One of {', '.join(LAYOUTS)}.")
    return makers[layout]({_bare(name): tensor.float() for name, tensor in weights.items()}, options).eval()


def _tutorial(weights: Weights, options: ImportOptions) -> Rectifier:
    """localization: conv 7, pool, relu, conv 5, pool, relu; fc_loc: two layers. Corners at edges since PyTorch 1.3."""
    first, second = _tensor(weights, "localization.0.weight", 4), _tensor(weights, "localization.3.weight", 4)
    hidden = _tensor(weights, "fc_loc.0.weight", 2)
    kernels = first.shape[-1], second.shape[-1]
    size = options.input_size or _square_before(hidden.shape[1] // second.shape[0], kernels)
    grey = first.shape[1] == 1
    sequence = _sequence(
        _two_levels((first, second), hidden, pools=(2, 2)),
        options,
        mean=(0.1307,) if grey else (0.5,) * 3,
        deviation=(0.3081,) if grey else (0.5,) * 3,
    )
    renamed = _renamed(weights, {0: "localization.0", 3: "localization.3", 7: "fc_loc.0"})
    across_centres = bool(options.align_corners)
    head = _affine_head(_layer(weights, "fc_loc.2"), size, across_centres=across_centres)
    return _rectifier(TransformConfig("affine"), size, sequence, renamed, head)


def _lprnet(weights: Weights, options: ImportOptions) -> Rectifier:
    """conv 3, pool 2, relu, conv 5, pool 3, relu; fc_loc: two layers. It is shown BGR, ours are shown RGB."""
    first, second = _tensor(weights, "localization.0.weight", 4), _tensor(weights, "localization.3.weight", 4)
    hidden, size = _tensor(weights, "fc_loc.0.weight", 2), options.input_size or (24, 94)
    sequence = _sequence(
        _two_levels((first, second), hidden, pools=(2, 3)),
        replace(options, mean=_reversed(options.mean), deviation=_reversed(options.deviation)),
        mean=(127.5 / 255,) * 3,
        deviation=(128 / 255,) * 3,
    )
    renamed = _renamed(weights, {0: "localization.0", 3: "localization.3", 7: "fc_loc.0"})
    renamed["0.weight"] = renamed["0.weight"].flip(1)
    head = _affine_head(_layer(weights, "fc_loc.2"), size, across_centres=options.align_corners is not False)
    return _rectifier(TransformConfig("affine"), size, sequence, renamed, head)


def _clova(weights: Weights, options: ImportOptions) -> Rectifier:
    """Four levels of conv, norm, relu, pool; two layers. Crops run across edges, the image across pixel centres."""
    size = options.input_size or (32, 100)
    layers: list[Layer] = []
    for place in (0, 4, 8, 12):
        width = _tensor(weights, f"conv.{place}.weight", 4).shape[0]
        layers += [Conv(width, 3, padding=1, bias=False), Norm(), Relu(), MaxPool(2) if place < 12 else MeanPool()]
    hidden = _tensor(weights, "localization_fc1.0.weight", 2)
    layers += [Linear(hidden.shape[0]), Relu()]
    channels = _tensor(weights, "conv.0.weight", 4).shape[1]
    sequence = _sequence(layers, options, mean=(0.5,) * channels, deviation=(0.5,) * channels)
    places = {place: f"conv.{place}" for start in (0, 4, 8, 12) for place in (start, start + 1)}
    renamed = _renamed(weights, {**places, 16: "localization_fc1.0"})
    weight, bias = _spline_head(weights, "localization_fc2")
    scale = _towards_centres(size) if options.align_corners is not False else torch.ones(2)
    scales = scale.repeat(len(bias) // 2)
    layout = f"border 2x{len(bias) // 4}"
    head = weight * scales[:, None], bias * scales
    return _rectifier(TransformConfig("tps", layout), size, sequence, renamed, head)


def _aster(weights: Weights, options: ImportOptions) -> Rectifier:
    """Six levels of conv, norm, relu, five of them pooled; two layers, the second of a tenth of the first's units.

    Control points are stated in 0…1 across pixel centres; those of the crop lie a twentieth within it.
    """
    size, image, crop, margin = options.input_size or (32, 64), (64, 256), (32, 100), 0.05
    layers: list[Layer] = []
    places: dict[int, str] = {}
    for level in range(6):
        name = f"stn_convnet.{2 * level}"
        width = _tensor(weights, f"{name}.0.weight", 4).shape[0]
        places |= {len(layers): f"{name}.0", len(layers) + 1: f"{name}.1"}
        has_bias = f"{name}.0.bias" in weights
        layers += [Conv(width, 3, padding=1, bias=has_bias), Norm(), Relu(), *([MaxPool(2)] if level < 5 else [])]
    hidden = _tensor(weights, "stn_fc1.0.weight", 2).shape[0]
    places |= {len(layers) + 1: "stn_fc1.0", len(layers) + 2: "stn_fc1.1"}
    layers += [Flatten(), Linear(hidden), Norm(), Relu()]
    channels = _tensor(weights, "stn_convnet.0.0.weight", 4).shape[1]
    sequence = _sequence(layers, options, mean=(0.5,) * channels, deviation=(0.5,) * channels)
    weight, bias = _spline_head(weights, "stn_fc2")
    scale = _towards_centres(image) if options.align_corners is not False else torch.ones(2)
    scales = scale.repeat(len(bias) // 2)
    head = 0.1 * weight * 2 * scales[:, None], (2 * bias - 1) * scales
    layout = f"inset 2x{len(bias) // 4} by {margin} on {crop[0]}x{crop[1]}"
    return _rectifier(TransformConfig("tps", layout), size, sequence, _renamed(weights, places), head)


def _reversed(channels: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if channels is None else channels[::-1]


def _two_levels(kernels: tuple[Tensor, Tensor], hidden: Tensor, *, pools: tuple[int, int]) -> list[Layer]:
    """Each a convolution, pooled, rectified; then a hidden layer."""
    layers: list[Layer] = []
    for kernel, pool in zip(kernels, pools, strict=True):
        layers += [Conv(kernel.shape[0], kernel.shape[-1]), MaxPool(pool), Relu()]
    return [*layers, Flatten(), Linear(hidden.shape[0]), Relu()]


def _affine_head(layer: tuple[Tensor, Tensor], size: Size, *, across_centres: bool) -> tuple[Tensor, Tensor]:
    """The last layer of an affine net whose crop is as large as its image, for coordinates across edges."""
    weight, bias = layer
    if len(bias) != 6 or len(weight) != 6:
        raise ModelError(f"its last layer has {len(bias)} outputs, not the 6 of an affine map")
    if across_centres:
        x, y = _towards_centres(size).tolist()
        scales = torch.tensor([1, x / y, x, y / x, 1, y])
        weight, bias = weight * scales[:, None], bias * scales
    return weight, bias


def _spline_head(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    """The last layer of a net that predicts two rows of control points."""
    weight, bias = _layer(weights, name)
    if len(bias) % 4 or len(weight) != len(bias):
        raise ModelError(f"its last layer has {len(weight)} outputs and {len(bias)} biases, not two rows of points")
    return weight, bias


def _towards_centres(size: Size) -> Tensor:
    """What ±1, the outermost pixel centres, are across the edges of an image of (height, width): (x, y)."""
    return torch.tensor([(size[1] - 1) / size[1], (size[0] - 1) / size[0]])


def _rectifier(
    transform: TransformConfig, size: Size, sequence: SequenceConfig, trunk: Weights, head: tuple[Tensor, Tensor]
) -> Rectifier:
    """The model; θ itself is what the head says, and of its confidence nothing is known."""
    weight, bias = head
    try:
        stage = LocalizerConfig(
            transform=transform,
            input_size=size,
            trunk="sequence",
            sequence=sequence,
            hidden=weight.shape[1],
            channels=len(sequence.mean),
            bound=0.0,
        )
        model = Rectifier(ModelConfig(stages=(stage,), fit="stretch"))
    except UsageError as error:
        raise ModelError(f"the weights do not fit this layout: {error}") from error
    identity = torch.tensor(transform.spec.identity_theta).float()
    state = {f"trunk.1.{name}": value for name, value in trunk.items()}
    state["head.weight"] = torch.cat((weight, torch.zeros(1, weight.shape[1])))
    state["head.bias"] = torch.cat((bias - identity, torch.zeros(1)))
    localizer = model.transformer.stages[0].localizer
    try:
        localizer.load_state_dict(state)  # type: ignore[union-attr]
    except RuntimeError as error:
        raise ModelError(f"the weights do not fit this layout: {error}") from error
    return model


def _sequence(
    layers: list[Layer], options: ImportOptions, *, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> SequenceConfig:
    return SequenceConfig(layers=tuple(layers), mean=options.mean or mean, deviation=options.deviation or deviation)


def _renamed(weights: Weights, places: Mapping[int, str]) -> dict[str, Tensor]:
    """The tensors of each layer, by the place of the layer in a sequence."""
    return {
        f"{place}{name.removeprefix(layer)}": value
        for place, layer in places.items()
        for name, value in weights.items()
        if name.startswith(f"{layer}.")
    }


def _layer(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    return _tensor(weights, f"{name}.weight", 2), _tensor(weights, f"{name}.bias", 1)


def _tensor(weights: Weights, name: str, ndim: int) -> Tensor:
    if name not in weights:
        known = ", ".join(sorted(weights)[:5])
        raise ModelError(
            f"there is no tensor {name!r} among the weights ({known}…)",
            remedy="Choose the layout that the network has, with --layout.",
        )
    if weights[name].ndim != ndim or not weights[name].numel():
        raise ModelError(f"the tensor {name!r} has the shape {tuple(weights[name].shape)}, not {ndim} sides")
    return weights[name]


def _square_before(pixels: int, kernels: tuple[int, int]) -> Size:
    """The side of the square image of which two convolutions, each pooled by 2, leave so many pixels; in fours."""
    sides = list(_candidates(pixels, kernels))
    if not sides:
        raise ModelError(
            f"no square image leaves {pixels} pixels a channel behind its convolutions", remedy="Say --input HxW."
        )
    side = next((side for side in sides if side % 4 == 0), sides[0])
    return side, side


def _candidates(pixels: int, kernels: tuple[int, int]) -> Iterator[int]:
    for side in range(8, 1025):
        left = ((side - kernels[0] + 1) // 2 - kernels[1] + 1) // 2
        if left > 0 and left * left == pixels:
            yield side


def _bare(name: str) -> str:
    """The name without what wraps the transformer."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    return name
