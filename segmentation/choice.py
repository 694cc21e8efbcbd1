"""Which of the networks that a run has kept is used: the last, the best, or that of a stage."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import is_no_folder, read_json
from bdl.runtime.ownership import METRICS, RESULTS
from bdl.runtime.store import read_manifest
from bdl.segmentation.metrics import TARGET_LABELS, in_words
from bdl.segmentation.stages import BEST, RESULT, Segmenter

_MUCH = 0.01  # mIoU by which another network must be better to be hinted at


@dataclass(frozen=True)
class Kept:
    """A network that a run has kept.

    Args:
        stage: The stage that trained it.
        k: Round.
        i: Self-training step.
        file: Its file.
        miou: Its mIoU on the validation images in [0, 1]; None where it was not measured.
        step: Of the best state of a training, the steps that were done; None for its end.
        note: Why it is not of the run's configuration as it is; None if it is.
        target_labels: Number of labelled target images behind it.
    """

    stage: str
    k: int
    i: int
    file: Path
    miou: float | None = None
    step: int | None = None
    note: str | None = None
    target_labels: int = 0

    def __str__(self) -> str:
        symbol = Segmenter(k=self.k, i=self.i).symbol
        step = "" if self.step is None else f" after step {self.step}"
        score = "" if self.miou is None else f", mIoU {100 * self.miou:.1f} %"
        labels = f", {in_words(self.target_labels)}" if self.target_labels else ""
        return f"{self.stage}{step}, {symbol}{score}{labels}"


def find_segmenter(checkpoint: Path, network: str = "last") -> Path:
    """The file of a segmentation network, with a line in the log where there was a choice.

    Args:
        checkpoint: The file itself, a folder that holds it, or the folder of a run.
        network: Of a run, "last": the last network that its results.json names, else the last that
            is finished. "best": that of the highest mIoU on the validation images, of the ends of
            all trainings and the best states that they kept. Else a stage, whose end is meant.

    Raises:
        UserError: There is none.
    """
    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such file or folder; give a run's folder or a {RESULT}")
    single = single_network(checkpoint)
    if single is not None:
        if network != "last":
            raise UserError(
                f"--network {network}: chooses from the networks of a run, and {checkpoint} is one "
                "of them; give the run's folder"
            )
        return single
    kept = kept_networks(checkpoint)
    if not kept:
        raise no_network(checkpoint)
    chosen = choose(kept, network)
    if not chosen.file.is_file():
        raise UserError(f"{chosen.file}: no such file, though {RESULTS} names it; give another one")
    why = " (chosen on the validation labels)" if network == "best" else ""
    note = "" if chosen.note is None else f"; {chosen.note}"
    level = logging.WARNING if note else logging.INFO
    log.log(level, "%s: takes %s%s%s", checkpoint, chosen, why, note)
    best = best_of(kept)
    if best is not None and chosen.miou is not None and (best.miou or 0) - chosen.miou > _MUCH:
        log.info("%s is better (predict and export-network take it with --network best)", best)
    return chosen.file


def no_network(folder: Path) -> UserError:
    """What to say of a folder in which no run has a finished network."""
    below = ("*", "*/*/*")  # as an ablation has them
    runs = sorted(file.parent for depth in below for file in folder.glob(f"{depth}/{RESULTS}"))
    hint = f"; give a run's folder, such as {runs[0]}" if runs else ""
    return UserError(f"{folder}: holds no finished segmentation network ({RESULT}){hint}")


def single_network(checkpoint: Path) -> Path | None:
    """The file that `checkpoint` is, or holds as the folder of a stage; None of a run's folder."""
    if is_no_folder(checkpoint):
        return checkpoint
    file = checkpoint / RESULT
    return file if file.is_file() else None


def choose(kept: Sequence[Kept], network: str) -> Kept:
    """That of the networks which `network` means, as in `find_segmenter`."""
    ends = [one for one in kept if one.step is None]
    if network == "last":
        return ends[-1]
    if network == "best":
        best = best_of(kept)
        if best is None:
            raise UserError(
                "--network best: no network of the run was measured on validation labels; give "
                f"last, or one of {', '.join(one.stage for one in ends)}"
            )
        return best
    for one in ends:
        if one.stage == network:
            return one
    raise UserError(
        f"--network {network}: the run has kept no such network; give last, best, or one of "
        f"{', '.join(one.stage for one in ends)}"
    )


def best_of(kept: Sequence[Kept]) -> Kept | None:
    """The network of the highest mIoU; of equals the first, and the end of a training before a
    state in the midst of it. None where none is measured."""
    measured = [one for one in kept if one.miou is not None]
    measured.sort(key=lambda one: one.step is not None)
    return max(measured, key=lambda one: one.miou or 0.0) if measured else None


def kept_networks(folder: Path) -> list[Kept]:
    """All networks that a run has kept, in the order of the loop."""
    rows = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else []
    if not rows:
        return sorted(_finished(folder), key=lambda one: (one.k, one.i))
    kept = []
    for row in sorted(rows, key=lambda row: (row["k"], row["i"])):
        home = folder / row["stage"]
        own = row["stage"], row["k"], row["i"]
        said = row.get("note"), row.get(TARGET_LABELS, 0)
        kept.append(Kept(*own, home / RESULT, row["miou"], None, *said))
        best = _read(home / METRICS).get("best")
        if best is not None and (home / BEST).is_file():
            kept.append(Kept(*own, home / BEST, best["miou"], best["step"], *said))
    return kept


def _finished(folder: Path) -> list[Kept]:
    """The finished networks of a run that has no results yet, or of one of its rounds; none of a
    folder that holds runs."""
    kept = []
    for pattern in (f"*/{RESULT}", f"*/*/{RESULT}"):
        for file in folder.glob(pattern):
            name = file.parent.relative_to(folder).as_posix()
            manifest = read_manifest(file.parent)
            if manifest is not None and f"/{manifest.stage}".endswith(f"/{name}"):
                labels = _read(file.parent / METRICS).get(TARGET_LABELS, 0)
                kept.append(Kept(name, manifest.k, manifest.i, file, target_labels=labels))
    return kept


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file) if file.is_file() else {}
    return content if isinstance(content, dict) else {}
