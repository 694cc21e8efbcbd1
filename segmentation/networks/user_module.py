"""A user's own network, by its import path."""

import importlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdl.runtime.console import log
from bdl.runtime.errors import UserError, first_line
from bdl.runtime.shortage import is_out_of_memory
from bdl.segmentation.network_name import module_file, split_python_name
from bdl.segmentation.networks.base import ParameterGroup, Segmenter
from bdl.segmentation.networks.layers import require_several_images
from bdl.segmentation.networks.sizes import pad_to_multiple

_TORCH = Path(torch.__file__).parent
_ATTRIBUTE = "size_divisor"
# Sides of images that networks are tried with, from the least that is padded to the most.
_MULTIPLES = (1, 2, 4, 8, 14, 16, 32, 64)
_TRIED = (70, 90)  # height, width: a multiple of nothing above 2
_OUTPUTS = ("out", "logits")  # keys of networks that give more than the logits
_WANTED = (
    "it must take RGB images in [0, 1] (N x 3 x H x W, float32) and give logits "
    "(N x {classes} x h x w)"
)


class UserNetwork(Segmenter):
    """A module from RGB in [0, 1] to logits, of the image's size or smaller.

    Its output may also be a dictionary that holds them as "out" or "logits". Sides are padded on
    the right and below to multiples of its `size_divisor`; without such an attribute, of the first
    number with which a small image passes. Its parameters are one group.

    Args:
        num_classes: Channels that its logits must have.
        name: python:MODULE:FUNCTION, for errors.
        body: The module.

    Raises:
        UserError: If it does not take a small image, or gives anything else.
    """

    head_prefixes = ()
    weight_roots = ("body.",)
    foldable = False

    def __init__(self, num_classes: int, name: str, body: nn.Module) -> None:
        super().__init__()
        self.num_classes, self.users_name = num_classes, name
        self.body = body
        self.multiple, self.stride = self._try()

    def scores(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple(images, self.multiple)
        try:
            scores = _logits(self.body(padded))
        except Exception as error:  # the user's code raises whatever it likes
            raise _in_words(error, self.users_name or "", len(padded)) from None
        if self.multiple == 1:
            return scores  # of this very image
        rows, columns = (math.ceil(side / self.stride) for side in images.shape[-2:])
        return scores[..., :rows, :columns].contiguous()

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        return [ParameterGroup([p for p in self.body.parameters() if p.requires_grad])]

    def _try(self) -> tuple[int, float]:
        """What sides must be a multiple of, and the stride of the scores."""
        given = getattr(self.body, _ATTRIBUTE, None)
        if given is not None and (type(given) is not int or given < 1):
            raise UserError(
                f"segmentation.network: {self.users_name}: its {_ATTRIBUTE} is {given!r}, must be "
                "a whole number of 1 or more"
            )
        training = self.body.training
        refusal = ""
        try:
            self.body.eval()
            for multiple in _MULTIPLES if given is None else (given,):
                height, width = (math.ceil(side / multiple) * multiple for side in _TRIED)
                logits, problem = self._pass(height, width)
                if logits is not None:
                    return multiple, height / logits.shape[-2]
                refusal = refusal or problem
        finally:
            self.body.train(training)
        wanted = _WANTED.format(classes=self.num_classes)
        raise UserError(f"segmentation.network: {self.users_name}: {wanted}; {refusal}")

    def _pass(self, height: int, width: int) -> tuple[Tensor | None, str]:
        """Its logits of two small images; None, and what is wrong, if it gives none."""
        parameter = next(self.body.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        images = torch.zeros(2, 3, height, width, device=device)
        seen = f"for images of 2 x 3 x {height} x {width} it "
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                logits = _logits(self.body(images))
        except Exception as error:  # the user's code raises whatever it likes
            return None, f"{seen}raises {type(error).__name__}: {first_line(error)}"
        if not isinstance(logits, Tensor):
            return None, f"{seen}gives a {type(logits).__name__}"
        shape = " x ".join(map(str, logits.shape))
        if logits.ndim != 4 or tuple(logits.shape[:2]) != (2, self.num_classes):
            return None, f"{seen}gives {shape}"
        if not logits.is_floating_point():
            return None, f"{seen}gives {shape} of {logits.dtype}"
        if not (1 <= logits.shape[2] <= height + 1 and 1 <= logits.shape[3] <= width + 1):
            return None, f"{seen}gives {shape}"
        if _are_probabilities(logits):
            return None, (
                f"{seen}gives {shape} from 0 to 1, which sum to 1 over the classes, as a softmax "
                "does: leave its last softmax out, as one is taken of what it gives"
            )
        return logits, ""


def _logits(given: Any) -> Any:
    """The logits in what a network gives."""
    if isinstance(given, Mapping):
        return next((given[key] for key in _OUTPUTS if key in given), given)
    return getattr(given, "logits", given)


def _are_probabilities(logits: Tensor) -> bool:
    """Whether what is given for N x C x h x w logits went through a softmax already."""
    values = logits.float()
    total = values.sum(1)
    inside = bool(((values >= 0) & (values <= 1)).all())
    return inside and torch.allclose(total, torch.ones_like(total), atol=1e-2)


def build_user_network(name: str, num_classes: int, **options: Any) -> Segmenter:
    """The network that a user's function makes.

    Args:
        name: python:MODULE:FUNCTION; the module is looked for on Python's path and in the current
            folder, and runs.
        num_classes: The function's first argument.
        **options: Its further ones, by name.

    Returns:
        What the function returns if that is a `Segmenter`, else that wrapped as a `UserNetwork`.

    Raises:
        UserError: If there is no such function, it fails, or gives no such network.
    """
    function = _function(name)
    try:
        inspect.signature(function).bind(num_classes, **options)
    except TypeError as error:
        raise UserError(f"segmentation.options: {name}(num_classes, **options): {error}") from None
    except ValueError:
        pass  # some functions of C have no signature
    try:
        body = function(num_classes, **options)
    except UserError:
        raise
    except Exception as error:  # the user's code raises whatever it likes
        raise UserError(f"segmentation.network: {name}: {_where(error)}") from None
    if isinstance(body, Segmenter):
        body.users_name = name
        if "foldable" not in vars(type(body)):
            body.foldable = False  # nobody said in which order its modules run
        return body
    if not isinstance(body, nn.Module):
        raise UserError(
            f"segmentation.network: {name}: gives a {type(body).__name__}, must give a "
            "torch.nn.Module"
        )
    return UserNetwork(num_classes, name, body)


def _function(name: str) -> Callable[..., Any]:
    module_name, function_name = split_python_name(name)
    module_file(name)  # says where it was looked for
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: nothing in that folder takes another module's place
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's code raises whatever it likes
        raise UserError(f"segmentation.network: {name}: {_where(error)}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module_name
        ]
        has = f"it has {', '.join(own)}" if own else "it has none"
        raise UserError(
            f"segmentation.network: {name}: {module.__file__} has no function "
            f"'{function_name}'; {has}"
        )
    return function


@contextmanager
def users_errors(name: str | None, count: int) -> Iterator[None]:
    """Inside, what a network of the user's raises is the user's to repair, with the line.

    Args:
        name: python:MODULE:FUNCTION; None for another network, of which nothing changes.
        count: Images that pass it at once.
    """
    try:
        yield
    except Exception as error:
        if name is None:
            raise
        raise _in_words(error, name, count) from None


def _in_words(error: Exception, name: str, count: int) -> Exception:
    """What to raise in the place of an error that passed the user's code."""
    if isinstance(error, UserError) or is_out_of_memory(error):
        return error
    if isinstance(error, ValueError):
        require_several_images(error, name, count)
    log.debug("%s", "".join(traceback.format_exception(error)))
    return UserError(f"segmentation.network: {name}: with {count} images: {_where(error)}")


def _where(error: Exception) -> str:
    """An error of the user's code with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    # Not torch's own lines, where there are others.
    others = [frame for frame in frames if not Path(frame.filename).is_relative_to(_TORCH)]
    last = next(reversed(others or frames), None)
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"
