"""Images of any size for networks that want sides of a certain multiple."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, multiple: int, least: int = 0) -> Tensor:
    """Pad with zeros on the right and below until both sides are multiples.

    Args:
        images: N x C x H x W, normalised: a zero is the mean colour.
        multiple: Of the padded height and width.
        least: The padded height and width are at least that, a multiple, too.

    Returns:
        N x C x H' x W', each side the next multiple; the same tensor if nothing is missing.
    """
    below, right = (_missing(side, multiple, least) for side in images.shape[-2:])
    # An exported network pads any size, also where the size that it was exported with needs none.
    if torch.compiler.is_exporting() or below or right:
        return F.pad(images, (0, right, 0, below))
    return images


def crop_scores(scores: Tensor, images: Tensor, stride: int | Fraction) -> Tensor:
    """Cut off what lies over the padding.

    Args:
        scores: N x C x h x w, of padded images.
        images: N x 3 x H x W, before padding.
        stride: Pixels of the image between neighbouring scores.

    Returns:
        N x C x ceil(H / stride) x ceil(W / stride).
    """
    over, under = stride.numerator, stride.denominator
    rows, columns = (-(-side * under // over) for side in images.shape[-2:])
    return scores[..., :rows, :columns].contiguous()


def _missing(side: int, multiple: int, least: int) -> int:
    """Pixels that a side lacks."""
    short = -side % multiple
    return short if least <= multiple else torch.sym_max(short, least - side)  # type: ignore[return-value]
