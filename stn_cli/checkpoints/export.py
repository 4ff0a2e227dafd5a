"""Writing a checkpoint: weights, ONNX graphs, model card."""

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import onnx
import torch
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from stn_cli.annotations import Float
from stn_cli.checkpoints.header import CLASSIFIER, DIRECTION, READER, SCHEMA, Header, Metrics, graph_names
from stn_cli.checkpoints.store import CARD, METADATA_KEY, WEIGHTS, Checkpoint, open_checkpoint, tensors_digest
from stn_cli.checkpoints.weights import inference_model, stored_weights
from stn_cli.errors import ModelError
from stn_cli.images import make_folder, write_atomically
from stn_cli.networks.direction import DirectionNet
from stn_cli.networks.localization import LocalizationNet
from stn_cli.networks.model import Rectifier
from stn_cli.networks.reader import CropReader
from stn_cli.networks.transformer import Stage


class LocalizerGraph(nn.Module):
    """image (n, c, *size), 0…1 → θ (n, dof), confidence (n,) 0…1, and log-odds (n,) of up where the net votes on it."""

    def __init__(self, net: LocalizationNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Float[Tensor, "n c *size"]) -> tuple[Tensor, ...]:
        pose = self.net(image)
        said = pose.theta, torch.sigmoid(pose.confidence)
        return (*said, pose.angle_votes[:, 0] - pose.angle_votes[:, 1]) if self.net.config.votes_on_up else said


class DirectionGraph(nn.Module):
    """line (n, c, h, w), 0…1 → log-odds (n,) of its being upright."""

    def __init__(self, net: DirectionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Float[Tensor, "n c h w"]) -> tuple[Tensor]:
        return (self.net(image),)


class ClassifierGraph(nn.Module):
    """crop (n, c, *size), 0…1 → probabilities (n, classes)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Float[Tensor, "n c *size"]) -> tuple[Tensor]:
        return (torch.softmax(self.net(image), dim=1),)


class InsideGraph(nn.Module):
    """whole image (n, c, h, w), 0…1 → probabilities (n, classes), of a classifier with a transformer inside."""

    def __init__(self, model: Rectifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Float[Tensor, "n c h w"]) -> tuple[Tensor]:
        stage = cast("Stage", self.model.transformer.stages[0])
        transform = stage.spec(stage.localizer(image).theta)
        return (torch.softmax(self.model.read_inside(image, transform), dim=1),)


class ReaderGraph(nn.Module):
    """crop (n, c, h, w), 0…1 → probabilities (n, columns, characters), the first of them the blank's."""

    def __init__(self, net: CropReader) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Float[Tensor, "n c h w"]) -> tuple[Tensor]:
        return (torch.softmax(self.net(image), dim=2),)


def write_checkpoint(
    model: Rectifier,
    path: Path,
    *,
    name: str,
    description: str,
    training: dict[str, Any],
    metrics: Metrics,
    min_confidence: float = 0.0,
    crop_margin: tuple[float, float] = (0.0, 0.0),
    crop_resample: Literal["sharp", "auto"] = "auto",
    straight_within: float = 0.0,
    second_look: bool = False,
) -> Checkpoint:
    """Writes the checkpoint into the directory `path` (made if need be), the weights last, and opens it again.

    Raises:
        ModelError: the model has weights that are not finite.
        StorageError: the directory cannot be written.
    """
    tensors = {key: value.numpy() for key, value in stored_weights(model).items()}
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError("the model has weights that are not finite (or too large for float16)")
    graphs = _graphs(model)
    header = Header(
        schema=SCHEMA,
        name=name,
        description=description,
        model=model.config,
        graphs={file: hashlib.sha256(data).hexdigest() for file, data in graphs.items()},
        tensors_sha256=tensors_digest(tensors),
        min_confidence=min_confidence,
        crop_margin=crop_margin,
        crop_resample=crop_resample,
        straight_within=straight_within,
        second_look=second_look,
        training=training,
        metrics=metrics,
    )
    make_folder(path)
    for file, data in graphs.items():
        write_atomically(path / file, data)
    if not (path / CARD).exists():
        write_atomically(path / CARD, _card(header).encode())
    metadata = {METADATA_KEY: msgspec.json.encode(header).decode()}
    write_atomically(path / WEIGHTS, save_tensors(tensors, metadata=metadata))
    return open_checkpoint(str(path.resolve()))


def _graphs(model: Rectifier) -> dict[str, bytes]:
    folded, channels = inference_model(model), model.config.channels
    stages = model.config.stages * model.config.heads
    outputs = [["theta", "confidence", *(["upright"] if stage.votes_on_up else [])] for stage in stages]
    shapes = [(channels * len(stage.looks), *stage.input_size) for stage in stages]
    if model.config.direction is not None:
        outputs.append(["upright"])
        shapes.append((channels, *model.config.direction.input_size))
    for net in (model.config.classifier, model.config.reader):
        if net is not None:
            outputs.append(["probabilities"])
            shapes.append((channels * model.config.heads, *net.input_size))
    return {
        file: _onnx(net.eval(), names, shape)
        for (file, net), names, shape in zip(runnable_nets(folded).items(), outputs, shapes, strict=True)
    }


def runnable_nets(model: Rectifier) -> dict[str, nn.Module]:
    """The nets of a model as its graphs compute them, by the names of those, in the order in which they run.

    Of a model that was loaded a classifier that is not ours is missing.
    """
    stages = [stage for transformer in model.transformers for stage in transformer.stages]
    localizers = [LocalizerGraph(stage.localizer) for stage in stages]  # type: ignore[arg-type]
    nets: dict[str, nn.Module] = dict(zip(graph_names(model.config), localizers, strict=False))
    if model.transformer.direction is not None:
        nets[DIRECTION] = DirectionGraph(model.transformer.direction)
    if model.classifier is not None:
        nets[CLASSIFIER] = InsideGraph(model) if model.config.insert_at else ClassifierGraph(model.classifier)
    if model.reader is not None:
        nets[READER] = ReaderGraph(model.reader)
    return nets


def _onnx(net: nn.Module, outputs: list[str], shape: tuple[int, ...]) -> bytes:
    with _quiet_exporter():
        program = torch.onnx.export(
            net,
            (torch.zeros(2, *shape),),
            dynamo=True,
            input_names=["image"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    assert program is not None
    return _with_half_weights(program.model_proto)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without what the exporter prints, warns and logs of operators and packages that no model of ours uses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _with_half_weights(model: onnx.ModelProto) -> bytes:
    """Stores in float16 behind a cast what that does not change: weights that were rounded to it before."""
    for weight in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        halves = values.astype(np.float16)
        if not np.array_equal(halves, values):
            continue
        half = onnx.numpy_helper.from_array(halves, f"{weight.name}.half")
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(half)
        cast = onnx.helper.make_node("Cast", [half.name], [weight.name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
    for node in model.graph.node:  # names, paths and stack traces of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _card(header: Header) -> str:
    """A first model card, to be completed by hand."""
    kinds = " → ".join(stage.transform.kind for stage in header.model.stages)
    lines = [f"# {header.name}", "", header.description, "", f"Transform: {kinds}.", "", "Held-out samples:", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in header.metrics.overall.items() if value is not None]
    return "\n".join(lines) + "\n"
