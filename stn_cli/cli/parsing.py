"""Options that commands share, and what options say, from the text that was typed."""

from pathlib import Path
from typing import Annotated

import typer

from stn_cli.errors import UsageError
from stn_cli.sampling.kinds import Fill

LabelsOption = Annotated[
    Path | None, typer.Option(help="Table of labels (.tsv, .csv, .jsonl), if it is not called labels.")
]
GroupByOption = Annotated[
    str | None, typer.Option(help="Regular expression: images whose names match alike stay in one part.")
]


def parse_size(text: str, option: str = "--size", *, dims: tuple[int, ...] = (2, 3)) -> tuple[int, ...]:
    """`HxW` as (height, width), `DxHxW` as (depth, height, width); `option` names what it was given for."""
    sides = text.lower().split("x")
    is_size = len(sides) in dims and all(side.isdecimal() for side in sides)
    volumes = " (of volumes, DEPTHxHEIGHTxWIDTH)" if 3 in dims else ""
    if not is_size:
        raise UsageError(f"{option} {text!r} is not HEIGHTxWIDTH, such as 32x100{volumes}")
    return tuple(int(side) for side in sides)


def parse_fill(text: str) -> Fill:
    """`border`, a colour's name, or a colour such as `#ff8800`, as three values in 0…255."""
    if text == "border":
        return "border"
    from PIL import ImageColor  # noqa: PLC0415  only for this option

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UsageError(f"--fill {text!r} is neither 'border' nor a colour such as white or #ff8800") from error
    return (float(red), float(green), float(blue))


def parse_most_errors(text: str, inputs: int) -> int:
    """`N`, or `P%` of the inputs, as a number of inputs."""
    number, per_cent = text.removesuffix("%"), text.endswith("%")
    if not number.isdecimal():
        raise UsageError(f"--max-errors {text!r} is neither a number such as 20 nor a share such as 5%")
    return inputs * int(number) // 100 if per_cent else int(number)
