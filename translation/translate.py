"""Translation of whole images with a trained translator."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor

from bdl.domains.loading import WholeImages, share, whole_images
from bdl.domains.tensors import to_bytes, to_unit
from bdl.runtime.device import seed_torch
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import load_tensors, save_png
from bdl.runtime.run import Run
from bdl.runtime.weights import require_finite
from bdl.runtime.writing import Writer
from bdl.translation.metrics import TranslatedMetrics
from bdl.translation.networks import memory_format
from bdl.translation.stages import RESULT, image_path, reconstruction_path
from bdl.translation.train import Translator


def load_translator(folder: Path) -> Translator:
    """The translator that `train_translator` wrote into `folder`, ready for use on the CPU."""
    file = folder / RESULT
    return as_translator(load_tensors(file), file)


def as_translator(content: dict[str, Any], file: Path) -> Translator:
    """The same from the `content` of any file. Raises UserError, which names the `file`, if it
    holds no translator of this project."""
    try:
        translator = Translator(**content["options"])
        translator.load_state_dict(content["state"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{file}: is not a translator of this project ({first_line(error)})"
        ) from None
    require_finite(file, content["state"])
    return translator.eval()


def export_translations(
    run: Run,
    folder: Path,
    translator: Translator,
    images: WholeImages,
    frames: Collection[int],
) -> TranslatedMetrics:
    """Write every source image, translated whole, below `folder`/images; those there are kept.

    Args:
        run: How the run works.
        folder: Where to write.
        translator: F(k).
        images: Source images, at the size at which segmentation will see them.
        frames: Indices of images of which the reconstructions G_BA(G_AB(a)) are written, too.
    """
    fabric = run.fabric
    fabric.to_device(translator).to(memory_format=memory_format(fabric.device))

    def translate(index: int, image: Tensor) -> tuple[Tensor, Tensor | None]:
        # Its grain is the same whatever was translated before, and by which process.
        seed_torch(index, "grain")
        translated = generate(fabric, translator.to_target, image)
        back = generate(fabric, translator.b_to_a, translated) if index in frames else None
        return translated, back

    return export_each(run, folder, images, translate)


def export_each(
    run: Run,
    folder: Path,
    images: WholeImages,
    translate: Callable[[int, Tensor], tuple[Tensor, Tensor | None]],
) -> TranslatedMetrics:
    """Write what `translate` makes of every image; those there are kept.

    Where a source image is transparent, so is its translation.

    Args:
        run: How the run works.
        folder: Where to write.
        images: Source images.
        translate: An image's index and the image, 1 x 3 x H x W in [0, 1] on the device, to its
            translation, clamped to that range when it is written, and to its reconstruction, None
            where none is written.
    """
    fabric = run.fabric
    mine = share(len(images), fabric.global_rank, fabric.world_size)
    left = [index for index in mine if not image_path(folder, images.samples[index].name).is_file()]
    with (
        run.console.track(run.title, len(mine), len(mine) - len(left), "images") as task,
        Writer() as writer,
    ):
        for batch in whole_images(images, left, run.workers):
            index = int(batch["index"])
            translated, back = translate(index, to_unit(fabric.to_device(batch["image"])))
            pixels = to_bytes(translated[0])
            if "opaque" in batch:  # what is no data stays none
                alpha = batch["opaque"][0].numpy().astype(np.uint8) * np.uint8(255)
                pixels = np.dstack([pixels, alpha])
            files = {image_path(folder, images.samples[index].name): pixels}
            if back is not None:
                # First: where the translation is, nothing is left to do for that image.
                files = {reconstruction_path(folder, index): to_bytes(back[0]), **files}
            writer.submit(_save, files)
            task.advance()
    fabric.barrier()
    return TranslatedMetrics(images=len(images))


def _save(files: dict[Path, np.ndarray]) -> None:
    for file, pixels in files.items():
        save_png(file, Image.fromarray(pixels))


@torch.inference_mode()
def generate(fabric: Fabric, generator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Images, N x 3 x H x W in [0, 1], through a generator; float32 in [0, 1]."""
    with fabric.autocast():
        return generator(images).float()
