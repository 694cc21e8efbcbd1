"""Stages and their records: what is done is not done again, what it depends on is known.

A stage's folder holds what it made and `manifest.json`, written last. The manifest carries the
stage's fingerprint: a hash of its settings and of the fingerprints of its inputs. A stage whose
manifest has the fingerprint that the configuration asks for is finished.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.checkpoint import remove_checkpoints
from runtime.errors import UserError
from runtime.files import read_json, remove_partial, write_json

MANIFEST = "manifest.json"
METRICS = "metrics.json"
_BEGUN = "begun.json"  # the fingerprint that an unfinished folder was begun for

_RECORDED = {"fingerprint", "settings", "inputs", "files", "seconds"}  # what a manifest must hold

_VERSIONED = ("torch", "torchvision", "lightning", "kornia", "timm", "numpy", "pillow")

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One box of Algorithm 1.

    `name` is its folder below the run's, `settings` everything its result depends on besides its
    `inputs`; `action(folder)` makes the result and returns its metrics. `work` counts the
    units (steps, images) that it takes, for the estimate of the time left.
    """

    name: str
    kind: str
    settings: dict[str, Any] = field(repr=False)
    inputs: tuple["Stage", ...] = field(repr=False)
    action: Callable[[Path], Metrics] = field(repr=False)
    work: int
    unit: str

    @cached_property
    def fingerprint(self) -> str:
        content = {
            "kind": self.kind,
            "settings": self.settings,
            "inputs": [stage.fingerprint for stage in self.inputs],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A line of the plan: what will happen to a stage, and why; of what is reused, from where."""

    stage: Stage
    run: bool
    reason: str


def make_plan(folder: Path, stages: Sequence[Stage], forced: str | None = None) -> list[Entry]:
    """What of `stages` (in order) is reused and what runs; `forced` names one to run again.

    A stage that runs again gives the same result unless its settings changed, so those after it
    run again only if their own fingerprint changed, or if they depend on the forced one.
    """
    names = [stage.name for stage in stages]
    if forced is not None and forced not in names:
        raise UserError(f"--from-stage: no stage '{forced}'; the stages are {', '.join(names)}")
    forced_names = {forced}
    plan = []
    for stage in stages:
        if forced_names & {stage.name, *(given.name for given in stage.inputs)}:
            forced_names.add(stage.name)
            reason = "forced" if stage.name == forced else f"follows {forced}"
            plan.append(Entry(stage, True, reason))
        else:
            plan.append(_entry(folder / stage.name, stage))
    return plan


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage; None if the folder holds none."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    manifest = read_json(file)
    if not isinstance(manifest, dict) or not manifest.keys() >= _RECORDED:
        raise UserError(f"{file}: is not the record of a stage; delete it and run again")
    return manifest


def is_finished(folder: Path, stage: Stage) -> bool:
    """Whether the stage's result is there, made for the same settings and inputs."""
    manifest = read_manifest(folder / stage.name)
    return manifest is not None and manifest["fingerprint"] == stage.fingerprint


def read_metrics(folder: Path) -> Metrics | None:
    """The metrics of a finished stage; None if the folder holds none."""
    return read_json(folder / METRICS) if (folder / MANIFEST).is_file() else None


def forget(folder: Path, plan: Sequence[Entry]) -> None:
    """Remove what the plan's stages left behind for other settings, before anything runs.

    What an unfinished stage made for the same fingerprint stays: it goes on from there.
    """
    for entry in plan:
        place = folder / entry.stage.name
        if not entry.run or not place.exists():
            continue
        if _begun_for(place) == entry.stage.fingerprint and not (place / MANIFEST).exists():
            continue
        if not (place / _BEGUN).is_file() and any(place.iterdir()):
            raise UserError(
                f"{place}: is in the way of stage '{entry.stage.name}' and was not made by a run; "
                "move it, or set another folder with out=..."
            )
        _clear(place)


def take_over(folder: Path, stages: Sequence[Stage], others: Sequence[Path]) -> None:
    """Take from the run folders `others` what they have finished of `stages`, by hard links
    where the file system has them: files are replaced, never changed, so that both stay right."""
    for stage in stages:
        place = folder / stage.name
        if not _entry(place, stage).run or (place.exists() and not (place / _BEGUN).is_file()):
            continue
        other = _holder(others, stage)
        if other is not None:
            _link_tree(other / stage.name, place)


def plan_sharing(
    folder: Path, plan: Sequence[Entry], others: Sequence[Path], planned: dict[str, Path]
) -> list[Entry]:
    """The plan for `folder` as `take_over` from the run folders `others` will change it.

    `planned` are the folders of runs that come before, by the fingerprints of what they will have
    made; the plan's own are added.
    """
    shared = []
    for entry in plan:
        stage = entry.stage
        holder = None
        if entry.run:
            holder = _holder(others, stage) or planned.get(stage.fingerprint)
        shared.append(Entry(stage, False, f"of {holder}") if holder else entry)
        planned.setdefault(stage.fingerprint, folder)
    return shared


def tidy(folder: Path, plan: Sequence[Entry]) -> None:
    """Remove what a kill may have left: files half written, and states to resume from of stages
    that are finished."""
    for entry in plan:
        place = folder / entry.stage.name
        remove_partial(place)
        if not entry.run:
            remove_checkpoints(place)


def is_foreign(place: Path) -> bool:
    """Whether what is at a stage's place was not made by a run."""
    if not place.is_dir():
        return place.exists()
    return not (place / _BEGUN).is_file() and any(place.iterdir())


def begin(folder: Path, stage: Stage) -> None:
    """Mark the stage's folder as begun for the stage's fingerprint."""
    place = folder / stage.name
    if _begun_for(place) != stage.fingerprint:
        write_json(place / _BEGUN, {"fingerprint": stage.fingerprint})


def finish(
    folder: Path, stage: Stage, metrics: Metrics, seconds: float, about: dict[str, Any]
) -> None:
    """Write the metrics, then, last, the manifest. `about` says on what it was made."""
    place = folder / stage.name
    write_json(place / METRICS, metrics)
    write_json(
        place / MANIFEST,
        {
            "stage": stage.name,
            "kind": stage.kind,
            "fingerprint": stage.fingerprint,
            "settings": stage.settings,
            "inputs": {given.name: given.fingerprint for given in stage.inputs},
            "files": _count_files(place),
            "seconds": round(seconds, 3),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            **about,
        },
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        found[name] = importlib.metadata.version(name)
    return found


class Stopwatch:
    """Wall time of a stage over all the processes that worked on it.

    Its state is saved with the checkpoint, so that the time before a kill counts too.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._before, self._started = state["seconds"], time.monotonic()


def _begun_for(place: Path) -> str | None:
    """The fingerprint that the folder was begun for; None if it was not, or is being cleared."""
    begun = place / _BEGUN
    return read_json(begun).get("fingerprint") if begun.is_file() else None


def _clear(place: Path) -> None:
    """Remove what a stage made, but not the stages inside its folder.

    The folder stays marked as a stage's, but as begun for nothing: after a kill in the middle no
    one goes on with what is left.
    """
    write_json(place / _BEGUN, {"fingerprint": None})
    (place / MANIFEST).unlink(missing_ok=True)
    for item in place.iterdir():
        if item.is_dir():
            if not (item / _BEGUN).exists():
                shutil.rmtree(item)
        elif item.name != _BEGUN:
            item.unlink()


def _entry(place: Path, stage: Stage) -> Entry:
    manifest = read_manifest(place)
    if manifest is None:
        if _begun_for(place) == stage.fingerprint:
            return Entry(stage, True, "goes on where it was")
        begun = (place / _BEGUN).is_file()
        return Entry(stage, True, "begun with other settings" if begun else "not made yet")
    if manifest["fingerprint"] != stage.fingerprint:
        return Entry(stage, True, _difference(manifest, stage))
    if manifest["files"] != _count_files(place):
        return Entry(stage, True, "files are missing or were added")
    return Entry(stage, False, "")


def _holder(folders: Sequence[Path], stage: Stage) -> Path | None:
    """The first of the run folders in which the stage is finished."""
    return next((f for f in folders if not _entry(f / stage.name, stage).run), None)


def _link_tree(finished: Path, place: Path) -> None:
    """`place` as `finished` is, without the stages inside it; appears whole or not at all."""
    partial = place.with_name(place.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)

    def stages_inside(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name / _BEGUN).is_file()]

    shutil.copytree(finished, partial, ignore=stages_inside, copy_function=_link_or_copy)
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def _difference(manifest: dict[str, Any], stage: Stage) -> str:
    """Why a finished stage no longer fits, in a few words."""
    # As JSON has it, where there are no tuples.
    old, new = flatten(manifest["settings"]), flatten(json.loads(json.dumps(stage.settings)))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if changed:
        key = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{key} was {_short(old.get(key))}, is {_short(new.get(key))}{more}"
    for given in stage.inputs:
        if manifest["inputs"].get(given.name) != given.fingerprint:
            return f"{given.name} changed"
    return "inputs changed"


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: {"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(settings, dict):
        return {prefix.rstrip("."): settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _count_files(place: Path) -> int:
    """Files the stage made; not its records, states to resume from, and stages inside it."""
    count = 0
    for item in place.iterdir():
        if item.is_file():
            count += not item.name.startswith((MANIFEST, METRICS, _BEGUN, "checkpoint"))
        elif not (item / _BEGUN).exists():
            count += sum(1 for file in item.rglob("*") if file.is_file())
    return count
