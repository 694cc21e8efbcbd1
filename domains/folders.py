"""Which files below a folder are images and which their labels, and the patterns that say so.

Files are told apart by folder, ending, and a word that their names begin or end with. Each such
group is of photos or of labels by the words in its path, and by what the headers of some files
allow. A pattern is taken only if it matches nothing of another group.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

from bdl.domains.datasets import LAYOUTS, spread
from bdl.domains.endings import IMAGE_ENDINGS, LABEL_ENDINGS
from bdl.domains.exports import PANOPTIC_IDS, is_panoptic, read_labelmap
from bdl.domains.index import Index
from bdl.domains.matching import fill, find, match_path, normal, parts_of, wildcards
from bdl.domains.pairing import pair_names, shared_affixes
from bdl.runtime.errors import UserError

_HEADERS = 3  # of each group, which tell what its files are
_PAIRED = 500  # images whose labels are looked for, to choose among patterns
_ENOUGH = 0.9  # of the images have labels: the pattern is meant, and the others' are missing
_TRIED = 20  # sets of groups
_LISTED = 6

NEITHER, COLORED, LABEL, PHOTO, COLOR = "neither", "coloured labels", "label", "photo", "colour"
_WORDS = {  # in the names of folders and files, in lower case; the first that is there counts
    NEITHER: r"depth|dispar|flow(?!er)|instance|panoptic|segmentationobject|normals(?![a-z])"
    r"|overlay|preview|visuali|thumb|confidence|polygon|predict",
    COLORED: r"(label|mask|annot|segm|gt).*colou?r|colou?r.*(label|mask|annot|segm)",
    LABEL: r"(?<!un)label(?!l?ed)|mask(?!ed)|annot(?!ated)|segm|semantic|truth|^gt|_gt"
    r"|(?<![a-z])(ids?|seg|lbl|classes)(?![a-z])",
    PHOTO: r"image|img|photo|rgb|jpe?g|camera|picture|(?<![a-z])(left|right|frames?)",
    COLOR: r"colou?r",
}
_FIRST_WORD = re.compile(r"[A-Za-z][A-Za-z_.-]*[_.-](?=.)")
_LAST_WORD = re.compile(r"(?<=.)[_.-][A-Za-z][A-Za-z_.-]*$")


@dataclass(frozen=True, eq=False)
class Group:
    """Files of one folder, ending and kind of name.

    Args:
        parts: The parts of their folder's path.
        affixes: What their names begin and end with, where a word there tells what they are.
        ending: Theirs, with its dot, in lower case.
        names: Theirs.
        word: What a word in their path says that they are; empty if there is none.
        is_photo, is_map, is_colors: What the headers allow: photos, maps of ids, of colours.
        flaw: Why the first that is no label map is none.
    """

    parts: tuple[str, ...]
    affixes: tuple[str, str]
    ending: str
    names: list[str]
    word: str
    is_photo: bool
    is_map: bool
    is_colors: bool
    flaw: str

    @cached_property
    def paths(self) -> list[str]:
        """Below the folder, in normal form."""
        return [normal("/".join([*self.parts, name])) for name in self.names]

    @cached_property
    def stems(self) -> list[str]:
        return [normal(os.path.splitext(name)[0]) for name in self.names]

    def __str__(self) -> str:
        prefix, suffix = self.affixes
        return f"{'/'.join([*self.parts, f'{prefix}*{suffix}{self.ending}'])} ({len(self.names)})"


@dataclass(frozen=True)
class Patterns:
    """What is taken of a folder.

    Args:
        images: The pattern of images.
        labels: That of labels; None where none are named.
        photos, maps: The groups that these are of.
        by_color: Whether labels show classes by colours.
        beside: What else lies there, a text for each group.
    """

    images: str
    labels: str | None
    photos: Sequence[Group]
    maps: Sequence[Group] = ()
    by_color: bool = False
    beside: tuple[str, ...] = ()


def find_patterns(root: Path, labelled: bool, key: str, index: Index) -> Patterns:
    """What of the files below a folder is taken for images, and for labels.

    Args:
        root: The folder.
        labelled: Whether labels are looked for.
        key: Names the folder in errors, e.g. "--source".
        index: Reads headers.

    Raises:
        UserError: If there are no images, or what is there is no labels.
    """
    matches = find(root, parts_of("**/*", key)).matches
    if not matches:
        raise UserError(f"{key}: {root} holds no images; give the folder that holds them")
    groups = _grouped(root, [match.path for match in matches], index)
    chosen = _labelled(groups, root, index) if labelled else _unlabelled(groups)
    if chosen is None and labelled:
        _explain_missing_labels(groups, root, key)
        chosen = _unlabelled(groups)
        chosen = chosen and replace(chosen, labels=LAYOUTS["folder"].labels, maps=())
    if chosen is None:
        raise UserError(
            f"{key}: no pattern tells the images in {root} from what lies beside them: "
            f"{_listed(groups)}; move them into a folder of their own"
        )
    labels = chosen.labels.split("/") if chosen.labels else []
    maps = [group for group in chosen.maps if match_path(labels, group.paths[0]) is not None]
    taken = [*chosen.photos, *maps]
    left = [str(group) for group in groups if group not in taken]
    if len(left) > _LISTED:
        left[_LISTED:] = [f"{len(left) - _LISTED} more"]
    by_color = bool(maps) and not any(group.is_map for group in maps)
    return replace(chosen, by_color=by_color and labelled, beside=tuple(left))


def _listed(groups: Sequence[Group]) -> str:
    return ", ".join(map(str, groups[:_LISTED])) + (", ..." if len(groups) > _LISTED else "")


# Groups


def _grouped(root: Path, paths: Sequence[str], index: Index) -> list[Group]:
    names: dict[tuple[tuple[str, ...], tuple[str, str], str], list[str]] = {}
    for path in paths:
        *parts, name = path.split("/")
        stem, ending = os.path.splitext(name)
        affixes = _telling_affixes(stem, ending.lower())
        names.setdefault((tuple(parts), affixes, ending.lower()), []).append(name)
    samples = {
        key: [root.joinpath(*key[0], members[i]) for i in spread(len(members), _HEADERS)]
        for key, members in names.items()
    }
    files = [file for chosen in samples.values() for file in chosen]
    looks = dict(zip(files, index.headers(files, str(root)), strict=True))
    groups = []
    for (folder, affixes, ending), members in names.items():
        here = [looks[file] for file in samples[folder, affixes, ending]]
        headers = [look.header for look in here if look.header is not None]
        flaws = [look.label_flaw for look in here if look.header is not None and look.label_flaw]
        groups.append(
            Group(
                parts=folder,
                affixes=affixes,
                ending=ending,
                names=members,
                word=_word_of([*folder, *filter(None, affixes)]),
                is_photo=not headers or any(header.image_flaw is None for header in headers),
                is_map=bool(headers) and all(header.label_flaw is None for header in headers),
                is_colors=bool(headers) and all(header.colors_flaw is None for header in headers),
                flaw=flaws[0] if flaws else "",
            )
        )
    return groups


def _telling_affixes(stem: str, ending: str) -> tuple[str, str]:
    """What a name begins or ends with, if a word there says that it is no photo."""
    telling = (NEITHER, LABEL, COLORED, COLOR) if ending in LABEL_ENDINGS else (NEITHER,)
    first, last = _FIRST_WORD.match(stem), _LAST_WORD.search(stem)
    if last and _word_in(last[0]) in telling:
        return "", last[0]
    if first and _word_in(first[0]) in telling:
        return first[0], ""
    return "", ""


def _word_of(parts: Sequence[str]) -> str:
    """What the words in a path say; the nearest to its end counts."""
    return next(filter(None, map(_word_in, reversed(parts))), "")


def _word_in(name: str) -> str:
    text = name.lower()
    return next((kind for kind, words in _WORDS.items() if re.search(words, text)), "")


def _subsets(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one depth, together and by what tells them apart; those with most files first."""
    sets: dict[tuple[int, ...], list[Group]] = {}

    def add(chosen: list[Group]) -> None:
        sets.setdefault(tuple(sorted(map(id, chosen))), chosen)

    for depth in {len(group.parts) for group in groups}:
        deep = [group for group in groups if len(group.parts) == depth]
        add(deep)
        keys = [lambda group, column=column: group.parts[column] for column in range(depth)]
        for key in (*keys, lambda group: group.ending, lambda group: group.affixes, id):
            parts: dict[object, list[Group]] = {}
            for group in deep:
                parts.setdefault(key(group), []).append(group)  # type: ignore[no-untyped-call]
            for chosen in islice(parts.values(), _TRIED):
                add(chosen)
    return sorted(sets.values(), key=lambda chosen: -sum(len(g.names) for g in chosen))[:_TRIED]


# What is a photo, and what a label


def _photos(groups: Sequence[Group], maps: Sequence[Group] = ()) -> list[Group]:
    """The likeliest images beside the labels: all groups that are equally likely."""

    def rank(group: Group) -> int:
        if group.word == NEITHER:
            return 4
        if group.word in (LABEL, COLORED):
            return 3 if group.is_map or group.is_colors else 2
        if group.word == PHOTO:
            return 0
        return 2 if group.word == COLOR or group.is_map else 1

    ranks = {group: rank(group) for group in groups if group not in maps and group.is_photo}
    if not ranks:  # none can be used: the reason is named when they are looked at
        ranks = {group: rank(group) for group in groups if group not in maps}
    return [group for group, number in ranks.items() if number == min(ranks.values())]


def _label_candidates(groups: Sequence[Group], root: Path, index: Index) -> list[list[Group]]:
    """Sets of groups that may be the labels, the likeliest first."""
    names_colors = bool(read_labelmap([root]))

    def rank(group: Group) -> int | None:
        if group.word == LABEL and (group.is_map or group.is_colors):
            return 0 if group.is_map else 1
        if group.word == "" and (group.is_map or (group.is_colors and names_colors)):
            return 2
        if group.word in (COLORED, COLOR) and (group.is_map or group.is_colors):
            return 3
        return None

    def variety(chosen: Sequence[Group]) -> int:
        """The ids in a file: of grey photos and labels, which look alike, labels have fewer."""
        (look,) = index.ids([root / chosen[0].paths[0]], str(root))
        return len(look.counts)

    ranked: dict[int, list[Group]] = {}
    for group in groups:
        if (number := rank(group)) is not None:
            ranked.setdefault(number, []).append(group)
    candidates: list[list[Group]] = []
    for number in sorted(ranked):
        sets = _subsets(ranked[number])
        if number == 2 and len(sets) > 1 and ranked[number][0].is_map:
            sets.sort(key=variety)
        candidates += sets
    return candidates


def _explain_missing_labels(groups: Sequence[Group], root: Path, key: str) -> None:
    """Raise UserError that says what lies there and is no labels."""
    photos = _photos(groups)
    others = [group for group in groups if group not in photos]
    for group in others:
        if not group.is_map and is_panoptic(root / group.paths[0]):
            raise UserError(f"{key}: {root / group.paths[0]} {PANOPTIC_IDS}")
    for group in others:
        if group.word == LABEL and group.flaw:
            raise UserError(group.flaw)
    if others:
        raise UserError(
            f"{key}: {root} holds no labels of its images; by their names these are none: "
            f"{_listed(others)}"
        )


# Patterns


def _unlabelled(groups: Sequence[Group]) -> Patterns | None:
    for photos in _subsets(_photos(groups)):
        photo_folders = {group.parts for group in photos}
        labels = [
            g for g in groups if g.word == LABEL and g.parts in photo_folders and g not in photos
        ]
        kinds = {
            group.affixes: [g for g in labels if g.affixes == group.affixes] for group in labels
        }
        for images in _image_patterns(photos):
            if _is_exact(images, None, photos, groups):
                return Patterns(images, None, photos)
            # What lies among the images and is a label is named, and so is no image.
            for affixes, maps in kinds.items():
                pattern = _pattern(maps, affixes)
                if _is_exact(images, pattern, photos, groups):
                    return Patterns(images, pattern, photos, maps)
    return None


def _labelled(groups: Sequence[Group], root: Path, index: Index) -> Patterns | None:
    """The patterns by which most images have labels; None if there is nothing like labels."""
    paths = {_lowered(path) for group in groups for path in group.paths}
    best, best_score = None, (False, 0.0, 0.0)
    for maps in _label_candidates(groups, root, index):
        photos = _photos(groups, maps)
        for number, chosen in enumerate(_subsets(photos)):
            count = sum(len(group.names) for group in chosen)
            for images, labels in _pairs(chosen, maps):
                if not _is_exact(images, labels, chosen, groups):
                    continue
                share = _paired_share(images, labels, chosen, paths)
                score = (share >= _ENOUGH, share * count, share)
                if best is None or score > best_score:
                    best, best_score = Patterns(images, labels, chosen, maps), score
                if share == 1 and number == 0:
                    return best
    return best


def _pairs(photos: Sequence[Group], maps: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """Patterns of images and labels with as many stars each."""
    ours = [stem for group in photos for stem in group.stems]
    theirs = [stem for group in maps for stem in group.stems]
    sides = []
    for stems, groups in ((ours, photos), (theirs, maps)):
        prefix, suffix = shared_affixes(stems)
        own = groups[0].affixes
        # What all names begin with is left to the star, unless images and labels differ in it.
        sides.append([own if any(own) else ("", suffix), (prefix or own[0], suffix or own[1])])
    affixes = [(a, b) for a, b in zip(*sides, strict=True)]
    affixes += [(a, b) for a in sides[0] for b in sides[1]]
    for name, other in islice(pair_names(ours, theirs).items(), 1):
        if name in other:  # the label's name is the image's, and more
            prefix, suffix = other.split(name, 1)
            affixes.append((("", ""), (prefix, suffix)))
        elif other in name:
            prefix, suffix = name.split(other, 1)
            affixes.append(((prefix, suffix), ("", "")))
    for of_images, of_labels in dict.fromkeys(affixes):
        for with_folders in (False, True):
            images = _pattern(photos, of_images, with_folders)
            labels = _pattern(maps, of_labels, with_folders)
            if wildcards(images.split("/")) == wildcards(labels.split("/")):
                yield images, labels


def _image_patterns(photos: Sequence[Group]) -> list[str]:
    """Patterns of images, those that say least of their names first."""
    prefix, suffix = shared_affixes([stem for group in photos for stem in group.stems])
    own = photos[0].affixes
    return [
        _pattern(photos, affixes, with_folders)
        for with_folders in (False, True)
        for affixes in (own if any(own) else ("", suffix), (prefix or own[0], suffix or own[1]))
    ]


def _pattern(groups: Sequence[Group], affixes: tuple[str, str], with_folders: bool = False) -> str:
    """One pattern for all files: a star for each part of the path that differs.

    `with_folders` says what differing folders' names begin and end with.
    """
    parts = []
    for column in zip(*(group.parts for group in groups), strict=True):
        names = sorted({normal(name) for name in column})
        if len(names) == 1:
            parts.append(names[0])
        else:
            parts.append("*".join(shared_affixes(names) if with_folders else ("", "")))
    endings = {group.ending for group in groups}
    name = "*".join(affixes) + endings.pop() if len(endings) == 1 else "*"
    return "/".join([*parts, name])


def _is_exact(
    images: str, labels: str | None, photos: Sequence[Group], groups: Sequence[Group]
) -> bool:
    """Whether the images' pattern matches the photos, and of the others only what is named as
    labels."""
    image_parts, label_parts = images.split("/"), labels.split("/") if labels else None
    for group in groups:
        for path in (group.paths[i] for i in spread(len(group.paths), _HEADERS)):
            matches = match_path(image_parts, path) is not None
            if matches and label_parts and match_path(label_parts, path) is not None:
                matches = False
            if matches != (group in photos):
                return False
    return True


def _paired_share(images: str, labels: str, photos: Sequence[Group], paths: set[str]) -> float:
    """The share of images that have a label."""
    image_parts, label_parts = images.split("/"), labels.split("/")
    all_of_them = [path for group in photos for path in group.paths]
    looked_at = [all_of_them[i] for i in spread(len(all_of_them), _PAIRED)]
    paired = 0
    for path in looked_at:
        filled = match_path(image_parts, path) or ()
        if image_parts[-1].endswith("*"):  # which has taken the ending with it
            filled = (*filled[:-1], os.path.splitext(filled[-1])[0])
        label = fill(label_parts, filled)
        endings = IMAGE_ENDINGS if label_parts[-1].endswith("*") else ("",)
        paired += any(_lowered(label + ending) in paths for ending in endings)
    return paired / len(looked_at)


def _lowered(path: str) -> str:
    """The path with its ending in lower case."""
    stem, ending = os.path.splitext(path)
    return stem + ending.lower()
