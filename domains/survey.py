"""What a folder of images holds: its layout, sizes and label ids, found by looking."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from domains.datasets import IMAGE_ENDINGS, LAYOUTS, Sample, find_samples, spread
from domains.images import check_image, check_label, open_label
from domains.label_space import IGNORE
from runtime.config import DomainConfig
from runtime.errors import UserError

_SIZED, _OPENED = 100, 40  # images whose headers, and labels whose pixels, are looked at
_LABEL_WORDS = re.compile(r"label|mask|annot|segm|colou?r|^gt|_gt|^ids$", re.IGNORECASE)


@dataclass(frozen=True)
class Survey:
    """A folder's `domain` section without sizes, its image files, their commonest size (width,
    height), whether they all have it, and the label ids with their share of the pixels (without
    255; empty where labels were not asked for)."""

    domain: DomainConfig
    files: frozenset[Path]
    size: tuple[int, int]
    one_size: bool
    ids: dict[int, float]

    @property
    def count(self) -> int:
        return len(self.files)


def survey(root: str, split: str, labelled: bool, key: str) -> Survey:
    """Look at the data set in the folder `root`; `split` is for layouts that have splits.

    `key` names the folder in errors, e.g. "--source". Raises UserError if it is no folder, holds
    no images, or if `labelled` and labels cannot be told or do not pair with the images.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}: {root} is not a folder; give the data set's")
    domain = _known_layout(root, folder, split) or _patterns(root, folder, labelled, key)
    samples = find_samples(domain, key, labelled)
    sizes = Counter(check_image(samples[i].image) for i in spread(len(samples), _SIZED))
    ids = _ids([samples[i] for i in spread(len(samples), _OPENED)]) if labelled else {}
    files = frozenset(sample.image.resolve() for sample in samples)
    return Survey(domain, files, sizes.most_common(1)[0][0], len(sizes) == 1, ids)


def _known_layout(root: str, folder: Path, split: str) -> DomainConfig | None:
    for name in ("cityscapes", "synthia", "synthia_mapped"):
        domain = DomainConfig(layout=name, root=root, split=split)
        layout = LAYOUTS[name]
        # The part before the first star tells these layouts from each other.
        fixed = [
            pattern.replace("{split}", split).split("*")[0]
            for pattern in (layout.images, layout.labels)
        ]
        if all((folder / place).is_dir() for place in fixed):
            return domain
    return None


def _patterns(root: str, folder: Path, labelled: bool, key: str) -> DomainConfig:
    """A plain folder: patterns of its images, and of the labels beside them."""
    by_folder: dict[tuple[str, ...], list[str]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in IMAGE_ENDINGS and file.is_file():
            place = file.relative_to(folder)
            by_folder.setdefault(place.parts[:-1], []).append(place.name)
    labels = {
        place: names
        for place, names in by_folder.items()
        if _is_label(folder.joinpath(*place, names[0]))
    }
    photos = {place: names for place, names in by_folder.items() if place not in labels}
    plain = {
        place: names
        for place, names in photos.items()
        if not any(_LABEL_WORDS.search(part) for part in place)
    }
    photos = plain or photos  # coloured labels are for people; they are no photos
    if not labelled:
        photos = photos or labels  # grey photos
    if not photos:
        raise UserError(f"{key}: {root} holds no images; give the folder that holds them")
    photos = _deepest_common(photos)
    domain = DomainConfig(layout="folder", root=root, images=_pattern(photos))
    if not labelled:
        return domain
    stars = str(domain.images).count("*")
    fitting = [
        replace(domain, labels=pattern)
        for group in _groups(labels)
        if (pattern := _pattern(group)).count("*") == stars and pattern.endswith(".png")
    ]
    for candidate in fitting:
        try:
            find_samples(candidate, key, labelled=True)
        except UserError:
            continue
        return candidate
    # Some labels may be missing: the message of the best guess names the first.
    return (fitting or [replace(domain, labels=LAYOUTS["folder"].labels)])[0]


def _is_label(file: Path) -> bool:
    """Whether a file looks like a map of class ids: a PNG of one channel, or SYNTHIA's kind."""
    try:
        check_label(file)
    except UserError:
        return False
    return file.suffix.lower() == ".png"


def _groups(folders: dict[tuple[str, ...], list[str]]) -> list[dict[tuple[str, ...], list[str]]]:
    """Folders of equal depth and last name belong together; else those of equal depth."""
    groups: dict[tuple[int, str], dict[tuple[str, ...], list[str]]] = {}
    for place, names in folders.items():
        for kind in {(len(place), place[-1] if place else ""), (len(place), "*")}:
            groups.setdefault(kind, {})[place] = names
    return sorted(groups.values(), key=lambda group: -sum(map(len, group.values())))


def _deepest_common(
    folders: dict[tuple[str, ...], list[str]],
) -> dict[tuple[str, ...], list[str]]:
    """The folders of the depth that holds most files: a pattern has one depth."""
    files: Counter[int] = Counter()
    for place, names in folders.items():
        files[len(place)] += len(names)
    depth = files.most_common(1)[0][0]
    return {place: names for place, names in folders.items() if len(place) == depth}


def _pattern(folders: dict[tuple[str, ...], list[str]]) -> str:
    """One pattern for all files: a star for each part of the path that differs."""
    parts = [
        values.pop() if len(values := set(column)) == 1 else "*"
        for column in zip(*folders, strict=True)
    ]
    names = [name for found in folders.values() for name in found]
    endings = {os.path.splitext(name)[1] for name in names}
    if len(endings) > 1:
        return "/".join([*parts, "*"])
    stems = [os.path.splitext(name)[0] for name in names]
    return "/".join([*parts, f"*{_shared_ending(stems)}{endings.pop()}"])


def _shared_ending(stems: Sequence[str]) -> str:
    """What all names end with, from a separator on: "_ids" of 000_ids and 001_ids."""
    columns = zip(*(stem[::-1] for stem in stems), strict=False)
    shared = "".join(column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns))[::-1]
    found = re.search(r"[_.-][A-Za-z][\w.-]*$", shared)
    return found[0] if found else ""


def _ids(samples: Sequence[Sample]) -> dict[int, float]:
    counts: Counter[int] = Counter()
    for sample in samples:
        assert sample.label is not None
        ids, numbers = np.unique(np.asarray(open_label(sample.label)), return_counts=True)
        counts.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))
    total = sum(counts.values())
    return {number: counts[number] / total for number in sorted(counts) if number != IGNORE}
