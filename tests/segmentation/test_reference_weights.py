"""Import of published segmentation checkpoints: what is mended, what is refused, what is said."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bdl.runtime.errors import UserError
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from bdl.segmentation.reference_weights import choose_branches, convert, load_reference

CLASSES = 19


@pytest.fixture(scope="module")
def deeplab() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return DeepLabV2(CLASSES).state_dict()


@pytest.fixture(scope="module")
def judge() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return OutputDiscriminator(CLASSES).state_dict()


def assert_same(converted: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(converted) == list(expected)
    for key, value in expected.items():
        assert converted[key].dtype == value.dtype, key
        assert converted[key].equal(value), key


def without_counts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_a_checkpoint_of_old_pytorch_under_data_parallel(deeplab):
    published = {f"module.{key}": value for key, value in without_counts(deeplab).items()}
    converted = convert(published, "deeplab_v2")
    assert_same(converted, deeplab)
    with torch.device("meta"):
        network = DeepLabV2(CLASSES)
    network.load_state_dict(converted, strict=True, assign=True)


@pytest.mark.parametrize("outer", ["", "module."])
def test_the_initial_weights_lose_prefix_and_head(deeplab, outer):
    published = {f"{outer}Scale.{key}": value for key, value in deeplab.items()}
    for branch in range(4):  # for the 21 classes of PASCAL VOC
        name = f"{outer}Scale.layer5.conv2d_list.{branch}"
        published[f"{name}.weight"] = torch.ones(21, 2048, 3, 3)
        published[f"{name}.bias"] = torch.ones(21)
    converted = convert(published, "deeplab_v2")
    assert_same(converted, {k: v for k, v in deeplab.items() if not k.startswith("layer5.")})
    choice = choose_branches(converted)
    assert choice.branches == 4 and "no head" in choice.reason


def test_values_of_other_kinds_become_float32_tensors(judge):
    published = dict(judge)
    published["conv1.weight"] = judge["conv1.weight"].half()
    published["conv2.weight"] = judge["conv2.weight"].double().numpy()
    published["conv3.bias"] = judge["conv3.bias"].numpy()
    converted = convert(published, "output_discriminator")
    expected = judge | {"conv1.weight": judge["conv1.weight"].half().float()}
    assert_same(converted, expected)


def test_numpy_numbers_become_tensors(deeplab):
    published = deeplab | {"bn1.num_batches_tracked": np.int64(7)}
    assert convert(published, "deeplab_v2")["bn1.num_batches_tracked"].equal(torch.tensor(7))


@pytest.mark.parametrize("classes", [2, 13, 19])
def test_any_number_of_classes(classes):
    networks = {
        "deeplab_v2": DeepLabV2,
        "fcn8s_vgg16": FCN8sVGG16,
        "output_discriminator": OutputDiscriminator,
    }
    for name, build in networks.items():
        with torch.device("meta"):  # keys and shapes are all that matters
            state = build(classes).state_dict()
        converted = convert(state, name)
        assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in state.items()}


def test_keys_left_over_and_missing_and_shapes_are_all_named(judge):
    published = dict(judge)
    published["conv9.weight"] = torch.zeros(1)
    published["conv2.bias"] = torch.zeros(3)
    del published["classifier.bias"]
    with pytest.raises(ValueError) as caught:
        convert(published, "output_discriminator")
    message = str(caught.value)
    assert "left over: conv9.weight" in message
    assert "missing: classifier.bias" in message
    assert "of another shape: conv2.bias (3,) instead of (128,)" in message
    # The command line prints it as an error of the user's, on one line.
    assert isinstance(caught.value, UserError) and "\n" not in message


def test_a_prefix_on_some_keys_only_is_refused(judge):
    published = {
        f"module.{key}" if key.startswith("conv1") else key: value for key, value in judge.items()
    }
    with pytest.raises(ValueError, match=r"left over: module.conv1.weight, module.conv1.bias"):
        convert(published, "output_discriminator")


def test_running_statistics_may_not_be_missing(deeplab):
    published = {k: v for k, v in deeplab.items() if k != "layer3.7.bn2.running_var"}
    with pytest.raises(ValueError, match=r"missing: layer3.7.bn2.running_var"):
        convert(published, "deeplab_v2")


def test_many_keys_are_counted(deeplab):
    with pytest.raises(ValueError, match=r"left over: bn1\.weight, .* and 619 more;"):
        convert(deeplab, "output_discriminator")


@pytest.mark.parametrize("value", [None, "text", {"conv1.weight": 1}])
def test_values_that_are_no_weights_are_refused(judge, value):
    with pytest.raises(
        ValueError, match=f"'epoch' is of type {type(value).__name__}, not a tensor"
    ):
        convert(judge | {"epoch": value}, "output_discriminator")


def test_unknown_name_is_refused(judge):
    with pytest.raises(ValueError, match=r"no reference 'resnet'.*deeplab_v2, fcn8s_vgg16"):
        convert(judge, "resnet")


# Which branches were trained


def with_branches(drawn: list[bool]) -> dict[str, Tensor]:
    """A head as the published initialisation draws it, and moved a little where trained."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for branch, untouched in enumerate(drawn):
        weight = torch.empty(CLASSES, 2048, 3, 3).normal_(0, 0.01, generator=generator)
        bound = (2048 * 9) ** -0.5
        bias = torch.empty(CLASSES).uniform_(-bound, bound, generator=generator)
        if not untouched:
            # Classes pull on the shared, positive features by different amounts.
            weight += 0.002 * torch.randn(CLASSES, 1, 1, 1, generator=generator)
        state[f"layer5.conv2d_list.{branch}.weight"] = weight
        state[f"layer5.conv2d_list.{branch}.bias"] = bias
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_released_checkpoints_sum_two_branches(dtype):
    state = {k: v.to(dtype) for k, v in with_branches([False, False, True, True]).items()}
    choice = choose_branches(state)
    assert choice.branches == 2 and "first two" in choice.reason


def test_four_trained_branches_are_summed():
    choice = choose_branches(with_branches([False] * 4))
    assert choice.branches == 4 and "all four" in choice.reason


@pytest.mark.parametrize("drawn", [[True] * 4, [False, False, False, True]])
def test_where_the_weights_do_not_tell_it_says_so(drawn):
    choice = choose_branches(with_branches(drawn))
    assert choice.branches == 4 and "do not tell" in choice.reason


@pytest.mark.parametrize("change", ["decay", "bias"])
def test_one_class_that_moved_means_training(change):
    state = with_branches([False, False, True, True])
    if change == "decay":
        state["layer5.conv2d_list.3.weight"][4] *= 0.95
    else:
        state["layer5.conv2d_list.3.bias"][4] = 0.01
    assert choose_branches(state).branches == 4


def test_the_networks_own_training_with_two_branches_is_recognised():
    torch.manual_seed(6)
    network = DeepLabV2(CLASSES, branches=2)
    optimizer = torch.optim.SGD(
        network.parameter_groups()[-1].parameters, lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    features = torch.rand(1, 2048, 7, 7)
    for _ in range(5):
        labels = torch.randint(CLASSES, (1, 7, 7))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network.layer5(features), labels).backward()
        optimizer.step()
    assert choose_branches(network.state_dict()).branches == 2


# Files


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_both_formats_are_read(judge, tmp_path, zipped):
    file = tmp_path / "judge.pth"
    published = judge | {"conv4.bias": judge["conv4.bias"].numpy()}
    torch.save(published, file, _use_new_zipfile_serialization=zipped)
    assert_same(load_reference(file, "output_discriminator"), judge)


def test_numpy_numbers_written_under_python_2_are_read(tmp_path):
    file = tmp_path / "old.pth"
    torch.save({"rate": np.float32(-3.3)}, file, _use_new_zipfile_serialization=False)
    # Python 2 wrote the number's four bytes as a string, NumPy 1 under its own module's name.
    now = file.read_bytes()
    as_text = rb"c_codecs\nencode\nq.X.{4}(.*?)q.X\x06\x00\x00\x00latin1q.\x86q.Rq."
    four_bytes = np.float32(-3.3).tobytes()
    old, count = re.subn(as_text, lambda match: b"U\x04" + four_bytes, now, flags=re.DOTALL)
    assert count == 1
    file.write_bytes(old.replace(b"numpy._core.", b"numpy.core."))
    # It gets as far as the comparison of the keys.
    with pytest.raises(ValueError, match="left over: rate"):
        load_reference(file, "output_discriminator")


class Opinion:
    """Stands for whatever else people save."""


def refused(file: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_reference(file, "output_discriminator")
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "\n" not in message
    assert isinstance(caught.value, UserError)
    return message


def test_files_that_hold_code_are_refused_with_a_way_out(judge, tmp_path):
    file = tmp_path / "code.pth"
    torch.save(judge | {"opinion": Opinion()}, file)
    message = refused(file)
    assert "Opinion" in message and "save its dictionary of tensors alone" in message


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_truncated_files_are_refused(judge, tmp_path, zipped, part):
    file = tmp_path / "part.pth"
    torch.save(judge, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert "incomplete" in refused(file) and "fetch it again" in refused(file)


def test_other_files_are_refused(judge, tmp_path):
    page = tmp_path / "page.pth"
    page.write_text("<html>Quota exceeded</html>")
    assert "no file of torch.save" in refused(page)
    assert "No such file" in refused(tmp_path / "absent.pth")
    listed = tmp_path / "list.pth"
    torch.save([judge], listed)
    assert "holds a list" in refused(listed)
    nested = tmp_path / "nested.pth"
    torch.save({"state_dict": judge}, nested)
    assert "'state_dict' is of type OrderedDict, not a tensor" in refused(nested)
