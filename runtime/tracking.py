"""TensorBoard: a log for each training, and one for the whole loop."""

from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter

_LOGS = "events.out.tfevents.*"
WHOLE_LOOP = "all-networks"  # the log of the whole loop: a point for each network


class Tracker:
    """Scalars and images of one log.

    What an earlier process logged there goes: it may reach beyond the state that this one goes on
    from. `begin` writes again what still counts.

    Args:
        folder: Of the log alone; None: nothing is written, as on all processes but the main one.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: SummaryWriter | None = None
        if folder is not None:
            for log in folder.glob(_LOGS):
                with suppress(OSError):  # Windows keeps what a viewer has open
                    log.unlink()
            # A viewer that is open, or that finds the old files, is told that they are void.
            self._writer = SummaryWriter(str(folder), purge_step=0)

    def begin(self, rows: list[dict[str, float]]) -> None:
        """Write again the rows that were closed before this process began."""
        for row in rows:
            self.scalars(row)

    def scalars(self, row: dict[str, float]) -> None:
        """A row of curves: "step", "lr", and loss terms, or values whose names give their group
        ("IoU/road")."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step":
                grouped = {"lr": "learning rate"}.get(name, name if "/" in name else f"loss/{name}")
                self._writer.add_scalar(grouped, value, int(row["step"]))

    def image(self, name: str, image: np.ndarray, step: int = 0) -> None:
        """H x W x 3 uint8."""
        if self._writer is not None:
            # Names of files that are no UTF-8 appear as escapes.
            shown = name.encode("utf-8", "backslashreplace").decode()
            self._writer.add_image(shown, image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Markdown."""
        if self._writer is not None:
            self._writer.add_text(name, text.encode("utf-8", "backslashreplace").decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
