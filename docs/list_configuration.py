"""docs/configuration.md, from the dataclasses of runtime/config.py and the comments in them.

python docs/list_configuration.py
"""

import ast
import io
import sys
import tokenize
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from anywhere, installed or not

from runtime.config import Config, value_at  # noqa: E402

SOURCE, PAGE = ROOT / "runtime" / "config.py", ROOT / "docs" / "configuration.md"
HEAD = """\
# Every key of the configuration

A YAML file sets keys by section, the command line as `section.key=value`; what neither sets has the
default, which is the paper's GTA5 to Cityscapes recipe with DeepLab-v2. `base: NAME` (or a list) at
the top of a file builds on other files: those beside it, or the project's own. An unknown key or a
value of the wrong type is an error that names the nearest right key. `null` is YAML's word for
nothing.

*Written by `python docs/list_configuration.py` from `runtime/config.py`; change it there.*
"""


def page() -> str:
    text = SOURCE.read_text(encoding="utf-8")
    classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
    return HEAD + "".join(sections(classes, comments(text), "Config", ""))


def comments(text: str) -> dict[int, str]:
    """Comments by line: a field's own, or those of whole lines just above it."""
    found: dict[int, str] = {}
    above: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            said = token.string.removeprefix("#").strip()
            if token.line.lstrip().startswith("#"):
                above.append(said)
            else:
                found[token.start[0]] = said
        elif token.type == tokenize.NEWLINE:
            if above:
                found.setdefault(token.start[0], " ".join(above))
            above = []
    return found


def sections(
    classes: dict[str, ast.ClassDef], said: dict[int, str], name: str, prefix: str
) -> list[str]:
    """The section of a dataclass, and after it those of its fields that are dataclasses."""
    title = f"`{prefix.rstrip('.')}`" if prefix else "Top level"
    parts = [f"\n## {title}\n"]
    about = ast.get_docstring(classes[name])
    if about:
        parts.append(f"\n{about}\n")
    rows, inner = [], []
    for field in classes[name].body:
        if not isinstance(field, ast.AnnAssign):
            continue
        assert isinstance(field.target, ast.Name)
        key, kind = prefix + field.target.id, ast.unparse(field.annotation)
        if kind in classes:
            inner += sections(classes, said, kind, f"{key}.")
            continue
        meaning = said.get(field.end_lineno or 0, "").replace("|", "\\|")
        default = shown(value_at(Config(), key))
        rows.append(f"| `{key}` | {kind.replace('|', 'or')} | {default} | {meaning} |\n")
    if rows:
        parts.append("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n")
    return [*parts, *rows, *inner]


def shown(value: Any) -> str:
    """A default as YAML has it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=200)
    return f"`{text.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"{PAGE.relative_to(ROOT)}: written", file=sys.stderr)
