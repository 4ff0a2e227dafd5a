"""Do splines through 20 border points follow a bent word between its borders? `border 2x10` against `ribbon 2x10`.

    python -m benchmarks.layouts

The control points are the true ones of words in random poses, so that what is measured is the spline alone: how far it
strays from the true bend over the whole word, in heights of the word, and how often it folds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.provenance import REPOSITORY, RESULTS, provenance, write_report
from stn_cli.geometry import ThinPlateSpline, grid, layout_from_name, quality
from stn_cli.training.config import read_config
from stn_cli.training.text.pose import random_pose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stn_cli.training.text.config import TextScene

LAYOUTS = ("border 2x10", "ribbon 2x10")
COUNT = 500
ASPECTS = (1.5, 9.0)


def stray(scene: TextScene, name: str) -> dict[str, float]:
    """Return median and 95 % quantile of the largest error a word, and the share of words where the spline folds."""
    layout, points = layout_from_name(name), grid((17, 33))
    errors, folds = [], []
    for seed in range(COUNT):
        rng = np.random.default_rng(seed)
        bend = random_pose(rng, scene, rng.uniform(*ASPECTS)).bend
        control, true = (np.stack(bend(*(p * (bend.aspect, 1.0)).T), axis=-1) for p in (layout.points, points))
        spline = ThinPlateSpline(control.ravel(), layout)
        height = np.linalg.norm(control[layout.n :] - control[: layout.n], axis=1).mean()
        errors.append(np.linalg.norm(spline(points) - true, axis=1).max() / height)
        folds.append(quality(spline).fold)
    return {
        "median": float(np.median(errors)),
        "p95": float(np.quantile(errors, 0.95)),
        "folds": float(np.mean(folds)),
    }


def main(argv: Sequence[str]) -> None:
    output = Path(argv[0]) if argv else RESULTS / "layouts.json"
    text = read_config(REPOSITORY / "models" / "text" / "config.toml").text
    assert text is not None
    results = {scene.name: {name: stray(scene, name) for name in LAYOUTS} for scene in text.scenes}
    for scene, of_layout in results.items():
        for name, found in of_layout.items():
            print(f"{scene:10} {name:12} {found['median']:.3f} {found['p95']:.3f}  folds {found['folds']:.1%}")
    write_report(output, provenance("layouts", argv) | {"count": COUNT, "largest_error_in_heights": results})


if __name__ == "__main__":
    main(sys.argv[1:])
