"""README and docs/: their commands, scripts and examples run, the references are complete and
current, links, keys and commands exist, and the site is built."""

import argparse
import doctest
import importlib.util
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from bdl import __version__, pipeline
from bdl.commands.parser import make_parser
from bdl.domains.streets.scene import render_street
from bdl.runtime.config import known_keys
from bdl.runtime.config_keys import all_keys, default_of
from bdl.runtime.tracking import Tracker
from bdl.runtime.values import plain

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
API = [page for page in sorted((ROOT / "docs" / "api").glob("*.md")) if page.name != "README.md"]

# What makes the trainings of getting_started.md take a second.
TINY = """
    segmentation.network=compact segmentation.options.width=4 segmentation.steps=3
    segmentation.adversarial.width=4 translation.constant_epochs=1 translation.decay_epochs=0
    translation.steps_per_epoch=2 translation.generator.width=4 translation.generator.blocks=1
    translation.discriminator_width=4 iterations=1 device=cpu precision=32-true data.workers=0
"""


def render(folder: Path, first: int, appearance: str, labelled: bool) -> None:
    """Two rendered streets in folders as a user has them."""
    for number in range(2):
        image, labels = render_street(first + number, (64, 32), appearance)
        for kind, content in (("images", image), ("labels", labels)):
            if kind == "images" or labelled:
                file = folder / kind / f"{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(file)


@pytest.fixture
def camvid_like(tmp_path, monkeypatch) -> Path:
    """The folders of getting_started.md, with rendered streets as photos; we are in there."""
    render(tmp_path / "day", 0, "synthetic", labelled=True)
    render(tmp_path / "dusk/train", 100, "real", labelled=False)
    render(tmp_path / "dusk/val", 200, "real", labelled=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(page: str) -> list[list[str]]:
    """The commands of a page's console blocks, as words after the program's name."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines and all(line.startswith("$ bdl ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


@pytest.mark.slow
def test_every_command_of_getting_started_runs(camvid_like, capsys):
    for words in commands("getting_started.md"):
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


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in that language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S)


def contains(whole: object, part: object) -> bool:
    """Whether all that `part` says is in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and contains(whole[key], part[key]) for key in part)
    return whole == part


def test_init_config_writes_what_the_readme_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    render(Path("renderings"), 0, "synthetic", labelled=True)
    render(Path("photos"), 100, "real", labelled=False)
    render(Path("measured"), 200, "real", labelled=True)
    page = ROOT / "README.md"
    (line,) = re.findall(r"^    bdl (init-config .*)$", page.read_text("utf-8"), re.M)
    assert pipeline.main(shlex.split(line)) == 0
    (shown,) = blocks(page, "yaml")
    written = yaml.safe_load(Path("mine.yaml").read_text("utf-8"))
    assert contains(written, yaml.safe_load(shown))
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0
    # What is shown is a configuration by itself, with the defaults of the paper.
    Path("shown.yaml").write_text(shown, encoding="utf-8")
    assert pipeline.main(["run", "--config", "shown.yaml", "--dry-run"]) == 0
    assert "k2/segmentation-1" in capsys.readouterr().out


# What stands for the two programs: it prints what it is given.
PROGRAMS = {
    "mlflow": """
from contextlib import nullcontext
def start_run(run_name): return nullcontext(print('run', run_name))
def log_metric(key, value, step): print(key, round(value, 3), step, sep='|')
def log_artifact(file): print(file)
""",
    "wandb": """
from contextlib import contextmanager
class Run:
    def define_metric(self, pattern, step_metric): assert step_metric == pattern[:-1] + 'step'
    def log(self, row):
        (key, value), (name, step) = row.items()
        assert name == key.partition('/')[0] + '/step'
        print(key, round(value, 3), step, sep='|')
    def save(self, file, base_path, policy): print(file)
@contextmanager
def init(project, name):
    print('run', name)
    yield Run()
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_curves_reach_a_program_by_the_script_of_the_page(program, tmp_path):
    (script,) = (
        code
        for code in blocks(ROOT / "docs/track_experiments.md", "python")
        if f"import {program}" in code and "EventAccumulator" in code
    )
    run = tmp_path / "runs" / "mine"
    for log in ("k1-00-translator", "all-networks"):
        with Tracker(run / "tensorboard" / log) as tracker:
            for step in (0, 20):
                tracker.scalars({"step": step, "lr": 0.5, "cycle": step / 10})
    (tmp_path / f"{program}.py").write_text(PROGRAMS[program], encoding="utf-8")
    (tmp_path / "copy_curves.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "copy_curves.py", str(run)], cwd=tmp_path, capture_output=True, text=True
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert said[0] == "run mine" and said[-1].endswith("report.html")
    assert "all-networks/loss/cycle|2.0|20" in said
    assert "k1-00-translator/learning rate|0.5|0" in said


def test_every_file_of_a_run_stands_in_its_reference(tiny_run):
    """By its name, or by that of the folder of numbered files that it lies in."""
    text = (ROOT / "docs" / "run_folder.md").read_text("utf-8")
    files = [file.relative_to(tiny_run.folder) for file in tiny_run.folder.rglob("*.*")]
    made = [file for file in files if file.parts[0] not in ("data", "tensorboard")]
    assert len(made) > 100
    missing = {
        str(file) for file in made if file.name not in text and f"`{file.parent.name}/" not in text
    }
    assert missing == set()


def test_the_index_lists_every_page_and_notebook():
    index = ROOT / "docs" / "README.md"
    linked = re.findall(r"^ *- \[[^]]+\]\(([^)#]+)\)", index.read_text("utf-8"), re.M)
    files = [*index.parent.rglob("*.md"), *index.parent.rglob("*.ipynb")]
    pages = {page.relative_to(index.parent).as_posix() for page in files}
    assert sorted(linked) == sorted(pages - {"README.md"})


def test_every_command_and_option_has_its_place_in_the_reference():
    text = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))
    parser, commands_of = make_parser()
    for name in commands_of.choices:
        assert f"`{name}`" in text, name
    known = {
        option
        for command in (parser, *commands_of.choices.values())
        for action in command._actions
        if not isinstance(action, argparse._HelpAction)
        for option in action.option_strings
    }
    assert known - named == set() and named - known == {"--help"}


@pytest.mark.parametrize("page", API, ids=lambda page: page.stem)
def test_every_example_of_a_call_prints_what_its_page_shows(
    page, tiny_run, tiny_config, tmp_path, monkeypatch
):
    """In a folder with a configuration, a run of it and a photo."""
    monkeypatch.chdir(tmp_path)
    tiny_run.copy(tmp_path / "runs" / "mine")
    Path("mine.yaml").write_text(tiny_config.read_text("utf-8"), encoding="utf-8")
    Image.fromarray(render_street(7, (80, 48), "real")[0]).save("photo.jpg")
    examples = "\n".join(blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(examples, {}, page.name, str(page), 0)
    assert test.examples
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not said, "".join(said)


def documented(page: Path) -> dict[str, object]:
    """The functions and classes that a page shows the docstrings of, and their shown methods, by
    name."""
    shown: dict[str, object] = {}
    for block in re.split(r"^::: ", page.read_text("utf-8"), flags=re.M)[1:]:
        name = block.split()[0]
        shown[name] = pkgutil.resolve_name(name)
        for member in re.findall(r"\w+", "".join(re.findall(r"members: \[(.*?)\]", block))):
            shown[f"{name}.{member}"] = getattr(shown[name], member)
    return shown


@pytest.mark.parametrize("page", API, ids=lambda page: page.stem)
def test_a_documented_call_explains_every_argument_and_what_it_returns(page):
    shown = documented(page)
    assert shown
    for name, call in shown.items():
        arguments = (inspect.getdoc(call) or "").partition("Args:")[2]
        signature = inspect.signature(call)
        # A network that leaves its making to its subclasses has no arguments of its own.
        own = not inspect.isclass(call) or "__init__" in vars(call)
        for argument in signature.parameters.keys() - {"self"} if own else ():
            assert re.search(rf"^ +(\*\*)?{argument}: \S", arguments, re.M), (name, argument)
        if not inspect.isclass(call):
            assert "Returns:" in arguments or not signature.parameters.keys() - {"self"}, name


@pytest.mark.slow
def test_a_link_that_leads_nowhere_stops_the_site(tmp_path, capfd):
    pytest.importorskip("mkdocs")
    site = script("build_site")
    site.stage(tmp_path)
    assert site.build(tmp_path) == 0, capfd.readouterr()
    built = (tmp_path / "html/docs/api/predictor.html").read_text("utf-8")
    assert "Width and height in pixels" in built  # of a docstring
    with open(tmp_path / "pages/docs/faq.md", "a", encoding="utf-8") as page:
        page.write("\n[a](method.md#nowhere) ![a](images/nowhere.png) [a](nowhere.md)\n")
    assert site.build(tmp_path) != 0
    said = "".join(capfd.readouterr())
    for link in ("method.md#nowhere", "images/nowhere.png", "nowhere.md"):
        assert f"contains a link '{link}'" in said, link


def script(name: str):
    """A script of docs/, as a module."""
    file = ROOT / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_current():
    """If not: python docs/list_configuration.py"""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == script(
        "list_configuration"
    ).page()


def test_the_tables_of_figures_are_those_of_the_results():
    """If not: python docs/list_performance.py"""
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert text == script("list_performance").page(text)


def test_the_reference_explains_every_key_and_its_default():
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| `(.*)` \| (.*) \|$",
        script("list_configuration").page(),
        re.MULTILINE,
    )
    keys = known_keys()
    sections = {key.rpartition(".")[0] for key in keys}
    assert [key for key, *_ in rows if key not in keys] == []
    assert {key for key, *_ in rows} == set(keys) - sections
    for key, kind, limits, default, meaning in rows:
        assert kind and meaning, key
        assert limits == str(all_keys()[key].range or "")
        assert yaml.safe_load(default) == plain(default_of(key)), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_reads_the_same_on_github_and_in_the_site(page):
    """The site's Markdown wants a blank line before a list or a table, and four spaces for each
    level; a number at the beginning of a line is a list there."""
    is_code, before = False, ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        said = f"{page.name}:{number}: {line}"
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            item = re.match(r"( *)([-*]|\d+\.) ", line)
            assert item is None or len(item[1]) % 4 == 0, said
            in_list = re.match(r" *([-*]|\d+\.) |  ", before)
            assert item is None or not before or in_list, said
            assert before or not re.match(r" {5,7}\S", line), said
            assert not line.startswith("|") or before[:1] in ("", "|"), said
        before = line


NAMING_KEYS = ["decisions", "faq", "getting_started", "loading", "method", "multi_gpu", "rerun"]


@pytest.mark.parametrize("page", [f"{name}.md" for name in NAMING_KEYS])
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
