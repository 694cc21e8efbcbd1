"""Whatever lies in a user's folders: never a traceback, check and run agree, nothing is changed.

Data sets are drawn at random: formats, modes, depths, orientations, sizes, ids, names, links and
damage.
"""

import os
import struct
import sys
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bdl.pipeline import main

EVERY_DAY, LONG = 40, 240  # data sets

PHOTOS = {
    ".png": ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"],
    ".PNG": ["RGB"],
    ".jpg": ["RGB", "L", "CMYK"],
    ".JPG": ["RGB"],
    ".jpeg": ["RGB"],
    ".bmp": ["RGB", "L", "P"],
    ".tif": ["RGB", "L", "RGBA", "I;16", "CMYK", "F"],
    ".webp": ["RGB", "RGBA"],
    ".gif": ["P"],
    ".ppm": ["RGB"],
}
LABELS = {
    ".png": ["L", "P", "1", "I;16", "RGB", "RGBA", "LA"],
    ".PNG": ["L"],
    ".tif": ["L", "I;16", "I", "F", "RGB"],
    ".bmp": ["L", "P"],
    ".jpg": ["L"],
    ".gif": ["P"],
}
IDS = [(0, 1, 2), (0, 10), (0, 255), (0, 1, 255), (1, 2, 3), (200, 201), (7, 8, 11), (0,)]
SIZES = [(48, 32), (32, 48), (33, 17), (8, 8), (1, 1), (200, 3), (64, 64)]
NAMES = ["a", "b c", "[2024]", "ü", "x.y", "IMG_1", "名", "#1", "-d", "e'f"]
if sys.platform == "linux":
    NAMES.append(os.fsdecode(b"stra\xdfe"))  # Latin-1


@dataclass
class Draw:
    """Random choices, one after the other, for one data set."""

    random: np.random.Generator

    def one(self, items):
        return items[int(self.random.integers(len(items)))]

    def happens(self, probability: float) -> bool:
        return bool(self.random.random() < probability)


def photo(draw: Draw, mode: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    pixels = draw.random.integers(0, 256, (height, width, 3), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32))
    image = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray((pixels[..., 1] > 100).astype(np.uint8) * 255))
        return image
    return image.convert(mode)


def label(draw: Draw, mode: str, size: tuple[int, int], ids: tuple[int, ...]) -> Image.Image:
    width, height = size
    values = draw.random.choice(ids, (height, width))
    if mode == "1":
        return Image.fromarray((values > 0).astype(bool))
    if mode == "I;16":
        return Image.fromarray(values.astype(np.uint16))
    if mode == "I":
        return Image.fromarray(values.astype(np.int32) + (65536 if draw.happens(0.3) else 0))
    if mode == "F":
        return Image.fromarray(values.astype(np.float32))
    image = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        image.putpalette([channel for n in range(256) for channel in (n, 255 - n, n // 2)])
        return image
    return image if mode == "L" else image.convert(mode)


def save(image: Image.Image, file: Path, orientation: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {}
    if orientation != 1 and file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".tif"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(file, **options)


def two_bit_tiff(file: Path, size: tuple[int, int]) -> None:
    """Ids 0 to 3 of two bits each, which Pillow spreads for display."""
    width, height = size[0] // 4 * 4 or 4, size[1]
    data = bytes(width // 4 * height * [0b00011011])
    tags = [(256, 3, width), (257, 3, height), (258, 3, 2), (259, 3, 1), (262, 3, 1), (273, 4, 134)]
    tags += [(277, 3, 1), (278, 3, height), (279, 4, len(data)), (284, 3, 1)]
    head = struct.pack("<H", len(tags))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    file.write_bytes(b"II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + data)


def deep_png(file: Path, size: tuple[int, int]) -> None:
    """Colour of 16 bits a channel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    width, height = size
    row = b"\0" + bytes(6 * width)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def make_role(draw: Draw, folder: Path, ids: tuple[int, ...]) -> dict[str, object]:
    """A folder of images and labels, most of them of one kind; its section of a configuration."""
    plain = draw.happens(0.6)
    ending = draw.one([".png", ".jpg", ".tif", ".webp", ".bmp"] if plain else list(PHOTOS))
    label_ending = ".png" if plain else draw.one(list(LABELS))
    mode = PHOTOS[ending][0] if plain else draw.one(PHOTOS[ending])
    label_mode = draw.one(["L", "P"] if plain else LABELS[label_ending])
    size = (48, 32) if plain else draw.one(SIZES)
    orientation = draw.one([1, 1, 1, 3, 6, 8])
    stored_frame = draw.happens(0.2)
    inner = draw.one(["", "", "deep/er/"])
    for number in draw.random.permutation(len(NAMES))[:3]:
        name = NAMES[number]
        if draw.happens(0.05):
            size = draw.one(SIZES)
        image, mask = folder / "images" / f"{inner}{name}{ending}", None
        save(photo(draw, mode, size), image, orientation)
        shown = size if stored_frame or orientation in (1, 3) else size[::-1]
        mask_name = unicodedata.normalize("NFD", name) if draw.happens(0.3) else name
        mask = folder / "labels" / f"{inner}{mask_name}{label_ending}"
        save(label(draw, label_mode, shown, ids), mask, 1)
        if draw.happens(0.02):
            image.write_bytes(image.read_bytes()[: max(1, image.stat().st_size // 2)])
        if draw.happens(0.02):
            mask.write_bytes(mask.read_bytes()[: max(1, mask.stat().st_size // 2)])
        if draw.happens(0.02):
            mask.unlink()
        if draw.happens(0.02):
            two_bit_tiff(mask, shown)
        if draw.happens(0.02):
            deep_png(image, size)
    if draw.happens(0.3):
        (folder / "images" / ".DS_Store").write_bytes(b"\0")
        (folder / "images" / "._a.jpg").write_bytes(b"\0")
        (folder / "images" / "notes.txt").write_text("mine")
        (folder / "images" / "movie.mp4.partial").write_bytes(b"mine")
    if draw.happens(0.15):
        os.symlink(folder / "images", folder / "images" / "loop")
    section: dict[str, object] = {"layout": "folder", "root": str(folder)}
    stars = "**/*" if draw.happens(0.5) else ("*/*/*" if inner else "*")
    section["images"] = f"images/{stars}"
    section["labels"] = f"labels/{stars}{label_ending}"
    if draw.happens(0.5):
        section["size"] = [40, 32]
    if draw.happens(0.3):
        section["on_error"] = "skip"
    if draw.happens(0.15):
        lines = ["# mine", *(f"./images/{inner}{name}{ending}" for name in NAMES[:2])]
        encoding = draw.one(["utf-8", "utf-16", "utf-8-sig"])
        (folder / "list.txt").write_text("\n".join(lines), encoding=encoding)
        section["list_file"] = str(folder / "list.txt")
    return section


def make_data(seed: int, folder: Path) -> Path:
    """A random data set below `folder`/given; returns its configuration."""
    draw = Draw(np.random.default_rng(seed))
    ids = draw.one(IDS) if draw.happens(0.5) else (0, 1, 2)
    given = folder / "given"
    roles = {role: make_role(draw, given / role, ids) for role in ("source", "validation")}
    if draw.happens(0.3):
        roles["validation"] = None
    names = [
        {"name": f"c{n}", "color": [n * 40, 90, 200]} for n in range(draw.one([1, 2, 3, 3, 3]))
    ]
    space = {"classes": names}
    if draw.happens(0.4):
        space["encodings"] = {"stored": {number: "c0" for number in ids[:1]}}
        for role in roles.values():
            if role is not None:
                role["encoding"] = "stored"
    (given / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    content = {
        "out": str(folder / "run"),
        "iterations": 0,
        "device": "cpu",
        "data": {"label_space": str(given / "space.yaml"), "workers": 0, "target": None, **roles},
        "segmentation": {
            "network": "compact",
            "options": {"width": 4, "dilations": [1]},
            "steps": 1,
            "batch_size": draw.one([1, 1, 2]),
        },
    }
    file = given / "config.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return file


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a folder, what they hold and when they were changed."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            found[str(file)] = file.read_bytes(), file.stat().st_mtime_ns
    return found


def tried(seed: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how the data set of that seed is met, if anything is."""
    config = make_data(seed, folder)
    before = everything(folder / "given")
    statuses = {}
    for command in (["check", "--pixels"], ["run"]):
        statuses[command[0]] = main([*command, "--config", str(config)])
        said = capsys.readouterr()
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        if statuses[command[0]] not in (0, 2) or "Traceback" in said.err + said.out:
            return f"{command[0]}: {said.err}"
        if statuses[command[0]] == 2 and len(errors) != 1:
            return f"{command[0]}: not one line: {said.err}"
        if command[0] == "check":
            problems = said.out
    if statuses["check"] != statuses["run"]:
        return f"check {statuses['check']}, run {statuses['run']}: {problems}\n{said.out}{said.err}"
    if everything(folder / "given") != before:
        return "what was given is not as before"
    return None


def failures(seeds: range, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[int, str]:
    found = {}
    for seed in seeds:
        problem = tried(seed, folder / str(seed), capsys)
        if problem is not None:
            found[seed] = problem
    return found


@pytest.mark.slow
def test_data_sets_at_random(tmp_path, capsys):
    assert failures(range(EVERY_DAY), tmp_path, capsys) == {}


@pytest.mark.long
def test_many_data_sets_at_random(tmp_path, capsys):
    assert failures(range(EVERY_DAY, EVERY_DAY + LONG), tmp_path, capsys) == {}
