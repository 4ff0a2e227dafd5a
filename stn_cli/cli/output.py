"""What the user sees. stdout carries results alone; everything else goes to stderr."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from stn_cli.errors import EXIT_INTERRUPTED, StnError, StorageError


def result(line: str) -> None:
    """A line of results, to stdout. If its reader has gone (`| head`), the work goes on without it.

    Raises StorageError if it cannot be written.
    """
    try:
        _write(sys.stdout, printable(line) + "\n")
    except OSError as error:
        _write_nowhere(sys.stdout)
        raise StorageError(f"cannot write the results: {error.strerror}") from error


def json_result(text: str) -> None:
    """JSON as a result: what a terminal should not see, or a pipe cannot hold, is escaped as JSON has it."""
    if text.isascii() and text.replace("\n", "").isprintable():
        result(text)
        return
    knows_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    kept = (c == "\n" or (c.isprintable() and (knows_all or c.isascii())) for c in text)
    result("".join(c if keep else json.dumps(c)[1:-1] for c, keep in zip(text, kept, strict=True)))


def say(line: str, *, in_place: bool = False) -> None:
    """A line for the person at the terminal, to stderr, as long as anybody reads it; or in the place of the last."""
    try:
        _write(sys.stderr, f"\r{printable(line)}" if in_place else f"{printable(line)}\n")
    except OSError:
        _write_nowhere(sys.stderr)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _write_nowhere(stream)


def _write_nowhere(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def printable(text: str) -> str:
    """Text whose control characters and undecodable bytes are escaped, so that no file name moves the cursor."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """Text that may be a file's name, and hold an end of line."""
    return text.replace("\n", "\\n")


def shorten(text: str, most: int = 200) -> str:
    """One line of text, cut in the middle if it is very long."""
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


@contextmanager
def errors_reported(how_to_go_on: str = "") -> Iterator[None]:
    """Turns exceptions into a message, a remedy and the documented exit code. STN_DEBUG=1 shows tracebacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # terminals and pipes that know no θ
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted. {how_to_go_on}".rstrip())
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get("STN_DEBUG"):
            raise
        failure = error if isinstance(error, StnError) else _defect(error)
        say(f"error: {failure}")
        say(f"  → {failure.remedy}")
        raise typer.Exit(failure.exit_code) from None


def _defect(error: Exception) -> StnError:
    remedy = f"{StnError.default_remedy} STN_DEBUG=1 shows where it happened."
    return StnError(f"internal: {type(error).__name__}: {error}", remedy=remedy)
