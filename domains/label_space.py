"""Label spaces: the classes a network knows, and how label files count them. Data, not code.

A label space is a YAML file:

    classes:                        # in the order of the train ids 0, 1, 2, ...
      - {name: road, color: [128, 64, 128]}      # or "#804080"
      - ...
    encodings:                      # optional: how label files may be stored, id -> class name
      label_id: {7: road, 0: null, ...}
      painted: {"#804080": road, ...}
    subsets:                        # optional: further means that evaluation reports
      miou13: [road, ...]

Names are text as it is written, `no` and `007` too. A stored id that an encoding leaves out is
ignored in training and evaluation; null says that it is left out on purpose. 255 is ignored unless
the encoding lists it. An encoding is of ids or of colours. Unless the file says otherwise, two are
there: train_id, label files that hold 0, 1, 2, ... themselves, and, if the classes' colours
differ, color, label files that show these.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bdl.runtime.errors import UserError
from bdl.runtime.files import is_no_folder
from bdl.runtime.yaml_text import read_text

IGNORE = 255
IDS = 65_536  # entries of a table from ids
TRANSPARENT = 1 << 24  # stands for no colour: colours are 0xRRGGBB
_COLOR = re.compile("#[0-9a-fA-F]{6}")
OWN = Path(__file__).parent / "label_spaces"
# What else a row of results has
NO_SUBSETS = ("stage", "k", "i", "miou", "iou", "seconds", "note", "target_labels")


@dataclass(frozen=True)
class LabelSpace:
    """Classes, and how label files count them.

    Args:
        name: Of the file, without its ending.
        names, colors: By train id; colours are RGB, 0..255.
        encodings: From stored ids, or colours 0xRRGGBB, to train ids, by name.
        subsets: Lists of train ids, by name.
        by_color: The encodings that map colours.
        left_out: By encoding, what it leaves out on purpose.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    encodings: dict[str, dict[int, int]]
    subsets: dict[str, tuple[int, ...]]
    by_color: frozenset[str] = frozenset()
    left_out: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def table(self, encoding: str) -> np.ndarray:
        """Look-up table from stored ids to train ids: uint8, 65,536 entries, 255 = ignore.

        Of an encoding of colours it has an entry for each of them, 0xRRGGBB, and a last one for
        what is transparent: see `is_by_color`.

        Raises UserError for an encoding that the label space does not have.
        """
        if encoding not in self.encodings:
            known = ", ".join(self.encodings)
            raise UserError(
                f"label space '{self.name}' has no encoding '{encoding}'; it has: {known}"
            )
        size = TRANSPARENT + 1 if encoding in self.by_color else IDS
        table = np.full(size, IGNORE, np.uint8)
        for stored, train_id in self.encodings[encoding].items():
            table[stored] = train_id
        return table

    def palette(self) -> list[int]:
        """The colours as a PNG palette: 768 numbers, black for unused ids and ignore."""
        flat = [channel for color in self.colors for channel in color]
        return flat + [0] * (768 - len(flat))

    def describe(self) -> dict[str, Any]:
        """What a checkpoint carries, so that its predictions have names and colours."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
        }


def is_by_color(table: np.ndarray | None) -> bool:
    """Whether a look-up table takes colours, and not ids, to train ids."""
    return table is not None and len(table) > IDS


def color_code(red: int, green: int, blue: int) -> int:
    """A colour, 0..255 each, as the number 0xRRGGBB."""
    return red << 16 | green << 8 | blue


def stored_as_text(stored: int, by_color: bool) -> str:
    """An id or a colour as a label space has it."""
    return f"#{stored:06x}" if by_color else str(stored)


def load_label_space(name: str) -> LabelSpace:
    """The project's own label space of that name, or the one in the YAML file at that path.

    Raises UserError that names the file and what is wrong in it.
    """
    own = OWN / f"{name}.yaml"
    file = own if own.is_file() else Path(name)
    if not is_no_folder(file):
        known = ", ".join(sorted(path.stem for path in OWN.glob("*.yaml")))
        raise UserError(
            f"data.label_space: '{name}' is neither a file nor one of the project's own: {known}"
        )
    try:
        return _parse(file.stem, read_text(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not a label space: {error}") from None


def described(description: dict[str, Any]) -> LabelSpace:
    """The label space of a checkpoint, from `LabelSpace.describe`: names and colours, no encodings.

    Raises UserError if it is no such description.
    """
    try:
        names = tuple(str(name) for name in description["names"])
        colors = tuple(_color(color, "colors") for color in description["colors"])
        if len(names) != len(colors):
            raise ValueError(f"{len(names)} names, {len(colors)} colours")
        return LabelSpace(str(description["name"]), names, colors, {}, {})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's label space cannot be used: {error}") from None


def _parse(name: str, content: dict[str, Any]) -> LabelSpace:
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise ValueError("it has no list 'classes'")
    unknown = [key for key in content if key not in ("classes", "encodings", "subsets")]
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'; there are classes, encodings, subsets")
    classes = content["classes"]
    for train_id, item in enumerate(classes):
        if not isinstance(item, dict) or set(item) != {"name", "color"}:
            raise ValueError(f"class {train_id} must be {{name: ..., color: [red, green, blue]}}")
        if not isinstance(item["name"], str) or not item["name"].strip():
            raise ValueError(f"class {train_id} has no name; quotes make a text of null")
    names = tuple(item["name"] for item in classes)
    if not 1 <= len(names) < IGNORE or len(set(names)) != len(names):
        raise ValueError("classes must be 1 to 254, each name once")
    colors = tuple(_color(item["color"], f"class '{item['name']}'") for item in classes)
    ids = {class_name: train_id for train_id, class_name in enumerate(names)}

    def train_id_of(class_name: str, key: str) -> int:
        if class_name not in ids:
            raise ValueError(
                f"{key}: '{class_name}' is not among its classes, which are {', '.join(names)}"
            )
        return ids[class_name]

    encodings = {"train_id": {train_id: train_id for train_id in range(len(names))}}
    by_color, left_out = set(), {}
    if len(set(colors)) == len(colors):
        encodings["color"] = {color_code(*color): i for i, color in enumerate(colors)}
        by_color.add("color")
    for encoding, entries in (content.get("encodings") or {}).items():
        stored, of_colors = _stored(encoding, entries)
        encodings[encoding] = {
            i: train_id_of(n, f"encodings.{encoding}") for i, n in stored.items() if n is not None
        }
        left_out[encoding] = frozenset(i for i, n in stored.items() if n is None)
        by_color.discard(encoding)
        if of_colors:
            by_color.add(encoding)
    taken = next((name for name in content.get("subsets") or {} if name in NO_SUBSETS), None)
    if taken is not None:
        raise ValueError(
            f"'{taken}' is no name for a subset, as results have a number of that name"
        )
    subsets = {}
    for subset, members in (content.get("subsets") or {}).items():
        key = f"subsets.{subset}"
        if (
            not isinstance(members, list)
            or not members
            or not all(isinstance(name, str) for name in members)
        ):
            raise ValueError(f"{key}: must be a list of classes, such as [{names[0]}]")
        subsets[subset] = tuple(train_id_of(class_name, key) for class_name in members)
    return LabelSpace(name, names, colors, encodings, subsets, frozenset(by_color), left_out)


def _stored(encoding: str, entries: dict[str, str | None]) -> tuple[dict[int, str | None], bool]:
    """The class of each stored id or colour, None for one left out; whether they are colours."""
    if not isinstance(entries, dict):
        raise ValueError(
            f"encodings.{encoding}: must be a mapping from ids, or colours, to classes, such as "
            "{0: road}"
        )
    colors = [bool(_COLOR.fullmatch(key)) for key in entries]
    if any(colors) and not all(colors):
        raise ValueError(f"encodings.{encoding}: holds ids beside colours; make it two encodings")
    stored: dict[int, str | None] = {}
    for key, class_name in entries.items():
        if not any(colors) and not re.fullmatch(r"-?[0-9]+", key):
            raise ValueError(
                f"encodings.{encoding}: '{key}' is neither an id, such as 7, nor a colour, such as "
                '"#804080"; an id stands alone, in decimal digits'
            )
        if class_name is not None and not _is_text(class_name):
            raise ValueError(f"encodings.{encoding}: {key} must be the name of one class, or null")
        number = int(key[1:], 16) if any(colors) else int(key)
        if not any(colors) and not 0 <= number < IDS - 1:  # which stands for what is no id
            raise ValueError(f"encodings.{encoding}: id {key} is not in 0..{IDS - 2}")
        if number in stored:
            raise ValueError(f"encodings.{encoding}: '{key}' is given again")
        stored[number] = class_name
    return stored, any(colors)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _color(values: object, of: str) -> tuple[int, int, int]:
    """A colour as a label space gives it: "#804080", or red, green and blue."""
    if isinstance(values, str) and _COLOR.fullmatch(values):
        values = list(bytes.fromhex(values[1:]))
    listed = list(values) if isinstance(values, list | tuple) else []
    channels = [int(str(v)) for v in listed if re.fullmatch("[0-9]{1,3}", str(v))]
    if len(channels) != 3 or len(listed) != 3 or max(channels) > 255:
        text = f"[{', '.join(map(str, listed))}]" if listed else values
        raise ValueError(
            f"{of}: color {text} is neither three numbers from 0 to 255, such as [128, 64, 128], "
            'nor "#804080"'
        )
    return channels[0], channels[1], channels[2]
