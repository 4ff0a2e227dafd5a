"""Pillow's process-wide state, held still while images are decoded in threads."""

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import PIL._imaging
import PIL.Image
import PIL.ImageFile


class _Containment:
    """Pillow's own pixel limit and libtiff's messages switched off, and Pillow's warnings gathered per thread.

    All of this lives in the process and not in the thread. So the first thread to enter switches it and the last
    one to leave restores it; `warnings.catch_warnings` in each thread would restore it in the wrong order.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition(threading.RLock())
        self._inside = self._decoding = 0
        self._undo = ExitStack()
        self._thread = threading.local()

    @contextmanager
    def __call__(self) -> Iterator[list[str]]:
        """Around one decode; gives the list in which its warnings gather."""
        gathered: list[str] = []
        with self.around():
            with self._lock:
                self._decoding += 1
            self._thread.gathered = gathered
            try:
                yield gathered
            finally:
                self._thread.gathered = None
                with self._lock:
                    self._decoding -= 1
                    self._lock.notify_all()

    @contextmanager
    def around(self) -> Iterator[None]:
        """Around many decodes, which then cost less: nothing has to be switched for each."""
        with self._lock:
            if self._inside == 0:
                self._switch()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._undo.close()

    @contextmanager
    def lenient(self) -> Iterator[list[str]]:
        """Around one decode, alone, whose decoder makes do with what there is of a damaged file."""
        with self._lock:
            while self._decoding:
                self._lock.wait()
            PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                with self() as gathered:
                    yield gathered
            finally:
                PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False

    def _switch(self) -> None:
        self._undo.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("always", module=r"PIL\.")  # leaves the filters for other modules as they are
        show = warnings.showwarning

        def gather(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            gathered = getattr(self._thread, "gathered", None)
            if gathered is not None:
                gathered.append(str(message).strip())
            else:
                show(message, *args, **kwargs)

        warnings.showwarning = gather
        self._undo.callback(setattr, PIL.Image, "MAX_IMAGE_PIXELS", PIL.Image.MAX_IMAGE_PIXELS)
        PIL.Image.MAX_IMAGE_PIXELS = None
        _silence_libtiff(self._undo)


def _silence_libtiff(undo: ExitStack) -> None:
    """libtiff tells what is wrong with a damaged file on stderr itself, past Python; Pillow then raises as well."""
    with suppress(AttributeError, OSError):  # where libtiff is linked so that it cannot be found, it stays loud
        set_handler = ctypes.CDLL(PIL._imaging.__file__).TIFFSetErrorHandler
        set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        undo.callback(set_handler, set_handler(None))


# Without any handler, Python prints what Pillow logs about a damaged file before it raises.
logging.getLogger("PIL").addHandler(logging.NullHandler())

contained_pillow = _Containment()
