"""All that is wrong with the data, found before anything is trained: every file, not the first."""

import glob
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from domains.datasets import Sample, find_samples, layout_of
from domains.images import check_image, open_image, open_label
from domains.inspection import find_flaws
from domains.label_space import IGNORE
from domains.loading import View
from domains.problem import ROLES, Problem
from runtime.console import Console, log
from runtime.errors import UserError

_READERS = 8  # threads that decode
_LONGEST_NAME = 255  # bytes that file systems allow
_MADE = ".png.partial"  # what the longest file name that is made of a sample's adds to it


def check_data(
    problem: Problem, views: dict[str, list[View]], pixels: bool, console: Console
) -> list[str]:
    """Everything wrong with the data sets of `problem`, a line each that says what to do.

    `views` are the cuts that training makes of each role's images. Headers of all files are read,
    with `pixels` all pixels. What `on_error: skip` will leave out is logged, not returned. Rendered
    roles have no files yet and are right by construction.
    """
    return [
        line
        for role in ROLES
        if not problem.is_rendered(role)
        for line in _check_role(problem, role, views.get(role, []), pixels, console)
    ]


def check_samples(samples: Sequence[Sample], title: str, console: Console) -> list[str]:
    """The flaws that headers tell of."""
    with console.track(f"looking at {title}", len(samples), unit="samples") as task:
        return [line for _, line in find_flaws(list(samples), task.advance)]


def _check_role(
    problem: Problem, role: str, views: Sequence[View], pixels: bool, console: Console
) -> list[str]:
    domain, key = problem.domain(role), f"data.{role}"
    found = []
    try:
        samples = find_samples(domain, key, labelled=role != "target")
    except UserError as error:
        found.append(str(error))
        try:  # What is wrong with labels or their names leaves the images to look at.
            samples = find_samples(domain, key, labelled=False)
        except UserError:
            return found
    found += _broken_links(Path(str(domain.root)).expanduser(), layout_of(domain, key).images)
    found += _long_names(samples)
    flaws = check_samples(samples, key, console)
    found += _misfits(samples, key, views)
    if pixels:
        table = problem.table(role) if samples[0].label is not None else None
        flaws += [line for line in _check_pixels(samples, key, table, console) if line not in flaws]
    if domain.on_error == "skip":
        for line in flaws:
            log.info("left out: %s", line)
        flaws = []
    return found + flaws


def _broken_links(root: Path, pattern: str) -> list[str]:
    return [
        f"{root / path}: is a link that leads nowhere or to itself; replace or remove it"
        for path in sorted(glob.glob(pattern, root_dir=root))
        if not (root / path).exists()
    ]


def _long_names(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{sample.image}: its name is too long for the files made of it; shorten it by {excess} "
        "bytes"
        for sample in samples
        if (excess := len((Path(sample.name).name + _MADE).encode()) - _LONGEST_NAME) > 0
    ]


def _misfits(samples: Sequence[Sample], key: str, views: Sequence[View]) -> list[str]:
    """Crops that do not fit; where all images are resized alike, one line says it."""
    found = []
    for view in views:
        if view.crop is None:
            continue
        for sample in samples:
            try:
                stored = (0, 0) if view.size is not None else check_image(sample.image)
            except UserError:
                continue  # a flaw of the file, said elsewhere
            width, height = (round(side * view.scale[0]) for side in view.full_size(stored))
            if view.crop[0] > width or view.crop[1] > height:
                where = key if view.size is not None else str(sample.image)
                found.append(
                    f"{where}: the crop {view.crop[0]}x{view.crop[1]} is larger than the image, "
                    f"{width}x{height} at its smallest; choose a smaller crop"
                )
            if view.size is not None:
                break
    return found


def _check_pixels(
    samples: Sequence[Sample], key: str, table: np.ndarray | None, console: Console
) -> list[str]:
    """What only decoding tells; `table` takes the ids in label files to train ids."""

    def decode(sample: Sample) -> tuple[str | None, set[int]]:
        try:
            open_image(sample.image)
            if sample.label is None:
                return None, set()
            return None, set(np.unique(np.asarray(open_label(sample.label))).tolist())
        except UserError as error:
            return str(error), set()

    found, ids = [], set()
    title = f"decoding {key}"
    with (
        ThreadPoolExecutor(_READERS) as readers,
        console.track(title, len(samples), unit="samples") as task,
    ):
        for line, held in readers.map(decode, samples):
            task.advance()
            ids |= held
            if line is not None:
                found.append(line)
    if table is None or not ids:
        return found
    unknown = sorted(number for number in ids - {IGNORE} if table[number] == IGNORE)
    if len(unknown) == len(ids - {IGNORE}):
        held_ids = ", ".join(map(str, sorted(ids)[:8]))
        found.append(
            f"{key}: no label file holds an id of a class (they hold {held_ids}); "
            f"check {key}.encoding and data.label_space"
        )
    elif unknown:
        log.info("%s: ignored, as no class of the label space: ids %s", key, unknown)
    return found
