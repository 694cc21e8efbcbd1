"""Devices and the draws that depend on nothing but their arguments."""

import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bdl.runtime.config import Config
from bdl.runtime.device import (
    channels_last,
    make_fabric,
    random_for,
    resolve_precision,
    seed_torch,
    sum_over_processes,
)
from bdl.runtime.errors import UserError


def test_draws_depend_on_seed_purpose_and_number():
    def draw(*arguments) -> list[int]:
        return random_for(*arguments).integers(0, 2**62, 4).tolist()

    first = draw(0, "source order", 3)
    np.random.seed(5)
    assert draw(0, "source order", 3) == first
    others = [draw(1, "source order", 3), draw(0, "target order", 3), draw(0, "source order", 4)]
    assert len({tuple(item) for item in [first, *others]}) == 4


def test_seeding_torch_makes_networks_alike():
    def network(seed: int, purpose: str) -> torch.Tensor:
        seed_torch(seed, purpose)
        return torch.nn.Linear(3, 3).weight

    assert torch.equal(network(0, "segmenter"), network(0, "segmenter"))
    assert not torch.equal(network(0, "segmenter"), network(0, "translator"))
    assert not torch.equal(network(0, "segmenter"), network(1, "segmenter"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_precisions_of_the_cpu(precision):
    config = Config(device="cpu", precision=precision)
    assert resolve_precision(config) == precision
    fabric = make_fabric(config)
    assert fabric.device.type == "cpu" and fabric.world_size == 1
    with fabric.autocast():
        product = torch.nn.Linear(4, 4)(torch.rand(2, 4))
    assert product.dtype == (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


def test_auto_precision_of_the_cpu_is_one_it_has():
    assert resolve_precision(Config(device="cpu", precision="auto")) in ("32-true", "bf16-mixed")


@pytest.mark.parametrize("device", ["mps", "auto"])
def test_auto_precision_of_apples_gpu_does_not_depend_on_its_cpu(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for of_cpu in (False, True):
        supported = SimpleNamespace(_is_mkldnn_bf16_supported=lambda of_cpu=of_cpu: of_cpu)
        monkeypatch.setattr(torch.ops, "mkldnn", supported)
        assert resolve_precision(Config(device=device, precision="auto")) == "32-true"


def test_auto_precision_needs_no_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert resolve_precision(Config(device="cpu", precision="auto")) == "32-true"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda"}, "device: 'cuda' is not available on this machine; use device=auto"),
        ({"device": "cpu", "precision": "16-mixed"}, "precision: 16-mixed needs a GPU"),
        ({"device": "auto", "precision": "16-mixed"}, "precision: 16-mixed needs a GPU"),
    ],
)
def test_what_the_machine_lacks_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        make_fabric(Config(**settings))


CALL = (
    "import sys; from bdl import pipeline; "
    "sys.exit(pipeline.main(['run', 'device=cpu', 'devices=2', 'translation.batch_size=2', "
    "'segmentation.batch_size=2', 'out=' + sys.argv[1]]))"
)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["argument", "standard input"])
def test_several_devices_need_a_script(tmp_path, way):
    """Which the other processes run, too; from an interpreter alone there is none."""
    arguments = ["-c", CALL] if way == "argument" else ["-"]
    done = subprocess.run(
        [sys.executable, *arguments, str(tmp_path / "run")],
        input=CALL if way == "standard input" else None,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: devices: is 2, but this Python runs no script .*\n", done.stderr)
    assert not (tmp_path / "run/source-only").exists()


def test_one_process_sums_to_itself(fabric):
    counts = torch.tensor([[1, 2**40]])
    assert torch.equal(sum_over_processes(fabric, counts), counts)


def test_channels_last_changes_the_layout_alone():
    network = torch.nn.Conv2d(4, 6, 3)
    before = network.weight.detach().clone()
    weight = channels_last(network).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_the_gpu_where_there_is_one():
    assert make_fabric(Config(device="auto")).device.type == "cuda"
