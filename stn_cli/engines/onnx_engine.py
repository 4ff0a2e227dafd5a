"""The engine of CPUs: ONNX Runtime for the nets, OpenCV for the pixels, no torch."""

import os
from collections.abc import Sequence

import numpy as np

from stn_cli.annotations import Float32
from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.header import DIRECTION, READER, graph_names
from stn_cli.engines.engine import Engine, Small
from stn_cli.errors import ModelError
from stn_cli.geometry import Transform
from stn_cli.images import Pixels
from stn_cli.images.channels import luminance
from stn_cli.networks.config import ModelConfig, Size
from stn_cli.sampling.kinds import Fill, Resample
from stn_cli.sampling.warp import Each, Reading, readings, warp, warp_each

_ALIKE = 4
"""ONNX Runtime computes the last few elements of an array another way than those that fill its vectors of four. Batches
are filled up to a multiple, or the last bit of what is said of an image would depend on the others in its batch."""


class OnnxEngine(Engine):
    """On the CPU."""

    def __init__(self, checkpoint: Checkpoint, threads: int = 1, *, head: int = 0) -> None:
        super().__init__(checkpoint, head)
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would keep a tracking id, and tell of every run
        import onnxruntime  # noqa: PLC0415  a third of a second that `models list` need not pay

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what fails is raised
        # Idle threads of the runtime must not spin: decoding and warping need the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.sessions = {}
        if not checkpoint.is_bundled:
            _ = checkpoint.tensors  # which is checked, although only the graphs are run
        for name in graph_names(self.model):
            data = checkpoint.graph(name)
            if not checkpoint.is_bundled:
                _check_foreign(data, name)
            try:
                session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # ONNX Runtime has no common base for what it raises
                raise ModelError(f"{checkpoint.path / name} cannot be run: {error}") from error
            if [output.shape[1:] for output in session.get_outputs()] != _output_shapes(self.model, name):
                raise ModelError(f"{checkpoint.path / name} has outputs of other shapes than its model")
            self.sessions[name] = session

    def take(self, small: Small) -> Small:
        return luminance(small) if self.model.channels == 1 else small

    def views(
        self, taken: Sequence[Small], transforms: Transform, size: Size, each: Each
    ) -> Float32[np.ndarray, "b c h w"]:
        colours = (*size, self.model.channels)
        seen = [np.broadcast_to(crop, colours) for crop in warp_each(taken, transforms, size, each)]
        return np.ascontiguousarray(np.stack(seen).transpose(0, 3, 1, 2))

    def joined(self, views: Sequence[np.ndarray]) -> np.ndarray:
        return views[0] if len(views) == 1 else np.concatenate(views, axis=1)

    def infer(self, graph: str, views: np.ndarray) -> list[np.ndarray]:
        padding = np.zeros((-len(views) % _ALIKE, *views.shape[1:]), views.dtype)
        try:
            outputs = self.sessions[graph].run(None, {"image": np.concatenate((views, padding))})
        except Exception as error:  # as above
            raise ModelError(f"{self.checkpoint.path / graph} cannot be run: {error}") from error
        return [output[: len(views)] for output in outputs]

    def crop(
        self,
        pixels: Pixels,
        transform: Transform,
        size: Size,
        resample: Resample,
        fill: Fill,
        reading: Reading | None = None,
    ) -> Pixels:
        return warp(pixels, transform, size, resample=resample, fill=fill, reading=reading)

    def readings(
        self, transforms: Sequence[Transform], sources: Sequence[Size], sizes: Sequence[Size], resample: Resample
    ) -> Sequence[Reading | None]:
        return readings(transforms, sources, sizes, resample)


def _output_shapes(model: ModelConfig, graph: str) -> list[list[int]]:
    """Shapes of a graph's outputs, without the batch."""
    number = graph_names(model).index(graph)
    if number < model.heads * len(model.stages):
        stage = model.stages[number % len(model.stages)]
        return [[stage.transform.spec.dof], [], *([[]] if stage.votes_on_up else [])]
    if graph == DIRECTION:
        return [[]]
    if graph == READER and model.reader:
        return [[model.reader.columns, len(model.reader.alphabet) + 1]]
    return [[len(model.classifier.classes) if model.classifier else 0]]


def _check_foreign(data: bytes, name: str) -> None:
    """A stranger's graph may hold nothing but the operators of our own exports."""
    from stn_cli.checkpoints.graphs import check_graph  # noqa: PLC0415  bundled models need no onnx

    check_graph(data, name)
