"""A user's own network by its import path: what it must be, and that no file runs its code."""

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from bdl.domains.label_space import load_label_space
from bdl.runtime.config import SegmentationConfig
from bdl.runtime.errors import UserError
from bdl.segmentation.checkpoint import load_segmenter, save_segmenter
from bdl.segmentation.network_name import module_digest, module_file
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.compact import Compact
from bdl.segmentation.predictor import Predictor
from tests.helpers.network_list import images

SPACE = load_label_space("camvid11")
MODULE = """
import torch
from torch import nn

from bdl.segmentation.networks.compact import Compact


def plain(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))


def full_size(num_classes):
    return nn.Conv2d(3, num_classes, 3, padding=1)


class Strict(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 8, 8)

    def forward(self, images):
        if images.shape[-1] % 8 or images.shape[-2] % 8:
            raise RuntimeError("sides must be multiples of 8")
        return {"out": self.layer(images), "aux": None}


class Declared(nn.Conv2d):
    size_divisor = 16

    def __init__(self, num_classes):
        super().__init__(3, num_classes, 16, 16)


def own_segmenter(num_classes):
    return Compact(num_classes, width=4)


def three_channels(num_classes):
    return nn.Conv2d(3, 3, 1)


def normed(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Conv2d(3, num_classes, 1))


def softmax_twice(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.Softmax(1))


def flat(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))


def no_module(num_classes):
    return 7


def fails(num_classes):
    return nn.Conv2d(3, num_classes, -1)


def needs_more(num_classes):
    return nn.Linear(300, num_classes)
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Builds python:NAME:function of a module in the current folder."""
    name = f"mine_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda function: f"python:{name}:{function}"


@pytest.mark.parametrize(
    ("function", "rows", "columns"),
    [("plain", 17, 24), ("full_size", 33, 47), ("Strict", 5, 6), ("Declared", 3, 3)],
)
def test_any_module_from_images_to_logits(network, function, rows, columns):
    built = build_segmenter(network(function), 5).train()
    given = images(33, 47).requires_grad_()
    assert built.scores(given).shape == (2, 5, rows, columns)
    logits = built(given)
    assert logits.shape == (2, 5, 33, 47)
    logits.square().mean().backward()
    grouped = [p for group in built.parameter_groups() for p in group.parameters]
    assert grouped and all(p.grad is not None for p in grouped) and given.grad.abs().sum() > 0


def test_a_segmenter_is_taken_as_it_is(network):
    """But for batch norm, which is not folded into convolutions in an order that nobody knows."""
    built = build_segmenter(network("own_segmenter"), 5)
    assert isinstance(built, Compact) and not built.foldable and Compact.foldable


def test_a_batch_of_one_where_it_cannot_train(network):
    name = network("normed")
    built = build_segmenter(name, 5).train()
    with pytest.raises(UserError, match=f"segmentation.batch_size: {name} normalises .*=2 or"):
        built(images(64, 64, 1))


def test_trying_it_draws_nothing_and_changes_nothing(network):
    torch.manual_seed(0)
    build_segmenter(network("full_size"), 5)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.nn.Conv2d(3, 5, 3, padding=1)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("three_channels", {}, r"give logits \(N x 5 x h x w\); .* it gives 2 x 3 x 70 x 90"),
        ("softmax_twice", {}, "from 0 to 1, which sum to 1 .*: leave its last softmax out"),
        ("flat", {}, r"for images of 2 x 3 x 70 x 90 it gives 2 x 5"),
        ("needs_more", {}, r"it raises RuntimeError: mat1 and mat2"),
        ("no_module", {}, "gives a int, must give a torch.nn.Module"),
        ("fails", {}, "RuntimeError|ValueError"),
        ("unheard_of", {}, "has no function 'unheard_of'; it has plain, full_size"),
        ("plain", {"depth": 3}, r"segmentation.options: .*unexpected keyword argument 'depth'"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(network, function, options, message):
    with pytest.raises(UserError, match=message) as caught:
        build_segmenter(network(function), 5, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:no_such_module:build", "there is no module 'no_such_module'"),
        ("python:torch.no_such:build", r"there is no module 'torch\.no_such'"),
        ("python:build", "is not python:MODULE:FUNCTION"),
        ("python:a b:build", "is not python:MODULE:FUNCTION"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(UserError, match=message):
        build_segmenter(name, 5)


def test_a_file_never_says_what_code_is_to_run(network, tmp_path):
    name = network("plain")
    built = build_segmenter(name, SPACE.num_classes)
    file = tmp_path / "segmenter.pt"
    save_segmenter(file, built, SegmentationConfig(network=name), SPACE)
    for given in (None, network("full_size")):
        with pytest.raises(UserError, match=f"does not run by itself.*segmentation.network={name}"):
            load_segmenter(file, given)
    with pytest.raises(UserError, match="does not run by itself"):
        Predictor(file, device="cpu")
    loaded, _ = load_segmenter(file, name)
    for key, value in built.state_dict().items():
        assert loaded.state_dict()[key].equal(value)
    predictor = Predictor(file, device="cpu", own_network=name)
    assert predictor.network.num_classes == SPACE.num_classes
    assert predictor.users_code == module_digest(name)


def test_the_digest_is_of_the_modules_file_and_runs_nothing(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    (package / "inner.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    name = "python:some_package.inner:build"
    assert module_file(name) == package / "inner.py"
    first = module_digest(name)
    assert first == hashlib.sha256((package / "inner.py").read_bytes()).hexdigest()
    (package / "inner.py").write_text("changed = 1", encoding="utf-8")
    assert module_digest(name) != first


def test_names_are_read_without_torch():
    code = """
        import sys
        import bdl.segmentation.network_name
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 0


def test_a_module_beside_another_of_pythons_path_is_not_hidden(network):
    """The current folder comes last: a file named like a library replaces nothing."""
    Path("json.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    build_segmenter(network("plain"), 5)
    assert module_file("python:json:loads") != Path("json.py").resolve()
