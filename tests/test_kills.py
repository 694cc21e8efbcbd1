"""A run that is killed, stopped or starved goes on, and ends as if nothing had happened."""

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from bdl.pipeline import main
from bdl.runtime.files import PARTIAL
from bdl.runtime.stopping import stop_request
from bdl.runtime.store import Store
from bdl.runtime.training import TrainingMonitor
from benchmarks.kill_and_resume import ROOT, Runs, differences, write_tiny
from tests.helpers.runs import unfinished

pytestmark = pytest.mark.slow

PATIENCE = 300  # seconds that nothing takes, on however busy a machine

posix = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happened to; its configuration lies beside it."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["run", "--config", str(write_tiny(folder)), f"out={folder / 'run'}"]) == 0
    return folder / "run"


def tiny(whole: Path, out: Path, *overrides: str) -> list[str]:
    return ["run", "--config", str(whole.parent / "tiny.yaml"), f"out={out}", *overrides]


class Killed(BaseException):
    """Stands for SIGKILL in this process: no handler of the project's catches it."""


# Every kind of file, as it appears where it is made or is moved to its place.
FILES = [
    "config.yaml",
    "results.json",
    "data/source.unfinished-*/begun.json",
    "data/source.unfinished-*/images/00003.png",
    "data/source/labels/00002.png",
    "source-only.unfinished-*/checkpoint-00000003-process-0.pt",
    "source-only.unfinished-*/checkpoint-00000006.pt",
    "source-only/evaluation/manifest.json",
    "k1/translator.unfinished-*/checkpoint.json",
    "k1/translator.unfinished-*/manifest.json",
    "k1/translated.unfinished-*/images/00003.png",
    "k1/translated/images/00003.png",
    "k1/translated.unfinished-*/moved.json",
    "k1/segmentation-0/segmenter.pt",
    "k1/pseudo-labels-1.unfinished-*/predictions/000003.npz",
    "k1/pseudo-labels-1.unfinished-*/labels/00003.png",
    "k1/pseudo-labels-1.unfinished-*/metrics.json",
]


@pytest.mark.parametrize(
    ("file", "appeared"), [(file, number % 2 == 1) for number, file in enumerate(FILES)]
)
def test_killed_at_a_write_it_ends_the_same(whole, tmp_path, monkeypatch, file, appeared):
    """Before or after the instant at which a file appears."""
    out = tmp_path / "run"
    replace, killed = os.replace, []

    def replace_or_die(source, target):
        if not Path(target).match(str(out / file)):
            replace(source, target)
            return
        killed.append(target)
        if appeared:
            replace(source, target)
        raise Killed

    unlink = Path.unlink

    def leave_partial(path, *arguments, **options):  # as SIGKILL would
        if not path.name.endswith(PARTIAL):
            unlink(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("bdl.runtime.files.os.replace", replace_or_die)
        patched.setattr("bdl.runtime.files.Path.unlink", leave_partial)
        with pytest.raises(Killed):
            main(tiny(whole, out))
    assert len(killed) == 1
    assert main(tiny(whole, out)) == 0
    assert differences(whole, out) == []


@posix
def test_killed_at_an_instant_with_loader_workers_it_ends_the_same(whole, tmp_path):
    runs = Runs(whole.parent / "tiny.yaml", ["data.workers=1"])
    started = time.monotonic()
    assert runs.run(tmp_path / "length") == 0
    length = time.monotonic() - started
    for portion in (0.4, 0.8):
        out = tmp_path / str(portion)
        killed = runs.run(out, kill_after=portion * length)
        assert killed in (-signal.SIGKILL, 0)  # 0: it was faster this time
        assert runs.run(out) == 0
        assert differences(whole, out) == []


def begin(arguments: list[str], until: str) -> subprocess.Popen:
    """The command in a process group of its own, once it has said `until`."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pipeline.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(process.communicate()[1])


@posix
@pytest.mark.parametrize(
    ("signum", "status", "workers", "everyone"),
    [
        (signal.SIGTERM, 143, 1, True),
        (signal.SIGINT, 130, 1, True),
        (signal.SIGTERM, 143, 0, False),
    ],
)
def test_a_signal_saves_the_step_and_says_how_to_go_on(
    whole, tmp_path, signum, status, workers, everyone
):
    """To the process alone, or as Ctrl-C and schedulers do to the whole group."""
    arguments = tiny(whole, tmp_path / "run", "segmentation.steps=100000", "checkpoint_every=99999")
    process = begin([*arguments, f"data.workers={workers}", "--verbose"], "source-only  step 4 ")
    (os.killpg if everyone else os.kill)(process.pid, signum)
    output, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, error
    assert re.match(rf"stopped by {signum.name}; to go on: (\S*/)?python\S* ", error)
    assert "segmentation.steps=100000" in error and len(error.splitlines()) == 1
    pointer = json.loads(
        (unfinished(tmp_path / "run", "source-only") / "checkpoint.json").read_text()
    )
    assert f"the state after step {pointer['step']} is saved" in output


@posix
def test_stopped_in_a_step_it_ends_the_same(whole, tmp_path, monkeypatch):
    """At a step that no state was due at, in the midst of a row of the curves."""
    call = TrainingMonitor.__call__

    def stop_at_5(self, done, losses, lr):
        if done == 5 and self.run.title == "k1/translator":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # handlers run between instructions
        call(self, done, losses, lr)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingMonitor, "__call__", stop_at_5)
        assert main(tiny(whole, tmp_path / "run")) == 143
    assert stop_request.signum == signal.SIGTERM
    pointer = json.loads(
        (unfinished(tmp_path / "run", "k1/translator") / "checkpoint.json").read_text()
    )
    assert pointer["step"] == 5
    assert main(tiny(whole, tmp_path / "run")) == 0
    assert differences(whole, tmp_path / "run") == []


@posix
def test_two_processes_stop_together_and_go_on_to_the_same_end(whole, tmp_path):
    """One is told; both save the same step. Then the main one is killed, and none is left."""
    two = ("devices=2", "segmentation.validate_every=1")  # most stops fall into a validation
    assert subprocess.run(
        [sys.executable, str(ROOT / "pipeline.py"), *tiny(whole, tmp_path / "whole", *two)],
        capture_output=True,
    ).returncode == 0  # fmt: skip
    arguments = tiny(whole, tmp_path / "run", *two)
    process = begin(arguments, "source-only\n")
    process.terminate()
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, error
    process = begin(arguments, "k1/translator\n")
    process.kill()
    process.communicate(timeout=PATIENCE)  # its output ends once no process of the run is left
    process = begin(arguments, "done in")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert differences(tmp_path / "whole", tmp_path / "run") == []


@pytest.mark.parametrize("write", [2, 14, 60, 105, 150])
def test_a_full_disk_at_a_write_loses_nothing(whole, tmp_path, monkeypatch, capsys, write):
    writes = itertools.count(1)
    fsync = os.fsync

    def fsync_or_fill(descriptor):
        if next(writes) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("bdl.runtime.files.os.fsync", fsync_or_fill)
        assert main(tiny(whole, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "cannot be written (No space left on device); make room on the disk" in error
    assert len(error.splitlines()) == 1
    assert not list((tmp_path / "run").rglob("*.bdl-partial"))
    assert main(tiny(whole, tmp_path / "run")) == 0
    assert differences(whole, tmp_path / "run") == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
@pytest.mark.parametrize("kilobytes", [60, 140, 220, 300, 380])
def test_a_disk_that_is_really_full_loses_nothing(whole, tmp_path, capsys, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        assert main(tiny(whole, disk / "run")) == 2
        error = capsys.readouterr().err
        assert "No space left on device" in error and "make room on the disk" in error
        assert len(error.splitlines()) == 1, error
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert main(tiny(whole, disk / "run")) == 0
        assert differences(whole, disk / "run") == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("stage", "rate"),
    [("source-only", "segmentation.optimizer.lr"), ("k1/translator", "translation.lr")],
)
def test_training_that_diverges_stops_with_its_last_good_state(
    whole, tmp_path, capsys, stage, rate
):
    out = tmp_path / "run"
    assert main(tiny(whole, out, f"{rate}=1e30", "checkpoint_every=1", "keep_checkpoints=1")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {stage}: training diverged: ") and f"Lower {rate}" in error
    assert len(error.splitlines()) == 1
    for file in unfinished(out, stage).glob("checkpoint-*[0-9].pt"):
        if "process" in file.name:
            continue
        content = torch.load(file, weights_only=True)
        network = content["network" if stage == "source-only" else "generators"]
        assert all(value.isfinite().all() for value in network.values())
    assert not (out / stage / "manifest.json").exists()


def test_the_lock_is_held_while_it_runs_and_reading_stays_possible(whole, tmp_path, monkeypatch):
    seen = []

    def look(self, **named):
        lock = FileLock(self.store.folder / "run.lock")
        try:
            lock.acquire(timeout=0)
            seen.append("free")
            lock.release()
        except TimeoutError:
            seen.append("held")

    monkeypatch.setattr("bdl.execution.Results.write", look)
    assert main(tiny(whole, tmp_path / "run", "iterations=0")) == 0
    assert set(seen) == {"held"}
    # Finished or not, plans are read without the lock.
    with FileLock(whole / "run.lock"):
        assert main([*tiny(whole, whole), "--dry-run"]) == 0


def test_checkpoints_kept(whole, tmp_path, monkeypatch):
    """The last two while a stage trains; of a finished stage its result."""
    most = {}
    finish = Store.finish

    def remember(self, stage, *arguments):
        states = self.staging_folder(stage).glob("checkpoint-*process-0.pt")
        most[stage.name] = len(list(states))
        finish(self, stage, *arguments)

    monkeypatch.setattr(Store, "finish", remember)
    for keep, kept in ((2, 2), (1, 1), (9, 7)):
        out = tmp_path / str(keep)
        settings = (f"keep_checkpoints={keep}", "checkpoint_every=1", "iterations=0")
        assert main(tiny(whole, out, *settings)) == 0
        assert most["source-only"] == kept
    assert not list(whole.rglob("checkpoint*"))


def test_a_damaged_state_is_passed_over_for_the_one_before(whole, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(
            "bdl.segmentation.train.save_segmenter", lambda *_: (_ for _ in ()).throw(Killed)
        )
        with pytest.raises(Killed):
            main(tiny(whole, out))
    states = sorted(unfinished(out, "source-only").glob("checkpoint-*[0-9].pt"))
    latest = [file for file in states if "process" not in file.name][-1]
    latest.write_bytes(latest.read_bytes()[:1000])
    assert main(tiny(whole, out)) == 0
    assert f"{latest}: cannot be read as a weights file" in capsys.readouterr().out
    assert differences(whole, out) == []
