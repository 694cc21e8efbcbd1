"""A run with a few labelled images of the target, from its plan to its report."""

import contextlib
import io
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdl import pipeline
from bdl.domains.label_space import load_label_space
from bdl.domains.streets.scene import render_street
from bdl.runtime.stopping import Stopped
from tests.helpers.runs import RunFolder, unfinished

SIZE = (64, 32)
TARGET = 1_000_000  # the first scene of the target
M0, M10, Y, M11 = "source-only", "k1/segmentation-0", "k1/pseudo-labels-1", "k1/segmentation-1"
MADE_ALIKE = (M0, "k1/translator", "k1/translated")


def train_ids(number: int) -> np.ndarray:
    """The labels of a scene, by the classes of the tiny runs."""
    space = load_label_space("camvid11")
    return space.table("train_id")[render_street(number, SIZE, "real")[1]]


@pytest.fixture(scope="module")
def labelled(tiny_run, tmp_path_factory) -> Path:
    """Two of the target's five images under other names, and one that it does not have."""
    folder = tmp_path_factory.mktemp("labelled")
    for name, number in (("a", TARGET + 3), ("b", TARGET + 1), ("c", TARGET + 777)):
        image, labels = render_street(number, SIZE, "real")
        for kind, content in (("images", image), ("labels", labels)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(content).save(folder / kind / f"{name}.png")
        if number < TARGET + 5:
            file = tiny_run.folder / f"data/target/images/{number - TARGET:05d}.png"
            shutil.copy(file, folder / f"images/{name}.png")
    return folder


def settings_of(labelled: Path) -> list[str]:
    return [
        "iterations=1",
        "data.target_labelled.layout=streets",
        f"data.target_labelled.root={labelled}",
    ]


@pytest.fixture(scope="module")
def run(tiny_run, tiny_config, labelled, tmp_path_factory) -> RunFolder:
    """The tiny run, gone on with after labels were given."""
    made = tiny_run.copy(tmp_path_factory.mktemp("runs") / "labelled")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        arguments = ["--config", str(tiny_config), f"out={made.folder}", "--replace"]
        assert pipeline.main(["run", *arguments, *settings_of(labelled)]) == 0
    return RunFolder(made.folder, said.getvalue())


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def test_what_the_labels_do_not_reach_is_reused(run, tiny_run):
    for name in MADE_ALIKE:
        assert re.search(rf"reuse  {name} ", run.output), name
        assert run.read(f"{name}/manifest.json") == tiny_run.read(f"{name}/manifest.json")
    for name in (M10, Y, M11):
        assert re.search(rf"run    {name} ", run.output), name
        assert "data.target_labelled" in run.read(f"{name}/manifest.json")["settings"]
    for name in (M10, M11):
        row = run.read(f"{name}/metrics.json")["curves"][0]
        assert row["target_labels"] > 0
        batch = run.folder / name / "batch"
        assert pixels(batch / "target_labelled-0.png").shape == (SIZE[1], SIZE[0], 3)
        assert set(np.unique(pixels(batch / "target_labelled-0-labels.png"))) > {0}
    assert "target_labels" not in run.read(f"{M0}/metrics.json")["curves"][0]
    assert not list((run.folder / M0 / "batch").glob("target*"))


def test_label_maps_take_the_place_of_predictions(run):
    for name, number in (("00003", TARGET + 3), ("00001", TARGET + 1)):
        assert np.array_equal(pixels(run.folder / Y / f"labels/{name}.png"), train_ids(number))
    added = pixels(run.folder / Y / "labelled/c.png")
    assert np.array_equal(added, train_ids(TARGET + 777))
    metrics = run.read(f"{Y}/metrics.json")
    assert (metrics["images"], metrics["labelled"]) == (3, 3)
    # Thresholds and shares are those of the others alone.
    kept = np.zeros(11, int)
    for name in ("00000", "00002", "00004"):
        ids = pixels(run.folder / Y / f"labels/{name}.png")
        kept += np.bincount(ids[ids != 255], minlength=11)
    assert sum(one["predicted"] for one in metrics["classes"]) == 3 * SIZE[0] * SIZE[1]
    assert [round(one["kept"] * one["predicted"]) for one in metrics["classes"]] == kept.tolist()


def test_thresholds_do_not_depend_on_the_label_maps(run, tiny_config, labelled, tmp_path):
    """The same network, and maps that say something else: nothing changes elsewhere."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for file in (labelled / kind).iterdir():
            shutil.copy(file, tmp_path / kind / file.name)
            if kind == "labels":
                Image.fromarray(np.zeros_like(pixels(file))).save(tmp_path / kind / file.name)
    made = run.copy(tmp_path / "run")
    arguments = ["--config", str(tiny_config), f"out={made.folder}", "--replace", "iterations=1"]
    network = f"segmentation.checkpoints={{{M10}: {run.folder / M10 / 'segmenter.pt'}}}"
    for folder in (labelled, tmp_path):
        assert pipeline.main(["segment", "--k", "1", "--i", "0", *arguments, network]) == 0
        labels = settings_of(folder)
        assert pipeline.main(["pseudo-label", *arguments, network, *labels]) == 0
        assert made.read(f"{Y}/metrics.json") == run.read(f"{Y}/metrics.json")
        for name in ("00000", "00002", "00004"):
            file = f"{Y}/labels/{name}.png"
            assert np.array_equal(pixels(made.folder / file), pixels(run.folder / file))
    assert not pixels(made.folder / Y / "labels/00001.png").any()


def test_every_result_says_how_many_labels_are_behind_it(run, tiny_run, tmp_path, capsys):
    assert [row.get("target_labels") for row in run.rows()] == [None, 3, 3]
    assert not any("target_labels" in row for row in tiny_run.rows())
    told = [line for line in run.output.splitlines() if "with 3 target labels" in line]
    assert len(told) == 2 and "source-only" not in "".join(told)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    table = page.partition('id="results-table"')[2].partition("</table>")[0]
    assert table.count("with 3 target labels") == 2
    assert re.search(r"points from M\(0\), with 3 target labels", page)
    assert "<dt>target labelled</dt><dd>streets" in page and "Target: your labels" in page
    assert "target labels" not in (tiny_run.folder / "report.html").read_text(encoding="utf-8")

    page = tmp_path / "page.html"
    folders = [str(tiny_run.folder), str(run.folder)]
    assert pipeline.main(["compare", *folders, "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"target labels +0 +3\n", said)
    assert "learned from 3 labelled target images" in said
    assert page.read_text(encoding="utf-8").count("with 3 target labels") == 3

    images = ["--images", str(run.folder / "data/validation/images/00000.png")]
    arguments = ["--checkpoint", str(run.folder), *images, "--out", str(tmp_path / "out")]
    assert pipeline.main(["predict", *arguments]) == 0
    assert re.search(rf"takes {M11}, .*, with 3 target labels", capsys.readouterr().out)


def test_a_network_given_elsewhere_brings_its_labels(run, tiny_run, tiny_config, tmp_path):
    """What follows it has learned from them, too."""
    made = tiny_run.copy(tmp_path / "run")
    given = f"segmentation.checkpoints={{{M10}: {run.folder / M10 / 'segmenter.pt'}}}"
    arguments = ["--config", str(tiny_config), f"out={made.folder}", "--replace", "iterations=1"]
    assert pipeline.main(["run", *arguments, given]) == 0
    assert [row.get("target_labels") for row in made.rows()] == [None, 3, 3]


@pytest.mark.parametrize("stage", [M10, M11])
def test_stopped_and_gone_on_it_ends_as_in_one_go(
    run, tiny_config, labelled, tmp_path, monkeypatch, stage
):
    from bdl.segmentation.train import SegmentationStep

    made, taken, step = run.copy(tmp_path / "run"), [], SegmentationStep.__call__

    def stop_at_sixth(*arguments):
        if len(taken) == 5:
            raise Stopped(signal.SIGINT)
        taken.append(1)
        return step(*arguments)

    arguments = ["--config", str(tiny_config), f"out={made.folder}", *settings_of(labelled)]
    single = ["segment", "--k", "1", "--i", stage[-1], *arguments]
    monkeypatch.setattr(SegmentationStep, "__call__", stop_at_sixth)
    assert pipeline.main([*single, "--again"]) == 130
    assert (unfinished(made.folder, stage) / "checkpoint.json").is_file()
    monkeypatch.setattr(SegmentationStep, "__call__", step)
    assert pipeline.main(single) == 0
    for name, value in run.weights().items():
        if name.startswith(stage):
            assert torch.equal(made.weights()[name], value), name
    curves, whole = (one.read(f"{stage}/metrics.json")["curves"] for one in (made, run))
    assert curves == whole


def test_rows_of_an_ablation_share_what_sees_no_labels(
    tiny_run, tiny_config, labelled, tmp_path, capsys
):
    """Rows with none, one and three labels; and two of the target's rendered scenes."""
    (tmp_path / "one.txt").write_text("b.png\n")
    given = " ".join(settings_of(labelled)[1:])
    rows = [
        f"one: {given} data.target_labelled.list_file={tmp_path / 'one.txt'}",
        f"three: {given}",
        "rendered: data.target_labelled.layout=streets data.target_labelled.scenes=2 "
        "data.target_labelled.appearance=real",
    ]
    arguments = ["--config", str(tiny_config), "iterations=1", f"out={tmp_path / 'ablation'}"]
    for row in rows:
        arguments += ["--row", row]
    assert pipeline.main(["ablate", "--dry-run", *arguments]) == 0
    plans = re.split(r"\n(?=\S+.*, K = 1, N = 1, seed 0\n)", capsys.readouterr().out)
    for plan, name in zip(plans[-3:], ("one", "three", "rendered"), strict=True):
        assert plan.startswith(f"{name},")
        reused = re.findall(r"reuse  (\S+) ", plan)
        assert set(MADE_ALIKE) <= set(reused)
        made = re.findall(r"run    (\S+) ", plan)
        assert [stage for stage in made if not stage.endswith("evaluation")] == [
            *(["data/target_labelled"] if name == "rendered" else []),
            M10,
            Y,
            M11,
        ]


def test_rendered_labels_are_those_of_the_targets_first_scenes(tiny_run, tiny_config, tmp_path):
    made = tiny_run.copy(tmp_path / "run")
    labels = ["layout=streets", "scenes=2", "appearance=real"]
    arguments = [f"data.target_labelled.{setting}" for setting in labels]
    network = f"segmentation.checkpoints={{{M10}: {made.folder / M10 / 'segmenter.pt'}}}"
    common = ["--config", str(tiny_config), f"out={made.folder}", "--replace", "iterations=1"]
    assert pipeline.main(["segment", "--k", "1", "--i", "0", *common, *arguments, network]) == 0
    assert pipeline.main(["pseudo-label", *common, *arguments, network]) == 0
    for number in range(2):
        found = pixels(made.folder / Y / f"labels/{number:05d}.png")
        assert np.array_equal(found, train_ids(TARGET + number))
    metrics = made.read(f"{Y}/metrics.json")
    assert (metrics["images"], metrics["labelled"]) == (3, 2)


def test_all_of_the_target_may_be_labelled(tiny_run, tiny_config, tmp_path, capsys):
    """Then nothing is predicted, and no class is said to be missing."""
    made = tiny_run.copy(tmp_path / "run")
    labels = ["layout=streets", "scenes=5", "appearance=real"]
    arguments = [f"data.target_labelled.{setting}" for setting in labels]
    common = ["--config", str(tiny_config), f"out={made.folder}", "--replace", "iterations=1"]
    assert pipeline.main(["run", *common, *arguments]) == 0
    assert "never predicted" not in capsys.readouterr().out
    metrics = json.loads((made.folder / Y / "metrics.json").read_text())
    assert (metrics["images"], metrics["labelled"], metrics["kept"]) == (0, 5, 0.0)


def test_validation_images_that_another_run_rendered_teach_nothing(
    tiny_run, tiny_config, tmp_path, capsys
):
    """The run's own are rendered only after its plan was made."""
    few = settings_of(tiny_run.folder / "data/validation")
    arguments = ["--config", str(tiny_config), f"out={tmp_path / 'run'}"]
    assert pipeline.main(["run", *arguments, *few]) == 2
    assert "is the validation image" in capsys.readouterr().err
    assert not (tmp_path / "run/k1/segmentation-0").exists()
