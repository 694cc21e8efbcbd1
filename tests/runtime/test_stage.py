"""Stages as values: what a fingerprint depends on, and what it does not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from bdl.runtime.stage import Stage, flatten


@dataclass(frozen=True)
class Inner:
    """A setting of several parts, one of which holds a stage."""

    value: float = 1.0
    shown: str = field(default="", compare=False)
    source: Stage | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Box(Stage):
    kind: ClassVar[str] = "make"
    unit: ClassVar[str] = "steps"

    called: str = field(default="box", compare=False)
    rate: Any = 1
    inner: Inner = field(default=Inner(), metadata={"key": "data.inner"})
    given: Stage | None = None

    @property
    def name(self) -> str:
        return self.called

    def files(self) -> Sequence[str]:
        return []


@dataclass(frozen=True, eq=False, kw_only=True)
class Other(Box):
    kind: ClassVar[str] = "other"


@dataclass(frozen=True, eq=False, kw_only=True)
class Longer(Box):
    """A later form of the box."""

    added: Inner | None = field(default=None, metadata={"key": "data.added", "optional": True})


def test_an_optional_field_is_no_setting_at_its_default():
    """What was made before there was such a field keeps its fingerprint."""
    assert Longer().fingerprint == Box().fingerprint and "data.added" not in Longer().settings
    given = Longer(added=Inner())
    assert given.fingerprint != Box().fingerprint
    assert given.settings["data.added"]["value"] == 1.0


def test_fingerprints_depend_on_kind_settings_and_inputs_alone():
    a = Box(called="a", rate=7)
    first = Box(called="b", given=a).fingerprint
    same = [
        Box(called="other", given=Box(called="z", rate=7)),
        Box(called="b", given=a, k=3, i=2),
        Box(called="b", given=a, inner=Inner(shown="another title")),
    ]
    assert {stage.fingerprint for stage in same} == {first}
    assert all(stage == same[0] and hash(stage) == hash(same[0]) for stage in same)
    different = [
        Box(called="b", given=a, rate=2),
        Box(called="b", given=a, inner=Inner(2.0)),
        Box(called="b", given=a, inner=Inner(source=a)),
        Box(called="b"),
        Box(called="b", given=Box(called="a", rate=8)),
        Other(called="b", given=a),
    ]
    prints = [stage.fingerprint for stage in different]
    assert first not in prints and len(set(prints)) == len(prints)


def test_inputs_are_found_wherever_a_setting_holds_them():
    a, b = Box(called="a"), Box(called="b", rate=2)
    stage = Box(called="c", given=a, inner=Inner(source=b))
    assert [given.name for given in stage.inputs] == ["b", "a"]
    twice = Box(called="c", given=a, inner=Inner(source=a))
    assert [given.name for given in twice.inputs] == ["a"]
    assert twice.fingerprint != Box(called="c", given=a).fingerprint


def test_settings_are_what_json_holds_under_the_names_of_keys():
    stage = Box(rate=(1, 2), inner=Inner(3.0, "hidden"))
    inner = {"value": 3.0, "source": None}
    assert stage.settings == {"rate": [1, 2], "data.inner": inner, "given": None}
    assert flatten(stage.settings) == {
        "rate": [1, 2],
        "data.inner.value": 3.0,
        "data.inner.source": None,
        "given": None,
    }


def test_the_order_of_a_settings_keys_does_not_matter():
    assert Box(rate={"x": 1, "y": 2}).fingerprint == Box(rate={"y": 2, "x": 1}).fingerprint


def test_what_json_does_not_hold_is_no_setting():
    with pytest.raises(TypeError, match="a object is no setting"):
        _ = Box(rate=object()).settings
