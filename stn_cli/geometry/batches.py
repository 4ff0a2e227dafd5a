"""Many transforms at once: those of one family cost little more together than one alone."""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from stn_cli.geometry.base import Transform
from stn_cli.geometry.linear import Linear
from stn_cli.geometry.tps import ThinPlateSpline


def alike(transforms: Sequence[Transform]) -> Iterator[tuple[Transform, list[int]]]:
    """Batches that have all of the given transforms between them, each with the places where these stand.

    Args:
        transforms: unbatched, of NumPy arrays.
    """
    places: dict[Hashable, list[int]] = {}
    for place, transform in enumerate(transforms):
        places.setdefault(_family(transform, place), []).append(place)
    for them in places.values():
        first = transforms[them[0]]
        if len(them) == 1:
            yield first[None], them
        else:
            theta = np.stack([transforms[place].theta for place in them])
            yield dataclasses.replace(first, theta=theta), them  # type: ignore[type-var]


def _family(transform: Transform, place: int) -> Hashable:
    """What those of one batch have in common; of what is neither linear nor a spline, nothing."""
    if isinstance(transform, ThinPlateSpline):
        return transform.layout
    return type(transform) if isinstance(transform, Linear) else place
