"""Weights of other code: read without running any of it, made plain, matched strictly."""

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdl.runtime.errors import UserError
from bdl.runtime.files import open_regular

_MODULE = "module."  # what torch's DataParallel puts before every key
_LISTED = 12  # keys named in a message; of more, the number is given


class WeightsError(UserError, ValueError):
    """A weights file, or the dictionary in it, is not what it was given as."""


def read_foreign(
    path: Path, convert: Callable[[Mapping[str, Any]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """`convert` applied to the dictionary in a file of torch.save, on the CPU.

    Only data is read: tensors, plain values, NumPy arrays and numbers. Raises WeightsError,
    naming the file, the reason and the way out, if it is missing, damaged, holds anything else,
    or is refused by `convert`.
    """
    try:
        with _numpy_data(), warnings.catch_warnings(), open_regular(path) as opened:
            # Published files were written under Python 2, whose byte strings (the bytes of NumPy
            # numbers among them) come back unchanged in this encoding only. PyTorch warns that
            # it ignores an encoding here, and does not ignore it.
            warnings.filterwarnings("ignore", message="pickle_load_args only works")
            content = torch.load(opened, map_location="cpu", weights_only=True, encoding="latin1")
    except UserError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # what damaged pickles raise is of any type
        raise WeightsError(f"{path}: {why_refused(error)}") from None
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, not a dictionary of weights; "
            "save the network's state_dict()"
        )
    try:
        return convert(content)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def as_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights as tensors, floating point ones as float32, keys without DataParallel's prefix.

    NumPy arrays and numbers become tensors. Raises WeightsError for any other value and for
    a key that is no string.
    """
    for key in state:
        if not isinstance(key, str):
            raise WeightsError(f"the key {key!r} is not the name of a weight")
    parallel = all(key.startswith(_MODULE) for key in state)
    tensors = {}
    for key, value in state.items():
        if isinstance(value, np.ndarray | np.number):
            value = torch.from_numpy(np.array(value))
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"'{key}' is of type {type(value).__name__}, not a tensor; "
                "give the dictionary of the weights alone"
            )
        if value.is_floating_point():
            value = value.float()
        tensors[key.removeprefix(_MODULE) if parallel else key] = value
    return tensors


def match(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` in the order of `expected`, if it has just these keys and these shapes.

    Of `expected` only keys and shapes are used, so that its tensors may be on the meta device.
    Raises WeightsError that lists what is left over, what is missing and what has another shape.
    """
    shared = [key for key in expected if key in state]
    problems = {
        "left over": [key for key in state if key not in expected],
        "missing": [key for key in expected if key not in state],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in shared
            if state[key].shape != expected[key].shape
        ],
    }
    said = [f"{problem}: {_listed(items)}" for problem, items in problems.items() if items]
    if said:
        raise WeightsError("the weights do not fit; " + "; ".join(said))
    return {key: state[key] for key in shared}


def require_finite(path: Path | str, state: Mapping[str, Any]) -> None:
    """Raises WeightsError if a weight from the file is NaN or infinite."""
    for key, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(
                f"{path}: '{key}' holds NaN or infinity; take a file from before training diverged"
            )


def _numpy_data() -> AbstractContextManager[None]:
    """Lets torch.load make NumPy arrays and numbers of the usual types, which are data, too."""
    array_function = np.zeros(0).__reduce__()[0]
    number_function = np.float32(0).__reduce__()[0]
    types = (np.float16, np.float32, np.float64, np.int32, np.int64)
    allowed: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in types)]
    # NumPy 2 moved both functions; files written before name their old place.
    for package in ("numpy.core", "numpy._core"):
        allowed.append((array_function, f"{package}.multiarray._reconstruct"))
        allowed.append((number_function, f"{package}.multiarray.scalar"))
    return torch.serialization.safe_globals(allowed)


def why_refused(error: Exception) -> str:
    """What torch.load's error means, and what to do about it."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"holds more than weights ({refused[1]}) or is damaged, and was not read because that "
            "could run code; where you trust it, load it with torch.load(..., weights_only=False) "
            "and save its dictionary of tensors alone"
        )
    return "is damaged, incomplete, or no file of torch.save; fetch it again and compare its size"


def _listed(items: list[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
