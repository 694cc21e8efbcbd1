"""Files by pattern: which lie below a folder and match, and which were passed over, and why.

A pattern is a path below the folder in which `*` stands for any part of one name and `**`, alone
between slashes, for any number of folders, also none. All else is itself. Names are compared in
one normal form, as file systems differ in it, and a name's ending without case.
"""

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from bdl.domains.endings import is_image, named_endings
from bdl.runtime.errors import UserError
from bdl.runtime.files import PARTIAL, tells_case_apart
from bdl.runtime.ownership import PREDICTIONS, is_stage, predicted_files

ANY_DEPTH = "**"
# Folders that systems and programs leave beside photos; they hold thumbnails and the like.
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_LISTED = 4
_LONGEST_NAME = 255  # bytes that file systems allow
_MADE = f".png{PARTIAL}"  # what the longest file name that is made of a sample's adds to it


@dataclass(frozen=True)
class Match:
    """A file that matches. `path` is below the folder, as it is stored, with /; `filled` are what
    the pattern's wildcards stand for, in their order and in normal form."""

    path: str
    filled: tuple[str, ...]


def excess_of(name: str) -> int:
    """By how many bytes a sample's name is too long for the files that are made of it; 0 if not."""
    return max(0, len(os.fsencode(Path(name).name + _MADE)) - _LONGEST_NAME)


def named_alike(files: Mapping[str, Path], folder: Path) -> list[str]:
    """A line about each file whose name differs from that of another in case alone, where `folder`,
    in which what is made of them goes by their names, does not tell these apart.

    Args:
        files: By the names of what is made of them.
        folder: It, or one above it if it is not there yet.
    """
    first: dict[str, str] = {}
    pairs = [(name, first.setdefault(name.casefold(), name)) for name in files]
    alike = [pair for pair in pairs if pair[0] != pair[1]]
    if not alike or tells_case_apart(folder):
        return []
    return [
        f"{files[name]}: its name differs from that of {files[other]} only in case, which {folder} "
        "does not tell apart; rename one, or give another folder for the results"
        for name, other in alike
    ]


@dataclass
class PassedOver:
    """Paths, below the folder, of what lies where a pattern leads and was not taken.

    Args:
        endings: Files that match but for an ending that is no image's.
        hidden: Hidden files and folders, and those that systems make.
        ours: Folders of stages, and files, that this program wrote.
        other_case: Files and folders that match only if case is ignored.
        loops: Links that lead to a folder above them.
        labels: Files that the pattern of labels names, too.
    """

    endings: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    ours: set[str] = field(default_factory=set)
    other_case: set[str] = field(default_factory=set)
    loops: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)

    def lines(self) -> list[str]:
        """A line a kind, with its count."""
        said = []
        if self.endings:
            counts = Counter(os.path.splitext(path)[1].lower() for path in self.endings)
            listed = ", ".join(f"{name or 'none'} ({n})" for name, n in sorted(counts.items()))
            said.append(f"files whose ending is no image's ({len(self.endings)}): {listed}")
        for places, text in (
            (self.hidden, "hidden files and folders"),
            (self.ours, "files and folders that bdl wrote"),
            (self.other_case, "files and folders that match only if case is ignored"),
            (self.loops, "links to a folder above them"),
            (self.labels, "files that the pattern of labels names"),
        ):
            if places:
                first = ", ".join(sorted(places)[:_LISTED])
                more = ", ..." if len(places) > _LISTED else ""
                said.append(f"{text} ({len(places)}): {first}{more}")
        return said


def normal(name: str) -> str:
    """The name in the form in which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def parts_of(pattern: str, key: str) -> list[str]:
    """The parts of a pattern between its slashes, in normal form.

    Args:
        pattern: The pattern, as in the configuration.
        key: Names it in errors.

    Raises:
        UserError: If it is empty, or has a `**` beside other text.
    """
    parts = [part for part in normal(pattern).split("/") if part not in ("", ".")]
    if not parts:
        raise UserError(f"{key}: '{pattern}' must name files, such as images/*.png")
    for part in parts:
        if ANY_DEPTH in part and part != ANY_DEPTH:
            raise UserError(
                f"{key}: in '{pattern}' ** must stand alone between slashes; write "
                f"**/{re.sub('[*]+', '*', part)} for that name at any depth"
            )
    if parts[-1] == ANY_DEPTH:
        parts.append("*")
    # Twice any number of folders is any number of folders.
    return [part for i, part in enumerate(parts) if part != ANY_DEPTH or parts[i - 1 : i] != [part]]


def wildcards(parts: list[str]) -> int:
    """How many wildcards a pattern of these parts has."""
    return sum(1 if part == ANY_DEPTH else part.count("*") for part in parts)


def fill(parts: list[str], values: tuple[str, ...]) -> str:
    """The path that a pattern is with its wildcards replaced by `values`."""
    left = iter(values)
    whole = [
        next(left) if part == ANY_DEPTH else re.sub(r"\*", lambda _: next(left), part)
        for part in parts
    ]
    return "/".join(part for part in whole if part)


@lru_cache(maxsize=256)
def _whole(parts: tuple[str, ...]) -> re.Pattern[str]:
    folders = [
        "((?:[^/]+/)*)" if part == ANY_DEPTH else f"{_text_of(part, '([^/]*)')}/"
        for part in parts[:-1]
    ]
    stem, ending = _split_ending(parts[-1])
    name = _text_of(stem, "([^/]*)") + (f"(?i:{re.escape(ending)})" if ending else "")
    return re.compile("".join(folders) + name, re.DOTALL)


def match_path(parts: list[str], path: str) -> tuple[str, ...] | None:
    """What the wildcards of a pattern stand for in a path; None if it does not match."""
    match = _whole(tuple(parts)).fullmatch(normal(path))
    return match and tuple(value.rstrip("/") for value in match.groups())


def require_image_pattern(pattern: str, key: str) -> None:
    """Raises UserError if a pattern names an ending that is not read as an image."""
    ending = os.path.splitext(pattern.rpartition("/")[2])[1]
    if ending and "*" not in ending and not is_image(f"name{ending}"):
        raise UserError(
            f"{key}: '{pattern}' names files that end with {ending}, which are not read as "
            f"images; convert them, or name one of {named_endings()}"
        )


def find(
    root: Path,
    parts: list[str],
    accept: Callable[[str], bool] = is_image,
    with_ours: bool = False,
) -> "Matches":
    """All files below `root` that match, sorted by path.

    Folders are listed once. Links are followed; one that leads to a folder above it is passed over.
    What a wildcard meets and is hidden, or was written by this program, is passed over; what the
    pattern names itself is not.

    Args:
        root: The folder.
        parts: The pattern's, of `parts_of`.
        accept: Whether a file's name has an ending that is wanted.
        with_ours: Whether what this program wrote is taken, too.

    Raises:
        UserError: If a folder on the way cannot be listed.
    """
    walk = _Walk(str(root), accept, with_ours)
    walk.into("", parts, (), frozenset())
    by_path: dict[str, Match] = {}
    for match in walk.matches:
        by_path.setdefault(match.path, match)  # two ** may lead to a file in several ways
    return Matches([by_path[path] for path in sorted(by_path)], sorted(walk.broken), walk.passed)


@dataclass(frozen=True)
class Matches:
    """Files that match, sorted by path; links that match and lead nowhere or to themselves; and
    what was passed over."""

    matches: list[Match]
    broken: list[str]
    passed: PassedOver


class _Walk:
    """One pass over the folders that a pattern leads through."""

    def __init__(self, root: str, accept: Callable[[str], bool], with_ours: bool) -> None:
        self.root, self.accept, self.with_ours = root, accept, with_ours
        self.matches: list[Match] = []
        self.broken: set[str] = set()
        self.passed = PassedOver()
        self._ours: dict[str, set[str]] = {}  # files that predict wrote, by folder below root
        self._listed: dict[str, list[os.DirEntry]] = {}

    def into(
        self,
        folder: str,
        parts: list[str],
        filled: tuple[str, ...],
        above: frozenset[tuple[int, int]],
    ) -> None:
        """Match the folder's content with the rest of a pattern.

        `folder` is below the root, with / at its end unless it is the root; `above` are the
        folders on the way that a ** went through.
        """
        part, rest = parts[0], parts[1:]
        if part == ANY_DEPTH:
            self._any_depth(folder, "", rest, filled, above)
        elif "*" not in part and rest:
            for name in self._named(folder, part):
                self.into(f"{folder}{name}/", rest, filled, above)
        else:
            self._match_names(folder, self._entries(folder), part, rest, filled, above)

    def _any_depth(
        self,
        folder: str,
        between: str,
        rest: list[str],
        filled: tuple[str, ...],
        above: frozenset[tuple[int, int]],
    ) -> None:
        state = self._call(os.stat, folder)
        if state is None:
            return
        here = (state.st_dev, state.st_ino)
        if here in above:
            self.passed.loops.add(folder.rstrip("/"))
            return
        entries = self._entries(folder)
        with_between = (*filled, normal(between.rstrip("/")))
        if "*" in rest[0] or len(rest) == 1:
            self._match_names(folder, entries, rest[0], rest[1:], with_between, above)
        else:
            for name in self._named(folder, rest[0], entries):
                self.into(f"{folder}{name}/", rest[1:], with_between, above)
        for entry in entries:
            if not _is_folder(entry) or self._is_passed(folder, entry):
                continue
            self._any_depth(
                f"{folder}{entry.name}/", f"{between}{entry.name}/", rest, filled, above | {here}
            )

    def _match_names(
        self,
        folder: str,
        entries: list[os.DirEntry],
        part: str,
        rest: list[str],
        filled: tuple[str, ...],
        above: frozenset[tuple[int, int]],
    ) -> None:
        exact, loose = _expressions(part, is_file=not rest)
        wild = "*" in part
        for entry in entries:
            name = normal(entry.name)
            match = exact.fullmatch(name)
            if match is None and loose.fullmatch(name) is None:
                continue
            if _is_folder(entry) != bool(rest) or (not rest and not _is_there(entry)):
                if not rest and match and self.accept(entry.name) and not os.path.exists(entry):
                    self.broken.add(f"{folder}{entry.name}")
                continue
            if wild and self._is_passed(folder, entry, note=not rest or match is not None):
                continue
            if not rest and not self.accept(entry.name):
                self.passed.endings.add(f"{folder}{entry.name}")
                continue
            if match is None:
                self.passed.other_case.add(f"{folder}{entry.name}")
                continue
            values = (*filled, *match.groups())
            if rest:
                self.into(f"{folder}{entry.name}/", rest, values, above)
            else:
                self.matches.append(Match(f"{folder}{entry.name}", values))

    def _named(
        self, folder: str, part: str, entries: list[os.DirEntry] | None = None
    ) -> Iterator[str]:
        """The name, as it is stored, of the folder that the pattern names in `folder`."""
        if entries is None:
            try:
                # Without listing: a folder may let us through and not list.
                if stat.S_ISDIR(os.stat(f"{self.root}/{folder}{part}").st_mode):
                    yield part
                    return
            except FileNotFoundError:
                pass
            except NotADirectoryError:
                return
            except OSError as error:
                raise _unlisted(f"{self.root}/{folder}{part}", error) from None
            entries = self._entries(folder)
        for entry in entries:
            if normal(entry.name) == part and _is_folder(entry):
                yield entry.name
                return
        for entry in entries:
            if normal(entry.name).casefold() == part.casefold() and _is_folder(entry):
                self.passed.other_case.add(f"{folder}{entry.name}")

    def _entries(self, folder: str) -> list[os.DirEntry]:
        """What the folder holds, by name; records of ours among it are noted."""

        def listed(path: str) -> list[os.DirEntry]:
            with os.scandir(path) as entries:
                return sorted(entries, key=lambda entry: entry.name)

        if folder in self._listed:
            return self._listed[folder]
        entries = self._listed[folder] = self._call(listed, folder) or []
        if any(entry.name == PREDICTIONS for entry in entries):
            self._ours[folder] = predicted_files(f"{self.root}/{folder}")
        return entries

    def _call(self, action: Callable, folder: str):  # type: ignore[no-untyped-def]
        """`action` on a folder; None if it is gone."""
        path = f"{self.root}/{folder}"
        try:
            return action(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unlisted(path, error) from None

    def _is_passed(self, folder: str, entry: os.DirEntry, note: bool = True) -> bool:
        """Whether a wildcard passes over it: it is hidden, or this program wrote it."""
        path = f"{folder}{entry.name}"
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            if note and (_is_folder(entry) or self.accept(entry.name)):
                self.passed.hidden.add(path)
            return True
        if entry.name.endswith(PARTIAL):
            return True
        if self.with_ours:
            return False
        ours = self._wrote(path)
        if not ours and _is_folder(entry):
            ours = is_stage({inside.name for inside in self._entries(f"{path}/")})
        if ours and note:
            self.passed.ours.add(path)
        return ours

    def _wrote(self, path: str) -> bool:
        return any(
            path.startswith(folder) and path[len(folder) :] in files
            for folder, files in self._ours.items()
        )


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_there(entry: os.DirEntry) -> bool:
    """Whether it is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _unlisted(path: str, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(
        f"{path.rstrip('/')}: this folder cannot be listed ({reason}); make it readable, or leave "
        "it out of the pattern"
    )


@lru_cache(maxsize=64)
def _expressions(part: str, is_file: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A part of a pattern as it matches names: with case (but in a file's ending), and without."""
    stem, ending = _split_ending(part) if is_file else (part, "")
    text = _text_of(stem, "(.*)")
    exact = text + (f"(?i:{re.escape(ending)})" if ending else "")
    return re.compile(exact, re.DOTALL), re.compile(exact, re.DOTALL | re.IGNORECASE)


def _split_ending(name: str) -> tuple[str, str]:
    """A pattern's name and its ending, if no wildcard stands for that."""
    stem, ending = os.path.splitext(name)
    return (name, "") if "*" in ending else (stem, ending)


def _text_of(part: str, wildcard: str) -> str:
    """The regular expression of a part, each * in it being `wildcard`."""
    return wildcard.join(re.escape(piece) for piece in part.split("*"))


class Names:
    """Looks up files below a folder by paths whose normal form or ending's case may differ.

    Each folder is listed once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, str]] = {}  # stored names by normal ones
        self._stored: dict[str, str | None] = {"": ""}  # folders as they are stored

    def find(self, path: str) -> str | None:
        """The file's path below the root as it is stored; None if there is none."""
        folder, _, name = path.rpartition("/")
        stored = self._folder(folder)
        if stored is None:
            return None
        names = self._names(stored)
        if name in names:
            entry = names[name]
        elif (entry := names.get(normal(name))) is None:  # type: ignore[assignment]
            stem, ending = os.path.splitext(normal(name))
            alike = [
                names[other]
                for cased in (ending.lower(), ending.upper(), ending.capitalize())
                if (other := stem + cased) in names
            ]
            if not alike:
                return None
            entry = alike[0]
        return f"{stored}/{entry}" if stored else entry

    def beside(self, path: str) -> list[str]:
        """Names of the files in the folder where the path would lie; none if there is no folder."""
        stored = self._folder(path.rpartition("/")[0])
        return [] if stored is None else sorted(self._names(stored).values())

    def _folder(self, folder: str) -> str | None:
        if folder not in self._stored:
            above, _, name = folder.rpartition("/")
            stored = self._folder(above)
            if stored is not None:
                exact = f"{stored}/{name}" if stored else name
                if not os.path.isdir(self.root / exact):
                    found = self._names(stored).get(normal(name))
                    exact = (f"{stored}/{found}" if stored else found) if found else ""
                stored = exact if exact and os.path.isdir(self.root / exact) else None
            self._stored[folder] = stored
        return self._stored[folder]

    def _names(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = os.listdir(self.root / folder)
            except OSError as error:
                raise _unlisted(str(self.root / folder), error) from None
            self._listed[folder] = {normal(name): name for name in names}
        return self._listed[folder]
