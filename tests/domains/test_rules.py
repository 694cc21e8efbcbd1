"""The rules by which init-config decides: right for data of any kind, and blind to the machine."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bdl.domains.looks import Look, Looks, color_distance, look_at_images
from bdl.domains.rules import (
    COLORFUL,
    FADED,
    FAR_COLORS,
    FLAT,
    LARGE,
    SMALL,
    Choice,
    choose_colors,
    choose_cut,
    choose_loop,
    choose_segmentation,
    choose_steps,
    choose_translation,
    choose_translator_crop,
    choose_translator_epoch,
    is_faded,
    is_far,
    is_flat,
    scaled,
)
from bdl.runtime.config import Config
from bdl.runtime.config_checks import faults
from bdl.runtime.config_keys import set_value

SIDES = st.integers(16, 3000)
SIZES = st.tuples(SIDES, SIDES)
SCALES = st.sampled_from([SMALL, LARGE])
SHARES = st.floats(0, 1)


@st.composite
def problems(draw) -> Looks:
    counts = {role: draw(st.integers(1, 30_000)) for role in ("source", "target", "validation")}
    levels = st.tuples(st.floats(0, 180), st.floats(0, 180))
    return Looks(counts, draw(st.floats(0, 255)), (draw(SHARES), draw(SHARES)), draw(levels))


def settings(choices: list[Choice]) -> dict:
    return {choice.key: choice.value for choice in choices}


@given(SIZES, st.sampled_from([480, 1024]))
def test_sizes_are_no_longer_than_asked_for_and_keep_the_shape(size, limit):
    new = scaled(size, limit)
    factor = min(1, limit / max(size))
    for side, stored in zip(new, size, strict=True):
        assert side % 8 == 0
        assert abs(side - factor * stored) <= 4 or (side == 8 and factor * stored < 8)


@given(SIZES, SIZES, st.sampled_from([SMALL.crop_area, LARGE.crop_area]))
def test_a_cut_fits_into_all_images_at_every_zoom(source, target, area):
    cut = choose_cut({"source": source, "target": target}, area)
    assert cut.zoom[0] <= cut.zoom[1]
    assert cut.crop[0] * cut.crop[1] <= area
    for size in (source, target):
        for pixels, side in zip(cut.crop, size, strict=True):
            assert 1 <= pixels <= round(cut.zoom[0] * side)


@given(SIZES, SIZES, SCALES)
def test_a_translators_crop_fits_or_is_refused(source, target, scale):
    sizes = {"source": source, "target": target}
    width = min(source[0], target[0])
    try:
        crop = choose_translator_crop(sizes, width, scale)
    except ValueError:
        assert min(width, *(width * size[1] // size[0] for size in (source, target))) < 24
        return
    assert crop % 4 == 0 and 24 <= crop <= min(width, scale.translator_crop)
    for size in (source, target):
        assert crop <= round(size[1] * width / size[0])


@given(problems(), SIZES, SIZES, SCALES, st.sampled_from(["compact", "timm:some"]))
def test_whatever_the_data_the_settings_go_together(problem, source, target, scale, network):
    """No check of the configuration objects to them."""
    sizes = {"source": scaled(source, scale.side), "target": scaled(target, scale.side)}
    width = min(sizes["source"][0], sizes["target"][0])
    try:
        crop = choose_translator_crop(sizes, width, scale)
    except ValueError:
        return  # images too small, which is said
    config = Config()
    config.data.source.size, config.data.target.size = sizes["source"], sizes["target"]
    cut = choose_cut(sizes, scale.crop_area)
    steps, epoch = choose_steps(problem, scale), choose_translator_epoch(problem, scale)
    choices = [
        *choose_loop(problem),
        *choose_translation(problem, scale, crop, width, epoch),
        *choose_segmentation(problem, scale, network, steps, cut),
    ]
    for key, value in settings(choices).items():
        if isinstance(value, dict) and key != "segmentation.options":
            for name, item in value.items():
                set_value(config, f"{key}.{name}", tuple(item) if isinstance(item, list) else item)
        else:
            set_value(config, key, tuple(value) if isinstance(value, list) else value)
    assert faults(config) == []
    assert all(choice.reason.count("\n") == 0 for choice in choices)


def test_far_colours_decide():
    near, far = (Looks({}, FAR_COLORS + by, (0.1, 0.1), (9, 9)) for by in (-0.1, 0.0))
    assert not is_far(near) and is_far(far)
    changes = [list(choose_colors(problem).values()) for problem in (near, far)]
    assert all(less < more for less, more in zip(*changes, strict=True))


def test_a_flat_source_teaches_no_colours_and_its_network_is_not_gone_on_with():
    photos, flat = (Looks({}, FAR_COLORS, share, (9, 9)) for share in ((0.2, 0.2), (0.7, 0.2)))
    assert choose_colors(flat)["hue"] > choose_colors(photos)["hue"]
    assert settings(choose_loop(photos))["init"] == "previous"
    assert settings(choose_loop(flat))["init"] == "adapted"


@pytest.mark.parametrize(
    ("flat", "expected"), [((0.7, 0.2), True), ((0.7, 0.6), False), ((0.2, 0.0), False)]
)
def test_flat_sources_are_told_from_flat_problems(flat, expected):
    assert is_flat(Looks({}, 0, flat, (9, 9))) == expected


@pytest.mark.parametrize(
    ("levels", "expected"), [((15, 3), True), ((3, 15), False), ((15, 9), False), ((3, 1), False)]
)
def test_a_target_that_is_nearly_grey_teaches_no_colours(levels, expected):
    problem = Looks({}, FAR_COLORS, (0.1, 0.1), levels)
    assert is_faded(problem) == expected
    assert (choose_colors(problem)["hue"] == 0.5) == expected


def test_the_page_has_the_rules_numbers():
    page = (Path(__file__).parents[2] / "docs/init_config.md").read_text(encoding="utf-8")
    numbers = [f"{SMALL.side} pixels", f"{SMALL.crop_area:,} pixels", f"| {SMALL.steps[0]} |"]
    numbers += [f"{SMALL.translator_steps[0]} steps", f"by {FAR_COLORS:.0f} levels"]
    numbers += [f"{100 * FLAT:.0f} % of its pixels", f"{LARGE.side:,}"]
    numbers += [f"{COLORFUL:.0f} levels", f"{100 * FADED:.0f} % as far"]
    assert [number for number in numbers if number not in page] == []


def painted(folder, color, noise=0) -> list:
    folder.mkdir()
    random = np.random.default_rng(0)
    files = []
    for number in range(3):
        pixels = np.clip(np.array(color) + random.normal(0, noise, (40, 60, 3)), 0, 255)
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
    return files


def test_a_look_tells_colour_from_lightness_and_flat_from_noisy(tmp_path):
    grey, dark, red, noisy = (
        look_at_images(painted(tmp_path / name, color, noise))
        for name, color, noise in (
            ("grey", (200, 200, 200), 0),
            ("dark", (20, 20, 20), 0),
            ("red", (200, 20, 20), 0),
            ("noisy", (128, 128, 128), 30),
        )
    )
    assert color_distance(grey, dark) == 0
    # ITU-R BT.601: Cb and Cr of (200, 20, 20) are 128 - 0.1687 * 180 and 128 + 0.5 * 180.
    assert color_distance(grey, red) == pytest.approx(np.hypot(0.1687 * 180, 90), abs=1)
    assert grey.colorfulness == dark.colorfulness == 0
    assert red.colorfulness == pytest.approx(color_distance(grey, red), abs=1)
    assert grey.flat == red.flat == 1.0 and noisy.flat < 0.1


CHROMA = st.lists(st.floats(0, 255), min_size=202, max_size=202).map(
    lambda values: np.sort(np.reshape(values, (2, 101)), axis=1)
)


@given(CHROMA, CHROMA, st.floats(0, 20))
def test_the_distance_of_colours_is_one(first, second, shift):
    a, b = Look(first, 0), Look(second, 0)
    assert color_distance(a, a) == 0
    assert color_distance(a, b) == pytest.approx(color_distance(b, a))
    moved = Look(first + shift, 0)
    assert color_distance(a, moved) == pytest.approx(shift * np.sqrt(2), abs=1e-6)
