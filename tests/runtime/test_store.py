"""The store of stages: what is reused, what runs again and why, what a kill leaves, and that
nothing is lost unasked."""

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from bdl.runtime.errors import UserError
from bdl.runtime.estimate import TimeLeft
from bdl.runtime.metrics import Metrics
from bdl.runtime.stage import Stage
from bdl.runtime.store import (
    Entry,
    MadeOn,
    Store,
    describe_loss,
    read_manifest,
    read_metrics,
    require_consent,
)


@dataclass
class Score(Metrics):
    score: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Toy(Stage):
    """A stage with one file for each unit of work."""

    kind: ClassVar[str] = "make"
    unit: ClassVar[str] = "steps"
    metrics: ClassVar[type[Metrics]] = Score
    is_network: ClassVar[bool] = True

    called: str = field(compare=False)
    rate: int | None = None
    size: tuple[int, int] | None = None
    given: Stage | None = None
    count: int = field(default=1, compare=False)

    @property
    def name(self) -> str:
        return self.called

    @property
    def work(self) -> int:
        return self.count

    def files(self) -> Sequence[str]:
        return [f"{number}.bin" for number in range(self.count)]


def chain(rate: int | None = 1, size: tuple[int, int] | None = (4, 2)) -> list[Stage]:
    """a <- b <- b/c, and d beside them; b alone has settings."""
    a = Toy(called="a", rate=7)
    b = Toy(called="b", rate=rate, size=size, given=a)
    c = Toy(called="b/c", given=b)
    return [a, b, c, Toy(called="d", size=(1, 1), given=a)]


def make(store: Store, stage: Stage, content: bytes = b"data") -> None:
    folder = store.begin(stage)
    for name in stage.files():
        (folder / name).write_bytes(content)
    store.finish(stage, Score(score=1), 2.5, MadeOn(seed=3, device="cpu", precision="32-true"))


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "run")
    for stage in chain():
        make(store, stage)
    return store


def reasons(store: Store, stages: Sequence[Stage], **options) -> dict[str, str]:
    plan = store.plan(stages, **options)
    assert [entry.stage for entry in plan] == list(stages)
    assert all((entry.run or entry.source is not None) == bool(entry.reason) for entry in plan)
    return {entry.stage.name: entry.reason or "reused" for entry in plan}


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder and what they hold."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


# Plans


def test_finished_stages_are_reused(store):
    assert set(reasons(store, chain()).values()) == {"reused"}


def test_a_changed_setting_runs_its_stage_and_those_after(store):
    expected = {"a": "reused", "b": "rate was 1, is 2", "b/c": "b changed", "d": "reused"}
    assert reasons(store, chain(rate=2)) == expected


def test_a_setting_that_came_or_went_is_told(store):
    assert reasons(store, chain(size=None))["b"] == "size was [4, 2], is null"
    assert reasons(store, chain(rate=3, size=(8, 2)))["b"] == "rate was 1, is 3 and 1 more"


def test_nothing_made_yet(tmp_path):
    assert set(reasons(Store(tmp_path), chain()).values()) == {"not made yet"}


def test_forced_stages_run_with_what_follows(store):
    forced = reasons(store, chain(), forced="b")
    assert forced == {"a": "reused", "b": "forced", "b/c": "follows b", "d": "reused"}
    with pytest.raises(UserError, match="no stage 'e'; the stages are a, b, b/c, d"):
        store.plan(chain(), forced="e")


@pytest.mark.parametrize("forced", range(6))
def test_what_is_forced_is_made_again_though_an_equal_stage_is_there(tmp_path, forced):
    """Three equal rounds of two stages: the first that is made again stands in for those after it,
    and what was there before it for none."""
    store, stages = Store(tmp_path), []
    for k in (1, 2, 3):
        x = Toy(called=f"k{k}/x", rate=1, k=k)
        stages += [x, Toy(called=f"k{k}/y", given=x, k=k)]
    for stage in stages:
        make(store, stage)
    plan = store.plan(stages, forced=stages[forced].name)
    expected = {stages[forced].name: "forced"}
    if forced % 2 == 0:
        expected[stages[forced + 1].name] = f"follows {stages[forced].name}"
    made = list(expected)
    for later in stages[forced + len(made) :]:
        equal = next((name for name in made if name[-1] == later.name[-1]), None)
        if equal is not None:
            expected[later.name] = f"same as {equal}"
    assert {entry.stage.name: entry.reason for entry in plan if entry.reason} == expected
    assert [entry.stage.name for entry in plan if entry.run] == made
    assert [entry.source for entry in plan if entry.source] == [
        tmp_path / reason.removeprefix("same as ")
        for reason in expected.values()
        if reason.startswith("same as ")
    ]


def test_a_stage_that_lost_a_file_runs_again_alone(store):
    (store.folder / "a/0.bin").unlink()
    # What follows has the same fingerprint, and a made again gives the same.
    expected = {"a": "0.bin missing", "b": "reused", "b/c": "reused", "d": "reused"}
    assert reasons(store, chain()) == expected


@pytest.mark.parametrize("name", [".DS_Store", "notes.txt", "more/file", "manifest.json.bak"])
def test_foreign_files_change_nothing_and_stay(store, name):
    for stage in chain():
        file = store.folder / stage.name / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    assert set(reasons(store, chain()).values()) == {"reused"}
    for stage in chain(rate=2)[1:3]:
        make(store, stage, b"new")
    for stage in chain():
        assert (store.folder / stage.name / name).read_text() == "mine"
    assert set(reasons(store, chain(rate=2)).values()) == {"reused"}


def test_equal_stages_are_made_once(tmp_path):
    """One of another name, k and i is taken from the first."""
    store = Store(tmp_path)
    first, second = Toy(called="k1/x", rate=1, k=1), Toy(called="k2/x", rate=1, k=2)
    assert first == second and first.fingerprint == second.fingerprint
    plan = store.plan([first, second])
    assert [(e.run, e.reason) for e in plan] == [(True, "not made yet"), (False, "same as k1/x")]
    make(store, first)
    store.take(second, plan[1].source)
    assert set(reasons(store, [first, second]).values()) == {"reused"}
    manifest = read_manifest(tmp_path / "k2/x")
    assert (manifest.stage, manifest.k, manifest.same_as) == ("k2/x", 2, "k1/x")
    assert (tmp_path / "k2/x/0.bin").read_bytes() == b"data"


def test_equal_stages_are_taken_from_other_runs(store, tmp_path):
    """From the first run that has it whole."""
    (store.folder / "a/0.bin").unlink()
    new = Store(tmp_path / "new")
    plan = new.plan(chain(), others=[tmp_path / "none", store.folder])
    assert [(entry.run, entry.source) for entry in plan] == [
        (True, None),
        (False, store.folder / "b"),
        (False, store.folder / "b/c"),
        (False, store.folder / "d"),
    ]
    before = everything(store.folder)
    for entry in plan[1:]:
        new.take(entry.stage, entry.source)
    assert set(reasons(new, chain()[1:]).values()) == {"reused"}
    assert everything(store.folder) == before
    # Replacing one leaves the other as it is, though both were one file on disk.
    make(new, chain(rate=2)[1], b"other")
    assert everything(store.folder) == before


# Nothing is lost unasked


def test_other_settings_need_consent(store):
    before = everything(store.folder)
    plan = store.plan(chain(rate=2))
    with pytest.raises(UserError) as error:
        require_consent(store.folder, plan)
    said = str(error.value)
    assert "rate was 1, is 2" in said and "--replace" in said and "out=" in said
    assert "2 trained networks" in said and "b, b/c" in said and len(said.splitlines()) == 1
    assert everything(store.folder) == before
    require_consent(store.folder, store.plan(chain(rate=2), replaced=True))
    require_consent(store.folder, store.plan(chain()))


def test_forcing_is_consent_for_the_stage_and_its_followers_alone(store):
    plan = store.plan(chain(), forced="b")
    require_consent(store.folder, plan)
    stages = chain()
    other = Toy(called="d", size=(9, 9), given=stages[0])
    plan = store.plan([*stages[:3], other], forced="b")
    with pytest.raises(UserError, match=r"size was \[1, 1\], is \[9, 9\]"):
        require_consent(store.folder, plan)


def test_replacing_never_remakes_what_is_equal(store):
    plan = store.plan(chain(rate=2), replaced=True)
    assert [entry.run for entry in plan] == [False, True, True, False]


def test_old_results_stay_until_the_new_stage_is_finished(store):
    stages = chain(rate=2)
    before = everything(store.folder / "b")
    folder = store.begin(stages[1])
    (folder / "0.bin").write_bytes(b"half")
    (folder / "checkpoint-00000004.pt").write_bytes(b"state")
    assert everything(store.folder / "b") == before
    assert set(reasons(store, chain()).values()) == {"reused"}  # with the settings as they were
    assert reasons(store, stages)["b"] == "goes on where it was"
    with pytest.raises(UserError, match="rate was 1, is 2"):
        require_consent(store.folder, store.plan(stages))
    make(store, stages[1], b"new")
    assert (store.folder / "b/0.bin").read_bytes() == b"new"
    assert not folder.exists()


def test_what_was_begun_with_other_settings_stays_until_it_is_replaced(tmp_path):
    store = Store(tmp_path)
    first, other = chain()[0], Toy(called="a", rate=8)
    (store.begin(first) / "checkpoint-00000004.pt").write_bytes(b"state")
    entry = store.plan([other])[0]
    assert entry.reason == "begun with rate was 7, is 8"
    with pytest.raises(UserError, match=r"rate was 7, is 8.* 1 unfinished"):
        require_consent(tmp_path, [entry])
    assert store.plan([first])[0].reason == "goes on where it was"
    (store.begin(other) / "checkpoint-00000002.pt").write_bytes(b"state")
    assert store.staging_folder(first).is_dir() and store.staging_folder(other).is_dir()
    make(store, other)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_begun_stage_without_anything_made_costs_nothing(tmp_path):
    store = Store(tmp_path)
    store.begin(chain()[0])
    require_consent(tmp_path, store.plan([Toy(called="a", rate=8)]))


def test_files_in_the_way_are_left_alone(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/notes.txt").write_text("mine")
    store.plan(chain())  # not in the way
    (tmp_path / "b/0.bin").write_text("mine")
    with pytest.raises(UserError, match=r"b.0.bin: is in the way of stage 'b'"):
        store.plan(chain())
    (tmp_path / "d").write_text("mine")
    (tmp_path / "b/0.bin").unlink()
    with pytest.raises(UserError, match=r"d: is in the way of stage 'd'"):
        store.plan(chain())


def test_foreign_files_in_an_unfinished_stage_stay(tmp_path):
    store = Store(tmp_path)
    folder = store.begin(chain()[0])
    (folder / "thesis.doc").write_text("mine")
    (folder / "checkpoint-notes.pt").write_text("mine")
    (folder / "checkpoint-00000004.pt").write_bytes(b"state")
    make(store, chain()[0])
    assert everything(folder) == {"thesis.doc": b"mine", "checkpoint-notes.pt": b"mine"}
    assert set(everything(tmp_path / "a")) == {"0.bin", "manifest.json", "metrics.json"}


def test_a_folder_that_only_looks_unfinished_is_foreign(tmp_path):
    store = Store(tmp_path)
    other = tmp_path / "a.unfinished-mine"
    other.mkdir()
    (other / "checkpoint-00000001.pt").write_text("mine")
    make(store, chain()[0])
    assert everything(other) == {"checkpoint-00000001.pt": b"mine"}


# Kills


def test_an_unfinished_stage_goes_on_if_begun_for_the_same(tmp_path):
    store = Store(tmp_path)
    store.begin(chain()[0])
    assert reasons(store, chain())["a"] == "goes on where it was"


def test_a_forced_stage_is_begun_anew_and_then_goes_on(store):
    stages = chain()
    (store.begin(stages[1]) / "checkpoint-00000004.pt").write_bytes(b"state")
    assert store.plan(stages, forced="b")[1].anew
    store.restart(stages[1])
    assert not store.staging_folder(stages[1]).exists()
    store.begin(stages[1])
    assert reasons(store, stages)["b"] == "goes on where it was"


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_while_a_stage_is_moved_loses_nothing(tmp_path, monkeypatch, replaced, call):
    """At every rename of it, before and after."""
    store = Store(tmp_path / "run")
    old, new = Toy(called="a", rate=1, count=3), Toy(called="a", rate=2, count=2)
    if replaced:
        make(store, old, b"old")
    (store.folder / "a").mkdir(parents=True, exist_ok=True)
    (store.folder / "a/notes.txt").write_text("mine")
    calls = iter(range(1, 100))
    replace = os.replace

    def killed(source, target):
        if next(calls) == call:
            raise KeyboardInterrupt
        replace(source, target)

    folder = store.begin(new)
    for name in new.files():
        (folder / name).write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr("bdl.runtime.store.os.replace", killed)
        patch.setattr("bdl.runtime.files.os.replace", killed)
        with contextlib.suppress(KeyboardInterrupt):
            store.finish(new, Score(score=2), 1.0, MadeOn())
    entry = store.plan([new], replaced=True)[0]
    if entry.run:  # it was not all made yet, and what it replaces is still there
        assert entry.reason == "goes on where it was"
        assert (store.folder / "a/0.bin").exists() == replaced
        store.finish(new, Score(score=2), 1.0, MadeOn())
    store.resume_publishing(new)
    store.tidy(new)
    assert reasons(store, [new]) == {"a": "reused"}
    assert {
        name: data for name, data in everything(store.folder).items() if "json" not in name
    } == {
        "a/0.bin": b"new",
        "a/1.bin": b"new",
        "a/notes.txt": b"mine",
    }
    assert read_metrics(store.folder / "a", Score) == Score(score=2)


# Staleness


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("call", range(1, 9))
def test_settings_changed_after_a_kill_while_a_stage_is_moved(tmp_path, monkeypatch, call, count):
    """What is half moved is results of other settings, neither the user's nor to be mixed with; it
    goes with the others."""
    store, old = Store(tmp_path), Toy(called="b", rate=1, count=3)
    new, third = Toy(called="b", rate=2, count=2), Toy(called="b", rate=3, count=count)
    make(store, old, b"old")
    (tmp_path / "b/mine.txt").write_bytes(b"mine")
    calls, replace = 0, os.replace

    def killed(source, target):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        replace(source, target)

    folder = store.begin(new)
    for name in new.files():
        (folder / name).write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr("bdl.runtime.store.os.replace", killed)
        with contextlib.suppress(KeyboardInterrupt):
            store.finish(new, Score(), 1.0, MadeOn())
    for stage in (third, old):
        plan = store.plan([stage])
        if plan[0].run:
            with pytest.raises(UserError, match="rate was"):
                require_consent(store.folder, plan)
    make(store, third, b"third")
    for stage in (old, new):  # and nothing that is left is taken for finished
        assert store.plan([stage])[0].run
    assert not store.plan([third])[0].run
    assert {file.read_bytes() for file in (tmp_path / "b").glob("*.bin")} == {b"third"}
    assert (tmp_path / "b/mine.txt").read_bytes() == b"mine"
    assert not store.resume_publishing(new)
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_what_was_made_of_something_replaced_is_stale(store):
    stages = chain()
    make(store, chain(rate=2)[1], b"new")
    manifests = [read_manifest(store.folder_of(stage)) for stage in stages]
    assert store.stale(manifests) == {"b/c": "made from an earlier b"}
    make(store, Toy(called="a", rate=9), b"new")
    manifests = [read_manifest(store.folder_of(stage)) for stage in stages]
    stale = store.stale(manifests)
    assert set(stale) == {"b", "b/c", "d"} and stale["d"] == "made from an earlier a"


# Records


def test_a_manifest_says_what_was_made(tmp_path):
    store = Store(tmp_path)
    a, b = Toy(called="a", rate=7), Toy(called="b", size=(4, 2), count=3)
    b = Toy(called="b", rate=1, size=(4, 2), given=a, count=3, k=2, i=1)
    make(store, a)
    make(store, b)
    content = json.loads((tmp_path / "b/manifest.json").read_text())
    assert content["version"] == 2
    assert content["stage"] == "b" and content["kind"] == "make"
    assert content["settings"] == {"rate": 1, "size": [4, 2]}
    assert content["inputs"] == {"a": a.fingerprint}
    assert content["fingerprint"] == b.fingerprint
    assert content["files"] == ["0.bin", "1.bin", "2.bin"]
    assert (content["seconds"], content["device"], content["seed"]) == (2.5, "cpu", 3)
    assert (content["k"], content["i"]) == (2, 1)
    assert {"python", "torch", "numpy"} <= content["versions"].keys()
    assert read_metrics(tmp_path / "b", Score) == Score(score=1)


def test_metrics_count_only_once_the_manifest_is_there(tmp_path):
    store, a = Store(tmp_path), chain()[0]
    make(store, a)
    (tmp_path / "a/manifest.json").unlink()
    assert read_metrics(tmp_path / "a", Score) is None and not store.is_finished(a)


def test_a_broken_record_is_named(store):
    (store.folder / "a/manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"a.manifest.json: is not valid JSON"):
        store.plan(chain())


def test_a_record_of_a_later_version_is_named(store):
    file = store.folder / "a/manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    with pytest.raises(UserError, match="was written by a later version of bdl"):
        store.plan(chain())


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_an_earlier_version_is_never_changed(tmp_path, finished):
    (tmp_path / "a").mkdir()
    record = {"stage": "a", "kind": "make", "fingerprint": "1", "settings": {}, "inputs": {}}
    record |= {"files": 1, "seconds": 2.0}
    (tmp_path / "a/begun.json").write_text('{"fingerprint": "1"}')
    (tmp_path / "a/0.bin").write_text("old")
    if finished:
        (tmp_path / "a/manifest.json").write_text(json.dumps(record))
    before = everything(tmp_path)
    for options in ({}, {"replaced": True}, {"forced": "a"}):
        with pytest.raises(UserError, match=r"holds a run of bdl 0\.1.*out="):
            Store(tmp_path).plan(chain(), **options)
    assert everything(tmp_path) == before


def test_the_loss_is_counted(store):
    """Networks and hours of all that goes, but once where stages were equal."""
    stages = chain(rate=2)
    said = describe_loss([entry for entry in store.plan(stages) if entry.loses])
    assert said.startswith("rate was 1, is 2. Replacing them costs 2 trained networks, 5 s of work")
    assert isinstance(store.plan(stages)[1], Entry)


# The estimate


def test_time_left_is_learned_by_kind_for_each_unit_of_work():
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Export(Toy):
        kind: ClassVar[str] = "export"

    left = TimeLeft()
    train, export = Toy(called="t", count=100), Export(called="e", count=10)
    assert left.of([train]) is None
    left.learn(Toy(called="x", count=50), 25.0)
    assert left.of([train]) == pytest.approx(50)
    assert left.of([train, export]) is None
    left.learn(Export(called="y", count=2), 4.0)
    assert left.of([train, export]) == pytest.approx(70)
    left.learn(Toy(called="z", count=10), 1.0)  # the latest counts
    assert left.of([train]) == pytest.approx(10)
    assert left.of([]) == 0


def test_a_trial_counts_until_a_stage_of_its_kind_is_done():
    """Each cost is tried once; images of a kind that has no trial are taken for steps."""

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Other(Toy):
        kind: ClassVar[str] = "evaluate"

    @dataclass(frozen=True, eq=False, kw_only=True)
    class Training(Toy):
        kind: ClassVar[str] = "segment"

        @property
        def cost(self) -> str:
            return self.called

    first, second = Training(called="first", count=100), Training(called="second", count=10)
    asked = []

    def trial(stage):
        asked.append(stage.name)
        return {"first": 0.25, "second": 2.0}.get(stage.cost)

    left = TimeLeft()
    left.try_out([first, second, second, Other(called="scores", count=8)], trial)
    assert asked == ["first", "second", "scores"]
    assert left.of([first, second]) == pytest.approx(25 + 20)
    assert left.of([Other(called="scores", count=8)]) == pytest.approx(8 * 0.25)
    left.learn(first, 50.0)
    assert left.of([first, second]) == pytest.approx(50 + 20)
    left.try_out([first], trial)
    assert len(asked) == 3


def test_a_stage_without_work_teaches_no_rate():
    left = TimeLeft()
    left.learn(Toy(called="x", count=0), 3.0)
    assert left.of([Toy(called="y", count=2)]) == pytest.approx(6)


def test_a_copy_of_a_run_is_a_run(store, tmp_path):
    shutil.copytree(store.folder, tmp_path / "copy")
    assert set(reasons(Store(tmp_path / "copy"), chain()).values()) == {"reused"}
