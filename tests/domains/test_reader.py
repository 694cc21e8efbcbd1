"""The reader of image and label files over all formats, modes, depths and orientations: what a
header lets pass decodes to what was written, and all else is refused in one line."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bdl.domains.datasets import Sample
from bdl.domains.images import (
    UNKNOWN,
    as_photo,
    check_image,
    open_colors,
    open_image,
    open_label,
    read_header,
)
from bdl.domains.index import Index
from bdl.domains.inspection import inspect_samples
from bdl.domains.loading import TrainingSamples, View, WholeImages
from bdl.runtime.console import Console
from bdl.runtime.errors import UserError
from tests.helpers import pictures
from tests.helpers.pictures import COLOR, COLOR_ALPHA, GREY, GREY_ALPHA, PALETTE

HEIGHT, WIDTH = 5, 9
Write = Callable[[Path], None]


class Case:
    """A file to write, and what must be read from it: photo (H x W x 3), ids (H x W), colours;
    None where it must be refused."""

    def __init__(
        self,
        name: str,
        write: Write,
        photo: np.ndarray | None = None,
        ids: np.ndarray | None = None,
        colors: np.ndarray | None = None,
        opaque: np.ndarray | None = None,
    ) -> None:
        self.name, self.write, self.photo, self.ids = name, write, photo, ids
        self.colors, self.opaque = colors, opaque


def values(bits: int, channels: int = 1) -> np.ndarray:
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    found = np.random.default_rng(bits + channels).integers(0, 2**bits, shape)
    found.flat[0] = 2**bits - 1
    return found


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, 2)


def as_ids(stored: np.ndarray) -> np.ndarray:
    return np.where((stored >= 0) & (stored < UNKNOWN), stored, UNKNOWN)


def by_hand() -> Iterator[Case]:
    """Files of our own writing."""
    for bits in (1, 2, 4, 8, 16):
        grey = values(bits)
        shown = rgb(grey * 255 // (2**bits - 1)) if bits <= 8 else None
        yield Case(
            f"grey {bits}.png",
            lambda file, v=grey, b=bits: pictures.png(file, v, b, GREY),
            shown,
            grey if bits < 16 else as_ids(grey),
            shown,
        )
        for photometric, order in ((1, "<"), (1, ">"), (0, "<"), (0, ">")):
            for big in (False, True):
                if (photometric, order, bits) == (0, ">", 16):
                    continue  # a kind of pixels that Pillow does not know
                seen = shown if photometric or shown is None else 255 - shown
                ids = as_ids(grey) if photometric else None
                if big and order == ">":  # these Pillow does not know either
                    seen = ids = None
                yield Case(
                    f"grey {bits} {photometric} {'little' if order == '<' else 'big'} {big}.tif",
                    lambda file, v=grey, b=bits, p=photometric, o=order, g=big: pictures.tiff(
                        file, v, b, p, o, g
                    ),
                    seen,
                    ids,
                    seen,
                )
        if bits <= 8:
            shown = pictures.palette(bits)[grey]
            yield Case(
                f"palette {bits}.png",
                lambda file, v=grey, b=bits: pictures.png(file, v, b, PALETTE),
                *(shown, grey, shown),
            )
            for order in "<>":
                yield Case(
                    f"palette {bits} {'little' if order == '<' else 'big'}.tif",
                    lambda file, v=grey, b=bits, o=order: pictures.tiff(file, v, b, 3, o),
                    *(shown, grey, shown),
                )
        if bits in (1, 4, 8):
            scale = 255 // (2**bits - 1)
            for kind, table in {
                "grey": np.arange(2**bits)[:, None].repeat(3, 1) * scale,
                "white first": np.arange(2**bits)[::-1, None].repeat(3, 1) * scale,
                "coloured": pictures.palette(bits),
            }.items():
                shown = table[grey].astype(np.uint8)
                yield Case(
                    f"{kind} {bits}.bmp",
                    lambda file, v=grey, b=bits, t=table: pictures.bmp(file, v, b, t),
                    *(shown, grey, shown),
                )
    for bits in (4, 8):  # which Pillow misreads
        table = np.array([[0] * 3, [255] * 3])
        yield Case(
            f"two greys {bits}.bmp",
            lambda file, b=bits, t=table: pictures.bmp(file, values(1), b, t),
        )
    for bits in (8, 16):
        for kind, channels in ((COLOR, 3), (GREY_ALPHA, 2), (COLOR_ALPHA, 4)):
            pixels = values(bits, channels)
            pixels[..., -1] |= 1 if kind != COLOR else 0  # nowhere transparent
            shown = rgb(pixels[..., 0]) if channels == 2 else pixels[..., :3]
            yield Case(
                f"kind {kind} {bits}.png",
                lambda file, v=pixels, b=bits, k=kind: pictures.png(file, v, b, k),
                shown if bits == 8 else None,
                # SYNTHIA's: the first channel is the class.
                as_ids(pixels[..., 0]) if (kind, bits) == (COLOR, 16) else None,
                shown if bits == 8 else None,
            )
        for order in "<>":
            pixels = values(bits, 3)
            shown = pixels if bits == 8 else None
            yield Case(
                f"colour {bits} {'little' if order == '<' else 'big'}.tif",
                lambda file, v=pixels, b=bits, o=order: pictures.tiff(file, v, b, 2, o),
                *(shown, None, shown),
            )
    for order in "<>":
        name = "little" if order == "<" else "big"
        stored = np.array([[0, 5, 254, 65_534], [65_541, 70_000, 2**31 - 1, 255]])
        signed = np.array([[-1, 5, 254], [32_000, -32_768, 3]])
        yield Case(
            f"32 bits {name}.tif",
            lambda file, v=stored, o=order: pictures.tiff(file, v, 32, 1, o, False, 2),
            ids=as_ids(stored),
        )
        yield Case(
            f"16 bits with sign {name}.tif",
            lambda file, v=signed, o=order: pictures.tiff(file, v, 16, 1, o, False, 2),
            ids=as_ids(signed),
        )
        yield Case(
            f"floats {name}.tif",
            lambda file, v=signed, o=order: pictures.tiff(file, v, 32, 1, o, False, 3),
        )
    yield Case(
        "32 bits without sign.tif",
        lambda file: pictures.tiff(file, np.array([[7, 2**32 - 1]]), 32, 1),
        ids=np.array([[7, UNKNOWN]]),
    )
    for highest in (1, 3, 100, 255, 256, 4095, 65_535):
        grey = values(16) % (highest + 1)
        shown = rgb(np.round(grey / highest * 255)) if highest < 256 else None
        yield Case(
            f"up to {highest}.pgm",
            lambda file, v=grey, h=highest: pictures.pgm(file, v, h),
            *(shown, as_ids(grey), shown),
        )
    # Transparency: alpha 0, and whatever stands for it.
    ids = values(2)
    table, greys = pictures.palette(2)[ids], rgb(ids * 85)
    for name, note, opaque in (
        ("alphas", bytes([255, 0, 7]), ids != 1),
        ("one", bytes([255, 255, 0]), ids != 2),
    ):
        yield Case(
            f"palette with {name}.png",
            lambda file, n=note: pictures.png(file, ids, 2, PALETTE, transparency=n),
            *(table, ids, table, opaque),
        )
    yield Case(
        "grey with one.png",
        lambda file: pictures.png(file, ids, 2, GREY, transparency=b"\0\x02"),
        *(greys, ids, greys, ids != 2),
    )
    pixels = values(8, 3)
    hidden = b"".join(int(v).to_bytes(2, "big") for v in pixels[1, 1])
    opaque = (pixels != pixels[1, 1]).any(2)
    yield Case(
        "colour with one.png",
        lambda file: pictures.png(file, pixels, 8, COLOR, transparency=hidden),
        *(pixels, None, pixels, opaque),
    )
    layered = values(8, 4)
    layered[..., 3] = np.where(layered[..., 3] < 100, 0, layered[..., 3])
    for name, write in {
        "alpha.png": lambda file: pictures.png(file, layered, 8, COLOR_ALPHA),
        "alpha.tif": lambda file: pictures.tiff(file, layered, 8, 2, extra=[2]),
    }.items():
        yield Case(name, write, layered[..., :3], None, layered[..., :3], layered[..., 3] > 0)


def by_pillow() -> Iterator[Case]:
    """Files as programs write them."""
    grey, coloured = values(4).astype(np.uint8), values(8, 3).astype(np.uint8)
    label, photo = Image.fromarray(grey), Image.fromarray(coloured)

    def saved(image: Image.Image, **options: object) -> Write:
        return lambda file: image.save(file, **options)

    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"):
        name = f"{compression}.tif"
        yield Case(name, saved(label, compression=compression), rgb(grey), grey, rgb(grey))
        wide = Image.fromarray(grey.astype(np.uint16) * 4000)
        yield Case(f"16 {name}", saved(wide, compression=compression), ids=grey * 4000.0)
    mask = Image.fromarray(grey > 7)
    shown = rgb((grey > 7) * 255)
    yield Case("fax.tif", saved(mask, compression="group4"), shown, grey > 7, shown)
    yield Case("mask.png", saved(mask), shown, grey > 7, shown)
    yield Case("mask.bmp", saved(mask), shown, grey > 7, shown)
    yield Case("mask.pbm", saved(mask), shown, None, shown)  # 1 is black: which is the id?
    yield Case("colour.bmp", saved(photo), coloured, None, coloured)
    yield Case("colour.ppm", saved(photo), coloured, None, coloured)
    yield Case("grey.gif", saved(label), rgb(grey), None, rgb(grey))
    yield Case("lossless.webp", saved(photo, lossless=True), coloured)
    for name in ("grey.jpg", "grey.webp", "jpeg.tif", "grey.tga", "grey.im"):
        options = {"compression": "jpeg"} if name == "jpeg.tif" else {}
        yield Case(name, saved(label.resize((64, 64), 0), **options))
    paper = Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 50))
    yield Case("cmyk.tif", saved(paper.convert("CMYK")), np.asarray(paper))
    yield Case("lab.tif", saved(Image.new("LAB", (4, 4))))
    two = {"save_all": True, "append_images": [Image.fromarray(grey[::-1].copy())]}
    yield Case("pages.tif", saved(label, **two))
    for ending in ("png", "gif", "webp"):
        yield Case(f"moving.{ending}", saved(label, **two))
    smaller = {"save_all": True, "append_images": [label.resize((4, 2))]}
    yield Case("with a small copy.tif", saved(label, **smaller), rgb(grey), grey, rgb(grey))


CASES = [*by_hand(), *by_pillow()]
# Lossy photos, and what is in no list of formats: their pixels are looked at elsewhere.
INEXACT = ("grey.jpg", "grey.webp", "jpeg.tif")


def size_of_label(file: Path) -> tuple[int, int]:
    """Width and height by the header alone. Raises UserError for what it says is no label map."""
    (look,) = Index(None).headers([file])
    if look.label_flaw:
        raise UserError(look.label_flaw)
    return look.header.size()


def refused(check: Callable[[Path], object], file: Path) -> bool:
    try:
        check(file)
    except UserError as error:
        line = str(error)
        assert line.startswith(f"{file}: ") and "\n" not in line and "; " in line, line
        return True
    return False


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_read_is_what_was_written_or_is_refused(tmp_path, case):
    file = tmp_path / case.name
    case.write(file)
    if case.name not in INEXACT:
        assert refused(check_image, file) == refused(open_image, file) == (case.photo is None)
    assert refused(size_of_label, file) == refused(open_label, file) == (case.ids is None)
    if not refused(read_header, file):
        assert (read_header(file).colors_flaw is not None) == (case.colors is None)
    assert refused(open_colors, file) == (case.colors is None)
    opaque = np.ones((HEIGHT, WIDTH), bool) if case.opaque is None else case.opaque
    if case.photo is not None:
        photo = open_image(file)
        assert check_image(file) == photo.size == (case.photo.shape[1], case.photo.shape[0])
        assert np.array_equal(photo.pixels[opaque], case.photo[opaque])
        assert (photo.opaque is None) == (case.opaque is None or bool(case.opaque.all()))
        if photo.opaque is not None:
            assert np.array_equal(photo.opaque, opaque)
            assert read_header(file).transparent
            mean = case.photo[opaque].mean(0).round()
            assert (photo.pixels[~opaque] == mean).all()  # nothing of what alpha hides
    if case.ids is not None:
        ids = np.asarray(open_label(file))
        assert ids.dtype in (np.uint8, np.uint16)
        assert np.array_equal(ids, case.ids)
        assert size_of_label(file) == (ids.shape[1], ids.shape[0])
    if case.colors is not None:
        assert np.array_equal(open_colors(file).pixels, case.colors)


def test_an_image_of_nothing_but_transparency_is_black(tmp_path):
    pictures.png(tmp_path / "a.png", np.full((2, 2, 4), [9, 9, 9, 0]), 8, COLOR_ALPHA)
    photo = open_image(tmp_path / "a.png")
    assert not photo.pixels.any() and photo.opaque is not None and not photo.opaque.any()


# Orientation

# Where the pixel of row 0, column 0 of each orientation belongs, and the first row's direction, as
# EXIF defines them: (row 0 is at the ..., column 0 is at the ...).
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """By the definition, not by turns and mirrors."""
    row_side, column_side = SIDES[orientation]
    if row_side in ("left", "right"):
        columns = stored if row_side == "left" else stored[::-1]
        columns = columns if column_side == "top" else columns[:, ::-1]
        return columns.swapaxes(0, 1)
    rows = stored if row_side == "top" else stored[::-1]
    return rows if column_side == "left" else rows[:, ::-1]


def write_turned(file: Path, pixels: np.ndarray, orientation: int, how: str) -> None:
    kind = COLOR if pixels.ndim == 3 else GREY
    if how == "png":
        pictures.png(file, pixels, 8, kind, orientation=orientation)
    elif how == "png, note last":
        pictures.png(file, pixels, 8, kind, orientation=orientation, exif_last=True)
    elif how == "tiff":
        photometric = 2 if kind == COLOR else 1
        pictures.tiff(file, pixels, 8, photometric, orientation=orientation)
    elif how == "tiff, packed":
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(pixels.astype(np.uint8))
        image.save(file, format="TIFF", compression="tiff_lzw", exif=exif)
    else:
        options = {"quality": 100, "subsampling": 0} if how == "jpeg" else {"lossless": True}
        note = b"Exif\0\0" + pictures.exif(orientation)
        Image.fromarray(pixels.astype(np.uint8)).save(file, format=how, exif=note, **options)


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("how", ["png", "png, note last", "tiff", "tiff, packed", "jpeg", "webp"])
def test_images_and_labels_are_upright(tmp_path, orientation, how):
    grey = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 5
    pixels = np.stack([grey, grey, grey], 2)
    file = tmp_path / "a"
    write_turned(file, pixels, orientation, how)
    photo = open_image(file)
    expected = upright(pixels, orientation)
    assert photo.pixels.shape == expected.shape
    assert abs(photo.pixels.astype(int) - expected).max() <= (8 if how == "jpeg" else 0)
    assert check_image(file) == photo.size
    stored = open_image(file, "stored")
    assert abs(stored.pixels.astype(int) - pixels).max() <= (8 if how == "jpeg" else 0)
    assert check_image(file, "stored") == stored.size == (WIDTH, HEIGHT)
    if how not in ("jpeg", "webp"):
        write_turned(file, grey, orientation, how)
        assert np.array_equal(open_label(file), upright(grey, orientation))
        assert size_of_label(file) == (expected.shape[1], expected.shape[0])


def test_what_is_transparent_turns_with_the_image(tmp_path):
    pixels = values(8, 4)
    pixels[..., 3] = 255
    pixels[0, :3, 3] = 0
    pictures.png(tmp_path / "a.png", pixels, 8, COLOR_ALPHA, orientation=6)
    photo = open_image(tmp_path / "a.png")
    assert photo.opaque is not None
    assert np.array_equal(photo.opaque, upright(pixels[..., 3] > 0, 6))


def pair(folder: Path, name: str, orientation: int, label: tuple[int, int]) -> Sample:
    """An image stored as 9x5, held as `orientation` says, and a label map, (width, height)."""
    image, ids = folder / f"{name}.png", folder / f"{name}-label.png"
    pictures.png(image, values(8, 3), 8, COLOR, orientation=orientation)
    Image.new("L", label, 3).save(ids)
    return Sample(name, image, ids)


STORED_SIZE, UPRIGHT_SIZE = (WIDTH, HEIGHT), (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, STORED_SIZE)], "upright"),
        ([(6, UPRIGHT_SIZE), (1, STORED_SIZE)], "upright"),
        ([(3, STORED_SIZE), (4, STORED_SIZE)], "upright"),  # both fit: as the files say
        ([(6, STORED_SIZE), (1, STORED_SIZE), (3, STORED_SIZE)], "stored"),
        ([(8, STORED_SIZE), (6, (18, 10))], "stored"),
        ([(6, (7, 7)), (8, UPRIGHT_SIZE)], "upright"),  # fits neither: a flaw
    ],
)
def test_a_domain_is_read_upright_unless_only_the_stored_frame_fits(tmp_path, pairs, expected):
    samples = [pair(tmp_path, str(n), *each) for n, each in enumerate(pairs)]
    inspection = inspect_samples(samples)
    assert inspection.orientation == expected
    assert len(inspection.flaws) == sum(size == (7, 7) for _, size in pairs)
    for n, (orientation, size) in enumerate(pairs):
        if size in (STORED_SIZE, UPRIGHT_SIZE):
            data = TrainingSamples([samples[n]], View(), 0, "test", orientation=expected)
            turned = orientation if expected == "upright" else 1
            image = upright(values(8, 3), turned).transpose(2, 0, 1)
            assert np.array_equal(data[0]["image"], image)
            whole = WholeImages([samples[n]], None, orientation=expected)
            assert np.array_equal(whole[0]["image"], image)


def test_a_domain_that_fits_neither_way_is_an_error_that_names_two_files(tmp_path):
    samples = [pair(tmp_path, "a", 6, UPRIGHT_SIZE), pair(tmp_path, "b", 6, STORED_SIZE)]
    with pytest.raises(UserError, match=r"a\.png: fits .* upright.*b\.png only as stored; make"):
        inspect_samples(samples)


def test_check_says_that_images_are_read_as_stored(tmp_path, capsys):
    index = Index(None, Console())
    assert not inspect_samples([pair(tmp_path, "a", 6, STORED_SIZE)], index, "data.x").flaws
    assert "data.x: images are read as stored" in " ".join(capsys.readouterr().out.split())


# Transparency in what networks are given


@pytest.fixture
def half_transparent(tmp_path) -> Sample:
    """Columns 0 to 19 of 40 are transparent, and hide a bright red; the label is 3 all over."""
    pixels = np.zeros((24, 40, 4), np.uint8)
    pixels[:, :20] = [255, 0, 0, 0]
    pixels[:, 20:] = [10, 20, 30, 255]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.new("L", (40, 24), 3).save(tmp_path / "label.png")
    return Sample("a", tmp_path / "image.png", tmp_path / "label.png")


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(size=(20, 12), flip=True),
        View(crop=(16, 12), flip=True),
        View(crop=(16, 12), scale=(1.0, 2.0), flip=True),
    ],
)
def test_labels_are_ignored_where_a_training_image_is_transparent(half_transparent, view):
    data = TrainingSamples([half_transparent], view, 0, "test")
    seen = set()
    for number in range(12):
        item = data[number]
        assert set(item) == {"image", "label"}
        assert item["image"].flatten(1).T.unique(dim=0).tolist() == [[10, 20, 30]]
        seen |= set(item["label"].unique().tolist())
        columns = item["label"].float().mean(0)
        assert set(columns.tolist()) <= {3.0, 255.0}
    assert seen == {3, 255}


def test_whole_images_tell_where_they_are_opaque(half_transparent):
    table = np.arange(65_536).clip(0, 255).astype(np.uint8)
    item = WholeImages([half_transparent], (20, 12), table)[0]
    assert item["opaque"].shape == (12, 20) and item["opaque"].dtype == torch.bool
    assert not item["opaque"][:, :10].any() and item["opaque"][:, 10:].all()
    assert (item["label"][:, :20] == 255).all() and (item["label"][:, 20:] == 3).all()


# Sizes and damages


def test_pictures_of_any_size_are_read_and_pillows_guard_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    grey = values(8)
    for name in ("a.png", "a.tif", "a.bmp", "a.pgm"):
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / name)
        assert np.array_equal(open_label(tmp_path / name), grey)
        assert np.array_equal(open_image(tmp_path / name).pixels, rgb(grey))
        assert check_image(tmp_path / name) == (WIDTH, HEIGHT)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_182_megapixels_pass_the_check_and_are_decoded(tmp_path):
    Image.new("1", (14_000, 13_000)).save(tmp_path / "a.png")
    assert check_image(tmp_path / "a.png") == (14_000, 13_000)
    assert open_label(tmp_path / "a.png").size == (14_000, 13_000)


@pytest.mark.parametrize("size", [(1, 1), (24, 17_000), (2000, 8), (70_000, 3), (3, 70_000)])
def test_no_shape_is_too_odd_to_be_cut(tmp_path, size):
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", None)
    for view in (View(width=8), View(width=16, crop=(8, 8)), View(size=(16, 8)), View()):
        with suppress(UserError):  # too narrow for the crop
            assert min(TrainingSamples([sample], view, 0, "test")[0]["image"].shape) > 0


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "webp"])
def test_files_that_were_cut_off_are_told_by_their_headers(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file)
    whole = file.read_bytes()
    for part in (0.4, 0.9):
        file.write_bytes(whole[: int(part * len(whole))])
        assert refused(check_image, file) and refused(open_image, file)
    file.write_bytes(whole + b"something else" * 10_000)
    assert not refused(check_image, file) and not refused(open_image, file)


WRITTEN = ("png", "jpg", "tif", "bmp", "webp", "gif", "ppm")


@settings(deadline=None, max_examples=150)
@given(
    ending=st.sampled_from(WRITTEN),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_damages_of_any_kind_are_errors_of_one_line(tmp_path_factory, ending, places, kept):
    """A header may pass what decoding finds damaged, never the other way round."""
    folder = tmp_path_factory.mktemp("damaged")
    file = folder / f"a.{ending}"
    Image.fromarray(values(8).astype(np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    for place, value in places:
        content[int(place * (len(content) - 1))] = value
    file.write_bytes(content[: max(1, int(kept * len(content)))] if kept < 0.5 else content)
    for check, read in ((check_image, open_image), (size_of_label, open_label)):
        if refused(check, file):
            assert refused(read, file)
        else:
            refused(read, file)


def test_what_cannot_be_read_is_no_damage(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: cannot be read \(Is a directory\); check"):
        open_image(tmp_path / "folder.png")


@pytest.mark.parametrize("ending", ["tif", "png", "gif", "webp"])
def test_a_file_of_several_pictures_says_how_many(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    more = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (90, 180)]
    Image.new("RGB", (8, 8)).save(file, save_all=True, append_images=more)
    with pytest.raises(UserError, match=r": holds 3 pictures; store one photo in a file$"):
        check_image(file)


def test_masks_in_a_tiff_and_what_cameras_put_behind_a_jpeg_are_no_further_pictures(tmp_path):
    photo, mask = Image.new("RGB", (8, 8), (10, 20, 30)), Image.new("L", (8, 8), 255)
    mask.encoderinfo = {"tiffinfo": {254: 4}}
    photo.save(tmp_path / "a.tif", save_all=True, append_images=[mask])
    photo.save(tmp_path / "a.mpo", save_all=True, append_images=[photo])
    for name in ("a.tif", "a.mpo"):
        assert open_image(tmp_path / name).pixels[0, 0].tolist() == pytest.approx([10, 20, 30], 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is a pipe or a device, .*; store it as a file$"):
        open_image(tmp_path / "a.png")


# From memory


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_photo_are_refused(array):
    with pytest.raises(UserError, match=r"photo: is an array of .*, must be height x width x 3"):
        as_photo(array)


def test_photos_from_memory():
    pixels = values(8, 3).astype(np.uint8)
    assert np.array_equal(as_photo(pixels[:, ::-1]).pixels, pixels[:, ::-1])
    layered = np.dstack([pixels, np.zeros((HEIGHT, WIDTH), np.uint8)])
    photo = as_photo(Image.fromarray(layered))
    assert photo.opaque is not None and not photo.opaque.any() and not photo.pixels.any()
    with pytest.raises(UserError, match="photo: is a grey image of more than 8 bits"):
        as_photo(Image.new("I;16", (4, 4)))
