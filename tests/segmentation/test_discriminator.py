"""The output discriminator: equality with a plain second implementation, its sizes."""

import pytest
import torch
import torch.nn.functional as F

from bdl.segmentation.networks.discriminator import OutputDiscriminator


@pytest.mark.parametrize("width", [4, 8])
@torch.no_grad()
def test_logits_equal_the_network_written_out(width):
    torch.manual_seed(0)
    discriminator = OutputDiscriminator(7, width)
    probabilities = torch.rand(2, 7, 65, 97).softmax(1)
    state = discriminator.state_dict()
    maps = probabilities
    for name in ("conv1", "conv2", "conv3", "conv4"):
        maps = F.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1)
        maps = torch.where(maps > 0, maps, 0.2 * maps)
    expected = F.conv2d(maps, state["classifier.weight"], state["classifier.bias"], 2, 1)
    logits = discriminator(probabilities)
    assert logits.shape == (2, 1, 2, 3)
    torch.testing.assert_close(logits, expected)


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        state = OutputDiscriminator(19).state_dict()
    channels = [19, 64, 128, 256, 512, 1]
    expected = {}
    names = ("conv1", "conv2", "conv3", "conv4", "classifier")
    for name, inputs, outputs in zip(names, channels, channels[1:], strict=False):
        expected[f"{name}.weight"] = (outputs, inputs, 4, 4)
        expected[f"{name}.bias"] = (outputs,)
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


def test_gradient_reaches_the_segmentation_unchanged_by_the_call():
    discriminator = OutputDiscriminator(3, width=4)
    probabilities = torch.rand(1, 3, 32, 64).softmax(1).requires_grad_()
    before = probabilities.detach().clone()
    discriminator(probabilities).sum().backward()
    assert probabilities.detach().equal(before)
    assert probabilities.grad is not None and probabilities.grad.abs().max() > 0
