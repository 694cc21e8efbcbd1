"""The built wheel is whole: installed, it runs outside the repository with its own data files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bdl import __version__, pipeline

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "commands",
    "configs",
    "domains",
    "reports",
    "runtime",
    "segmentation",
    "translation",
)
# Calls the installed command as its script does, and makes sure that it is the installed one.
SCRIPT = """
import importlib.metadata, sys
from pathlib import Path
site, arguments = sys.argv[1], sys.argv[2:]
sys.path.insert(0, site)
(installed,) = importlib.metadata.distributions(name="bdl", path=[site])
(command,) = installed.entry_points.select(group="console_scripts", name="bdl")
main = command.load()
assert Path(sys.modules[main.__module__].__file__).is_relative_to(site)
sys.exit(main(arguments))
"""
# The demo with a second's work: source only, scored and reported.
TINY = """
    iterations=0 precision=32-true data.source.scenes=2 data.target.scenes=1
    data.validation.scenes=1 data.source.size=[64,32] data.validation.size=[64,32]
    segmentation.options.width=4 segmentation.steps=2 segmentation.batch_size=1
"""

# A user's program, beside files of theirs that are named as ours are.
PROGRAM = """
import sys
import configs, pipeline, results, runtime
import bdl
from bdl import Predictor, load_config, run_loop

assert {module.OWNER for module in (configs, pipeline, results, runtime)} == {"user"}
assert bdl.__file__.startswith(sys.argv[1])
(row,) = run_loop(load_config("demo", sys.argv[2:]), verbosity=-1)
labels = Predictor("runs/demo", device="cpu")("runs/demo/data/validation/images/00000.png")
print(row["stage"], labels.shape)
"""


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel")
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.suffix in (".py", ".cfg", ".toml", ".md") or file.name == "LICENSE":
            shutil.copy(file, source)
    quiet = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, timeout=600)
    (wheel,) = tmp_path.glob("bdl-*.whl")
    install = [*pip, "install", *quiet, "--no-compile", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, timeout=600)
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"bdl", "bin"}
    patterns = ("*.py", "configs/*.yaml", "domains/label_spaces/*.yaml", "reports/templates/*.j2")
    for pattern in patterns:
        files = {file.name for file in ROOT.glob(pattern)}
        assert files and files == {file.name for file in (site / "bdl").glob(pattern)}
    elsewhere.mkdir()
    for name in ("pipeline.py", "results.py", "runtime.py", "configs/__init__.py"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text("OWNER = 'user'\n", encoding="utf-8")
    (elsewhere / "program.py").write_text(PROGRAM, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site), "run", *TINY.split()],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((elsewhere / "runs/demo/results.json").read_text(encoding="utf-8"))
    assert row["stage"] == "source-only" and 0 <= row["miou"] <= 1
    assert "M(0)" in (elsewhere / "runs/demo/report.html").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py", str(site), *TINY.split()],
        cwd=elsewhere,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "source-only (32, 64)"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names bdl and the libraries that results depend on."""
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--version"])
    assert stop.value.code == 0
    named = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert named["bdl"] == __version__
    assert {"python", "torch", "torchvision", "kornia", "timm", "numpy"} <= set(named)
