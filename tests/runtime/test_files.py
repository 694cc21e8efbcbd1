"""Files appear whole or not at all, and reading them runs no code."""

import json
import math
import os
import pickle

import pytest
import torch
from PIL import Image

from bdl.runtime.errors import UserError
from bdl.runtime.files import (
    atomic,
    load_tensors,
    partials,
    read_json,
    save_png,
    save_tensors,
    tells_case_apart,
    write_json,
    write_text,
)


def test_an_exception_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError, match="in the middle"), atomic(file) as partial:
        partial.write_text("half of the n")
        raise RuntimeError("in the middle")
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]


def test_an_exception_without_an_old_file_leaves_none(tmp_path):
    file = tmp_path / "file.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"miou": math.nan})
    assert not file.exists()


def test_folders_are_made(tmp_path):
    write_text(tmp_path / "a/b/c.txt", "ü")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "ü".encode()


def test_partial_files_are_told_by_an_ending_of_our_own(tmp_path):
    """What else is called partial is not ours, and what lies in other folders is not looked at."""
    theirs = ["movie.mp4.partial", "old.partial/thesis.doc", "below/x.bdl-partial", "a.txt"]
    for name in theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with atomic(tmp_path / "b.txt") as partial:
        partial.write_text("half")
        assert partials(tmp_path) == [partial]
    assert partials(tmp_path) == [] == partials(tmp_path / "nowhere")
    assert all((tmp_path / name).read_text() == "mine" for name in theirs)


def test_whether_case_tells_names_apart_is_seen(tmp_path):
    (tmp_path / "probe").touch()
    told_apart = not (tmp_path / "PROBE").exists()
    assert tells_case_apart(tmp_path) is told_apart
    assert tells_case_apart(tmp_path / "not/there/yet") is told_apart
    assert [file.name for file in tmp_path.iterdir()] == ["probe"]


def test_where_it_does_not_a_name_in_other_case_is_the_same_file(tmp_path):
    """As a link shows here, of two names: it is the same file."""
    (tmp_path / "probe").touch()
    if not (tmp_path / "PROBE").exists():
        os.link(tmp_path / "probe", tmp_path / "PROBE")
    assert not tells_case_apart(tmp_path)


def test_json_comes_back(tmp_path):
    content = {"miou": 0.1, "iou": {"road": None}, "rows": [1, 2]}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    assert json.loads((tmp_path / "x.json").read_text()) == content


def test_json_that_is_missing_or_broken_is_named(tmp_path):
    file = tmp_path / "x.json"
    with pytest.raises(UserError, match=f"{file}: cannot be read"):
        read_json(file)
    file.write_text('{"a": 1')
    with pytest.raises(UserError, match=f"{file}: is not valid JSON"):
        read_json(file)


def test_tensors_come_back(tmp_path):
    content = {"state": {"w": torch.rand(2, 3), "n": torch.tensor(4)}, "options": {"width": 8}}
    file = tmp_path / "x.pt"
    save_tensors(file, content)
    loaded = load_tensors(file)
    assert loaded["options"] == content["options"]
    assert torch.equal(loaded["state"]["w"], content["state"]["w"])


class Harmful:
    """Unpickled without care, this writes a file."""

    def __init__(self, file) -> None:
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x))])
def test_code_in_a_file_is_not_run(tmp_path, save):
    evidence, file = tmp_path / "evidence", tmp_path / "x.pt"
    save({"state": Harmful(evidence)}, file)
    with pytest.raises(UserError, match=f"{file}: cannot be read as a weights file"):
        load_tensors(file)
    assert not evidence.exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_files_that_hold_no_tensors_are_named(tmp_path, content):
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: cannot be read") as caught:
        load_tensors(file)
    assert len(str(caught.value).splitlines()) == 1


def test_a_cut_off_file_is_named(tmp_path):
    file = tmp_path / "x.pt"
    save_tensors(file, {"w": torch.rand(100)})
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"{file}: cannot be read"):
        load_tensors(file)


def test_a_file_that_holds_no_dictionary_is_named(tmp_path):
    torch.save([torch.rand(2)], tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        load_tensors(tmp_path / "x.pt")
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "y.pt")


def test_png_keeps_every_pixel(tmp_path):
    image = Image.effect_noise((16, 8), 80).convert("RGB")
    save_png(tmp_path / "a/x.png", image)
    with Image.open(tmp_path / "a/x.png") as found:
        assert found.format == "PNG" and found.tobytes() == image.tobytes()


def test_a_name_that_is_no_text_is_escaped_in_a_page(tmp_path):
    """What the system gives for a file's name in Latin-1."""
    write_text(tmp_path / "page.html", "caf\udce9.png")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "caf\\udce9.png"
