"""The built wheel is whole: it runs outside the repository with its own data files."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parent.parent
PACKAGES = ("configs", "domains", "runtime", "segmentation", "translation")
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import pipeline
from runtime.report import Report, write_report
from pathlib import Path
assert Path(pipeline.__file__).is_relative_to(sys.argv[1]), pipeline.__file__
write_report(Path("report.html"), Report("a run", [], [], []))
sys.exit(pipeline.main(["run", "--dry-run", "iterations=1"]))
"""


def test_a_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel")
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.suffix in (".py", ".cfg", ".toml", ".md") or file.name == "LICENSE":
            shutil.copy(file, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, timeout=600)
    (wheel,) = tmp_path.glob("bdl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for pattern in ("configs/*.yaml", "domains/label_spaces/*.yaml", "runtime/*.j2"):
        files = {file.name for file in ROOT.glob(pattern)}
        assert files and files == {file.name for file in site.glob(pattern)}
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "k1/translator" in done.stdout
    assert (elsewhere / "report.html").is_file()


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` names bdl and the libraries that results depend on."""
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--version"])
    assert stop.value.code == 0
    named = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert named["bdl"] == "0.1.0"
    assert {"python", "torch", "torchvision", "kornia", "timm", "numpy"} <= set(named)
