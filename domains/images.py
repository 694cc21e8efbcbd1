"""One reader of image and label files, which knows their format, depth, orientation and alpha.

What is refused, a file's header tells: what decodes nothing, such as the index, `open_image` and
`open_label` go by the same `Header`. The rules:

- Photos have at most 8 bits a channel. Which range of 16 bits is black and white no file says.
- Label maps have one channel of ids, whatever their bits, and are of a format that keeps every
  pixel: PNG, TIFF (but for lossy compressions), BMP or PGM. Ids are the values in the file, which
  Pillow spreads where there are few levels. What is no id, 0 to 65534, reads as `UNKNOWN`.
- Images and label maps are upright, as the file's note of orientation says. Where that cannot be
  meant, an image can be read as stored.
- Pixels of alpha 0 are no data. What colour they hide is never seen: they have the mean colour of
  the other pixels, or black where there are none.
- A file holds one picture: of several nothing tells which is meant. Small copies of it, masks, and
  what cameras put behind a JPEG do not count.
"""

import hashlib
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from bdl.domains.label_space import IGNORE, TRANSPARENT, LabelSpace, color_code, is_by_color
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import open_regular, save_png

UPRIGHT, STORED = "upright", "stored"  # how an image is read
UNKNOWN = 65_535  # the id of stored values that are none: below 0, or above 65534

# Pillow's names of the formats that are read; those of the first line keep every pixel.
_LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_PHOTOS = (*_LOSSLESS, "JPEG", "MPO", "WEBP", "AVIF")

_KINDS = {  # Pillow's modes in words
    "1": "a 1-bit image",
    "L": "a grey image",
    "LA": "a grey image with transparency",
    "La": "a grey image with transparency",
    "P": "a palette image",
    "PA": "a palette image with transparency",
    "RGB": "a colour image",
    "RGBA": "a colour image with transparency",
    "CMYK": "a CMYK image",
    "YCbCr": "a YCbCr image",
    "LAB": "a Lab image",
}
_PNG = b"\x89PNG\r\n\x1a\n"  # what these files begin with
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")

_TAIL = 1 << 16  # bytes at a file's end that are looked at: the longest EXIF a PNG's end may hold
_BESIDE = 0b101  # of a TIFF's NewSubfileType: smaller copies and masks of another picture
_SIDEWAYS = (5, 6, 7, 8)  # orientations whose width and height are exchanged
_Turn = Image.Transpose
_TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
_TURNS_BACK = {**_TURNS, 6: _Turn.ROTATE_90, 8: _Turn.ROTATE_270}


@dataclass(frozen=True)
class Header:
    """What a file tells of itself without being decoded.

    Args:
        format: Pillow's name of the format, e.g. "PNG".
        mode: Pillow's name of the kind of pixels, e.g. "RGB".
        bits: Bits a channel, as stored.
        levels: The highest value that a channel can hold.
        stored: Width and height as the pixels lie in the file.
        orientation: EXIF's number, 1 to 8, of how the picture was held; 1 is upright.
        transparent: Whether pixels may be transparent.
        image_flaw, label_flaw, colors_flaw: Why the file is no photo, no map of class ids and no
            map of class colours, each a sentence without subject; None where it is one.
        palette: A short hash of the colours of a palette; empty where there is none, or each index
            is shown as the grey of that number.
        is_grey: Whether all of these colours are greys.
    """

    format: str
    mode: str
    bits: int
    levels: int
    stored: tuple[int, int]
    orientation: int
    transparent: bool
    image_flaw: str | None
    label_flaw: str | None
    colors_flaw: str | None
    palette: str = ""
    is_grey: bool = False

    def size(self, orientation: str = UPRIGHT) -> tuple[int, int]:
        """Width and height, read upright or as stored."""
        width, height = self.stored
        sideways = orientation == UPRIGHT and self.orientation in _SIDEWAYS
        return (height, width) if sideways else (width, height)


@dataclass(frozen=True, eq=False)
class Photo:
    """An image as it is used.

    Args:
        image: RGB, 8 bits a channel.
        opaque: H x W bool, False where the image is transparent; None if it is nowhere.
    """

    image: Image.Image
    opaque: np.ndarray | None = None

    @property
    def pixels(self) -> np.ndarray:
        """H x W x 3 uint8."""
        return np.asarray(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size

    def resized(self, size: tuple[int, int]) -> "Photo":
        """The photo at that width and height: bicubic, and what is opaque by nearest neighbour."""
        if size == self.size:
            return self
        image = self.image.resize(size, Image.Resampling.BICUBIC)
        return Photo(image, None if self.opaque is None else resized_mask(self.opaque, size))


def read_header(file: Path) -> Header:
    """The header of an image or label file.

    Raises UserError that names a file that is missing, no image, or cut off.
    """
    with _opened(file) as (_, header):
        return header


def check_image(file: Path, orientation: str = UPRIGHT) -> tuple[int, int]:
    """Width and height of an image, without decoding it.

    Raises UserError for a file that is missing, no image, cut off, or no photo of 8 bits.
    """
    header = read_header(file)
    _refuse(file, header.image_flaw)
    return header.size(orientation)


def require_undamaged(file: Path) -> None:
    """Raises UserError for a file whose picture cannot be decoded. That a PNG's can is told by its
    checksums, in much less time."""
    if not _has_right_checksums(file):
        with _opened(file) as (image, _):
            image.load()


def open_image(file: Path, orientation: str = UPRIGHT) -> Photo:
    """The image, decoded.

    Args:
        file: Of any of the formats that are read.
        orientation: "upright", or "stored" to disregard the file's note of how it was held.

    Raises UserError that names a file that is no whole photo of at most 8 bits a channel.
    """
    with _opened(file) as (image, header):
        _refuse(file, header.image_flaw)
        image.load()
    return _filled(_as_photo(_turned(image, header, orientation), header))


def open_label(file: Path, by_color: bool = False) -> Image.Image:
    """The label file's ids as a one-channel image, upright: 8-bit ("L") or 16-bit ("I;16").

    Palette files give their indices, files of one bit 0 and 1. Of colour files only SYNTHIA's hold
    ids: 16-bit PNGs whose first channel is the class. With `by_color` the file shows classes by
    colours, which are given as numbers, 0xRRGGBB, in 32 bits ("I"); what is transparent is
    `TRANSPARENT`.
    """
    if by_color:
        photo = open_colors(file)
        codes = photo.pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        if photo.opaque is not None:
            codes[~photo.opaque] = TRANSPARENT
        return Image.fromarray(codes)
    with _opened(file) as (image, header):
        _refuse(file, header.label_flaw)
        if header.mode == "RGB":
            # Pillow cuts 48-bit pixels to 8 bits a channel; torchvision keeps them.
            from torchvision.io import ImageReadMode, decode_image

            channels = decode_image(str(file), mode=ImageReadMode.UNCHANGED)
            ids = Image.fromarray(channels[0].numpy().astype(np.uint16))
        else:
            image.load()
            ids = Image.fromarray(_ids(image, header))
    return _turned(ids, header, UPRIGHT, is_turned=header.format == "TIFF")


def shown_colors(file: Path) -> dict[int, int]:
    """The colours, 0xRRGGBB, in which a palette file shows the indices that occur in it."""
    with _opened(file) as (image, _):
        colors = _palette(image)
    held = np.unique(np.asarray(open_label(file))).tolist()
    return {number: colors[number] if number < len(colors) else 0 for number in held}


def train_ids(file: Path, table: np.ndarray) -> np.ndarray:
    """The label file's train ids, H x W uint8: `table` takes its ids, or its colours, to them."""
    return table[np.asarray(open_label(file, is_by_color(table)))]


def turned_with(labels: np.ndarray, photo: Path) -> np.ndarray:
    """Labels, H x W, that were drawn on a photo as it is stored, turned upright with it."""
    image = Image.fromarray(labels)
    return np.asarray(_turned(image, read_header(photo), UPRIGHT, is_turned=False))


def open_colors(file: Path) -> Photo:
    """The colours of a label map that shows classes by them, upright; none is filled in.

    Raises UserError that names a file whose colours are not exact: of a format that changes them,
    of more than 8 bits a channel, or of colours that are not RGB.
    """
    with _opened(file) as (image, header):
        _refuse(file, header.colors_flaw)
        image.load()
    return _as_photo(_turned(image, header, UPRIGHT), header)


def as_photo(given: Image.Image | np.ndarray) -> Photo:
    """A photo from memory: a Pillow image of any kind, as it stands, or pixels, H x W x 3 uint8.

    Raises UserError for other arrays, and for images of more than 8 bits a channel.
    """
    if isinstance(given, np.ndarray):
        if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8 or not given.size:
            shape = " x ".join(map(str, given.shape))
            raise UserError(
                f"photo: is an array of {shape} {given.dtype}, must be height x width x 3 uint8, "
                "RGB from 0 to 255"
            )
        return Photo(Image.fromarray(np.ascontiguousarray(given)))
    bits = 16 if given.mode.startswith(("I", "F")) else 8
    flaw = _image_flaw("", given.mode, bits)
    if flaw is not None:
        raise UserError(f"photo: {flaw}")
    transparent = given.has_transparency_data
    header = Header("", given.mode, bits, 255, given.size, 1, transparent, None, None, None)
    return _filled(_as_photo(given, header))


def resized_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask, H x W bool, at another width and height, by nearest neighbour."""
    image = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.NEAREST)).astype(bool)


def label_image(labels: np.ndarray, space: LabelSpace) -> Image.Image:
    """Train ids (H x W uint8) as an image whose palette shows the classes' colours."""
    image = Image.fromarray(labels)
    image.putpalette(space.palette())
    return image


def write_labels(file: Path, labels: np.ndarray, space: LabelSpace) -> None:
    """Train ids (H x W uint8) as a PNG whose palette shows the classes' colours."""
    save_png(file, label_image(labels, space))


def without_data(labels: np.ndarray, opaque: np.ndarray | None) -> np.ndarray:
    """Train ids (H x W) with 255 where the image is transparent (`opaque`, H x W bool)."""
    if opaque is None:
        return labels
    return np.where(opaque, labels, labels.dtype.type(IGNORE))


# Opening


class _AnySize:
    """Lets Pillow open images of any size while a file is being read.

    Its guard against images that are huge on purpose is meant for servers; it is a setting of the
    whole process, so that the last reader that leaves puts it back.
    """

    def __init__(self) -> None:
        self.limit = Image.MAX_IMAGE_PIXELS
        self.begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        """Nobody reads: a process that was forked has none of the other's threads."""
        self.lock, self.readers = threading.Lock(), 0
        Image.MAX_IMAGE_PIXELS = self.limit

    def __enter__(self) -> None:
        with self.lock:
            if self.readers == 0:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.readers += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.readers -= 1
            if self.readers == 0:
                Image.MAX_IMAGE_PIXELS = self.limit


_any_size = _AnySize()


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Image.Image, Header]]:
    """The image, not decoded yet, and its header."""
    # Of a file that is open Pillow maps nothing into memory: where a TIFF lies sideways it would
    # take the wrong pixels, and a file that changes meanwhile would end the process.
    with (
        _named_errors(file),
        _any_size,
        open_regular(file) as opened,
        Image.open(opened) as image,
        open(file, "rb") as beside,
    ):
        yield image, _read(beside, image)


@contextmanager
def _named_errors(file: Path) -> Iterator[None]:
    """What goes wrong when an image is read becomes a UserError that names its file."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except MemoryError:
        raise UserError(f"{file}: does not fit into memory; store the image smaller") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{file}: is not a readable image (of no known format, or kind of pixels); replace or "
            "remove it"
        ) from None
    except Exception as error:  # what decoders raise on damaged files is of any type
        if isinstance(error, OSError) and error.errno:
            raise UserError(
                f"{file}: cannot be read ({error.strerror}); check the file and its permissions"
            ) from None
        raise UserError(
            f"{file}: is not a readable image ({first_line(error)}); replace or remove it"
        ) from None


def _refuse(file: Path, flaw: str | None) -> None:
    if flaw is not None:
        raise UserError(f"{file}: {flaw}")


# Headers


def _read(opened: BinaryIO, image: Image.Image) -> Header:
    """The header of an image, from what Pillow tells and from its file, `opened` once more."""
    kind, mode = image.format or "", image.mode
    head = opened.read(64)
    length = os.fstat(opened.fileno()).st_size
    tail = b""
    if kind in ("PNG", "JPEG", "MPO"):
        opened.seek(-min(_TAIL, length), os.SEEK_END)
        tail = opened.read()
    if _is_cut_off(opened, kind, image, head, tail, length):
        raise ValueError("the file is cut off")
    bits, levels = _depth(opened, kind, image, head)
    tags = getattr(image, "tag_v2", {}) if kind == "TIFF" else {}
    stored = (tags[256], tags[257]) if tags else image.size
    misread, several_maps = _misread(kind, mode, bits), _several(image, "label map")
    colors = _palette(image)
    greys = [color >> 16 for color in colors if color == color % 256 * 0x010101]
    return Header(
        format=kind,
        mode=mode,
        bits=bits,
        levels=levels,
        stored=stored,
        orientation=_orientation(image, tail),
        transparent=image.has_transparency_data,
        image_flaw=_image_flaw(kind, mode, bits) or misread or _several(image, "photo"),
        label_flaw=_label_flaw(image, kind, mode, bits) or misread or several_maps,
        colors_flaw=_colors_flaw(image, kind, mode, bits) or misread or several_maps,
        palette="" if greys == list(range(len(colors))) else palette_hash(colors),
        is_grey=len(greys) == len(colors),
    )


def _palette(image: Image.Image) -> list[int]:
    """The colours, 0xRRGGBB, of a palette image, which is not decoded; those that are left out are
    black, as the last ones may be. None for other images."""
    if image.mode != "P" or image.palette is None:
        return []
    alone = Image.new("P", (1, 1))  # the image's own would be asked for with its pixels
    alone.palette = image.palette.copy()
    channels = alone.getpalette() or []
    colors = [color_code(*channels[i : i + 3]) for i in range(0, len(channels), 3)]
    while colors and not colors[-1]:
        colors.pop()
    return colors


def palette_hash(colors: Sequence[int]) -> str:
    """A short hash of a palette's colours, 0xRRGGBB."""
    return hashlib.blake2b(str(list(colors)).encode(), digest_size=8).hexdigest()


def _is_cut_off(
    opened: BinaryIO, kind: str, image: Image.Image, head: bytes, tail: bytes, length: int
) -> bool:
    """Whether the end of a file is missing, as far as that can be told without decoding."""
    if tail:
        # What ends the picture is near the file's end, unless something else was appended.
        end = b"IEND" if kind == "PNG" else b"\xff\xd9"
        if end in tail:
            return False
        opened.seek(0)
        return end not in opened.read()
    if kind == "WEBP":
        return length < 8 + struct.unpack("<I", head[4:8])[0]
    if kind == "TIFF":
        tags = getattr(image, "tag_v2", {})
        starts, lengths = (tags.get(a) or tags.get(b) or () for a, b in ((273, 324), (279, 325)))
        return any(start + size > length for start, size in zip(starts, lengths, strict=False))
    if kind == "BMP" and struct.unpack("<I", head[14:18])[0] >= 40:
        offset, _, width, height = struct.unpack("<IIii", head[10:26])
        bits, compression = struct.unpack("<HI", head[28:34])
        return compression == 0 and length < offset + (width * bits + 31) // 32 * 4 * abs(height)
    return False


def _has_right_checksums(file: Path) -> bool:
    """Whether a file is a PNG all of whose parts are what was written."""
    with _named_errors(file), open_regular(file) as opened:
        if opened.read(len(_PNG)) != _PNG:
            return False
        while len(head := opened.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            content, checksum = opened.read(length), opened.read(4)
            if zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big") != checksum:
                return False
            if kind == b"IEND":
                return True
    return False


def _depth(opened: BinaryIO, kind: str, image: Image.Image, head: bytes) -> tuple[int, int]:
    """Bits a channel, and the highest value that these can hold."""
    bits = 1 if image.mode == "1" else 16 if image.mode.startswith("I;16") else 8
    if image.mode in ("I", "F"):
        bits = 32
    if kind == "PNG":
        bits = head[24]
    elif kind == "TIFF":
        bits = max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
    elif kind == "BMP" and image.mode in ("1", "L", "P"):
        (header_size,) = struct.unpack("<I", head[14:18])
        (bits,) = struct.unpack("<H", head[28:30] if header_size >= 40 else head[24:26])
    elif kind == "PPM" and head[:2] in (b"P2", b"P3", b"P5", b"P6"):
        opened.seek(0)
        words = re.sub(rb"#[^\r\n]*", b" ", opened.read(4096)).split(maxsplit=4)
        return 8 if int(words[3]) <= 255 else 16, int(words[3])
    return bits, 2**bits - 1


def _orientation(image: Image.Image, tail: bytes) -> int:
    """EXIF's number, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        exif = None
        if image.format == "PNG" and "exif" not in image.info and b"eXIf" in tail:
            exif = _exif_at_the_end(tail)  # some programs write it behind the picture
        if exif is None:
            exif = Image.Image.getexif(image)  # not the PNG's own, which decodes the picture
        turn = exif.get(ExifTags.Base.Orientation)
    except Exception:  # damaged notes raise errors of any type; the picture may be sound
        return 1
    return turn if turn in _TURNS else 1


def _exif_at_the_end(tail: bytes) -> Image.Exif | None:
    start = tail.rfind(b"eXIf")
    (length,) = struct.unpack(">I", tail[start - 4 : start])
    chunk = tail[start : start + 4 + length]
    if zlib.crc32(chunk).to_bytes(4, "big") != tail[start + 4 + length : start + 8 + length]:
        return None  # pixels that look like it
    exif = Image.Exif()
    exif.load(chunk[4:])
    return exif


def _in_words(mode: str) -> str:
    return "a grey image" if mode.startswith(("I", "F")) else _KINDS.get(mode, f"a {mode} image")


def _image_flaw(kind: str, mode: str, bits: int) -> str | None:
    if kind and kind not in _PHOTOS:
        return f"is of the format {kind}, which is not read; store it as PNG or JPEG"
    if bits > 8:
        # Pillow would cut grey levels off at 255, and take the upper 8 bits of colours.
        return (
            f"is {_in_words(mode)} of more than 8 bits; store it as 8-bit RGB or grey, its range "
            "scaled to 0..255"
        )
    if mode == "LAB":
        return f"is {_in_words(mode)}; store it as RGB"
    return None


def _label_flaw(image: Image.Image, kind: str, mode: str, bits: int) -> str | None:
    tags = getattr(image, "tag_v2", {})
    inexact = _inexact(kind, image)
    if inexact is not None:
        return inexact
    if kind == "GIF":
        return "is a GIF, whose writers renumber palettes as they like; store the labels as PNG"
    if mode == "F":
        return "holds floating-point numbers; labels must be class ids, stored as 8 or 16 bits"
    if mode not in _LABEL_MODES and not (kind == "PNG" and mode == "RGB" and bits == 16):
        return (
            f"is {_in_words(mode)}, not a label map; labels must be one channel of class ids "
            "(1 to 16 bits, or palette)"
        )
    channels = tags.get(277, 1)
    if kind == "TIFF" and channels > 1:
        return f"has {channels} channels; labels must be one channel of class ids"
    if (kind == "PPM" and mode == "1") or (kind == "TIFF" and tags.get(262, 0) == 0):
        return "counts its levels from white, so that ids are not told; store the labels as PNG"
    if kind == "TIFF" and bits == 8 and max(tags.get(339, (1,))) == 2:
        return "holds ids with a sign in 8 bits; store the labels as PNG"
    return None


def _colors_flaw(image: Image.Image, kind: str, mode: str, bits: int) -> str | None:
    inexact = _inexact(kind, image)
    if inexact is not None:
        return inexact
    if bits > 8 or mode not in _COLOR_MODES:
        depth = " of more than 8 bits" if bits > 8 else ""
        return f"is {_in_words(mode)}{depth}; store the colours of classes as 8-bit RGB"
    return None


def _inexact(kind: str, image: Image.Image) -> str | None:
    """Why the file's format does not keep the values of pixels."""
    name = "JPEG" if kind == "MPO" else kind
    if kind not in _PHOTOS:
        return f"is of the format {name}, which is not read; store the labels as PNG"
    if kind not in _LOSSLESS:
        return f"is of the format {name}, which may change pixels; store the labels as PNG"
    compression = image.info.get("compression")
    if kind == "TIFF" and compression in ("jpeg", "tiff_jpeg", "webp"):
        return f"is compressed by {compression}, which changes pixels; store the labels as PNG"
    return None


def _misread(kind: str, mode: str, bits: int) -> str | None:
    """What Pillow reads wrongly: it goes by the palette, and forgets how pixels are packed."""
    if kind == "BMP" and (mode, bits) not in (("1", 1), ("L", 8)) and mode in ("1", "L"):
        return f"is a BMP of {bits} bits whose palette is greys, which is not read; store it as PNG"
    return None


def _several(image: Image.Image, wanted: str) -> str | None:
    """That a file holds several pictures, where one is wanted."""
    pictures = _pictures(image)
    return f"holds {pictures} pictures; store one {wanted} in a file" if pictures > 1 else None


def _pictures(image: Image.Image) -> int:
    """Pictures of the first one's size: smaller copies of it and masks beside it do not count, nor
    what cameras put behind a JPEG's picture."""
    count, size = getattr(image, "n_frames", 1), image.size
    if image.format == "MPO":
        return 1
    if count == 1 or image.format != "TIFF":
        return count
    fitting = 0
    for number in range(count):
        with suppress(SyntaxError):  # masks and the like that Pillow does not know
            image.seek(number)
            beside = image.tag_v2.get(254, 0) & _BESIDE  # type: ignore[attr-defined]
            fitting += image.size == size and not beside
    image.seek(0)
    return fitting


# Pixels


def _turned(
    image: Image.Image, header: Header, orientation: str, is_turned: bool | None = None
) -> Image.Image:
    """The image upright or as stored; of TIFFs Pillow has made it upright."""
    if header.orientation == 1:
        return image
    if header.format == "TIFF" if is_turned is None else is_turned:
        turn = None if orientation == UPRIGHT else _TURNS_BACK[header.orientation]
    else:
        turn = _TURNS[header.orientation] if orientation == UPRIGHT else None
    return image if turn is None else image.transpose(turn)


def _ids(image: Image.Image, header: Header) -> np.ndarray:
    """The stored values: uint8 or uint16."""
    if header.mode == "1":
        return np.asarray(image).astype(np.uint8)
    # Of palettes as bytes: conversion to "L" would turn their indices into brightness.
    values = np.asarray(image)
    if header.mode in ("L", "P"):
        return values if header.mode == "P" else _unspread(values, header.levels, 255)
    if header.format == "PPM":
        values = _unspread(values, header.levels, 65_535)
    return np.where((values >= 0) & (values < UNKNOWN), values, UNKNOWN).astype(np.uint16)


def _unspread(values: np.ndarray, levels: int, top: int) -> np.ndarray:
    """Stored values 0..`levels` from those that Pillow has spread over 0..`top`."""
    if levels >= top:
        return values
    return ((values.astype(np.uint32) * levels + top // 2) // top).astype(values.dtype)


def _as_photo(image: Image.Image, header: Header) -> Photo:
    if not header.transparent:
        return Photo(image if image.mode == "RGB" else image.convert("RGB"))
    if image.mode in ("La", "RGBa"):  # whose colours are multiplied by alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    opaque = _opaque(image, header.levels)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return Photo(image.convert("RGB"), None if opaque.all() else opaque)


def _opaque(image: Image.Image, levels: int) -> np.ndarray:
    """H x W bool: where a file that may hold transparent pixels holds none."""
    if image.mode in ("1", "L", "RGB"):  # one grey or colour stands for what is transparent
        hidden = image.info["transparency"]
        if image.mode == "RGB":
            return (np.asarray(image) != np.array(hidden)).any(2)
        pixels = np.asarray(image.convert("L"))
        return pixels != (hidden if image.mode == "1" else hidden * 255 // levels)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.asarray(image.getchannel(len(image.getbands()) - 1)) > 0


def _filled(photo: Photo) -> Photo:
    """The photo without the colours that hide under alpha 0."""
    if photo.opaque is None:
        return photo
    pixels = np.array(photo.image)
    seen = pixels[photo.opaque]
    pixels[~photo.opaque] = seen.mean(0).round() if len(seen) else 0
    return Photo(Image.fromarray(pixels), photo.opaque)
