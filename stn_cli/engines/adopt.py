"""From weights of another project to a checkpoint in a folder, which reproduces itself."""

from pathlib import Path

import cv2
import numpy as np

from stn_cli import __version__
from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.header import Metrics
from stn_cli.checkpoints.imports import ImportOptions, imported, read_weights
from stn_cli.engines.verify import write_golden
from stn_cli.errors import OutputExistsError

_GOLDEN_IMAGES, _CELLS = 4, 6


def adopt(
    file: Path, layout: str, out: Path, name: str | None = None, options: ImportOptions | None = None
) -> Checkpoint:
    """Imports the weights in `file` into the folder `out`.

    Raises:
        ModelError: they cannot be read, or are not of the layout.
        OutputExistsError: `out` exists.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise OutputExistsError(f"{out} exists already", remedy="Choose another folder with -o.")
    model = imported(read_weights(file), layout, options)
    checkpoint = write_checkpoint(
        model,
        out,
        name=name or out.resolve().name,
        description=f"Imported from weights of the layout {layout}; it says nothing of its confidence",
        training={"stn": __version__, "imported": layout},
        metrics=Metrics(),
    )
    write_golden(checkpoint, _pictures(*model.config.stages[0].input_size))
    return checkpoint


def _pictures(height: int, width: int) -> np.ndarray:
    """Smooth coloured blots, (n, h, w, 3) uint8: something to look at."""
    cells = np.random.default_rng(0).uniform(0, 255, (_GOLDEN_IMAGES, _CELLS, _CELLS, 3)).astype(np.float32)
    blots = [cv2.resize(each, (width, height), interpolation=cv2.INTER_CUBIC) for each in cells]
    return np.clip(np.rint(blots), 0, 255).astype(np.uint8)
