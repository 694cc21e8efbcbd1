"""The stage that renders street scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bdl.runtime.estimate import seconds_of
from bdl.runtime.metrics import Metrics
from bdl.runtime.run import Run
from bdl.runtime.stage import Stage

# Scenes of different roles never coincide: each role counts from its own first seed. The labelled
# ones of the target are the target's first.
_FIRST_SCENE = {
    "source": 0,
    "target": 1_000_000,
    "target_labelled": 1_000_000,
    "validation": 2_000_000,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class RenderedStreets(Stage):
    """The demo's images of one role, and, but for the target, their label maps.

    Args:
        role: "source", "target", "target_labelled" or "validation".
        scenes: How many to render.
        size: Width and height in pixels.
        appearance: "synthetic" or "real".
    """

    kind: ClassVar[str] = "render"
    unit: ClassVar[str] = "scenes"

    role: str
    scenes: int
    size: tuple[int, int]
    appearance: str

    @property
    def name(self) -> str:
        return f"data/{self.role}"

    @property
    def cost(self) -> str:
        return self.name

    @property
    def work(self) -> int:
        return self.scenes

    def files(self) -> Sequence[str]:
        folders = ["images"] if self.role == "target" else ["images", "labels"]
        return [f"{folder}/{number:05d}.png" for folder in folders for number in range(self.scenes)]

    def trial(self, run: Run) -> float | None:
        from bdl.domains.streets.scene import render_street

        return seconds_of(lambda: render_street(0, self.size, self.appearance), run.fabric.device)

    def make(self, run: Run, folder: Path) -> Metrics:
        from bdl.domains.streets.render import render_streets

        if run.is_main:
            render_streets(run, folder, self, _FIRST_SCENE[self.role])
        return Metrics()
