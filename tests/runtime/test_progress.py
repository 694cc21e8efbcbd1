"""What the terminal and the log file say, by loudness."""

import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole
from rich.table import Table

from bdl.runtime.console import Console, log


def run_task(console: Console, steps: int = 3) -> None:
    with console.track("stage", steps) as task:
        for step in range(steps):
            task.advance(values={"loss": 0.5} if step == 1 else None)


@pytest.mark.parametrize(
    ("verbosity", "printed"),
    [
        (-1, ["careful"]),
        (0, ["hello", "stage  3/3 steps", "careful"]),
        (1, ["hello", "stage  step 2  loss 0.5", "stage  3/3 steps", "careful"]),
    ],
    ids=["quiet", "usual", "verbose"],
)
def test_loudness(capsys: pytest.CaptureFixture, verbosity: int, printed: list[str]) -> None:
    """Each line once; the last of a stage is there, however fast it was."""
    console = Console(verbosity=verbosity)
    log.info("hello")
    run_task(console)
    log.warning("careful")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(printed)
    assert all(text in line for text, line in zip(printed, lines, strict=True))


def test_quiet_still_prints_results_and_logs_all(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    console = Console(verbosity=-1)
    console.log_to(tmp_path / "log.txt")
    run_task(console)
    console.show(Table(), "network 17.7")
    assert capsys.readouterr().out == "network 17.7\n"
    logged = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "3/3 steps" in logged and "network 17.7" in logged


def test_other_processes_are_silent(capsys: pytest.CaptureFixture) -> None:
    console = Console(speaking=False)
    log.warning("careful")
    run_task(console)
    console.show(Table(), "network 17.7")
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_the_stage_and_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()

    def terminal(**options: object) -> RichConsole:
        return RichConsole(
            file=screen, force_terminal=True, width=120, **{**options, "stderr": False}
        )

    monkeypatch.setattr("rich.console.Console", terminal)
    console = Console()
    console.loop_place, console.loop_left = (2, 8), 100.0
    with console.track("k1/translator", 4) as task:
        task.advance(values={"cycle_a": 0.25})
        assert task.bar is not None
        stage, run = task.bar.tasks
        assert stage.completed == 1 and stage.total == 4
        assert "cycle_a 0.25" in stage.fields["text"] and "/s" in stage.fields["text"]
        assert run.total == 8 and run.completed == 2.25
        assert run.fields["text"].startswith("2/8 stages  about 1 min")
