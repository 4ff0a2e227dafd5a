"""Rectifying from Python: `model = stn_cli.load("text"); result = model(pixels)`."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from stn_cli.checkpoints import open_checkpoint
from stn_cli.engines.devices import open_engine
from stn_cli.engines.engine import Engine, small_copy
from stn_cli.errors import ImageError
from stn_cli.geometry import Quality, Transform
from stn_cli.images import Pixels, decode, named, read_file
from stn_cli.images.volumes import Voxels, checked_voxels, decode_volume
from stn_cli.rectify.crop import decide, render
from stn_cli.rectify.options import RectifyOptions


@dataclass(frozen=True)
class Result:
    """A rectified image.

    Attributes:
        crop: (h, w, c), or (h, w) if the image was, in the type of the image; of a volume (d, h, w).
        transform: crop → image, both normalised to −1…1 across the outer edges.
        confidence: that it is right, 0…1.
        label, label_confidence: of the crop, where the model has a classifier; or the word, where it has a reader.
        quality: numbers of the predicted transform.
        unchanged: why the image passed through as it is, or None.
    """

    crop: Pixels | Voxels
    transform: Transform
    confidence: float
    label: str | None
    label_confidence: float | None
    quality: Quality
    unchanged: str | None


class Model:
    """A checkpoint, ready to rectify images in memory. Made by `load`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(
        self,
        image: Pixels | Voxels | str | Path,
        *,
        size: tuple[int, ...] | None = None,
        height: int | None = None,
        min_confidence: float | None = None,
        always: bool = False,
    ) -> Result:
        """Rectifies one image, or one volume if the model is of volumes.

        Args:
            image: a path, or pixels (h, w) or (h, w, c) in uint8 or uint16; c is 1 grey, 2 grey and alpha, 3 RGB,
                4 RGB and alpha. Or voxels (d, h, w), of an integer type of 8 to 32 bits or a floating-point type.
            size: (height, width), or (depth, height, width), of the crop; None: as large as the region that it shows.
            height: of the crop, whose width follows; None as above.
            min_confidence: below it the image passes through unchanged; None: what the model says.
            always: rectify also what is straight already, or doubtful: all but what folds.

        Raises:
            ImageError: the path holds no readable image, or the pixels are not as described.
            UsageError: a size or a confidence out of range, `height` with `size`, `always` with `min_confidence`.
        """
        options = RectifyOptions(size=size, height=height, min_confidence=min_confidence, always=always)
        options.check_dims(self.engine.model.dims)
        if self.engine.model.dims == 3:
            return self._volume(image, options)
        given = decode(Path(image)).pixels if isinstance(image, str | Path) else image
        pixels = _checked(_array(given))
        source_size = pixels.shape[:2]
        located = self.engine.locate([small_copy(pixels)], [source_size])
        (location,) = located
        (decision,) = decide(located, [source_size], options, self.engine.checkpoint.header)
        crop = render(self.engine, pixels, decision, options)
        return Result(
            crop=crop[..., 0] if given.ndim == 2 else crop,
            transform=decision.transform,
            confidence=location.confidence,
            label=location.label,
            label_confidence=location.label_confidence,
            quality=decision.quality,
            unchanged=decision.unchanged,
        )

    def _volume(self, image: Pixels | Voxels | str | Path, options: RectifyOptions) -> Result:
        from stn_cli.rectify.volumes import locate, rendered  # noqa: PLC0415  imports torch

        if isinstance(image, str | Path):
            with named(Path(image)):
                voxels = decode_volume(read_file(Path(image))).voxels
        else:
            voxels = checked_voxels(_array(image))
        location, decision = locate(self.engine, voxels, options)
        return Result(
            crop=rendered(voxels, decision, options),
            transform=decision.transform,
            confidence=location.confidence,
            label=location.label,
            label_confidence=location.label_confidence,
            quality=decision.quality,
            unchanged=decision.unchanged,
        )


def load(name_or_path: str = "text", device: str = "cpu") -> Model:
    """A bundled model by name, or one in a directory, on `cpu`, `cuda`, `mps` or `auto`.

    Raises:
        ModelError: there is no such model, or it is damaged.
        DeviceError: the device is not there.
    """
    return Model(open_engine(open_checkpoint(str(name_or_path)), device))


def _array(given: object) -> np.ndarray:
    if not isinstance(given, np.ndarray):
        raise ImageError(
            f"{type(given).__name__} is neither a path nor a NumPy array",
            remedy="Of an image of Pillow, pass numpy.asarray(image.convert('RGB')).",
        )
    return given


def _checked(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise ImageError(
            f"pixels of shape {pixels.shape} are not (h, w) or (h, w, c) with c of 1 to 4",
            remedy="Pass one image at a time, its channels last.",
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"pixels of type {pixels.dtype} are not uint8 or uint16",
            remedy="Scale them to 0…255, round them and convert them: pixels.astype(numpy.uint8).",
        )
    return cast("Pixels", np.ascontiguousarray(pixels))
