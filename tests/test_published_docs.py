"""docs/: the worked example works, and the table of commands names keys and options that exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from bdl import pipeline
from bdl.domains.problem import Problem
from bdl.runtime.config import known_keys, load_config
from tests.helpers import layouts

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def example(tmp_path, monkeypatch) -> Path:
    """The files of docs/own_data.md, as it says, and images where it says; we are there."""
    text = (DOCS / "own_data.md").read_text(encoding="utf-8")
    files = re.findall(r"`(\w+\.yaml)`[^`]*```yaml\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["warehouse.yaml", "robot.yaml"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    for number in range(2):
        data = tmp_path / "warehouse"
        layouts.image(data / f"simulated/rgb/run1/{number:06d}.jpg")
        layouts.label(data / f"simulated/ids/run1/{number:06d}_ids.png", layouts.ids(1, 2, 61, 99))
        layouts.image(data / f"camera/monday/{number:06d}.jpg")
        layouts.image(data / f"measured/images/{number:06d}.jpg")
        layouts.label(data / f"measured/labels/{number:06d}.png", layouts.ids(0, 4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_shows_what_init_config_writes(tmp_path, monkeypatch, capsys):
    """The command and the file that it begins with; check finds nothing wrong with either."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ {4}bdl (init-config .*)$", text, re.MULTILINE)
    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "data:" in b]
    monkeypatch.chdir(tmp_path)
    for root in ("renderings", "photos", "measured"):
        for number in range(2):
            layouts.image(tmp_path / f"{root}/images/{number}.png", (96, 48))
            ids = layouts.ids(0, 1, 10, 255, size=(96, 48))
            layouts.label(tmp_path / f"{root}/labels/{number}.png", ids)
    assert pipeline.main([*command.split(), "--machine", "cpu"]) == 0
    written = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    Path("begun.yaml").write_text(block, encoding="utf-8")
    shown = yaml.safe_load(block)
    sections = shown.pop("data")
    assert shown.items() <= written.items()
    assert sections.pop("label_space") == written["data"]["label_space"]
    for role, section in sections.items():
        assert section.items() <= written["data"][role].items()
    network = "segmentation.network=compact"
    for file in ("mine.yaml", "begun.yaml"):
        assert pipeline.main(["check", "--config", file, network]) == 0
        assert pipeline.main(["run", "--config", file, network, "--dry-run"]) == 0


def test_the_example_of_own_data_can_be_planned(example, capsys):
    # Of a network whose weights need no fetching.
    network = "segmentation.network=compact"
    assert pipeline.main(["check", "--config", "robot.yaml", network]) == 0
    capsys.readouterr()
    assert pipeline.main(["run", "--config", "robot.yaml", "--dry-run"]) == 0
    assert "k2/segmentation-2" in capsys.readouterr().out
    for number in range(2):
        layouts.image(example / f"translated/run1/{number:06d}.png")
    given = ["--dry-run", "translation.images=translated"]
    assert pipeline.main(["run", "--config", "robot.yaml", *given]) == 0
    assert "k1/translator" not in capsys.readouterr().out


def test_the_example_maps_the_simulators_ids(example):
    problem = Problem(load_config("robot.yaml").data, example)
    assert problem.table("source")[[1, 2, 61, 99]].tolist() == [0, 0, 4, 255]
    assert problem.table("validation")[[0, 4]].tolist() == [0, 4]
    assert problem.space.subsets == {"moving": (3, 4)}
    assert [sample.name for sample in problem.samples("target")] == [
        "monday/000000",
        "monday/000001",
    ]
    label = problem.samples("source")[1].label
    assert label == Path("warehouse/simulated/ids/run1/000001_ids.png")
    assert set(np.unique(problem.table("source")[layouts.ids(1, 2, 61, 99)])) == {0, 4, 255}


@pytest.mark.parametrize("page", ["published_commands.md", "own_data.md"])
def test_every_key_that_a_page_names_exists(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    keys = set(re.findall(r"\b(?:data|translation|segmentation)\.[a-z_.]+[a-z_]", text))
    assert keys
    known = {key for key in known_keys()} | {"segmentation.options.branches"}
    named_by_stage = {
        "segmentation.checkpoints.source",
        "segmentation.checkpoints.k",
        "translation.checkpoints.k",
    }
    assert keys - known - named_by_stage == set()


def test_every_command_that_a_page_names_exists(capsys):
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    called = set(re.findall(r"pipeline\.py ([a-z-]+)", text))
    with pytest.raises(SystemExit):
        pipeline.main(["--help"])
    listed = capsys.readouterr().out
    assert called >= {"run", "segment", "pseudo-label", "translate", "export", "evaluate", "score"}
    for command in sorted(called):
        assert command in listed
