"""One rule of what may be used of a data set: a check lists what it finds, a run goes by it.

Headers and the ends of files are read, so that tens of thousands of files take seconds. Where
samples that cannot be used are left out, all files are decoded once as well, so that no training
meets one of them in its middle; the index keeps what was found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bdl.domains.datasets import Sample, leave_out, list_samples, log_passed
from bdl.domains.exports import advice_on_colors
from bdl.domains.images import STORED, UPRIGHT
from bdl.domains.index import Index, Look
from bdl.runtime.config import DomainConfig
from bdl.runtime.console import log
from bdl.runtime.errors import UserError

SKIP = "skip"


@dataclass(frozen=True)
class Inspection:
    """What of a data set may be used, and how.

    Args:
        samples: The samples that may.
        flaws: One line about each that may not.
        orientation: How all its images are read, "upright" or "stored": as stored only
            where upright no label map of an image that was held sideways fits; then who drew them
            saw the images so.
        transparent: Number of images that may have transparent pixels.
        sizes: Width and height of each usable sample's image, as it is read.
        turned: Number of images that were not held upright.
    """

    samples: list[Sample]
    flaws: list[str]
    orientation: str = UPRIGHT
    transparent: int = 0
    sizes: Sequence[tuple[int, int]] = ()
    turned: int = 0

    @property
    def count(self) -> int:
        """Number of samples, usable or not."""
        return len(self.samples) + len(self.flaws)


def inspect_domain(
    domain: DomainConfig,
    key: str,
    labelled: bool,
    index: Index,
    pixels: bool = False,
    limit: int | None = None,
    by_color: bool = False,
) -> Inspection:
    """Look at the files of a data set and tell which samples may be used.

    Args:
        domain: The data set's section of the configuration.
        key: Its name in messages, e.g. "data.source".
        labelled: Whether samples need labels.
        index: What is known of files, and keeps what is found.
        pixels: Whether all files are decoded, also where `on_error` is not skip.
        limit: Only so many samples, the first ones, are looked at.
        by_color: Whether label maps show classes by colours.

    Raises:
        UserError: If the data set as a whole is wrong: no folder, no images, names twice, images
            that cannot be read all in one way.
    """
    listing = list_samples(domain, key, labelled)
    log_passed(listing, key)
    decode = pixels or domain.on_error == SKIP
    inspected = inspect_samples(listing.samples[:limit], index, key, decode, by_color, inside=True)
    return replace(inspected, flaws=[*listing.flaws, *inspected.flaws])


def inspect_samples(
    samples: Sequence[Sample],
    index: Index | None = None,
    key: str = "",
    pixels: bool = False,
    by_color: bool = False,
    inside: bool = False,
) -> Inspection:
    """The same of samples that are listed already; with `pixels` all files are decoded, with
    `inside` it is told whether they can be.

    Raises UserError if some images fit their label maps only upright and others only as stored.
    """
    index = index or Index(None)
    images = index.headers([sample.image for sample in samples], key)
    orientation, flaws = _flaws(samples, images, index, key, by_color)
    if orientation == STORED:
        log.info(
            "%s: images are read as stored, not as their EXIF orientation says: upright they do "
            "not fit their label maps",
            key,
        )
    if inside:
        _look_inside(samples, flaws, index, key)
    if pixels:
        whole = [i for i, line in enumerate(flaws) if line is None]
        decoded = index.decoded([samples[i].image for i in whole], key)
        for i, look in zip(whole, decoded, strict=True):
            flaws[i] = look.error or None
        whole = [i for i in whole if flaws[i] is None and samples[i].label is not None]
        labels = [label for i in whole if (label := samples[i].label) is not None]
        for i, ids in zip(whole, index.ids(labels, key, by_color), strict=True):
            flaws[i] = ids.error or None
    headers = [image.header for image in images if image.header is not None]
    usable = [i for i, line in enumerate(flaws) if line is None]
    return Inspection(
        samples=[samples[i] for i in usable],
        flaws=[line for line in flaws if line is not None],
        orientation=orientation,
        transparent=sum(header.transparent for header in headers),
        sizes=[header.size(orientation) for i in usable if (header := images[i].header)],
        turned=sum(header.orientation != 1 for header in headers),
    )


def _look_inside(
    samples: Sequence[Sample], flaws: list[str | None], index: Index, key: str
) -> None:
    """Add to the samples' `flaws` those of files that are damaged behind their headers."""
    whole = [i for i, line in enumerate(flaws) if line is None]
    files = {i: [file for file in (samples[i].image, samples[i].label) if file] for i in whole}
    every = [file for i in whole for file in files[i]]
    damaged = dict(zip(every, index.damages(every, key), strict=True))
    for i in whole:
        flaws[i] = next((line for file in files[i] if (line := damaged[file])), None)


def usable_samples(inspection: Inspection, on_error: str, key: str) -> list[Sample]:
    """The samples that may be used.

    Raises:
        UserError: For the first that may not, unless `on_error` is "skip" and others remain.
    """
    if inspection.flaws:
        count = len(inspection.flaws)
        leave_out(on_error, key, inspection.flaws[0], count, inspection.count)
    return inspection.samples


def _flaws(
    samples: Sequence[Sample], images: Sequence[Look], index: Index, key: str, by_color: bool
) -> tuple[str, list[str | None]]:
    """How images are read, and what the headers say against each sample."""
    files = [sample.label for sample in samples if sample.label is not None]
    labels = iter(index.headers(files, f"labels of {key}") if files else [])
    looks = [
        (image, None if sample.label is None else next(labels))
        for sample, image in zip(samples, images, strict=True)
    ]
    orientation = _orientation(samples, looks)
    return orientation, [
        _flaw(sample, image, label, orientation, by_color)
        for sample, (image, label) in zip(samples, looks, strict=True)
    ]


def _flaw(
    sample: Sample, image: Look, label: Look | None, orientation: str, by_color: bool
) -> str | None:
    """Why a sample cannot be used, from the headers of its files; None if it can be."""
    if (flaw := image.image_flaw) or label is None:
        return flaw
    if flaw := label_flaw(label, by_color):
        return flaw
    assert image.header is not None and label.header is not None
    image_size, label_size = image.header.size(orientation), label.header.size()
    if same_frame(image_size, label_size):
        return None
    return (
        f"{sample.label}: is {label_size[0]}x{label_size[1]}, its image {sample.image} "
        f"{image_size[0]}x{image_size[1]}; they must show the same frame"
    )


def _orientation(samples: Sequence[Sample], looks: Sequence[tuple[Look, Look | None]]) -> str:
    only: dict[str, Sample] = {}  # the first image that fits its label map in one way alone
    for sample, (image, label) in zip(samples, looks, strict=True):
        if label is None or image.header is None or image.header.orientation == 1:
            continue
        if image.image_flaw or label.header is None:
            continue
        upright, stored = (
            same_frame(image.header.size(way), label.header.size()) for way in (UPRIGHT, STORED)
        )
        if upright != stored:
            only.setdefault(UPRIGHT if upright else STORED, sample)
    if len(only) == 2:
        raise UserError(
            f"{only[UPRIGHT].image}: fits its label map only upright, as its EXIF orientation "
            f"says, {only[STORED].image} only as stored; make the label maps of all images alike"
        )
    return next(iter(only), UPRIGHT)


def label_flaw(label: Look, by_color: bool = False) -> str | None:
    """Why a file is no label map, from its header, in a line; None if it is one."""
    if by_color:
        return label.colors_flaw
    flaw = label.label_flaw
    if flaw and label.header is not None and not label.header.colors_flaw:
        return f"{flaw.partition('; ')[0]}; {advice_on_colors(label.file)}"
    return flaw


def same_frame(image_size: tuple[int, int], label_size: tuple[int, int]) -> bool:
    """Whether an image and a label map, (width, height) each, can show the same frame.

    A label map may be stored at another resolution than its image, not in another shape; a pixel
    of rounding is allowed.
    """
    difference = abs(image_size[0] * label_size[1] - image_size[1] * label_size[0])
    return difference <= max(image_size[0] + label_size[0], image_size[1] + label_size[1])
