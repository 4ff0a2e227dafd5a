"""What the user sees. stdout carries results alone; everything else goes to stderr."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from stn_cli.errors import EXIT_INTERRUPTED, StnError


def result(line: str) -> None:
    """A line of results, to stdout. If its reader has gone (`| head`), the work goes on without it."""
    try:
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """A line for the person at the terminal, to stderr."""
    sys.stderr.write(printable(line) + "\n")


def printable(text: str) -> str:
    """Text whose control characters and undecodable bytes are escaped, so that no file name moves the cursor."""
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
