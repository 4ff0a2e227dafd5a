"""What `rectify` is told."""

from pathlib import Path
from typing import Literal

import msgspec

from stn_cli.errors import UsageError
from stn_cli.sampling.kinds import LONGEST_SIDE, RESAMPLES, Fill, Resample

_LONGEST_WAIT = 1_000_000
"""Seconds; the system waits for no more than twice that."""


class RectifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one run; validated when made.

    Attributes:
        out: folder for crops and `theta.jsonl`; None writes both beside each input. Or, of a single input, a file whose
            suffix says its format; the record lies beside it.
        size: (height, width) of every crop, (depth, height, width) of volumes; None: as large as the region that it
            shows.
        height: of every crop, whose width follows; None as above.
        resample, fill: as in `sampling`; None: as the model has its crops read; a fill colour is in 0…255 a channel.
        format, quality: of the crops; None follows the input.
        optimize: take longer for smaller files.
        min_confidence: below it an image passes through unchanged; None: what the model says.
        always: rectify also what is straight already, or doubtful: all but what folds.
        on_exists: what to do where an output exists that no earlier run is known to have made.
        resume: leave what an earlier run made of the same image, by the same model and options.
        recursive: take sub-folders along.
        batch_size: images that are handed to a process together, at most.
        workers: processes; with an accelerator, threads of one.
        time_limit: seconds that such images may take; then each of them alone, which fails if it takes longer.
        max_pixels: larger images fail.
        allow_formats: what may be read beyond `images.READABLE`, by Pillow's names.
        salvage: read what can be read of damaged files.
        head: whose crop is made, of a model with several heads; from 1 on.
    """

    out: Path | None = None
    size: tuple[int, ...] | None = None
    height: int | None = None
    resample: Resample | None = None
    fill: Fill = "border"
    format: str | None = None
    quality: int | None = None
    optimize: bool = False
    min_confidence: float | None = None
    always: bool = False
    on_exists: Literal["error", "skip", "overwrite"] = "error"
    resume: bool = True
    recursive: bool = True
    batch_size: int = 64
    workers: int = 2
    time_limit: float = 120.0
    max_pixels: int = 250_000_000
    allow_formats: tuple[str, ...] = ()
    salvage: bool = False
    head: int = 1

    def __post_init__(self) -> None:
        sides = [] if self.size is None else self.size
        _require(all(1 <= side <= LONGEST_SIDE for side in sides), f"--size is 1x1 to {LONGEST_SIDE}x{LONGEST_SIDE}")
        _require(self.height is None or 1 <= self.height <= LONGEST_SIDE, f"--height is 1 to {LONGEST_SIDE}")
        _require(self.height is None or self.size is None, "--size says the height already; leave --height out")
        _require(self.quality is None or 1 <= self.quality <= 100, "--quality is 1 to 100")
        _require(self.min_confidence is None or 0 <= self.min_confidence <= 1, "--min-confidence is 0 to 1")
        doubts = self.min_confidence is not None
        _require(not (self.always and doubts), "--always asks for no confidence; leave --min-confidence out")
        _require(self.head >= 1, "--head is 1 or more")
        _require(self.batch_size >= 1, "--batch-size is at least 1")
        _require(self.workers >= 1, "--workers is at least 1")
        _require(0 < self.time_limit <= _LONGEST_WAIT, f"--time-limit is more than 0, and at most {_LONGEST_WAIT}")
        _require(self.max_pixels >= 1, "--max-pixels is at least 1")
        _require(self.resample in (None, *RESAMPLES), f"--resample is one of {', '.join(RESAMPLES)}")

    def check_dims(self, dims: int) -> None:
        """UsageError where they do not fit a model of images (`dims` 2), or of volumes (3)."""
        named = "HEIGHTxWIDTH" if dims == 2 else "DEPTHxHEIGHTxWIDTH, as the model is of volumes"
        _require(self.size is None or len(self.size) == dims, f"--size is {named}")
        is_flat = dims == 3 and self.size is not None and min(self.size) < 2
        _require(not is_flat, "--size of a volume is at least 2x2x2")
        of_images = [
            name for name in ("height", "quality", "optimize", "salvage", "allow_formats") if getattr(self, name)
        ]
        named = ", ".join(f"--{name.replace('_', '-').removesuffix('s')}" for name in of_images)
        _require(dims == 2 or not of_images, f"{named}: of images, but the model is of volumes")
        _require(dims == 2 or self.resample != "bicubic", "--resample bicubic: of images, but the model is of volumes")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)
