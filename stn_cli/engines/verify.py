"""Checking a checkpoint from end to end; without torch, but for volumes."""

from collections.abc import Iterator

import numpy as np
from safetensors.numpy import save as save_tensors

from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.graphs import check_graph
from stn_cli.checkpoints.store import GOLDEN, read_tensors
from stn_cli.engines.devices import open_engine
from stn_cli.engines.engine import Engine, small_copy
from stn_cli.errors import CheckFailedError, ModelError
from stn_cli.geometry import corners, outline
from stn_cli.images import write_atomically

_TOLERANCE = 1e-3
"""On outlines in −1…1 and on probabilities: other processors round differently."""


def verify(checkpoint: Checkpoint) -> Iterator[str]:
    """Yields a line for every check that passes.

    Raises:
        ModelError: the checkpoint is damaged.
        CheckFailedError: it runs, but does not reproduce its stored outputs.
    """
    yield f"{len(checkpoint.tensors)} tensors: digest, types and values"
    for name in checkpoint.header.graphs:
        check_graph(checkpoint.graph(name), name)
        yield f"{name}: digest and operators"
    engine = open_engine(checkpoint, "cpu")
    if not (checkpoint.path / GOLDEN).is_file():
        raise ModelError(f"{checkpoint.path} has no {GOLDEN} to compare with")
    golden = read_tensors(checkpoint.path / GOLDEN)
    images = golden.pop("images", None)
    dims = checkpoint.header.model.dims
    if images is None or images.ndim != dims + 2 or images.dtype != np.uint8 or not images.size:
        raise ModelError(f"{checkpoint.path / GOLDEN} holds no images")
    if images.shape[-1] not in ((1, 2, 3, 4) if dims == 2 else (1,)):
        raise ModelError(f"{checkpoint.path / GOLDEN} holds images of {images.shape[-1]} channels")
    outputs = _outputs(engine, images)
    if {name: array.shape for name, array in golden.items()} != {name: array.shape for name, array in outputs.items()}:
        raise ModelError(f"{checkpoint.path / GOLDEN} holds other outputs than its model has")
    for name, expected in golden.items():
        difference = float(np.abs(outputs[name] - expected).max())
        if not difference <= _TOLERANCE:
            raise CheckFailedError(f"{name} differs from the stored output by {difference:.2g}")
        yield f"{name}: within {difference:.1g} of the stored output, for {len(images)} images"


def write_golden(checkpoint: Checkpoint, images: np.ndarray) -> None:
    """Stores images (n, h, w, c), or volumes (n, d, h, w, 1), uint8 and what the checkpoint makes of them."""
    outputs = _outputs(open_engine(checkpoint, "cpu"), images)
    write_atomically(checkpoint.path / GOLDEN, save_tensors({"images": images, **outputs}))


def _outputs(engine: Engine, images: np.ndarray) -> dict[str, np.ndarray]:
    located = engine.locate([small_copy(image) for image in images], [images.shape[1:-1]] * len(images))
    border = outline(5) if engine.model.dims == 2 else corners(3)
    outlines = np.stack([location.transform(border) for location in located])
    outputs = {
        "outline": outlines.astype(np.float32),
        "confidence": np.array([location.confidence for location in located], np.float32),
    }
    if engine.model.classifier or engine.model.reader:
        sure = [location.label_confidence for location in located]
        outputs["label_confidence"] = np.array(sure, np.float32)
    return outputs
