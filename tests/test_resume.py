"""A run that is killed at any place and goes on ends as one that was not: bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bdl.runtime.console import Task
from bdl.runtime.estimate import TimeLeft
from bdl.runtime.live import Pace
from bdl.runtime.stopping import Stopped
from tests.helpers.runs import RunFolder, unfinished

ROOT = Path(__file__).parents[1]

# Dies without a word at the given call of Curves.add, which every step of every training makes.
DYING = """\
import os, signal, sys
import torch
from bdl import pipeline
from bdl.runtime.checkpoint import Curves

torch.set_num_threads(1)
config, folder, deadly = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls, add = 0, Curves.add

def add_or_die(self, values):
    global calls
    calls += 1
    if calls == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, values)

Curves.add = add_or_die
pipeline.main(["run", "--config", config, f"out={folder}"])
"""


def run_until_killed(config: Path, folder: Path, deadly: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(config), str(folder), str(deadly)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_killed_in_each_kind_of_training_and_gone_on(
    tiny_run, tiny_config, command, tmp_path, capsys
):
    folder = tmp_path / "run"
    # Source only takes steps 1 to 10, then the first translator 6: killed in its sixth step.
    assert "[6/21] k1/translator" in run_until_killed(tiny_config, folder, 16)
    assert (unfinished(folder, "k1/translator") / "checkpoint.json").is_file()
    # It goes on from step 4 with 2 steps; of M(1,0) follow 10, of M(1,1) 7: killed in its sixth.
    said = run_until_killed(tiny_config, folder, 18)
    assert "k1/translator                    6 steps          goes on where it was" in said
    assert "k1/segmentation-1" in said and "k2/" not in said.partition("[1/")[2]
    assert (unfinished(folder, "k1/segmentation-1") / "checkpoint.json").is_file()

    assert command("run", f"out={folder}") == 0
    output = capsys.readouterr().out
    assert "k1/segmentation-1                7 steps          goes on where it was" in output
    run, expected = RunFolder(folder), tiny_run.weights()
    found = run.weights()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert run.rows() == tiny_run.rows()
    for stage in ("k1/translator", "k1/segmentation-1"):
        curves, whole = (item.read(f"{stage}/metrics.json")["curves"] for item in (run, tiny_run))
        assert curves == whole
    assert not list(folder.rglob("checkpoint*")) and not list(folder.rglob("*.unfinished-*"))


def test_pseudo_labels_go_on_from_the_predictions_that_are_there(
    tiny_run, command, tmp_path, monkeypatch
):
    """Stopped after two of the five images: three are predicted, and all is as in one go."""
    from bdl.segmentation import pseudo_labels

    run = tiny_run.copy(tmp_path / "run")
    predicted = []
    probabilities = pseudo_labels.probabilities

    def stop_at_third(*arguments):
        if len(predicted) == 2:
            raise Stopped(signal.SIGINT)
        predicted.append(1)
        return probabilities(*arguments)

    stage = "k1/pseudo-labels-1"
    arguments = ["--k", 1, "--i", 1, f"out={run.folder}"]
    monkeypatch.setattr(pseudo_labels, "probabilities", stop_at_third)
    assert command("pseudo-label", *arguments, "--again") == 130
    waiting = unfinished(run.folder, stage) / "predictions"
    assert len(list(waiting.iterdir())) == 2

    predicted.clear()
    monkeypatch.setattr(
        pseudo_labels,
        "probabilities",
        lambda *arguments: predicted.append(1) or probabilities(*arguments),
    )
    assert command("pseudo-label", *arguments) == 0
    assert len(predicted) == 3
    assert run.read(f"{stage}/metrics.json") == tiny_run.read(f"{stage}/metrics.json")
    for file in (tiny_run.folder / stage / "labels").iterdir():
        assert (run.folder / stage / "labels" / file.name).read_bytes() == file.read_bytes()


def test_translation_goes_on_from_the_images_that_are_there(
    tiny_run, command, tmp_path, monkeypatch
):
    run = tiny_run.copy(tmp_path / "run")
    stage = "k1/translated"
    assert stop_export_after(3, command, monkeypatch, run.folder) == 130
    images = sorted((unfinished(run.folder, stage) / "images").iterdir())
    assert 0 < len(images) < 6
    before = {file.name: file.stat().st_mtime_ns for file in images}
    assert command("export", "--k", 1, f"out={run.folder}") == 0
    for file in (tiny_run.folder / stage / "images").iterdir():
        made = run.folder / stage / "images" / file.name
        assert made.read_bytes() == file.read_bytes()
        assert before.get(file.name, made.stat().st_mtime_ns) == made.stat().st_mtime_ns


def stop_export_after(images: int, command, monkeypatch, folder: Path, *settings: str) -> int:
    """The exit status of an export that is asked to stop after so many images."""
    from bdl.translation import translate

    made, generate = [], translate.generate

    def stop(*arguments):
        if len(made) == images:
            raise Stopped(signal.SIGINT)
        made.append(1)
        return generate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(translate, "generate", stop)
        return command("export", "--k", 1, "--again", f"out={folder}", *settings)


@pytest.mark.slow
def test_grain_is_the_same_after_a_stop(tiny_run, command, tmp_path, monkeypatch):
    """Stopped in a translator's training, and then between two images: as in one go."""
    from bdl.translation.train import TranslationStep

    whole, stopped = (tiny_run.copy(tmp_path / name) for name in ("whole", "stopped"))
    grain = "translation.generator.grain=0.2"
    for name in ("translate", "export"):
        assert command(name, "--k", 1, grain, f"out={whole.folder}", "--replace") == 0

    taken, step = [], TranslationStep.__call__

    def stop_at_sixth(*arguments):
        if len(taken) == 5:
            raise Stopped(signal.SIGINT)
        taken.append(1)
        return step(*arguments)

    arguments = ["--k", 1, grain, f"out={stopped.folder}", "--replace"]
    monkeypatch.setattr(TranslationStep, "__call__", stop_at_sixth)
    assert command("translate", *arguments) == 130
    monkeypatch.setattr(TranslationStep, "__call__", step)
    for name in ("translate", "export"):
        assert command(name, *arguments) == 0
    images = stopped.folder / "k1/translated"
    assert stop_export_after(3, command, monkeypatch, stopped.folder, grain) == 130
    assert command("export", *arguments) == 0

    for name, expected in whole.weights().items():
        assert torch.equal(stopped.weights()[name], expected), name
    for file in (whole.folder / "k1/translated/images").iterdir():
        assert (images / "images" / file.name).read_bytes() == file.read_bytes()
        plain = tiny_run.folder / "k1/translated/images" / file.name
        assert plain.read_bytes() != file.read_bytes()


@pytest.mark.parametrize(
    ("stage", "asked"),
    [
        ("k1/translator", ["translate", "--k", 1]),
        ("k1/translated", ["export", "--k", 1]),
        ("k1/segmentation-0", ["segment", "--k", 1, "--i", 0]),
        ("k1/segmentation-0/evaluation", ["evaluate", "--k", 1, "--i", 0]),
        ("k1/pseudo-labels-1", ["pseudo-label", "--k", 1, "--i", 1]),
    ],
)
def test_the_seconds_of_every_stage_are_the_sum_over_its_commands(
    tiny_run, command, tmp_path, monkeypatch, stage, asked
):
    """In its record and in what estimates learn from, also where it was killed."""
    run, kept, learned = tiny_run.copy(tmp_path / "run"), [], []
    advance = Task.advance

    def stop_at_third(task, *arguments, **options):
        advance(task, *arguments, **options)
        kept.append(json.loads((unfinished(run.folder, stage) / "begun.json").read_text()))
        if len(kept) == 3:
            raise Stopped(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Task, "advance", stop_at_third)
        patched.setattr(Pace, "is_due", lambda self: True)
        assert command(*asked, "--again", f"out={run.folder}") == 130
    file = unfinished(run.folder, stage) / "begun.json"
    record = json.loads(file.read_text())
    times = [0.0, *(one["seconds"] for one in kept), record["seconds"]]
    assert times == sorted(set(times))
    file.write_text(json.dumps({**record, "seconds": 1000.0}))
    monkeypatch.setattr(TimeLeft, "learn", lambda self, *told: learned.append(told))
    assert command(*asked, f"out={run.folder}") == 0
    made = run.read(f"{stage}/manifest.json")["seconds"]
    assert 1000 < made < 1000 + 300
    assert made in [round(seconds, 3) for known, seconds in learned if known.name == stage]
