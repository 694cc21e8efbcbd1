"""A tiny run from end to end: report.html, TensorBoard and the log say what results.json says."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdl.pipeline import main
from bdl.reports import results
from bdl.runtime.config import load_config
from bdl.runtime.errors import UserError
from bdl.runtime.stage import Stage
from bdl.runtime.stopping import stop_request
from bdl.segmentation.stages import Segmenter, batch_path
from bdl.segmentation.train import SegmentationStep
from bdl.translation.stages import Translator

SETTINGS = [
    "iterations=1",
    "self_training_steps=1",
    "log_every=1",
    "precision=32-true",
    "device=cpu",
    "data.source.scenes=2",
    "data.target.scenes=2",
    "data.validation.scenes=2",
    "data.source.size=[64,32]",
    "data.target.size=[64,32]",
    "data.validation.size=[64,32]",
    "translation.crop=[32,32]",
    "translation.steps_per_epoch=1",
    "translation.constant_epochs=1",
    "translation.decay_epochs=1",
    "translation.generator.width=4",
    "translation.generator.blocks=1",
    "translation.discriminator_width=4",
    "segmentation.steps=2",
    "segmentation.pseudo_label_steps=2",
    "segmentation.options.width=4",
    "segmentation.adversarial.width=4",
]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The finished run's folder, and the report as it was at each writing."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    pages: list[str] = []
    write_report = results.write_report

    def keep(file: Path, report: results.Report) -> None:
        write_report(file, report)
        pages.append(file.read_text(encoding="utf-8"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_report", keep)
        assert main(["run", "--quiet", "--config", "demo", f"out={folder}", *SETTINGS]) == 0
    return folder, pages


def networks_log(folder: Path) -> EventAccumulator:
    return EventAccumulator(
        str(folder / "tensorboard" / "all-networks"), size_guidance={"images": 0}
    ).Reload()


def test_the_report_follows_the_run(followed: tuple[Path, list[str]]) -> None:
    """It is written as each stage begins, naming it, and when all are finished."""
    folder, pages = followed
    begun = [re.findall(r"work on <strong>(.*?)</strong>", page) for page in pages]
    order = ["data/source", "data/target", "data/validation"]
    order += ["source-only", "source-only/evaluation", "k1/translator", "k1/translated"]
    order += ["k1/translated/measures"]
    order += ["k1/segmentation-0", "k1/segmentation-0/evaluation", "k1/pseudo-labels-1"]
    order += ["k1/segmentation-1", "k1/segmentation-1/evaluation"]
    assert begun == [*([name] for name in order), []]
    # From the first stage on it says how long the rest takes.
    assert ['id="left"' in page for page in pages] == [*([True] * len(order)), False]
    assert "All 13 stages are finished" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_says_what_results_say(followed: tuple[Path, list[str]]) -> None:
    folder, _ = followed
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'data-stage="(.*?)".*?class="main">(.*?)</td>', page, re.DOTALL)
    assert shown == [(row["stage"], f"{100 * row['miou']:.1f}") for row in rows]
    for caption in ("source", "F(1)", "F(1) and back", "target", "pseudo labels for M(1,1)"):
        assert f'<th scope="col">{caption}</th>' in page
    columns = re.findall(r'<th scope="col">(.*?)</th>', page)
    pictures = ", ".join(columns)
    assert "validation, M(0), M(1,0), M(1,1), label" in pictures
    assert "validation, label, prediction, errors, confidence" in pictures
    source = "source image, source labels"
    batches = f"{source}, {source}, target image, {source}, target image, its pseudo labels"
    assert pictures.endswith(batches)
    assert f"bdl run --config {folder / 'config.yaml'} out={folder}-again" in page


def test_tensorboard_follows_the_loop(followed: tuple[Path, list[str]]) -> None:
    folder, _ = followed
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    log = networks_log(folder)
    means = [(event.step, event.value) for event in log.Scalars("mIoU/miou")]
    assert means == [(step, pytest.approx(row["miou"])) for step, row in enumerate(rows)]
    for name in ("road", "sky"):
        found = [event.value for event in log.Scalars(f"IoU/{name}")]
        assert found == [pytest.approx(r["iou"][name]) for r in rows if r["iou"][name] is not None]
    measures = json.loads((folder / "k1/translated/measures/metrics.json").read_text("utf-8"))
    for name, value in (
        ("ssim", measures["ssim"]),
        ("reconstruction_l1", measures["reconstruction_l1"]),
        ("lost", measures["drift"]["lost"]),
        ("kid_translated", measures["kid"]["translated"]["mean"]),
        ("kid_source", measures["kid"]["source"]["mean"]),
    ):
        (event,) = log.Scalars(f"translation/{name}")
        assert (event.step, event.value) == (0, pytest.approx(value, rel=1e-5))
    frames = {tag.split("/")[0]: len(log.Images(tag)) for tag in log.Tags()["images"]}
    assert frames == {"source": 1, "target": 1, "validation": 3}
    stages = sorted(item.name for item in (folder / "tensorboard").iterdir())
    assert stages == [
        "all-networks",
        "k0-00-source-only",
        "k1-00-translator",
        "k1-02-segmentation-0",
        "k1-04-segmentation-1",
    ]


def test_a_second_run_repeats_nothing_in_the_logs(followed: tuple[Path, list[str]]) -> None:
    folder, _ = followed
    assert main(["run", "--quiet", "--config", "demo", f"out={folder}", *SETTINGS]) == 0
    assert [event.step for event in networks_log(folder).Scalars("mIoU/miou")] == [0, 1, 2]


def test_the_saved_configuration_is_the_run_s(followed: tuple[Path, list[str]]) -> None:
    """Read back it is the same, so that the command in the report makes the same run."""
    folder, _ = followed
    config = load_config("demo", [f"out={folder}", *SETTINGS])
    assert load_config(folder / "config.yaml") == config


def test_the_run_folder_predicts(followed: tuple[Path, list[str]], tmp_path: Path) -> None:
    """With the last network, at the width of its training."""
    folder, _ = followed
    photo = next((folder / "data" / "validation" / "images").iterdir())
    arguments = ["--checkpoint", str(folder), "--images", str(photo), "--out", str(tmp_path)]
    assert main(["predict", *arguments, "--device", "cpu", "--quiet"]) == 0
    assert (tmp_path / "labels" / photo.name).is_file()


def test_logs_sort_as_the_loop_runs() -> None:
    stages: list[Stage] = [Segmenter()]
    for k in (1, 2):
        stages += [Translator(k=k), *(Segmenter(k=k, i=i) for i in range(6))]
    names = [stage.log for stage in stages]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert names[:3] == ["k0-00-source-only", "k1-00-translator", "k1-02-segmentation-0"]


def networks_in(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}: {name}": value
        for file in sorted(folder.rglob("*.pt"))
        for name, value in torch.load(file, weights_only=True)["state"].items()
    }


def test_a_page_that_lives_changes_no_network(
    followed: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written at every row, it shows steps and curves so far and says that it reloads itself; the
    networks are bit for bit those of a run that shows nothing."""
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SHARE", float("inf"))
    pages: list[str] = []
    write_report = results.write_report

    def keep(file: Path, report: results.Report) -> None:
        write_report(file, report)
        pages.append(file.read_text(encoding="utf-8"))

    monkeypatch.setattr(results, "write_report", keep)
    folder = tmp_path / "lively"
    settings = [*SETTINGS, "segmentation.steps=3", "segmentation.pseudo_label_steps=3"]
    settings += ["translation.decay_epochs=3"]
    plain = tmp_path / "plain"
    assert main(["run", "--quiet", "--config", "demo", f"out={folder}", *settings]) == 0
    lively = [page for page in pages if 'id="live"' in page]
    said = r'id="live">(.*?) in training.*?Step <strong>(\d+)'
    shown = [re.findall(said, page, re.DOTALL) for page in lively]
    networks = ("M(0)", "F(1)", "M(1,0)", "M(1,1)")
    assert [one[0] for one in shown] == [(name, step) for name in networks for step in "12"]
    # Two rows make a line.
    assert ['class="charts"' in page for page in lively[:2]] == [False, True]
    assert all("reloads itself" in page and "location.reload" in page for page in lively)
    assert "reload" not in pages[-1]
    monkeypatch.undo()
    assert main(["run", "--quiet", "--config", "demo", f"out={plain}", *settings]) == 0
    expected, found = networks_in(plain), networks_in(folder)
    assert expected.keys() == found.keys() and len(expected) > 20
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("signal_comes", [True, False], ids=["signal", "error"])
def test_a_page_says_that_its_run_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_comes: bool
) -> None:
    """In the midst of a training it no longer reloads itself; gone on with, the run is whole."""
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SHARE", float("inf"))
    folder = tmp_path / "run"
    report = folder / "report.html"
    words = ["run", "--quiet", "--config", "demo", f"out={folder}", *SETTINGS, "iterations=0"]
    words += ["segmentation.steps=6"]
    call, done = SegmentationStep.__call__, []

    def stopping(*arguments: Any) -> dict[str, torch.Tensor]:
        if report.is_file() and "In training" in report.read_text(encoding="utf-8"):
            if not signal_comes:
                raise UserError("the disk of <this> test is full; make room")
            stop_request.signum = signal.SIGINT
        done.append(1)
        return call(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SegmentationStep, "__call__", stopping)
        assert main(words) == (130 if signal_comes else 2)
    text = report.read_text(encoding="utf-8")
    assert "The run was stopped" in text and "source-only" in text
    assert ("SIGINT" if signal_comes else "the disk of &lt;this&gt; test is full") in text
    assert "location.reload" not in text and "reloads itself" not in text
    assert "left for" not in text and "Stopped training" in text
    assert main(words) == 0
    text = report.read_text(encoding="utf-8")
    assert "was stopped" not in text and "stages are finished" in text


def test_the_kept_batch_is_what_the_first_step_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut, augmented and mixed: pixel by pixel, and id by id."""
    steps: list[tuple[Any, Any]] = []
    call = SegmentationStep.__call__

    def keep(self: Any, source: Any, target: Any, factor: float) -> dict[str, torch.Tensor]:
        steps.append((source, target))
        return call(self, source, target, factor)

    monkeypatch.setattr(SegmentationStep, "__call__", keep)
    monkeypatch.setattr("bdl.execution._tried", lambda *arguments: None)
    folder = tmp_path / "run"
    crop = "segmentation.augmentation={crop: [48, 32], scale: [1.0, 1.3], brightness: 0.2}"
    settings = [*SETTINGS, crop, "segmentation.pseudo_labels={quantile: 0.2, max_threshold: 0.5}"]
    assert main(["run", "--quiet", "--config", "demo", f"out={folder}", *settings]) == 0
    begun = {"k1/segmentation-0": steps[2], "k1/segmentation-1": steps[4]}
    for stage, (source, target) in begun.items():
        for role, (images, ids) in (("source", source), ("target", target[:2])):
            for number in range(3):
                kept = np.asarray(Image.open(batch_path(folder / stage, role, number)))
                seen = images[number].permute(1, 2, 0).numpy()
                assert np.abs(kept / 255 - seen).max() <= 0.5 / 255 + 1e-6
                file = batch_path(folder / stage, role, number, labels=True)
                assert file.exists() == (ids is not None)
                if ids is not None:
                    assert np.array_equal(np.asarray(Image.open(file)), ids[number].numpy())
