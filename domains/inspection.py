"""Whether a data set's files can be used, told before hours are spent on the first of them.

Only headers are read, so that tens of thousands of files take seconds.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from domains.datasets import Sample, leave_out
from domains.images import check_image, check_label
from runtime.errors import UserError

_READERS = 8  # threads: on network disks opening a file is mostly waiting


def flaw(sample: Sample) -> str | None:
    """Why a sample cannot be used, in one line that names the file; None if it can be.

    Unreadable and missing files, colour images in the place of labels, and a label map that
    shows another frame than its image.
    """
    try:
        image_size = check_image(sample.image)
        if sample.label is None:
            return None
        label_size = check_label(sample.label)
    except UserError as error:
        return str(error)
    if not same_frame(image_size, label_size):
        return (
            f"{sample.label}: is {label_size[0]}x{label_size[1]}, its image {sample.image} "
            f"{image_size[0]}x{image_size[1]}; they must show the same frame"
        )
    return None


def find_flaws(
    samples: list[Sample], advance: Callable[[], None] = lambda: None
) -> Iterator[tuple[Sample, str]]:
    """The samples that cannot be used, each with its `flaw`, in their order.

    `advance` is called after every sample.
    """
    with ThreadPoolExecutor(_READERS) as readers:
        for sample, problem in zip(samples, readers.map(flaw, samples), strict=True):
            advance()
            if problem is not None:
                yield sample, problem


def usable(
    samples: list[Sample], on_error: str, key: str, advance: Callable[[], None] = lambda: None
) -> list[Sample]:
    """The samples without a flaw; `key` names their configuration section, e.g. "data.source".

    Raises UserError for the first flaw unless `on_error` is "skip", which leaves flawed samples
    out and logs their count.
    """
    flaws = list(find_flaws(samples, advance))
    if flaws:
        leave_out(on_error, key, flaws[0][1], len(flaws), len(samples))
    flawed = {sample for sample, _ in flaws}
    return [sample for sample in samples if sample not in flawed]


def same_frame(image_size: tuple[int, int], label_size: tuple[int, int]) -> bool:
    """Whether an image and a label map, (width, height) each, can show the same frame.

    A label map may be stored at another resolution than its image, not in another shape; a pixel
    of rounding is allowed.
    """
    difference = abs(image_size[0] * label_size[1] - image_size[1] * label_size[0])
    return difference <= max(image_size[0] + label_size[0], image_size[1] + label_size[1])
