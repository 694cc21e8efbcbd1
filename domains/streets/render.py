"""Rendered streets as a data set of plain folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bdl.domains.images import write_labels
from bdl.domains.label_space import load_label_space
from bdl.domains.streets.scene import render_street
from bdl.runtime.files import save_png
from bdl.runtime.run import Run

if TYPE_CHECKING:
    from bdl.domains.streets.stages import RenderedStreets


def render_streets(run: Run, folder: Path, streets: RenderedStreets, first: int) -> None:
    """Render street scenes into `folder`/images and, but for the target, /labels.

    Labels are Cityscapes train ids. No labels of the target leave the renderer. Images that are
    there are kept.

    Args:
        run: How the run works.
        folder: Where to write.
        streets: What to render.
        first: Number of the first scene; a number makes the same scene each time.
    """
    cityscapes = load_label_space("cityscapes19")  # for the colours that viewers show
    with run.console.track(run.title, streets.scenes, unit="scenes") as task:
        for number in range(streets.scenes):
            image_file = folder / "images" / f"{number:05d}.png"
            if not image_file.is_file():
                image, labels = render_street(first + number, streets.size, streets.appearance)
                if streets.role != "target":
                    write_labels(folder / "labels" / image_file.name, labels, cityscapes)
                save_png(image_file, Image.fromarray(image))
            task.advance()
