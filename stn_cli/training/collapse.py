"""The ways in which spatial transformers fail to learn, told from held-out images, and what helps."""

from collections.abc import Iterator
from typing import NamedTuple


class Symptom(NamedTuple):
    """What is amiss, as numbers show it, and what to do."""

    what: str
    remedy: str


_ZOOMED_OUT, _DOT, _OUTSIDE, _FLAT, _STUCK, _FOLDED = 1.8, 0.12, 0.5, 0.15, 0.5, 0.1
_STILL = {"zoom_spread": 0.005, "turn_spread": 0.5, "x_spread": 0.005, "y_spread": 0.005}
_IDENTITY = {"zoom_mean": (1.0, 0.02), "turn_mean": (0.0, 1.0), "x_mean": (0.0, 0.02), "y_mean": (0.0, 0.02)}


def symptoms(measures: dict[str, float], progress: float) -> Iterator[Symptom]:
    """What measures of held-out images (see `validation`) say is amiss; `progress` is the share of the steps made.

    Zoomed out, beside the image, blank and stuck are told at any time; standing still after half of the steps, since
    every transformer starts at the identity.
    """
    if measures["zoom_mean"] > _ZOOMED_OUT:
        yield Symptom(
            f"zoomed out: crops show {measures['zoom_mean']:.1f} times the width of the image, and "
            f"{measures['out_of_frame']:.0%} of them lies outside of it",
            "raise penalties.out_of_frame, or lower limits.zoom and localizer_scale",
        )
    elif measures["out_of_frame"] > _OUTSIDE:
        yield Symptom(
            f"beside the image: {measures['out_of_frame']:.0%} of the crops lies outside of it",
            "raise penalties.out_of_frame, or lower limits.shift and localizer_scale",
        )
    if measures["zoom_mean"] < _DOT:
        yield Symptom(
            f"a dot: crops show {measures['zoom_mean']:.0%} of the width of the image",
            "lower limits.zoom and localizer_scale",
        )
    elif measures["contrast"] < _FLAT:
        yield Symptom(
            f"blank: crops have {measures['contrast']:.0%} of the contrast of the images",
            "lower limits.zoom, limits.shift and localizer_scale",
        )
    if measures["saturated"] > _STUCK:
        yield Symptom(
            f"stuck: {measures['saturated']:.0%} of the numbers behind θ are at their limits",
            "lower localizer_scale; if images lie further off than the limits reach, widen them",
        )
    if measures["fold"] > _FOLDED:
        yield Symptom(
            f"folded: {measures['fold']:.0%} of the transforms turn over within the crop",
            "raise penalties.fold, or lower limits.bend",
        )
    still = all(measures[name] < most for name, most in _STILL.items())
    at_identity = all(abs(measures[name] - middle) < off for name, (middle, off) in _IDENTITY.items())
    if progress >= 0.5 and still and at_identity:
        yield Symptom(
            "standing still: every crop is the whole image",
            "raise localizer_scale; if the images lie straight and fill their frames, there is nothing to learn",
        )
