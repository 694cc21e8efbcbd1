"""Image and label files: what their bytes mean, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from bdl.domains.images import open_image, open_label, write_labels
from bdl.domains.label_space import load_label_space
from bdl.domains.tensors import to_bytes, to_tensor, to_unit
from bdl.runtime.errors import UserError
from tests.helpers import pictures

IDS = np.array([[0, 1, 7], [33, 254, 255]], np.uint8)


def test_8_bit_labels(tmp_path):
    file = tmp_path / "label.png"
    Image.fromarray(IDS).save(file)
    assert np.array_equal(open_label(file), IDS)


def test_palette_labels_are_their_indices_not_their_colours(tmp_path):
    file = tmp_path / "label.png"
    image = Image.fromarray(IDS)
    image.putpalette([value for index in range(256) for value in (255 - index, 10, index)])
    image.save(file)
    assert np.array_equal(open_label(file), IDS)


def test_16_bit_labels(tmp_path):
    file = tmp_path / "label.png"
    ids = IDS.astype(np.uint16) * 257
    Image.fromarray(ids).save(file)
    assert np.array_equal(open_label(file), ids)


def test_the_first_channel_of_a_48_bit_file_is_the_class(tmp_path):
    """As SYNTHIA's: class, instance, nothing, 16 bits each."""
    width, height = 3, 2
    pixels = np.zeros((height, width, 3), np.uint16)
    pixels[..., 0] = [[0, 1, 22], [15, 300, 21]]
    pixels[..., 1] = 40_000

    file = tmp_path / "label.png"
    pictures.png(file, pixels, 16, pictures.COLOR)
    assert np.array_equal(open_label(file), pixels[..., 0])


WORDS = {
    "RGB": "a colour image",
    "RGBA": "a colour image with transparency",
    "LA": "a grey image with transparency",
}


@pytest.mark.parametrize("mode", WORDS)
def test_colour_files_are_no_labels(tmp_path, mode):
    file = tmp_path / "label.png"
    Image.new(mode, (4, 4)).save(file)
    with pytest.raises(UserError, match=f"{file}: is {WORDS[mode]}, not a label map"):
        open_label(file)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "RGB"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    file = tmp_path / "image.png"
    Image.new("RGB", (4, 3), (102, 102, 102)).convert(mode).save(file)
    photo = open_image(file)
    assert photo.image.mode == "RGB" and photo.size == (4, 3) and photo.opaque is None
    assert photo.pixels[0, 0].tolist() == [102, 102, 102]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images_are_named(tmp_path, content):
    file = tmp_path / "image.png"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: is not a readable image"):
        open_image(file)
    with pytest.raises(UserError, match=f"{tmp_path / 'other.png'}: no such file"):
        open_label(tmp_path / "other.png")


def test_written_labels_are_read_again_and_show_the_classes_colours(tmp_path):
    space = load_label_space("camvid11")
    labels = np.array([[0, 10, 255], [3, 3, 7]], np.uint8)
    file = tmp_path / "label.png"
    write_labels(file, labels, space)
    assert np.array_equal(open_label(file), labels)
    with Image.open(file) as image:
        assert image.mode == "P"
        colors = np.asarray(image.convert("RGB"))
    assert colors[0, 0].tolist() == list(space.colors[0])
    assert colors[0, 2].tolist() == [0, 0, 0]
    flat = colors.reshape(-1, 3).tolist()
    assert flat == [[0] * 3 if i == 255 else [*space.colors[i]] for i in labels.flat]


def test_bytes_to_unit_and_back_are_the_same():
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    unit = to_unit(values)
    assert unit.dtype == torch.float32 and unit.min() == 0 and unit.max() == 1
    assert np.array_equal(to_bytes(unit[0]), values[0].permute(1, 2, 0).numpy())
    assert values[0, 0, 15, 15] == 255  # untouched


def test_bytes_are_rounded_and_clamped():
    image = torch.tensor([-0.1, 0.4999 / 255, 0.5001 / 255, 1.7]).view(1, 2, 2).expand(3, 2, 2)
    assert to_bytes(image)[..., 0].tolist() == [[0, 0], [1, 255]]


def test_to_tensor_is_channels_first():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert torch.equal(
        to_tensor(Image.fromarray(pixels)), torch.from_numpy(pixels).permute(2, 0, 1)
    )
