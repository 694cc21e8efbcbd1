"""DeepLab-v2: equality with a plain second implementation, and what training may change."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet101

from bdl.runtime.errors import UserError
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2

CLASSES = 5
BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
STRIDES = {"layer1": 1, "layer2": 2, "layer3": 1, "layer4": 1}
DILATIONS = {"layer1": 1, "layer2": 1, "layer3": 2, "layer4": 4}


@pytest.fixture(scope="module")
def network() -> DeepLabV2:
    """Random weights and statistics, so that no norm is the identity and no bias is zero."""
    torch.manual_seed(0)
    network = DeepLabV2(CLASSES).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.3, 0.9)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        for branch in network.layer5.conv2d_list:
            branch.bias.uniform_(-1, 1)
    return network


@pytest.fixture(scope="module")
def images() -> Tensor:
    # 32 rows: one of the sizes at which rounding up in the pooling makes a difference.
    return torch.rand(2, 3, 32, 49, generator=torch.Generator().manual_seed(1))


def written_out(state: dict[str, Tensor], images: Tensor, branches: int) -> Tensor:
    """The published network in evaluation, from its description and a state dict alone."""

    def norm(maps: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / (variance + 1e-5).sqrt()
        shift = state[f"{name}.bias"] - mean * scale
        return maps * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    red, green, blue = (images * 255).unbind(1)
    maps = torch.stack([blue - 104.00698793, green - 116.66876762, red - 122.67891434], dim=1)
    maps = F.conv2d(maps, state["conv1.weight"], stride=2, padding=3)
    maps = F.relu(norm(maps, "bn1"))
    maps = F.max_pool2d(maps, 3, stride=2, padding=1, ceil_mode=True)
    for layer, blocks in BLOCKS.items():
        for number in range(blocks):
            name = f"{layer}.{number}"
            stride = STRIDES[layer] if number == 0 else 1
            dilation = DILATIONS[layer]
            inner = F.conv2d(maps, state[f"{name}.conv1.weight"], stride=stride)
            inner = F.relu(norm(inner, f"{name}.bn1"))
            inner = F.conv2d(
                inner, state[f"{name}.conv2.weight"], padding=dilation, dilation=dilation
            )
            inner = F.relu(norm(inner, f"{name}.bn2"))
            inner = norm(F.conv2d(inner, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if number == 0:
                maps = F.conv2d(maps, state[f"{name}.downsample.0.weight"], stride=stride)
                maps = norm(maps, f"{name}.downsample.1")
            maps = F.relu(maps + inner)
    total = torch.zeros(())
    for number, dilation in list(enumerate([6, 12, 18, 24]))[:branches]:
        name = f"layer5.conv2d_list.{number}"
        total = total + F.conv2d(
            maps,
            state[f"{name}.weight"],
            state[f"{name}.bias"],
            padding=dilation,
            dilation=dilation,
        )
    return total


@pytest.mark.parametrize("branches", [2, 4])
@torch.no_grad()
def test_scores_equal_the_network_written_out(network, images, branches):
    network.layer5.branches, before = branches, network.layer5.branches
    scores = network.scores(images)
    network.layer5.branches = before
    expected = written_out(network.state_dict(), images, branches)
    assert scores.shape == expected.shape == (2, CLASSES, 5, 7)
    assert expected.std() > 0.1
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_forward_is_the_scores_upsampled_to_the_corners(network, images):
    scores, logits = network.scores(images), network(images)
    assert logits.shape == (2, CLASSES, 32, 49)
    torch.testing.assert_close(logits[..., ::31, ::48], scores[..., ::4, ::6])


@pytest.mark.parametrize(
    ("size", "score_size"),
    [((512, 1024), (65, 129)), ((720, 1280), (91, 161)), ((452, 452), (57, 57))],
)
def test_score_map_sizes_of_the_published_network(size, score_size):
    with torch.device("meta"):
        scores = DeepLabV2(19).scores(torch.empty(1, 3, *size))
    assert scores.shape == (1, 19, *score_size)


def test_state_dict_is_torchvisions_and_the_head():
    with torch.device("meta"):
        state = DeepLabV2(19, branches=2).state_dict()
        backbone = resnet101(weights=None).state_dict()
    head = {
        f"layer5.conv2d_list.{branch}.{kind}": shape
        for branch in range(4)
        for kind, shape in (("weight", (19, 2048, 3, 3)), ("bias", (19,)))
    }
    expected = {key: value.shape for key, value in backbone.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in state.items()} == expected | head


def test_training_moves_statistics_but_neither_scale_nor_shift(images):
    torch.manual_seed(2)
    network = DeepLabV2(CLASSES).train()
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    affine = {n: (m.weight.clone(), m.bias.clone()) for n, m in norms.items()}
    optimizer = torch.optim.SGD(
        [{"params": group.parameters} for group in network.parameter_groups()],
        lr=0.01,
        weight_decay=0.1,
    )
    convolved = network.conv1(network.normalize(images))
    network(images).square().mean().backward()
    optimizer.step()

    expected = 0.1 * convolved.mean(dim=(0, 2, 3))  # momentum 0.1, from 0
    torch.testing.assert_close(network.bn1.running_mean, expected, rtol=1e-4, atol=1e-4)
    assert len(norms) == 104
    for name, norm in norms.items():
        assert not norm.weight.requires_grad and not norm.bias.requires_grad
        assert norm.weight.equal(affine[name][0]) and norm.bias.equal(affine[name][1])
        assert norm.running_mean.abs().max() > 0, name

    statistics = network.bn1.running_mean.clone()
    with torch.no_grad():
        network.eval()(images)
    assert network.bn1.running_mean.equal(statistics)


def test_two_branches_leave_the_others_untrained(images):
    network = DeepLabV2(CLASSES, branches=2)
    network.eval()(images).sum().backward()
    with_gradient = [branch.weight.grad is not None for branch in network.layer5.conv2d_list]
    assert with_gradient == [True, True, False, False]
    head = network.parameter_groups()[-1]
    assert head.head and len(head.parameters) == 4
    assert all(parameter.grad is not None for parameter in head.parameters)


@pytest.mark.parametrize("branches", [0, 1, 3, 5])
def test_other_numbers_of_branches_are_refused(branches):
    with pytest.raises(UserError, match=f"branches: is {branches}, must be 2 or 4"):
        build_segmenter("deeplab_v2", CLASSES, branches=branches)


def test_head_is_initialised_as_published():
    torch.manual_seed(3)
    for branch in DeepLabV2(19).layer5.conv2d_list:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.01)
        assert branch.weight.mean().item() == pytest.approx(0, abs=1e-4)
        assert branch.bias.count_nonzero() == 0


@pytest.mark.parametrize("rates", ["printed", "effective"])
def test_groups_hold_every_trainable_parameter_once(rates):
    with torch.device("meta"):
        network = DeepLabV2(19)
    grouped = Counter(id(p) for group in network.parameter_groups(rates) for p in group.parameters)
    assert grouped == Counter(id(p) for p in network.parameters() if p.requires_grad)


def test_printed_rates():
    with torch.device("meta"):
        network = DeepLabV2(19)
    body, head = network.parameter_groups("printed")
    assert (body.multiplier, body.head, head.multiplier, head.head) == (1, False, 1, True)
    assert {id(p) for p in head.parameters} == {id(p) for p in network.layer5.parameters()}


def test_effective_rates_count_the_published_optimizers_entries():
    with torch.device("meta"):
        network = DeepLabV2(19)
    # The published loop: every submodule of every part gives all the parameters below it.
    parts = [network.conv1, network.layer1, network.layer2, network.layer3, network.layer4]
    entries = Counter(
        id(parameter)
        for part in parts
        for module in part.modules()
        for parameter in module.parameters()
        if parameter.requires_grad
    )
    groups = network.parameter_groups("effective")
    body = {id(p): group.multiplier for group in groups if not group.head for p in group.parameters}
    assert body == entries
    assert body[id(network.conv1.weight)] == 1
    assert body[id(network.layer3[5].conv2.weight)] == 3
    assert body[id(network.layer2[0].downsample[0].weight)] == 4
    assert [group.multiplier for group in groups if group.head] == [1]


def test_unknown_rates_are_refused():
    with torch.device("meta"), pytest.raises(ValueError, match="'paper'"):
        DeepLabV2(19).parameter_groups("paper")
