"""Decoded images on disk, so that an image file is decoded and resized once and not every epoch."""

import json
import os
import re
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import PIL

from bdl.runtime.config import DataConfig
from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import atomic, partials, write_text
from bdl.runtime.lock import held, require_writable
from bdl.runtime.ownership import mark

CACHE = "cache of decoded images"  # what its folder is for
_ENDING = ".pixels"
_USED = "bdl-cache.bytes"  # a file that tells how many bytes all entries have
_LOCK = "bdl-cache.lock"
_IS_PART = re.compile("[0-9a-f]{2}")  # the folders of the entries
_IS_ENTRY = re.compile(f"[0-9a-f]{{64}}{re.escape(_ENDING)}")


class ImageCache:
    """Pixels by the image file that they were made from; all processes and runs may share it.

    An entry is one line of JSON, then the pixels as they lie in memory. It counts only while its
    image file has the size and times that it had then, and while its checksum is right;
    else it is made anew. Entries appear whole, one writer at a time; once all have `limit` bytes
    together, no more are added. Readers need no lock.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self._full = False

    def prepare(self) -> None:
        """Make the folder and count what is in it; what a kill left half written goes.

        Other things in the folder are left alone: only files with names that a cache gives are
        counted or removed.

        Raises UserError if the folder cannot be written to.
        """
        require_writable(self.folder, "data.cache")
        mark(self.folder, CACHE)
        with held(self.folder / _LOCK):
            used = 0
            for entry in self.folder.iterdir():
                if not _IS_PART.fullmatch(entry.name) or not entry.is_dir():
                    continue
                for partial in partials(entry):
                    if _IS_ENTRY.match(partial.name):
                        partial.unlink(missing_ok=True)
                used += sum(
                    file.stat().st_size
                    for file in entry.iterdir()
                    if _IS_ENTRY.fullmatch(file.name)
                )
            write_text(self.folder / _USED, str(used))

    def pixels(self, file: Path, form: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What `make` makes of the image `file`, kept since an earlier call where possible.

        `form` tells what it makes: two forms of a file are two entries.
        """
        try:
            state = file.stat()
        except OSError:
            return make()  # which says what is wrong
        name = f"{os.path.abspath(file)}\n{form}\n{PIL.__version__}"
        key = sha256(os.fsencode(name)).hexdigest()
        entry = self.folder / key[:2] / (key + _ENDING)
        # The time of change tells also of a content that was written under the old time.
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
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
            with held(self.folder / _LOCK):
                before = entry.stat().st_size if entry.exists() else 0
                used = int((self.folder / _USED).read_text(encoding="ascii")) - before + size
                if used > self.limit:
                    self._full = True
                    return
                with atomic(entry, durable=False) as partial, open(partial, "wb") as opened:
                    opened.write(line)
                    opened.write(pixels.data)
                (self.folder / _USED).write_text(str(used), encoding="ascii")
        except (UserError, OSError, ValueError) as error:
            self._full = True  # the disk is full, or the cache was removed: training needs neither
            log.info("data.cache: %s is not added to any more: %s", self.folder, error)


def make_cache(config: DataConfig) -> ImageCache | None:
    """The cache that a configuration asks for, if it does."""
    if config.cache is None:
        return None
    return ImageCache(Path(config.cache), config.cache_gb * 1e9)


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
