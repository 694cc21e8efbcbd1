"""Standard output and error as a command finds them: closed, ASCII alone, or left by their reader.

It needs nothing but the standard library: help and versions are printed without the rest.
"""

import io
import os
import select
import sys


def rank_in_environment() -> int:
    """This process's number among the run's, told without asking the others, who may be gone."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of torchrun, srun and Fabric
    return int(next((os.environ[name] for name in names if name in os.environ), 0))


def prepare_output() -> None:
    """Make both streams take any text: what they cannot show is printed as an escape, and what
    goes to a closed one is thrown away."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we began, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_text(text: str) -> None:
    """Print to standard output, which whoever reads it may have closed: no error of ours."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        speak_to_nobody()


def speak_to_nobody() -> None:
    """What goes to standard output from now on, Python's last flush too, is thrown away."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def nobody_reads() -> bool:
    """Whether standard output is a pipe, or a socket, whose reader is gone."""
    if not hasattr(select, "poll"):  # Windows
        return False
    output = select.poll()
    try:
        output.register(sys.stdout.fileno(), 0)
    except OSError:  # no file of the system's
        return False
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in output.poll(0))


def flush_output() -> None:
    """Write what waits for standard output. Raises OSError if its disk is full; what waited is
    then thrown away, so that Python does not fail on it once more at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        speak_to_nobody()
    except OSError:
        speak_to_nobody()
        raise
