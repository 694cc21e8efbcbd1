"""Colour augmentation: ranges, draws that a restart repeats, and the identity."""

import pytest
import torch

from domains.augment import jitter_colors
from runtime.config import AugmentationConfig


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_for_is_nothing_done(images):
    assert jitter_colors(images, AugmentationConfig(), 0, "source", 3) is images


def test_brightness_is_one_factor_an_image_within_its_range(images):
    dark = images / 2  # so that nothing is clamped
    bright = jitter_colors(dark, AugmentationConfig(brightness=0.5), 0, "source", 0)
    factors = bright / dark
    each = factors.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(factors, each.expand_as(factors), rtol=1e-4, atol=1e-4)
    assert ((each > 0.5) & (each < 1.5)).all() and each.unique().numel() == 4


@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_keeps_the_range_and_the_input(images, what):
    before = images.clone()
    config = AugmentationConfig(**{what: 0.5})
    for step in range(5):
        changed = jitter_colors(images, config, 0, "source", step)
        assert changed.shape == images.shape and changed.dtype == images.dtype
        assert changed.min() >= 0 and changed.max() <= 1
        assert (changed - images).abs().max() > 0.01
    assert torch.equal(images, before)


@pytest.mark.parametrize("what", ["saturation", "hue"])
def test_gray_has_neither_saturation_nor_hue(what):
    gray = torch.linspace(0.1, 0.9, 24).view(1, 1, 4, 6).expand(1, 3, 4, 6).contiguous()
    changed = jitter_colors(gray, AugmentationConfig(**{what: 0.5}), 0, "source", 0)
    torch.testing.assert_close(changed, gray, rtol=0, atol=1e-3)


def test_draws_depend_on_seed_purpose_and_step_alone(images):
    config = AugmentationConfig(brightness=0.3, hue=0.2)
    first = jitter_colors(images, config, 1, "source", 7)
    torch.rand(3)
    assert torch.equal(jitter_colors(images, config, 1, "source", 7), first)
    for other in ((2, "source", 7), (1, "target", 7), (1, "source", 8)):
        assert not torch.equal(jitter_colors(images, config, *other), first)


def test_one_setting_does_not_change_anothers_draws(images):
    dark = images / 4
    alone = jitter_colors(dark, AugmentationConfig(brightness=0.5), 0, "source", 0)
    both = jitter_colors(dark, AugmentationConfig(brightness=0.5, hue=0.3), 0, "source", 0)
    # A turn of the hue keeps the largest channel.
    torch.testing.assert_close(both.amax(1), alone.amax(1), rtol=1e-3, atol=1e-3)
