"""Two processes (gloo, on the CPU) do the work of one, each its share of it."""

import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from bdl.runtime.stopping import Stopped
from tests.helpers.runs import RunFolder, unfinished

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# The command line, with a note for each sample that a process loads. Every process runs the file.
WATCHED = """\
import os, sys
import torch
from bdl.domains import loading
from bdl import pipeline

torch.set_num_threads(1)
notes = os.environ["NOTES"]

def watched(kind, load):
    def wrapped(self, number):
        with open(f"{notes}-{os.environ.get('LOCAL_RANK', '0')}", "a") as file:
            samples = self.samples[0].image.parent.as_posix()
            file.write(f"{kind} {samples} {number}\\n")
        return load(self, number)
    return wrapped

loading.TrainingSamples.__getitem__ = watched("train", loading.TrainingSamples.__getitem__)
loading.WholeImages.__getitem__ = watched("whole", loading.WholeImages.__getitem__)

if __name__ == "__main__":
    sys.exit(pipeline.main())
"""


@pytest.fixture(scope="module")
def pair(tiny_config, tmp_path_factory) -> tuple[RunFolder, list[dict[tuple[str, str], list[int]]]]:
    """A run of one round by two processes; by process, the numbers loaded of each data set."""
    place = tmp_path_factory.mktemp("pair")
    script = place / "watched.py"
    script.write_text(WATCHED, encoding="utf-8")
    folder = place / "run"
    arguments = ["--config", tiny_config, f"out={folder}", "iterations=1", "devices=2"]
    done = subprocess.run(
        [sys.executable, script, "run", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NOTES": str(place / "notes")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    loaded = []
    for rank in (0, 1):
        numbers = defaultdict(list)
        for line in (place / f"notes-{rank}").read_text().splitlines():
            kind, images, number = line.split(" ")
            numbers[kind, Path(images).relative_to(folder).as_posix()].append(int(number))
        loaded.append(numbers)
    return RunFolder(folder, done.stdout), loaded


def test_training_gives_each_number_to_one_process(pair):
    _, loaded = pair
    # By data set: the steps of the trainings that read it, in order, 2 images a step. Before a
    # segmentation network's the main process alone keeps the first batch, to be looked at.
    steps = {
        "data/source/images": [("M(0)", 10), ("F(1)", 6)],
        "data/target/images": [("F(1)", 6), ("M(1,0)", 10), ("M(1,1)", 7)],
        "k1/translated/images": [("M(1,0)", 10), ("M(1,1)", 7)],
    }
    for images, trainings in steps.items():
        for rank in (0, 1):
            expected = []
            for name, count in trainings:
                expected += [0, 1] if rank == 0 and name.startswith("M") else []
                expected += [2 * step + rank for step in range(count)]
            assert loaded[rank]["train", images] == expected


def test_each_image_is_handled_by_one_process(pair):
    _, loaded = pair
    # Sources are translated and measured, targets measured and pseudo-labelled.
    visits = {"data/source/images": 2, "data/target/images": 2, "data/validation/images": 3}
    counts = {"data/source/images": 6, "data/target/images": 5, "data/validation/images": 3}
    # The worst images of each evaluation, here all three, the main process alone reads once more.
    again = {"data/validation/images": 3}
    for images, times in visits.items():
        main, other = (loaded[rank]["whole", images] for rank in (0, 1))
        more = again.get(images, 0)
        assert sorted(main + other) == sorted([*range(counts[images])] * (times + more))
        assert all(number % 2 == 1 for number in other)
        assert sum(number % 2 for number in main) == more  # of the three, one is odd


def test_one_process_speaks(pair):
    run, _ = pair
    assert run.output.count("[4/13] source-only\n") == 1


def test_results_of_the_networks_equal_those_of_one_process(pair, command, tmp_path):
    """Pseudo labels with their thresholds, and the confusion matrix, from the same networks."""
    made, _ = pair
    assert made.read("k1/translator/manifest.json")["processes"] == 2
    run = made.copy(tmp_path / "run")
    arguments = ["--k", 1, f"out={run.folder}", "--again", "iterations=1"]
    assert command("pseudo-label", "--i", 1, *arguments) == 0
    assert command("evaluate", "--i", 1, *arguments) == 0
    assert command("export", *arguments) == 0
    assert command("measure", *arguments) == 0
    stages = ["k1/pseudo-labels-1", "k1/segmentation-1/evaluation"]
    for stage in (*stages, "k1/translated", "k1/translated/measures"):
        assert run.read(f"{stage}/manifest.json")["processes"] == 1
        assert run.read(f"{stage}/metrics.json") == made.read(f"{stage}/metrics.json")
    files = [*made.folder.glob("k1/pseudo-labels-1/labels/*.png")]
    files += made.folder.glob("k1/translated/*/*.png")
    assert len(files) == 5 + 6 + 4
    for file in files:
        assert (run.folder / file.relative_to(made.folder)).read_bytes() == file.read_bytes()


def test_both_processes_train_one_network(pair, tiny_run):
    """The gradients' mean over two images moves the weights much as one batch of two does."""
    made, _ = pair
    name = "source-only: classifier.weight"
    alone, together = tiny_run.weights()[name], made.weights()[name]
    assert not torch.equal(alone, together)  # batch norm sees one image instead of two
    assert torch.nn.functional.cosine_similarity(alone.flatten(), together.flatten(), 0) > 0.9


def stop(*_):
    raise Stopped(signal.SIGINT)


def test_going_on_with_another_number_of_processes_is_refused(
    command, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("bdl.segmentation.train.save_segmenter", stop)
        assert command("run", f"out={folder}", "iterations=0") == 130
    place = unfinished(folder, "source-only")
    (place / "checkpoint.json").write_text('{"step": 4, "processes": 2}')
    capsys.readouterr()
    assert command("run", f"out={folder}", "iterations=0") == 2
    assert f"error: {place}: was begun with devices=2" in capsys.readouterr().err


def run_pair(place: Path, tiny_config: Path, code: str = "", *settings: str) -> tuple[int, str]:
    """Status and stderr of a run of two processes, each of which first executes `code`."""
    script = place / "script.py"
    script.write_text(
        f"import os, signal, sys\nfrom bdl import execution, pipeline\n{code}\n"
        "if __name__ == '__main__':\n    sys.exit(pipeline.main())\n",
        encoding="utf-8",
    )
    settings = ("iterations=0", "devices=2", f"out={place / 'run'}", *settings)
    done = subprocess.run(
        [sys.executable, script, "run", "--config", tiny_config, *settings],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stderr


# The plan is made by each process before it joins; stages are made by all together.
FAILING = """
from bdl.runtime.errors import UserError
rank = os.environ.get("LOCAL_RANK", "0")
def fail(*_):
    {failure}
if rank in "{ranks}":
    execution.{place} = fail
"""
BEFORE, AFTER = "algorithm", "Loop._make_claimed"


BUG = r"unexpected: LookupError: ours to mend; this is a bug of bdl: please send \S+\.log"
KILLED = "a process of this run was ended by SIGKILL"


@pytest.mark.parametrize(
    ("place", "failure", "ranks", "status", "line"),
    [
        (AFTER, "raise UserError(f'file {rank} is bad')", "01", 2, r"file [01] is bad"),
        (AFTER, "raise UserError(f'file {rank} is bad')", "1", 2, "file 1 is bad"),
        (AFTER, "raise UserError(f'file {rank} is bad')", "0", 2, "file 0 is bad"),
        (AFTER, "os.kill(os.getpid(), signal.SIGKILL)", "1", 1, KILLED),
        (AFTER, "raise LookupError('ours to mend')", "1", 1, BUG),
        (BEFORE, "raise UserError(f'file {rank} is bad')", "01", 2, "file 0 is bad"),
        (BEFORE, "raise UserError(f'file {rank} is bad')", "1", 2, "file 1 is bad"),
        (BEFORE, "os.kill(os.getpid(), signal.SIGKILL)", "1", 1, KILLED),
    ],
    ids=[
        "both",
        "child",
        "main",
        "killed child",
        "bug in a child",
        "all before they join",
        "child before it joins",
        "killed child before it joins",
    ],
)
def test_an_error_is_printed_once_whichever_processes_meet_it(
    tmp_path, tiny_config, place, failure, ranks, status, line
):
    code = FAILING.format(place=place, failure=failure, ranks=ranks)
    ended, said = run_pair(tmp_path, tiny_config, code)
    errors = [text for text in said.splitlines() if text.startswith("error: ")]
    assert ended == status and len(errors) == 1, said
    assert re.fullmatch(f"error: {line}", errors[0])
    assert "Traceback" not in said


def test_an_internal_error_of_the_main_process_is_not_hidden_by_those_it_ends(
    tmp_path, tiny_config
):
    code = FAILING.format(place=AFTER, failure="raise LookupError('ours to mend')", ranks="0")
    ended, said = run_pair(tmp_path, tiny_config, code)
    assert ended == 1 and "LookupError: ours to mend" in said


# Stands for another run that ends between the plans of the two processes.
FINISHED_MEANWHILE = """
if os.environ.get("LOCAL_RANK"):
    plan = execution.Store.plan
    calls = []
    def finished(*arguments):
        calls.append(1)
        entries = plan(*arguments)
        return [execution.Entry(e.stage, False) for e in entries] if len(calls) == 1 else entries
    execution.Store.plan = finished
"""


def test_a_process_that_finds_nothing_to_do_joins_the_others(tmp_path, tiny_config):
    """They wait for it, and what there is to do is asked again when all are there."""
    assert run_pair(tmp_path, tiny_config, FINISHED_MEANWHILE) == (0, "")


def test_runs_of_an_ablation_share_their_processes(pair, tiny_config, tmp_path):
    """Started once; each run is made by both, as by itself, and one process speaks and writes."""
    folder = tmp_path / "ablation"
    arguments = ["--config", tiny_config, f"out={folder}", "iterations=0", "devices=2"]
    done = subprocess.run(
        [sys.executable, ROOT / "pipeline.py", "ablate", "--seeds", "0", "1", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run 2 of 2") == 1
    runs = [RunFolder(folder / f"as-configured/K0-N1/seed-{seed}") for seed in (0, 1)]
    for run in runs:
        assert run.read("source-only/manifest.json")["processes"] == 2
        assert [row["stage"] for row in run.read("results.json")] == ["source-only"]
        assert not list(run.folder.rglob("*.unfinished-*"))
        assert (run.folder / "log.txt").read_text().count("source-only\n") == 1
    assert "as configured" in (folder / "ablation.md").read_text()
    whole, (one, other) = pair[0].weights(), (run.weights() for run in runs)
    assert all(torch.equal(value, whole[name]) for name, value in one.items())
    assert not all(torch.equal(value, one[name]) for name, value in other.items())
