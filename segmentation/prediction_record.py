"""What predict has written in a folder: what is done is not done again, and nothing else replaced.

`predictions.jsonl` has a line for each photo that was begun, and another once its files are there.
"""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdl.domains.endings import is_image
from bdl.runtime.console import counted
from bdl.runtime.errors import UserError
from bdl.runtime.files import open_regular, write_error, write_text
from bdl.runtime.ownership import PREDICTIONS, read_lines

_FILES = {  # what is written of a photo, by where it goes
    "labels": ".png",
    "overlays": ".jpg",
    "probabilities": ".npz",
}


class PredictionRecord:
    """The record in a folder of predictions.

    Args:
        folder: Where the predictions go.
        made_with: What they depend on besides their photos: the network, sizes and so on.
        kinds: What is written of each photo: "labels", "overlays", "probabilities".
    """

    def __init__(self, folder: Path, made_with: Any, kinds: tuple[str, ...]) -> None:
        self.folder, self.kinds = folder, kinds
        text = json.dumps(made_with, sort_keys=True)
        self.made_with = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.file = folder / PREDICTIONS
        self._writing = threading.Lock()  # several threads note what they have written
        self._lines = {line.get("photo"): line for line in read_lines(self.file)}
        self._written: dict[str, Any] = {}  # stamps by path; None for what may be half done
        for line in self._lines.values():
            if isinstance(line.get("files"), dict):
                self._written.update(line["files"])

    def path(self, kind: str, name: str) -> Path:
        """Where what is made of the photo of that name goes."""
        return self.folder / kind / f"{name}{_FILES[kind]}"

    def require_free(self, photos: Mapping[str, Path]) -> None:
        """Raises UserError if what is to be written of the photos, by name, would replace a file
        that was not written by predict, or was changed since, or the record another program's, or
        would lie among images of somebody else's, as in a data set's folder."""
        if self.file.exists() and not self._lines_are_ours():
            raise UserError(
                f"{self.file}: is there already, and is no record of predict; give another folder "
                "with --out"
            )
        taken = [
            path
            for name in photos
            for path in (self.path(kind, name) for kind in self.kinds)
            if not self._is_ours(path)
        ]
        if taken:
            raise UserError(
                f"{taken[0]}: is there already, and predict did not write it, or it was changed "
                f"since (so it is with {counted(len(taken), 'file')}); give another folder with "
                "--out"
            )
        stranger = None if self._lines else self._image_there()
        if stranger is not None:
            raise UserError(
                f"{stranger}: is there already, and predict did not write it; what it writes would "
                "be mixed with such images; give another folder with --out"
            )

    def _image_there(self) -> Path | None:
        """An image where predictions go; None without any."""
        for kind in self.kinds:
            for folder, _, names in os.walk(self.folder / kind):
                for name in sorted(names):
                    if is_image(name):
                        return Path(folder, name)
        return None

    def _lines_are_ours(self) -> bool:
        """Whether the record holds photos, or nothing; the last line may have been cut off."""
        try:
            with open_regular(self.file) as opened:
                lines = opened.read().splitlines()
        except OSError:
            return False
        return not lines or (lines[0].startswith(b'{"photo": ') and None not in self._lines)

    def is_done(self, name: str, photo: Path) -> bool:
        """Whether all is there that would be made of the photo, made with the same."""
        line = self._lines.get(name, {})
        return (
            line.get("made_with") == self.made_with
            and line.get("stamp") == _photo_stamp(photo)
            and all(
                (stamp := _stamp(path)) is not None and stamp == self._written.get(self._key(path))
                for path in (self.path(kind, name) for kind in self.kinds)
            )
        )

    def start(self) -> None:
        """Write the record anew, without what later lines have overtaken."""
        lines = [json.dumps(line) for line in self._lines.values() if "photo" in line]
        write_text(self.file, "".join(f"{line}\n" for line in lines))

    def begin(self, name: str) -> None:
        """Note what will be written of a photo, before it is."""
        files = {self._key(self.path(kind, name)): None for kind in self.kinds}
        self._add({"photo": name, "files": files})

    def finish(self, name: str, photo: Path) -> None:
        """Note that it is written."""
        files = {
            self._key(path): _stamp(path) for path in (self.path(kind, name) for kind in self.kinds)
        }
        stamp = _photo_stamp(photo)
        line = {"photo": name, "made_with": self.made_with, "stamp": stamp, "files": files}
        self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        # What was written of the photo before, such as probabilities, stays ours. The new line is
        # not kept: nobody asks for it in this process, and there may be many photos.
        before = self._lines.get(line["photo"], {}).get("files")
        line["files"] = {**(before if isinstance(before, dict) else {}), **line["files"]}
        try:
            with self._writing, open(self.file, "a", encoding="utf-8") as opened:
                opened.write(json.dumps(line) + "\n")
        except OSError as error:
            raise write_error(self.file, error) from None

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _is_ours(self, path: Path) -> bool:
        """Whether nothing is there, or what we wrote, as we left it."""
        if not os.path.lexists(path):
            return True
        key = self._key(path)
        return key in self._written and self._written[key] in (None, _stamp(path))


def _photo_stamp(file: Path) -> list[int] | None:
    """Size and times of a photo: that of change tells also of a content under the old time."""
    stamp = _stamp(file)
    return stamp and [*stamp, file.stat().st_ctime_ns]


def _stamp(file: Path) -> list[int] | None:
    """Size and time of a file; None if there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]
