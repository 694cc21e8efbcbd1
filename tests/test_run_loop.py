"""run_loop in a user's own program, which goes on as if it had not been called."""

import logging
import threading
import warnings
from pathlib import Path

import pytest
import torch

from bdl import execution
from bdl.pipeline import run_loop
from bdl.runtime import console
from bdl.runtime.config import Config, load_config
from bdl.runtime.device import make_fabric
from bdl.runtime.errors import UserError


def config_of(tiny_config: Path, out: Path) -> Config:
    return load_config(tiny_config, ["iterations=0", "segmentation.steps=3", f"out={out}"])


@pytest.mark.parametrize("fails", [False, True])
def test_logging_warnings_and_draws_are_the_programs_own(tiny_config, tmp_path, fails):
    """After a run, and after one that is refused."""
    config = config_of(tiny_config, tmp_path / "run")
    if fails:
        config.data.source.layout, config.data.source.root = "folder", str(tmp_path / "nowhere")
    loggers = [logging.getLogger(name) for name in (None, "bdl", "py.warnings")]
    own = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(own)
    try:
        before = [(item.handlers[:], item.level, item.propagate) for item in loggers]
        filters, show = warnings.filters[:], warnings.showwarning
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        if fails:
            with pytest.raises(UserError, match="nowhere is not a folder"):
                run_loop(config)
        else:
            assert [row["stage"] for row in run_loop(config)] == ["source-only"]
        assert torch.equal(torch.rand(3), expected)
        assert (warnings.filters[:], warnings.showwarning) == (filters, show)
        after = [(item.handlers[:], item.level, item.propagate) for item in loggers]
        assert after == before
    finally:
        for logger in loggers:
            logger.removeHandler(own)


def test_how_the_program_multiplies_matrices_is_its_own(tiny_config, tmp_path, monkeypatch):
    """On a GPU a run asks for less than full precision, which is a setting of the process."""

    def as_on_a_gpu(config):
        torch.set_float32_matmul_precision("high")
        return make_fabric(config)

    monkeypatch.setattr("bdl.runtime.device.make_fabric", as_on_a_gpu)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        run_loop(config_of(tiny_config, tmp_path / "run"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_messages_of_a_run_go_to_the_programs_own_handlers_too(tiny_config, tmp_path):
    """Those that it has added to the logger of this package, and to that of warnings."""

    class Kept(logging.Handler):
        def __init__(self):
            super().__init__()
            self.said = []

        def emit(self, record):
            self.said.append(record.getMessage())

    own, warned = Kept(), Kept()
    logging.getLogger("bdl").addHandler(own)
    logging.getLogger("py.warnings").addHandler(warned)
    own.setLevel(logging.INFO)
    try:
        run_loop(config_of(tiny_config, tmp_path / "run"), verbosity=-1)
        log = (tmp_path / "run/log.txt").read_text(encoding="utf-8")
        assert "[1/5] data/source" in own.said and "[1/5] data/source\n" in log
        count = len(own.said)
        warned.said.clear()
        with console.spoken(-1):
            warnings.warn("a library's", stacklevel=1)
        assert ["a library's" in text for text in warned.said] == [True]
        assert len(own.said) == count
    finally:
        logging.getLogger("bdl").removeHandler(own)
        logging.getLogger("py.warnings").removeHandler(warned)


def test_the_log_file_is_closed_and_whole(tiny_config, tmp_path):
    run_loop(config_of(tiny_config, tmp_path / "run"))
    text = (tmp_path / "run/log.txt").read_text(encoding="utf-8")
    logging.getLogger("bdl").warning("the program's own")
    assert "source-only" in text
    assert (tmp_path / "run/log.txt").read_text(encoding="utf-8") == text


def test_a_second_run_at_the_same_time_is_refused(tiny_config, tmp_path, monkeypatch):
    """Of the same process: both would note its signals and write its log."""
    under_way, go_on = threading.Event(), threading.Event()
    make_stages = execution.Loop._make_stages

    def waiting(loop, *arguments):
        under_way.set()
        assert go_on.wait(60)
        return make_stages(loop, *arguments)

    monkeypatch.setattr(execution.Loop, "_make_stages", waiting)
    rows = []
    first = threading.Thread(
        target=lambda: rows.extend(run_loop(config_of(tiny_config, tmp_path / "one")))
    )
    first.start()
    try:
        assert under_way.wait(60)
        with pytest.raises(UserError, match="another run is under way in this process") as error:
            run_loop(config_of(tiny_config, tmp_path / "two"))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "two").exists()
    finally:
        go_on.set()
        first.join(60)
    assert [row["stage"] for row in rows] == ["source-only"]
    log = (tmp_path / "one/log.txt").read_text(encoding="utf-8")
    assert "source-only  3/3 steps" in log  # said after the second was refused
    assert run_loop(config_of(tiny_config, tmp_path / "two"))  # after it, one can run
