"""JPEGs larger than their crops need are decoded smaller, which must not be seen in the crops."""

import io
import math

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.geometry import Attention
from stn_cli.images import FileData, Image, decode, decode_data
from stn_cli.rectify import pipeline
from stn_cli.rectify.crop import Decision, shrink_at_first, shrink_for
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.pipeline import Pipeline
from stn_cli.rectify.plan import plan
from stn_cli.sampling.warp import warp

SIZE = (2400, 3200)


@pytest.fixture(scope="module")
def page():
    """Printed text, in a JPEG."""
    image = PIL.Image.new("RGB", SIZE[::-1], (235, 230, 220))
    draw, rng = PIL.ImageDraw.Draw(image), np.random.default_rng(0)
    for number in range(300):
        x, y, size, *ink = (int(rng.integers(*bounds)) for bounds in ((0, 2900), (0, 2300), (24, 80), *[(0, 150)] * 3))
        draw.text((x, y), f"straight {number}", tuple(ink), PIL.ImageFont.load_default(size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return FileData(buffer.getvalue(), "")


def decision(transform, size):
    return Decision(transform, size, None, None)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1),
        ({"height": 2401}, 1),
        ({"height": 601}, 1),
        ({"height": 600}, 2),
        ({"size": (150, 801)}, 1),
        ({"size": (600, 800)}, 2),
        ({"height": 60}, 3),  # the nets look at 512 pixels, which are made from twice as many at least
        ({"always": True}, 1),
    ],
)
def test_a_jpeg_is_decoded_smaller_where_a_crop_of_all_of_it_is(options, factor):
    assert shrink_at_first(SIZE, RectifyOptions(**options)) == factor


def test_a_very_large_image_is_looked_at_small_first():
    assert shrink_at_first((7000, 8000), RectifyOptions()) == 7
    assert shrink_at_first((70_000, 800), RectifyOptions(height=32_000)) >= 8


@pytest.mark.parametrize("height", [100, 149, 150, 200, 290, 300, 301, 400, 590, 600, 700])
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_crops_from_what_was_decoded_smaller_are_those_from_the_whole(page, height, share):
    size = (height, round(height * SIZE[1] / SIZE[0]))
    shown = Attention(np.array([share, 0.013, 0.007]))
    factor = shrink_for(decision(shown, size), SIZE)
    covered = share * min(SIZE[0] / size[0], SIZE[1] / size[1])
    assert factor == max(1, math.floor(covered / 2 + 1e-6))
    small = decode_data(page, shrink=lambda _: factor)
    assert small.shrunk == (8 if factor >= 8 else 4 if factor >= 4 else 2 if factor >= 2 else 1)
    one, other = (warp(image.pixels, shown, size).astype(float) for image in (small, decode_data(page)))
    assert 10 * math.log10(255**2 / max(1e-9, np.mean((one - other) ** 2))) >= 35


@pytest.mark.parametrize(("share", "kept"), [(1.0, 2), (0.4, 1)])
def test_a_crop_of_a_part_is_read_from_as_many_pixels_as_it_needs(page, tmp_path, monkeypatch, share, kept):
    """Whatever the first, smaller decoding was good for."""
    (tmp_path / "page.jpg").write_bytes(page.data)
    options = RectifyOptions(out=tmp_path / "out", size=(600, 800), format="png")
    shown = Attention(np.array([share, 0.0, 0.0]))
    monkeypatch.setattr(pipeline, "decide", lambda located, *_: [decision(shown, (600, 800))] * len(located))
    monkeypatch.setattr(pipeline, "complete", lambda *_: None)
    decoded: list[Image] = []
    monkeypatch.setattr(
        pipeline, "decode_data", lambda *args, **more: decoded.append(decode_data(*args, **more)) or decoded[-1]
    )
    (tmp_path / "out").mkdir()
    group = Pipeline(OnnxEngine(open_checkpoint("digits")), options).run(plan([tmp_path / "page.jpg"], options).jobs)
    (record,) = group.records
    assert (record.source.height, record.source.width) == SIZE
    assert [image.shrunk for image in decoded] == ([2] if kept == 2 else [2, 1])
    crop = decode(group.staged[0].temporary).pixels
    whole = warp(decode_data(page).pixels, shown, (600, 800))
    assert np.mean((crop.astype(float) - whole) ** 2) <= (255**2 * 10**-3.5 if kept == 2 else 0)
