"""Which files a data set consists of: layouts of known data sets, plain folders by pattern."""

import codecs
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bdl.domains.endings import IMAGE_ENDINGS, is_image, without_ending
from bdl.domains.matching import (
    Match,
    Names,
    PassedOver,
    fill,
    find,
    match_path,
    normal,
    parts_of,
    require_image_pattern,
    wildcards,
)
from bdl.runtime.config import DomainConfig
from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import open_regular


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its images and labels, and how it counts classes.

    Patterns are relative to the root, see bdl.domains.matching; a label's path is its pattern with
    each wildcard replaced by what the same one of the image's pattern matched. {split} is the
    configuration's.
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


@dataclass(frozen=True)
class Listing:
    """What a data set consists of, by the names of its files alone.

    Args:
        samples: Those whose files are there, sorted by name, or in the order of the list file.
        flaws: One line about each sample that is not: it has no label, or its line in the list
            file names no image.
        passed: What lies beside them and was not taken.
    """

    samples: list[Sample]
    flaws: list[str]
    passed: PassedOver


def list_samples(domain: DomainConfig, key: str, labelled: bool) -> Listing:
    """The data set's samples, and what is wrong with those that cannot be used.

    Args:
        domain: The data set's section of the configuration.
        key: Its name in errors, e.g. "data.source".
        labelled: Whether samples have labels.

    Raises:
        UserError: If the root is missing, a folder cannot be listed, there are no images, or two
            have the same name.
    """
    if domain.root is None:
        raise UserError(f"{key}.root: is not set; give the data set's folder, {key}.root=DIR")
    root = Path(domain.root).expanduser()
    if not root.is_dir():
        raise UserError(f"{key}.root: {root} is not a folder; give the data set's, {key}.root=DIR")
    layout = layout_of(domain, key)
    require_image_pattern(layout.images, f"{key}.images")
    images_root, images = _rooted(root, layout.images, f"{key}.images")
    listed = find(images_root, images)
    matches = _without_labels(root, layout, listed.matches, images_root, listed.passed, key)
    flaws: list[str] = []
    if domain.list_file is not None and matches:
        file = Path(domain.list_file).expanduser()
        matches, flaws = _listed(matches, file, images_root, key)
    elif domain.list_file is None:
        flaws = [
            f"{images_root / path}: is a link that leads nowhere or to itself; replace or remove it"
            for path in listed.broken
        ]
    if not matches and not flaws:
        raise UserError(_nothing_found(images_root, layout.images, listed.passed, key))
    samples = [
        Sample(_name(images, match.path), images_root / match.path, None) for match in matches
    ]
    _require_unique_names(samples)
    if labelled:
        samples, without = _with_labels(root, layout, samples, matches, key)
        flaws = flaws + without
    return Listing(samples, flaws, listed.passed)


def find_samples(domain: DomainConfig, key: str, labelled: bool) -> list[Sample]:
    """The samples of `list_samples`; what was passed over is logged.

    Raises UserError as well for a sample that cannot be used, unless `on_error: skip` leaves it
    out, with the count in the log.
    """
    listing = list_samples(domain, key, labelled)
    log_passed(listing, key)
    if listing.flaws:
        total = len(listing.samples) + len(listing.flaws)
        leave_out(domain.on_error, key, listing.flaws[0], len(listing.flaws), total)
    return listing.samples


def log_passed(listing: Listing, key: str) -> None:
    """Say what lies beside the data set's images and was not taken."""
    for line in listing.passed.lines():
        log.info("%s: passed over: %s", key, line)


def leave_out(on_error: str, key: str, problem: str, count: int, total: int) -> None:
    """What `count` of `total` samples that cannot be used do: stop the run, or be left out.

    `problem` is a line about the first of them. Raises UserError unless `on_error` is "skip" and
    something remains.
    """
    if on_error != "skip":
        leaving = f", or leave them out with {key}.on_error=skip" if key.startswith("data.") else ""
        raise UserError(
            f"{problem} (so it is with {count} of the {total} samples of {key}; repair or remove "
            f"them{leaving})"
        )
    if count == total:
        raise UserError(f"{problem} (so it is with all {total} samples of {key})")
    log.info("%s: %d of %d samples left out; the first: %s", key, count, total, problem)


def listing(samples: list[Sample]) -> list[list[object]]:
    """Names and sizes in bytes of the samples' files: what fingerprints of bdl 0.1 covered."""
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
    matches = find(folder, parts_of("**/*", key)).matches
    by_name = {without_ending(normal(match.path)): folder / match.path for match in matches}
    names = {normal(sample.name) for sample in samples}
    missing = sorted(names - by_name.keys())
    others = sorted(by_name.keys() - names)
    if missing:
        hint = f"; it has others ({len(others)}): {_some(others)}" if others else ""
        raise UserError(
            f"{key}: {folder} lacks {len(missing)} of {len(samples)} source images by name: "
            f"{_some(missing)}{hint}"
        )
    if others:
        log.info("%s: files of no source image (%d): %s", key, len(others), _some(others))
    return {sample.name: by_name[normal(sample.name)] for sample in samples}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def pair_with(samples: list[Sample], image_at: Callable[[str], Path]) -> list[Sample]:
    """The samples with other images of the same names, e.g. their translations."""
    return [Sample(sample.name, image_at(sample.name), sample.label) for sample in samples]


def spread(available: int, count: int) -> list[int]:
    """`count` indices of `available` ones, spread evenly from the first to the last; all of them,
    if there are no more."""
    count = min(count, available)
    return [number * (available - 1) // max(1, count - 1) for number in range(count)]


def _rooted(root: Path, pattern: str, key: str) -> tuple[Path, list[str]]:
    """The folder that a pattern starts from, and its parts."""
    pattern = os.path.expanduser(pattern)
    if os.sep == "\\":
        pattern = pattern.replace("\\", "/")
    if os.path.isabs(pattern):
        root = Path(Path(pattern).anchor)
        pattern = pattern[len(root.as_posix()) :]
    return root, parts_of(pattern, key)


def _without_labels(
    root: Path,
    layout: Layout,
    matches: list[Match],
    images_root: Path,
    passed: PassedOver,
    key: str,
) -> list[Match]:
    """The matches that the pattern of labels does not name: what is a label is no image."""
    label_root, labels = _rooted(root, layout.labels, f"{key}.labels")
    if label_root != images_root:
        return matches
    images = [match for match in matches if match_path(labels, match.path) is None]
    if not images or len(images) == len(matches):
        return matches
    passed.labels |= {match.path for match in matches} - {match.path for match in images}
    return images


def _nothing_found(root: Path, pattern: str, passed: PassedOver, key: str) -> str:
    """Why no image matches, and what to do."""
    text = f"{key}: no images match {root / pattern}"
    if "\\" in pattern and os.sep != "\\":
        return f"{text}; \\ is no separator here, write {pattern.replace(chr(92), '/')}"
    lines = passed.lines()
    return f"{text}; {lines[0]}" if lines else f"{text}; check root and images"


def _name(images: list[str], path: str) -> str:
    """A sample's name: its path below the pattern's fixed folders, without the ending."""
    fixed = next((i for i, part in enumerate(images) if "*" in part), len(images) - 1)
    return without_ending(normal("/".join(path.split("/")[fixed:])))


def _with_labels(
    root: Path, layout: Layout, samples: list[Sample], matches: list[Match], key: str
) -> tuple[list[Sample], list[str]]:
    """The samples with their labels, and a line about each that has none."""
    images = _rooted(root, layout.images, f"{key}.images")[1]
    label_root, labels = _rooted(root, layout.labels, f"{key}.labels")
    if wildcards(images) != wildcards(labels):
        raise UserError(
            f"{key}.labels: '{layout.labels}' must have as many * as images '{layout.images}'"
        )
    files, labelled, flaws = Names(label_root), [], []
    for sample, match in zip(samples, matches, strict=True):
        filled = match.filled
        if images[-1].endswith("*"):
            # A star that stands at the pattern's end has taken the image's ending with it.
            filled = (*filled[:-1], without_ending(filled[-1]))
        path = fill(labels, filled)
        stored = files.find(path)
        if stored is None and labels[-1].endswith("*"):
            stored = next(filter(None, (files.find(path + e) for e in IMAGE_ENDINGS)), None)
        if stored is not None:
            labelled.append(Sample(sample.name, sample.image, label_root / stored))
        else:
            others = [name for name in files.beside(path) if is_image(name)]
            hint = f"; its folder holds {_some(others[:2])}" if others else ""
            flaws.append(f"{label_root / path}: no such label file, for image {sample.image}{hint}")
    return labelled, flaws


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
    matches: list[Match], file: Path, root: Path, key: str
) -> tuple[list[Match], list[str]]:
    """Those of `matches` that the list file names, in its order, and a line about each entry that
    names none.

    A line may give a path below the root, an absolute one, or its end (a file name), with or
    without the ending. Empty lines and those that begin with # say nothing.
    """
    lines = (line.strip() for line in read_text(file, f"{key}.list_file").splitlines())
    entries = [line for line in lines if line]
    by_end: dict[str, list[Match]] = {}
    for match in matches:
        parts = without_ending(normal(match.path)).split("/")
        for start in range(len(parts)):
            by_end.setdefault("/".join(parts[start:]), []).append(match)
    chosen, flaws = [], []
    for entry in entries:
        path = _entry_path(entry, root)
        images = by_end.get(without_ending(path), []) if path else []
        if len(images) > 1:  # the ending, or the whole path, may tell
            ends = [match for match in images if f"/{normal(match.path)}".endswith(f"/{path}")]
            images = [match for match in ends if normal(match.path) == path] or ends or images
        if len(images) > 1:
            raise UserError(
                f"{file}: '{entry}' names {len(images)} images of {key}, {images[0].path} and "
                f"{images[1].path} among them; give more of the path"
            )
        if images:
            chosen.append(images[0])
        elif not entry.startswith("#"):
            flaws.append(f"{file}: '{entry}' names no image of {key}")
    if not chosen and not flaws:
        raise UserError(f"{key}.list_file: {file} names no images; fill it, or leave it out")
    return chosen, flaws


def _entry_path(entry: str, root: Path) -> str:
    """A list's entry as a path below the root, or its end; empty if it lies elsewhere."""
    path = os.path.expanduser(normal(entry).replace("\\", "/"))
    if os.path.isabs(path):
        for base in (os.path.abspath(root), os.path.realpath(root)):
            below = os.path.normpath(path)
            prefix = normal(base).replace("\\", "/").rstrip("/") + "/"
            if below.replace("\\", "/").startswith(prefix):
                return below.replace("\\", "/")[len(prefix) :]
        # As published lists have it: /leftImg8bit/... means below the root.
        path = path.lstrip("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts)


def read_text(file: Path, key: str) -> str:
    """A text file of the user's, in UTF-8 or, with its mark, UTF-16.

    Raises:
        UserError: If it cannot be read as one; `key` names it.
    """
    try:
        with open_regular(file) as opened:
            content = opened.read()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{key}: {file} cannot be read as a text file ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{key}: {file} cannot be read as a text file; store it as UTF-8") from None
