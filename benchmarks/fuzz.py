"""Does anything but the documented errors escape from damaged images, checkpoints, records, options and configurations?

    python -m benchmarks.fuzz [--minutes 10]

Each case is a function of its number. Cases run in child processes, a few hundred each, so that one that ends or hangs
its process is found, too. What escaped is printed with its number; `--case KIND NUMBER` runs one again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import safetensors
from PIL import Image as PillowImage

from benchmarks.provenance import RESULTS, provenance, write_report
from stn_cli.checkpoints import open_checkpoint
from stn_cli.checkpoints.store import tensors_digest
from stn_cli.cli.parsing import parse_fill, parse_most_errors, parse_size
from stn_cli.engines.engine import small_copy
from stn_cli.engines.onnx_engine import OnnxEngine
from stn_cli.errors import ImageError, ModelError, StnError, TrainingDataError, UsageError
from stn_cli.images import FileData, decode_data, encode
from stn_cli.images.encode import output_format
from stn_cli.images.formats import RECORDS, readable
from stn_cli.rectify.finished import JOURNAL, last_lines, read_finished, read_journal
from stn_cli.rectify.options import RectifyOptions
from stn_cli.training.config import TrainConfig, read_config
from stn_cli.training.examples import Reading, read_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECONDS = 60
"""That a group of cases may take."""
_GROUP = 200
_ODD: Sequence[Any] = [
    *(0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1.5, 1e308, None, True),
    *("", "x" * 5000, "\0", "../../x", [], {}, [[]]),
]


class Inputs:
    """What is damaged: small images of every format and mode, a checkpoint, records and a configuration."""

    def __init__(self) -> None:
        self.images = list(_images())
        self.checkpoint = open_checkpoint("digits").path
        root = Path(__file__).resolve().parents[1]
        self.configurations = [path.read_bytes() for path in sorted((root / "models").glob("*/*.toml"))]
        self.folder = Path(tempfile.mkdtemp())

    def close(self) -> None:
        shutil.rmtree(self.folder)


def _images() -> list[bytes]:
    import io

    rng, found = np.random.default_rng(0), []
    for mode, formats in {
        "1": ("PNG", "TIFF", "BMP", "PPM"),
        "L": ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM"),
        "P": ("PNG", "TIFF", "GIF", "BMP"),
        "LA": ("PNG", "TIFF"),
        "RGB": ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM"),
        "RGBA": ("PNG", "TIFF", "WEBP"),
        "CMYK": ("JPEG", "TIFF"),
    }.items():
        image = PillowImage.fromarray(rng.integers(0, 256, (19, 27, 3), dtype=np.uint8)).convert(mode)
        for format in formats:
            for options in _ways(format):
                buffer = io.BytesIO()
                image.save(buffer, format, **options)
                found.append(buffer.getvalue())
    return found


def _ways(format: str) -> list[dict[str, Any]]:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [PillowImage.new("L", (27, 19))]}
    ways: dict[str, list[dict[str, Any]]] = {
        "JPEG": [{}, {"progressive": True, "exif": exif}, {"icc_profile": b"profile" * 30}],
        "PNG": [{}, {"exif": exif}],
        "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "packbits"}],
        "WEBP": [{}, {"lossless": True}, frames],
        "GIF": [{}, frames],
    }
    return ways.get(format, [{}])


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Flip, overwrite, cut, repeat, move or insert bytes; half of the time among the first hundred."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not result:
            break
        place = chance.randrange(chance.choice((min(len(result), 100), len(result))))
        length = chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0:
                result[place] ^= 1 << chance.randrange(8)
            case 1:
                result[place : place + length] = chance.randbytes(length)
            case 2:
                result[place : place + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
            case 3:
                del result[place:]
            case 4:
                del result[place : place + length]
            case 5:
                result[place:place] = result[place : place + length]
            case 6:
                other = chance.randrange(len(result))
                result[place : place + length] = result[other : other + length]
    return bytes(result)


def decoding(inputs: Inputs, chance: random.Random) -> None:
    """A damaged image is an ImageError, or an image as documented, which can be written again."""
    data = damaged(chance.choice(inputs.images), chance)
    file = FileData(data, hashlib.sha256(data).hexdigest())
    try:
        image = decode_data(file, max_pixels=1_000_000, salvage=chance.random() < 0.5)
    except ImageError:
        return
    height, width, channels = image.pixels.shape
    assert 0 < height * width <= 1_000_000
    assert channels in (1, 2, 3, 4)
    assert image.pixels.dtype in (np.uint8, np.uint16)
    assert image.pixels.flags.c_contiguous
    assert 1 <= image.exif_orientation <= 8
    assert np.isfinite(small_copy(image.pixels)).all()
    format = output_format(image.format, image.pixels.dtype, channels)
    encode(image.pixels, format, icc_profile=image.icc_profile, jpeg_tables=image.jpeg_tables)


def checkpoints(inputs: Inputs, chance: random.Random) -> None:
    """A damaged checkpoint is a ModelError, or runs."""
    folder = inputs.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs.checkpoint, folder)
    weights, graph = folder / "model.safetensors", folder / chance.choice(("localizer.onnx", "classifier.onnx"))
    match chance.randrange(4):
        case 0:
            data = weights.read_bytes()
            split = 8 + int.from_bytes(data[:8], "little")
            weights.write_bytes(damaged(data[:split], chance) + data[split:])
        case 1:
            graph.write_bytes(damaged(graph.read_bytes(), chance))
            _rewrite(weights)
        case 2:
            _rewrite(weights, lambda header: _alter(header, chance))
        case 3:
            _rewrite(weights, alter_tensors=lambda tensors: _alter_tensor(tensors, chance))
    try:
        engine = OnnxEngine(open_checkpoint(str(folder)))
        engine.locate([np.zeros((20, 30, 1), np.float32)], [(20, 30)])
    except ModelError:
        return


def _rewrite(
    path: Path, alter: Callable[[Any], None] = lambda _: None, alter_tensors: Callable[[Any], None] = lambda _: None
) -> None:
    """Change a checkpoint as someone would who knows its format: all digests fit again."""
    from safetensors.numpy import load_file, save_file

    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["stn"])
    tensors = load_file(path)
    alter_tensors(tensors)
    header["tensors_sha256"] = tensors_digest(tensors)
    for name in header["graphs"]:
        header["graphs"][name] = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
    alter(header)
    save_file(tensors, path, {"stn": json.dumps(header)})


def _alter(tree: Any, chance: random.Random) -> None:
    """Another value, no value or one more, somewhere in a tree of JSON."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
            node = node[key]
            continue
        break
    match chance.randrange(4):
        case 0 if isinstance(node, dict):
            del node[key]
        case 1 if isinstance(node, dict):
            node[str(chance.random())] = chance.choice(_ODD)
        case 2 if isinstance(node, list):
            node += node * chance.choice((1, 100))
        case _:
            node[key] = chance.choice(_ODD)


def _alter_tensor(tensors: dict[str, np.ndarray], chance: random.Random) -> None:
    name = chance.choice(sorted(tensors))
    match chance.randrange(5):
        case 0:
            del tensors[name]
        case 1:
            tensors[name + "x"] = tensors[name]
        case 2:
            tensors[name] = tensors[name][None]
        case 3:
            tensors[name] = tensors[name].astype(chance.choice((np.float64, np.int8, np.bool_)))
        case 4 if tensors[name].dtype.kind == "f":
            tensors[name] = np.full_like(tensors[name], chance.choice((np.nan, np.inf, -np.inf)))


def records(inputs: Inputs, chance: random.Random) -> None:
    """Damaged lines of records, or of the journal, are left out."""
    line = {
        "schema": "stn.theta/1",
        "source": {"path": "in/a.png", "relative": "../in/a.png", "sha256": "0" * 64},
        "status": "done",
        "model": {"name": "text", "sha256": "1" * 64},
        "options_sha256": "2" * 64,
        "output": {"path": "out/a.png", "relative": "./a.png", "sha256": "3" * 64},
    }
    lines = []
    for _ in range(chance.randrange(1, 6)):
        copy = json.loads(json.dumps(line))
        if chance.random() < 0.7:
            _alter(copy, chance)
        lines.append(json.dumps(copy).encode())
    data = b"\n".join(lines) + chance.choice((b"\n", b"", b"\r\n", b"\0"))
    data = damaged(data, chance) if chance.random() < 0.5 else data
    (inputs.folder / RECORDS).write_bytes(data)
    (inputs.folder / JOURNAL).write_bytes(damaged(b'"./a.png"\n"./b.png"\n', chance))
    for path, finished in read_finished(inputs.folder / RECORDS).items():
        assert isinstance(path, str)
        assert finished.key is None or len(finished.key) == 16
    kept = last_lines(inputs.folder / RECORDS)
    assert kept is None or len(kept) < len(data.splitlines()) + 1
    assert all(isinstance(name, str) for name in read_journal(inputs.folder))


def options(inputs: Inputs, chance: random.Random) -> None:
    """Options are taken, or a UsageError."""
    del inputs
    text = "".join(chance.choice("0123456789xX.-+%#abf \0é∞") for _ in range(chance.randrange(12)))
    attempts: tuple[Callable[[], object], ...] = (
        lambda: parse_size(text),
        lambda: parse_fill(text),
        lambda: parse_most_errors(text, 10),
        lambda: readable([text]),
        lambda: output_format("PNG", np.uint8, 3, text),
        lambda: RectifyOptions(
            size=(chance.choice((0, 1, 40_000)), 9) if chance.random() < 0.5 else None,
            height=chance.choice((None, 0, 5, 10**9)),
            quality=chance.choice((None, -1, 50, 101)),
            min_confidence=chance.choice((None, -1.0, 0.5, float("nan"), float("inf"))),
            time_limit=chance.choice((0.0, -1.0, float("nan"), 5.0)),
            workers=chance.choice((0, -5, 3)),
            batch_size=chance.choice((0, 1, 64)),
        ),
    )
    try:
        chance.choice(attempts)()
    except UsageError:
        return


def configurations(inputs: Inputs, chance: random.Random) -> None:
    """A damaged configuration of a training is taken, or a UsageError."""
    data = chance.choice(inputs.configurations)
    path = inputs.folder / "config.toml"
    try:
        if chance.random() < 0.5:
            tree = msgspec.toml.decode(data)
            _alter(tree, chance)
            msgspec.convert(tree, TrainConfig)
        else:
            path.write_bytes(damaged(data, chance))
            read_config(path)
    except (UsageError, msgspec.ValidationError):  # which `read_config` makes one of
        return


def datasets(inputs: Inputs, chance: random.Random) -> None:
    """A folder of training data with a damaged table, archive or file of labels is read, or a TrainingDataError."""
    root = inputs.folder / "data"
    shutil.rmtree(root, ignore_errors=True)
    (root / "images").mkdir(parents=True)
    for number, data in enumerate(chance.sample(inputs.images, 3)):
        (root / "images" / f"{number}.png").write_bytes(damaged(data, chance) if chance.random() < 0.3 else data)
    suffix = chance.choice(("tsv", "csv", "jsonl"))
    table = b"".join(_table_row(suffix, number) for number in range(-1, 4))
    (root / f"labels.{suffix}").write_bytes(damaged(table, chance) if chance.random() < 0.8 else table)
    if chance.random() < 0.5:
        (root / f"labels.{suffix}").rename(root / "images" / chance.choice(("0.txt", "0.cls", "1.json", "2.gt.txt")))
    if chance.random() < 0.5:
        with tarfile.open(inputs.folder / "data.tar", "w") as archive:
            archive.add(root, arcname="x")
        data = (inputs.folder / "data.tar").read_bytes()
        root = inputs.folder / "damaged.tar"
        root.write_bytes(damaged(data, chance) if chance.random() < 0.7 else data)
    try:
        dataset = read_examples([root], Reading(label_means=chance.choice((None, "class", "text"))))
    except TrainingDataError:
        return
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) >= 2
    assert dataset.train.corners is None or dataset.train.corners.shape == (len(dataset.train), 4, 2)


def _table_row(suffix: str, number: int) -> bytes:
    """The names of the columns for a negative number, or a row."""
    names = ("file", "class", "text", "x1", "y1", "x2", "y2")
    values = (f"{number}.png", number % 2, f"word {number}", 1, 2, 5.5, 6)
    if suffix == "jsonl":
        return b"" if number < 0 else json.dumps(dict(zip(names, values, strict=True))).encode() + b"\n"
    cells = names if number < 0 else values
    return ({"tsv": "\t", "csv": ","}[suffix].join(map(str, cells)) + "\n").encode()


_ALL = (decoding, checkpoints, records, options, configurations, datasets)
KINDS = {function.__name__: function for function in _ALL}


def escape(kind: str, number: int, inputs: Inputs) -> str | None:
    """What escaped from one case, or None."""
    try:
        KINDS[kind](inputs, random.Random(f"{kind} {number}"))
    except StnError as error:
        return f"{type(error).__name__} where another error is documented: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _group(kind: str, first: int, count: int, connection: Any) -> None:
    inputs = Inputs()
    try:
        for number in range(first, first + count):
            connection.send(("begun", number))
            found = escape(kind, number, inputs)
            if found is not None:
                connection.send(("escaped", f"{kind} {number}: {found}"))
    finally:
        inputs.close()
    connection.send(("ended", first + count))


def run_group(kind: str, first: int, count: int) -> list[str]:
    """What escaped from some cases, that ran in a process of their own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_group, args=(kind, first, count, theirs))
    process.start()
    theirs.close()
    found, at = [], first
    while True:
        if not ours.poll(_SECONDS):
            process.kill()
            found.append(f"{kind} {at}: takes longer than {_SECONDS} seconds")
            break
        try:
            what, said = ours.recv()
        except EOFError:
            process.join()
            found.append(f"{kind} {at}: ends the process ({process.exitcode})")
            break
        if what == "ended":
            break
        if what == "begun":
            at = said
        else:
            found.append(said)
    process.join()
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--output", type=Path, default=RESULTS / "fuzz.json")
    args = parser.parse_args(argv)
    if args.case:
        KINDS[args.case[0]](Inputs(), random.Random(f"{args.case[0]} {args.case[1]}"))
        return
    end, first = time.monotonic() + 60 * args.minutes, args.first
    escaped: list[str] = []
    cases = dict.fromkeys(KINDS, 0)
    while time.monotonic() < end:
        for kind in KINDS:
            count = _GROUP if kind != "checkpoints" else _GROUP // 4
            found = run_group(kind, first, count)
            for line in found:
                print(line, flush=True)
            escaped += found
            cases[kind] += count
        first += _GROUP
    print(f"{sum(cases.values())} cases, {len(escaped)} escaped")
    write_report(args.output, provenance("fuzz", argv) | {"minutes": args.minutes, "cases": cases, "escaped": escaped})


if __name__ == "__main__":
    main(sys.argv[1:])
