"""Whether the indices of palette files can be class ids."""

from collections.abc import Sequence
from pathlib import Path

from bdl.domains.images import palette_hash
from bdl.domains.index import Index
from bdl.domains.label_space import LabelSpace, color_code

_MASK = {0: 0x000000, 1: 0xFFFFFF}  # black and white, which files of one bit hold as 0 and 1


def ambiguous_palettes(
    files: Sequence[Path], index: Index, key: str, space: LabelSpace | None = None
) -> str | None:
    """Why the indices of label files are no class ids, in a line; None if they may be.

    Programs that optimise palettes number the colours of each file anew. Then one index is shown
    in several colours. Where all colours are greys, these may be the ids as well as the indices.
    Files are read only where their palettes, which headers tell, leave it open.

    Args:
        files: Label files, of palettes or not.
        index: Reads them.
        key: Their data set in messages, e.g. "data.source".
        space: Greys that are its classes' own colours, at their train ids, are no question.
    """
    headers = [look.header for look in index.headers(files, f"labels of {key}")]
    stating = {
        file: header
        for file, header in zip(files, headers, strict=True)
        if header is not None and header.palette and header.label_flaw is None
    }
    palettes = {header.palette for header in stating.values()}
    are_grey = all(header.is_grey for header in stating.values())
    if len(palettes) < 2 and (not are_grey or palettes <= {palette_hash([*_MASK.values()])}):
        return None
    first: dict[int, tuple[Path, int]] = {}
    for file, colors in zip(stating, index.shown_colors(list(stating), key), strict=True):
        for number, color in colors.items():
            other, before = first.setdefault(number, (file, color))
            if before != color:
                return (
                    f"{file}: its palette shows index {number} as #{color:06x}, that of {other} as "
                    f"#{before:06x}, so that indices are no class ids; {_advice(key)}"
                )
    doubtful = [
        (file, number, color)
        for number, (file, color) in first.items()
        if color % 256 != number and not _is_meant(number, color, space)
    ]
    if not are_grey or not doubtful:
        return None
    file, number, color = doubtful[0]
    return (
        f"{file}: its palette shows index {number} as the grey {color % 256}, and either may be "
        f"the class id; {_advice(key)}"
    )


def _is_meant(number: int, color: int, space: LabelSpace | None) -> bool:
    """Whether a grey says no more than which index, or class, it stands for."""
    if _MASK.get(number) == color:
        return True
    if space is None:
        return False
    return number >= space.num_classes or color_code(*space.colors[number]) == color


def _advice(key: str) -> str:
    grey = "store the labels as grey ids without a palette"
    if key == "--predictions":  # which have no encoding
        return grey.replace("labels", "predictions")
    setting = "an encoding" if key.startswith("--") else f"{key}.encoding"
    return f'{grey}, or name the colours: {setting} of colours ("#804080": class)'
