"""The demo's data: rendered streets, written as a data set of plain folders."""

from pathlib import Path

from PIL import Image

from domains.images import write_labels
from domains.label_space import load_label_space
from domains.streets import render_street
from runtime.console import Console
from runtime.files import save_png
from runtime.stages import Metrics

# Scenes of different roles never coincide: each role counts from its own first seed.
FIRST_SCENE = {"source": 0, "target": 1_000_000, "validation": 2_000_000}


def render_streets(
    console: Console,
    title: str,
    folder: Path,
    role: str,
    scenes: int,
    size: tuple[int, int],
    appearance: str,
) -> Metrics:
    """Render `scenes` street scenes into `folder`/images and, but for the target, /labels.

    Labels are Cityscapes train ids. No labels of the target leave the renderer. Images that are
    there are kept.
    """
    cityscapes = load_label_space("cityscapes19")  # for the colours that viewers show
    with console.track(title, scenes, unit="scenes") as task:
        for number in range(scenes):
            image_file = folder / "images" / f"{number:05d}.png"
            if not image_file.is_file():
                image, labels = render_street(FIRST_SCENE[role] + number, size, appearance)
                if role != "target":
                    write_labels(folder / "labels" / image_file.name, labels, cityscapes)
                save_png(image_file, Image.fromarray(image))
            task.advance()
    return {"scenes": scenes}
