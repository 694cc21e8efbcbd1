"""Augmentation of batches: ranges, draws that a restart repeats, and the identity."""

import pytest
import torch
from torchvision.transforms.v2.functional import adjust_contrast

from bdl.domains.augment import jitter_colors, mix_classes
from bdl.runtime.config import AugmentationConfig


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


def test_contrast_changes_the_distance_to_the_mean_and_not_the_mean(images):
    """Each image's mean luma stays; an independent computation agrees."""
    middle = 0.4 + images / 5  # so that nothing is clamped
    changed = jitter_colors(middle, AugmentationConfig(contrast=0.5), 0, "source", 0)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    means, changed_means = ((item * luma).sum(1).mean((1, 2)) for item in (middle, changed))
    torch.testing.assert_close(changed_means, means, rtol=0, atol=1e-3)
    for image, result, mean in zip(middle, changed, means, strict=True):
        factors = (result - mean) / (image - mean)
        far = (image - mean).abs() > 0.02
        factor = factors[far].median()
        assert 0.5 < factor < 1.5 and abs(factor - 1) > 0.01
        expected = adjust_contrast(image, float(factor))
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-3)


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


def mixed(source_labels: torch.Tensor, step: int = 0, *process: int) -> torch.Tensor:
    """Labels of black source images, those of the class 9 on white target images, mixed."""
    size = source_labels.shape
    black, white = (torch.full((size[0], 3, *size[1:]), value) for value in (0.0, 1.0))
    images, labels = mix_classes(
        (black, source_labels), (white, torch.full(size, 9)), 0, step, *process
    )
    # A pixel and its label come from the same image.
    assert torch.equal(images, (labels == 9).float()[:, None].expand(-1, 3, -1, -1))
    return labels


def test_half_of_the_classes_of_the_image_beside_it_are_pasted():
    labels = torch.tensor([[[0, 1, 2, 3, 255]], [[4, 4, 5, 6, 6]], [[8, 8, 8, 8, 8]]])
    pasted = []
    for step in range(30):
        result = mixed(labels, step)
        taken = result != 9
        assert torch.equal(result[taken], labels[taken])
        assert result[1, 0, 0] == result[1, 0, 1]  # all of a class, or nothing of it
        pasted.append([set(row[row != 9].tolist()) for row in result])
    first, second, third = zip(*pasted, strict=True)
    assert {len(classes) for classes in first} == {2}  # of four
    assert {len(classes) for classes in second} == {1}  # of three
    assert set().union(*first) == {0, 1, 2, 3} and set().union(*second) == {4, 5, 6}
    assert all(classes == {8} for classes in third)


def test_an_unlabelled_source_image_is_not_pasted():
    assert (mixed(torch.full((1, 2, 2), 255)) == 9).all()


def test_processes_mix_their_shares_of_the_batch_as_one_does():
    labels = torch.randint(0, 8, (4, 6, 6), generator=torch.Generator().manual_seed(0))
    whole = mixed(labels, 5)
    for rank in (0, 1):
        assert torch.equal(mixed(labels[rank::2], 5, rank, 2), whole[rank::2])
