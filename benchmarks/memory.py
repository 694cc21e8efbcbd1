"""Whether memory and file handles stay flat while thousands of images are translated and labelled.

    python benchmarks/memory.py [--images 3000] [--workers 2]

Renders one image, takes it for all of the data set, and runs export and pseudo-labelling over it in
this process. Prints resident memory, open files and child processes after the first 100 images and
at the end; the exit status is 1 if memory grew by 50 MB or more in between, or handles were left.
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
SIZE = (192, 96)
FIRST, LIMIT = 100, 50.0  # images before the first look; MB


def usage() -> tuple[float, int, int]:
    """Resident memory in MB, open files, child processes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return int(resident.split()[1]) / 1024, len(os.listdir("/proc/self/fd")), len(children.split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from domains.datasets import Sample
    from domains.label_space import load_label_space
    from domains.loading import WholeImages
    from domains.streets import render_street
    from runtime.config import PseudoLabelConfig
    from runtime.console import Console, Task
    from segmentation.networks import build_segmenter
    from segmentation.pseudo_labels import make_pseudo_labels
    from translation.export import export_translations
    from translation.train import Translator

    looks: list[tuple[float, int, int]] = []

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

                    task.advance = look  # type: ignore[method-assign]
                    return task

                def __exit__(self, *exception: object) -> None:
                    tracked.__exit__(*exception)

            return Looking()

    fabric = Fabric(accelerator="cpu")
    space = load_label_space("camvid11")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.fromarray(render_street(0, SIZE, "real")[0]).save(folder / "image.png")
        samples = [Sample(f"{i:05d}", folder / "image.png", None) for i in range(options.images)]
        images = WholeImages(samples, SIZE)
        torch.manual_seed(0)
        console = Watched()
        before = usage()
        for name in ("export", "pseudo-labels"):
            looks.clear()
            if name == "export":
                translator = Translator(4, 1).eval()
                export_translations(
                    fabric, console, name, folder / name, translator, images,
                    workers=options.workers, frames=[0],
                )  # fmt: skip
            else:
                network = build_segmenter("compact", space.num_classes, width=4)
                make_pseudo_labels(
                    fabric, console, name, folder / name, network, images, space,
                    PseudoLabelConfig(), options.workers,
                )  # fmt: skip
            after = usage()
            first, last = looks
            grown = last[0] - first[0]
            left = after[1] - before[1] > 8 or after[2] > before[2]
            failed = failed or grown >= LIMIT or left
            print(
                f"{name}: {first[0]:.0f} MB after {FIRST} images, {last[0]:.0f} MB after "
                f"{options.images} ({grown:+.1f} MB); files {first[1]} -> {last[1]} -> {after[1]}, "
                f"processes {first[2]} -> {last[2]} -> {after[2]}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
