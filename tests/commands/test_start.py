"""What needs no network answers at once: counted in modules, as seconds differ by machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bdl.commands.parser import make_parser

# A library that takes longer than all that help needs; and what an answer may load at most.
HEAVY = {"torch", "torchvision", "timm", "lightning", "kornia", "pandas", "skimage", "jinja2"}
CODE = """
import atexit, json, sys
from bdl.pipeline import main
status = None
try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def loaded(folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit status of the command line, and the modules that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    *said, record = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    status, modules = json.loads(record)
    assert (status == 2) == any("error: " in line for line in said)
    return status, set(modules)


@pytest.mark.parametrize("command", ["", *make_parser()[1].choices])
def test_help_needs_the_standard_library(tmp_path, command):
    status, modules = loaded(tmp_path, *filter(None, [command]), "--help")
    assert status == 0
    assert modules & (HEAVY | {"rich", "numpy", "PIL", "omegaconf", "yaml"}) == set()
    assert len(modules) < 180


@pytest.mark.parametrize("arguments", ["--version", "runn", "run --confg demo", "run --seed 1"])
def test_versions_and_mistyped_words_do_without_what_they_name(tmp_path, arguments):
    status, modules = loaded(tmp_path, *arguments.split())
    assert status == (0 if arguments == "--version" else 2)
    assert modules & (HEAVY | {"rich", "numpy", "PIL"}) == set()
    assert len(modules) < 320


@pytest.mark.parametrize(
    "arguments",
    [
        "run sead=1",
        "run seed=-1",
        "check sead=1",
        "show-config sead=1",
        "ablate --config nowhere.yaml",
        "translate seed=one",
        "score --predictions nowhere --labels nowhere",
        "score --predictions . --labels . --label-space nothing",
        "import-weights nowhere.pth out.pt --network generator",
        "predict --checkpoint nowhere --images . --out out",
        "predict --checkpoint . --images nowhere.jpg --out out",
        "export-network --checkpoint nowhere --out net.onnx",
        "compare nowhere there",
        "init-config --source nowhere",
        "init-config",
    ],
)
def test_a_mistyped_key_or_file_is_answered_before_a_library_is_loaded(tmp_path, arguments):
    status, modules = loaded(tmp_path, *arguments.split())
    assert status == 2 and modules & HEAVY == set()
    assert len(modules) < 600
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_is_shown_before_a_library_is_loaded(tmp_path):
    status, modules = loaded(tmp_path, "show-config", "--config", "demo", "seed=1")
    assert status == 0 and modules & HEAVY == set()


def test_a_finished_run_is_answered_before_torch_is_loaded(tmp_path, tiny_run, tiny_config):
    run = tiny_run.copy(tmp_path / "run")
    status, modules = loaded(tmp_path, "run", "--config", str(tiny_config), f"out={run.folder}")
    assert status == 0 and "torch" not in modules
