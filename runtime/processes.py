"""The processes of one run: they agree, and none outlives the others."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bdl.runtime.errors import UserError
from bdl.runtime.files import read_json, write_json
from bdl.runtime.output import rank_in_environment
from bdl.runtime.stopping import stop_request

if TYPE_CHECKING:
    from lightning.fabric import Fabric

# Environment variables of children: the folder where they leave errors, and who started them.
_ERRORS, _PARENT = "BDL_ERRORS", "BDL_PARENT"
_POLL = 0.2  # seconds between looks at the other processes
_MOMENT = 2.0  # seconds in which a process that has failed gets to its end
_PATIENCE = 10.0  # seconds that processes have to end by themselves


@cache
def _agreement_group(processes: int) -> Any:
    import torch.distributed

    # On the CPU whatever the device is: a device would have to be waited for at every step.
    return torch.distributed.new_group(backend="gloo")


def largest(fabric: "Fabric", number: int) -> int:
    """The largest of the numbers that the processes give; all must call it."""
    if fabric.world_size == 1:
        return number
    import torch.distributed  # here: a command that has a word mistyped reports it without

    shared = torch.tensor(number)
    group = _agreement_group(fabric.world_size)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, group=group)
    return int(shared)


class ChildFailed(Exception):
    """A process of the run ended before the others, with an exit status; `text` says why unless it
    has been printed."""

    def __init__(self, status: int, text: str | None) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def report_error(text: str, status: int = 2) -> None:
    """Print an error that ends the run with `status`. All processes meet most of them, and one line
    is enough: a child leaves its own to the main process, which prints one; where others started
    the processes (torchrun), all but the first wait a moment, in which the first one's failure ends
    them."""
    folder, rank = os.environ.get(_ERRORS), int(os.environ.get("LOCAL_RANK", 0))
    if folder and rank:
        with suppress(OSError, UserError):
            write_json(Path(folder) / str(rank), {"status": status, "text": text})
            return
    if rank_in_environment():
        deadline = time.monotonic() + _MOMENT
        while time.monotonic() < deadline:
            if stop_request.signum:
                return
            time.sleep(_POLL)
    print(f"error: {text}", file=sys.stderr)


def is_child() -> bool:
    """Whether the main process of a run has started this one, and waits for it to join."""
    return _PARENT in os.environ and int(os.environ.get("LOCAL_RANK", 0)) > 0


@contextmanager
def launched(fabric: "Fabric") -> Iterator[None]:
    """Inside, the run's processes are there; they end together.

    One that fails, be it before it joins, ends the run with its exit status, if need be by
    ChildFailed; one whose parent is gone ends too, so that a killed run leaves nobody behind who
    writes into its folder.
    """
    with _started_from_here(fabric) as errors:
        # Filled as they are started; what we end ourselves leaves it, and is no failure.
        children: list[subprocess.Popen] = getattr(fabric.strategy.launcher, "procs", [])
        speaks = threading.Lock()  # whoever says how the run ends keeps it
        all_joined = threading.Event()
        if errors is not None:
            watch = threading.Thread(
                target=_end_with_children,
                args=(children, errors, speaks, all_joined),
                daemon=True,
            )
            watch.start()
        elif rank_in_environment() > 0:
            parent = int(os.environ.get(_PARENT, os.getppid()))
            threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
        try:
            fabric.launch()
            all_joined.set()
            stop_request.children = children
            yield
        except BaseException as error:
            all_joined.set()
            speaks.acquire()
            # Those that wait in a collective for this process would wait in vain; this one may
            # have waited for one that has failed.
            broken = isinstance(error, Exception) and not isinstance(error, UserError)
            _end(children, _PATIENCE if stop_request.signum else _MOMENT if broken else 0.0)
            if broken and not stop_request.signum and (failed := _failed(children, errors)):
                raise failed from None
            raise
        speaks.acquire()
        _end(children, _PATIENCE)
        if failed := _failed(children, errors):
            raise failed


@contextmanager
def joined(fabric: "Fabric") -> Iterator[None]:
    """Inside, `fabric` is of the processes that `launched` has started before."""
    fabric.launch()
    yield


@contextmanager
def _started_from_here(fabric: "Fabric") -> Iterator[Path | None]:
    """Where the children that this process starts leave their errors; None if it starts none."""
    if rank_in_environment() > 0 or not hasattr(fabric.strategy.launcher, "procs"):
        yield None
        return
    with TemporaryDirectory(prefix="bdl-") as folder:
        os.environ.update({_ERRORS: folder, _PARENT: str(os.getpid())})
        try:
            yield Path(folder)
        finally:
            del os.environ[_ERRORS], os.environ[_PARENT]


def _failed(children: Sequence[subprocess.Popen], errors: Path | None) -> ChildFailed | None:
    """The failure of a child, if one failed."""
    status = next((code for child in children if (code := child.poll())), 0)
    left = sorted(errors.glob("*[0-9]")) if errors else []  # whole files, by rank
    if left:
        return ChildFailed(**read_json(left[0]))
    if status < 0:
        return ChildFailed(1, f"a process of this run was ended by {signal.Signals(-status).name}")
    return ChildFailed(1, None) if status else None


def _dismiss_watch() -> None:
    """Ours sees a failed child within the fifth of a second, and says why. Lightning's, which looks
    every five seconds, would kill this process while it ends, and with it the exit status."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._run = lambda: True  # type: ignore[attr-defined]


def _end_with_children(
    children: list[subprocess.Popen],
    errors: Path,
    speaks: threading.Lock,
    all_joined: threading.Event,
) -> None:
    while not all_joined.is_set() or any(child.poll() is None for child in children):
        time.sleep(_POLL)
        _dismiss_watch()
        # Until all have joined the main thread waits where it cannot answer a signal.
        stopping = stop_request.signum and all_joined.is_set()
        if stopping or not any(child.poll() for child in children):
            continue
        if not speaks.acquire(blocking=False):
            return
        # The main thread may be waiting for the child where no exception arrives, and holds
        # nothing that a later run does not find on disk.
        failed = _failed(children, errors)
        assert failed is not None
        if failed.text:
            report_error(failed.text)
        _end(list(children), 0.0)
        shutil.rmtree(errors, ignore_errors=True)
        sys.stderr.flush()
        os._exit(failed.status)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)


def _end(children: list[subprocess.Popen], patience: float) -> None:
    """Wait for the children for `patience` seconds in all; what still runs then is killed and taken
    off the list."""
    deadline = time.monotonic() + patience
    for child in list(children):
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        if child.poll() is None:
            child.kill()
            child.wait()
            children.remove(child)
