"""Dilated depthwise convolutions on parts of the map: what the dilated operator computes."""

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.depthwise import DepthwiseOnCpu, split_convolution


def with_gradients(compute, maps: Tensor, convolution: nn.Conv2d) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    made = compute(maps)
    weights = torch.linspace(-1, 1, made.numel()).view_as(made)
    inputs = [maps, *convolution.parameters()]
    return [made, *torch.autograd.grad((made * weights).sum(), inputs)]


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    step=st.integers(2, 4),
    kernel=st.sampled_from([(3, 3), (5, 5), (1, 3), (2, 2)]),
    rows=st.integers(0, 2),
    columns=st.integers(0, 2),
    bias=st.booleans(),
)
def test_parts_give_the_dilated_convolution_and_its_gradients(
    height, width, step, kernel, rows, columns, bias
):
    """Whatever the size, also where the dilation does not divide it."""
    padding = (step * rows, step * columns)
    reach = [step * (side - 1) + 1 for side in kernel]
    if height + 2 * padding[0] < reach[0] or width + 2 * padding[1] < reach[1]:
        return  # nothing to compute, for either
    torch.manual_seed(0)
    convolution = nn.Conv2d(
        3, 3, kernel, padding=padding, dilation=step, groups=3, bias=bias, dtype=torch.float64
    )
    maps = torch.randn(2, 3, height, width, dtype=torch.float64)
    found = with_gradients(lambda m: split_convolution(m, convolution), maps, convolution)
    expected = with_gradients(convolution, maps, convolution)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("options", "splits"),
    [
        ({"dilation": 2, "padding": 2}, True),
        ({"dilation": 4, "padding": 8}, True),
        ({"dilation": 1, "padding": 1}, False),
        ({"dilation": 2, "padding": 1}, False),
        ({"dilation": (1, 2), "padding": (1, 2)}, False),
        ({"dilation": 2, "padding": 2, "stride": 2}, False),
        ({"dilation": 2, "padding": "same"}, False),
        ({"dilation": 2, "padding": 2, "padding_mode": "reflect"}, False),
    ],
)
def test_what_does_not_split_stays_as_it_is(options, splits):
    convolution = nn.Conv2d(4, 4, 3, groups=4, **options)
    expected = convolution.forward
    replaced = DepthwiseOnCpu(convolution)
    assert replaced.splits == splits
    maps = torch.randn(1, 4, 9, 10)
    torch.testing.assert_close(replaced(maps), expected(maps))


def test_grouped_convolutions_that_are_not_depthwise_stay_dilated():
    """A ResNeXt at stride 8 has dilated convolutions of several channels a group."""
    convolution = nn.Conv2d(8, 8, 3, groups=2, dilation=2, padding=2)
    expected = convolution.forward
    replaced = DepthwiseOnCpu(convolution)
    assert not replaced.splits
    maps = torch.randn(1, 8, 9, 10)
    torch.testing.assert_close(replaced(maps), expected(maps))


def test_convolutions_that_pad_by_the_images_size_are_not_split():
    stem = timm.layers.create_conv2d(4, 4, 3, stride=2, padding="same", depthwise=True)
    assert not DepthwiseOnCpu(stem).splits


def test_a_network_computes_the_same_as_with_dilated_operators():
    torch.manual_seed(0)
    network = build_segmenter("timm:tf_efficientnet_lite0", 5, pretrained=False).eval()
    dilated = copy.deepcopy(network)
    for module in dilated.modules():
        vars(module).pop("forward", None)
    replaced = [m.forward for m in network.modules() if "forward" in vars(m)]
    assert sum(forward.splits for forward in replaced) == 10 and len(replaced) == 16
    images = torch.rand(1, 3, 72, 104)
    with torch.no_grad():
        torch.testing.assert_close(network(images), dilated(images))


def test_a_copy_computes_with_its_own_weights():
    """Folding batch norm copies convolutions."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2)
    convolution.forward = DepthwiseOnCpu(convolution)
    other = copy.deepcopy(convolution)
    nn.init.zeros_(other.weight)
    nn.init.ones_(other.bias)
    assert (other(torch.randn(1, 2, 6, 6)) == 1).all()


def test_exported_networks_keep_the_dilated_operator():
    network = build_segmenter("timm:tf_efficientnet_lite0", 5, pretrained=False).eval()
    program = torch.export.export(network, (torch.rand(1, 3, 64, 64),))
    dilations = [
        tuple(node.args[5])
        for part in program.graph_module.modules()  # what is outside autocast is one of its own
        if isinstance(part, torch.fx.GraphModule)
        for node in part.graph.nodes
        if node.target is torch.ops.aten.conv2d.default and len(node.args) > 5
    ]
    assert dilations.count((2, 2)) == 6  # of the depthwise ones
