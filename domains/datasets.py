"""Which files a data set consists of: layouts of known data sets, plain folders by pattern."""

import glob
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.config import DomainConfig
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
    "synthia_mapped": Layout("RGB/*.png", "synthia_mapped_to_cityscapes/*.png", "train_id"),
    "cityscapes": Layout(
        "leftImg8bit/{split}/*/*_leftImg8bit.png",
        "gtFine/{split}/*/*_gtFine_labelIds.png",
        "label_id",
    ),
    "streets": Layout("images/*.png", "labels/*.png", "train_id"),
}
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


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
    is missing, if there are no images, or if a label is missing (naming the first and the count).
    """
    if domain.root is None:
        raise UserError(f"{key}.root: is not set; give the data set's folder, {key}.root=DIR")
    root = Path(domain.root).expanduser()
    if not root.is_dir():
        raise UserError(f"{key}.root: {root} is not a folder")
    layout = layout_of(domain, key)
    if labelled and layout.images.count("*") != layout.labels.count("*"):
        raise UserError(
            f"{key}.labels: '{layout.labels}' must have as many * as images '{layout.images}'"
        )
    names = _matches(root, layout.images)
    if domain.list_file is not None:
        names = _listed(names, Path(domain.list_file).expanduser(), key)
    if not names:
        raise UserError(f"{key}: no images match {root / layout.images}; check root and images")
    samples = [_sample(root, layout, image, parts if labelled else None) for image, parts in names]
    missing = [sample for sample in samples if sample.label and not sample.label.is_file()]
    if missing:
        raise UserError(
            f"{missing[0].label}: no such label file, for image {missing[0].image} "
            f"({len(missing)} of {len(samples)} are missing in {key})"
        )
    return samples


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


def pair_with(samples: list[Sample], image_at: Callable[[str], Path]) -> list[Sample]:
    """The samples with other images of the same names, e.g. their translations."""
    return [Sample(sample.name, image_at(sample.name), sample.label) for sample in samples]


def _matches(root: Path, pattern: str) -> list[tuple[str, tuple[str, ...]]]:
    """Relative paths that match, sorted, each with what its stars stand for."""
    expression = re.compile("([^/]*)".join(re.escape(part) for part in pattern.split("*")))
    found = []
    for path in glob.glob(pattern, root_dir=root):
        path = path.replace(os.sep, "/")
        match = expression.fullmatch(path)
        if match and path.lower().endswith(_IMAGE_ENDINGS) and (root / path).is_file():
            found.append((path, match.groups()))
    return sorted(found)


def _sample(root: Path, layout: Layout, image: str, parts: tuple[str, ...] | None) -> Sample:
    label = None
    if parts is not None:
        # A star that stands at the pattern's end has taken the image's ending with it.
        filled = [
            os.path.splitext(part)[0]
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
    return os.path.splitext(image[len(fixed) :].lstrip("/"))[0]


def _listed(
    names: list[tuple[str, tuple[str, ...]]], file: Path, key: str
) -> list[tuple[str, tuple[str, ...]]]:
    """Those of `names` that the list file names, in its order.

    A line may give a path below the root or its end (a file name), with or without the ending.
    """
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{key}.list_file: {file} cannot be read as a text file") from None
    by_ending: dict[str, tuple[str, tuple[str, ...]]] = {}
    for found in names:
        parts = os.path.splitext(found[0])[0].split("/")
        for start in range(len(parts)):
            by_ending.setdefault("/".join(parts[start:]), found)
    chosen = []
    for line in lines:
        entry = os.path.splitext(line.strip("/"))[0]
        if entry not in by_ending:
            raise UserError(f"{file}: '{line}' names no image of {key}")
        chosen.append(by_ending[entry])
    return chosen
