"""Shell completion knows every command, recipe, key and stage, and completes paths where paths are
meant."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from bdl import pipeline
from bdl.runtime.config import CONFIGURATIONS, known_keys


@pytest.fixture
def script(capsys) -> str:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--print-completion", "bash"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def complete(script, tmp_path) -> Callable[..., list[str]]:
    """What the script offers for a line that is being typed, called as bash calls it."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    file = tmp_path / "completion.bash"
    file.write_text(script, encoding="utf-8")

    def call(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"cd {tmp_path}; source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "_bdl; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return call


def test_bash_completes_commands_options_and_choices(complete):
    assert complete("bdl", "comp") == ["compare"]
    assert complete("bdl", "run", "--from") == ["--from-stage"]
    assert set(complete("bdl", "predict", "--device", "c")) == {"cpu", "cuda"}


def test_bash_completes_recipes_beside_files(complete, tmp_path):
    (tmp_path / "mine.yaml").touch()
    offered = complete("bdl", "run", "--config", "")
    recipes = {file.stem for file in CONFIGURATIONS.glob("[!_]*.yaml")}
    assert recipes and recipes | {"mine.yaml"} <= set(offered)
    assert complete("bdl", "run", "--config", "dem") == ["demo"]


def test_bash_completes_every_key_and_leaves_its_value_to_the_shell(complete):
    keys = known_keys()
    sections = {key.rpartition(".")[0] for key in keys}
    for before in ([], ["--config", "demo"], ["seed=1", "--dry-run"]):
        offered = complete("bdl", "run", *before, "")
        assert {f"{key}=" for key in keys if key not in sections} <= set(offered), before
    assert complete("bdl", "check", "segmentation.opti") == [
        f"{key}=" for key in keys if key.startswith("segmentation.opti") and key not in sections
    ]
    # Bash takes "=" for a word of its own.
    assert complete("bdl", "run", "data.source.root", "=") == []
    assert complete("bdl", "run", "data.source.root", "=", "da") == []


def test_bash_completes_every_stage_of_a_run(complete, command, tmp_path, capsys):
    assert command("run", "--dry-run", f"out={tmp_path / 'run'}") == 0
    said = capsys.readouterr().out.split()
    stages = {word for word in said if re.fullmatch(r"k\d/[a-z]+(-[a-z]+)*(-\d)?", word)}
    stages |= {"source-only"} & set(said)
    assert len(stages) == 11
    assert stages <= set(complete("bdl", "run", "--from-stage", ""))
    networks = {name for name in stages if "segmentation" in name} | {"source-only"}
    offered = complete("bdl", "predict", "--network", "")
    assert networks | {"last", "best"} <= set(offered)
    assert not stages & set(offered) - networks


def test_without_shtab_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--print-completion", "bash"])
    assert stop.value.code == 2
    assert 'pip install "bdl[completion]"' in capsys.readouterr().err
