"""Published BDL checkpoints of segmentation networks and output discriminators, as this project's.

Their keys are this project's own; what differs is what other code has put around them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdl.domains.label_space import LabelSpace
from bdl.runtime.weights import WeightsError, as_tensors, match, read_foreign
from bdl.segmentation.networks.deeplab_v2 import HEAD_STD, DeepLabV2
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.networks.fcn8s_vgg16 import FCN8sVGG16
from bdl.segmentation.pretrained import fetch_pretrained

_HEAD = "layer5."
TORCHVISION = "torchvision"  # stands for a file: ImageNet weights from torchvision's hub
_PUBLISHED_CLASSES = 19


_HEADLESS = "initial weights without a head, for segmentation.weights"


@dataclass(frozen=True)
class _Reference:
    build: Callable[[int], nn.Module]
    # The weight one of whose dimensions is the number of classes, and that dimension.
    classes_key: str
    classes_dimension: int


REFERENCES = {
    "deeplab_v2": _Reference(DeepLabV2, "layer5.conv2d_list.0.weight", 0),
    "fcn8s_vgg16": _Reference(FCN8sVGG16, "score_fr.weight", 0),
    "output_discriminator": _Reference(OutputDiscriminator, "conv1.weight", 1),
}


@dataclass(frozen=True)
class BranchChoice:
    """How many branches of a DeepLab-v2 head to sum, and why, in words for the user."""

    branches: int
    reason: str


def import_weights(
    origin: str, name: str, space: LabelSpace, branches: int | None = None
) -> tuple[dict[str, Any], str]:
    """What a file of this project holds of published weights, and a line about them for the user.

    `origin` is a published file, or "torchvision"; `name` as in `convert`. Initial weights give
    "network" and "state" (without the head), for `segmentation.weights`. A trained checkpoint
    gives its "options" and "label_space", too, as `save_segmenter` does, so that everything can
    use it that uses the project's own; `branches` overrides what `choose_branches` says.

    Raises WeightsError as `load_reference` does, and for a `space` of another number of classes.
    """
    if branches is not None and name != "deeplab_v2":
        raise WeightsError(f"--branches: {name} has no branches; leave it out")
    state = fetch_pretrained(name) if origin == TORCHVISION else load_reference(origin, name)
    reference = REFERENCES[name]
    if reference.classes_key not in state:
        if branches is not None:
            raise WeightsError(
                f"--branches: {origin} has no head; set segmentation.options.branches={branches} "
                "where it is used"
            )
        return {"network": name, "state": state}, _HEADLESS
    classes = state[reference.classes_key].shape[reference.classes_dimension]
    content: dict[str, Any] = {"network": name, "options": {}, "state": state}
    if name == "output_discriminator":
        return content, f"a discriminator of maps of {classes} classes"
    if classes != space.num_classes:
        raise WeightsError(
            f"{origin}: is for {classes} classes, the label space '{space.name}' has "
            f"{space.num_classes}; give --label-space"
        )
    content["label_space"] = space.describe()
    note = f"a trained network for the {classes} classes of {space.name}"
    if name == "deeplab_v2":
        choice = choose_branches(state)
        if branches is not None:
            choice = BranchChoice(branches, f"as given; by itself it would be {choice.branches}")
        content["options"]["branches"] = choice.branches
        note += f"; its head sums {choice.branches} branches: {choice.reason}"
    return content, note


def load_reference(path: str | Path, name: str) -> dict[str, Tensor]:
    """`convert` for the published checkpoint in a file, of which only data is read.

    Raises WeightsError (a ValueError) that names the file, the reason and the way out.
    """
    return read_foreign(Path(path), lambda state: convert(state, name))


def convert(state_dict: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """A published state dict as that of this project's network `name`, for any number of classes.

    `name` is deeplab_v2, fcn8s_vgg16 or output_discriminator. Values may be tensors or NumPy's;
    float16 and float64 become float32; `module.` before the keys is dropped; batch norm's missing
    num_batches_tracked, which older PyTorch did not have, become 0 (nothing depends on them).

    The published initial weights of DeepLab-v2 have one more component before every key. It is
    dropped, and so is their head, which is for another set of classes: the result then LACKS THE
    HEAD (all keys that begin with "layer5."), which starts anew.

    Raises WeightsError (a ValueError) for an unknown `name`, and one that lists them for keys
    left over or missing and for other shapes.
    """
    if name not in REFERENCES:
        raise WeightsError(f"no reference '{name}'; there are {', '.join(REFERENCES)}")
    reference = REFERENCES[name]
    state = as_tensors(state_dict)
    headless = name == "deeplab_v2" and len({key.split(".")[0] for key in state}) == 1
    if headless:
        state = {key.partition(".")[2]: value for key, value in state.items()}
        state = {key: value for key, value in state.items() if not key.startswith(_HEAD)}
    classes = _PUBLISHED_CLASSES
    if reference.classes_key in state:
        classes = state[reference.classes_key].shape[reference.classes_dimension]
    with torch.device("meta"):
        expected = reference.build(classes).state_dict()
    if headless:
        expected = {key: value for key, value in expected.items() if not key.startswith(_HEAD)}
    for key in expected:
        if key.endswith(".num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))
    return match(state, expected)


def choose_branches(state_dict: Mapping[str, Tensor]) -> BranchChoice:
    """How many branches the network of a converted DeepLab-v2 checkpoint summed, by its weights.

    Every checkpoint holds four branches. The published code summed only the first two until
    July 2020, and its optimizer leaves weights without a gradient as they were drawn: from
    N(0, 0.01), with biases from PyTorch's U(-b, b), b = 1 / sqrt(fan-in). So if the third and the
    fourth look drawn and the first two do not, the answer is 2. If all four look trained it is 4,
    and 4, what the method says, is also the answer where the weights do not tell: without a head,
    before any training, or in any other mixture.

    A branch looks drawn if, for each class, its weights have a mean within six standard errors
    of 0 and a standard deviation within 3 % of 0.01 (18,432 weights a class make the latter's own
    error 0.5 %), and its bias is within +-b. This is evidence and no proof: a training of so few
    steps, or at so low a rate, that it stays within these bounds is taken for none. Weights saved
    in float16 pass the test as well.
    """
    if not any(key.startswith(_HEAD) for key in state_dict):
        return BranchChoice(4, "it has no head; a new one sums all four branches")
    drawn = [_looks_drawn(state_dict, branch) for branch in range(4)]
    if drawn == [False, False, True, True]:
        return BranchChoice(
            2, "only its first two branches were trained, as in the code before July 2020"
        )
    if not any(drawn):
        return BranchChoice(4, "all four of its branches were trained")
    untrained = ", ".join(str(branch) for branch in range(4) if drawn[branch])
    return BranchChoice(
        4, f"its weights do not tell (branches without training: {untrained}); four is the method"
    )


def _looks_drawn(state: Mapping[str, Tensor], branch: int) -> bool:
    """Whether a branch's weights are still what the published initialisation would draw."""
    weight = state[f"{_HEAD}conv2d_list.{branch}.weight"].flatten(1).double()
    bias = state[f"{_HEAD}conv2d_list.{branch}.bias"].double()
    fan_in = weight.shape[1]
    centred = weight.mean(1).abs() < 6 * HEAD_STD / fan_in**0.5
    spread = (weight.std(1) / HEAD_STD - 1).abs() < 0.03
    # A thousandth more for what float16 rounds up.
    bounded = bias.abs() <= 1.001 / fan_in**0.5
    return bool((centred & spread & bounded).all())
