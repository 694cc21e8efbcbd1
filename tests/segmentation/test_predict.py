"""segmentation/predict.py: shortcuts give what the long way gives."""

import pytest
import torch
from lightning.fabric import Fabric

from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import upsample
from bdl.segmentation.predict import frozen_scores, upsampled_argmax

SIZES = [(40, 60), (33, 97), (7, 9), (5, 9), (3, 4), (1, 1), (20, 1), (1, 20)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_largest_of_upsampled_maps(size):
    """Larger, equal and smaller sizes than the maps', of maps without any smoothness."""
    maps = torch.rand(2, 6, 7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(upsampled_argmax(maps, size), upsample(maps, size).argmax(1))


def test_the_largest_of_maps_of_one_column_or_one_pixel():
    random = torch.Generator().manual_seed(0)
    for shape in ((1, 4, 6, 1), (1, 4, 1, 6), (1, 4, 1, 1)):
        maps = torch.rand(shape, generator=random)
        assert torch.equal(upsampled_argmax(maps, (9, 8)), upsample(maps, (9, 8)).argmax(1))


def test_maps_of_one_class_everywhere_leave_nothing_to_interpolate():
    maps = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    assert (upsampled_argmax(maps, (16, 16)) == 1).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compact", {"width": 4}),
        ("deeplab_v2", {"branches": 2}),
        ("timm:resnet18", {"pretrained": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_frozen_network_scores_as_before_and_passes_gradients(name, options):
    """With running statistics and scales that are not those of a new network."""
    torch.manual_seed(0)
    network = build_segmenter(name, 5, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.1, 0.1)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.scores(images)
    scores = frozen_scores(Fabric(accelerator="cpu"), network)
    found = scores(images.requires_grad_())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    found.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_frozen_networks_convolutions_have_the_precision_they_compute_in():
    network = build_segmenter("compact", 5, width=4).eval()
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed")
    scores = frozen_scores(fabric, network)
    kinds = {m.weight.dtype for m in network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kinds == {torch.bfloat16}
    assert network.normalize.mean.dtype == torch.float32
    with fabric.autocast():
        assert scores(torch.rand(1, 3, 32, 32)).isfinite().all()
