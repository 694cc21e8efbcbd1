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
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric

from runtime.errors import UserError
from runtime.files import write_text
from runtime.stopping import stop_request

_ERRORS = "BDL_ERRORS"  # environment variable of children: the folder where they leave errors
_POLL = 0.2  # seconds between looks at the other processes
_MOMENT = 2.0  # seconds in which a process that has failed gets to its end
_PATIENCE = 10.0  # seconds that processes have to end by themselves


@cache
def _agreement_group(processes: int) -> Any:
    # On the CPU whatever the device is: a device would have to be waited for at every step.
    return torch.distributed.new_group(backend="gloo")


def largest(fabric: Fabric, number: int) -> int:
    """The largest of the numbers that the processes give; all must call it."""
    if fabric.world_size == 1:
        return number
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


def report_error(text: str) -> None:
    """Print an error of the user's. All processes meet most of them, and one line is enough: a
    child leaves its own to the main process, which prints one; where others started the processes
    (torchrun), all but the first wait a moment, in which the first one's failure ends them."""
    folder, rank = os.environ.get(_ERRORS), int(os.environ.get("LOCAL_RANK", 0))
    if folder and rank:
        with suppress(OSError, UserError):
            write_text(Path(folder) / str(rank), text)
            return
    if rank_in_environment():
        deadline = time.monotonic() + _MOMENT
        while time.monotonic() < deadline:
            if stop_request.signum:
                return
            time.sleep(_POLL)
    print(f"error: {text}", file=sys.stderr)


def rank_in_environment() -> int:
    """This process's number among the run's, told without asking the others, who may be gone."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of torchrun, srun and Fabric
    return int(next((os.environ[name] for name in names if name in os.environ), 0))


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Inside, the run's processes are there; they end together.

    One that fails ends the run with its exit status, if need be by ChildFailed; one whose parent is
    gone ends too, so that a killed run leaves nobody behind who writes into its folder.
    """
    parent = os.getppid()
    with _error_folder(fabric) as errors:
        fabric.launch()
        # Of its own: what we end ourselves leaves it, and is no failure.
        children: list[subprocess.Popen] = list(getattr(fabric.strategy.launcher, "procs", []))
        stop_request.children = children
        speaks = threading.Lock()  # whoever says how the run ends keeps it
        if children:
            watch = threading.Thread(
                target=_end_with_children, args=(children, errors, speaks), daemon=True
            )
            watch.start()
        elif fabric.global_rank > 0:
            threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
        try:
            yield
        except BaseException as error:
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
def _error_folder(fabric: Fabric) -> Iterator[Path | None]:
    """Where the children of this process leave their errors; None if it starts none."""
    if fabric.world_size == 1 or int(os.environ.get("LOCAL_RANK", 0)):
        yield None
        return
    with TemporaryDirectory(prefix="bdl-") as folder:
        os.environ[_ERRORS] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_ERRORS]


def _failed(children: Sequence[subprocess.Popen], errors: Path | None) -> ChildFailed | None:
    """The failure of a child, if one failed."""
    status = next((code for child in children if (code := child.poll())), 0)
    left = sorted(errors.glob("*[0-9]")) if errors else []  # whole files, by rank
    if left:
        return ChildFailed(2, left[0].read_text(encoding="utf-8"))
    if status < 0:
        return ChildFailed(1, f"a process of this run was ended by {signal.Signals(-status).name}")
    return ChildFailed(1, None) if status else None


def _end_with_children(
    children: Sequence[subprocess.Popen], errors: Path | None, speaks: threading.Lock
) -> None:
    while any(child.poll() is None for child in children):
        time.sleep(_POLL)
        if stop_request.signum or not any(child.poll() for child in children):
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
        if errors is not None:
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
