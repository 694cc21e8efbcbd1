"""How commands end: each kind of error is one line and an exit status, and none is a traceback."""

import contextlib
import errno
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from bdl import pipeline
from bdl.commands import find, running
from bdl.commands.parser import make_parser
from bdl.commands.running import called
from bdl.runtime.errors import UserError
from bdl.runtime.processes import ChildFailed
from bdl.runtime.stopping import Stopped

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and Linux's pipes")


def ended(error: BaseException, name: str = "run") -> int:
    """The exit status of a command that raises `error`."""

    def command() -> None:
        raise error

    return running.exit_status(name, command, [name, "seed=1"])


@pytest.mark.parametrize("name", make_parser()[1].choices)
def test_every_command_is_found(name):
    assert callable(find(name))


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.png: is broken"), 2, "error: a.png: is broken"),
        (ChildFailed(1, "it was killed"), 1, "error: it was killed"),
        (OSError(errno.EFBIG, "File too large", "a.png"), 2, "error: a.png: .* allow larger"),
        (OSError(errno.ENOSPC, "No space left", "a.png"), 2, "error: a.png: No space left; make"),
        (OSError(errno.EDQUOT, "Quota exceeded"), 2, "error: Quota exceeded; make room"),
        (PermissionError(errno.EACCES, "Denied", "b"), 2, "error: b: Denied; check the file"),
        (OSError(errno.EIO, "Input/output error", "b"), 2, "error: b: Input/output error; see"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "error: Too many open .*ulimit"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "error: run: does not fit into mem"),
        (MemoryError(), 2, "error: run: does not fit into memory; .*crop.*batch_size.*precision"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "error: run: does not fit into memory"),
        (RuntimeError("[enforce fail] not enough memory: you tried"), 2, "error: run: does not fi"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: run: does not fit"),
        (RuntimeError("MPS backend out of memory"), 2, "error: run: does not fit into memory"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            2,
            "error: .*want of memory; set data.workers=0",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            2,
            "error: .*want of memory; set data.workers=0",
        ),
        (
            RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
            2,
            "error: .*want of memory; set data.workers=0",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            2,
            "error: run: PyTorch itself does not fit into memory; allow more",
        ),
        (RuntimeError("can't start new thread"), 2, "error: run: .* no further process or thread"),
        (BlockingIOError(errno.EAGAIN, "Unavailable"), 2, "error: run: .* no further process"),
        (Stopped(signal.SIGINT), 130, "stopped by SIGINT; to go on: .*run seed=1"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM; to go on: .*run seed=1"),
    ],
)
def test_an_error_is_one_line_and_a_status(capsys, error, status, line):
    assert ended(error) == status
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(line, said)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("predict", "--window"), ("export-network", "--size"), ("score", "end other programs")],
)
def test_what_helps_against_too_little_memory_depends_on_the_command(capsys, name, remedy):
    assert ended(MemoryError(), name) == 2
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("one\ntwo"), RuntimeError("size mismatch"), FileNotFoundError(2, "No", "x")],
)
def test_any_other_error_is_a_bug_of_ours_with_its_traceback_in_a_file(
    capsys, tmp_path, monkeypatch, error
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ended(error) == 1
    (line,) = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"error: unexpected: (\w+): .*; this is a bug of bdl: please send (\S+\.log)", line
    )
    assert found and found[1] == type(error).__name__ and Path(found[2]).parent == tmp_path
    content = Path(found[2]).read_text(encoding="utf-8")
    assert "run seed=1" in content and "Traceback" in content and "in command" in content
    assert "torch: " in content


def test_a_bug_is_reported_where_no_file_can_be_written(capsys, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert ended(ZeroDivisionError("x")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: unexpected: ZeroDivisionError: x; this is a bug of bdl: please report it"


def test_what_is_global_is_as_before(capsys):
    before = signal.getsignal(signal.SIGINT), threading.excepthook
    assert ended(UserError("x")) == 2
    assert (signal.getsignal(signal.SIGINT), threading.excepthook) == before


# Streams, from the outside

SAYS = """
import sys
from bdl.commands import running
from bdl.runtime.console import Console, log

def command():
    console = Console()
    {said}

sys.exit(running.exit_status("run", command, ["run"]))
"""


def said_to(said: str, stdout, environment: dict[str, str] | None = None, **options):
    """A command that executes `said`, whose output goes to `stdout`."""
    return subprocess.run(
        [sys.executable, "-c", SAYS.format(said=said)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("say", ["console.say", "log.info"])
def test_what_a_terminal_cannot_show_is_printed_as_an_escape(say):
    """The sign of ablate's table, and a file's name in Latin-1."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = said_to(f"{say}('41.5 \\xb1 0.3 caf\\udce9.png')", subprocess.PIPE, ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"41.5 \\xb1 0.3 caf\\udce9.png\n"


@linux
@pytest.mark.parametrize("say", ["console.say('x')", "log.info('x')", "print('x')"])
def test_a_full_disk_under_the_output_is_one_line(say):
    with open("/dev/full", "w") as full:
        done = said_to(say, full)
    assert done.returncode == 2
    assert done.stderr == b"error: No space left on device; " + (
        b"make room on the disk, then the same command goes on\n"
    )


@linux
@pytest.mark.parametrize("say", ["console.say('x')", "log.info('x')", "print('x' * 99999)"])
def test_output_that_nobody_reads_is_no_traceback(say):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = said_to(say, writing)
    finally:
        os.close(writing)
    assert done.stderr == b"" and done.returncode in (0, 141)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", ["--version", "score --predictions a --labels b"])
def test_a_closed_stream_changes_nothing(closed, arguments, tmp_path):
    code = "import sys; from bdl.pipeline import main; sys.exit(main(sys.argv[1:]))"
    command = f'"{sys.executable}" -c "{code}" {arguments} {closed}'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == (0 if arguments == "--version" else 2)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_a_signal_ends_a_question_at_once(tmp_path):
    """Where a run saves its state before it ends, a question has nothing to save."""
    ours, theirs = pty.openpty()
    code = "import sys; from bdl.pipeline import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "init-config"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with contextlib.closing(os.fdopen(ours, "wb", 0)):
        assert process.stdout is not None
        said = b""
        while not said.endswith(b": "):
            said += process.stdout.read(1)
        for _ in range(30):  # one that comes just before the reading begins is seen at the next
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        _, errors = process.communicate(timeout=30)
    os.close(theirs)
    assert process.returncode == 130 and b"stopped by SIGINT" in errors
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_itself_reports_in_this_way(monkeypatch, capsys):
    def fail(options):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("bdl.commands.compare.main", fail)
    assert pipeline.main(["compare", "a", "b"]) == 1
    assert "error: unexpected: ZeroDivisionError: ours" in capsys.readouterr().err


def test_the_words_of_a_call_can_be_used_again(monkeypatch, tmp_path):
    """By its name where the shell finds it, else by the path of the Python that runs."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bdl"])
    assert called() == ["bdl"]
    monkeypatch.setattr(sys, "argv", ["pipeline.py"])
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert called() == [".venv/bin/python", "pipeline.py"]
    monkeypatch.setenv("PATH", str(python.parent))
    assert called() == ["python", "pipeline.py"]
