"""IoU of prediction files against label files, whoever made the predictions."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domains.images import open_label
from domains.label_space import IGNORE, LabelSpace
from runtime.errors import UserError
from runtime.stages import Metrics
from segmentation.evaluate import ConfusionMatrix, summarize

AUTO, OWN = "auto", "own"
# What data sets add to a frame's name to tell its files apart.
_KINDS = re.compile(r"_(leftImg8bit|gtFine_labelIds|gtFine_labelTrainIds|labelIds|labelTrainIds)$")
_LABEL_KINDS = {"_labelTrainIds": "train_id", "_labelIds": "label_id"}  # and their encodings


@dataclass(frozen=True)
class Pairs:
    """Prediction and label files that belong together; `left_out` predictions have no label.

    `encoding` is the encoding that the label files' names tell, if they do.
    """

    files: list[tuple[Path, Path]]
    left_out: int
    encoding: str | None


def find_pairs(predictions: Path, labels: Path) -> Pairs:
    """The PNG files below both folders that are of the same frame, by their names.

    Names are compared without folders and without Cityscapes' endings (_leftImg8bit,
    _gtFine_labelIds); if file names repeat, with folders. Of a folder as Cityscapes has it only
    the label ids are taken. Raises UserError if a label has no prediction.
    """
    label_files, encoding = _label_files(labels)
    prediction_files = _png_files(predictions, "--predictions")
    plain = _by_name(label_files, lambda file: _KINDS.sub("", file.stem))
    found = _by_name(prediction_files, lambda file: _KINDS.sub("", file.stem))
    if plain is None or found is None:

        def relative(root: Path) -> Callable[[Path], str]:
            return lambda file: _KINDS.sub("", file.relative_to(root).with_suffix("").as_posix())

        plain = _by_name(label_files, relative(labels))
        found = _by_name(prediction_files, relative(predictions))
        if plain is None or found is None:
            raise UserError(f"{labels}, {predictions}: file names repeat; keep one file a frame")
    missing = [plain[name] for name in plain if name not in found]
    if missing:
        raise UserError(
            f"{missing[0]}: no prediction of that name below {predictions} "
            f"({len(missing)} of {len(plain)} labels have none)"
        )
    files = [(found[name], plain[name]) for name in plain]
    return Pairs(files, len(found) - len(files), encoding)


def detect_encoding(files: list[Path], space: LabelSpace) -> str:
    """How label files count classes: "own" (the label space's train ids) or one of its encodings.

    Told by the ids in the files: those of train ids hold nothing but them and 255, label ids go
    further. Raises UserError where the ids do not tell.
    """
    held: set[int] = set()
    for file in files:
        held |= set(np.unique(np.asarray(open_label(file))).tolist())
    ids = sorted(held - {IGNORE})
    own, stored = own_table(space)[ids], space.table("train_id")[ids]
    is_own, is_stored = bool((own != IGNORE).all()), bool((stored != IGNORE).all())
    if is_own and (not is_stored or (own == stored).all()):
        return OWN
    if is_stored and not is_own:
        return "train_id"
    if not is_own and "label_id" in space.encodings and ids[-1] > max(space.encodings["train_id"]):
        return "label_id"
    choices = ", ".join([OWN, *space.encodings])
    raise UserError(
        f"--labels: the ids in them, {', '.join(map(str, ids[:8]))}, do not tell how they count "
        f"classes; give --encoding, one of {choices}"
    )


def own_table(space: LabelSpace) -> np.ndarray:
    """The look-up table of files that hold the label space's train ids themselves."""
    table = np.full(65_536, IGNORE, np.uint8)
    table[: space.num_classes] = np.arange(space.num_classes)
    return table


def score(
    pairs: list[tuple[Path, Path]],
    space: LabelSpace,
    table: np.ndarray,
    advance: Callable[[], None] = lambda: None,
) -> Metrics:
    """{"miou", the label space's subsets, "iou": {class name: value or None}}, all in [0, 1].

    `pairs` are (prediction, label) files; predictions hold train ids, `table` takes the labels'
    ids to train ids. A class in neither predictions nor labels is None, and left out of means.
    Raises UserError that names the file if a labelled pixel is predicted as no class, and both
    files if their sizes differ.
    """
    matrix = ConfusionMatrix(space.num_classes)
    for prediction_file, label_file in pairs:
        prediction = np.asarray(open_label(prediction_file))
        label = table[np.asarray(open_label(label_file))]
        if prediction.shape != label.shape:
            raise UserError(
                f"{prediction_file} is {prediction.shape[1]}x{prediction.shape[0]}, "
                f"{label_file} {label.shape[1]}x{label.shape[0]}; score predictions at the "
                "labels' size"
            )
        labelled = prediction[label != IGNORE]
        if labelled.size and labelled.max() >= space.num_classes:
            raise UserError(
                f"{prediction_file}: predicts {labelled.max()}, but the classes of "
                f"'{space.name}' are 0 to {space.num_classes - 1}; predictions must hold train ids"
            )
        matrix.update(
            torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(label.astype(np.int64))
        )
        advance()
    if not matrix.counts.any():
        raise UserError(
            "--labels: no pixel is of one of the label space's classes; check --encoding and "
            "--label-space"
        )
    summary = summarize(matrix, space)
    del summary["confusion"]
    return summary


def _label_files(folder: Path) -> tuple[list[Path], str | None]:
    files = _png_files(folder, "--labels")
    for kind, encoding in _LABEL_KINDS.items():
        of_kind = [file for file in files if file.stem.endswith(kind)]
        if of_kind:
            return of_kind, encoding
    return files, None


def _png_files(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{option}: {folder} is not a folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() == ".png")
    if not files:
        raise UserError(f"{option}: no PNG files below {folder}")
    return files


def _by_name(files: list[Path], name_of: Callable[[Path], str]) -> dict[str, Path] | None:
    """The files by name; None if a name repeats."""
    named = {name_of(file): file for file in files}
    return named if len(named) == len(files) else None
