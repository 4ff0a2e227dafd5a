"""The judges of the text benchmark: three recognisers that had no part in making `stn`.

They are development tools and never dependencies of the product:

    pip install -c constraints.txt pyclipper shapely omegaconf requests tqdm colorlog six pyyaml pytesseract
    pip install --no-deps rapidocr==3.10.0 rapidocr-onnxruntime==1.4.4
    apt-get install tesseract-ocr tesseract-ocr-eng

(`--no-deps`, as `rapidocr-onnxruntime` asks for `opencv-python`, whose files would overwrite those of
`opencv-python-headless`.)
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Image = Path | np.ndarray

RECIPE = 1  # raise it when an engine is used differently, so that its stored readings are not taken any more
CHUNK = 100  # crops that a process reads at a time
TESSERACT_HEIGHT = 48  # pixels


class Recogniser(Protocol):
    """Reads crops of one word."""

    def read(self, images: Sequence[Image]) -> list[str]:
        """Return what each image says; an image is a file or an array (h, w, 3) uint8 in the order B, G, R."""


def normalise(text: str) -> str:
    """Return what two readings are compared by: letters a–z without case, and digits."""
    return re.sub("[^0-9a-z]", "", text.lower())


def load(image: Image) -> np.ndarray:
    """Return an image as an array (h, w, 3) uint8 in the order B, G, R."""
    if isinstance(image, np.ndarray):
        return image
    pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError(f"{image.name} is not an image that OpenCV can read")
    return pixels


class PPOCRv6:
    """PP-OCRv6, the small recogniser that `rapidocr` carries."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        self._engine = RapidOCR(params=threads | {"Global.log_level": "error"})

    def read(self, images: Sequence[Image]) -> list[str]:
        return [self._read(load(image)) for image in images]

    def _read(self, pixels: np.ndarray) -> str:
        result = self._engine(pixels, use_det=False, use_cls=False, use_rec=True)
        return result.txts[0] if result.txts else ""


class PPOCRv4:
    """PP-OCRv4, the mobile recogniser that `rapidocr-onnxruntime` carries."""

    def __init__(self) -> None:
        from rapidocr_onnxruntime import RapidOCR

        self._engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(self, images: Sequence[Image]) -> list[str]:
        return [self._read(load(image)) for image in images]

    def _read(self, pixels: np.ndarray) -> str:
        result, _ = self._engine(pixels, use_det=False, use_cls=False, use_rec=True)
        return result[0][0] if result else ""


class Tesseract:
    """Tesseract 5's LSTM, told that each crop is one word of 48 px height.

    No border is added: an even one of 8 px in the border's colour cost 3 to 11 points on samples of 100 raw crops.
    """

    def __init__(self) -> None:
        os.environ["OMP_THREAD_LIMIT"] = "1"  # the command inherits it; its threads cost more than they give

    def read(self, images: Sequence[Image]) -> list[str]:
        """Read all images in one call: a list is read 15 times as fast as one by one, to the same result."""
        from pytesseract import image_to_data

        with TemporaryDirectory() as folder:
            files = [Path(folder) / f"{i}.png" for i in range(len(images))]
            for file, image in zip(files, images, strict=True):
                cv2.imwrite(str(file), self._resize(load(image)))
            listing = Path(folder) / "files.txt"
            listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
            table = image_to_data(str(listing), lang="eng", config="--psm 8 --oem 1")
        words: list[list[str]] = [[] for _ in images]
        for row in csv.DictReader(table.split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["text"]:
                words[int(row["page_num"]) - 1].append(row["text"])
        return [" ".join(of_image) for of_image in words]

    @staticmethod
    def _resize(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        size = (max(round(width * TESSERACT_HEIGHT / height), 1), TESSERACT_HEIGHT)
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if height > size[1] else cv2.INTER_CUBIC)


ENGINES: dict[str, type[Recogniser]] = {"Tesseract": Tesseract, "PP-OCRv4": PPOCRv4, "PP-OCRv6": PPOCRv6}


def engine_version(engine: str) -> str:
    """Return the version of the package, or of the program, that an engine comes with."""
    if engine == "Tesseract":
        from pytesseract import get_tesseract_version

        return str(get_tesseract_version())
    return version({"PP-OCRv6": "rapidocr", "PP-OCRv4": "rapidocr-onnxruntime"}[engine])


class CachedReader:
    """Reads files with one engine, in processes of its own, and keeps every reading under the hash of the file.

    So raw crops are read once for all models, and a crop that passed through unchanged is not read again.
    """

    def __init__(self, engine: str, folder: Path, processes: int) -> None:
        """Take the readings in a folder up again; they are kept per engine, version and recipe."""
        self._engine, self._processes = engine, processes
        self._store = folder / f"{engine}-{engine_version(engine)}.{RECIPE}.jsonl"
        self._store.parent.mkdir(parents=True, exist_ok=True)
        lines = self._store.read_text(encoding="utf-8").splitlines() if self._store.exists() else []
        self._known: dict[str, str] = dict(json.loads(line) for line in lines)

    def read(self, files: Sequence[Path]) -> list[str]:
        """Return what each file says, nothing for one that does not exist."""
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "" for file in files]
        missing = {digest: file for digest, file in zip(digests, files, strict=True) if digest}
        missing = {digest: file for digest, file in missing.items() if digest not in self._known}
        if missing:
            self._read_anew(missing)
        return [self._known[digest] if digest else "" for digest in digests]

    def _read_anew(self, files: dict[str, Path]) -> None:
        start, digests = time.perf_counter(), list(files)
        chunks = [digests[i : i + CHUNK] for i in range(0, len(digests), CHUNK)]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self._processes, spawn, _start, (self._engine,)) as pool:
            texts = pool.map(_read, [[files[digest] for digest in chunk] for chunk in chunks])
            for chunk, read in zip(chunks, texts, strict=True):
                self._keep(dict(zip(chunk, read, strict=True)))
        seconds = time.perf_counter() - start
        print(f"{self._engine}: {len(files)} crops read in {seconds:.0f} s", file=sys.stderr, flush=True)

    def _keep(self, readings: dict[str, str]) -> None:
        self._known |= readings
        with self._store.open("a", encoding="utf-8") as store:  # one write: another run may append as well
            store.write("".join(json.dumps(item) + "\n" for item in readings.items()))


_of_process: list[Recogniser] = []


def _start(engine: str) -> None:
    """Load the engine of this process once."""
    _of_process.append(ENGINES[engine]())


def _read(files: list[Path]) -> list[str]:
    return _of_process[0].read(files)
