"""What labelling tools and data sets export beside, or instead of, maps of class ids."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from bdl.domains.label_space import IGNORE, color_code
from bdl.runtime.errors import UserError
from bdl.runtime.files import open_regular

LABELMAP = "labelmap.txt"  # CVAT's names of colours: a line `label:red,green,blue:parts:actions`
_LABELMAP_LINE = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(:.*)?")
_CITYSCAPES_IDS = range(35)
_CITYSCAPES_THINGS = range(24, 34)  # whose instance ids are a thousand times the id, and a number

_BETWEEN, _RAREST = 8, 0.05  # ids between 0 and 255, and the share of each, of a smoothed mask
_STEP = 64  # levels from one of them to the next, at most
_DOMINANT = 0.5  # of the pixels are 0 or 255

SMOOTHED_MASK = (
    "hold 0, 255 and many levels between, as a mask of two classes does that was resized smoothly "
    "or compressed; make it anew by nearest neighbour, or set what is below 128 to 0 and the rest "
    "to 255, and store it as PNG"
)
INSTANCE_IDS = (
    "hold instance ids (1000 times the class and a number), which are no class ids; give the files "
    "of label ids instead: *_gtFine_labelIds.png beside *_gtFine_instanceIds.png"
)
PANOPTIC_IDS = (
    "holds panoptic ids (red + 256 green + 65536 blue), numbers of segments and not of classes; "
    "make maps of class ids with panopticapi's converters/panoptic2semantic_segmentation.py, "
    "option --semantic_seg_folder, and give their folder"
)


def read_labelmap(folders: Iterable[Path]) -> dict[int, str]:
    """The names of colours, 0xRRGGBB, from the first folder that holds CVAT's file of them; none
    if no folder does."""
    for folder in folders:
        try:
            with open_regular(folder / LABELMAP) as opened:
                text = opened.read().decode("utf-8-sig")
        except (OSError, UserError, UnicodeDecodeError):
            continue
        colors = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else _LABELMAP_LINE.fullmatch(line.strip())
            if match and all(int(channel) <= 255 for channel in match.group(2, 3, 4)):
                colors[color_code(*map(int, match.group(2, 3, 4)))] = match[1].strip()
        return colors
    return {}


def is_panoptic(file: Path) -> bool:
    """Whether a colour file lies where COCO's panoptic ids do, by the name of its folder."""
    return "panoptic" in file.parent.name.lower()


def advice_on_colors(file: Path) -> str:
    """What to do about a colour file in the place of a map of class ids."""
    if is_panoptic(file):
        return f"it {PANOPTIC_IDS}"
    if read_labelmap(file.parents[:2]):
        return (
            f"{LABELMAP} names its colours: init-config writes a label space with an encoding of "
            'them ("#804080": class), to be named in the data set\'s `encoding`'
        )
    return (
        "labels must be one channel of class ids, or show classes by the colours of the data set's "
        '`encoding`: "color" for the label space\'s own, or one of others ("#804080": class)'
    )


def are_instance_ids(ids: Collection[int]) -> bool:
    """Whether the ids in label files are Cityscapes' instance ids."""
    large = [number for number in ids if number >= 1000]
    small = [number for number in ids if number < 1000 and number != IGNORE]
    return (
        bool(large)
        and all(number // 1000 in _CITYSCAPES_THINGS for number in large)
        and all(number in _CITYSCAPES_IDS for number in small)
    )


def is_smoothed_mask(amounts: Mapping[int, float]) -> bool:
    """Whether ids, each with its pixels or their share, are the grey levels of a mask of 0 and 255
    whose edges were smoothed."""
    levels = sorted(amounts)
    steps = {after - before for before, after in pairwise(levels)}
    if levels[:1] != [0] or levels[-1] != IGNORE or len(levels) < _BETWEEN + 2:
        return False
    total = sum(amounts.values())
    return (
        max(steps) <= _STEP
        and max(steps) > min(steps) + 1  # else they are classes, spread to be seen
        and amounts[0] + amounts[IGNORE] > _DOMINANT * total
        and max(amounts[number] for number in levels[1:-1]) < _RAREST * total
    )


def about_mixed_masks(files: Sequence[Path], held: Iterable[Collection[int]]) -> str | None:
    """That some masks of two classes count to 1 and others to 255, in a line; None if it is not so.

    Args:
        files: Label files.
        held: The ids in each.
    """
    first: dict[frozenset[int], Path] = {}
    for file, ids in zip(files, held, strict=True):
        first.setdefault(frozenset(ids) - {0}, file)
    if first.keys() - {frozenset()} != {frozenset({1}), frozenset({IGNORE})}:
        return None
    return (
        f"{first[frozenset({1})]} holds 0 and 1, {first[frozenset({IGNORE})]} 0 and 255, which is "
        "ignored; store all masks alike, if both are of the same two classes"
    )
