"""What is said where there is no terminal: plain lines, in the log file too."""

import logging
import re
import subprocess
import sys
import warnings

import pytest

from bdl.runtime import console as module
from bdl.runtime.console import Console, counted, duration, log


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45, "45 s"),
        (59.7, "1 min 00 s"),
        (750, "12 min 30 s"),
        (3600, "1 h 00 min"),
        (12_000, "3 h 20 min"),
        (86_400 * 2 + 4 * 3600, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_every_ten_seconds_and_at_the_end(capsys, clock):
    with Console().track("source-only", total=100) as task:
        for _ in range(100):
            clock[0] += 0.5
            task.advance()
    lines = capsys.readouterr().out.splitlines()
    done = [int(re.search(r"(\d+)/100 steps", line)[1]) for line in lines]
    assert done == [21, 42, 63, 84, 100]
    assert all("source-only" in line and "2/s" in line for line in lines)
    assert "40 s left" in lines[0] and "left" not in lines[-1]


def test_work_from_before_a_restart_counts_as_done_but_not_for_the_rate(capsys, clock):
    with Console().track("x", total=100, done=80) as task:
        clock[0] += 20
        task.advance()
    assert "81/100 steps  0.05/s  6 min 20 s left" in capsys.readouterr().out


def test_the_whole_runs_time_is_told_when_it_is_known(capsys, clock):
    console = Console()
    console.loop_left = 3600.0
    with console.track("x", total=10) as task:
        clock[0] += 11
        task.advance(values={"loss": 0.12345})
    line = capsys.readouterr().out.splitlines()[0]
    assert "(whole run: about 1 h 01 min)" in line and "loss 0.123" in line


def test_messages_go_to_the_log_file_with_their_time(tmp_path, capsys):
    console = Console()
    console.log_to(tmp_path / "run/log.txt")
    log.info("hello %d", 5)
    assert capsys.readouterr().out == "hello 5\n"
    text = (tmp_path / "run/log.txt").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d hello 5\n", text)


def test_a_name_that_is_no_text_is_escaped_in_the_log_file(tmp_path):
    """What the system gives for a file's name in Latin-1."""
    Console().log_to(tmp_path / "log.txt")
    log.info("caf\udce9.png")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith(" caf\\udce9.png\n")


def test_each_run_of_a_process_has_a_log_file_of_its_own(tmp_path):
    """As those of an ablation, which are made one after the other."""
    console = Console()
    for name in ("one", "two"):
        console.log_to(tmp_path / name)
        log.info("run %s", name)
    assert [(tmp_path / name).read_text().split()[2:] for name in ("one", "two")] == [
        ["run", "one"],
        ["run", "two"],
    ]


def run_with_output_closed(code):
    """Exit status and standard error of `code`, whose output nobody reads from `input()` on."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    _, errors = process.communicate("\n", timeout=60)
    return process.returncode, errors


def test_who_reads_the_output_may_close_it(tmp_path):
    said = (
        "from pathlib import Path; from bdl.runtime.console import Console, log; input()\n"
        f"console = Console(); console.log_to(Path({str(tmp_path / 'log.txt')!r}))\n"
        "log.info('first'); log.info('second'); console.say('the result')\n"
    )
    assert run_with_output_closed(said) == (0, "")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["first", "second", "the result"]


def test_what_only_prints_takes_a_closed_output_as_well():
    """`bdl --version | head -1` is no error and writes no traceback."""
    said = "from bdl.commands.parser import parse; input(); parse(['--version'])\n"
    assert run_with_output_closed(said) == (0, "")


def test_other_processes_are_silent(tmp_path, capsys):
    console = Console(speaking=False)
    console.log_to(tmp_path / "log.txt")
    log.info("hello")
    with console.track("x", total=2) as task:
        task.advance()
    said = capsys.readouterr()
    assert said.out + said.err == "" and not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (-1, ["trouble", "result"]),
        (0, ["news", "trouble", "result"]),
        (1, ["detail", "news", "trouble", "a library's", "result"]),
    ],
    ids=["quiet", "plain", "verbose"],
)
def test_what_each_verbosity_shows(tmp_path, capsys, verbosity, shown):
    """A library's warnings are in the log file in any case, whatever the terminal shows."""
    logging.captureWarnings(False)  # pytest has taken them from the console of an earlier test
    console = Console(verbosity=verbosity)
    console.log_to(tmp_path / "log.txt")
    log.debug("detail")
    log.info("news")
    log.warning("trouble")
    warnings.warn("a library's", UserWarning, stacklevel=1)
    console.say("result")
    said = capsys.readouterr()
    words = ("detail", "news", "trouble", "a library's", "result")
    assert [word for word in words if word in said.out] == shown and said.err == ""
    assert "a library's" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "log.txt").read_text().count("result") == 1


def test_what_is_counted_is_in_the_number_that_it_has():
    assert [counted(number, "photo") for number in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]
