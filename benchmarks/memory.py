"""Whether memory and file handles stay flat while thousands of images are translated and labelled.

    python benchmarks/memory.py [--images 3000] [--size 192 96] [--only pseudo-labels] [--workers 2]

Renders one image, takes it for all of the data set, and runs export and pseudo-labelling over it in
this process, or one of them. Prints resident memory, open files and child processes after the first
100 images and at the end, and by how much the peak, that of the stage's end included, is above that
of the first 100; the exit status is 1 if memory grew by 50 MB or more in between, the peak by 100
MB or more, or handles were left.
Needs /proc (Linux).
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from lightning.fabric import Fabric
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("export", "pseudo-labels")
FIRST = 100  # images before the first look
LIMIT, PEAK_LIMIT = 50.0, 100.0  # MB


def usage() -> tuple[float, int, int]:
    """Resident memory in MB, open files, child processes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return int(resident.split()[1]) / 1024, len(os.listdir("/proc/self/fd")), len(children.split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--size", type=int, nargs=2, default=[192, 96], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--only", choices=STAGES, help="not the other one")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from bdl.domains.datasets import Sample
    from bdl.domains.label_space import load_label_space
    from bdl.domains.loading import WholeImages
    from bdl.domains.streets.scene import render_street
    from bdl.runtime.config import PseudoLabelConfig
    from bdl.runtime.console import Console, Task
    from bdl.runtime.memory import PeakMemory
    from bdl.runtime.run import Run
    from bdl.segmentation.networks import build_segmenter
    from bdl.segmentation.pseudo_labels import make_pseudo_labels
    from bdl.translation.train import Translator
    from bdl.translation.translate import export_translations

    looks: list[tuple[float, int, int]] = []
    peaks: list[float] = []  # MB, of the first images

    def peak() -> float:
        """The most resident memory in MB since the last time that this was asked."""
        found = watches.pop().read()["peak_memory"] / 2**20
        watches.append(PeakMemory())
        return found

    watches = [PeakMemory()]

    class Watched(Console):
        """A console that looks at this process's use of memory as tasks go on."""

        def track(self, title, total, done=0, unit="steps"):  # type: ignore[no-untyped-def]
            tracked = super().track(title, total, done, unit)

            class Looking:
                def __enter__(self) -> Task:
                    task = tracked.__enter__()
                    advance = task.advance

                    def look(*arguments, **named):  # type: ignore[no-untyped-def]
                        advance(*arguments, **named)
                        if task.done in (FIRST, total):
                            looks.append(usage())
                        if task.done == FIRST:
                            peaks.append(peak())

                    task.advance = look  # type: ignore[method-assign]
                    return task

                def __exit__(self, *exception: object) -> None:
                    tracked.__exit__(*exception)

            return Looking()

    size = (options.size[0], options.size[1])
    fabric = Fabric(accelerator="cpu")
    space = load_label_space("camvid11")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.fromarray(render_street(0, size, "real")[0]).save(folder / "image.png")
        samples = [Sample(f"{i:05d}", folder / "image.png", None) for i in range(options.images)]
        images = WholeImages(samples, size)
        torch.manual_seed(0)
        run = Run(folder, fabric, Watched(), workers=options.workers)
        before = usage()
        for name in STAGES if options.only is None else (options.only,):
            looks.clear()
            peaks.clear()
            peak()
            if name == "export":
                translator = Translator(4, 1).eval()
                export_translations(run.named(name), folder / name, translator, images, [0])
            else:
                network = build_segmenter("compact", space.num_classes, width=4)
                make_pseudo_labels(
                    run.named(name), folder / name, network, [images], size, space,
                    PseudoLabelConfig(),
                )  # fmt: skip
            after = usage()
            first, last = looks
            grown, peak_grown = last[0] - first[0], peak() - peaks[0]
            left = after[1] - before[1] > 8 or after[2] > before[2]
            failed = failed or grown >= LIMIT or peak_grown >= PEAK_LIMIT or left
            print(
                f"{name}: {first[0]:.0f} MB after {FIRST} images, {last[0]:.0f} MB after "
                f"{options.images} ({grown:+.1f} MB), peak {peak_grown:+.1f} MB; "
                f"files {first[1]} -> {last[1]} -> {after[1]}, "
                f"processes {first[2]} -> {last[2]} -> {after[2]}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
