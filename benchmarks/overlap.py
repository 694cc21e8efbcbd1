"""Whether reading, network and writing go on at once where many images pass a network.

    python -m benchmarks.overlap [--images 40] [--read 0.05] [--network 0.05] [--write 0.05]

Runs evaluation, pseudo labels, export and predict with a reader, a network and a writer that each
wait for so many seconds an image, as for a disk or a GPU, and otherwise have next to nothing to do.
"one by one" is the sum of what all of them wait, "at once" what the stage took; its least is what
the slowest of them waits, shared between its processes or threads. An evaluation writes nothing,
and pseudo labels wait for all images before they write.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.runtime.config import Config, PseudoLabelConfig, SegmenterTraining
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.run import Run
from bdl.segmentation import predictor, pseudo_labels
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.evaluate import evaluate
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import Segmenter
from bdl.segmentation.stages import RESULT
from bdl.translation import translate
from bdl.translation.train import Translator
from benchmarks.common import describe, exit_status, make_parser, table, tell

SIZE = (32, 32)  # width and height of the images
SPACE = load_label_space("camvid11")
OPTIONS = {"width": 4}


class SlowImages(WholeImages):
    """Images whose reading waits."""

    seconds = 0.0

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.seconds)
        return super().__getitem__(index)


def waiting(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The same function after so many seconds."""

    def call(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **named)

    return call


def slow_network(seconds: float) -> Segmenter:
    """A network of next to nothing that waits as for a device."""
    torch.manual_seed(0)
    network = build_segmenter("compact", SPACE.num_classes, **OPTIONS)
    network.scores = waiting(network.scores, seconds)  # type: ignore[method-assign]
    return network


def stages(
    options: argparse.Namespace, folder: Path
) -> dict[str, tuple[Callable[[], object], float]]:
    """The work of each stage, and the seconds that it waits in all, by the stage's name."""
    read, compute, write = options.read, options.network, options.write
    rng = np.random.default_rng(0)
    samples = []
    for number in range(options.images):
        image, label = folder / f"images/{number}.png", folder / f"labels/{number}.png"
        for file in (image, label):
            file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 11, (SIZE[1], SIZE[0]), np.uint8)).save(label)
        samples.append(Sample(str(number), image, label))
    SlowImages.seconds = read
    unlabelled = SlowImages(samples, SIZE)
    labelled = SlowImages(samples, SIZE, SPACE.table("train_id"))
    fabric = make_fabric(Config(device=options.device))
    run = Run(folder, fabric, Console(speaking=False), workers=options.workers)

    def scored() -> object:
        return evaluate(
            run, folder / "scored", slow_network(compute), labelled, SPACE, None, frames=[]
        )

    def labels() -> object:
        with patch.object(
            pseudo_labels, "write_labels", waiting(pseudo_labels.write_labels, write)
        ):
            return pseudo_labels.make_pseudo_labels(
                run, folder / "made", slow_network(compute), unlabelled, SIZE, SPACE,
                PseudoLabelConfig(),
            )  # fmt: skip

    def export() -> object:
        translator = Translator(4, 1).eval()
        with (
            patch.object(translate, "save_png", waiting(translate.save_png, write)),
            patch.object(translator, "to_target", waiting(translator.to_target, compute)),
        ):
            return translate.export_translations(
                run, folder / "translated", translator, unlabelled, frames=[]
            )

    def predict() -> object:
        training = SegmenterTraining(network="compact", options=dict(OPTIONS))
        save_segmenter(folder / RESULT, slow_network(0), training, SPACE)
        network = predictor.Predictor(folder / RESULT, device=options.device)
        network.network.scores = waiting(network.network.scores, compute)  # type: ignore[method-assign]
        photos = {sample.name: sample.image for sample in samples}
        with (
            patch.object(predictor, "open_image", waiting(predictor.open_image, read)),
            patch.object(predictor, "write_labels", waiting(predictor.write_labels, write)),
        ):
            out = folder / "predicted"
            out.mkdir()
            return predictor.predict_files(network, run.console, photos, out, keep_maps=False)

    count = options.images
    return {
        "evaluation": (scored, count * (read + compute)),
        "pseudo labels": (labels, count * (read + compute + write)),
        "export": (export, count * (read + compute + write)),
        "predict": (predict, count * (read + compute + write)),
    }


def main() -> int:
    parser = make_parser(str(__doc__), turns=1)
    parser.add_argument("--images", type=int, default=40)
    for name, help in (("read", "an image"), ("network", "of the network"), ("write", "a file")):
        parser.add_argument(
            f"--{name}", type=float, default=0.05, metavar="SECONDS", help=f"{help} (default 0.05)"
        )
    parser.add_argument("--workers", type=int, default=2, help="processes that read (default 2)")
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (work, waits) in stages(options, Path(temporary)).items():
            begun = time.perf_counter()
            work()
            seconds = time.perf_counter() - begun
            measured[name] = {"one_by_one": waits, "seconds": seconds, "ratio": waits / seconds}
    result = describe("overlap", options)
    result |= {"stages": measured, "ratio": min(stage["ratio"] for stage in measured.values())}
    rows = [
        [name, f"{stage['one_by_one']:.2f}", f"{stage['seconds']:.2f}", f"{stage['ratio']:.2f}"]
        for name, stage in measured.items()
    ]
    print(table(["stage", "one by one, s", "at once, s", "ratio"], rows), flush=True)
    tell(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
