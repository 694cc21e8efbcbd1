"""Locks that end with their owner: one run in a run's folder, one writer of a shared file."""

import errno
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import PARTIAL
from bdl.runtime.ownership import LOCK

OWNER = "run.owner"  # who holds it: the lock file itself is the locking library's
_PATIENCE = 5.0  # seconds that the processes of a run just killed take to be gone
_WAIT = 60.0  # seconds that a writer of a shared file waits for the others
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)

_warned: set[Path] = set()  # folders whose file system has no locks, said once


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the run's folder and hold it: inside, no other run writes to it.

    The operating system lets the lock go when the process ends in whatever way. Where the file
    system has no locks, that is said, and the run goes on without. Reading needs no lock.

    Raises:
        UserError: If the folder cannot be written to, or belongs to a run that is under way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / LOCK, _PATIENCE)
    except Timeout:
        raise UserError(f"out: {folder} is in use by another run {_holder(folder)}") from None
    except OSError as error:
        raise UserError(
            f"out: {folder} cannot be written to ({error.strerror}); set another with out=..."
        ) from None
    owner = folder / OWNER
    with suppress(OSError):
        owner.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
    try:
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        if lock is not None:
            lock.release()


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold the lock `file` of what several processes write to, where the file system has locks.

    Raises:
        UserError: If another process holds it for too long; it names the file.
        OSError: If the file cannot be written.
    """
    try:
        lock = _acquire(file, _WAIT)
    except Timeout:
        raise UserError(
            f"{file}: is locked by another process for more than {_WAIT:.0f} s; if none is at "
            "work, remove the file"
        ) from None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def alone(file: Path, command: str) -> Iterator[None]:
    """Hold the lock `file` in the folder that a command writes to, where the file system has locks.
    A command that is refused leaves no such file.

    Raises:
        UserError: If another process holds it; it names the folder.
        OSError: If the file cannot be written.
    """
    try:
        lock = _acquire(file, _PATIENCE)
    except Timeout:
        raise UserError(
            f"{file.parent}: another {command} writes there; wait for it to end, or give another "
            "folder with --out"
        ) from None
    try:
        yield
    except UserError:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            lock.release()


def _acquire(file: Path, patience: float) -> FileLock | None:
    """The lock, held; None, with a warning, where the file system has no locks.

    Raises Timeout if somebody else holds it.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        if file.parent not in _warned:
            _warned.add(file.parent)
            log.warning(
                "%s: its file system has no locks; see to it that only one run writes there",
                file.parent,
            )
        return None
    return lock


def _holder(folder: Path) -> str:
    """Who holds a run's folder, and what to do about it."""
    wait = "wait for it to end, or set another folder with out=..."
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        host, process = owner["host"], owner["process"]
    except (OSError, ValueError, TypeError, KeyError):
        return f"({LOCK} is locked); {wait}"
    if host == socket.gethostname():
        return f"(process {process}; {LOCK} is locked); {wait}"
    return (
        f"(process {process} on {host}; {LOCK} is locked); {wait} If it is no longer there, "
        f"remove {folder / LOCK}"
    )


def require_writable(folder: Path, key: str = "out") -> None:
    """Raises UserError, about the setting `key`, if `folder` is no folder, or cannot be made or
    written to. Nothing is made."""
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{key}: {nearest} is not a folder; set another with {key}=...")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{key}: {nearest} cannot be written to; set another with {key}=...")


def make_writable(folder: Path, key: str = "out") -> None:
    """Make the folder that `key` sets. Raises UserError if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(suffix=PARTIAL, dir=folder)
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be written to ({error.strerror})") from None
