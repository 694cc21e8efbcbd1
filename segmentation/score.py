"""IoU of prediction files against label files, whoever made the predictions."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bdl.domains.endings import LABEL_ENDINGS
from bdl.domains.guard import mostly_unknown
from bdl.domains.images import open_label
from bdl.domains.label_space import (
    IGNORE,
    TRANSPARENT,
    LabelSpace,
    is_by_color,
)
from bdl.domains.matching import find, normal, parts_of
from bdl.domains.pairing import pair_names, unlike
from bdl.runtime.console import log
from bdl.runtime.errors import UserError

OWN = "own"
# What data sets add to a frame's name to tell its files apart.
_KINDS = re.compile(r"_(leftImg8bit|gtFine_labelIds|gtFine_labelTrainIds|labelIds|labelTrainIds)$")
_LABEL_KINDS = {"_labelTrainIds": "train_id", "_labelIds": "label_id"}  # and their encodings
_LISTED = 8


@dataclass(frozen=True)
class Pairs:
    """Prediction and label files that belong together; `left_out` predictions have no label.

    `encoding` is the encoding that the label files' names tell, if they do.
    """

    files: list[tuple[Path, Path]]
    left_out: int
    encoding: str | None


def find_pairs(predictions: Path, labels: Path, encoding: str | None = None) -> Pairs:
    """The files below both folders that are of the same frame, by their names.

    Names are compared without folders and without Cityscapes' endings (_leftImg8bit,
    _gtFine_labelIds); if file names repeat, with folders. What all names of a folder share, or one
    folder's have more, as in 000_pred.png, makes no difference. Of a folder as Cityscapes has it
    one kind of label files is taken: that of `encoding`, where that is known and it is there, else
    train ids before label ids. Raises UserError if a label has no prediction.
    """
    label_files, told = _label_files(labels, encoding)
    prediction_files = _map_files(predictions, "--predictions")
    plain = _by_name(label_files, lambda file: _frame(file.stem))
    predicted = _by_name(prediction_files, lambda file: _frame(file.stem))
    if plain is None or predicted is None:

        def relative(root: Path) -> Callable[[Path], str]:
            return lambda file: _frame(file.relative_to(root).with_suffix("").as_posix())

        plain = _by_name(label_files, relative(labels))
        predicted = _by_name(prediction_files, relative(predictions))
        if plain is None or predicted is None:
            raise UserError(f"{labels}, {predictions}: file names repeat; keep one file a frame")
    of_label = pair_names(list(plain), list(predicted))
    missing = [plain[name] for name in plain if name not in of_label]
    if missing:
        raise UserError(
            f"{missing[0]}: no prediction of that name below {predictions} "
            f"({len(missing)} of {len(plain)} labels have none)"
        )
    if doubtful := unlike((name, of_label[name]) for name in plain):
        label, prediction = plain[doubtful[0]], predicted[doubtful[1]]
        log.info("paired %s with %s; are these of one frame?", prediction, label)
    files = [(predicted[of_label[name]], plain[name]) for name in plain]
    return Pairs(files, len(predicted) - len(files), told)


def detect_encoding(files: list[Path], space: LabelSpace) -> str:
    """How label files count classes: "own" (the label space's train ids) or one of its encodings.

    Told by the ids in the files: the one by which each is a class, else the one that knows each,
    though it leaves some out. Raises UserError where none does, or several that differ.
    """
    held: set[int] = set()
    for file in files:
        held |= set(np.unique(np.asarray(open_label(file))).tolist())
    if held == {0, IGNORE}:  # both are classes where an encoding says so
        for name, listed in space.encodings.items():
            if name not in space.by_color and held == listed.keys():
                return name
    ids = sorted(held - {IGNORE})
    of_ids = [name for name in space.encodings if name not in space.by_color]
    meant = {OWN: own_table(space)[ids]} | {name: space.table(name)[ids] for name in of_ids}
    known = {name: set(space.left_out.get(name, ())) for name in meant}
    fitting = [name for name, train_ids in meant.items() if (train_ids != IGNORE).all()] or [
        name
        for name, train_ids in meant.items()
        if (train_ids != IGNORE).any()
        and known[name].issuperset(np.array(ids)[train_ids == IGNORE])
    ]
    if fitting and all(np.array_equal(meant[name], meant[fitting[0]]) for name in fitting):
        return fitting[0]
    raise UserError(
        f"--labels: the ids in them, {', '.join(map(str, ids[:8]))}, do not tell how they count "
        f"classes; give --encoding, one of {', '.join(meant)}"
    )


def own_table(space: LabelSpace) -> np.ndarray:
    """The look-up table of files that hold the label space's train ids themselves."""
    table = np.full(65_536, IGNORE, np.uint8)
    table[: space.num_classes] = np.arange(space.num_classes)
    return table


@dataclass
class Counts:
    """Pixels of predictions and labels.

    Args:
        confusion: By label (rows) and prediction (columns), train ids.
        missed: By label, those that are predicted as nothing (255).
        ignored: Those whose label is no class: 255, or an unknown id.
        unknown: By id in label files that is neither a class nor 255.
    """

    confusion: np.ndarray
    missed: np.ndarray
    ignored: int = 0
    unknown: Counter[int] = field(default_factory=Counter)

    def iou(self) -> np.ndarray:
        """Intersection over union by train id, in [0, 1]; NaN for a class in neither."""
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) + self.missed - hits
        with np.errstate(invalid="ignore"):
            return hits / union

    def lines(self) -> list[str]:
        """What the numbers do not cover, in words."""
        labelled = int(self.confusion.sum() + self.missed.sum())
        total = labelled + self.ignored
        said = [f"ignored: {_percent(self.ignored, total)} of the labels' pixels"]
        if self.unknown:
            said.append(f"ids that are no class: {_ids_in_words(self.unknown)}")
        if missed := int(self.missed.sum()):
            said.append(
                f"missed: {_percent(missed, labelled)} of the labelled pixels, predicted as "
                f"nothing ({IGNORE})"
            )
        return said


def score(
    pairs: Sequence[tuple[Path, Path]],
    space: LabelSpace,
    table: np.ndarray,
    advance: Callable[[], None] = lambda: None,
    left_out: Collection[int] = (),
) -> dict[str, Any]:
    """{"miou", the label space's subsets, "iou": {class name: value or None}}, all in [0, 1].

    What `count_pixels` leaves out is logged. A class in neither predictions nor labels is None,
    and left out of means. `left_out` are ids that are no class on purpose. Raises UserError as
    well if most of the labels is of other unknown ids.
    """
    counts = count_pixels(pairs, space, table, advance)
    unknown = sum(n for number, n in counts.unknown.items() if number not in left_out)
    labelled = int(counts.confusion.sum() + counts.missed.sum())
    if mostly_unknown(unknown, labelled) and labelled:
        raise UserError(
            f"--labels: {_percent(unknown, unknown + labelled)} of their pixels are of ids that "
            f"are no class: {_ids_in_words(counts.unknown)}; check --encoding and --label-space"
        )
    if not labelled:
        raise UserError(
            "--labels: no pixel is of one of the label space's classes; check --encoding and "
            "--label-space"
        )
    one_class = not (counts.confusion.sum(1) + counts.missed)[1:].any()
    ignores_255 = not is_by_color(table) and table[IGNORE] == IGNORE
    if space.num_classes == 2 and one_class and ignores_255 and counts.ignored and not unknown:
        raise UserError(
            "--labels: they hold 0 and 255 alone, and 255 is ignored; give --encoding one of the "
            f"label space '{space.name}' that lists both, such as "
            f"mask: {{0: {space.names[0]}, 255: {space.names[1]}}}"
        )
    for line in counts.lines():
        log.info("%s", line)
    iou = counts.iou()
    return {
        "miou": _mean(iou),
        **{name: _mean(iou[list(members)]) for name, members in space.subsets.items()},
        "iou": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(space.names, iou, strict=True)
        },
    }


def count_pixels(
    pairs: Sequence[tuple[Path, Path]],
    space: LabelSpace,
    table: np.ndarray,
    advance: Callable[[], None] = lambda: None,
) -> Counts:
    """Count the pixels of (prediction, label) files.

    Args:
        pairs: The files; predictions hold train ids, and 255 for nothing, which is a miss.
        space: The classes.
        table: From the ids in label files to train ids.
        advance: Called after each pair.

    Raises:
        UserError: If a labelled pixel is predicted as another id that is no class, naming the
            file, or if sizes differ, naming both.
    """
    n = space.num_classes
    counts = Counts(np.zeros((n, n), np.int64), np.zeros(n, np.int64))
    for prediction_file, label_file in pairs:
        prediction = np.asarray(open_label(prediction_file))
        stored = np.asarray(open_label(label_file, is_by_color(table)))
        if prediction.shape != stored.shape:
            raise UserError(
                f"{prediction_file} is {prediction.shape[1]}x{prediction.shape[0]}, "
                f"{label_file} {stored.shape[1]}x{stored.shape[0]}; score predictions at the "
                "labels' size"
            )
        label = table[stored]
        labelled = label != IGNORE
        predicted, true = prediction[labelled].astype(np.int64), label[labelled].astype(np.int64)
        wrong = predicted[(predicted >= n) & (predicted != IGNORE)]
        if wrong.size:
            raise UserError(
                f"{prediction_file}: predicts {wrong.max()}, but the classes of "
                f"'{space.name}' are 0 to {n - 1}; predictions must hold train ids"
            )
        missed = predicted == IGNORE
        counts.missed += np.bincount(true[missed], minlength=n)
        pair = true[~missed] * n + predicted[~missed]
        counts.confusion += np.bincount(pair, minlength=n * n).reshape(n, n)
        counts.ignored += int((~labelled).sum())
        ids, numbers = np.unique(stored[~labelled], return_counts=True)
        counts.unknown.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))
        advance()
    del counts.unknown[TRANSPARENT if is_by_color(table) else IGNORE]
    return counts


def _mean(values: np.ndarray) -> float | None:
    """The mean over the classes that are there; None if none is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else None


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _ids_in_words(ids: Counter[int]) -> str:
    listed = ", ".join(f"{number} ({count} pixels)" for number, count in ids.most_common(_LISTED))
    return listed + (", ..." if len(ids) > _LISTED else "")


def _frame(name: str) -> str:
    return _KINDS.sub("", normal(name))


def _label_files(folder: Path, wanted: str | None) -> tuple[list[Path], str | None]:
    files = _map_files(folder, "--labels")
    by_encoding = {
        encoding: [file for file in files if file.stem.endswith(kind)]
        for kind, encoding in _LABEL_KINDS.items()
    }
    there = [encoding for encoding, of_kind in by_encoding.items() if of_kind]
    if not there:
        return files, None
    encoding = wanted if wanted in there else there[0]
    return by_encoding[encoding], encoding


def _map_files(folder: Path, option: str) -> list[Path]:
    """The files below the folder that may be label maps."""
    if not folder.is_dir():
        raise UserError(f"{option}: {folder} is not a folder")

    def is_map(name: str) -> bool:
        return Path(name).suffix.lower() in LABEL_ENDINGS

    maps = find(folder, parts_of("**/*", option), is_map, with_ours=True)
    for line in maps.passed.lines():
        log.info("%s: passed over: %s", option, line)
    if not maps.matches:
        raise UserError(f"{option}: no PNG files, or other label maps, below {folder}")
    return [folder / match.path for match in maps.matches]


def _by_name(files: list[Path], name_of: Callable[[Path], str]) -> dict[str, Path] | None:
    """The files by name; None if a name repeats."""
    named = {name_of(file): file for file in files}
    return named if len(named) == len(files) else None
