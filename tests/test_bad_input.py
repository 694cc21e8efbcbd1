"""Whatever is wrong is said in one line that names file or key, the problem and what to do: exit
status 2, no traceback, nothing half written."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image

from bdl.domains.images import open_image
from bdl.pipeline import main
from benchmarks.kill_and_resume import TINY
from tests.helpers import predictor

SIZE = (48, 32)


class Setup:
    """A loop on plain folders that would run; each kind of bad input breaks one thing in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads(json.dumps(TINY))
        self.config["out"] = str(folder / "run")
        for role in ("source", "target", "validation"):
            self.config["data"][role] = {"layout": "folder", "root": str(folder / role)}
            self.config["data"][role] |= {"size": list(SIZE), "images": "images/*"}
            for number in range(3):
                self.write_pair(role, str(number))
        self.file = folder / "config.yaml"
        self.command = ["run"]
        self.overrides: list[str] = []

    def write_pair(self, role: str, name: str, size: tuple[int, int] = SIZE) -> None:
        for kind in ("images", "labels"):
            (self.folder / role / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 60, 30)).save(self.image(role, name))
        label = np.zeros((size[1], size[0]), np.uint8)
        label[:, ::3] = 10  # sky
        Image.fromarray(label).save(self.label(role, name))

    def image(self, role: str, name: str) -> Path:
        return self.folder / role / "images" / f"{name}.png"

    def label(self, role: str, name: str) -> Path:
        return self.folder / role / "labels" / f"{name}.png"

    def write_weights(self, content: object) -> Path:
        file = self.folder / "weights.pt"
        torch.save(content, file)
        self.overrides.append(f"segmentation.weights={file}")
        return file

    def run(self) -> int:
        if not self.file.exists():
            self.file.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        return main([*self.command, "--config", str(self.file), *self.overrides])


KINDS: list[Callable[[Setup], str]] = []  # each breaks something; returns what the line must match


def kind(function: Callable[[Setup], str]) -> Callable[[Setup], str]:
    KINDS.append(function)
    return function


def overriding(name: str, override: str, pattern: str) -> None:
    def break_it(setup: Setup) -> str:
        setup.overrides.append(override.replace("FOLDER", str(setup.folder)))
        return pattern

    break_it.__name__ = name
    kind(break_it)


# The configuration

overriding("unknown_key", "sead=1", "command line: unknown key 'sead'; did you mean 'seed'")
overriding("unknown_nested_key", "segmentation.step=1", "unknown key 'segmentation.step'; did you")
overriding("wrong_type", "segmentation.steps=many", "command line: segmentation.steps: .*'many'")
overriding(
    "scalar_for_a_section", "data=3", "command line: data: has keys of its own; set data.KEY"
)
overriding("no_value", "seed", "command line: 'seed' is not of the form key=value")
overriding("negative_steps", "segmentation.steps=-3", "segmentation.steps: is -3, must be .* 1")
overriding("zero_batch", "translation.batch_size=0", "translation.batch_size: is 0, must be")
overriding("nan_rate", "translation.lr=.nan", "translation.lr: is nan, must be a number")
overriding("infinite_rate", "segmentation.optimizer.lr=.inf", "optimizer.lr: is inf, must be")
overriding("unknown_choice", "precision=8", "precision: '8' is not one of 32-true")
overriding("wrong_pair", "translation.crop=[32]", r"translation.crop: is \[32\], must be \[width")
overriding("wrong_betas", "translation.betas=[0.5,1.5]", "translation.betas: .* below 1")
overriding("quantile_above_1", "segmentation.pseudo_labels.quantile=2", "quantile: is 2.*0 to 1")
overriding("half_a_batch", "devices=3", "batch_size: is 2, must be a multiple of devices")
overriding("empty_out", "out=''", "out: is empty; give the folder")
overriding("scenes_0", "data.source={layout: streets, scenes: 0, root: null}", "scenes: is 0; give")
overriding("pattern_leads_out", "data.source.images=../*.png", "data.source.images: .* leads out")
overriding("unknown_layout", "data.source.layout=kitti", "data.source.layout: 'kitti' is not one")
overriding("unknown_encoding", "data.source.encoding=my", "data.source.encoding: 'my' is not in")
overriding("unknown_label_space", "data.label_space=mine", "data.label_space: 'mine' is neither")
overriding("unknown_network", "segmentation.network=unet", "segmentation.network: 'unet' is not")
overriding(
    "unknown_option", "segmentation.options={depth: 3}", "segmentation.options: compact: .*depth"
)
overriding(
    "crop_larger_than_image",
    "segmentation.augmentation.crop=[64,64]",
    r"segmentation.augmentation.crop: is \[64, 64\], larger than data.source.size",
)
overriding(
    "crop_wider_than_scaled", "translation.load_width=16", r"translation.crop: .*load_width 16"
)
overriding("no_translation_data", "data.target.root=null", "data.target.root: is not set; give")
overriding(
    "translations_missing", "translation.images=FOLDER/none", "translation.images: .* not a folder"
)
overriding(
    "translations_of_others",
    "translation.images=FOLDER/source/labels/..",
    "translation.images: .* lacks 3 of 3 source images by name",
)


@kind
def no_such_configuration(setup):
    setup.file = setup.folder / "other" / "config.yaml"
    setup.overrides = []
    setup.run = lambda: main(["run", "--config", str(setup.file)])
    return "config.yaml: no such configuration file; the project's own are"


@kind
def broken_yaml(setup):
    setup.file.write_text("seed: [1, 2")
    return "config.yaml: is not valid YAML"


@kind
def code_in_yaml(setup):
    setup.file.write_text(f"seed: !!python/object/apply:os.mkdir ['{setup.folder}/pwned']")
    return "config.yaml: is not valid YAML"


@kind
def yaml_list(setup):
    setup.file.write_text("- 1")
    return "config.yaml: must be a mapping"


@kind
def base_in_a_circle(setup):
    setup.file.write_text("base: config.yaml")
    return "config.yaml: builds on itself through 'base'; remove"


@kind
def binary_configuration(setup):
    setup.file.write_bytes(b"\xff\xfe\x00")
    return "config.yaml: is not valid YAML"


@kind
def broken_label_space(setup):
    (setup.folder / "space.yaml").write_text("classes: 3")
    setup.overrides.append(f"data.label_space={setup.folder / 'space.yaml'}")
    return "space.yaml: is not a label space"


# The run's folder


@kind
def out_is_a_file(setup):
    (setup.folder / "run").write_text("mine")
    return "out: .*run cannot be written to"


@kind
def folder_that_cannot_be_made(setup):
    (setup.folder / "file").write_text("mine")
    setup.overrides.append(f"out={setup.folder / 'file' / 'run'}")
    return "out: .*run cannot be written to"


@kind
def two_runs_in_one_folder(setup):
    (setup.folder / "run").mkdir()
    setup.lock = FileLock(setup.folder / "run" / "run.lock")
    setup.lock.acquire()
    return "out: .*run is in use by another run .*wait for it"


@kind
def files_in_the_way(setup):
    (setup.folder / "run" / "source-only").mkdir(parents=True)
    (setup.folder / "run" / "source-only" / "segmenter.pt").write_text("mine")
    return "source-only.segmenter.pt: is in the way .* was not made by a run; move it"


@kind
def damaged_manifest(setup):
    (setup.folder / "run" / "source-only").mkdir(parents=True)
    (setup.folder / "run" / "source-only" / "manifest.json").write_text("{")
    return "manifest.json: is not valid JSON .*; delete it"


@kind
def foreign_manifest(setup):
    (setup.folder / "run" / "source-only").mkdir(parents=True)
    (setup.folder / "run" / "source-only" / "manifest.json").write_text("[]")
    return "manifest.json: is not the record of a stage; move it away"


@kind
def no_such_stage(setup):
    setup.command = ["run", "--from-stage", "k9/translator"]
    return "--from-stage: no stage 'k9/translator'; the stages are source-only"


@kind
def stage_without_its_inputs(setup):
    setup.command = ["translate"]
    return "k1/translator needs source-only .*; run first: .*segment --k 0 .*; or make all: .* run "


# The data


@kind
def missing_root(setup):
    setup.overrides.append(f"data.source.root={setup.folder / 'nowhere'}")
    return "data.source.root: .*nowhere is not a folder"


@kind
def root_that_is_a_link_to_itself(setup):
    (setup.folder / "loop").symlink_to(setup.folder / "loop")
    setup.overrides.append(f"data.source.root={setup.folder / 'loop'}")
    return "data.source.root: .*loop is not a folder"


@kind
def empty_folder(setup):
    for number in range(3):
        setup.image("source", str(number)).unlink()
    return "data.source: no images match"


@kind
def missing_label(setup):
    setup.label("source", "1").unlink()
    return r"labels.1\.png: no such label file, for image"


@kind
def truncated_png(setup):
    file = setup.image("target", "2")
    file.write_bytes(file.read_bytes()[:-30])
    return r"images.2\.png: is not a readable image"


@kind
def text_in_the_place_of_an_image(setup):
    setup.image("target", "2").unlink()
    (setup.folder / "target" / "images" / "2.jpg").write_text("<html>404</html>")
    return r"images.2\.jpg: is not a readable image"


@kind
def zero_byte_file(setup):
    setup.label("validation", "0").write_bytes(b"")
    return r"labels.0\.png: is not a readable image"


@kind
def truncated_jpeg(setup):
    """Its header is whole, so that only decoding tells."""
    setup.image("source", "0").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    file = setup.folder / "source" / "images" / "0.jpg"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:700])
    return r"images.0\.jpg: is not a readable image"


@kind
def label_of_another_frame(setup):
    Image.new("L", (30, 30)).save(setup.label("source", "1"))
    return r"labels.1\.png: is 30x30, its image .* 48x32; they must show the same frame"


@kind
def colours_in_the_place_of_labels(setup):
    Image.new("RGB", SIZE).save(setup.label("source", "1"))
    return r"labels.1\.png: is a colour image, not a label map"


@kind
def grey_of_16_bits(setup):
    Image.fromarray(np.full((SIZE[1], SIZE[0]), 40_000, np.uint16)).save(setup.image("target", "1"))
    return r"images.1\.png: is a grey image of more than 8 bits; store it as"


@kind
def duplicate_names(setup):
    Image.new("RGB", SIZE).save(setup.folder / "source" / "images" / "1.jpg")
    return r"images.1\.png: has the same name as .*1\.jpg; rename or remove one"


@kind
def list_that_leads_out(setup):
    (setup.folder / "list.txt").write_text("../../target/images/0.png\n")
    setup.overrides.append(f"data.source.list_file={setup.folder / 'list.txt'}")
    return r"list.txt: '../../target/images/0\.png' names no image of data.source"


@kind
def list_that_is_not_there(setup):
    setup.overrides.append(f"data.source.list_file={setup.folder / 'list.txt'}")
    return "data.source.list_file: .*list.txt cannot be read as a text file"


@kind
def list_that_is_a_pipe(setup):
    os.mkfifo(setup.folder / "list.txt")
    setup.overrides.append(f"data.source.list_file={setup.folder / 'list.txt'}")
    return r"list\.txt: is a pipe or a device, which can be read but once; store it as a file"


@kind
def list_with_one_image_twice(setup):
    (setup.folder / "list.txt").write_text("0\n1\n0\n")
    setup.overrides.append(f"data.source.list_file={setup.folder / 'list.txt'}")
    return r"images.0\.png: has the same name as .*name it once in the list"


@kind
def names_that_the_runs_disk_takes_for_one(setup):
    out = setup.folder / "run"
    out.mkdir()
    (out / "probe").touch()
    os.link(out / "probe", out / "PROBE")  # as such a disk shows one file
    for name in "xX":
        setup.write_pair("target", name)
    return r"images.[xX]\.png: its name differs from that of .*[xX]\.png only in case, which .*run"


@kind
def very_long_name(setup):
    setup.write_pair("source", "n" * 250)
    return r"n.png: its name is too long .*shorten it by \d+ bytes"


@kind
def no_pixel_to_evaluate(setup):
    for number in range(3):
        Image.new("L", SIZE, 77).save(setup.label("validation", str(number)))
    return r"data.validation: no label file holds an id of a class \(they hold 77\); check"


@kind
def crop_higher_than_the_images(setup):
    setup.overrides.append("translation.crop=[32,40]")
    return r"images.\d\.png: the crop 32x40 is larger than the image, 48x32 .* a smaller crop"


def at_their_own_size(setup):
    for role in ("source", "target", "validation"):
        setup.overrides.append(f"data.{role}.size=null")


@kind
def images_of_two_sizes_in_one_batch(setup):
    at_their_own_size(setup)
    setup.overrides += ["segmentation.batch_size=2", "segmentation.augmentation.crop=null"]
    setup.write_pair("target", "1", (64, 48))
    return r"target.*0\.png is 48x32 and .*1\.png is 64x48, which do not go into one batch"


@kind
def images_too_small_for_the_discriminator(setup):
    at_their_own_size(setup)
    setup.overrides += ["segmentation.batch_size=1", "translation.load_width=48"]
    setup.overrides += ["segmentation.adversarial.weight=0.01", "translation.crop=[24,24]"]
    setup.write_pair("target", "1", (30, 20))
    return r"target.images.1\.png: is 30x20, must be at least 32 each for the output discriminator"


@kind
def scale_below_one_without_a_crop(setup):
    setup.overrides += [
        "segmentation.augmentation.scale=[0.5,1]",
        "segmentation.augmentation.crop=null",
    ]
    return r"augmentation\.scale: is \[0\.5, 1\.0\]: images get smaller .*set .*augmentation\.crop"


@kind
def images_so_small_that_one_cannot_be_normalised(setup):
    at_their_own_size(setup)
    setup.overrides += ["segmentation.batch_size=1", "iterations=0"]
    setup.write_pair("source", "1", (8, 8))
    return r"segmentation\.batch_size: .* normalises over the images of a batch"


@kind
def out_whose_name_is_no_text(setup):
    setup.overrides.append(f"out={setup.folder}/stra\udcdfe")
    return r"out: '.*stra\\udcdfe' is no text in UTF-8; choose another name"


# Weights


@kind
def weights_not_there(setup):
    setup.overrides.append(f"segmentation.weights={setup.folder / 'none.pt'}")
    return "none.pt(: no such file| cannot be read)"


@kind
def truncated_weights(setup):
    file = setup.write_weights({"a": torch.zeros(100)})
    file.write_bytes(file.read_bytes()[:500])
    return "weights.pt: cannot be read as a weights file: is damaged, .* fetch it again"


@kind
def code_in_weights(setup):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(setup.folder / "pwned"),)

    file = setup.write_weights({})
    file.write_bytes(pickle.dumps({"a": Code()}, protocol=2))
    return "weights.pt: cannot be read as a weights file: .* because that could run code"


@kind
def nan_in_weights(setup):
    setup.write_weights({"classifier.bias": torch.full((11,), float("nan"))})
    return "weights.pt: 'classifier.bias' holds NaN or infinity"


@kind
def weights_with_other_keys(setup):
    setup.write_weights({"conv1.weight": torch.zeros(3)})
    return "weights.pt: does not fit compact: missing"


@kind
def weights_of_another_shape(setup):
    setup.write_weights({"stem.0.weight": torch.zeros(19)})
    return r"weights.pt: does not fit compact: .*stem.0.weight is \(19,\), must be"


@kind
def weights_that_are_words(setup):
    setup.write_weights({"classifier.bias": "zero"})
    return "weights.pt: holds no weights, neither as tensors by name nor"


@kind
def weights_that_are_a_list(setup):
    setup.write_weights([torch.zeros(3)])
    return "weights.pt: holds a list, not a dictionary"


# Networks


def given_source_only(setup):
    """M(0) trained elsewhere: what a run would make first are translations."""
    file = predictor.save(setup.folder / "given.pt", predictor.make_network())
    setup.overrides.append(f"segmentation.checkpoints={{source-only: {file}}}")


@kind
def layers_of_a_network_without_any(setup):
    given_source_only(setup)
    setup.overrides.append("segmentation.optimizer.layer_decay=0.9")
    return r"optimizer\.layer_decay: this network has no order of layers"


@kind
def one_translated_image_that_cannot_be_normalised(setup):
    given_source_only(setup)
    at_their_own_size(setup)
    setup.overrides += ["translation.method=fda", "segmentation.adversarial.weight=0"]
    setup.overrides.append("segmentation.batch_size=1")
    setup.write_pair("source", "1", (8, 8))
    return r"segmentation\.batch_size: .* normalises over the images of a batch"


@pytest.mark.parametrize("break_it", KINDS, ids=lambda function: function.__name__)
def test_one_line_and_nothing_half_written(tmp_path, capsys, monkeypatch, break_it):
    monkeypatch.setattr("bdl.runtime.lock._PATIENCE", 0.1)
    setup = Setup(tmp_path)
    pattern = break_it(setup)
    before = sorted(tmp_path.rglob("manifest.json"))
    assert setup.run() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match("error: ", lines[0]) and re.search(pattern, lines[0]), lines[0]
    assert not list(tmp_path.rglob("*.bdl-partial"))
    assert not (tmp_path / "pwned").exists()
    assert sorted(tmp_path.rglob("manifest.json")) == before  # no stage was made


def test_there_are_forty_kinds():
    assert len({function.__name__ for function in KINDS}) == len(KINDS) >= 40


CHECKED = [
    function
    for function in KINDS
    if function.__name__
    not in {
        # Of running, not of what check is given.
        "two_runs_in_one_folder",
        "no_such_stage",
        "stage_without_its_inputs",
        "no_such_configuration",
        # Said in other words, and sooner; see the tests below.
        "out_is_a_file",
        "folder_that_cannot_be_made",
    }
]


@pytest.mark.parametrize("break_it", CHECKED, ids=lambda function: function.__name__)
def test_check_finds_it_before_anything_runs(tmp_path, capsys, break_it):
    setup = Setup(tmp_path)
    pattern = break_it(setup)
    before = sorted(tmp_path.rglob("*"))
    setup.command = ["check", "--pixels"]
    assert setup.run() == 2
    captured = capsys.readouterr()
    said = [*captured.out.splitlines(), *captured.err.splitlines()]
    assert any(re.search(pattern, line) for line in said), said
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.rglob("*")) in (before, sorted([*before, setup.file]))


def test_check_lists_all_problems_at_once(tmp_path, capsys):
    setup = Setup(tmp_path)
    zero_byte_file(setup)
    truncated_jpeg(setup)
    crop_higher_than_the_images(setup)
    no_broken = setup.folder / "target" / "images"
    (no_broken / "9.png").symlink_to(no_broken / "9.png")
    setup.write_pair("source", "n" * 245)
    for name in ("0", "1", "2"):
        Image.new("L", SIZE, 77).save(setup.label("validation", name))
    setup.label("source", "2").unlink()
    setup.write_weights({"classifier.bias": torch.zeros(19)})
    (tmp_path / "run").write_text("mine")
    setup.command = ["check", "--pixels"]
    assert setup.run() == 2
    captured = capsys.readouterr()
    for pattern in (
        "out: .*run is not a folder",
        r"labels.2\.png: no such label file",
        r"images.0\.jpg: is not a readable image",
        "images.n+.png: its name is too long .*shorten it by 6 bytes",
        r"images.1\.png: the crop 32x40 is larger than the image, 48x32",
        r"images.9\.png: is a link that leads nowhere",
        r"data.validation: no label file holds an id of a class \(they hold 77\)",
        "weights.pt: does not fit compact",
    ):
        assert re.search(f"problem: .*{pattern}", captured.out), pattern
    assert re.fullmatch(r"error: \d+ problem\(s\), listed above; nothing was run\n", captured.err)


def test_check_lists_all_keys_with_data(tmp_path, capsys):
    setup = Setup(tmp_path)
    zero_byte_file(setup)
    setup.overrides += ["seed=-1", "segmentation.steps=0", "translation.crop=[8]"]
    setup.command = ["check"]
    assert setup.run() == 2
    said = capsys.readouterr().out
    for pattern in ("seed: is -1", "segmentation.steps: is 0", "translation.crop: is", "0.png: is"):
        assert re.search(f"problem: .*{pattern}", said), pattern


def test_check_of_a_sound_configuration_plans_and_writes_nothing(tmp_path, capsys):
    setup = Setup(tmp_path)
    setup.command = ["check", "--pixels"]
    assert setup.run() == 0
    captured = capsys.readouterr()
    assert "10 of 10 stages to run" in captured.out
    assert "no problem found; to do: 32 steps, 21 images" in captured.out
    assert not (tmp_path / "run").exists()


def test_images_of_any_kind_are_read_as_rgb(tmp_path):
    """Grey, palette, transparent and CMYK images are data, whatever they are called."""
    colour = (200, 100, 50)
    grey = Image.new("L", SIZE, 90)
    rgb = Image.new("RGB", SIZE, colour)
    files = {
        "grau-ä.png": (grey, (90, 90, 90)),
        "道路.png": (rgb.quantize(4), colour),
        "durchsichtig.png": (rgb.convert("RGBA"), colour),
        "druck.tif": (rgb.convert("CMYK"), colour),
    }
    for name, (image, expected) in files.items():
        image.save(tmp_path / name)
        read = open_image(tmp_path / name)
        assert read.opaque is None and tuple(read.pixels[0, 0]) == expected


def test_names_from_disk_are_escaped_in_the_report(tmp_path):
    setup = Setup(tmp_path)
    for role in ("source", "target", "validation"):
        for number in range(3):
            setup.image(role, str(number)).unlink()
        setup.write_pair(role, "<b onclick=alert(1)>ü")
    assert setup.run() == 0
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<b onclick" not in report and "&lt;b onclick" in report
