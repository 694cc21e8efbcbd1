"""From files to batches: which sample a step sees, how it is cut, and who loads it.

Every draw depends only on the seed and on the number of the sample in the order of training, so
that a run can go on at any step, with any number of loader processes, as if it had not stopped.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from bdl.domains.cache import ImageCache
from bdl.domains.datasets import Sample
from bdl.domains.images import (
    UPRIGHT,
    Photo,
    open_image,
    open_label,
    resized_mask,
    without_data,
)
from bdl.domains.inspection import same_frame
from bdl.domains.label_space import is_by_color
from bdl.domains.tensors import to_ids, to_tensor
from bdl.domains.views import View
from bdl.runtime.device import random_for
from bdl.runtime.errors import UserError
from bdl.runtime.stopping import shield_loader_worker

_WHOLE = 1e-6  # pixels by which a product of fractions may miss a whole number


@dataclass(frozen=True)
class Crop:
    """One drawn crop.

    Args:
        box: The part of the image: left, top, right, bottom, as fractions of it.
        size: Width and height that it becomes, in pixels.
        mirrored: Whether it is mirrored.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    mirrored: bool

    def apply(self, pixels: np.ndarray, resample: Image.Resampling) -> np.ndarray:
        """The crop of an image or a label map, H x W x 3 or H x W: resampled unless the box holds
        just as many whole pixels as it becomes."""
        height, width = pixels.shape[:2]
        box = np.multiply(self.box, (width, height, width, height))
        left, top, right, bottom = np.round(box).astype(int).tolist()
        whole = np.allclose(box, (left, top, right, bottom), rtol=0, atol=_WHOLE)
        if whole and (right - left, bottom - top) == self.size:
            crop = pixels[top:bottom, left:right]
        else:
            image = Image.fromarray(pixels).resize(self.size, resample, box=tuple(box.tolist()))
            crop = np.asarray(image)
        return crop[:, ::-1] if self.mirrored else crop


def draw_crop(view: View, stored: tuple[int, int], random: np.random.Generator) -> Crop:
    """Draw where to cut an image stored as (width, height).

    Raises ValueError if the crop does not fit into the image at the drawn zoom.
    """
    zoom = random.uniform(*view.scale)
    width, height = (max(1, round(side * zoom)) for side in view.full_size(stored))
    size = view.crop or view.full_size(stored)
    if size[0] > width or size[1] > height:
        raise ValueError(f"crop {size[0]}x{size[1]} is larger than the image, {width}x{height}")
    left = int(random.integers(width - size[0] + 1))
    top = int(random.integers(height - size[1] + 1))
    box = (left / width, top / height, (left + size[0]) / width, (top + size[1]) / height)
    return Crop(box, size, view.flip and bool(random.integers(2)))


class Reader:
    """Images and label maps, whole, from their files, or from a `cache` of what files held.

    Args:
        table: From the ids, or colours, in label files to train ids; without it they are train ids
            already.
        cache: Where decoded images are kept; it changes no pixel.
        orientation: How images are read, "upright" or "stored"; labels are always upright.
    """

    def __init__(
        self, table: np.ndarray | None, cache: ImageCache | None, orientation: str = UPRIGHT
    ) -> None:
        self.table, self.cache, self.orientation = table, cache, orientation
        self._table_name = "" if table is None else str(zlib.crc32(table.tobytes()))

    def image(self, file: Path, view: View) -> tuple[np.ndarray, np.ndarray | None]:
        """The image, resized as the view says, not cut.

        Returns: H x W x 3 uint8, and where it is opaque, H x W bool, None if everywhere.
        """
        return self.images(file, [view])[0]

    def images(
        self, file: Path, views: Sequence[View]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The same for several views; the file is decoded once at the most."""
        photo = lru_cache(lambda: open_image(file, self.orientation))

        def make(view: View) -> np.ndarray:
            resized = photo().resized(view.full_size(photo().size))
            return resized.pixels if resized.opaque is None else _joined(resized)

        made = []
        for view in views:
            form = f"photo {self.orientation} {view.size} {view.width}"
            pixels = self._kept(file, form, partial(make, view))
            opaque = None if pixels.shape[2] == 3 else pixels[..., 3] > 0
            made.append((pixels[..., :3], opaque))
        return made

    def label(
        self,
        file: Path,
        size: tuple[int, int] | None = None,
        require: Callable[[tuple[int, int]], None] = lambda stored: None,
    ) -> np.ndarray:
        """Train ids, H x W integer, resized to `size` (width, height; default: as stored).

        `require` is called with the stored (width, height) before, to raise what is wrong with it.
        """

        def make() -> np.ndarray:
            label = open_label(file, is_by_color(self.table))
            require(label.size)
            if size is not None and label.size != size:
                label = label.resize(size, Image.Resampling.NEAREST)
            ids = np.asarray(label)
            return ids if self.table is None else self.table[ids]

        return self._kept(file, f"ids {size} {self._table_name}", make)

    def _kept(self, file: Path, form: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        return make() if self.cache is None else self.cache.pixels(file, form, make)


def _joined(photo: Photo) -> np.ndarray:
    """Pixels and a fourth channel, 255 where they are opaque: H x W x 4 uint8."""
    assert photo.opaque is not None
    return np.dstack([photo.pixels, photo.opaque.astype(np.uint8) * np.uint8(255)])


class TrainingSamples(Dataset):
    """Samples in training order: number n is the (n mod N)-th of the (n div N)-th shuffling.

    An item is {"image": 3 x H x W uint8} and, where samples have labels, {"label": H x W int64
    train ids, 255 where the image is transparent}, `table` taking stored ids to train ids.
    `purpose` keeps the draws of several data sets of one run apart; a `cache` changes no pixel;
    `orientation` is how images are read.
    """

    def __init__(
        self,
        samples: list[Sample],
        view: View,
        seed: int,
        purpose: str,
        table: np.ndarray | None = None,
        cache: ImageCache | None = None,
        orientation: str = UPRIGHT,
    ) -> None:
        self.samples, self.view, self.seed, self.purpose = samples, view, seed, purpose
        self.reader = Reader(table, cache, orientation)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return random_for(self.seed, f"{self.purpose} order", epoch).permutation(len(self.samples))

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        del state["_order"]  # a cache cannot travel to a loader process that is spawned
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, position = divmod(number, len(self.samples))
        sample = self.samples[self._order(epoch)[position]]
        image, opaque = self.reader.image(sample.image, View() if self.view.zooms else self.view)
        stored = image.shape[1], image.shape[0]  # or resized already, which draws the same
        random = random_for(self.seed, f"{self.purpose} cut", number)
        try:
            crop = draw_crop(self.view, stored, random)
        except ValueError as error:
            raise UserError(f"{sample.image}: {error}; choose a smaller crop") from None
        item = {"image": to_tensor(crop.apply(image, Image.Resampling.BICUBIC))}
        if sample.label is not None:
            # A size given in the configuration stretches both to it, whatever their shapes.
            ids = self.reader.label(
                sample.label,
                None if self.view.zooms else stored,
                lambda label: self._require_same_frame(sample, stored, label),
            )
            label = crop.apply(ids, Image.Resampling.NEAREST)
            if opaque is not None:
                seen = crop.apply(opaque.astype(np.uint8), Image.Resampling.NEAREST)
                label = without_data(label, seen > 0)
            item["label"] = to_ids(label)
        return item

    def _require_same_frame(
        self, sample: Sample, image: tuple[int, int], label: tuple[int, int]
    ) -> None:
        if self.view.size is None and not same_frame(image, label):
            raise UserError(
                f"{sample.label}: is {label[0]}x{label[1]}, its image "
                f"{sample.image} {image[0]}x{image[1]}; they must show the same frame"
            )


class WholeImages(Dataset):
    """Samples in their own order, uncut, for translation, prediction and evaluation.

    An item is {"index", "image": 3 x H x W uint8 resized to `size`, or to `width` with its shape
    kept}; where the image is transparent somewhere, "opaque": H x W bool; and, with `table`,
    "label": stored ids mapped to train ids, 255 where the image is transparent, H' x W' int64 at
    the label's own size.
    `orientation` is how images are read. With several `scales`, factors of the size, "image" and
    "opaque" are of the first, and "others" are the images of the others.
    """

    def __init__(
        self,
        samples: list[Sample],
        size: tuple[int, int] | None,
        table: np.ndarray | None = None,
        cache: ImageCache | None = None,
        orientation: str = UPRIGHT,
        width: int | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        self.samples = samples
        self.views = [View(size=size, width=width).scaled(scale) for scale in scales]
        self.labelled = table is not None
        self.reader = Reader(table, cache, orientation)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        (image, opaque), *others = self.reader.images(sample.image, self.views)
        item: dict[str, Any] = {"index": torch.tensor(index), "image": to_tensor(image)}
        if others:
            item["others"] = [to_tensor(other) for other, _ in others]
        if opaque is not None:
            item["opaque"] = torch.from_numpy(opaque)
        if self.labelled and sample.label is not None:
            label = self.reader.label(sample.label)
            if opaque is not None:
                label = without_data(label, resized_mask(opaque, label.shape[::-1]))
            item["label"] = to_ids(label)
        return item


class StepBatches:
    """The numbers of the samples of each step that fall to one process.

    Step s of batch size B covers the numbers s B to (s + 1) B - 1; process r of W takes every
    W-th of them from the r-th on, so that all processes together see each number once.
    """

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, world_size: int) -> None:
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = step * self.batch_size
            yield list(range(first + self.rank, first + self.batch_size, self.world_size))

    def __len__(self) -> int:
        return self.stop - self.start


def training_batches(
    roles: Mapping[str, TrainingSamples | None],
    start: int,
    stop: int,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """The batches of steps `start` to `stop` - 1 for one process, by role; None has none.

    `batch_size` is over all processes. `workers` load for all roles together.

    Raises UserError for a sample that cannot be used.
    """
    batches = StepBatches(start, stop, batch_size, rank, world_size)
    return _load({role: data for role, data in roles.items() if data is not None}, batches, workers)


def whole_images(
    images: WholeImages, indices: Iterable[int], workers: int
) -> Iterator[dict[str, Any]]:
    """The images of those indices one by one, as batches of one."""
    return (batch["images"] for batch in joined_images({"images": images}, indices, workers))


def joined_images(
    sets: Mapping[str, WholeImages], indices: Iterable[int], workers: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """The same of several sets at a time, by name."""
    return _load(sets, [[index] for index in indices], workers)


def share(count: int, rank: int, world_size: int) -> range:
    """The indices of `count` items that fall to process `rank`: each index to one process."""
    return range(rank, count, world_size)


class _Joined(Dataset):
    """Data sets that share their loader processes: an item has that number's of each, by name.

    An error is an item, too: raised, it would reach the user wrapped in the traceback of a loader
    process.
    """

    def __init__(self, sets: Mapping[str, Dataset]) -> None:
        self.sets = sets

    def __getitem__(self, number: int) -> dict[str, dict[str, Any]] | UserError:
        try:
            return {name: data[number] for name, data in self.sets.items()}
        except UserError as error:
            return error


def _load(
    sets: Mapping[str, Dataset], batches: Iterable[list[int]], workers: int
) -> Iterator[dict[str, dict[str, Any]]]:
    loader = DataLoader(
        _Joined(sets),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=shield_loader_worker,
        # Without one it draws from torch's random state when it starts, and so once more in a
        # training that goes on: dropout and grain would not go on as they would have.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _collate(
    items: list[dict[str, dict[str, Any]] | UserError],
) -> dict[str, dict[str, Any]] | UserError:
    good = []
    for item in items:
        if isinstance(item, UserError):
            return item
        good.append(item)
    for name in good[0]:
        shapes = {tuple(item[name]["image"].shape[1:]) for item in good}
        if len(shapes) > 1:
            return UserError(
                f"images of one batch have different sizes (height x width: {sorted(shapes)}); "
                "set data.source.size and data.target.size, or a crop"
            )
    return default_collate(good)
