"""Stages and their records: what is reused, what runs again and why, what a kill leaves."""

import json
from pathlib import Path

import pytest

from runtime.errors import UserError
from runtime.estimate import TimeLeft
from runtime.stages import (
    Stage,
    Stopwatch,
    begin,
    finish,
    forget,
    is_finished,
    make_plan,
    plan_sharing,
    read_manifest,
    read_metrics,
)


def stage(name: str, *inputs: Stage, kind: str = "make", work: int = 4, **settings) -> Stage:
    return Stage(name, kind, settings, inputs, lambda folder: {}, work, "steps")


def make(folder: Path, made: Stage, files: int = 1) -> None:
    begin(folder, made)
    for number in range(files):
        (folder / made.name / f"{number}.bin").write_bytes(b"data")
    finish(folder, made, {"score": 1}, 2.5, {"device": "cpu"})


def chain(**settings) -> list[Stage]:
    """a <- b <- c, and d beside them; b alone has settings."""
    a = stage("a")
    b = stage("b", a, **settings)
    c = stage("b/c", b)
    return [a, b, c, stage("d", a)]


@pytest.fixture
def finished(tmp_path) -> Path:
    for made in chain(rate=1, size=(4, 2)):
        make(tmp_path, made)
    return tmp_path


def reasons(folder: Path, stages: list[Stage], forced: str | None = None) -> dict[str, str]:
    plan = make_plan(folder, stages, forced)
    assert [entry.stage for entry in plan] == stages
    assert all(entry.run == bool(entry.reason) for entry in plan)
    return {entry.stage.name: entry.reason or "reused" for entry in plan}


# Fingerprints


def test_fingerprints_depend_on_kind_settings_and_inputs_alone():
    a = stage("a")
    first = stage("b", a, rate=1).fingerprint
    assert stage("other", stage("z"), rate=1, work=9).fingerprint == first
    different = [
        stage("b", a, rate=2),
        stage("b", a, rate=1, size=3),
        stage("b", a, kind="other", rate=1),
        stage("b", rate=1),
        stage("b", stage("a", x=1), rate=1),
        stage("b", a, a, rate=1),
    ]
    prints = [item.fingerprint for item in different]
    assert first not in prints and len(set(prints)) == len(prints)


def test_the_order_of_settings_does_not_matter():
    assert stage("a", x=1, y=2).fingerprint == stage("a", y=2, x=1).fingerprint


# Plans


def test_finished_stages_are_reused(finished):
    assert set(reasons(finished, chain(rate=1, size=(4, 2))).values()) == {"reused"}


def test_a_changed_setting_runs_its_stage_and_those_after(finished):
    found = reasons(finished, chain(rate=2, size=(4, 2)))
    assert found == {"a": "reused", "b": "rate was 1, is 2", "b/c": "b changed", "d": "reused"}


def test_a_setting_that_came_or_went_is_told(finished):
    assert reasons(finished, chain(rate=1))["b"] == "size was [4, 2], is null"
    found = reasons(finished, chain(rate=3, size=(8, 2), flip=True))
    assert found["b"] == "rate was 1, is 3 and 2 more"


def test_nothing_made_yet(tmp_path):
    assert set(reasons(tmp_path, chain()).values()) == {"not made yet"}


def test_forced_stages_run_with_what_follows(finished):
    found = reasons(finished, chain(rate=1, size=(4, 2)), "b")
    assert found == {"a": "reused", "b": "forced", "b/c": "follows b", "d": "reused"}
    with pytest.raises(UserError, match="no stage 'e'; the stages are a, b, b/c, d"):
        make_plan(finished, chain(), "e")


def test_a_shared_plan_names_the_run_that_each_stage_is_taken_from(finished, tmp_path):
    """The first finished one, or one planned before; not one whose files are missing."""
    stages = chain(rate=1, size=(4, 2))
    (finished / "a/0.bin").unlink()
    new, planned = tmp_path / "new", {stages[3].fingerprint: Path("elsewhere")}
    plan = plan_sharing(new, make_plan(new, stages), [tmp_path / "none", finished], planned)
    assert [(entry.run, entry.reason) for entry in plan] == [
        (True, "not made yet"),
        (False, f"of {finished}"),
        (False, f"of {finished}"),
        (False, f"of {finished}"),
    ]
    assert planned[stages[0].fingerprint] == new
    later = plan_sharing(finished, make_plan(finished, stages), [finished], planned)
    assert [entry.run for entry in later] == [False] * 4 and later[0].reason == f"of {new}"
    assert later[3].reason == ""


def test_missing_and_added_files_are_noticed(finished):
    stages = chain(rate=1, size=(4, 2))
    (finished / "a/0.bin").unlink()
    (finished / "d/more").mkdir()
    (finished / "d/more/file").touch()
    found = reasons(finished, stages)
    assert found["a"] == found["d"] == "files are missing or were added"
    # What follows has the same fingerprint, and a made again gives the same.
    assert found["b"] == "reused"


def test_an_unfinished_stage_goes_on_if_begun_for_the_same(tmp_path):
    stages = chain(rate=1)
    begin(tmp_path, stages[1])
    assert reasons(tmp_path, stages)["b"] == "goes on where it was"
    assert reasons(tmp_path, chain(rate=2))["b"] == "begun with other settings"


# Forgetting


def test_forgetting_clears_what_runs_and_keeps_the_rest(finished):
    stages = chain(rate=2, size=(4, 2))
    forget(finished, make_plan(finished, stages))
    assert read_manifest(finished / "a") and read_manifest(finished / "d")
    for name in ("b", "b/c"):
        assert read_manifest(finished / name) is None
        assert not list((finished / name).glob("*.bin"))


def test_clearing_a_stage_keeps_the_stages_inside_it(finished):
    stages = chain(rate=1, size=(4, 2))
    (finished / "b/0.bin").unlink()
    forget(finished, make_plan(finished, stages))
    assert is_finished(finished, stages[2]) and (finished / "b/c/0.bin").is_file()
    assert not is_finished(finished, stages[1])


def test_forgetting_keeps_what_an_unfinished_stage_has_made(tmp_path):
    stages = chain(rate=1)
    begin(tmp_path, stages[1])
    (tmp_path / "b/checkpoint-00000004.pt").touch()
    forget(tmp_path, make_plan(tmp_path, stages))
    assert (tmp_path / "b/checkpoint-00000004.pt").exists()
    forget(tmp_path, make_plan(tmp_path, chain(rate=2)))
    assert not (tmp_path / "b/checkpoint-00000004.pt").exists()


def test_a_forced_unfinished_stage_is_begun_anew(finished):
    stages = chain(rate=1, size=(4, 2))
    plan = make_plan(finished, stages, "b")
    forget(finished, plan)
    assert not (finished / "b/0.bin").exists()
    begin(finished, stages[1])
    assert reasons(finished, stages)["b"] == "goes on where it was"


def test_a_kill_while_clearing_leaves_nothing_to_go_on_from(finished, monkeypatch):
    stages = chain(rate=1, size=(4, 2))
    plan = make_plan(finished, stages, "b")

    def killed(path, *arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(finished, plan)
    assert (finished / "b/0.bin").exists()
    assert reasons(finished, stages)["b"] == "begun with other settings"
    forget(finished, make_plan(finished, stages))
    assert not (finished / "b/0.bin").exists()


def test_folders_that_no_run_made_are_left_alone(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path / 'b'}: is in the way of stage 'b'"):
        forget(tmp_path, make_plan(tmp_path, chain()))
    assert (tmp_path / "b/notes.txt").read_text() == "mine"


# Records


def test_a_manifest_says_what_was_made(tmp_path):
    a, b, *_ = chain(rate=1, size=(4, 2))
    make(tmp_path, a)
    make(tmp_path, b, files=3)
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    assert manifest["stage"] == "b" and manifest["kind"] == "make"
    assert manifest["settings"] == {"rate": 1, "size": [4, 2]}
    assert manifest["inputs"] == {"a": a.fingerprint}
    assert (manifest["fingerprint"], manifest["files"]) == (b.fingerprint, 3)
    assert (manifest["seconds"], manifest["device"]) == (2.5, "cpu")
    assert {"python", "torch", "numpy"} <= manifest["versions"].keys()
    assert read_metrics(tmp_path / "b") == {"score": 1}


def test_metrics_count_only_once_the_manifest_is_there(tmp_path):
    made = stage("a")
    make(tmp_path, made)
    (tmp_path / "a/manifest.json").unlink()
    assert read_metrics(tmp_path / "a") is None and not is_finished(tmp_path, made)


def test_a_broken_record_is_named(finished):
    (finished / "a/manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"a.manifest.json: is not valid JSON"):
        make_plan(finished, chain())


def test_a_stopwatch_counts_the_time_before_a_kill(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("runtime.stages.time.monotonic", lambda: now[0])
    watch = Stopwatch()
    now[0] = 107.0
    state = watch.state_dict()
    now[0] = 500.0
    resumed = Stopwatch()
    resumed.load_state_dict(state)
    now[0] = 503.0
    assert resumed.seconds == 10.0


# The estimate


def test_time_left_is_learned_by_kind_for_each_unit_of_work():
    left = TimeLeft()
    train, export = stage("t", kind="train", work=100), stage("e", kind="export", work=10)
    assert left.of([train]) is None
    left.learn(stage("x", kind="train", work=50), 25.0)
    assert left.of([train]) == pytest.approx(50)
    assert left.of([train, export]) is None
    left.learn(stage("y", kind="export", work=2), 4.0)
    assert left.of([train, export]) == pytest.approx(70)
    left.learn(stage("z", kind="train", work=10), 1.0)  # the latest counts
    assert left.of([train]) == pytest.approx(10)
    assert left.of([]) == 0


def test_a_stage_without_work_teaches_no_rate():
    left = TimeLeft()
    left.learn(stage("x", work=0), 3.0)
    assert left.of([stage("y", work=2)]) == pytest.approx(6)
