"""What in a folder this program has written, told by marks of its own.

A folder that we keep things in holds a mark. Only below marks, and only what has a name of ours,
is ever removed. It may be a folder of the user's, with photos in it: what is no place to look for
these are the folders of stages, which only we fill.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path

from bdl.runtime.files import write_text

MARK = ".bdl"  # the file that marks a folder as ours
_RUN = "run.lock"  # the folders of runs have had this
_BEGUN = "begun.json"  # of a stage that is being made
_RECORDS = ("manifest.json", "metrics.json")  # of a finished stage
PREDICTIONS = "predictions.jsonl"  # what predict has written in a folder, a line each; see below


def mark(folder: Path, purpose: str) -> None:
    """Make the folder, if need be, and mark it as ours; `purpose` is for who looks into it."""
    if not (folder / MARK).exists():
        write_text(folder / MARK, f"{purpose}: made by bdl, which also removes what it made here\n")


def is_stage(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is a stage's, finished or not."""
    return _BEGUN in names or all(name in names for name in _RECORDS)


def has_mark(folder: Path) -> bool:
    """Whether the folder is there, and one that we keep things in."""
    return any((folder / name).exists() for name in (MARK, _RUN))


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
    found = []
    try:
        with open(file, encoding="utf-8") as opened:
            for line in opened:
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    found.append(content)
    except (OSError, UnicodeDecodeError):
        return []
    return found
