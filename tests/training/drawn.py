"""Data that is drawn here, small settings that learn something of it, and runs."""

import numpy as np

from stn_cli.checkpoints import open_checkpoint
from stn_cli.training.api import Plan, Resources, run
from stn_cli.training.defaults import Wishes, suited
from stn_cli.training.examples import Dataset, Examples


def glyph(kind, rng, side=20):
    """A bar that stands, or one that lies, somewhere on a dark square."""
    image = np.zeros((side, side, 1), np.uint8)
    x, y = rng.integers(3, side - 11, 2)
    if kind:
        image[y : y + 8, x + 3 : x + 5] = 220
    else:
        image[y + 3 : y + 5, x : x + 8] = 220
    return image


def dataset(count=120, held_out=30, texts=False, corners=False):
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 2, count)
    images = tuple(glyph(kind, rng) for kind in kinds)
    labels = np.full(count, -1) if texts else kinds.astype(np.int64)
    spelled = tuple(("lie", "up")[kind] for kind in kinds) if texts else ()
    frames = np.tile([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]], (count, 1, 1)) if corners else None
    known = Examples(images, labels, () if texts else ("lies", "stands"), spelled, frames)
    parts = (range(held_out, count), range(held_out), range(0))
    return Dataset(*(known.chosen(list(part)) for part in parts), "drawn here", "the first thirty")


SMALL = {
    "canvas": 20,
    "classifier_size": (16, 16),
    "classifier_widths": (8, 16),
    "classifier_hidden": 16,
    "reader_size": (8, 32),
    "reader_widths": (8, 16, 16),
    "reader_hidden": 16,
    "batch_size": 16,
    "steps": 4,
    "validate_every": 4,
    "warmup": 1,
}


def settings(data, wishes=None, **changes):
    usual = Wishes() if "stages" in changes else Wishes(input_size=(16, 16))
    return suited(data, {**SMALL, **changes}, wishes or usual)


def trained(data, folder, *watchers, wishes=None, **changes):
    planned = Plan(data, settings(data, wishes, **changes), Resources(workers=0, threads=1))
    trainer, finished = run(planned, folder, *watchers)
    assert finished
    return trainer, open_checkpoint(str(folder))
