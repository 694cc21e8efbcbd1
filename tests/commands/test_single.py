"""The commands of single stages: which stage they mean, and what they need."""

import re

import pytest

from tests.helpers.said import error_line


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        ("translate", "k2/translator"),
        ("translate --k 1", "k1/translator"),
        ("export --k 1", "k1/translated"),
        ("measure --k 1", "k1/translated/measures"),
        ("segment", "k2/segmentation-1"),
        ("segment --k 0", "source-only"),
        ("segment --k 1 --i 0", "k1/segmentation-0"),
        ("pseudo-label --k 1", "k1/pseudo-labels-1"),
        ("evaluate --k 0", "source-only/evaluation"),
        ("evaluate --k 2 --i 0", "k2/segmentation-0/evaluation"),
    ],
)
def test_single_stages_run_the_stage_they_mean(
    tiny_run, command, tmp_path, capsys, arguments, stage
):
    run = tiny_run.copy(tmp_path / "run")
    name, *options = arguments.split()
    assert command(name, *options, f"out={run.folder}", "--again", "--dry-run") == 0
    plan = capsys.readouterr().out
    assert re.findall(r"^  run +(\S+) .* forced$", plan, re.MULTILINE) == [stage]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("evaluate --k 0 --i 1", "evaluate --k 0 --i 1: no such stage"),
        ("segment --k 0 --i 1", "segment --k 0 --i 1: no such stage"),
        ("segment --k 3", "segment --k 3: no such stage"),
        ("evaluate --k 1 --i 1 data.validation=null", "nothing is measured, as data.validation is"),
    ],
)
def test_a_stage_that_does_not_exist_is_refused(command, tmp_path, capsys, arguments, expected):
    name, *options = arguments.split()
    assert expected in error_line(capsys, command(name, *options, f"out={tmp_path / 'run'}"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("segmentation.network=unet", "segmentation.network: 'unet' is not one of compact"),
        ("segmentation.options.depth=3", "segmentation.options: compact: "),
        ("segmentation.options.width=wide", "segmentation.options"),
    ],
)
def test_wrong_networks_are_one_line_that_names_them(
    tiny_run, command, tmp_path, capsys, override, expected
):
    run = tiny_run.copy(tmp_path / "run")
    assert expected in error_line(
        capsys, command("segment", "--k", 0, f"out={run.folder}", "--replace", override)
    )


@pytest.mark.parametrize(
    ("network", "options", "expected"),
    [
        ("unet", "{}", "network: 'unet' is not one of"),
        ("compact", "{widht: 8}", "compact: has no option 'widht'; it has width, dilations"),
        ("compact", "{width: 0}", "options.width: is 0"),
        ("fcn8s_vgg16", "{width: 8}", "fcn8s_vgg16: has no option 'width'; it has none"),
        ("deeplab_v2", "{branches: 3}", "options.branches: is 3, must be 2 or 4"),
        ("timm:resnet5", "{}", "timm cannot make 'resnet5', .*; did you mean 'resnet50'"),
        ("timm:resnet18", "{output_stride: 7}", "options.output_stride: is 7"),
        ("timm:resnet18", "{widht: 8}", "timm:resnet18: .*'widht'"),
        ("timm:test_vit", "{drop_path: 2}", "options.drop_path: is 2"),
        ("timm:test_vit", "{layerz: [1]}", "layerz"),
        ("timm:test_vit", "{layerz: {a: 1}}", "options.layerz: is a mapping"),
        ("smp:unett/resnet18", "{}", "'smp:unett/resnet18' is not smp:ARCH/ENCODER"),
        ("smp:unet", "{}", "'smp:unet' is not smp:ARCH/ENCODER"),
        ("smp:unet/resnet5", "{}", "has no encoder 'resnet5'; did you mean resnet50"),
        ("smp:unet/resnet18", "{widht: 8}", "options.widht: smp:unet/resnet18 takes"),
        ("smp:unet/resnet18", "{encoder_weights: mine}", "options.encoder_weights: is 'mine'"),
    ],
)
def test_a_plan_and_check_refuse_a_network_alike(command, capsys, network, options, expected):
    """Without building one: what it would start from may have to be fetched."""
    if network.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    given = [f"segmentation.network={network}", f"segmentation.options={options}"]
    planned = error_line(capsys, command("run", "--dry-run", *given))
    assert re.search(expected, planned)
    assert command("check", *given) == 2
    assert f"problem: {planned.removeprefix('error: ')}" in capsys.readouterr().out


@pytest.mark.parametrize("network", ["timm:resnet50", "timm:convnext_tiny", "smp:unet/resnet34"])
def test_a_network_whose_weights_cannot_be_fetched_is_planned(
    command, capsys, monkeypatch, network
):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    if network.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setattr("socket.getaddrinfo", unreachable)
    assert command("run", "--dry-run", f"segmentation.network={network}") == 0
    assert "source-only" in capsys.readouterr().out


def test_a_stage_whose_input_is_of_other_settings_is_refused(tiny_run, command, capsys):
    arguments = ["--k", 0, f"out={tiny_run.folder}", "segmentation.steps=11"]
    message = error_line(capsys, command("evaluate", *arguments))
    assert "source-only/evaluation needs source-only (segmentation.steps was 10, is 11" in message
