"""What a data set holds: its layout, sizes and label ids, found by looking at all of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bdl.domains.datasets import LAYOUTS, Sample, find_samples
from bdl.domains.exports import (
    INSTANCE_IDS,
    PANOPTIC_IDS,
    SMOOTHED_MASK,
    about_mixed_masks,
    are_instance_ids,
    is_panoptic,
    is_smoothed_mask,
    read_labelmap,
)
from bdl.domains.folders import find_patterns
from bdl.domains.index import Index
from bdl.domains.inspection import Inspection, inspect_samples
from bdl.domains.label_space import IGNORE, TRANSPARENT
from bdl.domains.looks import Look, look_at_images
from bdl.domains.pairing import unlike
from bdl.domains.palettes import ambiguous_palettes
from bdl.runtime.config import DomainConfig
from bdl.runtime.console import log
from bdl.runtime.errors import UserError


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Args:
        domain: Its section of a configuration, without sizes.
        files: Its image files.
        size: Their commonest width and height.
        one_size: Whether they all have it.
        flattest: Their greatest ratio of width to height.
        look: Their colours and flat areas.
        ids: The share of all labels' pixels, by id or by colour 0xRRGGBB; without 255, unless the
            labels hold 0 and 255 alone. Empty where labels were not asked for.
        ignored: The share that is 255, or transparent, and not in `ids`.
        by_color: Whether labels show classes by colours.
        names: Those of colours, where a file beside the labels tells them.
        beside: What else lies there, a text for each group of files.
    """

    domain: DomainConfig
    files: frozenset[Path]
    size: tuple[int, int]
    one_size: bool
    flattest: float
    look: Look
    ids: dict[int, float]
    ignored: float = 0.0
    by_color: bool = False
    names: dict[int, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.files)

    def smallest_at(self, size: tuple[int, int]) -> tuple[int, int]:
        """The smallest width and height, once images of one size are resized to `size`, others to
        its width."""
        if self.one_size:
            return size
        return size[0], max(1, round(size[0] / self.flattest))

    @property
    def amounts(self) -> dict[int, float]:
        """The share of each id or colour, of what is ignored, too."""
        none = TRANSPARENT if self.by_color else IGNORE
        return {**self.ids, **({none: self.ignored} if self.ignored else {})}


def survey(root: str, split: str, labelled: bool, key: str, index: Index | None = None) -> Survey:
    """Look at the data set in a folder: at all headers and, if labelled, at all labels.

    Args:
        root: The folder.
        split: For layouts that have splits.
        labelled: Whether labels are looked for; else none are required, or opened.
        key: Names the folder in errors, e.g. "--source".
        index: Reads the files, and shows the progress.

    Raises:
        UserError: If it is no folder, holds no images, or if `labelled` and labels cannot be told
            or do not pair with the images.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}: {root} is not a folder; give the data set's")
    index = index or Index(None)
    domain = _known_layout(root, folder, split, labelled)
    by_color = False
    beside: tuple[str, ...] = ()
    if domain is None:
        patterns = find_patterns(folder, labelled, key, index)
        by_color, beside = patterns.by_color, patterns.beside
        domain = DomainConfig(
            layout="folder", root=root, images=patterns.images, labels=patterns.labels
        )
    samples = find_samples(domain, key, labelled)
    labels = [sample.label for sample in samples if sample.label is not None]
    pairs = {(s.image.stem, s.label.stem): s for s in samples if s.label is not None}
    if doubtful := unlike(pairs):
        paired = pairs[doubtful]
        log.info("%s: paired %s with %s; are these of one frame?", key, paired.image, paired.label)
    if not by_color and (line := ambiguous_palettes(labels, index, key)):
        if domain.layout != "folder":
            raise UserError(line)
        log.warning("warning: %s; they are taken by their colours", line.partition("; ")[0])
        by_color = True
    inspection = _inspect(samples, key, index, by_color)
    samples = inspection.samples
    ids = _shares(samples, key, index, by_color) if labelled else {}
    if not by_color and are_instance_ids(ids):
        raise UserError(f"{key}: its label files {INSTANCE_IDS}")
    if not by_color and is_smoothed_mask(ids):
        raise UserError(f"{key}: its label files {SMOOTHED_MASK}")
    is_binary = not by_color and ids.keys() == {0, IGNORE}
    ignored = 0.0 if is_binary else ids.pop(TRANSPARENT if by_color else IGNORE, 0.0)
    return Survey(
        domain=domain,
        files=frozenset(sample.image.resolve() for sample in samples),
        size=Counter(inspection.sizes).most_common(1)[0][0],
        one_size=len(set(inspection.sizes)) == 1,
        flattest=max(width / height for width, height in inspection.sizes),
        look=look_at_images([sample.image for sample in samples], inspection.orientation),
        ids=ids,
        ignored=ignored,
        by_color=by_color,
        names=_color_names(samples[0].label, folder) if by_color else {},
        beside=beside,
    )


def _known_layout(root: str, folder: Path, split: str, labelled: bool) -> DomainConfig | None:
    for name in ("cityscapes", "synthia", "synthia_mapped"):
        layout = LAYOUTS[name]
        # The part before the first star tells these layouts from each other.
        patterns = [layout.images, layout.labels]
        if not labelled and name == "cityscapes":
            patterns = [layout.images]  # whose photos may be here alone
        fixed = [pattern.replace("{split}", split).split("*")[0] for pattern in patterns]
        if all((folder / fixed_folder).is_dir() for fixed_folder in fixed):
            return DomainConfig(layout=name, root=root, split=split)
    return None


def _inspect(samples: Sequence[Sample], key: str, index: Index, by_color: bool) -> Inspection:
    """What may be used, by the headers; how many samples may not is a warning."""
    inspected = inspect_samples(samples, index, key, by_color=by_color)
    if inspected.flaws and not inspected.samples:
        raise UserError(inspected.flaws[0])
    if inspected.flaws:
        count = f"{len(inspected.flaws)} of {inspected.count}"
        log.warning("%s: %s cannot be used; the first: %s", key, count, inspected.flaws[0])
    return inspected


def _shares(samples: Sequence[Sample], key: str, index: Index, by_color: bool) -> dict[int, float]:
    """The share of all pixels of each id, or colour, in the labels."""
    counts: Counter[int] = Counter()
    files = [sample.label for sample in samples if sample.label is not None]
    looks = index.ids(files, key, by_color)
    for file, look in zip(files, looks, strict=True):
        if look.error:
            raise UserError(f"{file}: {PANOPTIC_IDS}" if is_panoptic(file) else look.error)
        counts.update(look.counts)
    if not by_color and (line := about_mixed_masks(files, [look.counts for look in looks])):
        log.warning("warning: %s: %s", key, line)
    return {number: counts[number] / counts.total() for number in sorted(counts)}


def _color_names(label: Path | None, root: Path) -> dict[int, str]:
    """Names of colours from a file in the label's folder, or in one above it up to the root."""
    parents = list(label.parents) if label is not None else []
    return read_labelmap(parents[: parents.index(root) + 1] if root in parents else parents[:2])
