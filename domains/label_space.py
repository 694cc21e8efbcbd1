"""Label spaces: the classes a network knows, and how label files count them. Data, not code.

A label space is a YAML file:

    classes:                        # in the order of the train ids 0, 1, 2, ...
      - {name: road, color: [128, 64, 128]}
      - ...
    encodings:                      # optional: how label files may be stored, id -> class name
      label_id: {7: road, ...}
    subsets:                        # optional: further means that evaluation reports
      miou13: [road, ...]

A stored id that an encoding leaves out is ignored in training and evaluation. Unless the file
says otherwise, the encoding train_id is there: label files that hold 0, 1, 2, ... themselves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from runtime.errors import UserError

IGNORE = 255
OWN = Path(__file__).parent / "label_spaces"


@dataclass(frozen=True)
class LabelSpace:
    """`names` and `colors` (RGB, 0..255) by train id; `encodings` map stored ids to train ids;
    `subsets` list train ids."""

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    encodings: dict[str, dict[int, int]]
    subsets: dict[str, tuple[int, ...]]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def table(self, encoding: str) -> np.ndarray:
        """Look-up table from stored ids to train ids: uint8, 65,536 entries, 255 = ignore.

        Raises UserError for an encoding that the label space does not have.
        """
        if encoding not in self.encodings:
            known = ", ".join(self.encodings)
            raise UserError(
                f"label space '{self.name}' has no encoding '{encoding}'; it has: {known}"
            )
        table = np.full(65_536, IGNORE, np.uint8)
        for stored, train_id in self.encodings[encoding].items():
            table[stored] = train_id
        return table

    def palette(self) -> list[int]:
        """The colours as a PNG palette: 768 numbers, black for unused ids and ignore."""
        flat = [channel for color in self.colors for channel in color]
        return flat + [0] * (768 - len(flat))

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Train ids (any shape, uint8) to RGB (the shape x 3, uint8)."""
        return np.array(self.palette(), np.uint8).reshape(256, 3)[labels]

    def describe(self) -> dict[str, Any]:
        """What a checkpoint carries, so that its predictions have names and colours."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
        }


def load_label_space(name: str) -> LabelSpace:
    """The project's own label space of that name, or the one in the YAML file at that path.

    Raises UserError that names the file and what is wrong in it.
    """
    own = OWN / f"{name}.yaml"
    file = own if own.is_file() else Path(name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in OWN.glob("*.yaml")))
        raise UserError(
            f"data.label_space: '{name}' is neither a file nor one of the project's own: {known}"
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return _parse(file.stem, content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {str(error).splitlines()[0]}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not a label space: {error}") from None


def described(description: dict[str, Any]) -> LabelSpace:
    """The label space of a checkpoint, from `LabelSpace.describe`: names and colours, no encodings.

    Raises UserError if it is no such description.
    """
    try:
        names = tuple(str(name) for name in description["names"])
        colors = tuple(_color(color) for color in description["colors"])
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
    names = tuple(str(item["name"]) for item in classes)
    if not 1 <= len(names) < IGNORE or len(set(names)) != len(names):
        raise ValueError("classes must be 1 to 254, each name once")
    colors = tuple(_color(item["color"]) for item in classes)
    ids = {class_name: train_id for train_id, class_name in enumerate(names)}

    def train_id_of(class_name: str) -> int:
        if class_name not in ids:
            raise ValueError(f"'{class_name}' is not among its classes")
        return ids[class_name]

    encodings = {"train_id": {train_id: train_id for train_id in range(len(names))}}
    for encoding, stored in (content.get("encodings") or {}).items():
        encodings[encoding] = {}
        for stored_id, class_name in stored.items():
            if not 0 <= int(stored_id) < 65_536:
                raise ValueError(f"{encoding}: id {stored_id} is not in 0..65535")
            encodings[encoding][int(stored_id)] = train_id_of(class_name)
    subsets = {
        subset: tuple(train_id_of(class_name) for class_name in members)
        for subset, members in (content.get("subsets") or {}).items()
    }
    return LabelSpace(name, names, colors, encodings, subsets)


def _color(values: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"color {values} is not three numbers from 0 to 255")
    return red, green, blue
