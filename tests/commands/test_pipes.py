"""A pipe, of which reading waits for whoever writes to it, in the place of a file that is read:
each command says so in a line. Pipes where a command writes are in test_foreign_files.py."""

import os
from pathlib import Path

import pytest

from bdl.pipeline import main
from bdl.segmentation.stages import RESULT
from tests.helpers import layouts
from tests.helpers.predictor import make_network, save

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")


@pytest.mark.parametrize(
    "words",
    [
        "show-config --config PIPE",
        "show-config --config FOLDER/on-a-pipe.yaml",
        "run data.label_space=PIPE",
        "run segmentation.weights=PIPE",
        "run translation.checkpoints={k1/translator: PIPE}",
        "run --dry-run segmentation.checkpoints={source-only: PIPE}",
        "predict --checkpoint PIPE --images FOLDER/labels --out FOLDER/out",
        "predict --checkpoint FOLDER --images PIPE --out FOLDER/out",
        "export-network --checkpoint PIPE --out FOLDER/net.pt2",
        "score --predictions FOLDER/labels --labels FOLDER/labels --label-space PIPE",
        "score --predictions FOLDER/labels --labels FOLDER/labels --run PIPE",
        "import-weights PIPE FOLDER/out.pt --network deeplab_v2",
        "import-weights PIPE FOLDER/out.pt --network generator",
        "init-config --source FOLDER --target FOLDER --label-space PIPE",
    ],
)
def test_a_pipe_is_not_waited_for(
    tmp_path: Path,
    tiny_config: Path,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "on-a-pipe.yaml").write_text("base: pipe\n")
    layouts.label(tmp_path / "labels/a.png", layouts.ids(0, 1))
    save(tmp_path / RESULT, make_network())
    replaced = words.replace("PIPE", str(pipe)).replace("FOLDER", str(tmp_path))
    command, *others = replaced.replace(": ", ":\t").split(" ")
    config = ["--config", str(tiny_config)] if command == "run" else []
    assert main([command, *config, *(word.replace("\t", " ") for word in others)]) == 2
    error = capsys.readouterr().err
    assert "pipe: is a pipe or a device, which can be read but once; store it" in error
    assert error.startswith("error: ") and error.count("\n") == 1
