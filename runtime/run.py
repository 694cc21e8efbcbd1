"""What a stage is made with and its result does not depend on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from bdl.runtime.config import Config
    from bdl.runtime.console import Console
    from bdl.runtime.live import LivePage
    from bdl.runtime.tracking import Tracker


def _no_tracker() -> Tracker:
    from bdl.runtime.tracking import Tracker

    return Tracker(None)


@dataclass(frozen=True)
class Run:
    """How a run works: devices, what it says and logs, what it keeps to go on from.

    Args:
        folder: The run's folder; a stage lies in it under its name.
        fabric: Device, precision and processes, launched.
        console: Messages and progress.
        title: Name of the stage that is being made, for messages.
        begun: When this process began with the stage, by time.monotonic.
        tracker: Opens the stage's TensorBoard log, to be closed after use.
        page: Shows how its training goes on; None on all processes but the main one, or if nobody
            looks.
        workers: Processes that load images; 0 loads in the training process.
        log_every: Steps between rows of curves.
        checkpoint_every: Steps between states to resume from.
        keep_checkpoints: How many of the latest states stay while a stage trains.
        compile: Whether blocks of networks that train are compiled.
        replay: Whether steps of trainings are recorded and replayed.
        gradient_checkpointing: Whether the translator's activations are computed again for the
            backward pass instead of kept.
    """

    folder: Path
    fabric: Fabric
    console: Console
    title: str = ""
    begun: float = field(default_factory=time.monotonic)
    tracker: Callable[[], Tracker] = _no_tracker
    page: LivePage | None = None
    workers: int = 0
    log_every: int = 20
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    compile: bool = False
    replay: bool = False
    gradient_checkpointing: bool = False

    @classmethod
    def of(cls, config: Config, folder: Path, fabric: Fabric, console: Console) -> Run:
        """The run that a configuration asks for."""
        return cls(
            folder=folder,
            fabric=fabric,
            console=console,
            workers=config.data.workers,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            keep_checkpoints=config.keep_checkpoints,
            # auto: neither, before they are measured on a GPU
            compile=config.compile == "true",
            replay=config.replay == "true",
            gradient_checkpointing=config.translation.gradient_checkpointing,
        )

    def named(
        self,
        title: str,
        tracker: Callable[[], Tracker] = _no_tracker,
        page: LivePage | None = None,
    ) -> Run:
        """The same for another stage, which begins now."""
        begun = time.monotonic()
        return replace(self, title=title, begun=begun, tracker=tracker, page=page)

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all processes share."""
        return self.fabric.is_global_zero
