"""The command import-weights: what it writes is what the rest of the project loads."""

import pytest
import torch
from torch import Tensor

from bdl import pipeline
from bdl.commands import parser
from bdl.domains.label_space import load_label_space
from bdl.runtime.config import SegmentationConfig
from bdl.runtime.errors import UserError
from bdl.segmentation.checkpoint import initial_segmenter, load_segmenter, save_segmenter
from bdl.segmentation.networks.compact import Compact
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.reference_weights import REFERENCES, TORCHVISION
from bdl.translation.networks import Generator
from bdl.translation.reference_weights import NETWORKS

NAMES = load_label_space("cityscapes19").names


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A checkpoint as the authors' are: two branches trained, two as they were drawn."""
    torch.manual_seed(0)
    network = DeepLabV2(19)
    with torch.no_grad():
        for branch in network.layer5.conv2d_list[:2]:
            branch.weight.add_(0.01 * torch.randn(19, 1, 1, 1))
            branch.bias.uniform_(0.1, 0.2)
    return {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}


def imported(tmp_path, state: dict, name: str, *options: str):
    """The file that import-weights makes of a state dict."""
    origin, out = tmp_path / "published.pth", tmp_path / f"{name}.pt"
    torch.save(state, origin)
    assert (
        pipeline.main(["import-weights", str(origin), str(out), "--network", name, *options]) == 0
    )
    return out


def test_a_trained_checkpoint_is_a_segmentation_network(tmp_path, published, capsys):
    state = {f"module.{key}": value.half() for key, value in published.items()}
    network, space = load_segmenter(imported(tmp_path, state, "deeplab_v2"))
    said = capsys.readouterr().out
    assert "sums 2 branches: only its first two branches were trained" in said
    assert space["names"] == list(load_label_space("cityscapes19").names)
    assert not network.training
    reference = DeepLabV2(19, branches=2).eval()
    reference.load_state_dict({k: v.half().float() for k, v in published.items()})
    images = torch.rand(1, 3, 33, 33)
    with torch.no_grad():
        expected = reference.scores(images)
        difference = (network.scores(images) - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


def test_branches_can_be_set(tmp_path, published, capsys):
    network, _ = load_segmenter(imported(tmp_path, published, "deeplab_v2", "--branches", "4"))
    assert network.layer5.branches == 4
    assert "sums 4 branches: as given; by itself it would be 2" in capsys.readouterr().out


@pytest.mark.parametrize("branches", [2, 4])
def test_initial_weights_start_a_training_with_a_new_head(tmp_path, published, capsys, branches):
    state = {f"Scale.{key}": value for key, value in published.items()}
    out = imported(tmp_path, state, "deeplab_v2")
    assert "initial weights without a head" in capsys.readouterr().out
    config = SegmentationConfig(options={"branches": branches})
    network = initial_segmenter(config, out, NAMES[:7], seed=0)
    assert network.num_classes == 7
    assert network.layer4[2].conv3.weight.equal(published["layer4.2.conv3.weight"])
    assert network.bn1.running_var.equal(published["bn1.running_var"])
    with pytest.raises(UserError, match="holds initial weights"):
        load_segmenter(out)


def test_a_trained_checkpoint_starts_a_training_as_the_network_it_is(tmp_path, published, caplog):
    out = imported(tmp_path, published, "deeplab_v2")
    config = SegmentationConfig(options={"branches": 2})
    head = "layer5.conv2d_list.0.weight"
    assert initial_segmenter(config, out, NAMES, seed=0).state_dict()[head].equal(published[head])
    # Of other classes: the body of the checkpoint, a new head.
    network = initial_segmenter(config, out, NAMES[:5], seed=0)
    assert network.state_dict()[head].shape[0] == 5
    assert network.conv1.weight.equal(published["conv1.weight"])
    for options in ({}, {"branches": 4}):
        config.options = options
        with pytest.raises(UserError, match=r"branches=2; set segmentation\.options\.branches=2"):
            initial_segmenter(config, out, NAMES, seed=0)


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "compact.pt"
    config = SegmentationConfig(network="compact", options={"width": 8})
    save_segmenter(file, Compact(19, width=8), config, load_label_space("cityscapes19"))
    initial_segmenter(config, file, NAMES, seed=0)
    # The same shapes, another computation.
    config.options = {"width": 8, "dilations": (1, 1, 1, 1)}
    save_segmenter(file, Compact(19, 8, (1, 1, 1, 1)), config, load_label_space("cityscapes19"))
    config.options = {"width": 8}
    with pytest.raises(UserError, match=r"was made with dilations=\(1, 1, 1, 1\)"):
        initial_segmenter(config, file, NAMES, seed=0)
    with pytest.raises(UserError, match=r"is for segmentation\.network=compact, not deeplab_v2"):
        initial_segmenter(SegmentationConfig(), file, NAMES, seed=0)


def test_another_number_of_classes_needs_its_label_space(tmp_path, published, capsys):
    file = tmp_path / "published.pth"
    torch.save(published, file)
    command = ["import-weights", str(file), str(tmp_path / "out.pt"), "--network", "deeplab_v2"]
    assert pipeline.main([*command, "--label-space", "camvid11"]) == 2
    error = capsys.readouterr().err
    assert "is for 19 classes, the label space 'camvid11' has 11" in error
    assert not (tmp_path / "out.pt").exists()


def test_other_networks(tmp_path, capsys):
    torch.manual_seed(1)
    generator, judge = Generator().state_dict(), OutputDiscriminator(19).state_dict()
    content = torch.load(imported(tmp_path, generator, "generator"), weights_only=True)
    made = Generator(**content["options"])
    made.load_state_dict(content["state"])
    assert made.model[1].weight.equal(generator["model.1.weight"])
    content = torch.load(imported(tmp_path, judge, "output_discriminator"), weights_only=True)
    OutputDiscriminator(19, **content["options"]).load_state_dict(content["state"])
    assert "a discriminator of maps of 19 classes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["generator", "output_discriminator", "fcn8s_vgg16"])
def test_branches_are_deeplabs_alone(tmp_path, capsys, name):
    command = ["import-weights", "in.pth", str(tmp_path / "out.pt"), "--network", name]
    assert pipeline.main([*command, "--branches", "2"]) == 2
    assert f"--branches: {name} has no branches" in capsys.readouterr().err


def test_bad_files_are_refused_in_one_line(tmp_path, capsys):
    file = tmp_path / "bad.pth"
    file.write_text("<html>Quota exceeded</html>")
    for out in ("out.pt", "bad.pth"):
        command = ["import-weights", str(file), str(tmp_path / out), "--network", "deeplab_v2"]
        assert pipeline.main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and str(file) in error and error.count("\n") == 1
    assert file.read_text().startswith("<html>")


def test_the_command_line_knows_every_network_that_can_be_imported():
    """It has the names without PyTorch, which the tables need."""
    assert tuple(REFERENCES) == parser.SEGMENTATION
    assert tuple(NETWORKS) == parser.TRANSLATION
    assert parser.TORCHVISION == TORCHVISION
