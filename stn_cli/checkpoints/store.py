"""Opening a checkpoint: by name or by path, strictly, without torch."""

import difflib
import hashlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stn_cli.checkpoints.header import Header, parse_header
from stn_cli.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, GOLDEN, CARD = "model.safetensors", "golden.safetensors", "README.md"
METADATA_KEY = "stn"
_LARGEST_FILE = 1 << 29
_LARGEST_HEADER = 1 << 22
_DTYPES = {"float16", "float32", "int64"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose header has been read; weights and graphs are checked when they are asked for.

    Attributes:
        path: its directory.
        header: as parsed.
        sha256: of `model.safetensors`, which names the digests of all graphs; it identifies the model in records.
    """

    path: Path
    header: Header
    sha256: str

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def is_bundled(self) -> bool:
        """It came with stn; what was checked when it was built need not be checked at every start."""
        return self.path.parent == _bundled_root()

    def graph(self, name: str) -> bytes:
        """The ONNX file `name`, after comparing its digest with the header's."""
        data = _read(self.path / name)
        if hashlib.sha256(data).hexdigest() != self.header.graphs[name]:
            raise ModelError(f"{self.path / name} does not belong to the weights beside it: its digest differs")
        return data

    @cached_property
    def tensors(self) -> "dict[str, np.ndarray]":
        """The weights, once their digest, names, shapes and values are checked."""
        import numpy as np  # noqa: PLC0415  `models list` reads headers alone

        tensors = read_tensors(self.path / WEIGHTS)
        if tensors_digest(tensors) != self.header.tensors_sha256:
            raise ModelError(f"{self.path / WEIGHTS} is damaged: the digest of its tensors differs from its header's")
        for name, tensor in tensors.items():
            if tensor.dtype.name not in _DTYPES:
                raise ModelError(f"{self.path / WEIGHTS}: tensor {name} has the unexpected type {tensor.dtype}")
            if not np.isfinite(tensor).all():
                raise ModelError(f"{self.path / WEIGHTS}: tensor {name} has values that are not finite")
        self._check_shapes({name: tensor.shape for name, tensor in tensors.items()})
        return tensors

    def _check_shapes(self, found: dict[str, tuple[int, ...]]) -> None:
        from stn_cli.checkpoints.shapes import tensor_shapes  # noqa: PLC0415  as above

        expected = tensor_shapes(self.header.model)
        for name in sorted(found.keys() | expected.keys()):
            if name not in found:
                raise ModelError(f"{self.path / WEIGHTS}: tensor {name} is missing")
            if name not in expected:
                raise ModelError(f"{self.path / WEIGHTS}: tensor {name} is of no layer of its architecture")
            if found[name] != expected[name]:
                raise ModelError(f"{self.path / WEIGHTS}: tensor {name} has shape {found[name]}, not {expected[name]}")

    @property
    def size(self) -> int:
        """Bytes of all files of the checkpoint."""
        files = (WEIGHTS, GOLDEN, CARD, *self.header.graphs)
        return sum((self.path / name).stat().st_size for name in files if (self.path / name).is_file())


def open_checkpoint(name_or_path: str) -> Checkpoint:
    """The bundled model of that name, or the checkpoint in that directory.

    Raises:
        ModelError: there is none, or its header is damaged, foreign or of a newer schema.
    """
    try:
        found = {path.resolve(): path for path in _candidates(name_or_path) if (path / WEIGHTS).is_file()}
        is_folder = Path(name_or_path).is_dir()
    except OSError as error:  # it is too long for a name, say
        raise ModelError(f"there is no model {name_or_path!r}: {error.strerror}") from error
    if len(found) > 1:
        raise ModelError(
            f"{name_or_path!r} is a bundled model, and a checkpoint in this folder",
            remedy=f"Say ./{name_or_path} for the folder; rename it to use the bundled model.",
        )
    for path in found.values():
        return _open(path)
    if is_folder and (Path(name_or_path) / "log.jsonl").is_file() and not (Path(name_or_path) / CARD).exists():
        raise ModelError(
            f"the run in {name_or_path} is not finished", remedy="The command that started it goes on where it ended."
        )
    if is_folder:
        raise ModelError(f"{name_or_path} holds no checkpoint: {WEIGHTS} is missing")
    alike = difflib.get_close_matches(name_or_path.lower(), [model.name for model in bundled_models()])
    remedy = f"Do you mean {alike[0]}? {ModelError.default_remedy}" if alike else None
    raise ModelError(f"there is no model {name_or_path!r}, neither bundled nor as a directory", remedy=remedy)


def bundled_models() -> list[Checkpoint]:
    """The models that come with stn, by name."""
    root = _bundled_root()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [_open(folder) for folder in folders if (folder / WEIGHTS).is_file()]


def read_tensors(path: Path) -> "dict[str, np.ndarray]":
    """The tensors of a safetensors file; ModelError if it is damaged."""
    import safetensors.numpy  # noqa: PLC0415  as above

    try:
        return safetensors.numpy.load(_read(path))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def tensors_digest(tensors: "dict[str, np.ndarray]") -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    import numpy as np  # noqa: PLC0415  as above

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _candidates(name_or_path: str) -> Iterator[Path]:
    if Path(name_or_path).name == name_or_path and name_or_path not in ("", ".", ".."):
        yield _bundled_root() / name_or_path
    yield Path(name_or_path)


def _bundled_root() -> Path:
    """`models/` inside the installed package, or beside it in a working copy."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def _open(path: Path) -> Checkpoint:
    data = _read(path / WEIGHTS)
    try:
        header = parse_header(_metadata(data)[METADATA_KEY])
    except KeyError as error:
        raise ModelError(f"{path / WEIGHTS} is not a checkpoint of stn: it has no header of ours") from error
    except ModelError as error:
        raise ModelError(f"{path / WEIGHTS} cannot be used: {error}") from error
    return Checkpoint(path, header, hashlib.sha256(data).hexdigest())


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise ModelError("it is not a safetensors file, or is cut short")
    try:
        entries = json.loads(data[8 : 8 + length])["__metadata__"]
    except (ValueError, RecursionError) as error:
        raise ModelError(f"its header is not JSON: {error}") from error
    except (KeyError, TypeError):
        return {}
    return {name: text for name, text in entries.items() if isinstance(text, str)} if isinstance(entries, dict) else {}


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device would be read without end
            raise ModelError(f"{path} is not a file")
        if found.st_size > _LARGEST_FILE:
            raise ModelError(f"{path} is larger than any checkpoint of stn")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
