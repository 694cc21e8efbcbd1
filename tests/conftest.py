"""What tests share: one thread, a silent console, and one run of the whole loop, made tiny."""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from bdl import pipeline
from bdl.runtime.console import Console
from bdl.runtime.run import Run
from tests.helpers.runs import TINY, RunFolder

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What the consoles of a test make of logging ends with it."""
    loggers = [logging.getLogger(name) for name in ("bdl", "py.warnings")]
    before = [(item, item.handlers[:], item.level, item.propagate) for item in loggers]
    yield
    for item, handlers, level, propagate in before:
        item.handlers[:], item.propagate = handlers, propagate
        item.setLevel(level)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("configuration") / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The tiny configuration from nothing to its report. Tests look at it and leave it alone."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pipeline.main(["run", "--config", str(tiny_config), f"out={folder}"])
    assert status == 0
    return RunFolder(folder, said.getvalue())


@pytest.fixture
def command(tiny_config: Path) -> Callable[..., int]:
    """The command line with the tiny configuration: command("run", "seed=1") -> exit status."""

    def call(name: str, *arguments: object) -> int:
        return pipeline.main([name, "--config", str(tiny_config), *map(str, arguments)])

    return call


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def console() -> Console:
    return Console(speaking=False)


@pytest.fixture
def run(fabric: Fabric, console: Console, tmp_path: Path) -> Run:
    """How a single stage works, on one CPU."""
    return Run(tmp_path, fabric, console, title="stage")
