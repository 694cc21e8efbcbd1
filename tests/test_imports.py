"""Imports run one way, and every module is in the wheel."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"commands"},
    {"execution"},
    {"pipeline"},
    {"plan"},
    {"reports"},
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
    """The modules that a file imports at its top level, by their whole names."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def everywhere(file: Path) -> set[str]:
    """The top-level names that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    own = name.partition("/")[0].removesuffix(".py")
    found = {module.split(".")[1] for module in imported(ROOT / name) if module.startswith("bdl.")}
    others = (found & LAYER.keys()) - {own}
    assert [other for other in others if LAYER[other] <= LAYER[own]] == []


@pytest.mark.parametrize("name", FILES)
def test_own_modules_are_imported_by_the_package(name):
    """By one name, so that nothing is loaded twice, and no file of a user's is taken for ours."""
    assert everywhere(ROOT / name) & LAYER.keys() == set()


def test_all_packages_are_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = set(config["options"]["packages"].split())
    folders = {(ROOT / name).parent.relative_to(ROOT) for name in FILES}
    assert packages == {".".join(["bdl", *folder.parts]) for folder in folders}


@pytest.mark.parametrize("name", FILES)
def test_functions_take_eight_arguments_at_most(name):
    many = []
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            if len([argument for argument in given if argument.arg not in ("self", "cls")]) > 8:
                many.append(node.name)
    assert many == []
