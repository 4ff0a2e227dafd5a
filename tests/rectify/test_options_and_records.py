"""Whatever a user types is taken or refused with a UsageError; whatever a record says is read again as it was."""

import json
import math
import os
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stn_cli.cli.parsing import parse_fill, parse_most_errors, parse_size
from stn_cli.errors import UsageError
from stn_cli.geometry import Projective, quality
from stn_cli.images.formats import RECORDS
from stn_cli.rectify.finished import job_key, last_lines, read_finished
from stn_cli.rectify.options import RectifyOptions
from stn_cli.rectify.record import (
    ErrorRecord,
    ModelRecord,
    OutputRecord,
    Record,
    SourceRecord,
    path_text,
    quality_record,
)

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name and b"/" not in name)


def taken(parse, *arguments):
    try:
        return parse(*arguments)
    except UsageError:
        return None


@given(st.text() | st.from_regex(r"-?\d{1,7}(x-?\d{1,7}){1,3}", fullmatch=True))
def test_a_size_is_two_or_three_numbers_or_refused(text):
    size, planar = taken(parse_size, text), taken(lambda given: parse_size(given, dims=(2,)), text)
    if size is not None:
        assert len(size) in (2, 3)
        assert size == tuple(int(side) for side in text.lower().split("x"))
    assert planar == (size if size is not None and len(size) == 2 else None)


def test_usual_sizes():
    assert parse_size("32x100") == (32, 100)
    assert parse_size("8X9x10") == (8, 9, 10)
    with pytest.raises(UsageError, match="--input '8x9x10' is not HEIGHTxWIDTH"):
        parse_size("8x9x10", "--input", dims=(2,))


@given(st.text() | st.from_regex(r"#[0-9a-f]{3,8}", fullmatch=True))
def test_a_fill_is_border_or_three_values(text):
    fill = taken(parse_fill, text)
    assert fill in (None, "border") or (len(fill) == 3 and all(0 <= value <= 255 for value in fill))


@given(st.text() | st.from_regex(r"\d{1,4}%?", fullmatch=True), st.integers(0, 10**6))
def test_the_most_errors_are_a_number_of_inputs(text, inputs):
    most = taken(parse_most_errors, text, inputs)
    if most is not None:
        assert most >= 0
        assert most == (inputs * int(text[:-1]) // 100 if text.endswith("%") else int(text))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "size": st.tuples(st.integers(-2, 40_000), st.integers(-2, 40_000)),
            "height": st.integers(-2, 40_000),
            "quality": st.integers(-2, 110),
            "min_confidence": st.floats(-0.1, 1.1) | st.just(math.nan),
            "time_limit": st.floats(),
            "batch_size": st.integers(-2),
            "workers": st.integers(-2),
            "max_pixels": st.integers(-2),
        },
    )
)
def test_options_are_within_their_bounds_or_refused(options):
    sides = [*options.get("size", ()), *([options["height"]] if "height" in options else [])]
    fits = [
        all(1 <= side <= 32_766 for side in sides),
        not {"size", "height"} <= options.keys(),
        1 <= options.get("quality", 1) <= 100,
        0 <= options.get("min_confidence", 0) <= 1,
        0 < options.get("time_limit", 1) * 1000 < 2**31,  # as the system counts it
        all(options.get(name, 1) >= 1 for name in ("batch_size", "workers", "max_pixels")),
    ]
    made = taken(lambda: RectifyOptions(**options))
    assert (made is not None) == all(fits)
    if made is not None:
        assert {name: getattr(made, name) for name in options} == options


ESCAPED = st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"8", b"\xff", b"\xc3\xa9"]), min_size=1).map(b"".join)


@given(NAME | ESCAPED, NAME | ESCAPED)
def test_names_of_any_bytes_are_recorded_so_that_they_can_be_told_apart(one, other):
    texts = [path_text(Path(os.fsdecode(name))) for name in (one, other)]
    assert (texts[0] == texts[1]) == (Path(os.fsdecode(one)) == Path(os.fsdecode(other)))
    assert json.loads(json.dumps(texts)) == texts
    "".join(texts).encode()  # no lone surrogates


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("é b\\n.png".encode(), "é b\\n.png"),
        (b"\xff\xe9.png", r"\xff\xe9.png"),
        (rb"\xff.png", r"\x5cxff.png"),
        (rb"\x5cxff.png", r"\x5cx5cxff.png"),
        (rb"C:\xerox\x.png", r"C:\xerox\x.png"),
    ],
)
def test_names_are_recorded_as_they_are_where_that_is_text(name, text):
    assert path_text(Path(os.fsdecode(name))) == text


@given(NAME, DIGEST, DIGEST, DIGEST, st.floats(), st.text(), st.sampled_from(["done", "unchanged", "failed"]))
def test_a_record_is_json_without_nan_and_found_again(
    tmp_path_factory, name, source, model, options, number, message, status
):
    record = Record(
        source=SourceRecord(path="x", relative=path_text(Path(os.fsdecode(name))), sha256=source),
        status=status,
        model=ModelRecord(name="text", sha256=model),
        options_sha256=options,
        confidence=number,
        pixel_matrix=[[number, 1.0, 2.0]],
        output=OutputRecord(path="x", relative="out", sha256=source, width=1, height=2, format="PNG"),
        error=ErrorRecord(type="ImageError", message=message) if status == "failed" else None,
    )
    line = record.to_json()
    fields = json.loads(line, parse_constant=pytest.fail)
    assert b"\n" not in line
    if math.isfinite(number):
        assert msgspec.json.decode(line, type=Record) == record
        assert fields["confidence"] == number
    path = tmp_path_factory.getbasetemp() / RECORDS
    path.write_bytes(line + b"\n" + line + b"\n" + line[:-1])
    finished = read_finished(path)[record.source.relative]
    assert finished.output == "out"
    assert finished.key == (None if status == "failed" else job_key(source, model, options))
    assert last_lines(path) == [1, 2]  # the torn line is of no input that is known


def test_quality_is_that_of_a_homography():
    transform = Projective(np.array([1.0, 0, 0.5, 0, 1, 0, 0.3, 0]))
    axis = (2 * np.arange(17) + 1) / 17 - 1
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, -1, 2)
    matrix = np.array([[1.0, 0, 0.5], [0, 1, 0], [0.3, 0, 1]])
    there = cv2.perspectiveTransform(points, matrix)[0]
    determinants = np.linalg.det(matrix) / (points[0] @ [0.3, 0] + 1) ** 3
    said = quality_record(quality(transform))
    assert said.out_of_frame == pytest.approx(np.mean(np.abs(there).max(axis=1) > 1), abs=1e-4)
    assert (said.jacobian_min, said.jacobian_max) == pytest.approx((determinants.min(), determinants.max()))
