"""A network in training that is scored on the validation images: nothing but what is kept and shown
depends on it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

from bdl.pipeline import main
from bdl.runtime.config import load_config
from bdl.runtime.console import Console
from bdl.runtime.files import load_tensors
from bdl.runtime.stopping import stop_request
from bdl.runtime.training import TrainingMonitor
from bdl.segmentation import evaluate, validation
from bdl.segmentation.checkpoint import load_segmenter, save_segmenter
from bdl.segmentation.metrics import Best
from bdl.segmentation.stages import BEST, RESULT
from tests.helpers.runs import RunFolder, unfinished

STAGES = ("source-only", "k1/segmentation-0", "k1/segmentation-1")
SETTINGS = ("iterations=1", "segmentation.validate_every=3", "log_every=4")


@pytest.fixture(scope="module")
def validated(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The tiny run's first round, each network scored after every third step."""
    folder = tmp_path_factory.mktemp("runs") / "validated"
    words = ["run", "--quiet", "--config", str(tiny_config), f"out={folder}", *SETTINGS]
    assert main(words) == 0
    return RunFolder(folder)


def test_networks_are_bit_for_bit_those_of_a_run_without(
    validated: RunFolder, tiny_run: RunFolder
) -> None:
    expected, found = tiny_run.weights(), validated.weights()
    assert set(found) < set(expected) and len({name.split(":")[0] for name in found}) == 4
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    for stage in STAGES:  # and with the same fingerprint: either is reused for the other
        manifests = [run.read(f"{stage}/manifest.json") for run in (validated, tiny_run)]
        assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]


def test_the_curve_ends_with_what_the_evaluation_says(validated: RunFolder) -> None:
    """Its last point is of the last network, scored in the same way."""
    for row in validated.rows():
        metrics = validated.read(f"{row['stage']}/metrics.json")
        steps = [3, 6, 9, 10] if row["stage"] != "k1/segmentation-1" else [3, 6, 7]
        assert [point["step"] for point in metrics["validation"]] == steps
        assert metrics["validation"][-1]["miou"] == row["miou"]


def test_the_best_state_is_kept_beside_the_last(
    validated: RunFolder, fabric: Fabric, console: Console, tiny_config: Path
) -> None:
    """The first of the highest; evaluated by itself it has the mIoU that is said of it."""
    from bdl.domains.problem import Problem
    from bdl.runtime.run import Run
    from bdl.segmentation.evaluate import evaluate

    config = load_config(tiny_config, [f"out={validated.folder}"])
    data = Problem(config.data, validated.folder)
    assert data.validation is not None
    run = Run(validated.folder, fabric, console)
    for stage in STAGES:
        folder = validated.folder / stage
        metrics = validated.read(f"{stage}/metrics.json")
        highest = max(metrics["validation"], key=lambda point: point["miou"])
        assert metrics["best"] == highest
        assert BEST in validated.read(f"{stage}/manifest.json")["files"]
        said = load_tensors(folder / BEST)
        assert Best(said["step"], said["miou"]) == Best(**highest)
        network, _ = load_segmenter(folder / BEST)
        scores = evaluate(run, folder, network, data.validation.whole(), data.space, None, ())
        assert scores.miou == pytest.approx(highest["miou"], abs=1e-12)
        if highest["step"] == metrics["steps"]:
            last, _ = load_segmenter(folder / RESULT)
            for one, other in zip(network.parameters(), last.parameters(), strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("step", [6, 10])  # at 6 neither a row of curves nor a state is due
@pytest.mark.parametrize("images", [0, 2])
def test_a_stop_does_not_wait_for_a_score_which_is_made_on_going_on(
    validated: RunFolder,
    command: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    images: int,
) -> None:
    """Asked to stop in a step, or after so many of the three images of its score: nothing is
    predicted any more, and the run ends as one that was not stopped."""
    predict, watch, reached, predicted = evaluate.predict_classes, TrainingMonitor.__call__, [], []

    def stop_if_now() -> None:
        if reached[-1] == step and len(predicted) == images:
            stop_request.signum = signal.SIGTERM

    def after_a_step(self: TrainingMonitor, done: int, *arguments: Any, **named: Any) -> None:
        reached.append(done)
        predicted.clear()
        stop_if_now()
        watch(self, done, *arguments, **named)

    def at_an_image(*arguments: Any) -> torch.Tensor:
        predicted.append(1)
        stop_if_now()
        return predict(*arguments)

    words = ("segment", f"out={tmp_path}", *SETTINGS, "--k", "0")
    with monkeypatch.context() as patched:
        patched.setattr(TrainingMonitor, "__call__", after_a_step)
        patched.setattr(evaluate, "predict_classes", at_an_image)
        assert command(*words) == 143
    assert (reached[-1], len(predicted)) == (step, images)
    state = json.loads((unfinished(tmp_path, "source-only") / "checkpoint.json").read_text())
    assert state["step"] == step
    stop_request.signum = 0
    assert command(*words) == 0
    found = RunFolder(tmp_path)
    for key in ("validation", "best", "curves"):
        name = "source-only/metrics.json"
        assert found.read(name)[key] == validated.read(name)[key]
    expected = validated.weights()
    assert all(torch.equal(value, expected[name]) for name, value in found.weights().items())
    assert torch.equal(*(load_best(run) for run in (found, validated)))
    assert not list(tmp_path.glob("*unfinished*"))


def load_best(run: RunFolder) -> torch.Tensor:
    """All weights of the best state of source only."""
    network, _ = load_segmenter(run.folder / "source-only" / BEST)
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def test_scores_on_other_images_are_not_gone_on_with(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, then scored on other images: the curve and the best state are of those alone, though
    the scores before were higher."""
    look = validation.BestState.look

    def stopping(self: validation.BestState, step: int) -> dict[str, float]:
        scored = look(self, step)
        stop_request.signum = signal.SIGTERM
        self.best = Best(step, 1.0)
        save_segmenter(
            self.file,
            self.network,
            self.training,
            self.space,
            {"step": step, "miou": 1.0, "validated_on": self.data.on},
        )
        return scored

    words = ("segment", f"out={tmp_path}", *SETTINGS, "--k", "0")
    for size in ("null", "[16,16]"):
        monkeypatch.setattr(validation.BestState, "look", stopping)
        assert command(*words, f"segmentation.evaluation.size={size}") == 143
        monkeypatch.undo()
        stop_request.signum = 0
    assert command(*words, "segmentation.evaluation.size=[16,16]") == 0
    metrics = RunFolder(tmp_path).read("source-only/metrics.json")
    assert [row["step"] for row in metrics["validation"]] == [6, 9, 10]
    assert metrics["best"] == {"step": 6, "miou": 1.0}  # of the second command, on the same images


def test_looking_leaves_modes_and_random_state(fabric: Fabric) -> None:
    """Of modules that are in evaluation mode while others train, too."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)))
    network.train()
    network[0].eval()
    with validation._as_in_use(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, False, True, True, True]


def test_without_labels_there_is_nothing_to_score_on(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", f"out={tmp_path}", *SETTINGS, "data.validation=null", "--dry-run")
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert "segmentation.validate_every: is 3, and data.validation is null" in said


def test_one_stage_alone_renders_what_it_is_scored_on(
    command: Callable[..., int], tmp_path: Path
) -> None:
    assert command("segment", f"out={tmp_path}", *SETTINGS, "--k", "0") == 0
    assert (tmp_path / "data/validation/manifest.json").is_file()
    content = json.loads((tmp_path / "source-only/metrics.json").read_text(encoding="utf-8"))
    assert len(content["validation"]) == 4
