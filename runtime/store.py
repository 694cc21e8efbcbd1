"""A run's folder as a store of stages: what is finished is kept, and never lost by mistake.

A stage is made in a staging folder, `NAME.unfinished-FINGERPRINT`, and its files are moved into the
folder beside it, `NAME`, when it is finished. There `manifest.json`, written last, says of what
it was made, and which files are its own. Other files are left alone: they change nothing and stay
where they are.
"""

import datetime
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bdl.runtime.console import duration, log
from bdl.runtime.errors import UserError
from bdl.runtime.files import read_json, write_json
from bdl.runtime.metrics import Metrics
from bdl.runtime.ownership import BEGUN, MANIFEST, METRICS
from bdl.runtime.stage import Stage, flatten
from bdl.runtime.values import plain, restored
from bdl.runtime.versions import versions

VERSION = 2  # of manifests; 1 is what bdl 0.1 wrote, which is read and never changed
_REPLACED = "replaced.json"  # beside BEGUN, while it is moved: the manifest of what it replaces
_MOVED = "moved.json"  # there, once all but the manifest has been moved: what begun.json was
_UNFINISHED = ".unfinished-"
# What stages keep in their unfinished folders and remove when they are done.
_SCRATCH = re.compile(
    r"checkpoint\.json|checkpoint-\d{8,}(-process-\d+)?\.pt|predictions/\d{6}\.npz|trust\.json|"
    r".*\.bdl-partial"
)


@dataclass
class MadeOn:
    """On what a stage was made.

    Args:
        seed: Seed of the run's draws.
        device: Torch's name of the device.
        precision: Precision that it was computed in, never "auto".
        processes: Number of processes that shared the work.
        compiled: Whether blocks of networks that train were compiled.
        peak_memory: Most bytes of main memory in use, of the process that used most.
        peak_gpu_memory: The same of a GPU; None without one.
    """

    seed: int | None = None
    device: str = ""
    precision: str = ""
    processes: int = 1
    compiled: bool = False
    peak_memory: int | None = None
    peak_gpu_memory: int | None = None


@dataclass
class Manifest(MadeOn):
    """The record of a stage: what was made, of what, and which files are its own.

    Args:
        version: Of the form of this record.
        stage: Its name.
        kind: Kind of stage.
        k: Round.
        i: Self-training step.
        symbol: The paper's symbol for it.
        fingerprint: Hash of settings and inputs.
        settings: All that the result depends on besides the inputs.
        inputs: Fingerprints of the inputs, by name.
        files: Paths of the stage's own files below its folder.
        network: Whether a trained network is among them.
        seconds: Time that it took, over all commands that worked on it.
        finished: When it was finished, ISO 8601.
        versions: Of Python and libraries.
        same_as: The equal stage of the same run that the files were taken from, if they were.
    """

    version: int = 1
    stage: str = ""
    kind: str = ""
    k: int = 0
    i: int = 0
    symbol: str = ""
    fingerprint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    network: bool = False
    seconds: float = 0.0
    finished: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    same_as: str | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the plan: what will happen to a stage, and why.

    Args:
        stage: The stage.
        run: Whether it will be made.
        reason: Why it will be made, or from where it will be taken.
        source: Folder of an equal finished stage that it will be taken from.
        loses: Records of results of other settings that go when it is finished.
        consented: Whether the user has agreed to that.
        anew: Whether what an interrupted run left of the stage is not gone on with.
    """

    stage: Stage
    run: bool
    reason: str = ""
    source: Path | None = None
    loses: tuple[Manifest, ...] = ()
    consented: bool = False
    anew: bool = False


class Store:
    """The stages in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def folder_of(self, stage: Stage) -> Path:
        """Where a finished stage lies."""
        return self.folder / stage.name

    def staging_folder(self, stage: Stage) -> Path:
        """Where a stage lies while it is made."""
        home = self.folder_of(stage)
        return home.with_name(f"{home.name}{_UNFINISHED}{stage.fingerprint[:12]}")

    def is_finished(self, stage: Stage) -> bool:
        """Whether the stage's result is there, made for the same settings and inputs."""
        manifest = read_manifest(self.folder_of(stage))
        return manifest is not None and manifest.fingerprint == stage.fingerprint

    # Plans

    def plan(
        self,
        stages: Sequence[Stage],
        forced: str | None = None,
        replaced: bool = False,
        others: Sequence[Path] = (),
    ) -> list[Entry]:
        """What will happen to each of `stages`, in order.

        Args:
            stages: The run's stages.
            forced: Name of a stage to make again, and with it all that depends on it, and later
                stages that are equal to any of these.
            replaced: Whether results of other settings may be replaced.
            others: Folders of runs that equal stages may be taken from.

        Returns:
            An entry for each stage.

        Raises:
            UserError: No stage is called `forced`, or the folder holds a run of an earlier
                version, or files that are in the way.
        """
        names = [stage.name for stage in stages]
        if forced is not None and forced not in names:
            raise UserError(f"--from-stage: no stage '{forced}'; the stages are {', '.join(names)}")
        self._require_this_version(stages)
        first: dict[str, Stage] = {}
        remade: set[str] = set()
        entries = []
        for stage in stages:
            equal = first.setdefault(stage.fingerprint, stage)
            entry = self._entry(stage)
            made_of = {stage.name, equal.name, *(given.name for given in stage.inputs)}
            if forced is not None and made_of & {forced, *remade}:
                if equal.name not in remade:  # what is there stands in for nothing made again
                    first[stage.fingerprint] = equal = stage
                remade.add(stage.name)
                reason = "forced" if stage.name == forced else f"follows {forced}"
                entry = replace(entry, run=True, reason=reason, consented=True, anew=True)
            if entry.run and equal is not stage:
                home = self.folder_of(equal)
                entry = replace(entry, run=False, reason=f"same as {equal.name}", source=home)
            elif entry.run and stage.name not in remade and not self.has_begun(stage):
                holder = next((f for f in others if Store(f)._is_whole(stage)), None)
                if holder is not None:
                    home = holder / stage.name
                    entry = replace(entry, run=False, reason=f"of {holder}", source=home)
            entries.append(replace(entry, consented=entry.consented or replaced))
        return entries

    def has_begun(self, stage: Stage) -> bool:
        """Whether an unfinished stage waits there to be gone on with."""
        return (self.staging_folder(stage) / BEGUN).is_file()

    def _entry(self, stage: Stage) -> Entry:
        home = self.folder_of(stage)
        if (self.staging_folder(stage) / MANIFEST).is_file():
            return Entry(stage, False, "made; to be moved to its folder")
        manifest = read_manifest(home)
        loses = self._begun_otherwise(stage)
        if self.has_begun(stage):
            reason = "goes on where it was"
            if manifest is not None and manifest.fingerprint != stage.fingerprint:
                loses = (manifest, *loses)
            return Entry(stage, True, reason, loses=loses)
        if manifest is None:
            self._require_free(stage)
            reason = "begun with other settings" if loses else "not made yet"
            if loses:
                reason = f"begun with {difference(loses[0], stage)}"
            return Entry(stage, True, reason, loses=loses)
        if manifest.fingerprint != stage.fingerprint:
            return Entry(stage, True, difference(manifest, stage), loses=(manifest, *loses))
        missing = _missing(home, manifest.files)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return Entry(stage, True, f"{missing[0]}{more} missing")
        return Entry(stage, False)

    def _is_whole(self, stage: Stage) -> bool:
        """Whether an equal stage is finished there with all its files."""
        home = self.folder_of(stage)
        manifest = read_manifest(home)
        return (
            manifest is not None
            and manifest.fingerprint == stage.fingerprint
            and not _missing(home, manifest.files)
        )

    def _staging_folders(self, stage: Stage) -> list[Path]:
        """The folders of unfinished stages of that name, of whatever settings."""
        home = self.folder_of(stage)
        if not home.parent.is_dir():
            return []
        beginning = home.name + _UNFINISHED
        return [
            item
            for item in sorted(home.parent.iterdir())
            if item.name.startswith(beginning) and _mark_of(item) is not None
        ]

    def _begun_otherwise(self, stage: Stage) -> tuple[Manifest, ...]:
        """Records of unfinished stages of other settings that have made something."""
        records = []
        for folder in self._staging_folders(stage):
            if folder == self.staging_folder(stage):
                continue
            mark = _mark_of(folder)
            if mark is not None and any(item.name != BEGUN for item in folder.iterdir()):
                records.append(_read_record(folder / mark))
        return tuple(records)

    def _require_this_version(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            home = self.folder_of(stage)
            manifest = read_manifest(home)
            old = manifest is not None and manifest.version < VERSION
            if old or (manifest is None and (home / BEGUN).is_file()):
                raise UserError(
                    f"{self.folder}: holds a run of bdl 0.1, which this version reads (predict, "
                    "compare, export-network) and does not change; give another folder with out=..."
                )

    def _require_free(self, stage: Stage) -> None:
        home = self.folder_of(stage)
        if home.exists() and not home.is_dir():
            raise UserError(
                f"{home}: is in the way of stage '{stage.name}' and was not made by a run; "
                "move it, or set another folder with out=..."
            )
        if home.is_dir() and not self.has_begun(stage):
            own = {*stage.files(), METRICS} - self._being_moved(stage)
            taken = next((name for name in sorted(own) if (home / name).exists()), None)
            if taken is not None:
                raise UserError(
                    f"{home / taken}: is in the way of stage '{stage.name}' and was not made by a "
                    "run; move it, or set another folder with out=..."
                )

    def _being_moved(self, stage: Stage) -> set[str]:
        """Files of stages of that name, of whatever settings, whose moving a kill interrupted: in
        the stage's folder they have no manifest then."""
        names = set()
        for folder in self._staging_folders(stage):
            for record in (MANIFEST, _REPLACED):
                if (folder / record).is_file():
                    names |= {*_read_record(folder / record).files, METRICS}
        return names

    # Making

    def begin(self, stage: Stage) -> Path:
        """The folder to make the stage in, marked as its own."""
        folder = self.staging_folder(stage)
        file, record = folder / BEGUN, _record_of(stage)
        # Settings that change no result can change the files: those of before are still its own.
        before = _read_record(file) if file.is_file() else record
        record.files = list(dict.fromkeys([*before.files, *stage.files()]))
        record.seconds = before.seconds
        if not file.is_file() or record.files != before.files:
            write_json(file, plain(record))
        return folder

    def seconds_of_begun(self, stage: Stage) -> float:
        """The time that an unfinished stage has taken, as far as it was kept."""
        return _read_record(self.staging_folder(stage) / BEGUN).seconds

    def keep_seconds(self, stage: Stage, seconds: float) -> None:
        """Keep the time that an unfinished stage has taken so far."""
        file = self.staging_folder(stage) / BEGUN
        write_json(file, plain(replace(_read_record(file), seconds=round(seconds, 3))))

    def restart(self, stage: Stage) -> None:
        """Forget what an unfinished stage of the same settings has made."""
        _clear(self.staging_folder(stage), BEGUN)

    def finish(self, stage: Stage, metrics: Metrics, seconds: float, made_on: MadeOn) -> None:
        """Move a stage into its folder, where its results count from then on.

        Results of other settings of the same name go, finished or not.
        """
        folder = self.staging_folder(stage)
        write_json(folder / METRICS, plain(metrics))
        record = _record_of(stage)
        record = replace(record, **plain(made_on), files=sorted(stage.files()))
        record.seconds = round(seconds, 3)
        record.finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record.versions = versions()
        absent = _missing(folder, record.files)
        assert not absent, f"{stage.name} did not make {absent[:3]}"
        write_json(folder / MANIFEST, plain(record))
        self._publish(stage)

    def take(self, stage: Stage, source: Path) -> None:
        """Take an equal finished stage from the folder `source`, by hard links where the file
        system has them: files are replaced, never changed, so that both stay right."""
        manifest = read_manifest(source)
        assert manifest is not None and manifest.fingerprint == stage.fingerprint
        folder = self.begin(stage)
        for name in (*manifest.files, METRICS):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            _link_or_copy(source / name, target)
        if source.is_relative_to(self.folder):
            manifest.same_as = manifest.same_as or manifest.stage
        record = _record_of(stage)
        manifest.stage, manifest.k, manifest.i = record.stage, record.k, record.i
        manifest.symbol, manifest.inputs = record.symbol, record.inputs
        write_json(folder / MANIFEST, plain(manifest))
        self._publish(stage)

    def resume_publishing(self, stage: Stage) -> bool:
        """Finish what a kill interrupted while a stage was moved; whether there was one."""
        if not (self.staging_folder(stage) / MANIFEST).is_file():
            return False
        self._publish(stage)
        return True

    def _publish(self, stage: Stage) -> None:
        """Each step can be repeated after a kill: a manifest in the staging folder says that all is
        made; one in its folder, written last, that all is there."""
        folder, home = self.staging_folder(stage), self.folder_of(stage)
        record = _read_record(folder / MANIFEST)
        home.mkdir(parents=True, exist_ok=True)
        if (home / MANIFEST).is_file():
            os.replace(home / MANIFEST, folder / _REPLACED)
        if (folder / _REPLACED).is_file():
            replaced = _read_record(folder / _REPLACED)
            _remove(home, set(replaced.files) - set(record.files))
        for name in (*record.files, METRICS):
            if (folder / name).exists():
                target = home / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / name, target)
        if (folder / BEGUN).is_file():
            os.replace(folder / BEGUN, folder / _MOVED)
        os.replace(folder / MANIFEST, home / MANIFEST)
        self.tidy(stage)

    def tidy(self, stage: Stage) -> None:
        """Remove what a kill left of the making of a finished stage, and unfinished stages
        that it replaced."""
        folder = self.staging_folder(stage)
        if (folder / _MOVED).is_file() and not (folder / MANIFEST).is_file():
            home = self.folder_of(stage)
            finished = read_manifest(home)
            kept = set() if finished is None else {*finished.files, METRICS}
            for other in self._staging_folders(stage):
                # Of a stage whose moving a kill interrupted, files lie in the stage's folder, too.
                _remove(home, _moved_from(other) - kept)
                _clear(other, _mark_of(other) or BEGUN)
            _clear(folder, _MOVED)

    # Staleness

    def stale(self, records: Iterable[Manifest]) -> dict[str, str]:
        """Finished stages that were made from what is no longer there: name and the reason.

        Args:
            records: Records of the folder's stages, each after its inputs.
        """
        stale: dict[str, str] = {}
        current: dict[str, str] = {}
        for record in records:
            current[record.stage] = record.fingerprint
            for name, fingerprint in record.inputs.items():
                if name in stale or current.get(name, fingerprint) != fingerprint:
                    stale[record.stage] = f"made from an earlier {name}"
                    break
        return stale


def require_consent(folder: Path, plan: Sequence[Entry]) -> None:
    """Raises UserError if the plan would replace results of other settings unasked."""
    unasked = [entry for entry in plan if entry.loses and not entry.consented]
    if not unasked:
        return
    raise UserError(
        f"out: {folder} holds results of other settings: {describe_loss(unasked)}; give out=... "
        "for another folder, the settings as they were, or --replace"
    )


def describe_loss(entries: Sequence[Entry]) -> str:
    """Which settings differ, and what replacing the results would cost."""
    changes: dict[str, None] = {}
    for entry in entries:
        for change in differences(entry.loses[0], entry.stage):
            changes[change] = None
    lost = [record for entry in entries for record in entry.loses]
    networks = sum(record.network and bool(record.finished) for record in lost)
    begun = sum(not record.finished for record in lost)
    seconds = sum(record.seconds for record in lost if record.same_as is None)
    shown = ", ".join(list(changes)[:4]) + (
        f" and {len(changes) - 4} more" if len(changes) > 4 else ""
    )
    stages = ", ".join(entry.stage.name for entry in entries[:3])
    if len(entries) > 3:
        stages += f" and {len(entries) - 3} more"
    return (
        f"{shown or 'inputs changed'}. Replacing them costs {networks} trained network"
        f"{'' if networks == 1 else 's'}, {duration(seconds)} of work"
        f"{f' and {begun} unfinished' if begun else ''} ({stages})"
    )


def differences(record: Manifest, stage: Stage) -> list[str]:
    """The settings in which a record differs from a stage, as "KEY was OLD, is NEW"."""
    # As JSON has it, where there are no tuples.
    old, new = flatten(record.settings), flatten(json.loads(json.dumps(stage.settings)))
    chosen = []
    if stage.chosen_by and not stage.is_of_class(record.kind, record.settings):
        chosen = [f"{stage.chosen_by} changed"]
        old = {key: value for key, value in old.items() if key in new}
        new = {key: value for key, value in new.items() if key in old}
    return chosen + [
        f"{key} was {_short(old.get(key))}, is {_short(new.get(key))}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def difference(record: Manifest, stage: Stage) -> str:
    """Why a stage of other settings does not fit, in a few words."""
    changed = differences(record, stage)
    if changed:
        return changed[0] + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
    for given in stage.inputs:
        if record.inputs.get(given.name) != given.fingerprint:
            return f"{given.name} changed"
    return "inputs changed"


def read_manifest(folder: Path) -> Manifest | None:
    """The record of a finished stage in its folder; None if the folder holds none."""
    file = folder / MANIFEST
    return _read_record(file) if file.is_file() else None


def read_metrics(folder: Path, kind: type[Metrics]) -> Metrics | None:
    """The metrics of a finished stage in its folder; None if the folder holds none."""
    if not (folder / MANIFEST).is_file():
        return None
    file = folder / METRICS
    try:
        return restored(kind, read_json(file))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not what a stage measured ({error})") from None


def _record_of(stage: Stage) -> Manifest:
    return Manifest(
        version=VERSION,
        stage=stage.name,
        kind=stage.kind,
        k=stage.k,
        i=stage.i,
        symbol=stage.symbol,
        fingerprint=stage.fingerprint,
        settings=json.loads(json.dumps(stage.settings)),
        inputs={given.name: given.fingerprint for given in stage.inputs},
        network=stage.is_network,
    )


def _read_record(file: Path) -> Manifest:
    content = read_json(file)
    needed = {"stage", "kind", "fingerprint", "settings", "inputs"}
    if not isinstance(content, dict) or not content.keys() >= needed:
        raise UserError(f"{file}: is not the record of a stage; move it away and run again")
    if content.get("version", 1) < VERSION:  # which counted the files and did not name them
        content = {**content, "version": 1, "files": []}
    elif content["version"] > VERSION:
        raise UserError(f"{file}: was written by a later version of bdl; update bdl")
    try:
        return restored(Manifest, content)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: is not the record of a stage ({error})") from None


def _missing(folder: Path, names: Collection[str]) -> list[str]:
    """Those of the files `names` that are not in the folder; one look at each of its folders."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, _, last = name.rpartition("/")
        if parent not in present:
            inner = folder / parent
            present[parent] = set(os.listdir(inner)) if inner.is_dir() else set()
        if last not in present[parent]:
            missing.append(name)
    return missing


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files by their names, and folders that are empty then."""
    parents = set()
    for name in names:
        file = folder / name
        file.unlink(missing_ok=True)
        parents |= {parent for parent in file.parents if parent.is_relative_to(folder)}
    for parent in sorted(parents - {folder}, key=lambda path: -len(path.parts)):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _mark_of(staging: Path) -> str | None:
    """The record by which an unfinished stage's folder is known; None if it is none, or if all that
    was in it has been moved."""
    if (staging / BEGUN).is_file():
        return BEGUN
    return _MOVED if (staging / _MOVED).is_file() and (staging / MANIFEST).is_file() else None


def _moved_from(staging: Path) -> set[str]:
    """Files in a stage's folder that a kill left there when it was being moved: those that are in
    its folder no longer, and those of what it replaces."""
    moved: set[str] = set()
    if (staging / MANIFEST).is_file():
        own = {*_read_record(staging / MANIFEST).files, METRICS}
        moved |= {name for name in own if not (staging / name).exists()}
    if (staging / _REPLACED).is_file():
        moved |= {*_read_record(staging / _REPLACED).files, METRICS}
    return moved


def _clear(staging: Path, mark: str) -> None:
    """Remove an unfinished stage: its files, its scratch, its `mark` last, and the folder unless
    others have put something into it."""
    if not (staging / mark).is_file():
        return
    own = {*_read_record(staging / mark).files, MANIFEST, METRICS, _REPLACED}
    inside = [file.relative_to(staging).as_posix() for file in staging.rglob("*") if file.is_file()]
    _remove(staging, [name for name in inside if name in own or _SCRATCH.fullmatch(name)])
    for inner in sorted(staging.rglob("*"), key=lambda path: -len(path.parts)):
        if inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()
    (staging / mark).unlink()
    if any(staging.iterdir()):
        log.info("%s: stays, as it holds files that no run made", staging)
    else:
        staging.rmdir()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
