"""A user's own network in the whole loop, and in the commands that take its result."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bdl.pipeline import main
from tests.helpers.predictor import photo

CODE = """
from torch import nn


def build(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))


def pooled(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Conv2d(3, num_classes, 1))
"""
FAILING = """
import torch
from torch import nn


class InTraining(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)

    def forward(self, images):
        maps = self.conv(images)
        return self.failing(maps) if self.training else maps


class Forward(InTraining):
    def failing(self, maps):
        raise KeyError("no such head")  # forward


class Backward(InTraining):
    def failing(self, maps):
        maps = maps.sigmoid()
        maps.mul_(2)
        return maps


class Pair(InTraining):
    def failing(self, maps):
        return maps, maps
"""
NETWORK = "python:some_users_network:build"


SAID = {
    "Forward": r"with 2 images: KeyError: 'no such head' \(some_users_network.py, line \d+\)",
    "Backward": "with 2 images: RuntimeError: .*modified by an inplace operation",
    "Pair": "with 2 images: .*'tuple'",
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module's file, in the current folder."""
    file = tmp_path / "some_users_network.py"
    file.write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield file
    sys.modules.pop("some_users_network", None)


def test_it_goes_through_the_loop_and_its_code_is_a_setting(tmp_path, module, command, capsys):
    settings = [f"out={tmp_path / 'run'}", f"segmentation.network={NETWORK}", "iterations=1"]
    assert command("run", *settings) == 0
    capsys.readouterr()
    assert command("run", *settings, "--dry-run") == 0
    assert "0 of " in capsys.readouterr().out
    module.write_text(CODE + "\n\nchanged = True\n", encoding="utf-8")
    assert command("run", *settings, "--dry-run") == 0
    assert "the code of segmentation.network was" in capsys.readouterr().out


def test_its_checkpoint_is_used_where_its_code_is_named(tmp_path, module, command, capsys):
    run = tmp_path / "run"
    settings = [f"out={run}", f"segmentation.network={NETWORK}", "segmentation.steps=1"]
    assert command("segment", *settings, "--k", "0") == 0
    # In a stage's place: the run's own network is the one that is named.
    given = f"segmentation.checkpoints.source-only={run / 'source-only/segmenter.pt'}"
    other = f"out={tmp_path / 'other'}"
    assert command("evaluate", *settings, other, given, "--k", "0") == 0
    capsys.readouterr()
    assert command("evaluate", other, given, "--k", "0", "out=third") == 2
    assert f"set segmentation.network={NETWORK}" in capsys.readouterr().err

    photo().save(tmp_path / "a.png")
    predict = ["predict", "--checkpoint", run, "--images", tmp_path / "a.png", "--device", "cpu"]
    predict = [*map(str, predict), "--out", str(tmp_path / "labels")]
    assert main(predict) == 2
    assert f"--own-network {NETWORK}" in capsys.readouterr().err
    assert main([*predict, "--own-network", NETWORK]) == 0
    assert (tmp_path / "labels/labels/a.png").is_file()
    capsys.readouterr()
    assert main([*predict, "--own-network", NETWORK]) == 0
    assert "done already: 1 photo" in capsys.readouterr().out

    out = tmp_path / "net.pt2"
    export = ["export-network", "--checkpoint", str(run), "--out", str(out)]
    assert main(export) == 2
    assert main([*export, "--own-network", NETWORK, "--free-size"]) == 0
    assert "of free batch, height, width" in capsys.readouterr().out
    images = torch.from_numpy(np.random.default_rng(0).random((3, 3, 40, 56), np.float32))
    assert torch.export.load(out).module()(images).shape == (3, 11, 40, 56)


def test_check_tells_that_it_cannot_train_on_one_image(tmp_path, module, command, capsys):
    settings = [f"out={tmp_path / 'run'}", "segmentation.network=python:some_users_network:pooled"]
    assert command("check", *settings) == 0
    capsys.readouterr()
    assert command("check", *settings, "segmentation.batch_size=1") == 2
    said = capsys.readouterr()
    assert "normalises over the images of a batch and cannot train on 1" in said.out + said.err


@pytest.mark.parametrize("network", SAID)
def test_what_fails_in_training_alone_is_said_of_the_network(
    tmp_path, module, command, capsys, network
):
    module.write_text(FAILING, encoding="utf-8")
    name = f"python:some_users_network:{network}"
    settings = [f"out={tmp_path / 'run'}", f"segmentation.network={name}"]
    expected = f"segmentation.network: {name}: {SAID[network]}"
    assert command("check", *settings) == 2
    assert re.search(f"problem: {expected}", capsys.readouterr().out)
    assert command("segment", *settings, "--k", "0") == 2
    assert re.search(f"error: {expected}", capsys.readouterr().err)
