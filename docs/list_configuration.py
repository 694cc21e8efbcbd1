"""docs/configuration.md, from the dataclasses of runtime/config_keys.py and the comments in them.

python docs/list_configuration.py
"""

import ast
import inspect
import io
import sys
import tokenize
from dataclasses import fields
from pathlib import Path
from typing import Any

from bdl.runtime import config_keys
from bdl.runtime.config_keys import Config, Key, all_keys, default_of
from bdl.runtime.values import plain
from bdl.runtime.yaml_text import to_line

ROOT = Path(__file__).resolve().parents[1]

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """\
# Every key of the configuration

A YAML file sets keys by section. The command line sets them as `section.key=value` and wins. A key
that neither sets has its default. The defaults are near the paper's recipe, GTA5 to Cityscapes with
DeepLab-v2. To reproduce the paper use `--config gta5_cityscapes_deeplab`; `bdl show-config --config
gta5_cityscapes_deeplab` marks what differs from the defaults.

- `base: NAME` (or a list) at the top of a file builds on other files: those beside it, or the
  project's own.
- An unknown key or a value of the wrong type is an error that names the nearest right key.
- `null` is YAML's word for nothing. `data.validation: null` trains without measuring;
  `data.target: null` needs `iterations: 0`.
- Text is taken as it is written: `data.target.split=0016` and `out='runs/trial #2'` need no further
  quotes, nor do classes named `yes` and `no`. A leading `~` of a path is the home folder.
- `${oc.env:NAME}` stands for an environment variable, `${section.key}` for another key's value. Any
  other `${...}` is text on the command line. In a file it is an error; `\\${` there is the text.
- `bdl show-config --config FILE key=value` prints the whole configuration and marks what is not the
  default.

*Written by `python docs/list_configuration.py` from `runtime/config_keys.py`; change it there.*
"""


def page() -> str:
    said = comments(inspect.getsource(config_keys))
    return HEAD + "".join(sections(said, Config, ""))


def comments(text: str) -> dict[tuple[str, str], str]:
    """The comments of fields by the names of class and field: a field's own, or those of whole
    lines just above it."""
    own: dict[int, str] = {}
    above: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            said = token.string.removeprefix("#").strip()
            if token.line.lstrip().startswith("#"):
                above.append(said)
            else:
                own[token.start[0]] = said
        elif token.type == tokenize.NEWLINE:
            if above:
                own.setdefault(token.start[0], " ".join(above))
            above = []
    return {
        (node.name, item.target.id): own.get(item.end_lineno or 0, "")
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def sections(
    said: dict[tuple[str, str], str], kind: Any, prefix: str, about: str = ""
) -> list[str]:
    """The section of a dataclass, and after it those of its fields that are dataclasses."""
    parts = [f"\n## {f'`{prefix}`' if prefix else 'Top level'}\n"]
    # Dataclasses without a docstring get one that lists their fields.
    own = "" if kind.__doc__.startswith(f"{kind.__name__}(") else inspect.cleandoc(kind.__doc__)
    if own or about:
        parts.append(f"\n{' '.join(filter(None, (own, about)))}\n")
    rows, inner = [], []
    for item in fields(kind):
        name = f"{prefix}.{item.name}" if prefix else item.name
        key = all_keys()[name]
        meaning = _meaning(said, kind, item.name)
        if key.is_section:
            inner += sections(said, key.hint, name, meaning)
            continue
        cells = (f"`{name}`", _type(key), str(key.range or ""), shown(default_of(name)))
        rows.append(f"| {' | '.join((*cells, _in_table(meaning)))} |\n")
    if rows:
        parts.append(
            "\n| key | type | range | default | meaning |\n| --- | --- | --- | --- | --- |\n"
        )
    return [*parts, *rows, *inner]


def _meaning(said: dict[tuple[str, str], str], kind: type, name: str) -> str:
    """The comment of a field, of its own class or of the one that it is inherited from."""
    return next(said[base.__name__, name] for base in kind.__mro__ if (base.__name__, name) in said)


def _type(key: Key) -> str:
    return _in_table(str(key)) + (" or null" if key.optional else "")


def _in_table(text: str) -> str:
    return text.replace("|", "\\|")


def shown(value: Any) -> str:
    """A default as YAML has it."""
    return f"`{to_line(plain(value))}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"{PAGE.relative_to(ROOT)}: written", file=sys.stderr)
