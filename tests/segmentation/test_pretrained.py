"""Torchvision's ImageNet weights in the published networks: the same output on the same image."""

import urllib.error

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet101, vgg16

from bdl import pipeline
from bdl.segmentation.networks.base import caffe_normalization
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from bdl.segmentation.pretrained import deeplab_v2_from_resnet101, fcn8s_from_vgg16

VGG_CONVOLUTIONS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}


def normalized_for_torchvision(images: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / std


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_first_layers_of_resnet_give_the_same_inside_the_border(images):
    torch.manual_seed(1)
    given = resnet101(weights=None).eval()
    given.bn1.running_mean.uniform_(-0.5, 0.5)
    given.bn1.running_var.uniform_(0.5, 2)
    given.bn1.weight.uniform_(0.5, 2)
    # Torchvision's file is older than the counters of batches.
    state = {k: v for k, v in given.state_dict().items() if not k.endswith("batches_tracked")}
    network = DeepLabV2(3)
    missing, unexpected = network.load_state_dict(deeplab_v2_from_resnet101(state), strict=False)
    assert unexpected == []
    assert missing and all(key.startswith("layer5.") for key in missing)

    network.eval()
    expected = given.bn1(given.conv1(normalized_for_torchvision(images)))
    found = network.bn1(network.conv1(network.normalize(images)))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert network.layer3[7].conv2.weight.equal(given.layer3[7].conv2.weight)


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in vgg16(weights=None).state_dict().items()}
    torch.manual_seed(2)
    state = {
        key: torch.randn(shape) if key.startswith("features") else torch.zeros(shape)
        for key, shape in shapes.items()
    }
    state["classifier.0.bias"] = torch.randn(4096)
    state["classifier.3.bias"] = torch.randn(4096)
    return state


def test_vgg_convolutions_go_where_they_belong(vgg):
    weights = fcn8s_from_vgg16(vgg)
    for name, layer in VGG_CONVOLUTIONS.items():
        if name != "conv1_1":
            assert weights[f"{name}.weight"].equal(vgg[f"features.{layer}.weight"])
            assert weights[f"{name}.bias"].equal(vgg[f"features.{layer}.bias"])
    with torch.device("meta"):
        network = FCN8sVGG16(19)
    missing, unexpected = network.load_state_dict(weights, strict=False, assign=True)
    assert unexpected == []
    assert missing and all(key.startswith(("score_", "upscore")) for key in missing)


def test_the_first_convolution_of_vgg_gives_the_same(vgg, images):
    weights = fcn8s_from_vgg16(vgg)
    expected = F.conv2d(
        normalized_for_torchvision(images), vgg["features.0.weight"], vgg["features.0.bias"]
    )
    found = F.conv2d(
        caffe_normalization()(images), weights["conv1_1.weight"], weights["conv1_1.bias"]
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_the_linear_layers_of_vgg_become_convolutions_that_compute_the_same(vgg):
    generator = torch.Generator().manual_seed(3)
    vgg = dict(vgg)
    for layer in (0, 3):  # a few rows only: the first layer alone has 100 million weights
        rows = torch.zeros_like(vgg[f"classifier.{layer}.weight"])
        rows[:5] = torch.randn(5, rows.shape[1], generator=generator)
        vgg[f"classifier.{layer}.weight"] = rows
    weights = fcn8s_from_vgg16(vgg)
    maps = torch.randn(1, 512, 7, 7, generator=generator)
    expected = F.linear(maps.flatten(1), vgg["classifier.0.weight"], vgg["classifier.0.bias"])
    found = F.conv2d(maps, weights["fc6.weight"], weights["fc6.bias"])
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-3)
    expected = F.linear(expected, vgg["classifier.3.weight"], vgg["classifier.3.bias"])
    found = F.conv2d(found, weights["fc7.weight"], weights["fc7.bias"])
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("network", ["deeplab_v2", "fcn8s_vgg16"])
def test_a_hub_out_of_reach_is_one_line_with_ways_out(tmp_path, monkeypatch, capsys, network):
    def unreachable(*call, **more):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    out = tmp_path / "out.pt"
    assert pipeline.main(["import-weights", "torchvision", str(out), "--network", network]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: https://download.pytorch.org/") and error.count("\n") == 1
    assert "no route to host" in error and str(tmp_path) in error
    assert not out.exists()


def test_networks_without_imagenet_weights(tmp_path, capsys):
    command = ["import-weights", "torchvision", str(tmp_path / "out.pt")]
    assert pipeline.main([*command, "--network", "output_discriminator"]) == 2
    assert "torchvision has no weights for 'output_discriminator'" in capsys.readouterr().err
