"""What is known of the user's files, so that a second look at them needs no reading.

An index keeps, by path, what was found in a file together with the file's size and times. While
these are the same, what was found holds; what a result depends on is told by contents, so that a
file that was only touched is no change, and one that was corrected is, whatever its size.

It is a file of ours, in a run's folder or the cache's. Processes may share it: it appears whole,
what others added is kept, and one that is damaged counts as none.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from bdl.domains.datasets import Sample
from bdl.domains.images import (
    Header,
    open_image,
    open_label,
    read_header,
    require_undamaged,
    shown_colors,
)
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.files import atomic, open_regular
from bdl.runtime.lock import held
from bdl.runtime.ownership import has_mark, mark

INDEX = "bdl-index.json"
_VERSION = 3  # of what is found in files, and how: another one's finds do not count
_READERS = 8  # threads: on network disks opening a file is mostly waiting
_FRESH = 2.0  # seconds in which a change may leave a file's times as they are
_BETWEEN_SAVES = 60.0  # seconds
_STORED = [field.name for field in fields(Header)].index("stored")
_BLOCK = 1 << 20  # bytes read at once
_MOST_COLORS = 1024  # in one label map
_ASKED, _SLOW = 512, 50e-6  # files whose times are asked for at once; seconds that one may take


@dataclass(frozen=True)
class Look:
    """What the header of an image or label file tells, or why it cannot be read.

    Args:
        file: The file, as it was given.
        header: Its header; None for a file that cannot be read.
        error: Why; empty for one that can.
    """

    file: Path
    header: Header | None
    error: str = ""

    @property
    def image_flaw(self) -> str | None:
        """Why it is no photo, in a line that names the file; None if it is one."""
        return self._line(self.header.image_flaw if self.header else None)

    @property
    def label_flaw(self) -> str | None:
        """Why it is no map of class ids, likewise."""
        return self._line(self.header.label_flaw if self.header else None)

    @property
    def colors_flaw(self) -> str | None:
        """Why it is no map of class colours, likewise."""
        return self._line(self.header.colors_flaw if self.header else None)

    def _line(self, flaw: str | None) -> str | None:
        return self.error or (f"{self.file}: {flaw}" if flaw else None)


@dataclass(frozen=True)
class Decoded:
    """What decoding an image told: the share of its pixels that are transparent, or why it cannot
    be decoded."""

    transparent: float
    error: str = ""


@dataclass(frozen=True)
class Ids:
    """The ids, or colours 0xRRGGBB, in a label file with their numbers of pixels, or why it cannot
    be used."""

    counts: dict[int, int]
    error: str = ""


class Index:
    """What is known of files; only what is asked for is looked up.

    Args:
        file: Where it is kept, in a folder with a mark of ours. None keeps it for this process
            alone.
        console: Shows the progress of what takes long.
        purpose: What the folder is for; with the first find it is made, if need be, and marked.
            None: as long as the folder has no mark, nothing is written.
    """

    def __init__(
        self, file: Path | None, console: Console | None = None, purpose: str | None = None
    ) -> None:
        self.file, self.console, self.purpose = file, console, purpose
        self._files: dict[str, dict[str, Any]] = _read(file) if file is not None else {}
        self._added: set[str] = set()  # paths of what is not yet in the file
        self._stamps: dict[str, list[int] | None] = {}
        self._found: dict[tuple[str, str], dict[str, Any]] = {}  # in this process, by path and kind

    def headers(self, files: Sequence[Path], title: str = "") -> list[Look]:
        """Headers of images or label maps; `title` says in the progress what they are, e.g.
        "data.source"."""
        looked = self._look("header", _read_header, files, f"looking at {title}")
        return [_as_look(file, look) for file, look in zip(files, looked, strict=True)]

    def damages(self, files: Sequence[Path], title: str = "") -> list[str]:
        """Why files of images or label maps cannot be decoded, a line each; empty for one that
        can."""
        looked = self._look("damage", _damage, files, f"looking for damage in {title}")
        return [found.get("error", "") for found in looked]

    def decoded(self, files: Sequence[Path], title: str = "") -> list[Decoded]:
        """What decoding images tells."""
        looked = self._look("pixels", _decode, files, f"decoding {title}")
        return [Decoded(found.get("transparent", 0.0), found.get("error", "")) for found in looked]

    def ids(self, files: Sequence[Path], title: str = "", by_color: bool = False) -> list[Ids]:
        """The ids, or the colours, in label files, all of whose pixels are read."""
        kind, look = ("colors", _colors) if by_color else ("ids", _ids)
        looked = self._look(kind, look, files, f"reading labels of {title}")
        return [
            Ids({int(k): n for k, n in seen.get("ids", {}).items()}, seen.get("error", ""))
            for seen in looked
        ]

    def shown_colors(self, files: Sequence[Path], title: str = "") -> list[dict[int, int]]:
        """The colours, 0xRRGGBB, in which palette files show the indices that occur in them; none
        for a file that cannot be read."""
        looked = self._look("shown", _shown, files, f"comparing palettes of {title}")
        return [{int(k): color for k, color in seen.get("shown", {}).items()} for seen in looked]

    def hashes(self, files: Sequence[Path], title: str = "") -> list[str]:
        """Hashes of the files' contents.

        Raises:
            UserError: For a file that cannot be read.
        """
        return self._contents("hash", _hash, files, f"reading {title}")

    def pictures(self, files: Sequence[Path], title: str = "") -> list[str]:
        """Hashes of what images show, the same however their files are packed.

        Raises:
            UserError: For a file that cannot be read.
        """
        return self._contents("picture", _picture, files, f"comparing {title}")

    def digest_of_images(self, samples: Sequence[Sample], title: str = "") -> str:
        """A short hash of the samples' names and of their images' contents, in their order."""
        hashes = self.hashes([sample.image for sample in samples], title)
        return _digest([[s.name, content] for s, content in zip(samples, hashes, strict=True)])

    def digest_of_labels(self, samples: Sequence[Sample], title: str = "") -> str:
        """The same of their labels; samples must have them."""
        labels = [sample.label for sample in samples if sample.label is not None]
        hashes = self.hashes(labels, f"labels of {title}")
        return _digest([[s.name, content] for s, content in zip(samples, hashes, strict=True)])

    def save(self) -> None:
        """Write what was added to the file, with what others wrote to it meanwhile."""
        if self.file is None or not self._added:
            return
        try:
            if not has_mark(self.file.parent):
                if self.purpose is None:
                    return
                mark(self.file.parent, self.purpose)
            with held(self.file.with_suffix(".lock")):
                files = _read(self.file)
                for path in self._added:
                    mine, other = self._files[path], files.get(path, {})
                    same = other.get("stamp") == mine["stamp"]
                    files[path] = {**other, **mine} if same else mine
                with atomic(self.file, durable=False) as partial:
                    content = {"version": _version(), "files": files}
                    partial.write_text(json.dumps(content, separators=(",", ":")), "utf-8")
        except (UserError, OSError) as error:
            log.debug("%s: was not written (%s)", self.file, error)  # it costs time alone
        self._added.clear()

    def _contents(
        self, kind: str, look: Callable[[Path], dict[str, Any]], files: Sequence[Path], title: str
    ) -> list[str]:
        """What `look` gives under the name `kind`. Raises UserError for a file with an error."""
        looked = self._look(kind, look, files, title)
        for value in looked:
            if "error" in value:
                raise UserError(value["error"])
        return [value[kind] for value in looked]

    def _look(
        self, kind: str, look: Callable[[Path], dict[str, Any]], files: Sequence[Path], title: str
    ) -> list[dict[str, Any]]:
        """What is known of each file under `kind`: as kept, or what `look` finds now."""
        paths = [os.path.abspath(file) for file in files]
        self._stamp(paths)
        values = [self._known(path, kind) for path in paths]
        missing = {
            path: file
            for file, path, value in zip(files, paths, values, strict=True)
            if value is None
        }
        if missing:
            self._look_at(kind, look, missing, title)
            values = [self._known(path, kind) for path in paths]
        return [
            # What was wrong is kept without the name, under which a file may be given.
            {"error": value["error"].replace("{file}", str(file))} if "error" in value else value
            for file, value in zip(files, values, strict=True)
            if value is not None
        ]

    def _look_at(
        self,
        kind: str,
        look: Callable[[Path], dict[str, Any]],
        files: dict[str, Path],
        title: str,
    ) -> None:
        """Keep what `look` finds in the files, by path, with progress."""
        track = (
            nullcontext()
            if self.console is None
            else self.console.track(title.strip(), len(files), unit="files", brief=True)
        )
        saved = time.monotonic()
        try:
            with ThreadPoolExecutor(_READERS) as readers, track as task:
                try:
                    looks = readers.map(lambda file: _outcome(look, file), files.values())
                    for path, value in zip(files, looks, strict=True):
                        self._keep(path, kind, value)
                        if task is not None:
                            task.advance()
                        if time.monotonic() - saved > _BETWEEN_SAVES:
                            self.save()
                            saved = time.monotonic()
                except BaseException:
                    readers.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            self.save()

    def _stamp(self, paths: Sequence[str]) -> None:
        """Ask for the size and times of files that were not asked for yet."""
        asked = [path for path in dict.fromkeys(paths) if path not in self._stamps]
        blocks = [asked[start : start + _ASKED] for start in range(0, len(asked), _ASKED)]
        while blocks:
            begun = time.monotonic()
            block = blocks.pop()
            self._stamps.update(zip(block, _stamps(block), strict=True))
            if time.monotonic() - begun > _SLOW * _ASKED:  # each answer comes over a network
                break
        if blocks:
            with ThreadPoolExecutor(_READERS) as readers:
                for block, stamps in zip(blocks, readers.map(_stamps, blocks), strict=True):
                    self._stamps.update(zip(block, stamps, strict=True))

    def _known(self, path: str, kind: str) -> dict[str, Any] | None:
        """What is known of the file as it is now; None if nothing is."""
        if (fresh := self._found.get((path, kind))) is not None:
            return fresh
        known = self._files.get(path)
        if known is None or self._stamps[path] is None or known["stamp"] != self._stamps[path]:
            return None
        return known.get(kind)

    def _keep(self, path: str, kind: str, value: dict[str, Any]) -> None:
        self._found[path, kind] = value
        stamp = self._stamps[path]
        # It may have changed while it was read, or may yet within the grain of its times.
        if stamp is None or _stamps([path])[0] != stamp or time.time() - _latest(stamp) < _FRESH:
            return
        if self._files.get(path, {}).get("stamp") != stamp:
            self._files[path] = {"stamp": stamp}
        self._files[path][kind] = value
        self._added.add(path)


def index_in(folder: Path, console: Console | None = None, purpose: str | None = None) -> Index:
    """The index that is kept in a folder of ours: a run's, or the cache's."""
    return Index(folder / INDEX, console, purpose)


def _stamps(paths: Iterable[str]) -> list[list[int] | None]:
    """Size and times of each file; None for one that is not there.

    The time of change tells also of a content that was written under the old time.
    """
    stamps: list[list[int] | None] = []
    for path in paths:
        try:
            state = os.stat(path)
        except OSError:
            stamps.append(None)
        else:
            stamps.append([state.st_size, state.st_mtime_ns, state.st_ctime_ns])
    return stamps


def _latest(stamp: list[int]) -> float:
    """The later of a file's times, in seconds."""
    return max(stamp[1:]) / 1e9


def _outcome(look: Callable[[Path], dict[str, Any]], file: Path) -> dict[str, Any]:
    try:
        return look(file)
    except UserError as error:
        return {"error": str(error).replace(str(file), "{file}")}


def _read_header(file: Path) -> dict[str, Any]:
    return {"header": list(vars(read_header(file)).values())}


def _as_look(file: Path, value: dict[str, Any]) -> Look:
    if "error" in value:
        return Look(file, None, value["error"])
    values = list(value["header"])
    values[_STORED] = tuple(values[_STORED])  # a list, as JSON has no tuples
    return Look(file, Header(*values))


def _damage(file: Path) -> dict[str, Any]:
    require_undamaged(file)
    return {}


def _decode(file: Path) -> dict[str, Any]:
    opaque = open_image(file).opaque
    return {"transparent": 0.0 if opaque is None else 1 - float(opaque.mean())}


def _ids(file: Path) -> dict[str, Any]:
    return _counted(np.asarray(open_label(file)))


def _shown(file: Path) -> dict[str, Any]:
    return {"shown": {str(number): color for number, color in shown_colors(file).items()}}


def _colors(file: Path) -> dict[str, Any]:
    counts = _counted(np.asarray(open_label(file, by_color=True)))
    if len(counts["ids"]) > _MOST_COLORS:
        raise UserError(
            f"{file}: shows {len(counts['ids'])} colours, more than classes can have; give a map "
            "with one exact colour for each class"
        )
    return counts


def _counted(values: np.ndarray) -> dict[str, Any]:
    ids, counts = np.unique(values, return_counts=True)
    return {"ids": dict(zip(map(str, ids.tolist()), counts.tolist(), strict=True))}


def _hash(file: Path) -> dict[str, Any]:
    content = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(file) as opened:
            while block := opened.read(_BLOCK):
                content.update(block)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    return {"hash": content.hexdigest()}


def _picture(file: Path) -> dict[str, Any]:
    pixels = open_image(file).pixels
    content = hashlib.blake2b(pixels.tobytes(), digest_size=16)
    content.update(str(pixels.shape).encode())
    return {"picture": content.hexdigest()}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _version() -> list[Any]:
    return [_VERSION, PIL.__version__]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """The files in an index; none if there is none, or if it is damaged or another version's."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != _version():
            return {}
        files = content["files"]
        if all(isinstance(known["stamp"], list) for known in files.values()):
            return files
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return {}
