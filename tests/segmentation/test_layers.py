"""Layers of networks by others: rates that fall towards the image, drop path, recomputation."""

import copy

import pytest
import torch
from torch import nn

from bdl.runtime.config import OptimizerConfig
from bdl.runtime.errors import UserError
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.layers import repeated_blocks
from bdl.segmentation.networks.timm_backbone import TimmBackbone
from bdl.segmentation.networks.timm_pyramid import TimmPyramid
from bdl.segmentation.train import make_optimizer
from bdl.segmentation.warm_up import warm_up
from tests.helpers.network_list import CLASSES, images


def vit(**options) -> TimmPyramid:
    torch.manual_seed(0)
    return build_segmenter("timm:test_vit", CLASSES, pretrained=False, width=8, **options)


def optimizer_of(network, decay, **settings) -> torch.optim.Optimizer:
    config = OptimizerConfig(name="adamw", lr=1.0, weight_decay=0.1, layer_decay=decay, **settings)
    return make_optimizer(network, config)


def test_rates_fall_by_layer_from_the_head_to_the_image():
    """Six blocks: the last at 1/2 of the rate, what embeds the image at 1/2^7."""
    network = vit()
    optimizer = optimizer_of(network, 0.5, head_multiplier=3)
    rates = {id(p): g["base_lr"] for g in optimizer.param_groups for p in g["params"]}
    inside = network.backbone.model
    assert len(inside.blocks) == 6
    for number, block in enumerate(inside.blocks):
        assert {rates[id(p)] for p in block.parameters()} == {0.5 ** (6 - number)}
    for embedding in (inside.pos_embed, inside.cls_token, *inside.patch_embed.parameters()):
        assert rates[id(embedding)] == 0.5**7
    assert {rates[id(p)] for p in network.decoder.parameters()} == {3}


def test_stages_that_are_registered_out_of_order_have_their_place():
    """All four patch embeddings of this encoder are registered before its first block."""
    pytest.importorskip("segmentation_models_pytorch")
    network = build_segmenter("smp:Segformer/mit_b0", CLASSES, encoder_weights=None)
    optimizer = optimizer_of(network, 0.5)
    rates = {id(p): g["base_lr"] for g in optimizer.param_groups for p in g["params"]}
    rate = [rates[id(getattr(network.encoder, f"patch_embed{n}").proj.weight)] for n in range(1, 5)]
    assert rate == [0.5**9, 0.5**7, 0.5**5, 0.5**3]  # two blocks a stage


def test_weight_decay_leaves_norms_biases_and_embeddings_alone():
    network = vit()
    decay = {
        id(p): group["weight_decay"]
        for group in optimizer_of(network, None).param_groups
        for p in group["params"]
    }
    for name, parameter in network.named_parameters():
        free = parameter.ndim == 1 or name.endswith(("pos_embed", "cls_token"))
        assert decay[id(parameter)] == (0 if free else 0.1), name


def test_a_network_without_an_order_of_layers_says_so():
    network = build_segmenter("compact", CLASSES, width=4)
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: this network has no order"):
        optimizer_of(network, 0.9)
    assert len(optimizer_of(network, None).param_groups) == 2


@pytest.mark.parametrize(
    ("step", "steps", "factor"),
    [(0, 0, 1), (9, 0, 1), (0, 4, 0.25), (1, 4, 0.5), (3, 4, 1), (4, 4, 1), (900, 4, 1)],
)
def test_warm_up(step, steps, factor):
    assert warm_up(step, steps) == factor


def test_blocks_are_left_out_in_training_alone():
    network = vit(drop_path=0.9)
    given = images()
    network.decoder.eval()  # its dropout would differ, too
    made = [network.train().backbone(given)[-1] for _ in range(4)]
    assert any(not torch.equal(made[0], other) for other in made[1:])
    assert torch.equal(network.eval().backbone(given)[-1], network.backbone(given)[-1])
    still = vit(drop_path=0.0).train()
    assert torch.equal(still.backbone(given)[-1], still.backbone(given)[-1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:test_vit", {"drop_path": 0.5}),
        ("timm:test_efficientnet", {}),
        ("smp:FPN/resnet18", {"encoder_weights": None}),
    ],
)
def test_recomputed_blocks_have_the_same_gradients_in_less_memory(name, options):
    """Also the same running statistics, which a second pass would have followed once more."""
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    else:
        options = {"pretrained": False, **options}
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        network = build_segmenter(name, CLASSES, gradient_checkpointing=again, **options).train()
        kept = 0

        def keep(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(images()).square().mean()
        loss.backward()
        gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        found.append((kept, gradients, copy.deepcopy(dict(network.named_buffers()))))
    assert found[1][0] < 0.8 * found[0][0]
    for part in (1, 2):
        assert found[0][part].keys() == found[1][part].keys()
        for key, value in found[0][part].items():
            torch.testing.assert_close(found[1][part][key], value, msg=key)


def test_blocks_are_found_whatever_they_are_called():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

    stages = nn.ModuleList(nn.Sequential(Block(), Block()) for _ in range(3))
    network = nn.ModuleDict({"stem": nn.Conv2d(3, 2, 1), "stages": stages})
    assert repeated_blocks(network) == [block for stage in stages for block in stage]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timm:resnet18", TimmBackbone),
        ("timm:tf_efficientnet_lite0", TimmBackbone),
        ("timm:mobilenetv3_small_050", TimmBackbone),
        ("timm:densenet121", TimmPyramid),
        ("timm:convnext_atto", TimmPyramid),
        ("timm:pvt_v2_b0", TimmPyramid),
    ],
)
def test_convolutions_are_dilated_where_they_leave_fine_maps(name, kind):
    with torch.device("meta"):
        assert type(build_segmenter(name, CLASSES, pretrained=False)) is kind


def test_a_backbone_of_one_size_pads_to_it_and_says_what_it_takes():
    network = build_segmenter(
        "timm:coat_lite_tiny", CLASSES, pretrained=False, width=8, img_size=[96, 128]
    ).eval()
    with torch.no_grad():
        assert network.scores(images(50, 70, 1)).shape == (1, CLASSES, 13, 18)
        with pytest.raises(UserError, match="images of up to 128x96, these are 160x96"):
            network.scores(images(96, 160, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_path": 2}, r"drop_path: is 2, must be in \[0, 1\)"),
        ({"layers": [1, 99]}, r"options\.layers: timm's 'test_vit' has no maps \[1, 99\]"),
        ({"layers": "all"}, r"options\.layers: is 'all', must be a list of whole numbers"),
        ({"img_size": 8}, r"options\.img_size: is 8, must be \[HEIGHT, WIDTH\]"),
        ({"no_such_option": 3}, r"timm's 'test_vit' .*no_such_option"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(UserError, match=message):
        vit(**options)


def test_layers_of_a_plain_transformer_are_chosen():
    network = vit(layers=[1, 3])
    assert len(network.decoder.project) == 2 and len(network.backbone.model.blocks) == 4
