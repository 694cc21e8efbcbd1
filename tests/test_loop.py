"""The loop end to end, on one tiny run that all of these tests look at."""

import json
import re
import shlex
import shutil
import sys
from collections import Counter
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdl.commands.parser import SINGLE, parse
from bdl.domains import label_space, loading
from bdl.domains.label_space import load_label_space
from bdl.pipeline import run_loop
from bdl.runtime.config import load_config
from bdl.runtime.console import duration
from bdl.segmentation import packaged_weights, train
from bdl.segmentation.checkpoint import load_segmenter
from bdl.segmentation.networks.base import upsample

CLASSES = 11
NETWORKS = {
    "source-only": (0, 0),
    "k1/segmentation-0": (1, 0),
    "k1/segmentation-1": (1, 1),
    "k2/segmentation-0": (2, 0),
    "k2/segmentation-1": (2, 1),
}
DATA = ["data/source", "data/target", "data/validation"]
M0 = ["source-only", "source-only/evaluation"]


def round_of(k: int) -> list[str]:
    return [
        f"k{k}/translator",
        f"k{k}/translated",
        f"k{k}/translated/measures",
        f"k{k}/segmentation-0",
        f"k{k}/segmentation-0/evaluation",
        f"k{k}/pseudo-labels-1",
        f"k{k}/segmentation-1",
        f"k{k}/segmentation-1/evaluation",
    ]


STAGES = [*DATA, *M0, *round_of(1), *round_of(2)]
MEASURES = ["k1/translated/measures", "k2/translated/measures"]
EVALUATIONS = [stage for stage in STAGES if stage.endswith("/evaluation")]
SELF_TRAINING = ["k1/pseudo-labels-1", "k1/segmentation-1", "k1/segmentation-1/evaluation"]


def planned(output: str) -> dict[str, str]:
    """What the printed plan says of each stage: "run" or "reuse"."""
    return {name: mark for mark, name in re.findall(r"^  (run|reuse) +(\S+)", output, re.MULTILINE)}


def to_run(output: str) -> list[str]:
    return [name for name, mark in planned(output).items() if mark == "run"]


def labels_at(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.mode == "P"
        return np.asarray(image)


def assert_same_weights(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different


# What a run leaves behind


def test_the_plan_is_algorithm_1(tiny_run):
    assert list(planned(tiny_run.output)) == STAGES
    assert to_run(tiny_run.output) == STAGES
    assert re.findall(r"^\[\d+/21\] (\S+)", tiny_run.output, re.MULTILINE) == STAGES


def test_results_have_a_row_for_each_network_in_order(tiny_run):
    rows = tiny_run.read("results.json")
    assert {row["stage"]: (row["k"], row["i"]) for row in rows} == NETWORKS
    names = load_label_space("camvid11").names
    for row in rows:
        assert tuple(row["iou"]) == names
        assert all(value is None or 0 <= value <= 1 for value in row["iou"].values())
        assert row["seconds"] > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_scores_are_those_of_the_predictions(tiny_run, network):
    """All validation images are followed here, so that the scores can be counted anew."""
    folder = tiny_run.folder / network / "evaluation"
    table = load_label_space("camvid11").table("train_id")
    confusion = np.zeros((CLASSES, CLASSES), int)
    for file in (tiny_run.folder / "data/validation/labels").glob("*.png"):
        truth = table[labels_at(file)]
        prediction = labels_at(folder / "predictions" / f"{int(file.stem):04d}.png")
        for label in range(CLASSES):
            for predicted in range(CLASSES):
                confusion[label, predicted] += ((truth == label) & (prediction == predicted)).sum()
    assert confusion.sum() > 1000
    metrics = tiny_run.read(f"{network}/evaluation/metrics.json")
    assert metrics["confusion"] == confusion.tolist()
    ious = []
    for train_id, iou in enumerate(metrics["iou"]):
        hits = confusion[train_id, train_id]
        union = confusion[train_id].sum() + confusion[:, train_id].sum() - hits
        assert iou == (None if union == 0 else pytest.approx(hits / union))
        ious += [] if union == 0 else [hits / union]
    row = next(row for row in tiny_run.read("results.json") if row["stage"] == network)
    assert row["miou"] == metrics["miou"] == pytest.approx(sum(ious) / len(ious))


def test_every_source_image_is_translated_at_its_size(tiny_run):
    sources = sorted((tiny_run.folder / "data/source/images").glob("*.png"))
    for k in (1, 2):
        translated = sorted((tiny_run.folder / f"k{k}/translated/images").glob("*.png"))
        assert [file.name for file in translated] == [file.name for file in sources]
        for before, after in zip(sources, translated, strict=True):
            with Image.open(before) as image, Image.open(after) as translation:
                assert translation.size == image.size and translation.mode == "RGB"
                assert np.abs(np.asarray(image).astype(int) - np.asarray(translation)).mean() > 1


def test_pseudo_labels_agree_with_their_metrics(tiny_run):
    for k in (1, 2):
        folder = tiny_run.folder / f"k{k}/pseudo-labels-1"
        metrics = tiny_run.read(f"k{k}/pseudo-labels-1/metrics.json")
        maps = [labels_at(file) for file in sorted((folder / "labels").glob("*.png"))]
        assert [item.shape for item in maps] == [(32, 64)] * 5
        kept = np.bincount(np.ravel(maps), minlength=256)
        assert kept[CLASSES:255].sum() == 0
        predicted = [item["predicted"] for item in metrics["classes"]]
        assert sum(predicted) == 5 * 32 * 64
        assert metrics["kept"] == pytest.approx(1 - kept[255] / sum(predicted))
        for train_id, item in enumerate(metrics["classes"]):
            assert kept[train_id] == pytest.approx(item["kept"] * item["predicted"])
            # Those from the threshold's place in the sorted order on, and its equals.
            assert kept[train_id] >= item["predicted"] - round(item["predicted"] / 2)
            assert 0 <= item["threshold"] <= 0.9


def test_no_labels_of_the_target_leave_the_renderer(tiny_run):
    assert not (tiny_run.folder / "data/target/labels").exists()


def test_manifests_say_what_was_made_from_what(tiny_run):
    manifests = {name: tiny_run.read(f"{name}/manifest.json") for name in STAGES}
    prints = {name: manifest["fingerprint"] for name, manifest in manifests.items()}
    assert len(set(prints.values())) == len(STAGES)
    for name, manifest in manifests.items():
        assert manifest["stage"] == name
        assert manifest["inputs"] == {given: prints[given] for given in manifest["inputs"]}
        assert (manifest["seed"], manifest["device"], manifest["processes"]) == (0, "cpu", 1)
        assert {"torch", "python"} <= manifest["versions"].keys()
        assert manifest["peak_memory"] > 10**8 or sys.platform == "win32"
    inputs = {name: set(manifest["inputs"]) for name, manifest in manifests.items()}
    assert inputs["source-only"] == {"data/source"}
    assert inputs["k1/translator"] == {"data/source", "data/target", "source-only"}
    assert inputs["k2/translator"] == {"data/source", "data/target", "k1/segmentation-1"}
    assert inputs["k2/translated"] == {"data/source", "k2/translator"}
    assert inputs["k2/translated/measures"] == {
        "data/source",
        "data/target",
        "k1/segmentation-1",
        "k2/translated",
        "k2/translator",
    }
    assert inputs["k2/segmentation-0"] == {"data/source", "data/target", "k2/translated"}
    assert inputs["k2/pseudo-labels-1"] == {"data/target", "k2/segmentation-0"}
    assert inputs["k2/segmentation-1"] == {
        "data/source",
        "data/target",
        "k2/translated",
        "k2/pseudo-labels-1",
    }
    assert inputs["k2/segmentation-1/evaluation"] == {"data/validation", "k2/segmentation-1"}


def test_nothing_unfinished_is_left(tiny_run):
    left = [
        file.name
        for pattern in ("checkpoint*", "*.bdl-partial", "*.npz")
        for file in tiny_run.folder.rglob(pattern)
    ]
    assert left == []


@pytest.mark.parametrize("stage", MEASURES)
def test_measures_are_those_of_the_images(tiny_run, stage):
    """All source images are measured here: what the frozen network sees is counted anew."""
    frozen = {"k1": "source-only", "k2": "k1/segmentation-1"}[stage[:2]]
    network, _ = load_segmenter(tiny_run.folder / frozen / "segmenter.pt")

    def seen(file: Path) -> np.ndarray:
        with Image.open(file) as image, torch.no_grad():
            values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
            maps = upsample(network.scores(values).softmax(1), values.shape[-2:])
            return maps.argmax(1)[0].numpy()

    table = load_label_space("camvid11").table("train_id")
    counts = np.zeros((CLASSES, CLASSES, CLASSES), int)
    translated = (tiny_run.folder / stage).parent / "images"
    for file in (tiny_run.folder / "data/source/images").glob("*.png"):
        label = table[labels_at(tiny_run.folder / "data/source/labels" / file.name)]
        known = label != 255
        np.add.at(counts, (label[known], seen(file)[known], seen(translated / file.name)[known]), 1)
    metrics = tiny_run.read(f"{stage}/metrics.json")
    drift = metrics["drift"]
    differing = np.abs(np.array(drift["on_translation"]) - counts.sum(1)).sum()
    differing += np.abs(np.array(drift["on_source"]) - counts.sum(2)).sum()
    assert differing <= 1e-3 * counts.sum()  # ties, summed in another order
    right, kept = (drift["on_source"], drift["of_right"])
    assert drift["right_on_source"] == np.trace(right) / counts.sum()
    assert drift["lost"] == pytest.approx(1 - np.trace(kept) / np.sum(kept))
    assert (metrics["images"], metrics["target_images"]) == (6, 5)
    assert -1 < metrics["ssim"] < 1 and 0 < metrics["reconstruction_l1"] < 1
    assert metrics["kid"]["source"] == tiny_run.read(f"{MEASURES[0]}/metrics.json")["kid"]["source"]
    assert metrics["kid"]["translated"] != metrics["kid"]["source"]


def test_without_the_package_kid_compares_scores_of_source_only(
    tiny_run, command, tmp_path, monkeypatch
):
    """The same network in both rounds, so that their distances compare."""
    run = tiny_run.copy(tmp_path / "run")
    monkeypatch.setattr(packaged_weights, "packaged_weights", lambda backbone: None)
    for k in (1, 2):
        assert command("measure", "--k", k, "--replace", f"out={run.folder}") == 0
    kids = [run.read(f"{stage}/metrics.json")["kid"] for stage in MEASURES]
    assert [kid["features"] for kid in kids] == ["scores of source-only, mean over the image"] * 2
    assert kids[0]["source"] == kids[1]["source"]
    assert "source-only" in run.read(f"{MEASURES[1]}/manifest.json")["inputs"]


def test_the_report_shows_every_network(tiny_run):
    report = (tiny_run.folder / "report.html").read_text(encoding="utf-8")
    assert all(network in report for network in NETWORKS)
    assert "data:image/png;base64," in report
    assert not re.search(r'(src|href)="(?!data:|#)', report)  # opens without a network


def test_each_training_starts_from_the_initial_weights(tiny_run):
    """M(1,0) of the second round is trained as in the first: on other images only."""
    curves = [
        tiny_run.read(f"{name}/metrics.json")["curves"]
        for name in ("k1/segmentation-0", "k2/segmentation-0")
    ]
    assert [row["step"] for row in curves[0]] == [row["step"] for row in curves[1]] == [3, 6, 9, 10]
    assert all({"source", "adversarial", "discriminator", "lr"} <= row.keys() for row in curves[0])
    assert "pseudo_labels" in tiny_run.read("k1/segmentation-1/metrics.json")["curves"][0]
    assert "adversarial" not in tiny_run.read("source-only/metrics.json")["curves"][0]


def test_the_translator_logs_all_ten_terms(tiny_run):
    row = tiny_run.read("k1/translator/metrics.json")["curves"][0]
    terms = ("adversarial", "cycle", "identity", "perceptual", "perceptual_reconstruction")
    assert {f"{term}_{direction}" for term in terms for direction in "ab"} <= row.keys()
    assert {"discriminator_a", "discriminator_b"} <= row.keys()


# Running again


def test_the_second_run_makes_nothing(tiny_run, command, tmp_path, capsys):
    run = tiny_run.copy(tmp_path / "run")
    files = [file for name in STAGES for file in (run.folder / name).rglob("*") if file.is_file()]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert command("run", f"out={run.folder}") == 0
    assert to_run(capsys.readouterr().out) == []
    assert {file: file.stat().st_mtime_ns for file in files} == before
    assert run.read("results.json") == tiny_run.read("results.json")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1", [*M0, *round_of(1), *round_of(2)]),
        ("iterations=1", []),
        ("iterations=3", round_of(3)),
        ("log_every=5", []),
        ("data.workers=1", []),
        ("checkpoint_every=1", []),
        ("precision=bf16-mixed", [*M0, *round_of(1), *round_of(2)]),
        ("segmentation.steps=11", [*M0, *round_of(1), *round_of(2)]),
        ("segmentation.adversarial.weight=0.5", None),
        ("translation.weights.cycle=5", [*round_of(1), *round_of(2)]),
        ("segmentation.pseudo_labels.quantile=0.4", [*SELF_TRAINING, *round_of(2)]),
        ("segmentation.pseudo_label_steps=8", [*SELF_TRAINING[1:], *round_of(2)]),
        ("segmentation.evaluation.size=[64,32]", EVALUATIONS),
        ("translation.measure_images=4", MEASURES),
        ("translation.measure_images=0", []),
        ("data.validation.scenes=4", ["data/validation", *EVALUATIONS]),
        ("data.target.scenes=6", ["data/target", *round_of(1), *round_of(2)]),
        ("data.source.scenes=7", ["data/source", *M0, *round_of(1), *round_of(2)]),
        ("init=previous", [*round_of(1)[3:], *round_of(2)]),
        ("init=adapted", [*round_of(1)[6:], *round_of(2)]),
        ("translation.init=previous", round_of(2)),
    ],
)
def test_a_changed_setting_runs_what_depends_on_it(tiny_run, command, capsys, override, expected):
    if expected is None:  # the first translator is made before the adversarial term comes in
        expected = [*round_of(1)[3:], *round_of(2)]
    assert command("run", "--dry-run", f"out={tiny_run.folder}", override) == 0
    assert to_run(capsys.readouterr().out) == expected


def test_the_plan_says_what_was_changed(tiny_run, command, capsys):
    command("run", "--dry-run", f"out={tiny_run.folder}", "translation.weights.cycle=5")
    output = capsys.readouterr().out
    assert re.search(r"k1/translator .*translation.weights.cycle was 10.0, is 5.0", output)
    assert re.search(r"k1/translated .*k1/translator changed", output)


@pytest.mark.parametrize(
    ("override", "stage"),
    [
        ("translation.method=fda", "k1/translated"),
        ("segmentation.checkpoints.source-only={run}/source-only/segmenter.pt", "source-only"),
    ],
)
def test_a_stage_of_another_kind_is_said_by_the_key_that_chose_it(
    tiny_run, command, capsys, override, stage
):
    key = override.partition("=")[0].removesuffix(".source-only")
    assert command("run", f"out={tiny_run.folder}", override.format(run=tiny_run.folder)) == 2
    assert f"{key} changed" in (said := capsys.readouterr().err) and "is null" not in said
    command("run", "--dry-run", f"out={tiny_run.folder}", override.format(run=tiny_run.folder))
    assert re.search(rf"{stage} .*{key} changed", capsys.readouterr().out)


def test_a_changed_setting_changes_what_follows_and_nothing_before(tiny_run, command, tmp_path):
    run = tiny_run.copy(tmp_path / "run")
    arguments = ["--replace", f"out={run.folder}", "segmentation.pseudo_labels.quantile=0"]
    assert command("run", *arguments) == 0
    changed = ("k1/segmentation-1", "k2/")
    kept = {k: v for k, v in tiny_run.weights().items() if not k.startswith(changed)}
    found = run.weights()
    assert_same_weights({k: v for k, v in found.items() if not k.startswith(changed)}, kept)
    name = "k1/segmentation-1: classifier.weight"
    assert not torch.equal(found[name], tiny_run.weights()[name])
    # Portion 0: the smallest confidence is the threshold, so everything is kept.
    assert run.read("k1/pseudo-labels-1/metrics.json")["kept"] == 1
    assert len(run.rows()) == 5


def test_forced_stages_run_with_all_that_depend_on_them_and_give_the_same(
    tiny_run, command, tmp_path, capsys
):
    run = tiny_run.copy(tmp_path / "run")
    assert command("run", "--from-stage", "k2/translated", f"out={run.folder}") == 0
    assert to_run(capsys.readouterr().out) == round_of(2)[1:]
    assert_same_weights(run.weights(), tiny_run.weights())
    assert run.rows() == tiny_run.rows()


def test_a_stage_that_lost_a_file_is_made_again_alone(tiny_run, command, tmp_path, capsys):
    """Also where its folder holds that of another stage, which stays."""
    run = tiny_run.copy(tmp_path / "run")
    (run.folder / "source-only/segmenter.pt").unlink()
    (run.folder / "k2/translated/images/00003.png").unlink()
    assert command("run", f"out={run.folder}") == 0
    assert to_run(capsys.readouterr().out) == ["source-only", "k2/translated"]
    assert_same_weights(run.weights(), tiny_run.weights())
    assert run.rows() == tiny_run.rows()
    assert command("run", "--dry-run", f"out={run.folder}") == 0
    assert to_run(capsys.readouterr().out) == []


def test_stages_one_by_one_are_the_loop(tiny_run, command, tmp_path, capsys):
    """In a folder where nothing is, the last of them names those before it that it needs."""
    folder = tmp_path / "run"
    assert command("segment", "--k", 1, "--i", 1, f"out={folder}") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: k1/segmentation-1 needs k1/pseudo-labels-1 (not made yet); run")
    listed = error.partition("; run first: ")[2].partition("; or make all: ")[0]
    words = [shlex.split(line) for line in listed.split(" && ")]
    starts = [next(i for i, word in enumerate(line) if word in SINGLE) for line in words]
    named = [parse(line[start:]) for line, start in zip(words, starts, strict=True)]
    assert [(one.command, one.k, getattr(one, "i", None)) for one in named] == [
        ("segment", 0, None),
        ("translate", 1, None),
        ("export", 1, None),
        ("segment", 1, 0),
        ("pseudo-label", 1, 1),
    ]
    assert all(one.overrides == [f"out={folder}"] for one in named)
    for stage in (
        "segment --k 0",
        "evaluate --k 0",
        "translate --k 1",
        "export --k 1",
        "measure --k 1",
        "segment --k 1 --i 0",
        "pseudo-label --k 1 --i 1",
        "segment --k 1 --i 1",
        "evaluate --k 1 --i 1",
    ):
        name, *arguments = stage.split()
        assert command(name, *arguments, f"out={folder}") == 0, capsys.readouterr().err
    run = type(tiny_run)(folder)
    first_round = {k: v for k, v in tiny_run.weights().items() if not k.startswith("k2/")}
    assert_same_weights(run.weights(), first_round)
    by_stage = {row["stage"]: row for row in tiny_run.rows()}
    assert run.rows() == [by_stage["source-only"], by_stage["k1/segmentation-1"]]


def test_a_single_stage_of_other_settings_marks_what_it_leaves_stale(
    tiny_run, command, tmp_path, capsys
):
    """In results.json and the table: what was made of the network that is gone, and its score."""
    run = tiny_run.copy(tmp_path / "run")
    arguments = ["--k", 1, "--i", 0, f"out={run.folder}", "segmentation.adversarial.width=8"]
    before = run.weights()
    assert command("segment", *arguments) == 2
    error = capsys.readouterr().err
    assert "segmentation.adversarial.width was 4, is 8" in error and "--replace" in error
    assert_same_weights(run.weights(), before)
    assert command("segment", *arguments, "--replace") == 0
    said = capsys.readouterr().out
    notes = {row["stage"]: row.get("note") for row in run.rows()}
    stale = "its score was made from an earlier k1/segmentation-0"
    assert notes["source-only"] is None and notes["k1/segmentation-0"] == stale
    assert "made from an earlier" in notes["k1/segmentation-1"]
    assert "made from an earlier" in notes["k2/segmentation-1"] and stale in said
    assert command("evaluate", *arguments, "--replace") == 0
    assert {row["stage"]: row.get("note") for row in run.rows()}["k1/segmentation-0"] is None


def test_a_forgotten_override_changes_nothing(tiny_run, command, tmp_path, capsys):
    """One line names the setting, the cost and the ways out; no file is touched."""
    run = tiny_run.copy(tmp_path / "run")
    files = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    assert command("run", f"out={run.folder}", "seed=1") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "seed was 0, is 1" in error
    assert "7 trained networks" in error and "--replace" in error and "out=" in error
    assert command("run", f"out={run.folder}", "seed=1", "--dry-run") == 0
    assert command("check", f"out={run.folder}", "seed=1") == 0
    assert capsys.readouterr().out.count("7 trained networks") == 2
    assert {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()} == files


def test_renaming_a_class_trains_nothing(tiny_run, command, tmp_path, capsys):
    run = tiny_run.copy(tmp_path / "run")
    space = Path(label_space.__file__).parent / "label_spaces/camvid11.yaml"
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text(space.read_text().replace("bicycle", "two wheels").replace("128", "127"))
    assert command("run", f"out={run.folder}", f"data.label_space={renamed}") == 0
    assert to_run(capsys.readouterr().out) == []
    for row, before in zip(run.rows(), tiny_run.rows(), strict=True):
        assert list(row["iou"].values()) == list(before["iou"].values())
        assert "two wheels" in row["iou"] and row["miou"] == before["miou"]


def test_equal_rounds_are_trained_once(tiny_run, command, tmp_path, capsys):
    """Images translated elsewhere and each training anew: round 2 repeats round 1."""
    given = tiny_run.folder / "k1/translated/images"
    arguments = [f"out={tmp_path / 'run'}", f"translation.images={given}"]
    assert command("run", *arguments) == 0
    run = type(tiny_run)(tmp_path / "run")
    weights = run.weights()
    for i in (0, 1):
        name = f"k2/segmentation-{i}"
        assert run.read(f"{name}/manifest.json")["same_as"] == f"k1/segmentation-{i}"
        assert torch.equal(
            weights[f"{name}: classifier.weight"],
            weights[f"k1/segmentation-{i}: classifier.weight"],
        )
    assert [row["stage"] for row in run.rows()] == list(NETWORKS)
    capsys.readouterr()
    assert command("run", *arguments) == 0
    assert to_run(capsys.readouterr().out) == []


# Variants of the loop


def test_source_only_never_sees_the_target(tiny_run, command, tmp_path):
    """Bitwise the same network, whatever the target is."""
    folder = tmp_path / "run"
    other = ["data.target.appearance=synthetic", "data.target.size=[48,48]"]
    assert command("segment", "--k", 0, f"out={folder}", *other) == 0
    assert not (folder / "data/target").exists()
    assert_same_weights(
        type(tiny_run)(folder).weights(),
        {k: v for k, v in tiny_run.weights().items() if k.startswith("source-only")},
    )


@pytest.mark.parametrize(
    ("init", "batches"),
    [("initial", [10, 20, 14]), ("adapted", [10, 20, 34]), ("previous", [10, 30, 44])],
)
def test_a_network_goes_on_from_the_one_before(tiny_run, command, tmp_path, capsys, init, batches):
    """With a rate of 0, weights stay where the training started; statistics go on from those of the
    network before. A step has a batch of the source and, but for source only, one of the target.
    That no step is replayed on a CPU is said once, not by each training."""
    folder = tmp_path / "run"
    arguments = [f"out={folder}", f"init={init}", "iterations=1", "segmentation.optimizer.lr=0"]
    assert command("run", *arguments, "replay=true") == 0
    assert capsys.readouterr().out.count("replay") == 1
    assert "replay=true takes" not in (folder / "report.html").read_text(encoding="utf-8")
    weights = type(tiny_run)(folder).weights()
    first = weights["source-only: classifier.weight"]
    stages = ["source-only", "k1/segmentation-0", "k1/segmentation-1"]
    assert all(torch.equal(weights[f"{stage}: classifier.weight"], first) for stage in stages)
    assert [int(weights[f"{stage}: stem.1.num_batches_tracked"]) for stage in stages] == batches


@pytest.mark.slow
def test_a_translator_goes_on_from_the_round_before_only_if_told_to(tiny_run, command, tmp_path):
    """With a rate of 0, weights stay where the training started, generators and
    discriminators alike; without `previous` each round starts from the same initial ones."""
    run = tiny_run.copy(tmp_path / "run")
    for init, equal in (("previous", True), ("initial", False)):
        arguments = ["translation.lr=0", f"translation.init={init}", "self_training_steps=0"]
        first = torch.load(tiny_run.folder / "k1/translator/translator.pt", weights_only=True)
        # Round 1 as it was trained, at its own rate; round 2 at a rate of 0.
        folder = run.folder / init
        folder.mkdir()
        given = tmp_path / f"{init}.pt"
        torch.save(first, given)
        checkpoint = f"translation.checkpoints={{k1/translator: {given.as_posix()}}}"
        assert command("run", f"out={folder}", checkpoint, *arguments) == 0
        second = torch.load(folder / "k2/translator/translator.pt", weights_only=True)
        for part in ("state", "discriminators"):
            name = next(iter(first[part]))
            assert torch.equal(second[part][name], first[part][name]) == equal


def test_originals_train_beside_their_translations_if_told_to(
    tiny_run, command, tmp_path, capsys, monkeypatch
):
    seen: dict[str, list[tuple[str, Path, Path]]] = {}
    train_segmenter = train.train_segmenter

    def spy(*arguments):
        run, data = arguments[0], arguments[7]
        samples = data.source.samples
        seen[run.title] = [(s.name, s.image.parent, s.label.parent) for s in samples]
        return train_segmenter(*arguments)

    monkeypatch.setattr(train, "train_segmenter", spy)
    run = tiny_run.copy(tmp_path / "run")
    arguments = [f"out={run.folder}", "iterations=1", "segmentation.originals=true"]
    assert command("run", *arguments, "--replace") == 0
    assert to_run(capsys.readouterr().out)[0] == "k1/segmentation-0"  # M(0) is what it was
    assert set(seen) == {"k1/segmentation-0", "k1/segmentation-1"}
    for samples in seen.values():
        names = sorted(name for name, _, _ in samples)
        assert names == sorted(2 * [f"{i:05d}" for i in range(6)])
        assert Counter(folder for _, folder, _ in samples) == {
            run.folder / "data/source/images": 6,
            run.folder / "k1/translated/images": 6,
        }
        assert {labels for _, _, labels in samples} == {run.folder / "data/source/labels"}


def test_initial_starts_from_the_initial_network(tiny_run):
    for name, value in tiny_run.weights().items():
        if name.endswith("stem.1.num_batches_tracked"):
            assert int(value) <= 20  # of one training: at most one of source and target a step


def test_given_translations_take_the_translators_place(tiny_run, command, tmp_path, capsys):
    """The loop's own translations, given as a folder, make the same first round."""
    given = tmp_path / "given"
    shutil.copytree(tiny_run.folder / "k1/translated/images", given)
    folder = tmp_path / "run"
    arguments = [f"out={folder}", "iterations=1", f"translation.images={given}"]
    assert command("run", *arguments) == 0
    stages = [*DATA, *M0, "translated/measures", *round_of(1)[3:]]
    assert list(planned(capsys.readouterr().out)) == stages
    expected = tiny_run.weights()
    expected = {
        k: v for k, v in expected.items() if k.startswith(("source-only", "k1/segmentation"))
    }
    run = type(tiny_run)(folder)
    assert_same_weights(run.weights(), expected)
    # Measured as the translator's own, but for the way back, of which nothing is known.
    of_loop = tiny_run.read("k1/translated/measures/metrics.json")
    given_away = {**of_loop, "reconstruction_l1": None}
    assert run.read("translated/measures/metrics.json") == given_away
    assert "given translations" in (folder / "report.html").read_text(encoding="utf-8")

    # Another image of the same name is another input.
    Image.new("RGB", (64, 32), "red").save(given / "00002.png")
    assert command("run", "--dry-run", *arguments) == 0
    assert to_run(capsys.readouterr().out) == stages[5:]


def test_missing_translations_are_named(tiny_run, command, tmp_path, capsys):
    given = tmp_path / "given"
    given.mkdir()
    run = tiny_run.copy(tmp_path / "run")
    assert command("run", f"out={run.folder}", f"translation.images={given}") == 2
    message = capsys.readouterr().err
    assert f"translation.images: {given} lacks 6 of 6 source images by name: 00000" in message
    assert len(message.splitlines()) == 1


def test_without_adversarial_term_and_pseudo_labels_the_target_stays_out(
    tiny_run, command, tmp_path
):
    """With translations given, M(1,0) then does not depend on the target in any way."""
    given = tiny_run.folder / "k1/translated/images"
    states = []
    for appearance in ("real", "synthetic"):
        folder = tmp_path / appearance
        arguments = [
            f"out={folder}",
            "iterations=1",
            "self_training_steps=0",
            f"translation.images={given}",
            "segmentation.adversarial.weight=0",
            f"data.target.appearance={appearance}",
        ]
        assert command("run", *arguments) == 0
        states.append(type(tiny_run)(folder).weights())
    assert_same_weights(*states)
    assert int(states[0]["k1/segmentation-0: stem.1.num_batches_tracked"]) == 10


def test_no_rounds_is_source_only(command, tmp_path, capsys):
    assert command("run", f"out={tmp_path / 'run'}", "iterations=0") == 0
    assert list(planned(capsys.readouterr().out))[-2:] == M0


def test_an_ablation_trains_what_its_runs_share_once(tiny_run, command, tmp_path, capsys):
    """K = 0 and K = 1: the second takes source only and the data over from the first, as the dry
    run says before it and, with all of it made, after it."""
    folder = tmp_path / "ablation"
    arguments = ["ablate", "--iterations", 0, 1, f"out={folder}"]

    def plans(*options: str, shared: int = 0) -> list[tuple[str, str]]:
        assert command(*arguments, *options) == 0
        said = capsys.readouterr().out
        assert said.count(f"of {folder}/as-configured/K0-N1/seed-0") == shared
        return re.findall(r"K = \d, N = 1, seed 0; (\d+) of (\d+) stages to run", said)

    assert plans("--dry-run", shared=5) == [("5", "5"), ("8", "13")] and not folder.exists()
    assert plans(shared=5) == [("5", "5"), ("8", "13")]
    assert plans("--dry-run") == [("0", "5"), ("0", "13")]
    cells = {k: type(tiny_run)(folder / f"as-configured/K{k}-N1/seed-0") for k in (0, 1)}
    expected = {k: v for k, v in tiny_run.weights().items() if not k.startswith("k2/")}
    assert_same_weights(cells[1].weights(), expected)
    assert cells[0].rows() == tiny_run.rows()[:1] and cells[1].rows() == tiny_run.rows()[:3]
    assert (folder / "ablation.md").is_file()


def test_a_row_of_an_ablation_keeps_the_rounds_that_it_sets(command, tmp_path, capsys):
    row = "no adversary: iterations=1 self_training_steps=0 segmentation.adversarial.weight=0"
    lists = ["--iterations", 0, 2, "--self-training-steps", 0, 1, "--seeds", 3, 4]
    arguments = ["ablate", "--dry-run", *lists, "--row", row, f"out={tmp_path / 'ablation'}"]
    assert command(*arguments) == 0
    output = capsys.readouterr().out
    as_listed = [f"K = {k}, N = {n}, seed {s}" for k, n in ((0, 0), (2, 0), (2, 1)) for s in (3, 4)]
    assert re.findall(r"as configured, (.*)", output) == as_listed
    assert re.findall(r"no adversary, (.*)", output) == [f"K = 1, N = 0, seed {s}" for s in (3, 4)]
    again = ["ablate", "--dry-run", *lists, 3]
    assert command(*again, "--row", row, f"out={tmp_path / 'ablation'}") == 0
    assert capsys.readouterr().out == output  # a run that is given twice is one
    assert command(*arguments, "--row", "mine: out=elsewhere") == 2
    assert "--row: 'mine' sets out" in capsys.readouterr().err


def test_an_ablation_says_which_rows_are_scored_otherwise(command, tmp_path, capsys):
    """In the terminal, and in the tables of every form that people read."""
    row = "--row", "smaller: segmentation.evaluation.size=[32,16]", "--row", "same: log_every=5"
    once = ["iterations=0", "segmentation.steps=1", f"out={tmp_path}"]
    assert command("ablate", *row, *once) == 0
    note = "smaller is scored on other validation images than as configured, or at another size."
    said = capsys.readouterr().out
    for text in (said, *((tmp_path / f"ablation.{kind}").read_text() for kind in ("md", "html"))):
        assert text.count(note) == 1 and "same is scored" not in text


def test_the_loop_from_python(tiny_run, tiny_config, tmp_path, capsys):
    """As on the command line: here all is finished, and the rows are those of results.json."""
    run = tiny_run.copy(tmp_path / "run")
    rows = run_loop(load_config(tiny_config, [f"out={run.folder}"]), verbosity=-1)
    assert rows == tiny_run.read("results.json") and len(rows) == len(NETWORKS)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_cache_of_images_changes_neither_plan_nor_results(tiny_run, command, tmp_path):
    run = tiny_run.copy(tmp_path / "run")
    cache = tmp_path / "cache"
    arguments = [f"out={run.folder}", f"data.cache={cache}"]
    assert command("segment", "--k", 1, "--i", 1, "--again", *arguments) == 0
    assert list(cache.glob("*/*.pixels"))
    for name, value in tiny_run.weights().items():
        assert torch.equal(value, run.weights()[name]), name
    assert run.rows() == tiny_run.rows()


def test_the_end_says_what_to_open_and_what_to_try(tiny_run):
    """The report, and commands that can be given as they are; of the stages' time the same as the
    report, the sum of what the records have."""
    records = [json.loads(file.read_text()) for file in tiny_run.folder.rglob("manifest.json")]
    took = duration(sum(record["seconds"] for record in records))
    assert f" (the run's {len(records)} stages: {took}); open" in tiny_run.output
    page = (tiny_run.folder / "report.html").read_text(encoding="utf-8")
    assert f'{took}</dd><dd class="small">sum over {len(records)} stages</dd>' in page
    assert f"; open {tiny_run.folder / 'report.html'} in a browser\nnext:\n" in tiny_run.output
    lines = tiny_run.output.partition("\nnext:\n")[2].splitlines()
    commands = [shlex.split(line.partition(":")[2])[1:] for line in lines]
    names = [next(word for word in words if not word.endswith(".py")) for words in commands]
    assert names == ["predict", "run", "compare", "init-config"]
    for words, name in zip(commands, names, strict=True):
        parse(words[words.index(name) :])
    photos = commands[0][commands[0].index("--images") + 1]
    assert len(list(Path(photos).iterdir())) == 3


def test_no_stage_loads_with_more_processes_than_asked_for(command, tmp_path, monkeypatch):
    """Whatever a stage reads: both domains and labelled images, several scales, pairs of images."""
    read, load = Counter(), loading._load

    def counted(sets, batches, workers):
        for batch in load(sets, batches, workers):
            if workers:  # else it reads a few images itself, to show them
                read[tuple(sets), len(active_children())] += 1
            yield batch

    monkeypatch.setattr(loading, "_load", counted)
    labelled = "{layout: streets, scenes: 2, size: [64, 32], appearance: real}"
    settings = ["iterations=1", "segmentation.steps=3", "segmentation.pseudo_label_steps=2"]
    settings += ["segmentation.pseudo_labels.scales=[1,0.5,1.5]", "translation.constant_epochs=1"]
    settings += [f"data.target_labelled={labelled}", "data.workers=1", f"out={tmp_path / 'run'}"]
    assert command("run", *settings) == 0
    assert {names for names, _ in read} == {
        ("source",),
        ("source", "target"),
        ("source", "target", "labelled"),
        ("source", "translated"),
        ("images",),
    }
    assert {processes for _, processes in read} == {1}
