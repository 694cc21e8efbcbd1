"""Segmentation networks as files: how every training starts, what it leaves, what others read."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bdl.domains.label_space import LabelSpace
from bdl.runtime.config import SegmenterTraining
from bdl.runtime.console import log
from bdl.runtime.device import channels_last, seed_torch
from bdl.runtime.errors import UserError
from bdl.runtime.files import load_tensors, save_tensors
from bdl.runtime.weights import WeightsError, match, require_finite
from bdl.segmentation.initial_weights import load_weights, read_weights, tensors_of
from bdl.segmentation.network_name import NOT_OF_WEIGHTS, is_users_own, without_fetching
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import Segmenter


def save_segmenter(
    file: Path,
    network: Segmenter,
    config: SegmenterTraining,
    space: LabelSpace,
    said: Mapping[str, float | str] | None = None,
) -> None:
    """Write the network with what is needed to build and to use it, and what is `said` of it."""
    save_tensors(
        file,
        {
            "network": config.network,
            "options": dict(config.options),
            "label_space": space.describe(),
            "state": network.state_dict(),
            **(said or {}),
        },
    )


def load_segmenter(file: Path, network: str | None = None) -> tuple[Segmenter, dict[str, Any]]:
    """The network in a file, ready for use on the CPU, and its label space's description.

    Args:
        file: Of `save_segmenter`.
        network: What the user gave as `segmentation.network`. Only with it a network is built
            whose code is the user's own: a file never says what code is to run.

    Raises:
        UserError: If the file does not hold a segmentation network of this project, or one of
            user's own that `network` does not name.
    """
    return as_segmenter(load_tensors(file), file, network)


def as_segmenter(
    content: dict[str, Any], file: Path, given: str | None = None
) -> tuple[Segmenter, dict[str, Any]]:
    """The same from the `content` of a file, which errors name; `given` is `network` above."""
    try:
        names = content["label_space"]["names"]
        name = str(content["network"])
        if is_users_own(name) and name != given:
            raise UserError(
                f"{file}: holds the network {name}, whose code is not in it and does not run by "
                f"itself; where you trust that code, set segmentation.network={name} (with "
                f"predict and export-network: --own-network {name})"
            )
        # Its weights are in the file: no others are fetched.
        network = build_segmenter(name, len(names), **without_fetching(name, content["options"]))
        state = _fitting(content["state"], network, file)
        require_finite(file, state)
        network.load_state_dict(state)
    except (KeyError, TypeError, AttributeError) as error:
        if "state" in content and "label_space" not in content:
            raise UserError(
                f"{file}: holds initial weights or no segmentation network at all; give the "
                "network that a training made, or a trained checkpoint from import-weights"
            ) from None
        raise UserError(
            f"{file}: is not a segmentation network of this project ({error})"
        ) from None
    return channels_last(network).eval(), content["label_space"]  # type: ignore[return-value]


def _fitting(state: Any, network: Segmenter, file: Path) -> dict[str, Tensor]:
    """`state`, if it is that of `network`; raises UserError that names the layers if not."""
    try:
        return match(state, network.state_dict())
    except WeightsError as error:
        problem = str(error).removeprefix("the weights do not fit; ")
        raise UserError(f"{file}: its weights do not fit its network: {problem}") from None


def initial_segmenter(
    training: SegmenterTraining, weights: Path | None, names: Sequence[str], seed: int
) -> Segmenter:
    """The network as every training of the loop starts with it: the same for the same seed.

    Args:
        training: Name and options of the network.
        weights: A file of initial weights, which may lack the head, or hold one for classes of
            other names, or in another order, which is left out: it then starts anew. None: the
            network's own.
        names: Of the classes to tell apart.
        seed: Of what the weights do not cover.

    Raises:
        UserError: The file is of another network.
    """
    seed_torch(seed, "segmenter")
    num_classes = len(names)
    if weights is None:
        return build_segmenter(training.network, num_classes, **training.options)
    # The file's weights take the place of any others: none are fetched.
    options = without_fetching(training.network, training.options)
    network = build_segmenter(training.network, num_classes, **options)
    content = read_weights(weights)
    state = tensors_of(content, weights)
    require_finite(weights, state)
    if isinstance(content.get("network"), str):
        _require_same_network(training, weights, network, content)
    trained = list(content["label_space"]["names"] if "label_space" in content else names)
    if trained != list(names):
        left_out = network.class_prefixes or network.head_prefixes
        state = {k: v for k, v in state.items() if not k.startswith(left_out)}
        other = next((name for name in trained if name not in names), None)
        differs = f"such as '{other}'" if other else "in another order or with more among them"
        log.info(
            "%s: its head, for %d other classes, %s, is left out: a new one starts for %d",
            weights,
            len(trained),
            differs,
            num_classes,
        )
    load_weights(network, training.network, state, weights)
    return network


def go_on_from(
    network: Segmenter, training: SegmenterTraining, content: dict[str, Any], file: Path
) -> None:
    """Give a network the weights of another, trained one.

    Args:
        network: As `initial_segmenter` makes it; it is changed.
        training: Its name and options.
        content: Of the other's file.
        file: That file, for errors.

    Raises:
        UserError: The other is not of the same name and options.
    """
    _require_same_network(training, file, network, content)
    network.load_state_dict(_fitting(content["state"], network, file))


def untrained_segmenter(training: SegmenterTraining, num_classes: int) -> Segmenter:
    """The network with weights that mean nothing: no others are fetched."""
    options = without_fetching(training.network, training.options)
    return build_segmenter(training.network, num_classes, **options)


def _require_same_network(
    training: SegmenterTraining, weights: Path, network: Segmenter, content: dict[str, Any]
) -> None:
    """Weights can fit a network that computes something else with them; their file tells."""
    if content["network"] != training.network:
        raise UserError(
            f"{weights}: is for segmentation.network={content['network']}, not {training.network}"
        )
    parameters = inspect.signature(type(network)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    options = {**defaults, **training.options}
    for name, value in content.get("options", {}).items():
        if name not in NOT_OF_WEIGHTS and options.get(name) != value:
            raise UserError(
                f"{weights}: was made with {name}={value}; set segmentation.options.{name}={value}"
            )
