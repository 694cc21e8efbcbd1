"""Images a second that reach the training: the published way, ours, and ours with a cache.

    python -m benchmarks.loading [--workers 0 1 2 4] [--images 8] [--turns 3] [--json FILE]

Draws street scenes of GTA5's size, 1914x1052, as PNG files with Cityscapes label ids, and loads
them as segmentation training does: resized to 1280x720, bicubic, the labels by nearest neighbour.
The published way opens, resizes and converts each sample in numpy and loads with torch's
DataLoader. "First epoch" begins with an empty cache, "later epochs" find theirs filled. The ratio
is the published time an image divided by ours of later epochs, the smallest over the numbers of
workers. All files are in the system's file cache; starting the workers is part of the time.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bdl.domains.cache import ImageCache
from bdl.domains.datasets import Sample
from bdl.domains.label_space import IGNORE, load_label_space
from bdl.domains.loading import TrainingSamples, View, training_batches
from benchmarks.common import (
    PUBLISHED,
    Numbers,
    Work,
    describe,
    exit_status,
    in_turns,
    make_parser,
    table,
    tell,
)
from benchmarks.made_data import SIZES, draw_scene, stored_ids

STORED, RESIZED = SIZES["gta5"], (1280, 720)  # width, height
ENCODING = "label_id"
PUBLISHED_MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR, taken off the pixels
UNCACHED, FIRST, LATER = "ours", "ours, cache, first epoch", "ours, cache, later epochs"


class PublishedSamples(Dataset):
    """A sample as the published code makes it: BGR floats without their mean, float labels."""

    def __init__(self, samples: list[Sample], train_ids: dict[int, int]) -> None:
        self.samples, self.train_ids = samples, train_ids

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[index]
        assert sample.label is not None
        image = Image.open(sample.image).convert("RGB").resize(RESIZED, Image.Resampling.BICUBIC)
        label = Image.open(sample.label).resize(RESIZED, Image.Resampling.NEAREST)
        stored = np.asarray(label, np.float32)
        labels = np.full(stored.shape, IGNORE, np.float32)
        for stored_id, train_id in self.train_ids.items():
            labels[stored == stored_id] = train_id
        pixels = np.asarray(image, np.float32)[:, :, ::-1] - np.array(PUBLISHED_MEAN, np.float32)
        return pixels.transpose(2, 0, 1).copy(), labels


def render(folder: Path, count: int) -> list[Sample]:
    """`count` scenes as files below `folder`."""
    samples = []
    for number in range(count):
        pixels, ids = draw_scene(number, STORED, "real")
        image, label = folder / f"{number:05d}.png", folder / f"{number:05d}-label.png"
        Image.fromarray(pixels).save(image)
        Image.fromarray(stored_ids(ENCODING)[ids]).save(label)
        samples.append(Sample(str(number), image, label))
    return samples


def brightness(image: torch.Tensor, label: torch.Tensor) -> Numbers:
    """What tells that the ways load the same; of few pixels, so that it takes no time."""
    return {"mean": image[..., ::16, ::16].float().mean(), "class": label[..., ::16, ::16].max()}


def published(samples: list[Sample], epochs: int, workers: int) -> Work:
    train_ids = load_label_space("cityscapes19").encodings[ENCODING]
    mean = sum(PUBLISHED_MEAN) / 3

    def work() -> Numbers:
        data = PublishedSamples(samples * epochs, train_ids)
        timings = [
            brightness(pixels + mean, torch.where(labels == IGNORE, 0, labels))
            for pixels, labels in DataLoader(data, batch_size=1, shuffle=True, num_workers=workers)
        ]
        return summary(timings)

    return work


def ours(samples: list[Sample], epochs: int, workers: int, cache: Path | None, fresh: bool) -> Work:
    labels = load_label_space("cityscapes19").table(ENCODING)
    folders = itertools.count()

    def work() -> Numbers:
        images = None
        if cache is not None:
            images = ImageCache(cache / str(next(folders)) if fresh else cache, 1e12)
            images.prepare()
        data = TrainingSamples(samples, View(size=RESIZED), 0, "source", labels, images)
        batches = training_batches({"source": data}, 0, epochs * len(samples), 1, workers)
        timings = [
            brightness(batch["image"], batch["label"].where(batch["label"] != IGNORE, 0))
            for batch in (roles["source"] for roles in batches)
        ]
        return summary(timings)

    return work


def summary(timings: list[Numbers]) -> Numbers:
    return {
        "mean": statistics.fmean(float(numbers["mean"]) for numbers in timings),
        "class": max(float(numbers["class"]) for numbers in timings),
    }


def measure(
    samples: list[Sample], workers: int, options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Images a second of each way, by that many loader processes."""
    epochs = {PUBLISHED: 1, UNCACHED: 1, FIRST: 1, LATER: options.epochs}
    works = {
        PUBLISHED: published(samples, epochs[PUBLISHED], workers),
        UNCACHED: ours(samples, epochs[UNCACHED], workers, None, fresh=False),
        FIRST: ours(samples, epochs[FIRST], workers, folder / "first", fresh=True),
        LATER: ours(samples, epochs[LATER], workers, folder / "later", fresh=False),
    }
    measured = in_turns(works, options.turns, options.device)
    rates: dict[str, Any] = {}
    for way, timing in measured.items():
        images = epochs[way] * len(samples)
        rates[way] = {
            "images_per_second": images / timing.median,
            "turns": [images / seconds for seconds in timing.seconds],
            "numbers": timing.numbers,
        }
    return rates


def main() -> int:
    parser = make_parser(str(__doc__), turns=3)
    parser.add_argument("--images", type=int, default=8, help="files that are rendered (default 8)")
    parser.add_argument(
        "--epochs", type=int, default=20, help="over which later epochs are measured (default 20)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="loader processes (0 1 2 4)"
    )
    options = parser.parse_args()
    measured, rows = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        samples = render(folder, options.images)
        for workers in options.workers:
            measured[workers] = measure(samples, workers, options, folder / str(workers))
            rates = [of_way["images_per_second"] for of_way in measured[workers].values()]
            ratio = measured[workers][LATER]["images_per_second"] / rates[0]
            rows.append([str(workers), *(f"{rate:.3g}" for rate in rates), f"{ratio:.1f}"])
    ratios = {
        workers: ways[LATER]["images_per_second"] / ways[PUBLISHED]["images_per_second"]
        for workers, ways in measured.items()
    }
    result = describe("loading", options)
    result |= {"workers": measured, "ratios": ratios, "ratio": min(ratios.values())}
    head = [
        "workers",
        *(f"{way}: images/s" for way in next(iter(measured.values()))),
        "times as fast",
    ]
    print(table(head, rows), flush=True)
    tell(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
