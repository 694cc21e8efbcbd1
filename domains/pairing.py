"""Which files are of the same frame, by their names."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

_SUFFIX = re.compile(r"[_.-][A-Za-z][\w.-]*$")  # "_ids" of 000_ids
_PREFIX = re.compile(r"^.*[A-Za-z].*[_.-]")  # "img_" of img_000
_KIND = re.compile(  # what says whether a file is a photo, a label map or a prediction
    r"left_?img8bit|(im|image|img|photo|pic|picture|frame|rgb|cam|camera"
    r"|label|lbl|mask|annotation|annot|gt|gtfine|gtcoarse|truth|seg|segm|segmentation|semantic"
    r"|class|classes|id|color|colour|labelid|trainid|labeltrainid|pred|prediction|predicted"
    r"|out|output|result)s?",
    re.IGNORECASE,
)
_TRIED = 50  # names that a name is looked for in


def shared_affixes(names: Sequence[str]) -> tuple[str, str]:
    """What all names begin and end with, up to and from a separator: "img_" and "_ids" of
    img_000_ids and img_001_ids. Digits alone belong to the names, and so does all of a single
    name."""
    if len(set(names)) < 2:
        return "", ""
    prefix = _PREFIX.match(_shared_start(names))
    suffix = _SUFFIX.search(_shared_start([name[::-1] for name in names])[::-1])
    return prefix[0] if prefix else "", suffix[0] if suffix else ""


def _shared_start(names: Sequence[str]) -> str:
    columns = zip(*names, strict=False)
    return "".join(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def pair_names(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """For each of `names` the one of `others` that is of the same frame; those that have none are
    left out.

    Equal names are of the same frame; else names that are equal without what all names of their
    side share; else names of which the others have one more prefix or suffix, or one less. Of
    these rules the one counts that pairs most, the first of equals.
    """
    readings = [_same(names, others)]
    sides = [_without_affixes(names), _without_affixes(others)]
    readings += [
        _by_core(names, others, one, other)
        for one in (_as_it_is, sides[0])
        for other in (_as_it_is, sides[1])
    ]
    readings.append(_contained(names, others))
    readings.append({name: other for other, name in _contained(others, names).items()})
    return max(readings, key=len)


def unlike(pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first two paired names that may be of different frames; None if there are none.

    Names are alike if they are equal without words that say what a file is, such as label, mask or
    pred: img_000 and 000_gtFine_labelIds, and not day_000 and night_000.
    """
    return next((pair for pair in pairs if _telling(pair[0]) != _telling(pair[1])), None)


def _telling(name: str) -> list[str]:
    """The parts of a name that do not say what a file is."""
    words = [word for word in re.split("[^A-Za-z0-9]+", name) if not _KIND.fullmatch(word)]
    parts = [part for word in words for part in re.findall("[A-Za-z]+|[0-9]+", word)]
    return [part.lower() for part in parts if not _KIND.fullmatch(part)]


def _same(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    known = set(others)
    return {name: name for name in names if name in known}


def _as_it_is(name: str) -> str:
    return name


def _without_affixes(names: Sequence[str]) -> Callable[[str], str]:
    prefix, suffix = shared_affixes(names)

    def core(name: str) -> str:
        inner = name[len(prefix) : len(name) - len(suffix)]
        return inner if inner and len(prefix) + len(suffix) < len(name) else name

    return core


def _by_core(
    names: Sequence[str],
    others: Sequence[str],
    core: Callable[[str], str],
    other_core: Callable[[str], str],
) -> dict[str, str]:
    by_core = {other_core(other): other for other in others}
    if len(by_core) < len(set(others)):
        return {}
    return {name: by_core[core(name)] for name in names if core(name) in by_core}


def _contained(names: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Each of `names` with one prefix and one suffix is one of the others; none if several
    affixes would do."""
    if not names:
        return {}
    known = set(others)
    longest = max(names, key=len)  # it is contained by accident least often
    holding = [other for other in others if longest in other and longest != other][:_TRIED]
    pairings: list[dict[str, str]] = []
    for other in holding:
        prefix, suffix = other.split(longest, 1)
        pairs = {name: whole for name in names if (whole := f"{prefix}{name}{suffix}") in known}
        pairings.append(pairs)
    most = max(map(len, pairings), default=0)
    best = [pairs for pairs in pairings if len(pairs) == most]
    return best[0] if len(best) == 1 else {}
