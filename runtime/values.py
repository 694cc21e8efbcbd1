"""Dataclasses as plain values (what JSON holds), and back."""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


def plain(value: Any) -> Any:
    """A dataclass as nested dictionaries, lists and plain values; tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def restored(kind: type[Kind], content: Mapping[str, Any]) -> Kind:
    """A dataclass of that kind from what `plain` made of one; unknown keys are left out.

    Raises TypeError or ValueError if a value is missing or of another shape.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name in content]  # type: ignore[arg-type]
    return kind(**{name: _restored(hints[name], content[name]) for name in names})


def _restored(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (item for item in get_args(hint) if item is not NoneType)
        return None if value is None else _restored(hint, value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return restored(hint, value)
    if get_origin(hint) is list:
        (item_hint,) = get_args(hint)
        return [_restored(item_hint, item) for item in value]
    if get_origin(hint) is dict:
        _, item_hint = get_args(hint)
        return {key: _restored(item_hint, item) for key, item in value.items()}
    return value
