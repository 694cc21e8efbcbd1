"""docs/: every command of the tutorial runs, the reference is current, links and keys exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

import pipeline
from domains.streets import render_street
from runtime import __version__
from runtime.config import Config, known_keys, value_at

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What makes the tutorial's trainings take a second.
TINY = """
    segmentation.network=compact segmentation.options.width=4 segmentation.steps=3
    segmentation.adversarial.width=4 translation.constant_epochs=1 translation.decay_epochs=0
    translation.steps_per_epoch=2 translation.generator.width=4 translation.generator.blocks=1
    translation.discriminator_width=4 iterations=1 device=cpu precision=32-true data.workers=0
"""


@pytest.fixture
def camvid_like(tmp_path, monkeypatch) -> Path:
    """The tutorial's folders, with rendered streets in the place of photos; we are in there."""
    first = 0
    for place, appearance, labelled in (
        ("day", "synthetic", True),
        ("dusk/train", "real", False),
        ("dusk/val", "real", True),
    ):
        for number in range(2):
            image, labels = render_street(first + number, (64, 32), appearance)
            for kind, content in (("images", image), ("labels", labels)):
                if kind == "images" or labelled:
                    file = tmp_path / place / kind / f"{number:03d}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(content).save(file)
        first += 100
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: str) -> list[list[str]]:
    """The commands of a page's console blocks, as words after the program's name."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines and all(line.startswith("$ bdl ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


def test_every_command_of_the_tutorial_runs(camvid_like, capsys):
    for words in commands("tutorial.md"):
        shorter = TINY.split() if words[0] in ("run", "ablate", "check") else []
        own = {word.partition("=")[0] for word in words}
        given = [word for word in shorter if word.partition("=")[0] not in own]
        assert pipeline.main([*words, *given]) == 0, (words, capsys.readouterr().err)
    for made in (
        "street.yaml",
        "runs/street/report.html",
        "comparison.html",
        "runs/rounds/ablation.html",
        "predicted/overlays/000.jpg",
        "street.pt2",
    ):
        assert (camvid_like / made).is_file(), made
    said = capsys.readouterr().out
    assert "no problem found" in said and "k1/segmentation-1" in said


def reference():
    """The script that writes the reference, as a module."""
    file = ROOT / "docs" / "list_configuration.py"
    spec = importlib.util.spec_from_file_location("list_configuration", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_current():
    """If not: python docs/list_configuration.py"""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == reference().page()


def test_the_reference_explains_every_key_and_its_default():
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \| `(.*)` \| (.*) \|$", reference().page(), re.MULTILINE
    )
    keys = known_keys()
    sections = {key.rpartition(".")[0] for key in keys}
    assert [key for key, *_ in rows if key not in keys] == []
    assert {key for key, *_ in rows} == set(keys) - sections
    for key, kind, default, meaning in rows:
        assert kind and meaning, key
        assert yaml.safe_load(default) == value_at(Config(), key), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["faq.md", "multi_gpu.md", "tutorial.md"])
def test_every_key_and_command_that_a_page_names_exists(page, capsys):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    keys = set(re.findall(r"\b((?:data|translation|segmentation)\.[a-z_.]+[a-z_])", text))
    keys |= set(re.findall(r"[\s`]([a-z_]+)=", text))
    assert keys and keys - set(known_keys()) - {"data.target.list_file"} == set()
    with pytest.raises(SystemExit):
        pipeline.main(["--help"])
    listed = capsys.readouterr().out
    for command in re.findall(r"(?:pipeline\.py|bdl) ([a-z-]+)", text):
        assert command in listed


def test_the_citation_is_read_as_such():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["preferred-citation"]["year"] == 2019
    assert {"cff-version", "message", "title", "authors", "version"} <= content.keys()
    assert content["version"] == __version__
