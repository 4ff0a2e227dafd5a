"""From what one localization net found to what the next is shown and finds, for every engine. No torch here."""

import math
from collections.abc import Sequence

from stn_cli.geometry import Affine3d, Attention, Linear, Similarity, ThinPlateSpline, Transform
from stn_cli.geometry.arrays import Array, like, namespace


def zoom(factor: float, dims: int, array: Array) -> Linear:
    """The crop enlarged by `factor` about its centre, in the library, dtype and device of `array`."""
    if dims == 3:
        return Affine3d(like((factor, 0, 0, 0, 0, factor, 0, 0, 0, 0, factor, 0), array))
    return Attention(like((factor, 0.0, 0.0), array))


def enlarged(found: Transform, margin: float) -> Transform:
    """What a localization net is shown: the region found so far, enlarged about its centre."""
    return _zoomed(found, margin)


def all_looks(found: Transform, margin: float, looks: Sequence[float]) -> list[Transform]:
    """What a net is shown that takes several looks: `enlarged`, turned by so many degrees each time."""
    shown = enlarged(found, margin)
    return [
        shown @ Similarity(like((0.0, math.radians(look), 0.0, 0.0), found.theta)) if look else shown for look in looks
    ]


def refined(found: Transform, predicted: Transform, margin: float) -> Transform:
    """The region that a net found when it was shown `enlarged(found, margin)`; its identity changes nothing.

    A spline's control points are stated in the region found so far, so that the result is again one spline.
    """
    if isinstance(predicted, ThinPlateSpline):
        return predicted.through(found)
    return _zoomed(enlarged(found, margin) @ predicted, 1.0 / margin)


def _zoomed(found: Transform, factor: float) -> Transform:
    return found if factor == 1.0 else found @ zoom(factor, found.dims, found.theta)


def righted(found: ThinPlateSpline, odds: Array, prior: float) -> tuple[ThinPlateSpline, Array]:
    """The spline turned over where that is likelier, and the log-odds of all votes for it as it is then.

    Args:
        found: as a net was shown it.
        odds: log-odds of all votes so far that it is upright, of the batch's shape.
        prior: of `upright_odds`.
    """
    over = odds + upright_odds(found, prior) < 0
    return found.turned(over), namespace(found.theta).where(over, -odds, odds)


def doubtful(found: ThinPlateSpline, odds: Array, prior: float, doubt: float) -> Array:
    """Whether the log-odds of all votes and of `upright_odds` are below `doubt` either way, of the batch's shape."""
    return abs(odds + upright_odds(found, prior)) < doubt


def upright_odds(found: ThinPlateSpline, prior: float) -> Array:
    """Log-odds that what a spline shows is upright, before anything votes on it, of the batch's shape.

    `prior` if it stands upright in its image, less by the fifth power of the cosine the more it is turned: people
    photograph words within some thirty degrees of upright, or any way.
    """
    return prior * found.uprightness() ** 5
