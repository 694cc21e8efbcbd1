"""All that is wrong with the data, found before anything is trained: every file, not the first.

`check` lists it, `run` refuses it: one function for both.
"""

from collections.abc import Sequence
from pathlib import Path

from bdl.domains.datasets import Sample, images_of, list_samples
from bdl.domains.guard import look_at
from bdl.domains.index import Index
from bdl.domains.inspection import SKIP, Inspection, find_flaws, inspect_samples
from bdl.domains.problem import Problem
from bdl.domains.views import View
from bdl.runtime.config import Config
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.files import PARTIAL

_LONGEST_NAME = 255  # bytes that file systems allow
_MADE = f".png{PARTIAL}"  # what the longest file name that is made of a sample's adds to it


def check_problem(
    config: Config, problem: Problem, pixels: bool, crops: bool, console: Console
) -> list[str]:
    """Everything wrong with the data sets of a configuration, a line each that says what to do.

    What the files hold is logged, a few lines a role, and what `on_error: skip` will leave out.
    Headers of all files are read, and pixels of some label files. Rendered roles have no files yet
    and are right by construction.

    Args:
        config: The configuration.
        problem: Its data sets.
        pixels: Whether all pixels of all files are looked at.
        crops: Whether crops that do not fit are problems.
        console: Shows progress.
    """
    views: dict[str, list[View]] = {}
    given = config.translation.images
    augmentation, translation = config.segmentation.augmentation, config.translation
    for role in [role for role in ("source", "target") if crops and role in problem.roles]:
        views[role] = [View(problem.size(role), crop=augmentation.crop, scale=augmentation.scale)]
        if given is None and config.iterations:
            views[role].append(View(width=translation.load_width, crop=translation.crop))
    problems = [
        line
        for role in problem.roles
        if not problem.is_rendered(role)
        for line in _check_role(problem, role, views.get(role, []), pixels, console)
    ]
    if given is not None and not problems:
        key = "translation.images"
        try:
            source = [Sample(name, Path(name), None) for name in problem.source.names()]
            images = images_of(source, Path(given).expanduser(), key)
        except UserError as error:
            return [*problems, str(error)]
        samples = [Sample(name, file, None) for name, file in sorted(images.items())]
        problems += [line for _, line in find_flaws(samples, Index(None, console), key)]
    return problems


def _check_role(
    problem: Problem, role: str, views: Sequence[View], pixels: bool, console: Console
) -> list[str]:
    domain, key = problem.domain(role), f"data.{role}"
    found = []
    try:
        inspection = problem.inspect(role, pixels)
    except UserError as error:
        found.append(str(error))
        try:  # What is wrong with labels or their names leaves the images to look at.
            samples = list_samples(domain, key, labelled=False).samples
            images = [Sample(sample.name, sample.image, None) for sample in samples]
            inspection = inspect_samples(images, problem.index, key, pixels)
        except UserError:
            return found
    found += _long_names(inspection.samples)
    found += _misfits(inspection, key, views)
    if pixels:
        _log_transparent(inspection.samples, key, problem.index)
    if inspection.samples:
        told = look_at(problem, role, inspection, whole=pixels)
        console.once("\n".join(told.table))
        for line in told.warnings:
            log.warning("warning: %s", line)
        found += told.problems
    if domain.on_error == SKIP and inspection.samples:
        for line in inspection.flaws:
            log.info("left out: %s", line)
        return found
    return found + inspection.flaws


def _long_names(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{sample.image}: its name is too long for the files made of it; shorten it by {excess} "
        "bytes"
        for sample in samples
        if (excess := len((Path(sample.name).name + _MADE).encode()) - _LONGEST_NAME) > 0
    ]


def _misfits(inspection: Inspection, key: str, views: Sequence[View]) -> list[str]:
    """Crops that do not fit; where all images are resized alike, one line says it."""
    found = []
    for view in views:
        if view.crop is None:
            continue
        count = 1 if view.size is not None else len(inspection.samples)
        for sample, size in zip(inspection.samples[:count], inspection.sizes, strict=False):
            width, height = (max(1, round(side * view.scale[0])) for side in view.full_size(size))
            if view.crop[0] > width or view.crop[1] > height:
                where = key if view.size is not None else str(sample.image)
                found.append(
                    f"{where}: the crop {view.crop[0]}x{view.crop[1]} is larger than the image, "
                    f"{width}x{height} at its smallest; choose a smaller crop"
                )
    return found


def _log_transparent(samples: Sequence[Sample], key: str, index: Index) -> None:
    decoded = index.decoded([sample.image for sample in samples], key)
    shares = [found.transparent for found in decoded if found.transparent]
    if shares:
        log.info(
            "%s: ignored, as transparent: %.1f %% of the pixels, in %d of %d images",
            key,
            100 * sum(shares) / len(samples),
            len(shares),
            len(samples),
        )
