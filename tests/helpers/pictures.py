"""Image files written byte for byte, of kinds that image libraries do not write."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

GREY, COLOR, PALETTE, GREY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6  # PNG's kinds of pixels


def packed(values: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """The rows of H x W (x channels) integers in `bits` each, every row filled up to bytes."""
    rows = values.reshape(len(values), -1)
    if bits >= 8:
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    places = np.arange(bits - 1, -1, -1)
    return [np.packbits((row[:, None] >> places) & 1).tobytes() for row in rows.astype(np.uint8)]


def exif(orientation: int) -> bytes:
    """EXIF data that holds an orientation alone."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHxxI", 0x0112, 3, 1, orientation, 0)


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(
    file: Path,
    values: np.ndarray,
    bits: int,
    kind: int,
    transparency: bytes = b"",
    orientation: int = 1,
    exif_last: bool = False,
) -> None:
    """A PNG of H x W (x channels) `values`; palettes are 7 i, 3 i, 255 - i of the index i."""
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    note = _chunk(b"eXIf", exif(orientation)) if orientation != 1 else b""
    parts = [_chunk(b"IHDR", head)]
    if kind == PALETTE:
        parts.append(_chunk(b"PLTE", palette(bits).tobytes()))
    if transparency:
        parts.append(_chunk(b"tRNS", transparency))
    data = zlib.compress(b"".join(b"\0" + row for row in packed(values, bits)))
    parts += [b"" if exif_last else note, _chunk(b"IDAT", data), note if exif_last else b""]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + _chunk(b"IEND", b""))


def palette(bits: int) -> np.ndarray:
    """The colours of the files written here: 2**bits x 3 uint8."""
    index = np.arange(2**bits)
    return np.stack([index * 7 % 256, index * 3 % 256, 255 - index], 1).astype(np.uint8)


def tiff(
    file: Path,
    values: np.ndarray,
    bits: int,
    photometric: int,
    order: str = "<",
    big: bool = False,
    sample_format: int = 1,
    orientation: int = 1,
    extra: Sequence[int] = (),
) -> None:
    """An uncompressed TIFF (or BigTIFF) of one strip; `photometric` 0: white is 0, 1: black is 0,
    2: RGB, 3: palette. `values` are H x W (x channels), or their floats for `sample_format` 3."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    if sample_format == 3:
        data = values.astype(f"{order}f4").tobytes()
    elif sample_format == 2:
        data = values.astype(f"{order}i{bits // 8}").tobytes()
    else:
        data = b"".join(packed(values, bits, order))
    tags: list[tuple[int, str, Sequence[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", [0]),  # the strip's place, filled in below
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (278, "I", [height]),
        (279, "I", [len(data)]),
    ]
    if photometric == 3:
        tags.append((320, "H", (palette(bits).T.astype(int) * 257).ravel().tolist()))
    if extra:
        tags.append((338, "H", extra))
    tags.append((339, "H", [sample_format] * channels))

    start, field, count_kind = (16, 8, "Q") if big else (8, 4, "I")
    directory = start + len(tags) * (20 if big else 12) + (16 if big else 6)
    aside = b""
    entries = b""
    lengths = {"H": 2, "I": 4}
    sizes = [len(v) * lengths[kind] for _, kind, v in tags]
    data_at = directory + sum(size + size % 2 for size in sizes if size > field)
    for (tag, kind, numbers), size in zip(tags, sizes, strict=True):
        numbers = [data_at] if tag == 273 else numbers
        content = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if size > field:
            place = struct.pack(f"{order}{count_kind}", directory + len(aside))
            aside += content + b"\0" * (size % 2)
            content = place
        head = struct.pack(f"{order}HH{count_kind}", tag, {"H": 3, "I": 4}[kind], len(numbers))
        entries += head + content.ljust(field, b"\0")
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
        head += struct.pack(f"{order}Q", len(tags))
    else:
        head = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    file.write_bytes(head + entries + b"\0" * field + aside + data)


def bmp(file: Path, values: np.ndarray, bits: int, colors: np.ndarray) -> None:
    """An uncompressed BMP of H x W palette indices; `colors` are the palette, N x 3."""
    height, width = values.shape
    rows = [row + b"\0" * (-len(row) % 4) for row in packed(values[::-1], bits)]
    table = b"".join(bytes([int(b), int(g), int(r), 0]) for r, g, b in colors)
    offset = 54 + len(table)
    data = b"".join(rows)
    head = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    head += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(data), 0, 0, len(colors), 0
    )
    file.write_bytes(head + table + data)


def pgm(file: Path, values: np.ndarray, highest: int) -> None:
    """A PGM of H x W values whose highest is `highest`."""
    height, width = values.shape
    head = f"P5\n# made by hand\n{width} {height}\n{highest}\n".encode()
    file.write_bytes(head + values.astype(">u1" if highest < 256 else ">u2").tobytes())
