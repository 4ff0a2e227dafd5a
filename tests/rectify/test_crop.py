"""From a location to a crop: how large, and whether at all."""

import numpy as np
import pytest

from stn_cli.geometry import Attention, Projective, Similarity
from stn_cli.rectify.crop import decide, natural_size
from stn_cli.rectify.engine import Location
from stn_cli.rectify.options import RectifyOptions

OPTIONS = RectifyOptions()


def test_a_crop_is_as_large_as_the_region_that_it_shows():
    turned = Similarity(np.array([np.log(0.5), 0.7, 0.1, 0.0]))
    assert natural_size(turned, (200, 200)) == (100, 100)
    assert natural_size(Attention(np.array([0.25, 0.0, 0.0])), (400, 80)) == (100, 20)


def test_a_crop_near_the_horizon_is_not_endless():
    theta = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.9999, 0.0])
    height, width = natural_size(Projective(theta), (1000, 1000))
    assert height * width <= 4.1e6


@pytest.mark.parametrize(
    ("transform", "confidence", "why"),
    [
        (Attention.identity(), 1.0, "straight already"),
        (Similarity(np.array([-0.5, 0.3, 0.0, 0.0])), 0.2, "confidence"),
        (Projective(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.5, 0.0])), 1.0, "folds"),
        (Similarity(np.array([0.0, 0.3, 1.8, 0.0])), 1.0, "outside"),
    ],
)
def test_no_harm_is_done(transform, confidence, why):
    decision = decide(Location(transform, confidence), (60, 80), OPTIONS, 0.5)
    assert why in decision.unchanged
    assert decision.size == (60, 80)


def test_what_is_crooked_and_sure_is_rectified():
    decision = decide(Location(Similarity(np.array([-0.5, 0.3, 0.0, 0.0])), 0.9), (60, 80), OPTIONS, 0.5)
    assert decision.unchanged is None
