"""`init-config`: what it writes is true to the folders that it looked at, and passes `check`."""

import builtins
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bdl import pipeline
from bdl.domains.draft import choose_encoding, draft_label_space, fitting_spaces
from bdl.domains.label_space import load_label_space
from bdl.domains.looks import Look
from bdl.domains.streets.scene import render_street
from bdl.domains.survey import Survey, survey
from bdl.runtime.config import DomainConfig, load_config
from bdl.runtime.errors import UserError
from bdl.translation.schedule import Schedule
from tests.helpers import layouts

SIZE = (96, 48)
LOOK = Look(np.zeros((2, 101)), 0.0)


def street(root: Path, name: str, seed: int, appearance: str, labelled: bool = True) -> None:
    image, labels = render_street(seed, SIZE, appearance)
    for place, content in (("images", image), ("labels", labels)):
        if place == "images" or labelled:
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / place / f"{name}.png")


@pytest.fixture
def streets(tmp_path, monkeypatch) -> list[str]:
    """Three folders of rendered streets, and the options that name them; we are beside them."""
    for number in range(3):
        street(tmp_path / "day", f"{number:03d}", number, "synthetic")
        street(tmp_path / "dusk/train", f"{number:03d}", 10 + number, "real", labelled=False)
        street(tmp_path / "dusk/val", f"{number:03d}", 20 + number, "real")
    monkeypatch.chdir(tmp_path)
    return ["--source", "day", "--target", "dusk/train", "--validation", "dusk/val"]


def init(*arguments: str) -> int:
    return pipeline.main(["init-config", *arguments])


def test_it_passes_check_and_names_what_is_there(streets, capsys):
    assert init(*streets, "--label-space", "camvid11", "--out", "own.yaml") == 0
    said = capsys.readouterr().out
    assert "check --config own.yaml" in said
    assert "/3 files" not in said  # how far looking had come is no news once it is done
    config = load_config("own.yaml")
    assert config.out == "runs/own" and config.data.label_space == "camvid11"
    source, target = config.data.source, config.data.target
    assert (source.root, source.images, source.labels) == ("day", "images/*.png", "labels/*.png")
    assert (source.encoding, target.encoding, target.labels) == ("train_id", None, None)
    assert [config.data.source.size, config.data.validation.size] == [(96, 48)] * 2
    # The largest square of a multiple of 4 that fits; images this small stay as they are.
    assert (config.translation.load_width, config.translation.crop) == (96, (48, 48))
    pretrained = config.segmentation.network != "compact"  # where its weights are installed
    options = {"output_stride": 16, "frozen_statistics": False} if pretrained else {}
    assert config.segmentation.options == options
    # Flat renderings, of which the target has none.
    assert config.translation.generator.grain > 0 and config.init == "adapted"
    assert pipeline.main(["check", "--config", "own.yaml", "--pixels"]) == 0
    assert "no problem found" in capsys.readouterr().out


def test_it_says_how_many_steps_a_translator_takes(streets):
    assert init(*streets, "--label-space", "camvid11", "--steps-per-epoch", "12") == 0
    (line,) = [line for line in Path("mine.yaml").read_text().splitlines() if "_epoch:" in line]
    (said,) = re.findall(r"(\d+) steps in all", line)
    training = load_config("mine.yaml").translation.of_round(1)
    assert int(said) == Schedule.of(training, 3).steps == 7 * 12


def test_without_a_label_space_one_is_written_with_a_class_for_every_id(streets, capsys):
    assert init(*streets) == 0
    held = set()
    for file in Path("day/labels").glob("*.png"):
        held |= set(np.unique(np.asarray(Image.open(file))).tolist())
    space = load_label_space("mine_classes.yaml")
    assert set(space.encodings["stored"]) == held - {255}
    assert len(set(space.colors)) == space.num_classes
    assert load_config("mine.yaml").data.validation.encoding == "stored"
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0


def test_own_folders_and_endings_become_patterns(tmp_path):
    for run in ("run1", "run2"):
        for number in range(2):
            layouts.image(tmp_path / f"rgb/{run}/{number:06d}.jpg")
            ids = layouts.ids(1, 2, 61, 255)
            layouts.label(tmp_path / f"ids/{run}/{number:06d}_ids.png", ids)
            layouts.image(tmp_path / f"label_colors/{run}/{number:06d}.png")
    found = survey(str(tmp_path), "train", True, "--source")
    assert (found.domain.images, found.domain.labels) == ("rgb/*/*.jpg", "ids/*/*_ids.png")
    assert (found.count, found.size, found.one_size) == (4, (16, 8), True)
    assert found.ids == {1: 0.25, 2: 0.25, 61: 0.25}


def test_images_of_one_flat_folder_are_found(tmp_path):
    for number in range(3):
        layouts.image(tmp_path / f"{number}.jpg", size=(20 + number // 2, 10))
    found = survey(str(tmp_path), "train", False, "--target")
    assert found.domain.images == "*.jpg"
    assert (found.count, found.size, found.one_size) == (3, (20, 10), False)


def test_cityscapes_and_synthia_are_known(tmp_path):
    layouts.cityscapes(tmp_path / "c")
    layouts.synthia(tmp_path / "s")
    target = survey(str(tmp_path / "c"), "train", False, "--target")
    validation = survey(str(tmp_path / "c"), "val", True, "--validation")
    assert (target.domain.layout, target.domain.split, target.count) == ("cityscapes", "train", 3)
    assert (validation.domain.split, validation.count) == ("val", 2)
    assert survey(str(tmp_path / "s"), "train", True, "--source").domain.layout == "synthia"


def test_cityscapes_validates_on_its_other_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layouts.cityscapes(tmp_path / "city", size=(64, 32))
    for number in range(2):
        layouts.image(tmp_path / f"game/images/{number:05d}.png", size=(80, 48))
        layouts.palette_label(
            tmp_path / f"game/labels/{number:05d}.png", layouts.ids(7, 8, 0, 33, size=(80, 48))
        )
    assert init("--source", "game", "--target", "city") == 0
    config = load_config("mine.yaml")
    assert (config.data.label_space, config.data.source.encoding) == ("cityscapes19", "label_id")
    validation = config.data.validation
    assert (validation.layout, validation.root, validation.split) == ("cityscapes", "city", "val")
    assert config.translation.load_width == 64
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0


@pytest.fixture
def answers(monkeypatch) -> Callable[[list[str]], list[str]]:
    """answers(texts): they are typed one after the other; returns the list of the questions."""

    def type_in(texts: list[str]) -> list[str]:
        questions: list[str] = []
        coming = iter(texts)

        def answer(question: str) -> str:
            questions.append(question)
            return next(coming)

        monkeypatch.setattr(builtins, "input", answer)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        return questions

    return type_in


def test_sizes_and_steps_are_those_given(streets):
    amounts = "--source-size 80 40 --target-size 64 48 --steps 77 --steps-per-epoch 9"
    assert init(*streets, *amounts.split(), "--machine", "gpu") == 0
    config = load_config("mine.yaml")
    assert config.data.source.size == (80, 40)
    assert config.data.target.size == config.data.validation.size == (64, 48)
    assert (config.segmentation.steps, config.segmentation.schedule.steps) == (77, None)
    assert config.translation.steps_per_epoch == 9
    # Of the GPU's kind; the crop fits into the source at the smaller width, 64x32.
    assert (config.translation.generator.width, config.segmentation.batch_size) == (64, 4)
    assert (config.translation.load_width, config.translation.crop) == (64, (32, 32))
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0


def test_what_is_not_given_is_asked_for(streets, answers):
    """A wrong answer is asked for again; Enter takes what was derived."""
    folders = ["day", "nowhere", "dusk/train", "dusk/val"]
    questions = answers([*folders, "camvid11", "", "64 x 32", "many", "55", ""])
    assert init() == 0
    wanted = [
        "labelled images, such",
        "unlabelled",
        "unlabelled",
        "labelled images like",
        "camvid11",
    ]
    wanted += ["source.*96x48]", "target.*96x48]", "segmentation", "segmentation", "translator"]
    assert len(questions) == len(wanted)
    for part, question in zip(wanted, questions, strict=True):
        assert re.search(part, question)
    config = load_config("mine.yaml")
    assert config.data.target.root == "dusk/train" and config.data.label_space == "camvid11"
    assert (config.data.source.size, config.data.target.size) == ((96, 48), (64, 32))
    assert config.segmentation.steps == 55


def test_with_all_folders_given_only_the_classes_are_asked_for(streets, answers):
    """Which ids alone cannot tell; "new" writes a label space of their own."""
    questions = answers([""])
    assert init(*streets) == 0
    assert len(questions) == 1 and "camvid11, cityscapes19" in questions[0]
    assert load_config("mine.yaml").data.label_space == "mine_classes.yaml"


def test_a_few_labelled_images_of_the_target_are_a_section_of_their_own(streets, capsys):
    street(Path("few"), "a", 11, "real")  # of the target
    street(Path("few"), "b", 31, "real")
    few = ["--target-labelled", "few", "--label-space", "camvid11"]
    assert init(*streets, *few, "--target-size", "64", "48") == 0
    text = Path("mine.yaml").read_text(encoding="utf-8")
    section = text.partition("  target_labelled:")[2].partition("  validation:")[0]
    assert "# 2 images of 96x48" in section and "size:" not in section
    domain = load_config("mine.yaml").data.target_labelled
    assert (domain.root, domain.images, domain.labels) == ("few", "images/*.png", "labels/*.png")
    assert domain.encoding == "train_id"
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0
    assert "data.target_labelled: 2 images of 96x48" in capsys.readouterr().out


def test_a_labelled_image_that_measures_is_refused(streets, capsys):
    street(Path("few"), "renamed", 21, "real")  # the second of the validation images
    assert init(*streets, "--target-labelled", "few", "--label-space", "camvid11") == 2
    assert re.search(
        r"--target-labelled: .*renamed\.png is the validation image .*001\.png, which may only",
        capsys.readouterr().err,
    )
    assert not Path("mine.yaml").exists()


def test_validation_images_among_the_targets_are_warned_of(streets, capsys):
    assert init(*streets[:2], "--target", "dusk", "--validation", "dusk/val") == 0
    said = capsys.readouterr().out
    assert "--target: 3 of the 3 validation images are among its images" in said
    assert "--source: 3 of" not in said
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0
    assert "warning: data.target: 3 of the 3 validation images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--source", "nowhere"], "--source: nowhere is not a folder"),
        (["--source", "empty"], "--source: empty holds no images"),
        (["--source", "dusk/train"], "no such label file"),
        (["--label-space", "camvid"], "'camvid' is neither a file nor"),
        (["--out", "mine.yml"], "--out: mine.yml must end with .yaml"),
        (["--out", "taken.yaml"], "taken.yaml: is there already"),
        (["--source-size", "4", "4"], "images of 4x2 are too small"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(streets, capsys, change, expected):
    Path("empty").mkdir()
    Path("taken.yaml").write_text("precious")
    assert init(*streets, *change) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert [file.name for file in Path().glob("*.y*ml")] == ["taken.yaml"]
    assert Path("taken.yaml").read_text() == "precious"


def test_nobody_to_ask_is_an_error(streets, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert init(*streets[:2], *streets[4:]) == 2
    assert "--target: is not given" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [True, False])
def test_without_validation_nothing_is_measured(streets, answers, monkeypatch, capsys, asked):
    if asked:  # Enter: none; the label ids' space; sizes and steps
        questions = answers(["", "camvid11", "", "", "", ""])
    assert init(*streets[:4], *([] if asked else ["--label-space", "camvid11"])) == 0
    assert not asked or "none: nothing is measured" in questions[0]
    said = capsys.readouterr().out
    assert "nothing will be measured" in said and "validation: null" in said
    assert load_config("mine.yaml").data.validation is None
    assert pipeline.main(["check", "--config", "mine.yaml"]) == 0
    assert "evaluation" not in capsys.readouterr().out


def write(root: str, name: str, ids: tuple[int, ...], save: Callable = layouts.label) -> None:
    for number in range(3):
        layouts.image(Path(root) / f"images/{number}.jpg", (64, 48))
        save(Path(root) / f"labels/{number}{name}", layouts.ids(*ids, size=(64, 48)))


def one_bit(file: Path, ids: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids > 0).save(file)


def painted(file: Path, ids: np.ndarray) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors[ids]).save(file)


# The source's labels and the validation's; the encodings written, and those chosen.
MASKS = {
    "both 0 and 255": (((0, 255), ".png"), ((0, 255), ".png"), {"stored": {0, 255}}, "stored"),
    "1 bit": (((0, 1), ".png", one_bit), ((0, 1), ".png", one_bit), {"stored": {0, 1}}, "stored"),
    "1 bit, and 0 and 255": (
        ((0, 1), ".png", one_bit),
        ((0, 255), ".png"),
        {"stored": {0, 1}, "mask": {0, 255}},
        "mask",
    ),
    "0 and 255, and 0 and 1": (
        ((0, 255), ".png"),
        ((0, 1), ".png"),
        {"stored": {0, 255}},
        "train_id",
    ),
    "255 beside two ids": (((0, 1, 255), ".png"), ((0, 1), ".png"), {"stored": {0, 1}}, "stored"),
    "255 beside 128": (((0, 128, 255), ".png"), ((0, 128), ".png"), {"stored": {0, 128}}, "stored"),
    "tif": (((0, 1, 2), ".tif"), ((0, 1, 2), ".tif"), {"stored": {0, 1, 2}}, "stored"),
    "colours": (
        ((0, 1, 2), ".png", painted),
        ((0, 1), ".png", painted),
        {"stored": {0, 0x800000, 0x008000}},
        "stored",
    ),
}


@pytest.mark.parametrize("case", MASKS)
def test_labels_of_any_kind_are_drafted_for(tmp_path, monkeypatch, capsys, case):
    source, validation, encodings, chosen = MASKS[case]
    monkeypatch.chdir(tmp_path)
    for root, (ids, name, *save) in (("a", source), ("b", source), ("c", validation)):
        write(root, name, ids, *save)
    folders = ["--source", "a", "--target", "b", "--validation", "c"]
    assert init(*folders) == 0
    space, config = load_label_space("mine_classes.yaml"), load_config("mine.yaml")
    stored = {name: set(ids) for name, ids in space.encodings.items()}
    assert {name: ids for name, ids in stored.items() if name not in ("train_id", "color")} == (
        encodings
    )
    assert config.data.source.encoding == "stored" and config.data.validation.encoding == chosen
    assert pipeline.main(["check", "--config", "mine.yaml", "--pixels"]) == 0
    assert "ids are no class" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ((0, 255), ["--label-space", "two.yaml"], r"mask: \{0: soil, 255: weed\}"),
        ((3,), [], r"its labels hold 1 ids \(3\)"),
        ((1, 255), [], r"its labels hold 1 ids \(1 and 255, which is ignored\)"),
        ((1,), ["--label-space", "two.yaml"], "one class alone, weed"),
    ],
)
def test_labels_that_nothing_can_be_learned_from(
    tmp_path, monkeypatch, capsys, ids, options, message
):
    monkeypatch.chdir(tmp_path)
    write("a", ".png", ids)
    Path("two.yaml").write_text(
        "classes: [{name: soil, color: [1, 2, 3]}, {name: weed, color: [4, 5, 6]}]"
    )
    assert init("--source", "a", "--target", "a", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert [file.name for file in Path().glob("*.yaml")] == ["two.yaml"]


def test_what_else_lies_there_is_said(streets, capsys):
    for name in ("depth", "instances"):
        layouts.label(Path(f"day/{name}/000.png"), layouts.ids(1, 2, 3))
    assert init(*streets, "--label-space", "camvid11") == 0
    said = capsys.readouterr().out
    assert "source: 3 images of 96x48 in day: images/*.png, labels labels/*.png\n" in said
    assert "source: also there, and not taken: depth/*.png (1), instances/*.png (1)" in said


def holding(*ids: int, layout: str = "folder") -> Survey:
    share = {number: 1 / len(ids) for number in ids}
    return Survey(DomainConfig(layout=layout), frozenset(), (8, 8), True, 1.0, LOOK, share)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (holding(0, 1, 18), "train_id"),
        # 7, 8 and 11 are train ids too, but 33 is not, and files of train ids hold nothing else.
        (holding(7, 8, 11, 33), "label_id"),
        (holding(0, 7, 8, layout="cityscapes"), "label_id"),
        (holding(0, 3, layout="synthia"), "synthia"),
    ],
)
def test_the_encoding_is_told_by_layout_or_ids(found, expected):
    assert choose_encoding(load_label_space("cityscapes19"), found) == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((0, 10), ["camvid11", "cityscapes19"]),
        ((0, 16), ["cityscapes19"]),  # train: no class of CamVid's
        ((7, 8, 11, 33), ["camvid11", "cityscapes19"]),  # label ids, which both know
        ((0, 200), []),
    ],
)
def test_label_spaces_that_the_ids_may_be_of(ids, expected):
    assert fitting_spaces({"source": holding(*ids), "target": holding()}) == expected


def test_ids_of_no_class_are_refused():
    with pytest.raises(UserError, match="knows none of the label ids"):
        choose_encoding(load_label_space("cityscapes19"), holding(200))


def test_a_drafted_label_space_is_one(tmp_path):
    file = tmp_path / "classes.yaml"
    shares = {3: 0.75, 200: 0.25}
    source = Survey(DomainConfig(), frozenset(), (8, 8), True, 1.0, LOOK, shares)
    file.write_text(draft_label_space({"source": source}), encoding="utf-8")
    assert yaml.safe_load(file.read_text())["encodings"] == {
        "stored": {3: "class 3", 200: "class 200"}
    }
    table = load_label_space(str(file)).table("stored")
    assert table[[3, 200, 0]].tolist() == [0, 1, 255]
    with pytest.raises(UserError, match="hold 0 ids"):
        draft_label_space({"source": holding()})
