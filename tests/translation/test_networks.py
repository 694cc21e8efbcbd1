"""The translator's networks: sizes, ranges, what a patch sees, how they start."""

import copy
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter

from bdl.runtime.compiling import require_compiler
from bdl.runtime.device import channels_last
from bdl.runtime.errors import UserError
from bdl.translation.networks import Generator, PatchDiscriminator, ResidualBlock, to_signed


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_sizes():
    """Numbers of parameters, each layer's counted by hand: weights and biases."""
    with torch.device("meta"):
        generator, discriminator = Generator(), PatchDiscriminator()
    down = (3 * 49 + 1) * 64 * 1 + (64 * 9 + 1) * 128 + (128 * 9 + 1) * 256
    blocks = 9 * 2 * (256 * 9 + 1) * 256
    up = (256 * 128 * 9 + 128) + (128 * 64 * 9 + 64) + (64 * 49 * 3 + 3)
    assert parameters(generator) == down + blocks + up == 11_378_179
    channels = [3, 64, 128, 256, 512, 1]
    expected = sum((i * 16 + 1) * o for i, o in itertools.pairwise(channels))
    assert parameters(discriminator) == expected == 2_764_737
    assert (len(generator.state_dict()), len(discriminator.state_dict())) == (48, 10)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(width=4, blocks=2)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(8, 41), width=st.integers(8, 41))
def test_any_size_keeps_its_size_and_range(generator, height, width):
    with torch.no_grad():
        output = generator(torch.rand(1, 3, height, width))
    assert output.shape == (1, 3, height, width)
    assert output.min() >= 0 and output.max() <= 1


@torch.no_grad()
def test_extreme_weights_stay_in_range(generator):
    loud = Generator(width=4, blocks=2)
    loud.load_state_dict({k: 1000 * v for k, v in generator.state_dict().items()})
    output = loud(torch.rand(1, 3, 16, 16))
    assert output.min() == 0 and output.max() == 1


@torch.no_grad()
def test_with_skip_it_starts_at_the_normalised_image():
    """As it begins, the output is tanh of half the image's own normalisation, and little else."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 40)
    made = Generator(width=4, blocks=1, skip=True)(images)
    deviation, mean = torch.std_mean(images, (2, 3), correction=0, keepdim=True)
    expected = (torch.tanh((images - mean) / deviation / 2) + 1) / 2
    assert (made - expected).abs().mean() < 0.05
    # Brightness and contrast of the input do not pass: they are what a translation changes.
    torch.testing.assert_close(
        Generator(width=4, blocks=0, skip=True).skip(images * 0.3 + 0.1),
        (images - mean) / deviation / 2,
        atol=1e-2,
        rtol=0,
    )


@torch.no_grad()
def test_sizes_that_strides_do_not_divide_are_reflected_to_the_right_and_below(generator):
    images = torch.rand(1, 3, 14, 17)
    padded = F.pad(images, (0, 3, 0, 2), mode="reflect")
    # By hand: the row after the last is the last but one, and so on.
    assert torch.equal(padded[..., 14, :17], images[..., 12, :])
    assert torch.equal(padded[..., :14, 19], images[..., :, 13])
    torch.testing.assert_close(generator(images), generator(padded)[..., :14, :17])


@torch.no_grad()
def test_generator_equals_the_network_written_out(generator):
    """From its description and a state dict alone; width 4, two blocks."""
    state = generator.state_dict()

    def norm(maps):
        variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt()

    def conv(maps, name, stride=1, padding=0, reflect=0):
        if reflect:
            maps = F.pad(maps, (reflect,) * 4, mode="reflect")
        weight, bias = state[f"model.{name}.weight"], state[f"model.{name}.bias"]
        return F.conv2d(maps, weight, bias, stride, padding)

    def up(maps, name):
        weight, bias = state[f"model.{name}.weight"], state[f"model.{name}.bias"]
        return F.conv_transpose2d(maps, weight, bias, 2, padding=1, output_padding=1)

    images = torch.rand(2, 3, 12, 16)
    maps = F.relu(norm(conv(2 * images - 1, 1, reflect=3)))
    maps = F.relu(norm(conv(maps, 4, stride=2, padding=1)))
    maps = F.relu(norm(conv(maps, 7, stride=2, padding=1)))
    assert maps.shape == (2, 16, 3, 4)
    for block in (10, 11):
        inner = F.relu(norm(conv(maps, f"{block}.conv_block.1", reflect=1)))
        maps = maps + norm(conv(inner, f"{block}.conv_block.5", reflect=1))
    maps = F.relu(norm(up(maps, 12)))
    maps = F.relu(norm(up(maps, 15)))
    expected = (conv(maps, 19, reflect=3).tanh() + 1) / 2
    torch.testing.assert_close(generator(images), expected)


@torch.no_grad()
def test_evaluation_is_training_and_images_are_independent(generator):
    """Instance norm uses each image's own statistics in both modes."""
    images = torch.rand(3, 3, 16, 16)
    in_training = generator.train()(images)
    torch.testing.assert_close(generator.eval()(images), in_training)
    torch.testing.assert_close(generator(images[1:2]), in_training[1:2])


def test_a_score_of_the_discriminator_sees_70_by_70_pixels():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=2)
    for module in discriminator.modules():
        if isinstance(module, nn.InstanceNorm2d):  # its statistics see the whole image
            module.forward = lambda maps: maps
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    scores = discriminator(images)
    assert scores.shape == (1, 1, 14, 14)
    scores[0, 0, 7, 7].backward()
    touched = images.grad[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70
    assert int(columns.max() - columns.min()) + 1 == 70


@pytest.mark.parametrize("side", [452, 256, 64])
def test_score_maps_of_the_discriminator(side):
    with torch.device("meta"):
        scores = PatchDiscriminator(width=4)(torch.empty(2, 3, side, side))
    assert scores.shape == (2, 1, side // 8 - 2, side // 8 - 2)


@torch.no_grad()
def test_discriminator_equals_the_network_written_out():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=4)
    state = discriminator.state_dict()
    images = torch.rand(2, 3, 40, 48)
    maps = 2 * images - 1
    for name, stride in ((0, 2), (2, 2), (5, 2), (8, 1), (11, 1)):
        maps = F.conv2d(maps, state[f"model.{name}.weight"], state[f"model.{name}.bias"], stride, 1)
        if name in (2, 5, 8):
            variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
            maps = (maps - mean) / (variance + 1e-5).sqrt()
        if name != 11:
            maps = torch.where(maps > 0, maps, 0.2 * maps)
    torch.testing.assert_close(discriminator(images), maps)


@pytest.mark.parametrize("make", [Generator, PatchDiscriminator])
def test_weights_start_from_a_normal_of_0_02(make):
    torch.manual_seed(0)
    network = make(width=32)
    weights = torch.cat([p.flatten() for n, p in network.named_parameters() if "weight" in n])
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    # Of a normal distribution 4.55 % lie beyond two standard deviations.
    assert (weights.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, abs=0.002)
    assert all(p.count_nonzero() == 0 for n, p in network.named_parameters() if "bias" in n)


def test_to_signed():
    assert to_signed(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1, -0.5, 1]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", [Generator, PatchDiscriminator])
def test_gradients_in_the_fast_layout_are_those_of_double_precision(kind, batch):
    """Of weights and input; torch's instance norm gets them wrong for one image on the CPU."""
    torch.manual_seed(0)
    network = kind(4)
    images = torch.rand(batch, 3, 64, 48)

    def gradients(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        images = images.clone(memory_format=torch.preserve_format).requires_grad_()
        network.zero_grad()
        output = network(images)
        places = torch.linspace(-1, 1, output.numel(), dtype=torch.float64)
        (output * places.view(output.shape).to(output.dtype)).sum().backward()
        learned = [images, *(p for p in network.parameters() if p.dim() > 1)]
        return torch.cat([tensor.grad.double().flatten() for tensor in learned])

    fast = gradients(channels_last(network), images.contiguous(memory_format=torch.channels_last))
    exact = gradients(
        copy.deepcopy(network).to(memory_format=torch.contiguous_format).double(), images.double()
    )
    assert (fast - exact).norm() < 1e-4 * exact.norm()


def learned(network: nn.Module, images: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the images and of all parameters."""
    network.zero_grad()
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    output = network(images)
    (output * weights).sum().backward()
    return [output.detach(), images.grad, *(p.grad for p in network.parameters())]


def require_close(some: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    """Up to rounding, which is all that there is of a bias's gradient before an instance norm."""
    most = max(float(tensor.abs().max()) for tensor in others)
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * most)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("kind", [Generator, PatchDiscriminator])
def test_compiled_networks_learn_as_others_do(monkeypatch, kind, images, layout):
    """In one piece each part, with instance norm written out; only traced."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.manual_seed(0)
    network = kind(4, 1) if kind is Generator else kind(4)
    network.to(memory_format=layout)
    given = torch.rand(images, 3, 32, 40).contiguous(memory_format=layout)
    weights = torch.randn_like(network(given))
    expected = learned(network, given, weights)
    network.compile(dynamic=False, fullgraph=True)
    require_close(learned(network, given, weights), expected)


def test_equal_blocks_of_both_generators_are_compiled_once(monkeypatch):
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    for _ in range(2):
        generator = Generator(4, blocks=3)
        generator.compile(dynamic=False, fullgraph=True)
        generator(torch.rand(1, 3, 16, 16))
    assert counter.frame_count == 3  # a block, and what lies before and after


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_machine_code_of_a_block_computes_as_the_block(layout):
    try:
        require_compiler(torch.device("cpu"))
    except UserError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    block = ResidualBlock(8).to(memory_format=layout)
    maps = torch.rand(1, 8, 12, 12).contiguous(memory_format=layout)
    weights = torch.randn_like(maps)
    expected = learned(block, maps, weights)
    block.compile(dynamic=False, fullgraph=True)
    require_close(learned(block, maps, weights), expected)
