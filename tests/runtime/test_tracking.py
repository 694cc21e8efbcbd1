"""TensorBoard logs: names in the loop's order, groups of values, what a restart voids."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runtime.tracking import Tracker, log_name


def test_logs_sort_as_the_loop_runs() -> None:
    stages = ["source-only"]
    for k in (1, 2):
        stages += [f"k{k}/translator", f"k{k}/translated", f"k{k}/segmentation-0"]
        for i in range(1, 6):
            stages += [f"k{k}/pseudo-labels-{i}", f"k{k}/segmentation-{i}"]
    names = [log_name(stage) for stage in stages]
    assert names == sorted(names) and len(set(names)) == len(stages)
    assert names[:4] == [
        "k0-00-source-only",
        "k1-00-translator",
        "k1-01-translated",
        "k1-02-segmentation-0",
    ]


def test_values_are_grouped_by_what_they_are(tmp_path: Path) -> None:
    with Tracker(tmp_path, "k1/segmentation-0", writing=True) as tracker:
        tracker.scalars({"step": 10, "source": 0.5, "lr": 0.25})
        tracker.scalars({"step": 20, "source": 0.25, "IoU/road": 0.75})
        tracker.image("validation/a", np.zeros((2, 3, 3), np.uint8), 1)
    log = EventAccumulator(str(tmp_path / "k1-02-segmentation-0")).Reload()
    assert set(log.Tags()["scalars"]) == {"loss/source", "learning rate", "IoU/road"}
    assert [(e.step, e.value) for e in log.Scalars("loss/source")] == [(10, 0.5), (20, 0.25)]
    assert log.Tags()["images"] == ["validation/a"]


def test_steps_that_are_run_again_replace_what_was_logged(tmp_path: Path) -> None:
    """A process killed after step 30 goes on from its checkpoint at step 10."""
    with Tracker(tmp_path, "source-only", writing=True) as tracker:
        for step in (10, 20, 30):
            tracker.scalars({"step": step, "source": 1.0})
    with Tracker(tmp_path, "source-only", writing=True) as tracker:
        tracker.scalars({"step": 20, "source": 2.0})
    log = EventAccumulator(str(tmp_path / "k0-00-source-only")).Reload()
    assert [(e.step, e.value) for e in log.Scalars("loss/source")] == [(10, 1.0), (20, 2.0)]


@pytest.mark.parametrize("writing", [True, False])
def test_nothing_is_written_before_there_is_something(tmp_path: Path, writing: bool) -> None:
    with Tracker(tmp_path, "source-only", writing=writing) as tracker:
        if not writing:
            tracker.scalars({"step": 1, "source": 1.0})
            tracker.text("configuration", "seed: 0")
    assert not list(tmp_path.iterdir())
