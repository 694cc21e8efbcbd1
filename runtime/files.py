"""Files that appear whole or not at all: written beside their place, then renamed."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from runtime.errors import UserError
from runtime.weights import why_refused

_PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_FULL, "make room on the disk, then the same command goes on"),
    errno.ENAMETOOLONG: "give the file a shorter name",
}


@contextmanager
def atomic(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`.

    A kill at any instant leaves the old file, or none, and at most one `.partial` file, which
    the next attempt overwrites; after a power cut that holds only if `durable`, which waits for
    the disk. Raises UserError, and leaves no `.partial` file, if the disk is
    full or the file cannot be written for another reason of the system's.
    """
    partial = path.with_name(path.name + _PARTIAL)
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


def write_error(path: Path | str, error: OSError) -> UserError:
    """What to tell the user when `path` cannot be written."""
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and its permissions")
    return UserError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def is_users(error: OSError) -> bool:
    """Whether the user can repair it: a full disk, a missing permission, a name too long."""
    return error.errno in (*_REMEDIES, errno.EACCES, errno.EPERM, errno.EROFS)


def remove_partial(folder: Path) -> None:
    """Remove what kills left of files (and folders) being written, in `folder` and below."""
    for place in list(folder.rglob("*" + _PARTIAL)):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind `error`: torch.save hides it behind one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__ if isinstance(error, RuntimeError) else None
    return error


def write_text(path: Path, text: str) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON. NaN is refused: it is not JSON; use None."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it and run again") from None


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """A dictionary of tensors and plain values, for `load_tensors`."""
    # Through a file of Python's: of its own writer's errors torch.save does not give the reason.
    with atomic(path) as partial, open(partial, "wb") as file:
        torch.save(content, file)


def load_tensors(path: Path) -> dict[str, Any]:
    """What `save_tensors` wrote, on the CPU. Only data is read: no code in the file is run.

    Raises UserError if the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # what damaged pickles raise is of any type
        raise UserError(f"{path}: cannot be read as a weights file: {why_refused(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def save_png(path: Path, image: Image.Image) -> None:
    with atomic(path) as partial:
        image.save(partial, format="PNG", compress_level=1)
