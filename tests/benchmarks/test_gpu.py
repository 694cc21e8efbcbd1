"""benchmarks/gpu.py: what the time did not suffice for is named, and done the next time."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu

RESULT = {
    "machine": {"device": "a GPU"},
    "versions": {"torch": "2"},
    "date": "today",
    "ways": {
        "published": {"seconds": 2.0, "first_seconds": 20.0, "ratio": 1.0, "memory_peak": 3 << 20}
    },
}


def test_a_second_time_does_what_is_missing(tmp_path, monkeypatch, capsys):
    begun = []

    def stand_in(command, timeout, **_):
        """Makes the file that the command names; the tests fail, one benchmark takes too long."""
        name = command[2]
        begun.append(name)
        if name == "benchmarks.evaluation" and begun.count(name) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        if "--json" in command:
            with open(command[command.index("--json") + 1], "w", encoding="utf-8") as file:
                json.dump(RESULT, file)
        elif "--profile" in command:
            (tmp_path / f"profile-{command[command.index('--profile') + 1]}.txt").touch()
        else:
            open(command[command.index("--junit-xml") + 1], "w").close()
        return subprocess.CompletedProcess(command, int(name == "pytest" and len(begun) == 1))

    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.subprocess, "run", stand_in)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    assert gpu.main() == 1
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "- tests: exit status 1" in summary
    assert "- evaluation: not finished" in summary
    assert "| export | published | 2 | 20 | 1.00 | 3 |" in summary
    before = len(begun)
    assert gpu.main() == 0
    assert begun[before:] == ["pytest", "benchmarks.evaluation"]


def test_nothing_is_begun_after_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: pytest.fail("it was begun"))
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path), "--limit", "0"])
    assert gpu.main() == 1
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary.count("not begun within the limit") == len(gpu.PAPER) + len(gpu.PROFILED) + 1
