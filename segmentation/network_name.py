"""Names of networks, as `segmentation.network` gives them: read without importing any network."""

import hashlib
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdl.runtime.errors import UserError

SMP = "smp:"
TIMM = "timm:"
PYTHON = "python:"


@dataclass(frozen=True)
class Option:
    """What one of `segmentation.options` must be.

    Args:
        holds: Tells of a value.
        wanted: The same in words.
    """

    holds: Callable[[Any], bool]
    wanted: str


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


COUNT = Option(_is_count, "a whole number of 1 or more")
SWITCH = Option(lambda value: isinstance(value, bool), "true or false")
_COUNTS = Option(
    lambda value: isinstance(value, list | tuple) and all(map(_is_count, value)),
    "a list of whole numbers of 1 or more",
)


@dataclass(frozen=True)
class OwnNetwork:
    """One of the project's own networks.

    Args:
        kind: Name of its class, in the file of `networks/` that is called as the network is.
        options: What its class takes besides the number of classes.
    """

    kind: str
    options: dict[str, Option]


OWN = {
    "compact": OwnNetwork("Compact", {"width": COUNT, "dilations": _COUNTS}),
    "deeplab_v2": OwnNetwork(
        "DeepLabV2", {"branches": Option(lambda value: value in (2, 4), "2 or 4")}
    ),
    "fcn8s_vgg16": OwnNetwork("FCN8sVGG16", {}),
}


def require_known(network: str, options: dict[str, Any]) -> None:
    """Raise UserError for a name of no network, as far as the name tells, and for options that one
    of the project's own does not take."""
    if network.startswith((TIMM, SMP, PYTHON)):
        return
    if network not in OWN:
        known = ", ".join([*OWN, f"{TIMM}BACKBONE", f"{SMP}ARCH/ENCODER"])
        raise UserError(
            f"segmentation.network: '{network}' is not one of {known}, {PYTHON}MODULE:FUNCTION"
        )
    own = OWN[network].options
    unknown = next((key for key in options if key not in own), None)
    if unknown is not None:
        has = ", ".join(own) or "none"
        raise UserError(f"segmentation.options: {network}: has no option '{unknown}'; it has {has}")
    require_values(own, options)


def require_values(known: dict[str, Option], options: dict[str, Any]) -> None:
    """Raise UserError for a value of an option, if it is `known`, that it cannot have."""
    for key, value in options.items():
        if key in known and not known[key].holds(value):
            raise UserError(
                f"segmentation.options.{key}: is {value!r}, must be {known[key].wanted}"
            )


def is_users_own(network: str) -> bool:
    """Whether the name is that of a network whose code is the user's."""
    return network.startswith(PYTHON)


def split_python_name(network: str) -> tuple[str, str]:
    """Module and function of python:MODULE:FUNCTION.

    Raises:
        UserError: If the name is not of that form.
    """
    module, _, function = network.removeprefix(PYTHON).partition(":")
    if not module or not all(part.isidentifier() for part in [*module.split("."), function]):
        raise UserError(
            f"segmentation.network: '{network}' is not python:MODULE:FUNCTION, for example "
            "python:my_networks:build"
        )
    return module, function


def module_file(network: str) -> Path:
    """The file of a user's module, found as `import` would find it, but without running it.

    Args:
        network: python:MODULE:FUNCTION.

    Returns:
        Its path: on Python's path, or in the current folder.

    Raises:
        UserError: If there is none.
    """
    module, _ = split_python_name(network)
    places: Sequence[str] | None = search_path()
    spec = None
    for number in range(len(module.split("."))):
        name = ".".join(module.split(".")[: number + 1])
        spec = importlib.machinery.PathFinder.find_spec(name, places) if places else None
        if spec is None:
            raise UserError(
                f"segmentation.network: {network}: there is no module '{name}' in {os.getcwd()} "
                "or on Python's path; run the command in its folder, or add that to PYTHONPATH"
            )
        places = spec.submodule_search_locations
    assert spec is not None
    if spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(f"segmentation.network: {network}: the module '{module}' has no file")
    return Path(spec.origin)


def module_digest(network: str) -> str:
    """What tells one version of a user's module from another: the SHA-256 of its file.

    Args:
        network: python:MODULE:FUNCTION.

    Returns:
        64 hexadecimal digits. What the module imports is not in it.
    """
    return hashlib.sha256(module_file(network).read_bytes()).hexdigest()


def search_path() -> list[str]:
    """Where a user's module is looked for: Python's path, then the current folder."""
    here = os.getcwd()
    return sys.path if here in sys.path or "" in sys.path else [*sys.path, here]


def without_fetching(network: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options with which a network starts without pretrained weights: others are at hand.

    Args:
        network: Its name.
        options: Its own, which stay as they are.
    """
    if network.startswith(TIMM):
        return {**options, "pretrained": False}
    if network.startswith(SMP):
        return {**options, "encoder_weights": None}
    return dict(options)


# Options that are no property of the weights in a file: where they once came from, how they learn.
NOT_OF_WEIGHTS = ("pretrained", "encoder_weights", "drop_path", "gradient_checkpointing")
