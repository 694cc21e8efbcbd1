"""A stage: one box of Algorithm 1, as a value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from bdl.runtime.metrics import Metrics
from bdl.runtime.run import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """One box of Algorithm 1.

    The fields of a subclass are its settings: all that its result depends on. A field that is a
    stage, or holds one, is an input. A field with compare=False changes nothing that another stage
    is made of: it is shown; or it leads to what another field has the hash of, as a file's path
    does; or it adds to what the stage measures and keeps to be looked at. A field's metadata "key"
    is its name in messages, where that is another one. With the metadata "optional" it is a setting
    only where it is not its default, so that a field that is added leaves the fingerprints of all
    that does not use it as they were. The metadata "no settings" names those entries of a
    dictionary that change no result.

    Args:
        k: Round of Algorithm 1, counted from 1; 0 for what comes before the first.
        i: Self-training step within the round; 0 for what comes before the first.
    """

    kind: ClassVar[str]  # what it does, the same for all rounds
    unit: ClassVar[str]  # what its work is counted in
    metrics: ClassVar[type[Metrics]] = Metrics  # what `make` returns
    is_network: ClassVar[bool] = False  # whether it holds a trained network
    chosen_by: ClassVar[str] = ""  # the key that decides which class makes the stage of its name

    k: int = field(default=0, compare=False)
    i: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Its folder below the run's; unique in a run."""
        raise NotImplementedError

    @property
    def symbol(self) -> str:
        """The paper's symbol for it, or for the network that it belongs to: M(1,0), F(2)."""
        return self.name

    @property
    def cost(self) -> str:
        """A name shared by stages of which each unit of work takes as long."""
        return self.kind

    @property
    def log(self) -> str:
        """Its folder among TensorBoard's logs, which sort as the loop runs."""
        return self.name.replace("/", "-")

    @property
    def work(self) -> int:
        """How many units of work it takes, for estimates of time."""
        raise NotImplementedError

    def files(self) -> Sequence[str]:
        """The files that it makes, as paths below its folder with forward slashes."""
        raise NotImplementedError

    def trial(self, run: Run) -> float | None:
        """Seconds of a unit of its work, tried on noise before any of its inputs is there; None
        where that cannot be tried. It leaves torch's random state as it is."""
        return None

    def require(self) -> None:
        """Raise UserError for what will stop `make` and can be seen before any stage is made."""

    def make(self, run: Run, folder: Path) -> Metrics:
        """Make the files in `folder`, or go on with what an interrupted call left there."""
        raise NotImplementedError

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings as JSON holds them, without the inputs."""
        return {key: as_setting(value) for key, value in _compared(self) if not _is_stage(value)}

    def is_of_class(self, kind: str, settings: Mapping[str, Any]) -> bool:
        """Whether a record of that kind, with these settings, may be of a stage of this class."""
        optional = {
            f.metadata.get("key", f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("optional")
        }
        return kind == self.kind and settings.keys() >= self.settings.keys() - optional

    @cached_property
    def inputs(self) -> tuple[Stage, ...]:
        """The stages whose results this one uses, each once."""
        unique = {stage.name: stage for _, stage in _stages_in(self)}
        return tuple(unique.values())

    @property
    def seen(self) -> Sequence[Stage]:
        """Stages, besides the inputs, whose results it looks at, and that change no result."""
        return ()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of kind, settings and the fingerprints of the inputs."""
        return fingerprint_of(self, kind=self.kind)

    def __eq__(self, other: object) -> bool:
        """Whether the results are the same, wherever in the loop they are made."""
        return isinstance(other, Stage) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def fingerprint_of(value: Any, **more: str) -> str:
    """A hash of a dataclass: its settings, the fingerprints of the stages in it, and `more`."""
    content = {
        **more,
        "settings": as_setting(value),
        "inputs": {path: stage.fingerprint for path, stage in _stages_in(value)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_stage(value: Any) -> bool:
    return isinstance(value, Stage)


def _compared(value: Any) -> list[tuple[str, Any]]:
    """Names and values of the fields of a dataclass that results depend on."""
    compared = []
    for f in dataclasses.fields(value):
        held = getattr(value, f.name)
        if not f.compare or (f.metadata.get("optional") and held == f.default):
            continue
        if without := f.metadata.get("no settings"):
            held = {name: item for name, item in held.items() if name not in without}
        compared.append((f.metadata.get("key", f.name), held))
    return compared


def as_setting(value: Any) -> Any:
    """A setting as JSON holds it; stages in it are inputs, and left out."""
    if dataclasses.is_dataclass(value):
        return {key: as_setting(item) for key, item in _compared(value) if not _is_stage(item)}
    if isinstance(value, Mapping):
        return {str(key): as_setting(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_setting(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} is no setting")


def _stages_in(value: Any, path: str = "") -> Iterator[tuple[str, Stage]]:
    """The stages that a stage's fields, and dataclasses in these, hold: (path, stage)."""
    for key, item in _compared(value):
        if isinstance(item, Stage):
            yield path + key, item
        elif dataclasses.is_dataclass(item):
            yield from _stages_in(item, f"{path}{key}.")


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: {"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(settings, Mapping) or not settings:
        return {prefix.rstrip("."): settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, f"{prefix}{key}."))
    return flat
