"""The terms of the translation loss: pure functions of tensors, each returning a scalar >= 0.

Equations are those of the CycleGAN paper and of section 3.3 of "Bidirectional Learning"; where
its text and its published code differ (see `perceptual`), these follow the code.
"""

import torch.nn.functional as F
from torch import Tensor


def adversarial(scores: Tensor) -> Tensor:
    """Least-squares loss of a generator: mean of (D(fake) - 1)^2. CycleGAN, section 4.

    Args:
        scores: The discriminator's scores of fakes, any shape; 1 stands for real.

    Returns:
        A scalar, at least 0.
    """
    return (scores - 1).square().mean()


def discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Least-squares loss of a discriminator: half of mean (D(real) - 1)^2 + mean D(fake)^2.
    CycleGAN, section 4.

    Args:
        real_scores: The discriminator's scores of real images, any shape.
        fake_scores: Its scores of fakes, any shape; the fakes are detached from their generator.

    Returns:
        A scalar, at least 0.
    """
    return ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2


def cycle(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of an image and its reconstruction. CycleGAN, equation 2.

    Args:
        reconstruction: The image, translated to the other domain and back, N x 3 x H x W.
        image: The image, N x 3 x H x W. The published weights hold for values in [-1, 1].

    Returns:
        A scalar, at least 0.
    """
    return F.l1_loss(reconstruction, image)


def identity(output: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of an image and what the generator makes of it, where the image is
    of the generator's output domain already.

    Not in the paper's text, but in its code, and called very important by its authors. CycleGAN,
    section 5.2.

    Args:
        output: What the generator makes of `image`, N x 3 x H x W.
        image: An image of the output domain, N x 3 x H x W, with values in [-1, 1].

    Returns:
        A scalar, at least 0.
    """
    return F.l1_loss(output, image)


def perceptual(scores: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of what the frozen segmentation network sees in two images.
    "Bidirectional Learning", section 3.3; the L1 printed there is a misprint, say its authors.

    Args:
        scores: Score maps of a translation or a reconstruction, N x C x h x w, any range: each map
            is instance-normalised here.
        reference: Score maps of the image that it was made from, of the same shape.

    Returns:
        A scalar, at least 0.
    """
    channels = scores.shape[1]  # a group each: instance norm, see networks.InstanceNorm
    return F.mse_loss(
        F.group_norm(scores, channels, eps=1e-5), F.group_norm(reference, channels, eps=1e-5)
    )
