"""The processes of one run: they agree, and none outlives the others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric

from runtime.stopping import stop_request

_POLL = 0.2  # seconds between looks at the other processes
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


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Inside, the run's processes are there; they end together.

    One that fails ends the run with its exit status; one whose parent is gone ends too, so that
    a killed run leaves nobody behind who writes into its folder.
    """
    parent = os.getppid()
    fabric.launch()
    children: list[subprocess.Popen] = getattr(fabric.strategy.launcher, "procs", [])
    stop_request.children = children
    if children:
        threading.Thread(target=_end_with_children, args=(children,), daemon=True).start()
    elif fabric.global_rank > 0:
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        yield
    except BaseException:
        # Those that wait in a collective for this process would wait in vain.
        _end(children, _PATIENCE if stop_request.signum else 0.0)
        raise
    _end(children, _PATIENCE)


def failed_child(children: list[subprocess.Popen]) -> int:
    """The exit status of a child that failed, 0 if none did."""
    return next((code for child in children if (code := child.poll())), 0)


def _end_with_children(children: list[subprocess.Popen]) -> None:
    while any(child.poll() is None for child in children):
        time.sleep(_POLL)
        status = failed_child(children)
        if status and not stop_request.signum:
            if status < 0:  # else it has said why itself
                name = signal.Signals(-status).name
                print(f"error: a process of this run was ended by {name}", file=sys.stderr)
            # This process may be waiting for it where no exception arrives, and holds nothing
            # that a later run does not find on disk.
            _end(children, 0.0)
            os._exit(2 if status == 2 else 1)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)


def _end(children: list[subprocess.Popen], patience: float) -> None:
    deadline = time.monotonic() + patience
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        if child.poll() is None:
            child.kill()
            child.wait()
