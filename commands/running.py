"""How a command ends: its exit status, and the one line that says what was wrong.

0 is success, 2 an error that the user can repair, 1 a bug of this project's, 130 and 143 are SIGINT
and SIGTERM, 141 is output that nobody reads.
"""

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bdl import __version__
from bdl.commands import find
from bdl.commands.parser import parse
from bdl.runtime.errors import UserError
from bdl.runtime.files import explain, is_users
from bdl.runtime.output import (
    flush_output,
    nobody_reads,
    prepare_output,
    rank_in_environment,
    speak_to_nobody,
)
from bdl.runtime.processes import ChildFailed, report_error
from bdl.runtime.shortage import (
    is_lost_worker,
    is_out_of_memory,
    is_out_of_processes,
    is_too_little_to_begin,
)
from bdl.runtime.stopping import Stopped, stop_request

_BUG, _BROKEN_PIPE = 1, 141
_MEMORY = {
    "predict": "give a smaller --size, or --window",
    "export-network": "give a smaller --size",
}
_MEMORY_OF_TRAINING = (
    "set a smaller translation.crop, segmentation.augmentation.crop, batch_size or data.*.size, or "
    "precision=bf16-mixed"
)
_MEMORY_OF_OTHERS = "end other programs, or give it smaller images"
_OTHERS = ("score", "import-weights", "compare", "init-config")


def run_command(arguments: Sequence[str]) -> int:
    """Do what the words of the command line say; returns the exit status."""
    options = parse(arguments)
    return exit_status(options.command, lambda: find(options.command)(options), arguments)


def exit_status(name: str, command: Callable[[], None], arguments: Sequence[str]) -> int:
    """The exit status of `command`, called with signals noted and every error reported.

    Args:
        name: the command's, which decides what helps against too little memory.
        command: does it all; raises UserError for whatever the user can repair.
        arguments: the words of the command line, for the command that goes on after a stop.
    """
    prepare_output()
    with stop_request.listening(), _silent_threads():
        try:
            command()
            flush_output()
        except UserError as error:
            report_error(str(error))
            return 2
        except ChildFailed as failed:
            if failed.text:
                report_error(failed.text, failed.status)
            return failed.status
        except Stopped as stopped:
            return report_stop(stopped, arguments)
        except Exception as error:
            # A process that waits for another one which stops or has failed gets errors of its own.
            if stop_request.signum:
                return report_stop(Stopped(stop_request.signum), arguments)
            return _report(error, name, arguments)
    return 0


def called() -> list[str]:
    """The words by which this program was called, before the command's own."""
    program = Path(sys.argv[0])
    if program.suffix != ".py":
        return ["bdl" if program.name in ("", "-c") else program.name]
    python, here = Path(sys.executable), Path.cwd()
    on_path = shutil.which("python")
    if on_path is not None and python.samefile(on_path) and Path(on_path).parent == python.parent:
        return ["python", str(program)]
    # As in `make demo`, whose environment is not the shell's.
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return [str(shown), str(program)]


def report_stop(stopped: Stopped, arguments: Sequence[str]) -> int:
    """Say how to go on; returns the exit status."""
    if rank_in_environment():
        return 0  # the main process speaks, and its status is the run's
    command = shlex.join([*called(), *arguments])
    print(f"stopped by {stopped}; to go on: {command}", file=sys.stderr)
    return stopped.status


def _report(error: Exception, name: str, arguments: Sequence[str]) -> int:
    """Say what an error means that no part of the program has foreseen; returns the status."""
    if isinstance(error, BrokenPipeError) and nobody_reads():
        speak_to_nobody()
        return _BROKEN_PIPE
    if is_lost_worker(error):
        report_error(
            "a process that loads images was ended, most likely for want of memory; set "
            "data.workers=0, or fewer of them, and run again"
        )
    elif is_too_little_to_begin(error):
        report_error(
            f"{name}: PyTorch itself does not fit into memory; allow more (ulimit -v), or end "
            "other programs"
        )
    elif is_out_of_processes(error):
        report_error(
            f"{name}: the system lets no further process or thread begin; allow more (ulimit -u, "
            "ulimit -v), or end other programs"
        )
    elif is_out_of_memory(error):
        remedy = _MEMORY_OF_OTHERS if name in _OTHERS else _MEMORY.get(name, _MEMORY_OF_TRAINING)
        report_error(f"{name}: does not fit into memory; {remedy}")
    elif isinstance(error, OSError) and is_users(error):
        with contextlib.suppress(OSError):
            flush_output()  # what failed may be the output itself, and would fail again
        report_error(explain(error))
    else:
        report_error(_describe_bug(error, arguments), _BUG)
        return _BUG
    return 2


def _describe_bug(error: Exception, arguments: Sequence[str]) -> str:
    """A line about a bug of ours, once its traceback is in a file."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    try:
        handle, file = tempfile.mkstemp(prefix="bdl-error-", suffix=".log", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"bdl {__version__}: {shlex.join(arguments)}\n\n")
            log.write("".join(traceback.format_exception(error)))
            log.write("".join(f"\n{item}: {value}" for item, value in _versions().items()))
    except OSError:
        return f"unexpected: {said}; this is a bug of bdl: please report it"
    return f"unexpected: {said}; this is a bug of bdl: please send {file}"


def _versions() -> dict[str, str]:
    from bdl.runtime.versions import versions

    return versions()


@contextlib.contextmanager
def _silent_threads() -> Iterator[None]:
    """Inside, threads that fail print nothing: what a writing thread fails with, the next write
    raises again where it is reported."""
    before = threading.excepthook
    threading.excepthook = lambda failed: None
    try:
        yield
    finally:
        threading.excepthook = before
