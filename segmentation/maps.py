"""Class probabilities of large photos, made a few rows at a time: many classes of many pixels would
not fit into memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_VALUES = 1 << 24  # of a block of rows, all classes and columns together


class Maps(ABC):
    """Probabilities, N x C x height x width.

    Attributes:
        count: N.
        classes: C.
        size: Height and width.
    """

    count: int
    classes: int
    size: tuple[int, int]

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """The rows from `start` on, without `stop`: N x C x rows x width."""

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows from above, a few at a time: which they are, and the probabilities there."""
        height, width = self.size
        step = max(1, _VALUES // (self.count * self.classes * width))
        for start in range(0, height, step):
            stop = min(height, start + step)
            yield slice(start, stop), self.rows(start, stop)


class Stored(Maps):
    """Probabilities that are there: N x C x h x w."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps
        self.count, self.classes = maps.shape[:2]
        self.size = (maps.shape[2], maps.shape[3])

    def rows(self, start: int, stop: int) -> Tensor:
        return self.maps[:, :, start:stop]


class Upsampled(Maps):
    """Others at another size (height, width), as `base.upsample` makes them, up to rounding."""

    def __init__(self, maps: Maps, size: tuple[int, int]) -> None:
        self.maps, self.size = maps, size
        self.count, self.classes = maps.count, maps.classes

    def rows(self, start: int, stop: int) -> Tensor:
        (height, _), (rows, columns) = self.size, self.maps.size
        step = (rows - 1) / max(1, height - 1)
        position = torch.arange(start, stop, dtype=torch.float64) * step
        above = position.long().clamp_max(max(0, rows - 2))
        first, last = int(above[0]), min(rows, int(above[-1]) + 2)
        given = self.maps.rows(first, last)
        above, weight = (above - first).to(given.device), (position - above).to(given)
        below = (above + 1).clamp_max(last - first - 1)
        lines = torch.lerp(given[:, :, above], given[:, :, below], weight[:, None])
        if columns == self.size[1]:
            return lines
        wanted = (stop - start, self.size[1])
        return F.interpolate(lines, wanted, mode="bilinear", align_corners=True)


class Mirrored(Maps):
    """Others from right to left."""

    def __init__(self, maps: Maps) -> None:
        self.maps, self.size = maps, maps.size
        self.count, self.classes = maps.count, maps.classes

    def rows(self, start: int, stop: int) -> Tensor:
        return self.maps.rows(start, stop).flip(-1)


class Mean(Maps):
    """The mean of several of one size, each of which covers a part of it or all.

    Args:
        parts: Each with the row and column where it begins.
        size: Height and width of the whole, every pixel of which is covered.
    """

    def __init__(self, parts: Sequence[tuple[int, int, Maps]], size: tuple[int, int]) -> None:
        self.parts, self.size = parts, size
        self.count, self.classes = parts[0][2].count, parts[0][2].classes

    def rows(self, start: int, stop: int) -> Tensor:
        total: Tensor | None = None
        covered = torch.zeros(stop - start, self.size[1])
        for top, left, maps in self.parts:
            first, last = max(start, top), min(stop, top + maps.size[0])
            if first >= last:
                continue
            scores = maps.rows(first - top, last - top)
            if total is None:
                total = scores.new_zeros(self.count, self.classes, stop - start, self.size[1])
            columns = slice(left, left + maps.size[1])
            total[:, :, first - start : last - start, columns] += scores
            covered[first - start : last - start, columns] += 1
        assert total is not None
        return total.div_(covered.to(total.device))
