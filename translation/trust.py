"""How far a frozen network knows the target, without the target's labels.

The perceptual terms hold what the network sees. Where it takes the target's ground for things, they
make the translator draw what the network is used to, and not what the target looks like.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.domains.class_shares import knowledge, overlap, ramp
from bdl.domains.datasets import spread
from bdl.domains.loading import WholeImages, share, whole_images
from bdl.domains.tensors import to_unit
from bdl.runtime.device import sum_over_processes
from bdl.runtime.run import Run
from bdl.translation.metrics import Trust

_LOOKED_AT = 40  # target images
_SCALE = 0.75  # of the smaller view
# By chance alone both are 0. Up to the first of the ends nothing is known, from the second on
# enough.
_AGREEMENT = 0.1, 0.3
_CONFIDENCE = 0.1, 0.3


def judge(predicted: np.ndarray, labels: np.ndarray, views: np.ndarray, confidence: float) -> Trust:
    """Trust in a network, from what it says of target images.

    The factor is the least of three, each 0 to 1: by the spread of the predictions over the classes
    (`knowledge`), by the agreement of an image's views, and by the confidence.

    Args:
        predicted: Pixels by predicted train id.
        labels: The same of the source's labels.
        views: Pixels by the train id that an image has (rows) and that another view of it has.
        confidence: Mean of the largest probability, in [0, 1].
    """
    cells = views / max(1, views.sum())
    same, by_chance = np.trace(cells), float(cells.sum(0) @ cells.sum(1))
    agreement = (same - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
    least = 1 / len(predicted)
    certainty = (confidence - least) / (1 - least) if least < 1 else 0.0
    return Trust(
        factor=min(
            knowledge(predicted, labels),
            ramp(agreement, _AGREEMENT),
            ramp(certainty, _CONFIDENCE),
        ),
        overlap=overlap(predicted, labels),
        agreement=float(agreement),
        confidence=confidence,
        on_target=predicted.astype(int).tolist(),
        labels=labels.astype(int).tolist(),
    )


@torch.no_grad()
def measure_trust(
    run: Run, score_maps: Callable[[Tensor], Tensor], target: WholeImages, labels: np.ndarray
) -> Trust:
    """Trust in a frozen network, measured on up to 40 target images, spread evenly.

    Each is seen as it is, mirrored, and smaller. Draws nothing at random.

    Args:
        run: How the run works.
        score_maps: The network: images N x 3 x H x W in [0, 1] to maps N x C x h x w.
        target: Target images.
        labels: Pixels of the source's labels by train id: C numbers.

    Raises:
        UserError: An image cannot be read.
    """
    fabric, classes = run.fabric, len(labels)

    def look(images: Tensor) -> Tensor:
        with fabric.autocast():
            scores = score_maps(images)
        return scores.float().softmax(1)

    counts = torch.zeros(classes, classes, dtype=torch.int64)
    predicted = torch.zeros(classes, dtype=torch.int64)
    sure = torch.zeros(2, dtype=torch.float64)  # the sum of confidences, and their number
    indices = spread(len(target), _LOOKED_AT)
    mine = [indices[i] for i in share(len(indices), fabric.global_rank, fabric.world_size)]
    for batch in whole_images(target, mine, run.workers):
        image = to_unit(fabric.to_device(batch["image"]))
        maps = look(image)
        best = maps.max(1)
        ids = best.indices.flatten().cpu()
        predicted += torch.bincount(ids, minlength=classes)
        sure += torch.tensor([float(best.values.cpu().double().sum()), best.values.numel()])
        smaller = F.interpolate(image, scale_factor=_SCALE, mode="bilinear", antialias=True)
        for view in (look(image.flip(-1)).flip(-1), look(smaller)):
            seen = F.interpolate(view, maps.shape[-2:], mode="bilinear").argmax(1).flatten().cpu()
            pairs = torch.bincount(ids * classes + seen, minlength=classes**2)
            counts += pairs.view(classes, classes)
    counts, predicted, sure = (sum_over_processes(fabric, v) for v in (counts, predicted, sure))
    return judge(predicted.numpy(), labels, counts.numpy(), float(sure[0] / sure[1].clamp_min(1)))
