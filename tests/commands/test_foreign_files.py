"""What lies where a command writes, and is the user's, stays as it is: one line says so, status 2.
What the command itself wrote there before is replaced."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bdl.execution import WRITES
from bdl.pipeline import main
from bdl.reports.ablation import WRITTEN
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.stages import RESULT
from tests.helpers.predictor import make_network, photo, save

Command = Callable[..., int]
ONCE = ["iterations=0", "segmentation.steps=1"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("words", ["run", "run --dry-run", "check", "segment"])
def test_a_run_needs_a_folder_without_files_of_its_names(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture, words: str, name: str
) -> None:
    (tmp_path / name).write_text("seed: 12\n")
    before = contents(tmp_path)
    first, *others = words.split()
    assert command(first, *others, f"out={tmp_path}") == 2
    said = "".join(capsys.readouterr())
    assert f"out: {tmp_path / name} is in the way, and was not made by a run; move it" in said
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", WRITTEN)
def test_so_does_an_ablation(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert command("ablate", "--seeds", 0, f"out={tmp_path}") == 2
    assert contents(tmp_path) == {tmp_path / name: b"mine"}


def test_an_ablation_writes_its_tables_anew(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("ablate", "--seeds", 0, *ONCE, f"out={tmp_path}") == 0
    assert all((tmp_path / name).is_file() for name in WRITTEN)


def test_a_configuration_in_the_runs_folder_is_kept(
    command: Command, tmp_path: Path, tiny_config: Path, capsys: pytest.CaptureFixture
) -> None:
    """One of the user's, for as long as it says what is run; and a run's that the user changed."""
    file = tmp_path / "config.yaml"
    text = f"# mine\nbase: {tiny_config}\nout: {tmp_path}\niterations: 0\n"
    file.write_text(f"{text}segmentation: {{steps: 1}}\n")
    before = file.read_bytes()
    assert main(["run", "--config", str(file)]) == 0
    assert file.read_bytes() == before
    assert main(["run", "--config", str(file), "seed=1"]) == 2
    assert f"{file} would be replaced" in capsys.readouterr().err
    assert file.read_bytes() == before

    file.unlink()
    assert command("run", *ONCE, f"out={tmp_path}") == 0
    assert command("run", *ONCE, "log_every=7", f"out={tmp_path}") == 0  # replaces a run's own
    assert "log_every: 7" in file.read_text()
    file.write_text(file.read_text() + "# mine\n")
    before = file.read_bytes()
    assert command("run", *ONCE, "log_every=7", f"out={tmp_path}") == 0
    assert command("run", *ONCE, "log_every=8", f"out={tmp_path}") == 2
    assert file.read_bytes() == before


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model" / RESULT, make_network())


def predict(checkpoint: Path, out: Path) -> list[object]:
    photo().save(checkpoint.parent / "photo.png")
    images = checkpoint.parent / "photo.png"
    return ["predict", "--checkpoint", checkpoint, "--images", images, "--out", out.parent]


def export(checkpoint: Path, out: Path) -> list[object]:
    return ["export-network", "--checkpoint", checkpoint, "--out", out, "--size", 48, "32"]


def score(checkpoint: Path, out: Path) -> list[object]:
    labels = checkpoint.parent / "labels"
    labels.mkdir(exist_ok=True)
    Image.fromarray(np.arange(8, dtype=np.uint8)[None]).save(labels / "a.png")
    folders = ["--predictions", labels, "--labels", labels]
    return ["score", *folders, "--label-space", "camvid11", "--encoding", "own", "--json", out]


def import_weights(checkpoint: Path, out: Path) -> list[object]:
    file = checkpoint.parent / "published.pth"
    torch.manual_seed(0)
    torch.save(build_segmenter("deeplab_v2", 19).state_dict(), file)
    return ["import-weights", file, out, "--network", "deeplab_v2"]


WRITERS = {
    "predictions.jsonl": predict,
    "net.pt2": export,
    "scores.json": score,
    "weights.pt": import_weights,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("content", [b"mine", b"{}", b'{"image": 1}\n'])
def test_a_file_that_is_there_is_replaced_only_by_its_like(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, name: str, content: bytes
) -> None:
    out = tmp_path / "out" / name
    arguments = [str(word) for word in WRITERS[name](checkpoint, out)]
    out.parent.mkdir()
    out.write_bytes(content)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {out}: is there already") and error.count("\n") == 1
    assert contents(tmp_path / "out") == {out: content}
    out.unlink()
    assert main(arguments) == main(arguments) == 0
    assert out.read_bytes() != content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", WRITERS)
def test_nor_is_a_pipe_replaced_or_read(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    """To read one waits for whoever writes to it."""
    out = tmp_path / "out" / name
    out.parent.mkdir()
    os.mkfifo(out)
    assert main([str(word) for word in WRITERS[name](checkpoint, out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and out.is_fifo()


def test_predictions_are_not_mixed_with_images_of_the_users(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    """As the label maps of a data set, of names that no photo has."""
    out = tmp_path / "out"
    (out / "labels/deep").mkdir(parents=True)
    (out / "labels/notes.txt").write_text("mine")
    mine = out / "labels/deep/mine.png"
    photo().save(mine)
    before = contents(out)
    words = [str(word) for word in predict(checkpoint, out / "predictions.jsonl")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {mine}: is there already") and error.count("\n") == 1
    assert contents(out) == before
    mine.unlink()
    assert main(words) == 0
    photo().save(mine)  # beside predictions, as the folder is one of them
    assert main(words) == 0


def test_a_trained_network_is_not_replaced_by_an_imported_one(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    assert main([str(word) for word in import_weights(checkpoint, checkpoint)]) == 2
    assert checkpoint.read_bytes() == before


def test_a_comparison_replaces_a_comparison_alone(command: Command, tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        assert command("run", *ONCE, f"out={folder}") == 0
    page = tmp_path / "page.html"
    page.write_text("<title>mine</title>")
    words = ["compare", *folders, "--out", str(page)]
    assert main(words) == 2 and page.read_text() == "<title>mine</title>"
    page.unlink()
    assert main(words) == main(words) == 0
