"""One run folder, one run: the lock that ends with its owner."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from runtime.errors import UserError

_FILE = "run.lock"
_PATIENCE = 5.0  # seconds that the processes of a run just killed take to be gone


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the run's folder and hold it: inside, no other run writes to it.

    The operating system lets the lock go when the process ends in whatever way, so that no
    lock is ever left behind; the file itself means nothing. Reading needs no lock. Raises UserError
    if the folder cannot be written to, or belongs to a run that is under way.
    """
    lock = FileLock(folder / _FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise UserError(
            f"out: {folder} is in use by another run ({_FILE} is locked); wait for it to end, or "
            "set another folder with out=..."
        ) from None
    except OSError as error:
        raise UserError(
            f"out: {folder} cannot be written to ({error.strerror}); set another with out=..."
        ) from None
    try:
        yield
    finally:
        lock.release()


def require_writable(folder: Path, key: str = "out") -> None:
    """Raises UserError, about the setting `key`, if `folder` is no folder, or cannot be made or
    written to."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{key}: {nearest} is not a folder; set another with {key}=...")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{key}: {nearest} cannot be written to; set another with {key}=...")
