"""How training samples are cut from their images, by the settings alone."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class View:
    """How a training sample is cut from its image.

    The image is resized to `size` (width, height), or to `width` keeping its shape, or left as
    stored; then zoomed by a factor drawn from `scale`; then `crop` (width, height) is cut at a
    random place; then, if `flip`, it is mirrored every second time. Pixels are resampled once,
    bicubic for images, nearest for labels: where nothing zooms, the whole image is resized, and the
    cut takes its pixels; else resizing, zoom and cut are one.
    """

    size: tuple[int, int] | None = None
    width: int | None = None
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False

    def full_size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Width and height before zoom and cut, of an image stored as (width, height)."""
        if self.size is not None:
            return self.size
        if self.width is not None:
            return self.width, max(1, round(stored[1] * self.width / stored[0]))
        return stored

    def scaled(self, factor: float) -> "View":
        """The same at `factor` times its size or width; as stored where it has neither."""
        size = self.size and (round(factor * self.size[0]), round(factor * self.size[1]))
        return replace(self, size=size, width=self.width and round(factor * self.width))

    @property
    def zooms(self) -> bool:
        return tuple(self.scale) != (1.0, 1.0)
