"""What is shown of a run's folder: of stages that are made by hand, in no time."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdl.domains.problem import Problem
from bdl.pipeline import algorithm
from bdl.reports.report import with_gains
from bdl.reports.results import Results, describe_results
from bdl.runtime.config import load_config
from bdl.runtime.metrics import Metrics
from bdl.runtime.stage import Stage
from bdl.runtime.store import MadeOn
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelClass, PseudoLabelMetrics
from bdl.segmentation.stages import Evaluation
from bdl.translation.metrics import Distances, Drift, MeasureMetrics, TranslatorMetrics

SETTINGS = """\
iterations: 1
self_training_steps: 1
data:
  label_space: camvid11
  source: {layout: streets, scenes: 6, size: [64, 32], appearance: synthetic}
  target: {layout: streets, scenes: 3, size: [64, 32], appearance: real}
  validation: {layout: streets, scenes: 2, size: [64, 32], appearance: real}
segmentation: {network: compact, options: {width: 4}}
"""
CLASSES = 11


def results_of(folder: Path, *overrides: str) -> Results:
    file = folder / "settings.yaml"
    file.write_text(SETTINGS, encoding="utf-8")
    config = load_config(file, [f"out={folder / 'run'}", *overrides])
    data = Problem(config.data, Path(config.out))
    return Results(config, data, algorithm(config, data))


def measured(stage: Stage, number: int) -> Metrics:
    """Metrics of a stage, as far as the pages need them."""
    kind = stage.metrics
    none = [[0] * CLASSES for _ in range(CLASSES)]
    if kind is TranslatorMetrics:
        return TranslatorMetrics(steps=1, curves=[{"step": 1.0, "source": 0.5, "lr": 0.1}])
    if kind is EvaluationMetrics:
        return EvaluationMetrics(
            images=2, miou=number / 100, iou=[number / 100] * CLASSES, confusion=none
        )
    if kind is PseudoLabelMetrics:
        return PseudoLabelMetrics(
            images=3, kept=0.5, classes=[PseudoLabelClass(0.5, 10, 0.5)] * CLASSES
        )
    if kind is MeasureMetrics:
        drift = Drift(0.5, 0.4, 0.2, None, [], none, none, none)
        return MeasureMetrics(
            images=6, drift=drift, kid=Distances("features", None, None), ssim=0.9
        )
    return kind()


def finish(results: Results, *names: str) -> None:
    """Make the stages of those names, else all that are not there, each in 2 s."""
    for number, stage in enumerate(results.stages):
        if (names and stage.name not in names) or results.store.is_finished(stage):
            continue
        folder = results.store.begin(stage)
        for name in stage.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".png"):
                photo = name.startswith("images") or name.startswith("reconstructed")
                shape = (32, 64, 3) if photo else (32, 64)
                Image.fromarray(np.full(shape, number, np.uint8)).save(folder / name)
            else:
                (folder / name).write_text(stage.name)
        results.store.finish(stage, measured(stage, number), 2.0, MadeOn(seed=0))


def page_of(results: Results) -> str:
    results.write()
    return (results.store.folder / "report.html").read_text(encoding="utf-8")


def rows_in(results: Results) -> list[dict]:
    return json.loads((results.store.folder / "results.json").read_text(encoding="utf-8"))


def captions(results: Results) -> dict[str, list[str]]:
    strips = results.strips(results.records())
    assert all(
        [panel.caption for panel in strip.panels]
        == next([p.caption for p in other.panels] for other in strips if other.role == strip.role)
        for strip in strips
    )
    return {strip.role: [panel.caption for panel in strip.panels] for strip in strips}


def test_frames_are_followed_through_what_is_there(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    assert captions(results) == {}  # nothing is rendered yet
    finish(results, "data/source", "data/validation", "source-only", "source-only/evaluation")
    assert captions(results) == {
        "source": ["source"],
        "validation": ["validation", "M(0)", "label"],
    }
    finish(results)
    assert captions(results) == {
        "source": ["source", "F(1)", "F(1) and back"],
        "target": ["target", "pseudo labels for M(1,1)"],
        "validation": ["validation", "M(0)", "M(1,0)", "M(1,1)", "label"],
    }
    strips = results.strips(results.records())
    assert [strip.frame for strip in strips if strip.role == "source"] == [
        "00000",
        "00001",
        "00003",
        "00005",
    ]


def test_every_picture_is_that_of_its_stage(tmp_path: Path) -> None:
    """The stages' pictures hold the stage's number, as a colour or as a class."""
    results = results_of(tmp_path)
    finish(results)
    numbers = {stage.name: number for number, stage in enumerate(results.stages)}
    pixels = {
        panel.caption: np.asarray(panel.image).flat[0]
        for strip in results.strips(results.records())
        for panel in strip.panels
    }
    assert pixels["F(1)"] == pixels["F(1) and back"] == numbers["k1/translated"]
    assert pixels["pseudo labels for M(1,1)"] == numbers["k1/pseudo-labels-1"]
    assert pixels["M(1,0)"] == numbers["k1/segmentation-0/evaluation"]


def test_results_that_are_not_of_the_configuration_are_marked_everywhere(tmp_path: Path) -> None:
    """After one stage is made with other settings: it fits, all that was made from it is stale."""
    finish(results_of(tmp_path))
    results = results_of(tmp_path, "translation.lr=0.1")
    finish(results, "k1/translator")
    page = page_of(results)
    notes = {row["stage"]: row.get("note") for row in rows_in(results)}
    assert notes == {
        "source-only": None,
        "k1/segmentation-0": "made from an earlier k1/translated",
        "k1/segmentation-1": "made from an earlier k1/translated",
    }
    shown = dict(re.findall(r'data-stage="([^"]*)"[^>]*>.*?class="note">(.*?)</span>', page))
    assert shown == {stage: note for stage, note in notes.items() if note}
    table = describe_results(with_gains(results.rows())).splitlines()
    assert table[2].endswith("2 s") and table[3].endswith("made from an earlier k1/translated")
    assert captions(results)["source"][1] == "F(1) (made from an earlier k1/translator)"


def test_a_network_made_again_by_itself_keeps_no_score_as_its_own(tmp_path: Path) -> None:
    finish(results_of(tmp_path))
    results = results_of(tmp_path, "segmentation.steps=4")
    finish(results, "source-only")
    notes = {row.stage: row.note for row in results.rows()}
    assert notes["source-only"] == "its score was made from an earlier source-only"
    finish(results, "source-only/evaluation")
    assert {row.stage: row.note for row in results.rows()}["source-only"] is None


def test_results_of_other_settings_are_marked_until_they_are_made_again(tmp_path: Path) -> None:
    finish(results_of(tmp_path))
    results = results_of(tmp_path, "seed=1")
    assert {row.note for row in results.rows()} == {"made with other settings"}
    assert "made with other settings" in page_of(results)
    finish(results)
    assert {row.note for row in results.rows()} == {None}
    assert 'class="note"' not in page_of(results)


def test_results_of_other_data_and_classes_are_no_error(tmp_path: Path) -> None:
    """What cannot be shown for the present configuration is left out."""
    finish(results_of(tmp_path))
    results = results_of(
        tmp_path, "data.label_space=cityscapes19", "data.source.scenes=40", "iterations=2"
    )
    page = page_of(results)
    assert rows_in(results) == [] and 'id="curves"' in page and "made with other" in page
    finish(results, "data/source")
    assert captions(results)["source"] == ["source"]  # of others there are translations


def test_without_validation_there_are_networks_and_no_scores(tmp_path: Path) -> None:
    results = results_of(tmp_path, "data.validation=null")
    finish(results)
    page = page_of(results)
    stages = ["source-only", "k1/segmentation-0", "k1/segmentation-1"]
    assert [(row["stage"], row["miou"], row["iou"]) for row in rows_in(results)] == [
        (stage, None, {}) for stage in stages
    ]
    assert 'class="main">not measured</td>' in page and "Nothing is measured" in page
    for section in ("pictures", "translations", "curves", "pseudo-labels", "stages"):
        assert f'id="{section}"' in page
    assert "<dt>validation</dt><dd>none</dd>" in page and set(captions(results)) == {
        "source",
        "target",
    }
    table = describe_results(with_gains(results.rows())).splitlines()
    assert [re.split(r"  +", line)[:3] for line in table[2:]] == [
        [stage, "not measured", "2 s"] for stage in stages
    ]
    later = results_of(tmp_path)  # evaluations alone are missing
    assert {stage.kind for stage in later.stages if not later.store.is_finished(stage)} == {
        "render",
        Evaluation.kind,
    }
    finish(later)
    assert all(row.miou is not None and row.note is None for row in later.rows())


def test_equal_stages_of_two_rounds_are_shown_as_such(tmp_path: Path) -> None:
    """Given one translator for both rounds, its second translations are the first ones."""
    (tmp_path / "translator.pt").write_bytes(b"any")
    given = ", ".join(f"k{k}/translator: {tmp_path / 'translator.pt'}" for k in (1, 2))
    results = results_of(tmp_path, "iterations=2", f"translation.checkpoints={{{given}}}")
    by_name = {stage.name: stage for stage in results.stages}
    finish(results, *(name for name in by_name if name != "k2/translated"))
    folder = results.store.folder
    results.store.take(by_name["k2/translated"], folder / "k1/translated")
    page = page_of(results)
    assert "the same as k1/translated" in page
    made = len(results.stages) - 1
    assert f'<dd class="small">sum over {made + 1} stages</dd>' in page
    assert sum(record.seconds for record in results.records()) == 2.0 * made
    assert captions(results)["source"] == [
        "source",
        "F(1)",
        "F(1) and back",
        "F(2)",
        "F(2) and back",
    ]


def test_given_translations_are_followed(tmp_path: Path) -> None:
    images = tmp_path / "given"
    images.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 32), (number, 0, 0)).save(images / f"{number:05d}.png")
    results = results_of(tmp_path, f"translation.images={images}")
    finish(results)
    strips = [strip for strip in results.strips(results.records()) if strip.role == "source"]
    assert [panel.caption for panel in strips[-1].panels] == [
        "source",
        "translated before the run",
    ]
    assert np.asarray(strips[-1].panels[1].image)[0, 0].tolist() == [5, 0, 0]
    assert "given translations" in page_of(results)


def test_tensorboard_has_a_point_for_each_network_whenever_it_is_logged(tmp_path: Path) -> None:
    """A run that goes on logs again what is finished; each stage is at its place in the loop."""
    results = results_of(tmp_path)
    before = ["source-only", "source-only/evaluation", "data/validation", "data/source"]
    finish(results, *before)
    with results.tracked(True) as track:
        finish(results)
        for stage in results.stages:
            if stage.name not in before:
                track(stage)
    folder = results.store.folder / "tensorboard" / "all-networks"
    log = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    rows = results.rows()
    assert [(event.step, event.value) for event in log.Scalars("mIoU/miou")] == [
        (step, pytest.approx(row.miou)) for step, row in enumerate(rows)
    ]
    (lost,) = log.Scalars("translation/lost")
    assert (lost.step, lost.value) == (0, pytest.approx(0.2))
    tags = log.Tags()
    assert "translation/recovered" not in tags["scalars"]  # it could not be measured
    assert {tag.partition("/")[0] for tag in tags["images"]} == {"source", "target", "validation"}


def test_a_silent_process_logs_nothing(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    finish(results, "source-only", "source-only/evaluation")
    with results.tracked(False) as track:
        for stage in results.stages:
            track(stage)
    assert not (results.store.folder / "tensorboard").exists()


def test_a_page_is_written_without_torch(tmp_path: Path) -> None:
    finish(results_of(tmp_path))
    code = (
        "import sys; from pathlib import Path; from tests.reports import test_results as t; "
        "loaded = 'torch' in sys.modules; t.page_of(t.results_of(Path(sys.argv[1]))); "
        "sys.exit('torch' in sys.modules and not loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120)
    assert done.returncode == 0
