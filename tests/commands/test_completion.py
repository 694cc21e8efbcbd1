"""Shell completion knows every command and completes paths where paths are meant."""

import shutil
import subprocess
import sys

import pytest

from bdl import pipeline


@pytest.fixture
def script(capsys) -> str:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--print-completion", "bash"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(script, tmp_path):
    """The script's own function is called as bash does for a line that is being typed."""
    file = tmp_path / "completion.bash"
    file.write_text(script, encoding="utf-8")

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "_shtab_bdl; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("bdl", "comp") == ["compare"]
    assert complete("bdl", "run", "--from") == ["--from-stage"]
    assert set(complete("bdl", "predict", "--device", "c")) == {"cpu", "cuda"}
    assert complete("bdl", "run", "--config", "dem") == ["demo"]


def test_without_shtab_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stop:
        pipeline.main(["--print-completion", "bash"])
    assert stop.value.code == 2
    assert 'pip install "bdl[completion]"' in capsys.readouterr().err
