"""Imports run one way, and every module is in the wheel."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"pipeline"},
    {"results", "commandline"},
    {"translation", "segmentation"},
    {"domains"},
    {"runtime"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FILES = [
    file.relative_to(ROOT).as_posix()
    for file in sorted(ROOT.rglob("*.py"))
    if file.relative_to(ROOT).parts[0].removesuffix(".py") in LAYER
]


def imported(file: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    own = name.partition("/")[0].removesuffix(".py")
    others = (imported(ROOT / name) & LAYER.keys()) - {own}
    assert [other for other in others if LAYER[other] <= LAYER[own]] == []


def test_top_level_modules_are_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    packaged = {name.strip() for name in config["options"]["py_modules"].split(",")}
    assert packaged == {file.stem for file in ROOT.glob("*.py")}
