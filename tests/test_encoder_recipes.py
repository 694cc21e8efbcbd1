"""The recipes with large encoders: DAFormer's and VFM-UDA++'s settings, and networks that exist."""

import pytest
import torch

from bdl.runtime.config import CONFIGURATIONS, load_config, value_at
from bdl.segmentation.network_name import without_fetching
from bdl.segmentation.networks import build_segmenter

COMMON = {
    "precision": "auto",
    "segmentation.steps": 40_000,
    "segmentation.pseudo_label_steps": 40_000,
    "segmentation.optimizer.name": "adamw",
    "segmentation.optimizer.head_multiplier": 10,
    "segmentation.optimizer.betas": (0.9, 0.999),
    "segmentation.optimizer.weight_decay": 0.01,
    "segmentation.schedule.name": "poly",
    "segmentation.schedule.power": 1,
    "segmentation.schedule.steps": 40_000,
    "segmentation.schedule.warmup_steps": 1500,
    "translation.weights.perceptual_reconstruction": (10,),
}
OWN = {
    "gta5_cityscapes_segformer_b5": {
        "segmentation.network": "smp:Segformer/mit_b5",
        "segmentation.optimizer.lr": 6e-5,
        "segmentation.optimizer.layer_decay": None,
        "segmentation.batch_size": 2,
        "segmentation.augmentation.crop": (512, 512),
    },
    "gta5_cityscapes_dinov2_b": {
        "segmentation.network": "timm:vit_base_patch14_reg4_dinov2",
        "segmentation.optimizer.lr": 5e-5,
        "segmentation.optimizer.layer_decay": 0.9,
        "segmentation.batch_size": 8,
        "segmentation.augmentation.crop": (504, 504),
    },
}


@pytest.mark.parametrize("recipe", OWN)
def test_every_number_is_that_of_its_source(recipe):
    config = load_config(recipe)
    expected = COMMON | OWN[recipe]
    assert {key: value_at(config, key) for key in expected} == expected
    assert config.out == "runs/" + recipe.replace("_", "-")


@pytest.mark.parametrize("recipe", OWN)
def test_it_says_that_it_was_not_trained_to_the_end(recipe):
    text = (CONFIGURATIONS / f"{recipe}.yaml").read_text(encoding="utf-8")
    assert "Not trained to the end here" in text and "no result of it is claimed" in text


@pytest.mark.parametrize("recipe", OWN)
def test_its_network_takes_the_recipes_crops(recipe):
    pytest.importorskip("segmentation_models_pytorch")
    config = load_config(recipe).segmentation
    options = without_fetching(config.network, config.options)
    # Not all of timm's and smp's networks can be made without memory.
    device = "meta" if config.network.startswith("timm:") else "cpu"
    with torch.device(device), torch.no_grad():
        network = build_segmenter(config.network, 19, **options).eval()
        width, height = (
            side // 4 if device == "cpu" else side for side in config.augmentation.crop
        )
        assert network(torch.zeros(1, 3, height, width)).shape == (1, 19, height, width)
    assert width % network.multiple == height % network.multiple == 0  # nothing is padded
    assert 80e6 < sum(p.numel() for p in network.parameters()) < 90e6
