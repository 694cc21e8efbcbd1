"""benchmarks/: the published ways and ours do the same; results have the documented keys."""

import argparse
import json
import sys

import pytest
import torch

from benchmarks import (
    common,
    depthwise,
    evaluation,
    export,
    live_page,
    network_step,
    pseudo_labels,
    recipe_step,
    rehearsal,
    replay,
    segmentation_step,
    steps,
    translation_step,
)
from benchmarks.common import PUBLISHED, Measured, Memory, compare, exit_status, in_turns


def options(**given) -> argparse.Namespace:
    return argparse.Namespace(device="cpu", turns=1, json=None, **given)


def require_same(found: dict[str, Measured], ours: str, relative: float = 1e-4) -> None:
    published = found[PUBLISHED].numbers
    assert found[ours].numbers == pytest.approx(published, rel=relative, abs=1e-6)


def once(module, ours: str, given: argparse.Namespace) -> dict[str, Measured]:
    works = {way: module.WAYS[way](given) for way in (PUBLISHED, ours)}
    return in_turns(works, 1, "cpu", warm_up=0)


def test_translation_step_has_the_losses_of_the_published_step():
    """Every term, so also that folding batch norm and joining passes change nothing."""
    found = once(translation_step, "ours, float32", options(crop=48, batch=1, width=4, blocks=1))
    assert len(found[PUBLISHED].numbers) == 12
    require_same(found, "ours, float32")


def test_segmentation_step_has_the_losses_of_the_published_step():
    found = once(segmentation_step, "ours, float32", options(source=[96, 64], target=[64, 64]))
    assert found[PUBLISHED].numbers.keys() == {
        "source",
        "pseudo_labels",
        "adversarial",
        "discriminator",
    }
    require_same(found, "ours, float32")


def test_pseudo_labels_have_exactly_the_published_thresholds():
    found = once(pseudo_labels, "ours", options(images=3, size=[64, 32], workers=0))
    assert found["ours"].numbers == found[PUBLISHED].numbers
    thresholds = set(found["ours"].numbers.values())
    assert len(thresholds) > 3  # not all of them 0 or the highest


def test_evaluation_counts_as_the_published_one():
    found = once(evaluation, "ours", options(images=2, size=[160, 96]))
    assert found["ours"].numbers == found[PUBLISHED].numbers
    assert 0 < found["ours"].numbers["hits"] < found["ours"].numbers["pixels"]


def test_depthwise_networks_have_the_loss_of_dilated_operators():
    given = options(backbone="tf_efficientnet_lite0", stride=8, batch=1, size=[96, 64])
    require_same(once(depthwise, "ours", given), "ours")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["translation", "segmentation"])
def test_replayed_and_computed_steps_are_told_apart(step):
    """On a CPU nothing is replayed, so that all agree, also over the new beginning."""
    small = ["translation.crop=[48,48]", "segmentation.augmentation.crop=[64,64]"]
    config = steps.recipe_config("demo", small, "cpu", "auto")
    given = options(step=step, steps=4)
    first, before, counted = replay.learn(config, given, replayed=False)
    second, _, _ = replay.learn(config, given, replayed=True)
    assert counted == 0
    assert set(replay.apart(first, second).values()) == {0.0}
    before.losses, before.state["optimizers"] = first.losses, first.state["optimizers"]
    assert replay.apart(first, before)["weights"] > 0


def test_a_recipes_step_is_extrapolated_from_two_small_ones(monkeypatch):
    """By a constant and a part for each pixel of the batch."""

    def measured(function, recipe, side, given, threads):
        return 5 + 2 * side**2, 1000 + 3 * side**2

    monkeypatch.setattr(recipe_step, "in_new_process", measured)
    made = recipe_step.of_recipe("gta5_cityscapes_dinov2_b", options(sizes=[10, 20]))
    assert made["batch"] == 8 and made["crop"] == [504, 504]
    assert made["seconds"] == pytest.approx(5 + 2 * 8 * 504**2)
    assert made["memory"] == pytest.approx(1000 + 3 * 8 * 504**2)


def test_export_writes_the_published_images():
    found = once(
        export, "ours, float32", options(images=2, size=[40, 32], width=4, blocks=1, workers=0)
    )
    require_same(found, "ours, float32")


def test_results_have_the_documented_keys(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        common, "memory_of", lambda way, given: Memory(2 * common.MB, 5 * common.MB)
    )
    ways = {
        PUBLISHED: lambda given: lambda: {"loss": torch.tensor(0.5)},
        "ours": lambda given: dict,
    }
    given = options()
    given.json = tmp_path / "result.json"
    places = ["--json", str(given.json), f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["anything.py", "--turns", "1", *places, "key=value"])
    compare("anything", ways, given)
    result = json.loads(given.json.read_text(encoding="utf-8"))
    assert result.keys() == {
        "benchmark", "date", "command", "settings", "machine", "versions", "ways",
        "ratio", "cpu_ratio",
    }  # fmt: skip
    assert result["command"] == "python -m benchmarks.anything --turns 1 key=value"
    assert result["settings"] == {"device": "cpu", "turns": 1}
    assert result["ways"][PUBLISHED].keys() == {
        "seconds", "turns", "first_seconds", "ratio", "cpu_seconds", "cpu_ratio",
        "memory_prepared", "memory_peak", "numbers",
    }  # fmt: skip
    assert result["ways"][PUBLISHED]["numbers"] == {"loss": 0.5}
    assert result["ratio"] == result["ways"]["ours"]["ratio"]
    assert "| ours |" in capsys.readouterr().out


def test_ways_take_turns_and_back():
    """So that what else the machine does slows all of them alike."""
    order = []
    in_turns({way: lambda way=way: order.append(way) or {} for way in "ab"}, 2, "cpu", warm_up=1)
    assert "".join(order) == "abbaab"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (live_page, ["--config", "nowhere"]),
        (network_step, ["nowhere"]),
        (recipe_step, ["nowhere"]),
        (rehearsal, ["--config", "nowhere"]),
        (replay, ["--step", "translation", "--recipe", "nowhere"]),
        (replay, ["--step", "translation", "iterations=many"]),
    ],
    ids=lambda given: getattr(given, "__name__", None) or " ".join(given),
)
def test_what_the_user_can_repair_is_one_line(module, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    assert exit_status(module.main) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words[-1].partition("=")[0] in error
