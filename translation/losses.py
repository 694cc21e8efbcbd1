"""The terms of the translation loss: pure functions of tensors, each returning a scalar >= 0.

Equations are those of the CycleGAN paper and of section 3.3 of "Bidirectional Learning"; where
its text and its published code differ (see `perceptual`), these follow the code.
"""

import torch.nn.functional as F
from torch import Tensor


def adversarial(scores: Tensor) -> Tensor:
    """Least-squares loss of a generator: mean of (D(fake) - 1)^2.

    `scores` are the discriminator's on fakes, any shape.
    """
    return (scores - 1).square().mean()


def discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Least-squares loss of a discriminator: half of mean (D(real) - 1)^2 + mean D(fake)^2.

    The fakes must be detached from their generator.
    """
    return ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2


def cycle(reconstruction: Tensor, image: Tensor) -> Tensor:
    """L1 between G_BA(G_AB(a)) and a: mean absolute difference, N x 3 x H x W each.

    The published weights hold for images in [-1, 1].
    """
    return F.l1_loss(reconstruction, image)


def identity(output: Tensor, image: Tensor) -> Tensor:
    """L1 between G_AB(b) and b, for images of the generator's output domain, in [-1, 1].

    Not in the paper's text; in its code, and called very important by its authors.
    """
    return F.l1_loss(output, image)


def perceptual(scores: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of instance-normalised score maps, N x C x h x w each.

    `scores` are the frozen network's on a fake or a reconstruction, `reference` those on the
    image that it was made from. The paper prints L1; its authors call that a typo.
    """
    channels = scores.shape[1]  # a group each: instance norm, see networks.InstanceNorm
    return F.mse_loss(
        F.group_norm(scores, channels, eps=1e-5), F.group_norm(reference, channels, eps=1e-5)
    )
