"""What label files hold, told before hours are spent: shares of classes, and what cannot be meant.

One judgement for init-config, check and run. A run looks at some label files of each role; where
these look as if nothing could be learned, at all of them before it refuses.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bdl.domains.datasets import spread
from bdl.domains.exports import (
    INSTANCE_IDS,
    SMOOTHED_MASK,
    about_mixed_masks,
    are_instance_ids,
    is_smoothed_mask,
)
from bdl.domains.images import UNKNOWN
from bdl.domains.inspection import Inspection
from bdl.domains.label_space import IGNORE, TRANSPARENT, LabelSpace, stored_as_text
from bdl.domains.palettes import ambiguous_palettes
from bdl.domains.problem import Problem
from bdl.runtime.console import counted

LOOKED_AT = 40  # label files of a role that a run looks at
_BINARY = {0, IGNORE}
_MOST_UNKNOWN = 0.01  # of the labelled pixels, before a warning names their ids
_TOO_MANY_UNKNOWN = 0.5  # of them, before nothing is learned from or measured on the rest
_MOST_IGNORED = 0.5  # of all pixels, before a warning says so
_LISTED = 8
_SIZES = 3


@dataclass(frozen=True)
class Judgement:
    """What is to be said of a role's data.

    Args:
        table: Lines about images, sizes and shares of classes.
        warnings: What may be meant, or not.
        problems: What cannot be meant, each a line that says what to do.
    """

    table: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Held:
    """What label files hold, by an encoding of a label space.

    Args:
        amounts: Pixels, or their share, by id or colour; 255 among them.
        space: The label space.
        encoding: One of its encodings.

    `listed` are the ids that the encoding names, those that it leaves out among them.
    """

    def __init__(self, amounts: Mapping[int, float], space: LabelSpace, encoding: str) -> None:
        self.space, self.encoding = space, encoding
        self.by_color = encoding in space.by_color
        self.ids = set(amounts)
        self.is_smoothed = encoding not in space.by_color and is_smoothed_mask(amounts)
        self.total = sum(amounts.values())
        classes = space.encodings[encoding]
        self.listed = classes.keys() | space.left_out.get(encoding, frozenset())
        ignored = TRANSPARENT if self.by_color else IGNORE
        self.classes: dict[int, float] = {}  # amounts, by train id
        for number, amount in amounts.items():
            if number in classes:
                self.classes[classes[number]] = self.classes.get(classes[number], 0) + amount
        self.known = sum(self.classes.values())
        self.unknown = {
            number: amount
            for number, amount in amounts.items()
            if number not in self.listed and number != ignored
        }

    @property
    def is_binary(self) -> bool:
        """Whether the ids are 0 and 255, of which two classes lose the second."""
        return (
            not self.by_color
            and self.ids == _BINARY
            and self.space.num_classes == 2
            and IGNORE not in self.space.encodings[self.encoding]
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether nothing can be learned, if there is no more."""
        return len(self.classes) < 2 or mostly_unknown(sum(self.unknown.values()), self.known)

    def missing(self) -> list[str]:
        """Names of the classes that are not there."""
        return [name for i, name in enumerate(self.space.names) if i not in self.classes]

    def shares(self) -> list[str]:
        """Each class that is there with its share of the pixels, then what is ignored."""
        named = [
            f"{name} {_percent(self.classes[i], self.total)}"
            for i, name in enumerate(self.space.names)
            if i in self.classes
        ]
        ignored = self.total - self.known
        return [*named, f"ignored {_percent(ignored, self.total)}"]

    def text(self, numbers: Sequence[int]) -> str:
        """Ids, or colours, as a message lists them."""
        listed = ", ".join(
            "out of range"
            if number == UNKNOWN and not self.by_color
            else "transparent"
            if number == TRANSPARENT and self.by_color
            else stored_as_text(number, self.by_color)
            for number in numbers[:_LISTED]
        )
        return listed + (", ..." if len(numbers) > _LISTED else "")


def mostly_unknown(unknown: float, known: float) -> bool:
    """Whether labels are read by a wrong encoding, as most of them are of ids that are no class.

    Args:
        unknown: Pixels whose ids the encoding does not list; 255 is not among them.
        known: Pixels of classes.
    """
    return unknown > _TOO_MANY_UNKNOWN * (unknown + known)


def judge(held: Held, key: str, learned: bool, whole: bool) -> Judgement:
    """What is wrong with what label files hold.

    Args:
        held: What they hold.
        key: Their data set in messages, e.g. "data.source", or an option such as "--source".
        learned: Whether a network learns from them alone; else it is measured on them, or has them
            beside others.
        whole: Whether these are all label files.
    """
    told = Judgement()
    kind = "colours" if held.by_color else "ids"
    if held.is_binary:
        told.problems.append(_about_binary(held, key))
    elif held.is_smoothed:
        told.problems.append(f"{key}: its label files {SMOOTHED_MASK}")
    elif not held.by_color and are_instance_ids(set(held.unknown) | held.ids) and held.unknown:
        told.problems.append(f"{key}: its label files {INSTANCE_IDS}")
    elif not held.classes:
        told.problems.append(
            f"{key}: no label file holds an id of a class (they hold "
            f"{held.text(sorted(held.ids))}); check {_setting(key)} and the label space "
            f"'{held.space.name}'"
        )
    elif len(held.classes) == 1 and learned:
        (only,) = held.classes
        others = sorted(held.ids - held.space.encodings[held.encoding].keys())
        also = f", and else {held.text(others)}, ignored" if others else ""
        told.problems.append(
            f"{key}: its labels hold one class alone, {held.space.names[only]}{also}; a network "
            f"learns nothing from one; check {_setting(key)} and the label space "
            f"'{held.space.name}'"
        )
    unknown = sum(held.unknown.values())
    labelled = held.known + unknown
    numbers = sorted(held.unknown, key=lambda number: -held.unknown[number])
    ignored_ids = (
        f"{key}: {_percent(unknown, labelled)} of its labelled pixels are ignored, as their "
        f"{kind} are no class of '{held.space.name}': {held.text(numbers)}"
    )
    if not told.problems and mostly_unknown(unknown, held.known):
        told.problems.append(
            f"{ignored_ids}; check {_setting(key)}, or list them there with null in the place of a "
            "class where they are meant to be ignored"
        )
    if told.problems:
        return told
    if len(held.classes) == 1:
        (only,) = held.classes
        told.warnings.append(
            f"{key}: its labels hold one class alone, {held.space.names[only]}, and say little "
            "of the others"
        )
    if unknown > _MOST_UNKNOWN * labelled:
        told.warnings.append(ignored_ids)
    if learned and whole and held.missing():
        names = held.missing()
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        told.warnings.append(
            f"{key}: no label file holds a pixel of {', '.join(names[:_LISTED])}{more}, which "
            "cannot be learned"
        )
    ignored = held.total - held.known
    if ignored > _MOST_IGNORED * held.total:
        told.warnings.append(f"{key}: {_percent(ignored, held.total)} of its pixels are ignored")
    return told


def look_at(problem: Problem, role: str, inspection: Inspection, whole: bool) -> Judgement:
    """Look at a role's files, and tell what they hold.

    Args:
        problem: The data sets.
        role: "source", "target", "target_labelled" or "validation".
        inspection: What of it may be used.
        whole: Whether all label files are read.
    """
    key = f"data.{role}"
    told = Judgement([_about_images(key, inspection)])
    files = [sample.label for sample in inspection.samples if sample.label is not None]
    if not files:
        return told
    if not problem.is_by_color(role):
        own = problem.space if problem.layout(role).encoding == "train_id" else None
        if line := ambiguous_palettes(files, problem.index, key, own):
            told.problems.append(line)
            return told
    chosen = files if whole else [files[i] for i in spread(len(files), LOOKED_AT)]
    held, flaws, line = _held(problem, role, chosen)
    if len(chosen) < len(files) and not flaws and held.is_doubtful:
        chosen = files
        held, flaws, line = _held(problem, role, chosen)
    if flaws:
        told.problems.extend(flaws)
        return told
    all_of_them = len(chosen) == len(files)
    amount = f"all {len(files)}" if all_of_them else f"{len(chosen)} of {len(files)}"
    noun = "label file" if len(files) == 1 else "label files"
    told.table.append(f"  {amount} {noun}: {', '.join(held.shares())}")
    if held.missing():
        told.table.append(f"  not in them: {', '.join(held.missing())}")
    judged = judge(held, key, role == "source", all_of_them)
    warnings = [f"{key}: {line}", *judged.warnings] if line else judged.warnings
    return Judgement(told.table, warnings, judged.problems)


def not_in_source(problem: Problem) -> list[str]:
    """A line if most of what is measured on is of classes that no source label holds."""
    roles = ("source", "validation")
    if not set(roles) <= set(problem.roles) or any(map(problem.is_rendered, roles)):
        return []
    files = {
        role: [one.label for one in problem.inspect(role).samples if one.label is not None]
        for role in roles
    }
    some = {role: [all_[i] for i in spread(len(all_), LOOKED_AT)] for role, all_ in files.items()}
    measured, _, _ = _held(problem, "validation", some["validation"])
    for looked_at in (some["source"], files["source"]):  # all of them, where some lack classes
        learned, _, _ = _held(problem, "source", looked_at)
        lacking = {i: n for i, n in measured.classes.items() if i not in learned.classes}
        if sum(lacking.values()) <= _MOST_IGNORED * measured.known:
            return []
    names = ", ".join(problem.space.names[i] for i in sorted(lacking)[:_LISTED])
    share = _percent(sum(lacking.values()), measured.known)
    return [
        f"data.validation: {share} of its labelled pixels are of classes that data.source has "
        f"nowhere: {names}; no network learns them; check data.validation.encoding and "
        "data.source.encoding"
    ]


def _held(problem: Problem, role: str, files: Sequence[Path]) -> tuple[Held, list[str], str | None]:
    """What label files hold, why those that cannot be read cannot, and that masks are mixed."""
    amounts: Counter[int] = Counter()
    looks = problem.index.ids(files, f"data.{role}", problem.is_by_color(role))
    for look in looks:
        amounts.update(look.counts)
    held = Held(amounts, problem.space, problem.layout(role).encoding)
    is_listed = held.by_color or IGNORE in held.listed
    mixed = None if is_listed else about_mixed_masks(files, [look.counts for look in looks])
    return held, [look.error for look in looks if look.error], mixed


def _about_images(key: str, inspection: Inspection) -> str:
    sizes = Counter(inspection.sizes).most_common()
    listed = ", ".join(
        f"{width}x{height}" + (f" ({count})" if len(sizes) > 1 else "")
        for (width, height), count in sizes[:_SIZES]
    )
    more = f" and {len(sizes) - _SIZES} other sizes" if len(sizes) > _SIZES else ""
    note = (
        f"; {inspection.turned} of them held otherwise, read {inspection.orientation}"
        if inspection.turned
        else ""
    )
    return f"{key}: {counted(len(inspection.samples), 'image')} of {listed}{more}{note}"


def _about_binary(held: Held, key: str) -> str:
    listing = [name for name, ids in held.space.encodings.items() if IGNORE in ids]
    own = [name for name in listing if name not in held.space.by_color]
    if own:
        return (
            f"{key}: its label files hold 0 and 255 alone, and 255 is ignored by encoding "
            f"'{held.encoding}'; set {_setting(key)} to {own[0]}, which lists it"
        )
    first, second = held.space.names
    return (
        f"{key}: its label files hold 0 and 255 alone, and 255 is ignored unless an encoding lists "
        f"it; add to the label space '{held.space.name}': encodings: {{mask: {{0: {first}, "
        f"255: {second}}}}}, and set {_setting(key)} to mask (init-config without --label-space "
        "writes both)"
    )


def _setting(key: str) -> str:
    """The setting that says how labels count classes."""
    return "its encoding" if key.startswith("--") else f"{key}.encoding"


def _percent(part: float, whole: float) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.2f} %" if 0 < share < 0.1 else f"{share:.1f} %"
