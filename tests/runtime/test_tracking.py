"""TensorBoard logs: groups of values, what a restart voids."""

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdl.runtime.tracking import Tracker


def test_values_are_grouped_by_what_they_are(tmp_path: Path) -> None:
    with Tracker(tmp_path / "k1-02-segmentation-0") as tracker:
        tracker.scalars({"step": 10, "source": 0.5, "lr": 0.25})
        tracker.scalars({"step": 20, "source": 0.25, "IoU/road": 0.75})
        tracker.image("validation/a", np.zeros((2, 3, 3), np.uint8), 1)
    log = EventAccumulator(str(tmp_path / "k1-02-segmentation-0")).Reload()
    assert set(log.Tags()["scalars"]) == {"loss/source", "learning rate", "IoU/road"}
    assert [(e.step, e.value) for e in log.Scalars("loss/source")] == [(10, 0.5), (20, 0.25)]
    assert log.Tags()["images"] == ["validation/a"]


@pytest.mark.parametrize("viewed", [False, True])
def test_what_a_killed_process_logged_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, viewed: bool
) -> None:
    """It logged up to step 30; the next goes on from a state after step 15, with the row that was
    closed before it. The old files may have to stay, `viewed` by another program."""
    place = tmp_path / "k0-00-source-only"
    with Tracker(place) as tracker:
        for step in (10, 20, 30):
            tracker.scalars({"step": step, "source": 1.0})
    (file,) = place.iterdir()
    file.rename(place / "events.out.tfevents.0.before")  # names sort by time, but for this second
    if viewed:

        def held(_: Path) -> None:
            raise PermissionError(13, "in use")

        monkeypatch.setattr(Path, "unlink", held)
    with Tracker(place) as tracker:
        tracker.begin([{"step": 10, "source": 1.0}])
        tracker.scalars({"step": 20, "source": 2.0})
    assert len(list(place.iterdir())) == (2 if viewed else 1)
    log = EventAccumulator(str(place)).Reload()
    assert [(e.step, e.value) for e in log.Scalars("loss/source")] == [(10, 1.0), (20, 2.0)]


def test_only_logs_are_void(tmp_path: Path) -> None:
    """The folder may lie in one of the user's."""
    (tmp_path / "log/inner").mkdir(parents=True)
    mine = [tmp_path / "log/thesis.doc", tmp_path / "log/inner/events.out.tfevents.1.mine"]
    for file in mine:
        file.write_text("mine")
    with Tracker(tmp_path / "log"):
        pass
    assert all(file.read_text() == "mine" for file in mine)


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.image("target/stra\udcdfe", np.zeros((2, 3, 3), np.uint8))
        tracker.text("configuration", "root: stra\udcdfe")
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == [r"target/stra\udcdfe"]


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracker(None) as tracker:
        tracker.begin([{"step": 1, "source": 1.0}])
        tracker.image("validation/a", np.zeros((2, 3, 3), np.uint8))
        tracker.text("configuration", "seed: 0")
    assert not list(tmp_path.iterdir())
