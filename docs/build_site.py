"""The pages of docs/, README and the docstrings as a site. A link that leads nowhere is an error.

python docs/build_site.py [FOLDER]   # default: build/site; the site is FOLDER/html
"""

import argparse
import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What stands beside docs/ and is linked to from there.
BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff")


def stage(folder: Path) -> None:
    """Copy what the site is made of: pages with the paths that they have in the checkout, so that
    links mean the same in both, and the package under its name, to be read for its docstrings."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder / "pages" / "docs")
    for name in BESIDE:
        shutil.copy(ROOT / name, folder / "pages" / name)
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    shutil.rmtree(folder / "bdl", ignore_errors=True)
    for package in setup["options"]["packages"].split():
        inner = Path(*package.split(".")[1:])
        (folder / "bdl" / inner).mkdir(parents=True, exist_ok=True)
        for file in (ROOT / inner).glob("*.py"):
            shutil.copy(file, folder / "bdl" / inner)
    shutil.copy(ROOT / "docs" / "mkdocs.yml", folder)


def build(folder: Path) -> int:
    """Write the site into `folder`/html; not 0 if a link or a name leads nowhere."""
    # Not --quiet: what is not printed is no reason to stop.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=quiet).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    default = ROOT / "build" / "site"
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", default=default)
    folder = parser.parse_args().folder
    stage(folder)
    status = build(folder)
    if status == 0:
        print(f"open {folder / 'html' / 'index.html'}")
    sys.exit(status)
