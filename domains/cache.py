"""Decoded images on disk, so that an image file is decoded and resized once and not every epoch."""

import json
import os
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL
from filelock import FileLock

from runtime.config import DataConfig
from runtime.errors import UserError
from runtime.files import atomic, remove_partial, write_text
from runtime.lock import require_writable

_ENDING = ".pixels"
_USED = "bytes"  # a file that tells how many bytes all entries have
_LOCK = "lock"


class ImageCache:
    """Pixels by the image file that they were made from; all processes and runs may share it.

    An entry is one line of JSON, then the pixels as they lie in memory. It counts only while its
    image file has the size and time of change that it had then, and while its checksum is right;
    else it is made anew. Entries appear whole, one writer at a time; once all have `limit` bytes
    together, no more are added. Readers need no lock.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self._full = False

    def prepare(self) -> None:
        """Make the folder and count what is in it; what a kill left half written goes.

        Raises UserError if the folder cannot be written to.
        """
        require_writable(self.folder, "data.cache")
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / _LOCK):
            remove_partial(self.folder)
            sizes = (file.stat().st_size for file in self.folder.glob(f"*/*{_ENDING}"))
            write_text(self.folder / _USED, str(sum(sizes)))

    def pixels(self, file: Path, form: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make` makes of the image `file`, kept since an earlier call where possible.

        `form` tells what it makes: two forms of a file are two entries.
        """
        try:
            state = file.stat()
        except OSError:
            return make()  # which says what is wrong
        name = f"{os.path.abspath(file)}\n{form}\n{PIL.__version__}"
        key = sha256(name.encode()).hexdigest()
        entry = self.folder / key[:2] / (key + _ENDING)
        stamp = [state.st_size, state.st_mtime_ns]
        kept = _read(entry, stamp)
        if kept is not None:
            return kept
        made = np.ascontiguousarray(make())
        if not self._full:
            self._add(entry, stamp, made)
        return made

    def _add(self, entry: Path, stamp: list[int], pixels: np.ndarray) -> None:
        head = {
            "file": stamp,
            "shape": pixels.shape,
            "type": str(pixels.dtype),
            "crc": zlib.crc32(pixels.data),
        }
        line = json.dumps(head).encode() + b"\n"
        size = len(line) + pixels.nbytes
        try:
            with FileLock(self.folder / _LOCK):
                before = entry.stat().st_size if entry.exists() else 0
                used = int((self.folder / _USED).read_text(encoding="ascii")) - before + size
                if used > self.limit:
                    self._full = True
                    return
                with atomic(entry, durable=False) as partial, open(partial, "wb") as opened:
                    opened.write(line)
                    opened.write(pixels.data)
                (self.folder / _USED).write_text(str(used), encoding="ascii")
        except (UserError, OSError, ValueError):
            self._full = True  # the disk is full, or the cache was removed: training needs neither


def make_cache(config: DataConfig) -> ImageCache | None:
    """The cache that a configuration asks for, if it does."""
    if config.cache is None:
        return None
    return ImageCache(Path(config.cache).expanduser(), config.cache_gb * 1e9)


def _read(entry: Path, stamp: list[int]) -> np.ndarray | None:
    """An entry's pixels; None if there is none, or if it is of another file or damaged."""
    try:
        with open(entry, "rb") as opened:
            head = json.loads(opened.readline())
            content = bytearray(os.fstat(opened.fileno()).st_size - opened.tell())
            opened.readinto(content)
        if head["file"] != stamp or zlib.crc32(content) != head["crc"]:
            return None
        return np.frombuffer(content, head["type"]).reshape(head["shape"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
