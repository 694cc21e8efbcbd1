"""Locks: one run in a folder, none where there can be none, and who holds what."""

import errno
import json
import logging

import pytest
from filelock import FileLock

from bdl.runtime import lock as module
from bdl.runtime.errors import UserError
from bdl.runtime.lock import claimed, held, make_writable, require_writable


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    monkeypatch.setattr(module, "_WAIT", 0.05)
    monkeypatch.setattr(module, "_warned", set())
    logging.getLogger("bdl").propagate = True


def test_a_folder_is_held_and_let_go(tmp_path):
    with claimed(tmp_path / "run"):
        pattern = r"in use by another run \(process \d+; .*wait for it"
        with pytest.raises(UserError, match=pattern), claimed(tmp_path / "run"):
            pass
    with claimed(tmp_path / "run"):
        pass


def test_a_lock_of_another_machine_is_named_with_the_file_to_remove(tmp_path):
    with FileLock(tmp_path / "run.lock"):
        (tmp_path / "run.owner").write_text(json.dumps({"host": "far-away", "process": 7}))
        pattern = r"process 7 on far-away.*remove .*run\.lock"
        with pytest.raises(UserError, match=pattern), claimed(tmp_path):
            pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOLCK, "No locks available"),
        OSError(errno.ENOSYS, "Function not implemented"),
        OSError(errno.EOPNOTSUPP, "Operation not supported"),
        NotImplementedError("no locks"),
    ],
)
def test_without_locks_it_warns_once_and_goes_on(tmp_path, monkeypatch, caplog, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with claimed(tmp_path), held(tmp_path / "index.lock"):
        pass
    assert caplog.text.count("has no locks") == 1


def test_other_errors_stay_errors(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written to"), claimed(tmp_path / "file/run"):
        pass


def test_a_shared_file_that_is_held_too_long_is_named(tmp_path):
    file, pattern = tmp_path / "x.lock", r"x\.lock: is locked"
    with FileLock(file), pytest.raises(UserError, match=pattern), held(file):
        pass


def test_trying_a_folder_leaves_nothing_and_takes_nothing(tmp_path):
    (tmp_path / ".writable").write_text("mine")
    make_writable(tmp_path)
    make_writable(tmp_path / "new")
    assert [file.name for file in tmp_path.rglob("*")] in (
        [".writable", "new"],
        ["new", ".writable"],
    )
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--out: "):
        make_writable(tmp_path / "file" / "x", "--out")


def test_a_link_that_leads_nowhere_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"out: .*run is not a folder"):
        require_writable(tmp_path / "run")
    with (
        pytest.raises(UserError, match=r"out: .*run cannot be written to"),
        claimed(tmp_path / "run"),
    ):
        pass
