"""Files that appear whole or not at all: written beside their place, then renamed."""

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdl.runtime.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

PARTIAL = ".bdl-partial"  # the ending of files being written: no file of a user's has it
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_FULL, "make room on the disk, then the same command goes on"),
    errno.EFBIG: "allow larger files (ulimit -f), or take a file system that holds them; then the "
    "same command goes on",
    errno.ENAMETOOLONG: "give the file a shorter name",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV),
        "see whether the disk or the mount works, then the same command goes on",
    ),
}


@contextmanager
def atomic(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`.

    A kill at any instant leaves the old file, or none, and at most one partial file, which the
    next attempt overwrites; after a power cut that holds only if `durable`, which waits for the
    disk. Raises UserError, and leaves no partial file, if the disk is full or the file cannot be
    written for another reason of the system's.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if durable:
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        reason = _system_error(error)
        if reason is not None:
            raise write_error(path, reason) from None
        raise


def explain(error: OSError) -> str:
    """What to tell the user of an error of the system's of which nothing else is known."""
    name = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "check the file and its permissions")
    return f"{name}{error.strerror or error}; {remedy}"


def write_error(path: Path | str, error: OSError) -> UserError:
    """What to tell the user when `path` cannot be written."""
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and its permissions")
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def is_users(error: OSError) -> bool:
    """Whether the user can repair it: a full disk, a missing permission, a name too long, a disk
    or mount that fails."""
    return error.errno in (*_REMEDIES, errno.EACCES, errno.EPERM, errno.EROFS)


def partials(folder: Path) -> list[Path]:
    """What kills left of files being written in the folder itself, not below it.

    The folder must be one that this program made: only there is what has our ending ours.
    """
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.name.endswith(PARTIAL))


def tells_case_apart(folder: Path) -> bool:
    """Whether two names in the folder may differ in case alone.

    It is told by what lies there, or in the nearest folder above that is there; nothing is written.
    """
    whole = folder.absolute()
    nearest = next(one for one in (whole, *whole.parents) if one.is_dir())
    with suppress(OSError):  # of a folder that cannot be listed, or a file that is gone
        for file in (*nearest.iterdir(), nearest):
            other = file.with_name(file.name.swapcase())
            if file.name.isascii() and other.name != file.name:
                return not os.path.samestat(file.lstat(), other.lstat())
    return True


def _system_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind `error`: torch.save hides it behind one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__ if isinstance(error, RuntimeError) else None
    # Without a number it is a library's own, of what was to be written: no fault of the system.
    return error if error is not None and error.errno else None


def write_text(path: Path, text: str) -> None:
    """UTF-8; names of files that are none (Latin-1) appear as escapes."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON. NaN is refused: it is not JSON; use None."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def is_no_folder(path: str | Path) -> bool:
    """Whether there is something at `path` to be opened: a file, or what `open_regular` refuses."""
    return os.path.exists(path) and not os.path.isdir(path)


def open_regular(path: Path) -> io.BufferedReader:
    """The file, opened to be read. Raises UserError for a pipe, a socket or a device: reading it
    may wait for ever, and what was read is gone."""
    opened = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        return opened
    opened.close()
    raise UserError(
        f"{path}: is a pipe or a device, which can be read but once; store it as a file"
    )


def _without_waiting(path: str, flags: int) -> int:
    """Opens also a pipe that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_json(path: Path) -> Any:
    """Raises UserError if the file is missing or is not JSON."""
    try:
        with open_regular(path) as opened:
            return json.load(opened)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it and run again") from None


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """A dictionary of tensors and plain values, for `load_tensors`."""
    import torch

    # Through a file of Python's: of its own writer's errors torch.save does not give the reason.
    with atomic(path) as partial, open(partial, "wb") as file:
        torch.save(content, file)


def load_tensors(path: Path) -> dict[str, Any]:
    """What `save_tensors` wrote, on the CPU. Only data is read: no code in the file is run.

    Raises UserError if the file is missing, damaged, or holds more than tensors and plain values.
    """
    import torch

    from bdl.runtime.weights import why_refused

    try:
        with open_regular(path) as opened:
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # what damaged pickles raise is of any type
        raise UserError(f"{path}: cannot be read as a weights file: {why_refused(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def save_png(path: Path, image: "Image.Image") -> None:
    with atomic(path) as partial:
        image.save(partial, format="PNG", compress_level=1)


@dataclass(frozen=True)
class GivenFile:
    """A file of the user's as a setting: its content counts, not where it lies."""

    sha256: str
    path: Path = field(compare=False)

    @classmethod
    def read(cls, path: Path, key: str) -> "GivenFile":
        """Raises UserError, which names the configuration `key`, if it cannot be read."""
        try:
            with open_regular(path) as opened:
                return cls(hashlib.file_digest(opened, "sha256").hexdigest(), path)
        except OSError as error:
            raise UserError(
                f"{key}: {path} cannot be read ({error.strerror}); make it with import-weights, "
                "or leave the key out"
            ) from None
