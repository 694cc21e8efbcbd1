"""Published translators, of BDL and of the public CycleGAN code, as this project's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdl.runtime.weights import WeightsError, as_tensors, match, read_foreign
from bdl.translation.networks import (
    PUBLISHED_BLOCKS,
    PUBLISHED_WIDTH,
    Generator,
    PatchDiscriminator,
)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "generator": Generator,
    "discriminator": PatchDiscriminator,
}
# What an instance norm that tracks statistics adds to a checkpoint.
_TRACKED = ("running_mean", "running_var", "num_batches_tracked")


def load_reference(path: str | Path, name: str) -> dict[str, Tensor]:
    """`convert` for the published checkpoint in a file, of which only data is read.

    Raises WeightsError (a ValueError) that names the file, the reason and the way out.
    """
    return read_foreign(Path(path), lambda state: convert(state, name))


def import_weights(path: str | Path, name: str) -> tuple[dict[str, Any], str]:
    """What a file of this project holds of a published network, and a line about it.

    The "options" build it: `Generator(**options)`, at its published size. Raises WeightsError as
    `load_reference` does.
    """
    content = {"network": name, "options": {}, "state": load_reference(path, name)}
    return content, f"the {name} of a translator, at its published size"


def import_translator(path: str | Path, back: str | Path) -> tuple[dict[str, Any], str]:
    """The same for two published generators, source to target and back: a whole translator, as
    `train_translator` writes it."""
    generators = {"a_to_b": load_reference(path, "generator")}
    generators["b_to_a"] = load_reference(back, "generator")
    state = {
        f"{direction}.{key}": value
        for direction, generator in generators.items()
        for key, value in generator.items()
    }
    content = {"options": {"width": PUBLISHED_WIDTH, "blocks": PUBLISHED_BLOCKS}, "state": state}
    return content, "a translator, for translation.checkpoints"


def convert(state_dict: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """A published state dict as that of this project's network `name`, at its published size.

    `name` is generator or discriminator. Values may be tensors or NumPy's; float16 and float64
    become float32; `module.` before the keys is dropped. The instance norms' running statistics
    are dropped, too: the published networks track them, but these normalise by the image's own.

    Raises WeightsError (a ValueError) for an unknown `name`, and one that lists them for keys
    left over or missing and for other shapes.
    """
    if name not in NETWORKS:
        raise WeightsError(f"no reference '{name}'; there are {', '.join(NETWORKS)}")
    with torch.device("meta"):
        network = NETWORKS[name]()
    tracked = {
        f"{norm}.{buffer}"
        for norm, module in network.named_modules()
        if isinstance(module, nn.InstanceNorm2d)
        for buffer in _TRACKED
    }
    state = {key: value for key, value in as_tensors(state_dict).items() if key not in tracked}
    return match(state, network.state_dict())
