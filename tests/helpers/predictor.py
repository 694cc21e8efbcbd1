"""A network with random weights, its file, and photos to label."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from bdl.domains.label_space import load_label_space
from bdl.runtime.config import SegmentationConfig
from bdl.runtime.files import write_json
from bdl.runtime.store import VERSION, Manifest
from bdl.runtime.values import plain
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import Segmenter

SPACE = load_label_space("camvid11")


def make_network() -> Segmenter:
    torch.manual_seed(0)
    built = build_segmenter("compact", SPACE.num_classes, width=4)
    for module in built.modules():  # else all classes score alike and every argmax is a tie
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return built.eval()


def save(
    file: Path, network: Segmenter, settings: dict | None = None, k: int = 0, i: int = 0
) -> Path:
    """Write the network; with `settings` the folder is that of a finished stage of a run."""
    config = SegmentationConfig(network="compact", options={"width": 4})
    save_segmenter(file, network, config, SPACE)
    if settings is not None:
        folder = file.parent
        name = f"{folder.parent.name}/{folder.name}" if k else folder.name
        record = Manifest(version=VERSION, stage=name, kind="segment", k=k, i=i, files=[file.name])
        record.settings = settings
        write_json(folder / "manifest.json", plain(record))
        write_json(folder / "metrics.json", {})
    return file


def photo(width: int = 48, height: int = 32, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
