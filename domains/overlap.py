"""Which validation images are among those that networks learn from."""

from collections.abc import Sequence
from pathlib import Path

from bdl.domains.index import Index

_SEEN = {
    "source": "networks learn their labels, so that scores on them are too high",
    "target": "networks see them, without labels, so that scores are none of new images",
}


def shared_files(
    files: Sequence[Path], others: Sequence[Path], index: Index
) -> list[tuple[Path, Path]]:
    """Each of `files` with the one of `others` of the same content, for those that have one.

    Raises:
        UserError: A file cannot be read.
    """
    lengths, of_others = ([file.stat().st_size for file in given] for given in (files, others))
    shared = set(lengths) & set(of_others)
    alike = [file for file, length in zip(others, of_others, strict=True) if length in shared]
    by_content = dict(zip(index.hashes(alike), alike, strict=True))
    possible = [file for file, length in zip(files, lengths, strict=True) if length in shared]
    return [
        (file, by_content[content])
        for file, content in zip(possible, index.hashes(possible), strict=True)
        if content in by_content
    ]


def about_shared(
    key: str, role: str, measuring: Sequence[Path], learned: Sequence[Path], index: Index
) -> list[str]:
    """A line about the validation images that are among the source's or the target's, if any.

    Args:
        key: Their data set in messages, e.g. "data.source".
        role: "source" or "target".
        measuring: The validation images.
        learned: Those of the role.
        index: Reads the files.

    Raises:
        UserError: A file cannot be read.
    """
    shared = shared_files(measuring, learned, index)
    if not shared:
        return []
    file, other = shared[0]
    named = str(file) if file == other else f"{file} is {other}"
    return [
        f"{key}: {len(shared)} of the {len(measuring)} validation images are among its images "
        f"({named}); {_SEEN[role]}; take them out of one of the two, as with "
        f"data.{role}.list_file"
    ]
