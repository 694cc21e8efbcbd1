"""Reading a configuration: YAML files that build on each other, then `key=value` overrides.

What the keys are stands in config_keys.py, what values cannot be used in config_checks.py.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from bdl.runtime.config_checks import faults, shown, wanted
from bdl.runtime.config_idle import idle
from bdl.runtime.config_keys import (
    RENAMED,
    AdversarialConfig,
    AugmentationConfig,
    Config,
    DataConfig,
    DeviceName,
    DomainConfig,
    EvaluationConfig,
    FourierConfig,
    GeneratorConfig,
    Key,
    OptimizerConfig,
    PrecisionName,
    PseudoLabelConfig,
    ScheduleConfig,
    SegmentationConfig,
    SegmenterTraining,
    TranslationConfig,
    TranslationWeights,
    TranslatorTraining,
    all_keys,
    default_of,
    known_keys,
    part_of,
    set_value,
    value_at,
)
from bdl.runtime.console import log
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import is_no_folder
from bdl.runtime.ownership import CONFIGURATION
from bdl.runtime.values import plain
from bdl.runtime.yaml_text import NULL, Loader, read_bytes, to_text, yaml_problem

__all__ = [
    "CONFIGURATIONS",
    "AdversarialConfig",
    "AugmentationConfig",
    "Config",
    "DataConfig",
    "DeviceName",
    "DomainConfig",
    "EvaluationConfig",
    "FourierConfig",
    "GeneratorConfig",
    "OptimizerConfig",
    "PrecisionName",
    "PseudoLabelConfig",
    "ScheduleConfig",
    "SegmentationConfig",
    "SegmenterTraining",
    "TranslationConfig",
    "TranslationWeights",
    "TranslatorTraining",
    "escaped",
    "find_config",
    "known_keys",
    "load_config",
    "part_of",
    "to_yaml",
    "value_at",
]

CONFIGURATIONS = Path(__file__).resolve().parent.parent / "configs"
BASE_KEY = "base"  # a file's own key: YAML files, beside it or own, that it builds on, last wins
_COMMAND_LINE = "command line"
_TEXT = "tag:yaml.org,2002:str"
_QUOTED = re.compile(r"""'([^']|'')*'|"([^"\\]|\\.)*\"""")
_INTERPOLATION = re.compile(r"(\\*)\$\{(?:([^${}]*)\})?")  # with the backslashes before it
_NAMED = 3  # keys in a line about several
_NETWORK, _OPTIONS = "segmentation.network", "segmentation.options"


@dataclass(frozen=True)
class _Setting:
    """A key, the value that it is given, and by whom: a file's path, or "command line"."""

    key: str
    value: Any
    origin: str

    def error(self, problem: str) -> UserError:
        return UserError(f"{self.origin}: {self.key}: {problem}")


def load_config(
    path: str | Path,
    overrides: Sequence[str] | None = None,
    problems: list[str] | None = None,
    notes: list[str] | None = None,
) -> Config:
    """Read a YAML file and `key=value` overrides into a checked Config.

    Args:
        path: A file, or the name of one of the project's own configurations.
        overrides: What replaces the file's values. Text is taken as it stands, but for
            ${oc.env:NAME} and ${KEY} of a key that there is; all else is YAML.
        problems: A list to which all unknown keys and values that cannot be used are added, in the
            place of an error; a value of a wrong type is the default in what is returned.
        notes: A list to which a line is added for settings that nothing reads beside the others.

    Returns:
        The configuration, in whose paths a leading ~ has become the home folder.

    Raises:
        UserError: In a line that names the file (or the command line), the key and what to do.
    """
    said: list[str] = [] if problems is None else problems
    before = len(said)
    file = find_config(path)
    layers = [*_layers(file, (), said), (_COMMAND_LINE, _overrides(overrides or (), said))]
    schema = OmegaConf.structured(Config)
    setters: dict[str, _Setting] = {}  # by key, the last
    for _, layer in layers:
        # First of all the network: another one drops the options of the one before it.
        for setting in sorted(layer, key=lambda setting: setting.key != _NETWORK):
            try:
                _apply(schema, setting)
            except UserError as error:
                said.append(str(error))
            else:
                setters[setting.key] = setting
    for setting in setters.values():
        try:
            _resolve(schema, setting)
        except UserError as error:
            said.append(str(error))
            OmegaConf.update(schema, setting.key, default_of(setting.key), merge=False)
    config = OmegaConf.to_object(schema)
    assert isinstance(config, Config)
    _expand_home(config)
    order = [origin for origin, _ in layers]
    for fault in faults(config):
        keys = (fault.key, *fault.others)
        origins = [setters[key].origin for key in keys if key in setters]
        origin = max(origins, key=order.index, default=str(file))
        said.append(f"{origin}: {fault.key}: {fault.problem}")
    if problems is None and len(said) > before:
        raise UserError(said[before])
    if notes is not None and len(said) == before:
        notes += _without_effect(config, setters, order)
    return config


def _without_effect(
    config: Config, setters: Mapping[str, _Setting], order: Sequence[str]
) -> Iterator[str]:
    """A line for each reason why nothing reads a setting that the user gave.

    Of the project's own files nothing is told, nor of a value that is the default, nor of one that
    was given before what makes it idle: `iterations=0` is meant to leave out what a file says.

    Args:
        config: The configuration.
        setters: By key, what gave its value.
        order: Files and the command line, most basic first.
    """
    left = {
        key: setting
        for key, setting in setters.items()
        if (value := value_at(config, key)) is not None
        and Path(setting.origin).resolve().parent != CONFIGURATIONS
        and (setting.origin == _COMMAND_LINE or value != default_of(key))
    }
    for one in idle(config):
        given = [order.index(setters[key].origin) for key in one.because if key in setters]
        keys = [
            key
            for key, setting in left.items()
            if one.holds(key) and order.index(setting.origin) >= max(given, default=0)
        ]
        for key in keys:
            del left[key]
        if keys:
            more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            have = "have" if keys[1:] else "has"
            yield f"{', '.join(keys[:_NAMED])}{more} {have} no effect: {one.why}"


def find_config(path: str | Path) -> Path:
    """The file at `path`, or the project's own configuration of that name.

    Raises UserError that lists the project's own, with the nearest name there is.
    """
    file = Path(os.path.expanduser(path))
    if is_no_folder(file):
        return file
    own = {item.stem: item for item in sorted(CONFIGURATIONS.glob("*.yaml"))}
    # Not for any folder's: a mistyped path would silently run something else.
    is_name = os.fspath(path) == file.name or file.parent == Path(CONFIGURATIONS.name)
    if is_name and file.stem in own:
        return own[file.stem]
    known = [name for name in own if not name.startswith("_")]
    said = f"{path}: no such configuration file; the project's own are: {', '.join(known)}"
    if os.path.isfile(file / CONFIGURATION):
        raise UserError(f"{said}; did you mean '{file / CONFIGURATION}'?")
    beside = [item for item in sorted(file.parent.glob("*")) if item.suffix in (".yaml", ".yml")]
    by_name = {name: name for name in known} | {item.name: str(item) for item in beside}
    by_name |= {item.stem: str(item) for item in beside}
    near = difflib.get_close_matches(file.name, by_name, n=1)
    near = near or difflib.get_close_matches(file.stem, by_name, n=1)
    raise UserError(said + (f"; did you mean '{by_name[near[0]]}'?" if near else ""))


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML, which `load_config` reads back as the same.

    Args:
        config: The configuration.

    Returns:
        YAML with every key.
    """
    return to_text(escaped(plain(config)))


def escaped(content: Any) -> Any:
    """Plain values whose text `_resolve` reads as it stands."""
    if isinstance(content, dict):
        return {name: escaped(item) for name, item in content.items()}
    if isinstance(content, list):
        return [escaped(item) for item in content]
    if isinstance(content, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", content)
    return content


# From text to settings


def _layers(
    file: Path, above: tuple[Path, ...], said: list[str]
) -> list[tuple[str, list[_Setting]]]:
    """What the file and those it builds on set, by origin, most basic first. Unknown keys and the
    like are added to `said`."""
    if file.resolve() in above:
        raise UserError(f"{file}: builds on itself through '{BASE_KEY}'; remove the circle")
    content, origin = read_bytes(file), str(file)
    try:
        loader = Loader(content)
        node = loader.get_single_node() or yaml.MappingNode("", [])
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{file}: must be a mapping of keys to values")
        pairs = loader.pairs(node)
        bases = [
            loader.construct_object(item, deep=True) for name, item in pairs if name == BASE_KEY
        ]
        settings = [
            setting
            for name, item in pairs
            if name != BASE_KEY
            for setting in _settings(loader, item, name, origin, said)
        ]
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{file}: is not valid YAML: {yaml_problem(error, content)}") from None
    layers = []
    for base in bases[0] if bases and isinstance(bases[0], list) else filter(None, bases):
        beside = file.parent / os.path.expanduser(str(base))
        try:
            base_file = beside if is_no_folder(beside) else find_config(str(base))
        except UserError as error:
            named = [beside.with_name(beside.name + ending) for ending in (".yaml", ".yml")]
            meant = next((f"; did you mean '{n.name}'?" for n in named if is_no_folder(n)), "")
            raise UserError(f"{file}: {BASE_KEY}: {error}{meant}") from None
        layers += _layers(base_file, (*above, file.resolve()), said)
    return [*layers, (origin, settings)]


def _overrides(overrides: Sequence[str], said: list[str]) -> list[_Setting]:
    """What the command line sets."""
    settings: list[_Setting] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        name = name.strip()
        if not equals:
            said.append(f"{_COMMAND_LINE}: '{override}' is not of the form key=value")
            continue
        try:
            node, loader = _override_node(text, RENAMED.get(name, name))
            settings += [
                replace(setting, value=_as_typed(setting.value))
                for setting in _settings(loader, node, name, _COMMAND_LINE, said)
            ]
        except (yaml.YAMLError, ValueError) as error:
            problem = yaml_problem(error, text).replace(" in line 1", "")
            said.append(f"{_COMMAND_LINE}: {name}: '{text}' is not valid YAML: {problem}")
    return settings


def _override_node(text: str, name: str) -> tuple[yaml.Node, Loader]:
    """The value of an override and what reads it: of a key that takes text the text itself, unless
    it is null or is quoted as a whole; of others YAML."""
    key = all_keys().get(name) or _item_of(name)
    if key is not None and key.takes_text and not _QUOTED.fullmatch(text):
        # Not through YAML, which has no character for bytes that are no UTF-8, as in a file's name.
        return yaml.ScalarNode(NULL if text == "null" else _TEXT, text), Loader("")
    loader = Loader(text)
    return loader.get_single_node() or yaml.ScalarNode(NULL, ""), loader


def _as_typed(value: Any) -> Any:
    """A value of the command line of which `_resolve` looks up what is documented, no other text:
    names of files may hold any."""
    if isinstance(value, dict):
        return {name: _as_typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_typed(item) for item in value]
    if not isinstance(value, str):
        return value

    def kept(match: re.Match[str]) -> str:
        inner = match[2] or ""
        documented = inner.startswith("oc.env:") or inner in all_keys()
        return match[0] if documented else escaped(match[0])

    return _INTERPOLATION.sub(kept, value)


def _settings(
    loader: Loader, node: yaml.Node, name: str, origin: str, said: list[str]
) -> Iterator[_Setting]:
    """What `node` sets of the key `name` and of those in its section."""
    if name in RENAMED:
        log.warning("%s: %s is called %s now", origin, name, RENAMED[name])
        name = RENAMED[name]
    key, item = all_keys().get(name), _item_of(name)
    if key is None and item is None:
        said.append(f"{origin}: unknown key '{name}'{_suggestion(name)}")
    elif key is None:
        assert item is not None
        value = _value(loader, node, item)
        whole, inner = _split_item(name)
        for part in reversed(inner):
            value = {part: value}
        yield _Setting(whole, value, origin)
    elif not key.is_section:
        yield _Setting(name, _value(loader, node, key), origin)
    elif isinstance(node, yaml.MappingNode):
        for part, value_node in loader.pairs(node):
            yield from _settings(loader, value_node, f"{name}.{part}", origin, said)
    elif node.tag == NULL and key.optional and node.value:
        yield _Setting(name, None, origin)
    elif node.tag == NULL and key.optional:
        said.append(f"{origin}: {name}: is empty; give its keys, or null for none")
    elif node.tag != NULL or node.value:  # a section of which all keys are comments sets nothing
        said.append(f"{origin}: {name}: has keys of its own; set {name}.KEY")


def _value(loader: Loader, node: yaml.Node, key: Key) -> Any:
    """What `node` is for a key of that type; text as it was written."""
    value = loader.construct_object(node, deep=True)  # whatever it is: no tag passes unseen
    if isinstance(value, dict) and isinstance(node, yaml.MappingNode):
        item = Key((get_args(key.hint) or (None, Any))[-1], False, {})
        return {name: _value(loader, inner, item) for name, inner in loader.pairs(node)}
    if key.takes_text and isinstance(node, yaml.ScalarNode) and node.tag != NULL:
        return node.value
    return value


def _split_item(name: str) -> tuple[str, list[str]]:
    """The key of free names that `name` lies in, and its name there, by parts where the value may
    be anything; both empty if there is none."""
    for whole, key in all_keys().items():
        if get_origin(key.hint) is dict and name.startswith(f"{whole}."):
            inner = name.removeprefix(f"{whole}.")
            return whole, [inner] if get_args(key.hint)[1] is str else inner.split(".")
    return "", []


def _item_of(name: str) -> Key | None:
    """The type of a value in a key of free names."""
    whole, _ = _split_item(name)
    return Key(get_args(all_keys()[whole].hint)[1], False, {}) if whole else None


def _suggestion(name: str) -> str:
    """The nearest known key: one of the same last part, else by the whole dotted name, or by
    its last part."""
    keys = [*known_keys(), *RENAMED]
    last = {key.rsplit(".", 1)[-1]: key for key in reversed(keys)}
    same = [key for key in keys if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    same = [key for key in same if key.split(".")[0] == name.split(".")[0]] or same
    near = difflib.get_close_matches(name, same or keys, n=1, cutoff=0 if same else 0.75)
    if not near:
        parts = difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=1, cutoff=0.6)
        near = [last[part] for part in parts] or difflib.get_close_matches(name, keys, n=1)
    return f"; did you mean '{RENAMED.get(near[0], near[0])}'?" if near else ""


# From settings to a configuration


def _apply(schema: Any, setting: _Setting) -> None:
    """Set it in `schema`. Raises UserError for a value of a wrong type."""
    key, value = all_keys()[setting.key], setting.value
    section = setting.key.rpartition(".")[0]
    if section and OmegaConf.select(schema, section) is None:  # null in a file before
        OmegaConf.update(schema, section, DomainConfig())
    if setting.key == _NETWORK and value != OmegaConf.select(schema, _NETWORK):
        OmegaConf.update(schema, _OPTIONS, {}, merge=False)
    try:
        if key.hint is bool and isinstance(value, int) and value not in (0, 1):
            raise ValidationError  # OmegaConf takes any number but 0 for true
        if key.is_list and isinstance(value, int | float):
            value = [value]
        OmegaConf.update(schema, setting.key, value)
    except GrammarParseError as error:
        problem = (
            f"{shown(value)} is not a valid ${{...}} ({first_line(error)}); write \\${{ for ${{"
        )
        raise setting.error(problem) from None
    except OmegaConfBaseException:
        if key.choices:
            problem = f"{shown(value)} is not one of {', '.join(key.choices)}"
        else:
            problem = f"is {shown(value)}, must be {wanted(key)}"
        raise setting.error(problem) from None


def _resolve(schema: Any, setting: _Setting) -> None:
    """Look up what ${...} in its value stands for. Raises UserError if that cannot be."""
    try:
        value = OmegaConf.select(schema, setting.key, throw_on_missing=True)
        if OmegaConf.is_config(value):
            OmegaConf.to_object(value)
    except MissingMandatoryValue:
        raise setting.error("is '???', which stands for a missing value; give another") from None
    except OmegaConfBaseException as error:
        unset = re.search(r"Environment variable '(\w+)' not found", str(error))
        raise setting.error(
            f"the environment variable {unset[1]} is not set; set it, or give {setting.key}=VALUE"
            if unset
            else f"{shown(setting.value)} cannot be looked up: {first_line(error)}"
        ) from None


def _expand_home(config: Config) -> None:
    """Replace a leading ~ in all paths by the home folder."""
    for name, key in all_keys().items():
        value = value_at(config, name) if "path" in key.metadata else None
        if isinstance(value, dict):
            set_value(config, name, {k: os.path.expanduser(item) for k, item in value.items()})
        elif value is not None:
            set_value(config, name, os.path.expanduser(value))
