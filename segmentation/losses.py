"""The terms of segmentation training: pure functions of tensors, each a scalar >= 0.

Section 3.2 and equations 1 to 4 of "Bidirectional Learning"; the output discriminator is that of
Tsai et al. 2018, trained with binary cross entropy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.domains.label_space import IGNORE

SOURCE, TARGET = 0.0, 1.0  # what the discriminator should say


def cross_entropy(logits: Tensor, labels: Tensor, labelled: Tensor | None = None) -> Tensor:
    """Mean cross entropy over the labelled pixels; 0 where every pixel is 255 (ignored).

    `logits` are N x C x H x W, `labels` N x H x W int64 train ids or 255. Serves the source's
    labels and the target's pseudo labels. Where the batch is one process's share of a larger one,
    `labelled` is the number of labelled pixels, above 0, that a share has on average: the mean of
    the processes' losses is then that over all labelled pixels.
    """
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (count_labelled(labels).clamp_min(1) if labelled is None else labelled)


def count_labelled(labels: Tensor) -> Tensor:
    """The number of pixels that are not ignored, as a tensor."""
    return (labels != IGNORE).sum()


def adversarial(scores: Tensor) -> Tensor:
    """What the segmentation network pays for target maps that do not look like source maps.

    Binary cross entropy of the discriminator's `scores` (logits, any shape) on the target's
    softmax maps against "source".
    """
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, SOURCE))


def discriminator(source_scores: Tensor, target_scores: Tensor) -> Tensor:
    """Half the binary cross entropy of the discriminator on source and on target maps, summed.

    The maps must be detached from the segmentation network.
    """
    on_source = F.binary_cross_entropy_with_logits(
        source_scores, torch.full_like(source_scores, SOURCE)
    )
    on_target = F.binary_cross_entropy_with_logits(
        target_scores, torch.full_like(target_scores, TARGET)
    )
    return (on_source + on_target) / 2
