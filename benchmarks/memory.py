"""Whether memory and file handles stay flat while thousands of images pass a network.

    python -m benchmarks.memory [--images 25000] [--size 64 32] [--only predict] [--json FILE]

Renders one image, takes it for all of the data set, and runs export, pseudo-labelling, evaluation
and predict over it in this process, or one of them. Tells resident memory, open files and child
processes after the first 250 images and at the end, and by how much the peak, that of the stage's
end included, is above that of the first 250; the exit status is 1 if memory grew by 50 MB or more
in between, the peak by 100 MB or more, or handles were left.
Needs /proc (Linux).
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import WholeImages
from bdl.domains.streets.scene import render_street
from bdl.runtime.config import Config, PseudoLabelConfig, SegmenterTraining
from bdl.runtime.console import Console
from bdl.runtime.device import make_fabric
from bdl.runtime.files import write_json
from bdl.runtime.memory import PeakMemory
from bdl.runtime.run import Run
from bdl.segmentation.checkpoint import save_segmenter
from bdl.segmentation.evaluate import evaluate
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.predictor import Predictor, predict_files
from bdl.segmentation.pseudo_labels import make_pseudo_labels
from bdl.segmentation.stages import RESULT
from bdl.translation.train import Translator
from bdl.translation.translate import export_translations
from benchmarks.common import MB, describe, exit_status, make_parser

STAGES = ("export", "pseudo-labels", "evaluation", "predict")
FIRST = 250  # images before the first look
LIMIT, PEAK_LIMIT = 50.0, 100.0  # MB


def usage() -> tuple[float, int, int]:
    """Resident memory in MB, open files, child processes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return int(resident.split()[1]) / 1024, len(os.listdir("/proc/self/fd")), len(children.split())


class Watched(Console):
    """A console that looks at this process's use of memory as tasks go on.

    Attributes:
        looks: What `usage` gave after the first images of the present stage, and after all.
        first_peak: Most MB in use during the first images.
    """

    def __init__(self) -> None:
        super().__init__(speaking=False)
        self.begin()

    def begin(self) -> None:
        """A stage begins."""
        self.looks: list[tuple[float, int, int]] = []
        self.first_peak = 0.0
        self._watch = PeakMemory()

    def peak(self) -> float:
        """The most MB in use since the last time that this was asked."""
        peak = self._watch.read()["peak_memory"] / MB
        self._watch = PeakMemory()
        return peak

    @contextmanager
    def track(self, title, total, done=0, unit="steps"):  # type: ignore[no-untyped-def]
        with super().track(title, total, done, unit) as task:
            advance = task.advance

            def look(*arguments, **named):  # type: ignore[no-untyped-def]
                advance(*arguments, **named)
                if task.done in (FIRST, total):
                    self.looks.append(usage())
                if task.done == FIRST:
                    self.first_peak = self.peak()

            task.advance = look
            yield task


def stages(run: Run, count: int, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """The work of each stage over `count` images, below the folder of `run`."""
    folder, space = run.folder, load_label_space("camvid11")
    pixels, ids = render_street(0, size, "real")
    image, label = folder / "image.png", folder / "label.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(np.minimum(ids, space.num_classes - 1)).save(label)
    samples = [Sample(f"{i:05d}", image, label) for i in range(count)]
    images, labelled = (
        WholeImages(samples, size),
        WholeImages(samples, size, space.table("train_id")),
    )
    torch.manual_seed(0)
    network = build_segmenter("compact", space.num_classes, width=4)
    training = SegmenterTraining(network="compact", options={"width": 4})
    save_segmenter(folder / RESULT, network, training, space)
    photos = {sample.name: sample.image for sample in samples}
    (folder / "predict").mkdir()
    thresholds = PseudoLabelConfig()
    return {
        "export": lambda: export_translations(
            run, folder / "export", Translator(4, 1).eval(), images, [0]
        ),
        "pseudo-labels": lambda: make_pseudo_labels(
            run, folder / "labels", network, images, size, space, thresholds
        ),
        "evaluation": lambda: evaluate(
            run, folder / "evaluation", network, labelled, space, None, [0]
        ),
        "predict": lambda: predict_files(
            Predictor(folder / RESULT, device="cpu"), run.console, photos, folder / "predict", False
        ),
    }


def main() -> int:
    parser = make_parser(str(__doc__), turns=1)
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--size", type=int, nargs=2, default=[64, 32], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--only", choices=STAGES, help="not the others")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    console, failed, measured = Watched(), False, {}
    with tempfile.TemporaryDirectory() as temporary:
        fabric = make_fabric(Config(device=options.device))
        run = Run(Path(temporary), fabric, console, workers=options.workers)
        works = stages(run, options.images, (options.size[0], options.size[1]))
        before = usage()
        for name in STAGES if options.only is None else (options.only,):
            console.begin()
            works[name]()
            after = usage()
            first, last = console.looks
            grown, peak_grown = last[0] - first[0], console.peak() - console.first_peak
            left = after[1] - before[1] > 8 or after[2] > before[2]
            failed = failed or grown >= LIMIT or peak_grown >= PEAK_LIMIT or left
            measured[name] = {
                "after_first_mb": first[0], "at_the_end_mb": last[0], "peak_grown_mb": peak_grown
            }  # fmt: skip
            print(
                f"{name}: {first[0]:.0f} MB after {FIRST} images, {last[0]:.0f} MB after "
                f"{options.images} ({grown:+.1f} MB), peak {peak_grown:+.1f} MB; "
                f"files {first[1]} -> {last[1]} -> {after[1]}, "
                f"processes {first[2]} -> {last[2]} -> {after[2]}",
                flush=True,
            )
    if options.json is not None:
        write_json(options.json, {**describe("memory", options), "stages": measured})
    return int(failed)


if __name__ == "__main__":
    sys.exit(exit_status(main))
