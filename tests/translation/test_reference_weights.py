"""Import of published translators: statistics of the instance norms dropped, nothing else."""

import pytest
import torch
from torch import Tensor, nn

from bdl.runtime.errors import UserError
from bdl.translation.networks import Generator, PatchDiscriminator
from bdl.translation.reference_weights import convert, load_reference


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator()


@pytest.fixture(scope="module")
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator()


def as_published(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network when its instance norms track statistics."""
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            state[f"{name}.running_mean"] = torch.zeros(module.num_features)
            state[f"{name}.running_var"] = torch.ones(module.num_features)
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return state


def assert_same(converted: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(converted) == list(expected)
    for key, value in expected.items():
        assert converted[key].dtype == torch.float32 and converted[key].equal(value), key


@pytest.mark.parametrize(
    ("name", "published_keys", "keys"), [("generator", 117, 48), ("discriminator", 19, 10)]
)
def test_the_published_number_of_keys_becomes_ours(request, name, published_keys, keys):
    network = request.getfixturevalue(name)
    published = as_published(network)
    assert len(published) == published_keys
    converted = convert({f"module.{key}": value for key, value in published.items()}, name)
    assert len(converted) == keys
    assert_same(converted, network.state_dict())


def test_convolutions_are_where_the_public_code_has_them():
    with torch.device("meta"):
        generator, discriminator = Generator().state_dict(), PatchDiscriminator().state_dict()
    plain = {1: (64, 3, 7, 7), 4: (128, 64, 3, 3), 7: (256, 128, 3, 3)}
    plain |= {19: (256, 128, 3, 3), 22: (128, 64, 3, 3), 26: (3, 64, 7, 7)}
    expected = {f"model.{number}": shape for number, shape in plain.items()}
    for block in range(10, 19):
        for number in (1, 5):
            expected[f"model.{block}.conv_block.{number}"] = (256, 256, 3, 3)
    found = {k.removesuffix(".weight"): tuple(v.shape) for k, v in generator.items() if v.dim() > 1}
    assert found == expected
    widths = {0: (64, 3), 2: (128, 64), 5: (256, 128), 8: (512, 256), 11: (1, 512)}
    assert {k: tuple(v.shape) for k, v in discriminator.items() if v.dim() > 1} == {
        f"model.{number}.weight": (*channels, 4, 4) for number, channels in widths.items()
    }


def test_without_statistics_and_in_half_precision(discriminator):
    state = discriminator.state_dict()
    halved = {key: value.half() for key, value in state.items()}
    expected = {key: value.half().float() for key, value in state.items()}
    assert_same(convert(halved, "discriminator"), expected)


def test_statistics_that_belong_to_no_instance_norm_are_refused(discriminator):
    published = as_published(discriminator) | {"model.2.running_mean": torch.zeros(128)}
    with pytest.raises(ValueError, match=r"left over: model.2.running_mean$"):
        convert(published, "discriminator")


def test_a_generator_of_six_blocks_is_refused():
    with torch.device("meta"):
        published = as_published(Generator(blocks=6))
    with pytest.raises(
        ValueError, match=r"left over: model.16.weight.*missing: model.16.conv_block"
    ):
        convert(published, "generator")


def test_another_width_is_refused():
    with torch.device("meta"):
        published = as_published(PatchDiscriminator(width=32))
    with pytest.raises(ValueError, match=r"of another shape: model.0.weight \(32, 3, 4, 4\)"):
        convert(published, "discriminator")


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no reference 'unet'; there are generator, discriminator"):
        convert({}, "unet")


def test_files(discriminator, tmp_path):
    file = tmp_path / "latest_net_D_A.pth"
    torch.save(as_published(discriminator), file)
    assert_same(load_reference(file, "discriminator"), discriminator.state_dict())
    with pytest.raises(
        UserError, match=f"{file}: the weights do not fit; left over: model.0.weight"
    ):
        load_reference(file, "generator")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{file}: is damaged"):
        load_reference(file, "discriminator")
