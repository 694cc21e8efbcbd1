"""Files that appear whole or not at all: written beside their place, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from runtime.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it takes the place of `path`.

    A kill at any instant leaves the old file, or none, and at most one `.partial` file, which
    the next attempt overwrites.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    yield partial
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """`content` as indented JSON. NaN is refused: it is not JSON; use None."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises UserError if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); delete it and run again") from None


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """A dictionary of tensors and plain values, for `load_tensors`."""
    with atomic(path) as partial:
        torch.save(content, partial)


def load_tensors(path: Path) -> dict[str, Any]:
    """What `save_tensors` wrote, on the CPU. Only data is read: no code in the file is run.

    Raises UserError if the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # what damaged pickles raise is of any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a weights file of tensors ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def save_png(path: Path, image: Image.Image) -> None:
    with atomic(path) as partial:
        image.save(partial, format="PNG", compress_level=1)
