"""A trained network on a user's own photos.

predictor = Predictor("runs/demo")
labels = predictor("photo.jpg")  # H x W train ids, at the photo's size
overlay(open_image(Path("photo.jpg")).image, labels, predictor.space).save("overlay.png")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bdl.domains.endings import named_endings, without_ending
from bdl.domains.images import (
    Photo,
    as_photo,
    label_image,
    open_image,
    without_data,
    write_labels,
)
from bdl.domains.index import Index
from bdl.domains.label_space import LabelSpace, described
from bdl.domains.matching import excess_of, find, named_alike, normal, parts_of
from bdl.domains.tensors import to_tensor, to_unit
from bdl.runtime.config import Config, DeviceName, PrecisionName
from bdl.runtime.console import Console, counted, log
from bdl.runtime.device import make_fabric
from bdl.runtime.errors import UserError
from bdl.runtime.files import atomic, is_no_folder
from bdl.runtime.writing import WAITING, Writer, read_ahead
from bdl.segmentation.checkpoint import load_segmenter
from bdl.segmentation.choice import find_segmenter
from bdl.segmentation.maps import Maps, Stored, Upsampled
from bdl.segmentation.network_name import is_users_own, module_digest
from bdl.segmentation.predict import mean_over_views, own_probabilities, windowed
from bdl.segmentation.prediction_record import PredictionRecord
from bdl.segmentation.run_view import run_view

_LONGEST = 65_500  # pixels of a JPEG's side
_SMALLEST = 8  # pixels of a side that a network is given at least
_SCALES = (0.1, 10)  # of the size that a network is given
_MAPS = 2  # photos whose probabilities, which are large, wait to be written


class Predictor:
    """Class probabilities and labels of photos of any size.

    Args:
        checkpoint: A segmenter.pt, the folder of a stage that holds one, or the folder of a run, of
            which the last finished network is taken.
        size: Width and height in pixels, at least 8, that photos are resized to for the network.
            Default: as the run that the checkpoint lies in evaluates images; else the photo's own.
        window: Width and height in pixels, at least 8, of a window that slides over the resized
            photo.
        flip: Whether to take the mean with the mirrored photo's probabilities.
        scales: Factors from 0.1 to 10 that the photo is resized by once more; the mean is taken.
        device: What computes: auto, cpu, cuda or mps.
        precision: 32-true, bf16-mixed, 16-mixed or auto.
        own_network: python:MODULE:FUNCTION, needed for a network whose code is your own.

    Attributes:
        space: The classes' names and colours.
        file: The checkpoint that was taken.
        view: How photos are resized without `size`, as the run resizes validation images.

    Raises:
        UserError: For a checkpoint that is none, or a value that cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        size: tuple[int, int] | None = None,
        window: tuple[int, int] | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        device: DeviceName = "auto",
        precision: PrecisionName = "32-true",
        own_network: str | None = None,
    ) -> None:
        for name, pair in (("size", size), ("window", window)):
            if pair is not None and min(pair) < _SMALLEST:
                raise UserError(
                    f"{name}: is {pair[0]} {pair[1]}, must be width and height in pixels, at "
                    f"least {_SMALLEST} each"
                )
        smallest, largest = _SCALES
        if not scales or not all(smallest <= scale <= largest for scale in scales):
            raise UserError(f"scales: must be one or more numbers from {smallest} to {largest}")
        self.file = find_segmenter(Path(checkpoint))
        self.size, self.window, self.flip, self.scales = size, window, flip, tuple(scales)
        self.precision = precision
        self.fabric = make_fabric(Config(device=device, precision=precision))
        self.fabric.launch()
        self.network, description = load_segmenter(self.file, own_network)
        own = own_network if own_network and is_users_own(own_network) else None
        self.users_code = module_digest(own) if own else None
        self.space: LabelSpace = described(description)
        self.fabric.to_device(self.network)
        self.view = run_view(self.file)

    def __call__(self, photo: str | Path | Image.Image | np.ndarray | Photo) -> np.ndarray:
        """Train ids, H x W uint8, of a photo at its own size; 255 where it is transparent.

        Args:
            photo: A file, which is read upright; a Pillow image, taken as it stands; or pixels,
                H x W x 3 uint8, RGB.

        Returns:
            Train ids, the numbers of the classes from 0 on; `space.names` names them.

        Raises:
            UserError: For a photo that cannot be read.
        """
        photo = _as_photo(photo)
        return self.labels(self.maps(photo), photo.opaque)

    @torch.inference_mode()
    def labels(self, maps: Maps, opaque: np.ndarray | None = None) -> np.ndarray:
        """The most probable class of each pixel.

        Args:
            maps: Class probabilities of one photo, of `maps`.
            opaque: H x W bool, False where the photo is transparent. Default: nowhere.

        Returns:
            Train ids, H x W uint8; 255 where the photo is transparent.
        """
        labels = np.empty(maps.size, np.uint8)
        for rows, block in maps.blocks():
            labels[rows] = block[0].argmax(0).byte().cpu().numpy()
        return without_data(labels, opaque)

    @torch.inference_mode()
    def probabilities(self, photo: str | Path | Image.Image | np.ndarray | Photo) -> Tensor:
        """Class probabilities of a photo at its own size.

        Args:
            photo: As in a call.

        Returns:
            C x H x W float32, in [0, 1], summing to 1 over the classes.

        Raises:
            UserError: For a photo that cannot be read.
        """
        maps = self.maps(photo)
        return maps.rows(0, maps.size[0])[0]

    @torch.inference_mode()
    def maps(self, photo: str | Path | Image.Image | np.ndarray | Photo) -> Maps:
        """The same, made a few rows at a time: a large photo's, of many classes, take more memory
        than a machine may have."""
        image = _as_photo(photo).image
        size = (image.height, image.width)
        views = (self._view(image, scale) for scale in self.scales)
        return mean_over_views(lambda view: self._pass(view, size), views, self.flip)

    def _view(self, image: Image.Image, scale: float) -> Tensor:
        """The photo as the network gets it, 1 x 3 x h x w in [0, 1]."""
        width, height = self.size or self.view.full_size(image.size)
        size = (max(_SMALLEST, round(width * scale)), max(_SMALLEST, round(height * scale)))
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return to_unit(self.fabric.to_device(to_tensor(image)[None]))

    def _pass(self, images: Tensor, size: tuple[int, int]) -> Maps:
        if self.window is None:
            own = own_probabilities(self.fabric, self.network, images)
            return Upsampled(Stored(own), size)
        maps = windowed(self.fabric, self.network, images, self.window[::-1])
        return maps if maps.size == size else Upsampled(maps, size)


def _as_photo(photo: str | Path | Image.Image | np.ndarray | Photo) -> Photo:
    if isinstance(photo, Photo):
        return photo
    return open_image(Path(photo)) if isinstance(photo, str | Path) else as_photo(photo)


def overlay(photo: Image.Image, labels: np.ndarray, space: LabelSpace) -> Image.Image:
    """The classes' colours over the photo, both shining through.

    Args:
        photo: A photo of H x W pixels.
        labels: Train ids, H x W uint8; 255 is black.
        space: The classes' names and colours, such as `Predictor.space`.

    Returns:
        A picture of H x W pixels, RGB.
    """
    colors = label_image(labels, space).convert("RGB")
    return Image.blend(photo.convert("RGB"), colors, 0.5)


def _as_jpeg(picture: Image.Image) -> Image.Image:
    """The picture, made smaller where it is longer than JPEGs can be."""
    shrink = min(1.0, _LONGEST / max(picture.size))
    if shrink == 1:
        return picture
    width, height = (max(1, round(side * shrink)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def find_photos(given: Path, out: Path) -> dict[str, Path]:
    """The photo at `given`, or all below it, by name: path without ending.

    Hidden files, folders of runs, and what predict wrote, in `out` or elsewhere, are passed over,
    which is logged. Raises UserError if there are none, or if two share a name.
    """
    if is_no_folder(given):
        return {without_ending(normal(given.name)): given}
    if not given.is_dir():
        raise UserError(f"{given}: no such file or folder; give a photo or a folder of photos")
    listing = find(given, parts_of("**/*", "--images"))
    for line in listing.passed.lines():
        log.info("--images: passed over: %s", line)
    results = [(out / kind).resolve() for kind in ("labels", "overlays", "probabilities")]
    inside = out.resolve().is_relative_to(given.resolve())
    photos: dict[str, Path] = {}
    for match in listing.matches:
        file = given / match.path
        if inside and any(file.resolve().is_relative_to(folder) for folder in results):
            continue
        name = without_ending(normal(match.path))
        if name in photos:
            raise UserError(
                f"{file}: has the same name as {photos[name].name}, so that its result would "
                "replace the other's; rename one"
            )
        photos[name] = file
    if not photos:
        raise UserError(f"{given}: holds no images ({named_endings()})")
    return photos


@dataclass(frozen=True)
class Predicted:
    """Of how many photos labels were written, of how many they were there, and how many photos
    could not be used."""

    made: int
    there: int
    unusable: int


def predict_files(
    predictor: Predictor, console: Console, photos: dict[str, Path], out: Path, keep_maps: bool
) -> Predicted:
    """Write `out`/labels/NAME.png, `out`/overlays/NAME.jpg and, with `keep_maps`,
    `out`/probabilities/NAME.npz.

    Labels are train ids in the classes' colours, 255 where the photo is transparent. An overlay is
    smaller than its photo if that is longer than 65,500 pixels, which JPEGs cannot be.
    Probabilities are "probabilities", C x H x W in 16-bit floats, and "classes", their names.

    Photos that are done with the same network and settings are passed over, so that it goes on
    where it stopped; those that cannot be read are logged. Raises UserError, before anything is
    written, if a file is in the way that predict did not write, and if no photo can be read.
    """
    kinds = ("labels", "overlays", *(["probabilities"] if keep_maps else []))
    record = PredictionRecord(out, _made_with(predictor), kinds)
    record.require_free(photos)
    for problem in named_alike(photos, out):
        raise UserError(problem)
    pending = {name: file for name, file in photos.items() if not record.is_done(name, file)}
    there = len(photos) - len(pending)
    if there:
        log.info("done already: %s", counted(there, "photo"))
    flaws: list[str] = []
    if pending:
        record.start()
    with (
        console.track("predict", len(photos), done=there, unit="images") as task,
        Writer(waiting=_MAPS if keep_maps else WAITING) as writer,
    ):
        for (name, file), photo in read_ahead(_opened, pending.items()):
            if isinstance(photo, UserError):
                flaws.append(str(photo))
                log.warning("left out: %s", photo)
            else:
                maps = predictor.maps(photo)
                labels = predictor.labels(maps, photo.opaque)
                values = _in_16_bits(maps) if keep_maps else None
                record.begin(name)
                made = _Prediction(photo.image, labels, values)
                writer.submit(_write_prediction, record, name, file, made, predictor.space)
            task.advance()
    if len(flaws) == len(photos):
        more = f" (so it is with all {len(flaws)} photos)" if len(flaws) > 1 else ""
        raise UserError(f"{flaws[0]}{more}")
    return Predicted(len(pending) - len(flaws), there, len(flaws))


@torch.inference_mode()
def _in_16_bits(maps: Maps) -> np.ndarray:
    """Probabilities of one photo, C x H x W."""
    values = np.empty((maps.classes, *maps.size), np.float16)
    for rows, block in maps.blocks():
        values[:, rows] = block[0].half().cpu().numpy()
    return values


def _opened(named: tuple[str, Path]) -> Photo | UserError:
    """The photo of a name and a file, or why it is none: what is read ahead of its turn is not
    raised there."""
    try:
        if excess := excess_of(named[0]):
            raise UserError(
                f"{named[1]}: its name is too long for the files made of it; shorten it by "
                f"{excess} bytes"
            )
        return open_image(named[1])
    except UserError as error:
        return error


@dataclass(frozen=True)
class _Prediction:
    """What is written of a photo: its train ids, H x W uint8, and, where they are asked for, its
    probabilities, C x H x W in 16-bit floats."""

    image: Image.Image
    labels: np.ndarray
    maps: np.ndarray | None


def _write_prediction(
    record: PredictionRecord, name: str, file: Path, made: _Prediction, space: LabelSpace
) -> None:
    write_labels(record.path("labels", name), made.labels, space)
    with atomic(record.path("overlays", name)) as partial:
        picture = _as_jpeg(overlay(made.image, made.labels, space))
        picture.save(partial, format="JPEG", quality=90)
    if made.maps is not None:
        with (
            atomic(record.path("probabilities", name)) as partial,
            open(partial, "wb") as opened,
        ):
            np.savez_compressed(opened, probabilities=made.maps, classes=np.array(space.names))
    record.finish(name, file)


def _made_with(predictor: Predictor) -> list[object]:
    """What predictions depend on besides their photos."""
    return [
        Index(None).hashes([predictor.file])[0],
        predictor.space.describe(),
        predictor.size or vars(predictor.view),
        predictor.window,
        predictor.flip,
        predictor.scales,
        predictor.precision,
        predictor.users_code,
    ]
