"""A network in training, scored on the validation images now and then; its best state is kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bdl.domains.label_space import LabelSpace
from bdl.domains.loading import WholeImages
from bdl.runtime.config import SegmenterTraining
from bdl.runtime.console import log
from bdl.runtime.device import draws_apart
from bdl.runtime.files import load_tensors
from bdl.runtime.run import Run
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.evaluate import count_pixels, mean_iou
from bdl.segmentation.metrics import Best
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.stages import BEST


@dataclass(frozen=True)
class ValidationData:
    """What a network in training is scored on.

    Args:
        every: Steps from one evaluation to the next.
        images: Images with labels.
        size: Width and height to score at; None: the labels' own.
        on: Tells images and size apart from others.
    """

    every: int
    images: WholeImages
    size: tuple[int, int] | None
    on: str


class BestState:
    """Scores a network as it is, and keeps the state of the highest mIoU.

    Args:
        run: How the run works.
        folder: Where the best state lies, one that an interrupted process kept too: it counts if
            it was scored on the same images.
        network: The network that is trained.
        training: Its name and options.
        space: The classes.
        data: What it is scored on.
        said: What its file says of it besides.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        network: Segmenter,
        training: SegmenterTraining,
        space: LabelSpace,
        data: ValidationData,
        said: Mapping[str, float],
    ) -> None:
        self.run, self.file, self.network = run, folder / BEST, network
        self.training, self.space, self.data = training, space, data
        self.said = said
        self.best = best_in(self.file, data.on) if self.file.is_file() else None
        run.fabric.barrier()  # all have read it before it is replaced

    def look(self, step: int) -> dict[str, float]:
        """The mIoU after `step` steps, all processes together; the state is kept if it is the best.

        Raises:
            UserError: No pixel of any image is labelled.
            Stopped: A signal came to any of the processes.
        """
        fabric, data = self.run.fabric, self.data
        with _as_in_use(self.network), draws_apart(fabric.device):
            if fabric.world_size > 1:  # those of the main process are the network's
                for buffer in self.network.buffers():
                    torch.distributed.broadcast(buffer, 0)
            matrix = count_pixels(self.run, self.network, data.images, self.space, data.size)
        miou = mean_iou(matrix.iou())
        assert miou is not None
        if self.best is None or miou > self.best.miou:
            self.best = Best(step, miou)
            if self.run.is_main:
                score: dict[str, float | str] = {
                    **self.said,
                    "step": step,
                    "miou": miou,
                    "validated_on": data.on,
                }
                save_segmenter(self.file, self.network, self.training, self.space, score)
        log.info(
            "  %s: mIoU %.1f %% after step %d, best %.1f %% after step %d",
            self.run.title,
            100 * miou,
            step,
            100 * self.best.miou,
            self.best.step,
        )
        return {"miou": miou}


def best_in(file: Path, on: str) -> Best | None:
    """What a best state says of itself; None if it was scored `on` other images."""
    content = load_tensors(file)
    if content.get("validated_on") != on:
        return None
    return Best(int(content["step"]), float(content["miou"]))


@contextmanager
def _as_in_use(network: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode; afterwards each of its modules is in the mode in
    which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
