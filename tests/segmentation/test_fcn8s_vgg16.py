"""FCN-8s: equality with a plain second implementation, the fixed upsampling, the groups."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bdl.segmentation.networks.fcn8s_vgg16 import FCN8sVGG16

CLASSES = 3
CONVOLUTIONS = [2, 2, 3, 3, 3]  # before each of the five poolings


@pytest.fixture(scope="module")
def network() -> FCN8sVGG16:
    """Random biases and score layers, such that all three scores matter."""
    torch.manual_seed(0)
    network = FCN8sVGG16(CLASSES).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.bias.uniform_(-1, 1)
        network.score_fr.weight.normal_(0, 0.01)
        network.score_pool4.weight.normal_(0, 3)
        network.score_pool3.weight.normal_(0, 300)
    return network


@pytest.fixture(scope="module")
def images() -> Tensor:
    # An odd number of rows: the poolings' rounding up makes a difference.
    return torch.rand(1, 3, 33, 50, generator=torch.Generator().manual_seed(1))


def kernel(channels: int, values: list[float]) -> Tensor:
    line = torch.tensor(values)
    weight = torch.zeros(channels, channels, len(values), len(values))
    for channel in range(channels):
        weight[channel, channel] = line[:, None] * line[None, :]
    return weight


TIMES_TWO = [0.25, 0.75, 0.75, 0.25]
TIMES_EIGHT = [(min(i, 15 - i) + 0.5) / 8 for i in range(16)]


def written_out(state: dict[str, Tensor], images: Tensor, use: tuple[int, ...]) -> Tensor:
    """The published network in evaluation, from its description and a state dict alone, with
    the scores of the maps at the strides in `use`."""

    def convolve(maps: Tensor, name: str, padding: int = 0) -> Tensor:
        return F.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    red, green, blue = (images * 255).unbind(1)
    maps = torch.stack([blue - 104.00698793, green - 116.66876762, red - 122.67891434], dim=1)
    pools = []
    for stage, count in enumerate(CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            maps = F.relu(convolve(maps, name, padding=100 if name == "conv1_1" else 1))
        maps = F.max_pool2d(maps, 2, stride=2, ceil_mode=True)
        pools.append(maps)
    maps = F.relu(convolve(maps, "fc6"))
    maps = F.relu(convolve(maps, "fc7"))
    channels = state["score_fr.weight"].shape[0]
    coarse = convolve(maps, "score_fr") * (32 in use)
    coarse = F.conv_transpose2d(coarse, kernel(channels, TIMES_TWO), stride=2)
    fine = convolve(0.01 * pools[3], "score_pool4") * (16 in use)
    coarse = coarse + fine[:, :, 5 : 5 + coarse.shape[2], 5 : 5 + coarse.shape[3]]
    coarse = F.conv_transpose2d(coarse, kernel(channels, TIMES_TWO), stride=2)
    fine = convolve(0.0001 * pools[2], "score_pool3") * (8 in use)
    coarse = coarse + fine[:, :, 9 : 9 + coarse.shape[2], 9 : 9 + coarse.shape[3]]
    whole = F.conv_transpose2d(coarse, kernel(channels, TIMES_EIGHT), stride=8)
    return whole[:, :, 31 : 31 + images.shape[2], 31 : 31 + images.shape[3]]


@pytest.mark.slow
@torch.no_grad()
def test_scores_equal_the_network_written_out(network, images):
    state = network.state_dict()
    expected = written_out(state, images, use=(8, 16, 32))
    scores = network.scores(images)
    assert scores.shape == (1, CLASSES, 33, 50)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert network(images).equal(scores)

    # The comparison is worth something: each of the three scores has a part in the output.
    for left_out in (8, 16, 32):
        rest = written_out(state, images, use=tuple({8, 16, 32} - {left_out}))
        assert (rest - expected).abs().max() > 0.02 * expected.abs().max(), left_out


@pytest.mark.parametrize("size", [(512, 1024), (720, 1280), (1, 1), (37, 211)])
def test_scores_have_the_size_of_any_image(size):
    with torch.device("meta"):
        network = FCN8sVGG16(19)
        assert network.scores(torch.empty(1, 3, *size)).shape == (1, 19, *size)


def test_upsampling_is_bilinear_and_fixed(network):
    for name, line in {
        "upscore2": TIMES_TWO,
        "upscore_pool4": TIMES_TWO,
        "upscore8": TIMES_EIGHT,
    }.items():
        layer = network.get_submodule(name)
        assert layer.bias is None and not layer.weight.requires_grad
        torch.testing.assert_close(layer.weight, kernel(CLASSES, line))
    ramp = torch.arange(6.0).expand(1, CLASSES, 6, 6)
    inside = network.upscore8(ramp)[..., 8:-8, 8:-8]
    steps = inside.diff(dim=-1)
    torch.testing.assert_close(steps, torch.full_like(steps, 1 / 8))


def test_keys_are_the_published_ones():
    with torch.device("meta"):
        keys = set(FCN8sVGG16(19).state_dict())
    convolutions = [
        f"conv{stage}_{number}"
        for stage, count in enumerate(CONVOLUTIONS, start=1)
        for number in range(1, count + 1)
    ]
    convolutions += ["fc6", "fc7", "score_fr", "score_pool3", "score_pool4"]
    expected = {f"{name}.{kind}" for name in convolutions for kind in ("weight", "bias")}
    expected |= {f"{name}.weight" for name in ("upscore2", "upscore8", "upscore_pool4")}
    assert keys == expected


def test_dropout_drops_whole_channels_twice_and_only_in_training(network, images):
    outputs = []
    handle = network.dropout.register_forward_hook(lambda *call: outputs.append(call[2]))
    try:
        with torch.no_grad():
            network.train()(images)
            network.eval()(images)
    finally:
        handle.remove()
        network.eval()

    def dropped(maps: Tensor) -> float:
        return (maps == 0).all(dim=3).all(dim=2).float().mean().item()

    assert len(outputs) == 4
    for in_training, in_evaluation in zip(outputs[:2], outputs[2:], strict=True):
        # Half of the channels, besides those that ReLU has silenced.
        assert dropped(in_training) == pytest.approx(0.5 + dropped(in_evaluation) / 2, abs=0.1)


def test_groups_are_weights_and_biases_without_the_upsampling():
    with torch.device("meta"):
        network = FCN8sVGG16(19)
    weights, biases = network.parameter_groups()
    assert (weights.multiplier, weights.head, biases.multiplier, biases.head) == (
        1,
        False,
        2,
        False,
    )
    assert {p.dim() for p in weights.parameters} == {4}
    assert {p.dim() for p in biases.parameters} == {1}
    grouped = Counter(id(p) for p in [*weights.parameters, *biases.parameters])
    assert grouped == Counter(
        id(p) for name, p in network.named_parameters() if not name.startswith("upscore")
    )
