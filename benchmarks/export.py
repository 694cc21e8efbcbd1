"""Translation of the training set: one image after the other, and ours.

    python -m benchmarks.export [--device cuda] [--size 1280 720] [--images 8] [--json FILE]

As published: an image is read, translated in float32 and written before the next one is read. Ours
is `export_translations`: loader processes read and threads write meanwhile, in float32 and in the
precision that `precision=auto` chooses. The same random generator of the published size.
"""

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bdl.domains.datasets import Sample
from bdl.domains.loading import WholeImages
from bdl.domains.streets.scene import render_street
from bdl.runtime.config import Config
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.run import Run
from bdl.translation.stages import image_path
from bdl.translation.train import Translator
from bdl.translation.translate import export_translations
from benchmarks import published
from benchmarks.common import PUBLISHED, Numbers, Way, Work, compare, exit_status, make_parser


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Translator, list[Sample]]:
    """A translator and rendered streets as files in `folder`."""
    torch.manual_seed(0)
    translator = Translator(options.width, options.blocks)
    samples = []
    for number in range(options.images):
        file = folder / f"{number}.png"
        Image.fromarray(render_street(number, tuple(options.size), "synthetic")[0]).save(file)
        samples.append(Sample(str(number), file, None))
    return translator, samples


def mean_level(files: list[Path]) -> Numbers:
    """By what the ways are compared: the mean of all written pixels, 0 to 255."""
    return {"level": float(np.mean([np.asarray(Image.open(file)).mean() for file in files]))}


def as_published(options: argparse.Namespace) -> Work:
    temporary = tempfile.TemporaryDirectory()
    folder = Path(temporary.name)
    translator, samples = prepare(options, folder)
    generator = published.Generator(options.width, options.blocks)
    generator.load_state_dict(translator.a_to_b.state_dict())
    generator.to(options.device)

    @torch.no_grad()
    def work() -> Numbers:
        files = []
        for sample in samples:
            image = Image.open(sample.image).convert("RGB")
            image = image.resize(options.size, Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1).copy())
            output = generator(pixels[None].to(options.device) / 127.5 - 1)
            array = (output[0].cpu().numpy().transpose(1, 2, 0) + 1) / 2 * 255
            files.append(Path(temporary.name) / f"translated-{sample.name}.png")
            Image.fromarray(array.round().astype(np.uint8)).save(files[-1])
        return mean_level(files)

    return work


def ours(options: argparse.Namespace, precision: str = "auto") -> Work:
    temporary = tempfile.TemporaryDirectory()
    folder = Path(temporary.name)
    translator, samples = prepare(options, folder)
    fabric = make_fabric(Config(device=options.device, precision=precision))
    images = WholeImages(samples, tuple(options.size))
    run = Run(folder, fabric, Console(speaking=False), workers=options.workers)

    def work() -> Numbers:
        out = Path(temporary.name) / "translated"
        shutil.rmtree(out, ignore_errors=True)
        export_translations(run, out, translator, images, frames=[])
        return mean_level([image_path(out, sample.name) for sample in samples])

    return work


WAYS: dict[str, Way] = {
    PUBLISHED: as_published,
    "ours, float32": partial(ours, precision="32-true"),
    "ours, auto": ours,
}


def main() -> None:
    parser = make_parser(__doc__, turns=3)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument(
        "--size", type=int, nargs=2, default=[320, 184], metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument("--width", type=int, default=64, help="channels of the first convolutions")
    parser.add_argument("--blocks", type=int, default=9, help="residual blocks")
    parser.add_argument("--workers", type=int, default=1, help="processes that load for ours")
    compare("export", WAYS, parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
