"""The terms of segmentation training: pure functions of tensors, each a scalar >= 0.

Sections 3.1 to 3.3 of "Bidirectional Learning"; the output discriminator is that of
Tsai et al. 2018, trained with binary cross entropy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.domains.label_space import IGNORE

SOURCE, TARGET = 0.0, 1.0  # what the discriminator should say


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled pixels, for labels of the source and for pseudo labels
    of the target.

    Args:
        logits: N x C x H x W.
        labels: N x H x W, int64: train ids from 0 to C - 1, or 255 for pixels to ignore.

    Returns:
        A scalar, at least 0; 0 where all pixels are ignored.
    """
    return summed_cross_entropy(logits, labels) / count_labelled(labels).clamp_min(1)


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of the cross entropy over the labelled pixels, of a batch or of a share of one.

    Args:
        logits: As of `cross_entropy`.
        labels: Likewise.

    Returns:
        A scalar, at least 0.
    """
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")


def count_labelled(labels: Tensor) -> Tensor:
    """The number of pixels that are not ignored.

    Args:
        labels: Train ids, any shape; 255 is ignored.

    Returns:
        A scalar, int64.
    """
    return (labels != IGNORE).sum()


def adversarial(scores: Tensor) -> Tensor:
    """What the segmentation network pays for predictions of the target that do not look like those
    of the source: the binary cross entropy against "source". Tsai et al. 2018, equation 4.

    Args:
        scores: The discriminator's logits of the target's softmax maps, any shape.

    Returns:
        A scalar, at least 0.
    """
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, SOURCE))


def discriminator(source_scores: Tensor, target_scores: Tensor) -> Tensor:
    """Loss of the discriminator that tells source from target: half the sum of its binary cross
    entropies on either. Tsai et al. 2018, equation 2.

    Args:
        source_scores: Its logits of the source's softmax maps, any shape; the maps are detached
            from the segmentation network.
        target_scores: Its logits of the target's softmax maps, likewise.

    Returns:
        A scalar, at least 0.
    """
    on_source = F.binary_cross_entropy_with_logits(
        source_scores, torch.full_like(source_scores, SOURCE)
    )
    on_target = F.binary_cross_entropy_with_logits(
        target_scores, torch.full_like(target_scores, TARGET)
    )
    return (on_source + on_target) / 2
