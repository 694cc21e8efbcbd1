"""A trained network on a user's own photos.

predictor = Predictor("runs/demo")
labels = predictor("photo.jpg")  # H x W train ids, at the photo's size
overlay(open_image(Path("photo.jpg")), labels, predictor.space).save("overlay.png")
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from domains.datasets import IMAGE_ENDINGS
from domains.images import label_image, open_image, to_tensor, to_unit, write_labels
from domains.label_space import LabelSpace, described
from runtime.config import Config
from runtime.console import Console
from runtime.device import any_sizes, make_fabric
from runtime.errors import UserError
from runtime.files import atomic
from runtime.stages import MANIFEST, read_manifest
from segmentation.networks.base import upsample
from segmentation.predict import mean_over_views, probabilities, windowed_probabilities
from segmentation.train import RESULT, load_segmenter

_SMALLEST = 8  # pixels of a side that a network is given at least


class Predictor:
    """Class probabilities and labels of photos of any size.

    `checkpoint` is a segmenter.pt, the folder of a stage that holds one, or the folder of a run,
    of which the last finished network is taken. A photo is resized to `size` (width, height)
    first; without it, to the width that the network was trained at, where the checkpoint lies in
    its stage's folder, else it stays as it is. `window` (width, height) slides over the resized
    photo. `scales` resize it once more for each factor, and `flip` mirrors each; the
    probabilities' mean counts. Raises UserError for a checkpoint that is none.

    `space` are the classes' names and colours, `file` is the checkpoint that was found, and
    `trained_size` (width, height) that of its training, if that is known.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        size: tuple[int, int] | None = None,
        window: tuple[int, int] | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        device: str = "auto",
        precision: str = "32-true",
    ) -> None:
        for name, pair in (("size", size), ("window", window)):
            if pair is not None and min(pair) < _SMALLEST:
                raise UserError(
                    f"{name}: is {pair[0]} {pair[1]}, must be width and height in pixels, at "
                    f"least {_SMALLEST} each"
                )
        if not scales or not all(0 < scale < float("inf") for scale in scales):
            raise UserError("scales: must be one or more numbers above 0")
        self.file = find_segmenter(Path(checkpoint))
        self.size, self.window, self.flip, self.scales = size, window, flip, tuple(scales)
        self.fabric = make_fabric(Config(device=device, precision=precision))
        self.fabric.launch()
        network, description = load_segmenter(self.file)
        self.space: LabelSpace = described(description)
        self.network = network
        self.fabric.to_device(network)
        self.trained_size = trained_size(self.file)

    def __call__(self, photo: str | Path | Image.Image) -> np.ndarray:
        """Train ids, H x W uint8, of a photo (a file, or an RGB image) at its own size."""
        return self.labels(self.probabilities(photo))

    def labels(self, maps: Tensor) -> np.ndarray:
        """Train ids, H x W uint8, from `probabilities`."""
        return maps.argmax(0).byte().cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, photo: str | Path | Image.Image) -> Tensor:
        """Class probabilities of a photo at its own size: C x H x W float32, summing to 1."""
        image = photo if isinstance(photo, Image.Image) else open_photo(Path(photo))
        image = image.convert("RGB")
        size = (image.height, image.width)
        views = [self._view(image, scale) for scale in self.scales]
        with any_sizes():
            return mean_over_views(lambda view: self._pass(view, size), views, self.flip)[0]

    def _view(self, image: Image.Image, scale: float) -> Tensor:
        """The photo as the network gets it, 1 x 3 x h x w in [0, 1]."""
        width, height = image.size
        if self.size is not None:
            width, height = self.size
        elif self.trained_size is not None:
            height = round(height * self.trained_size[0] / width)
            width = self.trained_size[0]
        size = (max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale)))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return to_unit(self.fabric.to_device(to_tensor(image)[None]))

    def _pass(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if self.window is None:
            return probabilities(self.fabric, self.network, images, size)
        maps = windowed_probabilities(self.fabric, self.network, images, self.window[::-1])
        return upsample(maps, size)


def find_segmenter(place: Path) -> Path:
    """The segmenter.pt that `place` means: itself, that in it, or the last that a run finished.

    Raises UserError if there is none.
    """
    if place.is_file():
        return place
    if not place.exists():
        raise UserError(f"{place}: no such file or folder; give a run's folder or a {RESULT}")
    if (place / RESULT).is_file():
        return place / RESULT
    finished = [
        file
        for pattern in (f"*/{RESULT}", f"*/*/{RESULT}")
        for file in place.glob(pattern)
        if (file.parent / MANIFEST).is_file()
    ]
    if not finished:
        raise UserError(f"{place}: holds no finished segmentation network ({RESULT})")

    def k_and_i(file: Path) -> list[int]:
        numbers = re.findall(r"\d+", file.parent.relative_to(place).as_posix())
        return [int(number) for number in numbers]

    return max(finished, key=k_and_i)


def trained_size(file: Path) -> tuple[int, int] | None:
    """Width and height of the target's images (of the source's, without target) that the network
    in `file` was trained on; None if that is not known, or differed from image to image."""
    settings = (read_manifest(file.parent) or {}).get("settings", {})
    for role in ("target", "source"):
        if role in settings:
            size = settings[role].get("size")
            return (size[0], size[1]) if size else None
    return None


def open_photo(file: Path) -> Image.Image:
    """The photo as RGB, upright: cameras store it as taken, with a note of how it was held."""
    return ImageOps.exif_transpose(open_image(file))


def overlay(photo: Image.Image, labels: np.ndarray, space: LabelSpace) -> Image.Image:
    """The classes' colours over the photo, both shining through; `labels` are H x W train ids."""
    colors = label_image(labels, space).convert("RGB")
    return Image.blend(photo.convert("RGB"), colors, 0.5)


def find_photos(place: Path, out: Path) -> dict[str, Path]:
    """The photo at `place`, or all below it but those in `out`, by name: path without ending.

    Raises UserError if there are none, or if two share a name.
    """
    if place.is_file():
        return {place.stem: place}
    if not place.is_dir():
        raise UserError(f"{place}: no such file or folder; give a photo or a folder of photos")
    photos: dict[str, Path] = {}
    for file in sorted(place.rglob("*")):
        if file.suffix.lower() not in IMAGE_ENDINGS or out.resolve() in file.resolve().parents:
            continue
        name = file.relative_to(place).with_suffix("").as_posix()
        if name in photos:
            raise UserError(
                f"{file}: has the same name as {photos[name].name}, so that its result would "
                "replace the other's; rename one"
            )
        photos[name] = file
    if not photos:
        raise UserError(f"{place}: holds no images ({', '.join(IMAGE_ENDINGS)})")
    return photos


def predict_files(
    predictor: Predictor, console: Console, photos: dict[str, Path], out: Path, keep_maps: bool
) -> None:
    """Write `out`/labels/NAME.png (train ids, in the classes' colours), `out`/overlays/NAME.jpg
    and, with `keep_maps`, `out`/probabilities/NAME.npz: "probabilities", C x H x W in 16-bit
    floats, and "classes", their names."""
    with console.track("predict", len(photos), unit="images") as task:
        for name, file in photos.items():
            photo = open_photo(file)
            maps = predictor.probabilities(photo)
            labels = predictor.labels(maps)
            write_labels(out / "labels" / f"{name}.png", labels, predictor.space)
            with atomic(out / "overlays" / f"{name}.jpg") as partial:
                overlay(photo, labels, predictor.space).save(partial, format="JPEG", quality=90)
            if keep_maps:
                values = maps.half().cpu().numpy()
                with (
                    atomic(out / "probabilities" / f"{name}.npz") as partial,
                    open(partial, "wb") as opened,
                ):
                    np.savez_compressed(
                        opened, probabilities=values, classes=np.array(predictor.space.names)
                    )
            task.advance()
