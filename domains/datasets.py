"""Which files a data set consists of: layouts of known data sets, plain folders by pattern."""

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.config import DomainConfig
from runtime.console import log
from runtime.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images and labels, and how it counts classes.

    Patterns are relative to the root; a label's path is its pattern with each `*` replaced by
    what the same `*` of the image's pattern matched. {split} is the configuration's.
    """

    images: str
    labels: str
    encoding: str


LAYOUTS = {
    "folder": Layout("images/*", "labels/*.png", "train_id"),
    "gta5": Layout("images/*.png", "labels/*.png", "label_id"),
    "synthia": Layout("RGB/*.png", "GT/LABELS/*.png", "synthia"),
    # Its name notwithstanding, the folder holds SYNTHIA's own ids, in 8 bits.
    "synthia_mapped": Layout("RGB/*.png", "synthia_mapped_to_cityscapes/*.png", "synthia"),
    "cityscapes": Layout(
        "leftImg8bit/{split}/*/*_leftImg8bit.png",
        "gtFine/{split}/*/*_gtFine_labelIds.png",
        "label_id",
    ),
    "streets": Layout("images/*.png", "labels/*.png", "train_id"),
}
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Sample:
    """One image. `name` is unique in its data set: the path below the pattern's fixed part,
    without the ending. `label` is None where labels are not asked for."""

    name: str
    image: Path
    label: Path | None


def layout_of(domain: DomainConfig, key: str) -> Layout:
    """The domain's layout with what the configuration changes in it; `key` names it in errors."""
    if domain.layout not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise UserError(f"{key}.layout: '{domain.layout}' is not one of {known}")
    layout = LAYOUTS[domain.layout]
    return Layout(
        images=(domain.images or layout.images).replace("{split}", domain.split),
        labels=(domain.labels or layout.labels).replace("{split}", domain.split),
        encoding=domain.encoding or layout.encoding,
    )


def find_samples(domain: DomainConfig, key: str, labelled: bool) -> list[Sample]:
    """The data set's samples, sorted by name, or in the order of its list file.

    `key` names the domain's section in errors, e.g. "data.source". Raises UserError if the root
    is missing, if there are no images, if two have the same name, or if a label or an image of
    the list is missing (naming the first and the count); with `on_error: skip` what is missing is
    left out, and its count is logged.
    """
    if domain.root is None:
        raise UserError(f"{key}.root: is not set; give the data set's folder, {key}.root=DIR")
    root = Path(domain.root).expanduser()
    if not root.is_dir():
        raise UserError(f"{key}.root: {root} is not a folder; give the data set's, {key}.root=DIR")
    layout = layout_of(domain, key)
    if labelled and layout.images.count("*") != layout.labels.count("*"):
        raise UserError(
            f"{key}.labels: '{layout.labels}' must have as many * as images '{layout.images}'"
        )
    names = _matches(root, layout.images)
    if domain.list_file is not None:
        names = _listed(names, Path(domain.list_file).expanduser(), key, domain.on_error)
    if not names:
        raise UserError(f"{key}: no images match {root / layout.images}; check root and images")
    samples = [_sample(root, layout, image, parts if labelled else None) for image, parts in names]
    _require_unique_names(samples)
    missing = [sample for sample in samples if sample.label and not sample.label.is_file()]
    if missing:
        problem = f"{missing[0].label}: no such label file, for image {missing[0].image}"
        leave_out(domain.on_error, key, problem, len(missing), len(samples))
        samples = [sample for sample in samples if sample.label and sample.label.is_file()]
    return samples


def leave_out(on_error: str, key: str, problem: str, count: int, total: int) -> None:
    """What `count` of `total` samples that cannot be used do: stop the run, or be left out.

    `problem` is a line about the first of them. Raises UserError unless `on_error` is "skip" and
    something remains.
    """
    if on_error != "skip":
        raise UserError(
            f"{problem} (so it is with {count} of the {total} samples of {key}; repair or remove "
            f"them, or leave them out with {key}.on_error=skip)"
        )
    if count == total:
        raise UserError(f"{problem} (so it is with all {total} samples of {key})")
    log.info("%s: %d of %d samples left out; the first: %s", key, count, total, problem)


def listing(samples: list[Sample]) -> list[list[object]]:
    """Names and sizes in bytes of the samples' files: what a fingerprint covers of them."""
    return [
        [
            sample.name,
            sample.image.stat().st_size,
            sample.label.stat().st_size if sample.label else None,
        ]
        for sample in samples
    ]


def images_of(samples: list[Sample], folder: Path, key: str) -> dict[str, Path]:
    """The image of each sample's name in a folder, e.g. its translation made elsewhere.

    A file's name is its path below the folder without the ending, as that of a sample is. `key`
    is the configuration key of the folder, for errors. Raises UserError if it is no folder, or
    lists by name the samples that it lacks and, as a hint, the files that belong to none; the
    latter alone are only logged.
    """
    if not folder.is_dir():
        raise UserError(f"{key}: {folder} is not a folder")
    found = {
        _without_ending(file.relative_to(folder).as_posix()): file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_ENDINGS and file.is_file()
    }
    names = {sample.name for sample in samples}
    missing = sorted(names - found.keys())
    others = sorted(found.keys() - names)
    if missing:
        hint = f"; it has {len(others)} others: {_some(others)}" if others else ""
        raise UserError(
            f"{key}: {folder} lacks {len(missing)} of {len(samples)} source images by name: "
            f"{_some(missing)}{hint}"
        )
    if others:
        log.info("%s: %d files belong to no source image: %s", key, len(others), _some(others))
    return {name: found[name] for name in names}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def pair_with(samples: list[Sample], image_at: Callable[[str], Path]) -> list[Sample]:
    """The samples with other images of the same names, e.g. their translations."""
    return [Sample(sample.name, image_at(sample.name), sample.label) for sample in samples]


def spread(available: int, count: int) -> list[int]:
    """`count` indices of `available` ones, spread evenly from the first to the last; all of them,
    if there are no more."""
    count = min(count, available)
    return [place * (available - 1) // max(1, count - 1) for place in range(count)]


def _matches(root: Path, pattern: str) -> list[tuple[str, tuple[str, ...]]]:
    """Relative paths that match, sorted, each with what its stars stand for."""
    expression = re.compile("([^/]*)".join(re.escape(part) for part in pattern.split("*")))
    found = []
    for path in glob.glob(pattern, root_dir=root):
        path = path.replace(os.sep, "/")
        match = expression.fullmatch(path)
        if match and path.lower().endswith(IMAGE_ENDINGS) and (root / path).is_file():
            found.append((path, match.groups()))
    return sorted(found)


def _sample(root: Path, layout: Layout, image: str, parts: tuple[str, ...] | None) -> Sample:
    label = None
    if parts is not None:
        # A star that stands at the pattern's end has taken the image's ending with it.
        filled = [
            _without_ending(part)
            if layout.images.endswith("*") and index == len(parts) - 1
            else part
            for index, part in enumerate(parts)
        ]
        pieces = layout.labels.split("*")
        label = root / "".join(
            piece + part for piece, part in zip(pieces, [*filled, ""], strict=True)
        )
    return Sample(_name(layout, image), root / image, label)


def _name(layout: Layout, image: str) -> str:
    fixed = layout.images.split("*")[0].rpartition("/")[0]
    return _without_ending(image[len(fixed) :].lstrip("/"))


def _without_ending(path: str) -> str:
    """The path without an image format's ending; other dots belong to the name."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in IMAGE_ENDINGS else path


def _require_unique_names(samples: list[Sample]) -> None:
    """What a stage makes of a sample is found by the sample's name."""
    by_name: dict[str, Sample] = {}
    for sample in samples:
        other = by_name.setdefault(sample.name, sample)
        if other is not sample:
            raise UserError(
                f"{sample.image}: has the same name as {other.image}; rename or remove one, or "
                "name it once in the list file"
            )


def _listed(
    names: list[tuple[str, tuple[str, ...]]], file: Path, key: str, on_error: str
) -> list[tuple[str, tuple[str, ...]]]:
    """Those of `names` that the list file names, in its order.

    A line may give a path below the root or its end (a file name), with or without the ending.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{key}.list_file: {file} cannot be read as a text file") from None
    entries = [line.strip().replace("\\", "/").strip("/") for line in lines if line.strip()]
    by_ending: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for found in names:
        parts = _without_ending(found[0]).split("/")
        for start in range(len(parts)):
            by_ending.setdefault("/".join(parts[start:]), []).append(found)
    chosen, missing = [], []
    for entry in entries:
        images = by_ending.get(_without_ending(entry), [])
        if len(images) > 1:
            raise UserError(
                f"{file}: '{entry}' names {len(images)} images of {key}, {images[0][0]} and "
                f"{images[1][0]} among them; give more of the path"
            )
        if images:
            chosen.append(images[0])
        else:
            missing.append(entry)
    if missing:
        problem = f"{file}: '{missing[0]}' names no image of {key}"
        leave_out(on_error, key, problem, len(missing), len(entries))
    return chosen
