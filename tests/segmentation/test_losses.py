"""The terms of segmentation training against numbers worked out by hand."""

import math

import pytest
import torch

from bdl.segmentation import losses


def test_cross_entropy_is_the_mean_over_labelled_pixels():
    # Two classes, three pixels; the probabilities of class 0 are 1/2, 3/4 and 1/5.
    logits = torch.tensor([[[[0.0, math.log(3), math.log(0.25)]], [[0.0, 0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1, 255]]])
    expected = -(math.log(1 / 2) + math.log(1 / 4)) / 2
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(expected)
    labels = torch.tensor([[[255, 255, 0]]])
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(math.log(5))


def test_cross_entropy_weighs_pixels_of_a_batch_alike():
    """One labelled pixel in the first image, two in the second: not a mean of two means."""
    logits = torch.zeros(2, 4, 1, 2)
    logits[0, 0, 0, 0] = 100.0
    labels = torch.tensor([[[0, 255]], [[1, 2]]])
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(2 / 3 * math.log(4))


def test_nothing_labelled_costs_nothing_and_teaches_nothing():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = losses.cross_entropy(logits, torch.full((2, 4, 5), 255))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None and logits.grad.count_nonzero() == 0


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 3, 1, 2, requires_grad=True)
    losses.cross_entropy(logits, torch.tensor([[[1, 255]]])).backward()
    assert logits.grad is not None
    assert logits.grad[..., 0].abs().sum() > 0 and logits.grad[..., 1].count_nonzero() == 0


def test_adversarial_wants_source_which_is_0():
    # -log(1 - sigmoid(x)): x = 0 gives log 2, x = log 3 gives log 4.
    scores = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    assert losses.adversarial(scores).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_discriminator_says_0_for_source_and_1_for_target_each_halved():
    source = torch.tensor([math.log(3)]).view(1, 1, 1, 1)  # -log(1 - 3/4) = log 4
    target = torch.tensor([math.log(1 / 4)]).view(1, 1, 1, 1)  # -log(1/5) = log 5
    expected = math.log(4) / 2 + math.log(5) / 2
    assert losses.discriminator(source, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_sure_scores_stay_finite(size):
    scores = torch.full((1, 1, 2, 2), size)
    assert math.isfinite(losses.adversarial(scores).item())
    assert losses.discriminator(scores, scores).item() == pytest.approx(abs(size) / 2)
