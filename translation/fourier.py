"""Translation without a translator: the low frequencies' amplitudes of target images."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bdl.domains.loading import WholeImages
from bdl.domains.tensors import to_unit
from bdl.runtime.device import random_for
from bdl.runtime.run import Run
from bdl.translation.metrics import TranslatedMetrics
from bdl.translation.translate import export_each


def swap_amplitude(image: Tensor, other: Tensor, beta: float) -> Tensor:
    """The image with the low frequencies' amplitudes of another one; all phases are its own.

    Low are frequencies of at most floor(`beta` H) cycles down and floor(`beta` W) cycles across:
    a window that is centred on the mean, which belongs to it.

    Args:
        image: N x C x H x W.
        other: The same of what the amplitudes are taken from, of equal shape.
        beta: Half the window's sides, as a part of the image's; 0 to 0.5.

    Returns:
        N x C x H x W, which may leave the range of both.

    Source:
        Equation 3 of "FDA: Fourier Domain Adaptation for Semantic Segmentation" (Yang and Soatto,
        CVPR 2020).
    """
    spectrum, amplitude = torch.fft.fft2(image), torch.fft.fft2(other).abs()
    low = [
        (torch.fft.fftfreq(side, 1 / side, device=image.device).abs() <= int(beta * side))
        for side in image.shape[-2:]
    ]
    window = low[0][:, None] & low[1]
    return torch.fft.ifft2(
        torch.where(window, torch.polar(amplitude, spectrum.angle()), spectrum)
    ).real


def partner(seed: int, name: str, count: int) -> int:
    """Which of `count` target images a source image is paired with: by seed and name alone."""
    return int(random_for(seed, f"fda {name}").integers(count))


def export_with_amplitudes(
    run: Run, folder: Path, images: WholeImages, target: WholeImages, beta: float, seed: int
) -> TranslatedMetrics:
    """Write every source image below `folder`/images, with the low frequencies of a target image;
    those there are kept.

    Args:
        run: How the run works.
        folder: Where to write.
        images: Source images, at the size at which segmentation will see them.
        target: Target images; each is resized to the source image that it is paired with.
        beta: Half the window's sides, see `swap_amplitude`.
        seed: Of who is paired with whom.

    Raises:
        UserError: An image cannot be read.
    """

    @torch.inference_mode()
    def translate(index: int, image: Tensor) -> tuple[Tensor, None]:
        item = target[partner(seed, images.samples[index].name, len(target))]
        other = to_unit(run.fabric.to_device(item["image"][None]))
        if other.shape != image.shape:
            other = F.interpolate(other, image.shape[-2:], mode="bilinear", antialias=True)
        return swap_amplitude(image, other, beta), None

    return export_each(run, folder, images, translate)
