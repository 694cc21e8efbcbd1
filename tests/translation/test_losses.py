"""The terms of the translation loss against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bdl.translation import losses


def maps(*values: float, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(shape)


def test_adversarial_is_the_mean_square_from_one():
    # (0 - 1)^2 = 1, (1 - 1)^2 = 0, (3 - 1)^2 = 4, (-1 - 1)^2 = 4
    scores = maps(0, 1, 3, -1, shape=(1, 1, 2, 2))
    assert losses.adversarial(scores).item() == pytest.approx(9 / 4)


def test_discriminator_is_half_of_real_from_one_and_fake_from_zero():
    real = maps(0.5, 2, shape=(1, 1, 1, 2))  # 0.25 and 1: mean 0.625
    fake = maps(3, -1, shape=(1, 1, 1, 2))  # 9 and 1: mean 5
    assert losses.discriminator(real, fake).item() == pytest.approx((0.625 + 5) / 2)


@pytest.mark.parametrize("loss", [losses.cycle, losses.identity])
def test_cycle_and_identity_are_mean_absolute_differences(loss):
    made = maps(-1, 0, 0.5, shape=(1, 3, 1, 1))
    image = maps(1, 0.25, 0.5, shape=(1, 3, 1, 1))
    assert loss(made, image).item() == pytest.approx((2 + 0.25 + 0) / 3)


def test_perceptual_compares_normalised_maps():
    # Mean 2, variance 1: normalised -1, 1 (but for eps); the reference's mean 0, variance 4: 1, -1.
    scores = maps(1, 3, shape=(1, 1, 1, 2))
    reference = maps(2, -2, shape=(1, 1, 1, 2))
    first, second = 1 / math.sqrt(1 + 1e-5), 2 / math.sqrt(4 + 1e-5)
    expected = (first + second) ** 2
    assert losses.perceptual(scores, reference).item() == pytest.approx(expected, rel=1e-6)


def test_perceptual_equals_numpy_in_float64():
    random = np.random.default_rng(0)
    pair = random.normal(2, 3, (2, 2, 5, 4, 7))
    centred = pair - pair.mean((3, 4), keepdims=True)
    normal = centred / np.sqrt((centred**2).mean((3, 4), keepdims=True) + 1e-5)
    expected = ((normal[0] - normal[1]) ** 2).mean()
    scores, reference = torch.from_numpy(pair).float()
    assert losses.perceptual(scores, reference).item() == pytest.approx(expected, rel=1e-5)


@given(scale=st.floats(0.5, 20), shift=st.floats(-10, 10))
def test_perceptual_ignores_scale_and_shift_of_each_map(scale, shift):
    reference = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert losses.perceptual(scale * reference + shift, reference).item() < 1e-6


def test_the_reference_of_the_perceptual_term_may_be_without_gradient():
    scores = torch.randn(1, 2, 3, 3, requires_grad=True)
    losses.perceptual(scores, torch.randn(1, 2, 3, 3)).backward()
    assert scores.grad is not None and scores.grad.abs().sum() > 0
