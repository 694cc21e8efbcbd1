"""YAML as this project reads and writes it: text can stay as it was written, numbers like 1e-4 are
numbers, no key is lost to another of its name, and errors say where they are and what to do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bdl.runtime.errors import UserError, first_line
from bdl.runtime.files import open_regular

NULL = "tag:yaml.org,2002:null"
_BOOL, _MERGE = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge"

# YAML 1.1, which PyYAML reads, has dates, octal and base-60 numbers, and takes 1e-4 for text.
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
# What begins a value that YAML takes for something else than text
_SPECIAL = re.compile(r"[:\-]\s+([*&!%@`].*?|[{\[][^}\]]*[}\]][^,}\]\s].*?)\s*$")


def _resolvers(kept: Callable[[str], bool]) -> dict[Any, list[tuple[str, re.Pattern[str]]]]:
    """Those of PyYAML whose tags are `kept`, by the first character that they look for."""
    return {
        first: [(tag, pattern) for tag, pattern in resolvers if kept(tag)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Loader(yaml.SafeLoader):
    """Constructs plain values alone; a key given twice in a mapping is an error."""

    yaml_implicit_resolvers = _resolvers(lambda tag: tag in (NULL, _BOOL, _MERGE))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.pairs(node)
        return super().construct_mapping(node, deep)

    def pairs(self, node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
        """The names in a mapping, as they were written, and their values."""
        written = [key for key, _ in node.value if key.tag != _MERGE]
        self.flatten_mapping(node)
        seen: set[str] = set()
        for key in written:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key is not text", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"'{key.value}' is given again", key.start_mark
                )
            seen.add(key.value)
        for key, value in node.value:
            # {width:32} has a key "width:32" without a value.
            if value.tag == NULL and not value.value and key.style is None and ":" in key.value:
                name, _, rest = key.value.partition(":")
                raise yaml.MarkedYAMLError(
                    None, None, f"'{name}:{rest}' lacks a space after the colon", key.start_mark
                )
        return [(key.value, value) for key, value in node.value]


class _TextLoader(Loader):
    """Of scalars, null alone is not text."""

    yaml_implicit_resolvers = _resolvers(lambda tag: tag in (NULL, _MERGE))


Loader.add_constructor(_MERGE, lambda _, node: node.value)  # << as a value is text
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """Quotes what `Loader` would not read as the text that it is."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Between single quotes and without any, line breaks that only Unicode knows are read as spaces.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def to_text(content: Any) -> str:
    """The YAML text of plain values, which `Loader` reads back as the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_line(value: Any) -> str:
    """A plain value as YAML in one line, which `Loader` reads back as the same."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.removesuffix("\n").removesuffix("\n...")


def read_text(file: Path) -> Any:
    """The content of a YAML file whose scalars, but for null, are all text.

    Raises UserError that names the file and the line.
    """
    content = read_bytes(file)
    try:
        return yaml.load(content, Loader=_TextLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {yaml_problem(error, content)}") from None


def read_bytes(file: Path) -> bytes:
    """The bytes of a file. Raises UserError if it cannot be read, or is a pipe or a device."""
    try:
        with open_regular(file) as opened:
            return opened.read()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def yaml_problem(error: Exception, content: str | bytes) -> str:
    """What is wrong with a YAML text, where, and what to do, in a line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        said = first_line(error)
        not_text = isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError)
        return f"{said}; store it as text in UTF-8" if not_text else said
    said = f"{getattr(error, 'problem', None) or error} in line {mark.line + 1}"
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    lines = text.splitlines()
    special = _SPECIAL.search(lines[mark.line]) if mark.line < len(lines) else None
    if "'\\t'" in said:
        said += "; indent by spaces, not by tabs"
    if special:
        said += f"; put quotes around {special[1]} if it is text"
    return said
