"""From a run to a checkpoint."""

from pathlib import Path

import msgspec
import numpy as np
import torch

from stn_cli import __version__
from stn_cli.checkpoints import Checkpoint
from stn_cli.checkpoints.export import write_checkpoint
from stn_cli.checkpoints.header import Metrics
from stn_cli.engines.verify import write_golden
from stn_cli.training.loop import Trainer

_GOLDEN_IMAGES = 4


def export(trainer: Trainer, path: Path) -> Checkpoint:
    """Writes the run's best weights as a checkpoint into `path`, with golden outputs for held-out samples."""
    config = trainer.config
    checkpoint = write_checkpoint(
        trainer.best_model(),
        path,
        name=config.name,
        description=config.description,
        training={
            "stn": __version__,
            "torch": str(torch.__version__),
            "steps": trainer.step,
            "samples": trainer.step * config.batch_size,
            "seed": config.seed,
            "objectives": list(config.objectives),
            **trainer.data.described,
            "config": msgspec.to_builtins(config),
        },
        metrics=Metrics(**{name: trainer.best_validation[name] for name in ("overall", "scenes")}),
        min_confidence=config.min_confidence,
        crop_margin=config.crop_margin,
        crop_resample=config.crop_resample,
        straight_within=config.straight_within,
        second_look=config.second_look,
    )
    canvases = trainer.data.held_out.__getitems__(range(_GOLDEN_IMAGES)).canvas.numpy()
    write_golden(checkpoint, np.ascontiguousarray(np.moveaxis(canvases, 1, -1)))
    return checkpoint
