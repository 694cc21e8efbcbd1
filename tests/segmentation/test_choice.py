"""Which of a run's networks a command uses, and what it says of the choice."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.commands.parser import parse
from bdl.reports.records import Row
from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import write_json
from bdl.runtime.store import VERSION, Manifest
from bdl.runtime.values import plain
from bdl.segmentation.choice import Kept, best_of, choose, find_segmenter, kept_networks
from bdl.segmentation.stages import BEST, RESULT

LAST, FIRST = "k1/segmentation-1", "k1/segmentation-0"


def run_of(
    folder: Path, *rows: tuple[str, int, int, float | None, tuple[int, float] | None]
) -> Path:
    """A run's folder as far as the choice looks at it: rows with mIoU, and best states (step,
    mIoU)."""
    for stage, _, _, _, best in rows:
        place = folder / stage
        place.mkdir(parents=True)
        (place / RESULT).touch()
        said = None if best is None else {"step": best[0], "miou": best[1]}
        write_json(place / "metrics.json", {"best": said})
        if best is not None:
            (place / BEST).touch()
    content = [Row(s, k, i, miou, {}, {}, 1.0).as_json() for s, k, i, miou, _ in rows]
    write_json(folder / "results.json", content)
    return folder


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "handlers", [])
    caplog.set_level("INFO", log.name)
    return caplog


def test_each_word_means_its_network(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        ("source-only", 0, 0, 0.30, None),
        (FIRST, 1, 0, 0.42, (60, 0.44)),
        (LAST, 1, 1, 0.41, (20, 0.43)),
    )
    assert find_segmenter(run) == find_segmenter(run, "last") == run / LAST / RESULT
    assert find_segmenter(run, "best") == run / FIRST / BEST
    for stage in ("source-only", FIRST, LAST):
        assert find_segmenter(run, stage) == run / stage / RESULT
    (run / FIRST / BEST).unlink()  # nothing is promised that is not there
    assert find_segmenter(run, "best") == run / LAST / BEST


def test_a_folder_of_runs_is_none(tmp_path: Path) -> None:
    """Of the runs in it only networks of source only lie where a run's do."""
    run = run_of(tmp_path / "runs/a", ("source-only", 0, 0, 0.30, None), (LAST, 1, 1, 0.4, None))
    for name, k, i in (("source-only", 0, 0), (LAST, 1, 1)):
        record = Manifest(version=VERSION, stage=name, kind="segment", k=k, i=i)
        write_json(run / name / "manifest.json", plain(record))
    with pytest.raises(UserError, match=r"holds no finished .*; give a run's folder, such as .*a$"):
        find_segmenter(run.parent)
    assert find_segmenter(run / "k1") == run / LAST / RESULT  # a round


def test_it_is_said_what_was_taken_and_why(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    run = run_of(tmp_path, (FIRST, 1, 0, 0.45, (60, 0.46)), (LAST, 1, 1, 0.44, None))
    find_segmenter(run, "best")
    assert said.messages == [
        f"{run}: takes {FIRST} after step 60, M(1,0), mIoU 46.0 % (chosen on the validation labels)"
    ]
    said.clear()
    find_segmenter(run)
    assert said.messages[0] == f"{run}: takes {LAST}, M(1,1), mIoU 44.0 %"
    assert said.messages[1].startswith(f"{FIRST} after step 60, M(1,0), mIoU 46.0 % is better")
    assert "--network best" in said.messages[1]


def test_labels_behind_a_network_are_said(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """As results.json has them; before there is one, as the training measured them."""
    run = run_of(tmp_path, ("source-only", 0, 0, 0.3, None), (LAST, 1, 1, 0.44, (5, 0.5)))
    rows = [Row("source-only", 0, 0, 0.3, {}, {}, 1.0)]
    rows.append(Row(LAST, 1, 1, 0.44, {}, {}, 1.0, target_labels=1))
    write_json(run / "results.json", [row.as_json() for row in rows])
    for network in ("source-only", LAST, "best"):
        find_segmenter(run, network)
    lines = [message for message in said.messages if "takes" in message]
    assert ["with 1 target label" in line for line in lines] == [False, True, True]
    (run / "results.json").unlink()
    for name, number in (("source-only", 0), (LAST, 7)):
        write_json(run / name / "metrics.json", {"target_labels": number})
        record = Manifest(version=VERSION, stage=name, kind="segment", k=number, files=[RESULT])
        write_json(run / name / "manifest.json", plain(record))
    assert [str(one).endswith("with 7 target labels") for one in kept_networks(run)] == [
        False,
        True,
    ]


def test_a_little_better_is_no_hint(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    run = run_of(tmp_path, (FIRST, 1, 0, 0.449, None), (LAST, 1, 1, 0.44, None))
    find_segmenter(run)
    assert len(said.messages) == 1


def test_what_cannot_be_chosen_is_an_error_that_says_what_can(tmp_path: Path) -> None:
    run = run_of(tmp_path, (FIRST, 1, 0, None, None), (LAST, 1, 1, None, None))
    assert find_segmenter(run) == run / LAST / RESULT
    with pytest.raises(UserError, match=f"no network of the run was measured.*{FIRST}, {LAST}"):
        find_segmenter(run, "best")
    with pytest.raises(UserError, match=f"--network k2/segmentation-0.*one of {FIRST}, {LAST}"):
        find_segmenter(run, "k2/segmentation-0")
    for single in (run / FIRST, run / FIRST / RESULT):
        assert find_segmenter(single) == run / FIRST / RESULT
        with pytest.raises(UserError, match="give the run's folder"):
            find_segmenter(single, "best")


scores = st.one_of(st.none(), st.floats(0, 1))


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=6))
def test_the_best_is_the_highest_of_all(measured: list[tuple[float | None, float | None]]) -> None:
    kept: list[Kept] = []
    for i, (end, state) in enumerate(measured):
        kept.append(Kept(f"k1/segmentation-{i}", 1, i, Path(), end))
        if state is not None:
            kept.append(Kept(f"k1/segmentation-{i}", 1, i, Path(), state, step=3))
    values = [value for value in itertools.chain(*measured) if value is not None]
    best = best_of(kept)
    assert (best.miou if best else None) == max(values, default=None)
    assert choose(kept, "last").i == len(measured) - 1
    if best is not None and best.step is not None:  # no end is as good
        assert all((end or 0.0) < best.miou or end is None for end, _ in measured)  # type: ignore[operator]


def test_a_run_without_best_states_has_its_ends(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("source-only", 0, 0, 0.5, None), (FIRST, 1, 0, 0.4, None))
    (run / FIRST / "metrics.json").unlink()
    assert [(one.stage, one.step) for one in kept_networks(run)] == [
        ("source-only", None),
        (FIRST, None),
    ]


def test_both_commands_take_the_words() -> None:
    for words in (["predict", "--images", "a", "--out", "b"], ["export-network", "--out", "b.pt2"]):
        options = parse([*words, "--checkpoint", "run"])
        assert (options.network, options.own_network) == ("last", None)
        options = parse([*words, "--checkpoint", "run", "--network", LAST, "--own-network", "n"])
        assert (options.network, options.own_network) == (LAST, "n")
