"""`stn`, and `python -m stn_cli`."""

import os
import sys

_STANDARD = ("stdin", "stdout", "stderr")


def main() -> None:
    _open_what_is_closed()
    from stn_cli.cli.main import app  # noqa: PLC0415  the processes of a crew import this module, too

    app()


def _open_what_is_closed() -> None:
    """A standard stream that is closed becomes one to nowhere; its number would go to a file or socket of ours."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < len(_STANDARD):
        pass
    os.close(descriptor)
    for name in _STANDARD:
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+", encoding="utf-8"))


if __name__ == "__main__":
    main()
