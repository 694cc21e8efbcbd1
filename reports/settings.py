"""Settings of several runs, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from bdl.runtime.config_keys import all_keys, default_of
from bdl.runtime.values import plain

Row = tuple[str, list[Any]]


def differing(runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The keys whose values are not the same in all runs, each with its value by run.

    A section that one run has and another has not, such as `data.target_labelled`, is one row: what
    is in it and is no default, as a mapping, or None.

    Args:
        runs: Settings by dotted key.
    """
    keys = dict.fromkeys(key for run in runs for key in run)
    whole = [key for key in keys if any(inner.startswith(f"{key}.") for inner in keys)]
    rows: dict[str, list[Any]] = {}
    for key in keys:
        section = next((name for name in whole if key.startswith(f"{name}.")), key)
        if section not in rows:
            rows[section] = [_value(run, section, section in whole) for run in runs]
    return [(key, values) for key, values in rows.items() if values != values[:1] * len(values)]


def _value(run: Mapping[str, Any], key: str, is_section: bool) -> Any:
    """A key's value; of a section what is no default in it, None where the run has none."""
    inner = {name: value for name, value in run.items() if name.startswith(f"{key}.")}
    if not is_section or not inner:
        return run.get(key)
    return {
        name.removeprefix(f"{key}."): value
        for name, value in inner.items()
        if name not in all_keys() or value != plain(default_of(name))
    }
