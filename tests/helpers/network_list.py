"""Networks that the tests go through: a new one is a line here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from bdl.runtime.config import AdversarialConfig, OptimizerConfig, TranslatorTraining
from bdl.runtime.console import Console
from bdl.runtime.run import Run
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.train import SegmentationStep, Target
from bdl.translation.pool import FakePool
from bdl.translation.train import Discriminators, TranslationStep, Translator

CLASSES = 5


@dataclass(frozen=True)
class Listed:
    """A network, where its scores lie, and whether it takes too long for every day."""

    name: str
    stride: int
    options: dict[str, Any] = field(default_factory=dict)
    long: bool = False

    def build(self, **changes: Any) -> Segmenter:
        torch.manual_seed(0)
        if self.name.startswith("timm:"):
            weights: dict[str, Any] = {"pretrained": False}
        else:
            weights = {"encoder_weights": None}
        return build_segmenter(self.name, CLASSES, **{**weights, **self.options, **changes})


LISTED = [
    # Four architectures and six encoders of segmentation_models_pytorch.
    Listed("smp:Unet/resnet18", 1, {"decoder_channels": [32, 16, 16, 8, 8]}),
    Listed("smp:FPN/mobilenet_v2", 4, {"decoder_pyramid_channels": 32}),
    Listed("smp:Segformer/mit_b0", 4, {"decoder_segmentation_channels": 32}),
    Listed("smp:DeepLabV3Plus/tu-test_efficientnet", 4),
    Listed("smp:Unet/tu-test_convnext", 1, {"decoder_channels": [32, 16, 16, 8, 8]}),
    Listed("smp:FPN/efficientnet-b0", 4, long=True),
    Listed("smp:PAN/resnet18", 4, long=True),
    Listed("smp:PSPNet/resnet18", 8, long=True),
    Listed("smp:UPerNet/resnet18", 4, long=True),
    Listed("smp:DPT/tu-test_vit", 2, long=True),
    # Hierarchical transformers.
    Listed("timm:pvt_v2_b0", 4, {"width": 16}),
    Listed("timm:swin_tiny_patch4_window7_224", 4, {"width": 16}, long=True),
    Listed("timm:caformer_s18", 4, {"width": 16}, long=True),
    Listed("timm:edgenext_xx_small", 4, {"width": 16}),
    Listed("timm:swiftformer_xs", 4, {"width": 16}),
    # Convolutions at their own strides, the second with channels last.
    Listed("timm:test_convnext", 4, {"width": 16}),
    Listed("timm:mambaout_femto", 4, {"width": 16}, long=True),
    # Plain transformers: position embeddings of any size, and rotary ones.
    Listed("timm:test_vit", 8, {"width": 16}),
    Listed("timm:eva02_tiny_patch14_224", 7, {"width": 16}),
    Listed("timm:vit_small_patch14_dinov2", 7, {"width": 16}, long=True),
    Listed("timm:vit_small_patch16_dinov3", 8, {"width": 16}, long=True),
]


def every(chosen: list[Listed] = LISTED) -> list[Any]:
    """The networks as parameters of a test, those that take long marked so."""
    return [
        pytest.param(entry, id=entry.name, marks=[pytest.mark.long] if entry.long else [])
        for entry in chosen
    ]


def images(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(height + width)
    return torch.rand(count, 3, height, width, generator=random)


def labels(height: int = 64, width: int = 64, count: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, CLASSES, (count, height, width), generator=random)


def segmentation_step(fabric: Fabric, network: Segmenter) -> dict[str, Tensor]:
    """One step of training with all its terms; gives the losses."""
    run = Run(Path(), fabric, Console(speaking=False))
    judge = OutputDiscriminator(CLASSES, 4)
    learn = SegmentationStep(run, OptimizerConfig(), network, AdversarialConfig(), judge)
    return learn((images(), labels()), Target(images(), labels()), 1.0)


def translation_step(fabric: Fabric, score_maps: Any, checkpointing: bool) -> dict[str, Tensor]:
    """One step of a translator through a frozen network; gives the losses."""
    console = Console(speaking=False)
    run = Run(Path(), fabric, console, gradient_checkpointing=checkpointing)
    torch.manual_seed(0)
    parts, pools = (Translator(4, 1), Discriminators(4)), [FakePool(1, 0), FakePool(1, 1)]
    learn = TranslationStep(run, TranslatorTraining(lr=1e-3), *parts, score_maps, pools)
    return learn(images(36, 44, 1), images(36, 44, 1).flip(-1), 1.0)
