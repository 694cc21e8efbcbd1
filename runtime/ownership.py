"""What in a folder this program has written, told by marks of its own.

A folder that we keep things in holds a mark. Only below marks, and only what has a name of ours,
is ever removed. It may be a folder of the user's, with photos in it: what is no place to look for
these are the folders of stages, which only we fill.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from bdl.runtime.errors import UserError
from bdl.runtime.files import open_regular, write_text

MARK = ".bdl"  # the file that marks a folder as ours
RUN = "run"  # what a folder is for; one that is found without a mark has `LOCK`
LOCK = "run.lock"  # in a run's folder
CONFIGURATION = "config.yaml"  # there, as it ran
RESULTS = "results.json"  # there: its networks, by row
BEGUN = "begun.json"  # of a stage that is being made: its manifest so far
MANIFEST, METRICS = "manifest.json", "metrics.json"  # of a finished stage
PREDICTIONS = "predictions.jsonl"  # what predict has written in a folder, a line each; see below


def mark(folder: Path, purpose: str) -> None:
    """Make the folder, if need be, and mark it as ours; `purpose` is for who looks into it."""
    purposes = _purposes(folder)
    if purpose not in purposes:
        said = "made by bdl, which also removes what it made here"
        lines = [f"{one}: {said}\n" for one in (*purposes, purpose)]
        write_text(folder / MARK, "".join(lines))


def _purposes(folder: Path) -> list[str]:
    """What the folder's mark says that it is for."""
    try:
        lines = (folder / MARK).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.partition(":")[0] for line in lines]


def is_stage(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is a stage's, finished or not."""
    return BEGUN in names or {MANIFEST, METRICS} <= set(names)


def has_mark(folder: Path) -> bool:
    """Whether the folder is there, and one that we keep things in."""
    return any((folder / name).exists() for name in (MARK, LOCK))


def is_run(folder: Path) -> bool:
    """Whether runs have written in the folder, or its files' index for one."""
    return (folder / LOCK).exists() or RUN in _purposes(folder)


def require_free(folder: Path, names: Iterable[str], key: str = "out") -> None:
    """Raises UserError, about the setting `key`, if a file that a run would write is in its folder
    and was there before any run."""
    if is_run(folder):
        return
    for name in names:
        if os.path.lexists(folder / name):
            raise UserError(
                f"{key}: {folder / name} is in the way, and was not made by a run; move it, or set "
                f"another folder with {key}=..."
            )


def require_replaceable(
    file: Path, is_ours: Callable[[bytes], bool], what: str, option: str = "--out"
) -> None:
    """Raises UserError if a file to write is there already, and is none of ours.

    Args:
        file: The file.
        is_ours: Tells by its content.
        what: What one of ours is, e.g. "comparison".
        option: Names the file.
    """
    if not os.path.lexists(file):
        return
    try:
        with open_regular(file) as opened:
            ours = is_ours(opened.read())
    except (OSError, UserError):
        ours = False
    if not ours:
        raise UserError(
            f"{file}: is there already, and is no {what} that bdl wrote; move it, or give another "
            f"{option}"
        )


def predicted_files(folder: str) -> set[str]:
    """Paths, below the folder and with /, of the files that predict wrote there."""
    files: set[str] = set()
    for line in read_lines(os.path.join(folder, PREDICTIONS)):
        written = line.get("files")
        if isinstance(written, dict):
            files.update(written)
    return files


def read_lines(file: str | Path) -> list[dict]:
    """The JSON objects in a file of one a line; a line that is none, such as a last one cut
    off, is left out."""
    records = []
    try:
        with open_regular(Path(file)) as opened:
            for line in opened:
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    records.append(content)
    except (OSError, UserError):
        return []
    return records
