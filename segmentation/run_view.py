"""At which size a run's networks look at images: as its evaluations look at validation images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdl.domains.inspection import same_frame
from bdl.domains.views import View
from bdl.runtime.config import load_config
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import CONFIGURATION, RESULTS, is_run
from bdl.runtime.store import VERSION, read_manifest, read_metrics
from bdl.segmentation.metrics import EvaluationMetrics

_EVALUATION = "evaluation"  # beside a network's file
_DEEPEST = 3  # a network's file lies so many folders below its run's, at most
_ROLES = ("validation", "target", "source")


@dataclass(frozen=True)
class RunView:
    """How images are resized for a network.

    Args:
        size: Width and height that images are resized to, in pixels; None: there is no such size.
        width: In its place, the width; each image keeps its shape.
        stored: Width and height of the validation images as they are stored; empty if not known.
    """

    size: tuple[int, int] | None = None
    width: int | None = None
    stored: tuple[tuple[int, int], ...] = ()

    def full_size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Width and height for the network of a photo of that width and height.

        A photo in the shape of the validation images is resized as they are, even where `size` is
        of another shape. A photo of another shape keeps it, at the same width.
        """
        width = self.width
        if self.size is not None:
            if any(same_frame(photo, stored) for stored in self.stored):
                return self.size
            width = self.size[0]
        return View(width=width).full_size(photo)


def run_view(file: Path) -> RunView:
    """How the run of a network looks at validation images; without any, at the target's, else at
    the source's.

    The evaluation beside the network's file tells, else the run's configuration, else the record
    of the network's training. Of a file by itself nothing is known.
    """
    folder = file.absolute().parent
    evaluation = read_manifest(folder / _EVALUATION)
    if evaluation is not None:
        own = evaluation.version == VERSION
        metrics = read_metrics(folder / _EVALUATION, EvaluationMetrics) if own else None
        sizes = metrics.sizes if isinstance(metrics, EvaluationMetrics) else []
        stored = tuple((width, height) for width, height in sizes)
        view = _view_in(evaluation.settings, ("validation",), stored)
        if view is not None:
            return view
    record = read_manifest(folder)
    if record is None:  # a file that was copied into a run's folder is not the run's
        return RunView()
    run = run_of(file)
    if run is not None:
        try:
            data = load_config(run / CONFIGURATION).data
        except UserError:  # of another version; the record of the training is readable
            pass
        else:
            role = next(role for role in _ROLES if getattr(data, role) is not None)
            view = _view_in({role: vars(getattr(data, role))}, (role,))
            if view is not None:
                return view
    return _view_in(record.settings, ("target", "source")) or RunView()


def run_of(path: Path) -> Path | None:
    """The folder of the run that `path`, a file or a folder in it, belongs to; None if none."""
    here = path.absolute()
    for folder in (here, *here.parents[:_DEEPEST]):
        written = is_run(folder) or (folder / RESULTS).is_file()
        if written and (folder / CONFIGURATION).is_file():
            return folder
    return None


def _view_in(
    settings: dict[str, Any],
    roles: tuple[str, ...],
    stored: tuple[tuple[int, int], ...] = (),
) -> RunView | None:
    """The view of the first of the roles that the settings have; None if they have none."""
    for role in roles:
        images = settings.get(f"data.{role}", settings.get(role))  # bdl 0.1 left out "data."
        if images is not None:
            size = images["size"]
            return RunView(size and (size[0], size[1]), images.get("width"), stored)
    return None
