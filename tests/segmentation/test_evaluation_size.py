"""Evaluation at the labels' size from smaller input: what is upsampled, and that all means are
those that `score` gives for the same predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bdl.domains.datasets import find_samples
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import Config, DomainConfig
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.run import Run
from bdl.segmentation.evaluate import evaluate
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.score import find_pairs, score
from bdl.segmentation.stages import prediction_path
from tests.helpers import layouts

SPACE = load_label_space("cityscapes19")
INPUT, FULL = (32, 16), (64, 32)  # width, height: as 1024x512 is to 2048x1024


class Fixed(Segmenter):
    """Random scores at stride 8, the same for every image."""

    head_prefixes = ()

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 19
        self.register_buffer("maps", 3 * torch.randn(1, 19, 3, 5))
        self.sizes: list[tuple[int, int]] = []

    def scores(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[-1], images.shape[-2]))
        return self.maps


@pytest.fixture
def network() -> Fixed:
    torch.manual_seed(0)
    return Fixed()


def validation(root: Path) -> WholeImages:
    layouts.cityscapes(root, size=FULL)
    domain = DomainConfig(layout="cityscapes", root=str(root), split="val")
    samples = find_samples(domain, "data.validation", labelled=True)
    return WholeImages(samples, INPUT, SPACE.table("label_id"))


def evaluated(network: Fixed, folder: Path, images: WholeImages, size: tuple[int, int] | None):
    config = Config()
    config.device = "cpu"
    run = Run(folder, make_fabric(config), Console(speaking=False))
    return evaluate(run, folder, network, images, SPACE, size, frames=range(len(images)))


@pytest.mark.parametrize("size", [None, FULL])
def test_probabilities_are_upsampled_from_the_input_to_the_labels(tmp_path, network, size):
    images = validation(tmp_path / "cityscapes")
    evaluated(network, tmp_path, images, size)
    assert set(network.sizes) == {INPUT}
    # By hand: bilinear between the corners of the maps of probabilities, not of logits.
    maps = network.maps[0].softmax(0).double().numpy()
    rows, columns = np.linspace(0, 2, FULL[1]), np.linspace(0, 4, FULL[0])
    between = np.stack([[np.interp(rows, range(3), column) for column in m.T] for m in maps])
    between = np.stack([[np.interp(columns, range(5), row) for row in m.T] for m in between])
    predicted = np.asarray(Image.open(prediction_path(tmp_path, 0)))
    assert predicted.shape == (FULL[1], FULL[0])
    assert (predicted == between.argmax(0)).mean() > 0.999
    of_logits = torch.nn.functional.interpolate(
        network.maps, (FULL[1], FULL[0]), mode="bilinear", align_corners=True
    )
    assert (predicted != of_logits[0].argmax(0).numpy()).mean() > 0.01


def test_all_three_means_are_those_of_score(tmp_path, network):
    images = validation(tmp_path / "cityscapes")
    found = evaluated(network, tmp_path, images, FULL)
    for index, sample in enumerate(images.samples):
        file = tmp_path / "predictions" / f"{Path(sample.name).name}.png"
        prediction_path(tmp_path, index).rename(file)
    pairs = find_pairs(tmp_path / "predictions", tmp_path / "cityscapes/gtFine/val")
    assert pairs.encoding == "label_id" and len(pairs.files) == 2
    scores = score(pairs.files, SPACE, SPACE.table("label_id"))
    assert set(scores) == {"miou", "miou16", "miou13", "iou"}
    iou = dict(zip(SPACE.names, found.iou, strict=True))
    assert {"miou": found.miou, "iou": iou, **found.subsets} == scores
    assert 0 < scores["miou"] < 1
