"""Weights from a file for a network to start from: its own, timm's, or of other code."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from bdl.runtime.console import log
from bdl.runtime.errors import UserError
from bdl.runtime.files import load_tensors, open_regular
from bdl.segmentation.network_name import TIMM
from bdl.segmentation.networks.base import Segmenter

# What other code puts before every key: DataParallel, torch.compile, Lightning and the like.
_PREFIXES = (
    *("module.", "_orig_mod.", "model.", "network.", "net."),
    *("ema.", "teacher.", "student.", "backbone.", "encoder."),
)
# Where other code puts the weights in its checkpoints.
_HOLDERS = ("state", "state_dict", "model", "model_state_dict", "model_state", "network", "teacher")
_COUNTERS = (".num_batches_tracked",)  # of batch norm, without which it works as well
_NAMED = 3  # layers in a message; of more, the number is given
_DEEPEST = 3  # prefixes one after the other


def read_weights(file: Path) -> dict[str, Any]:
    """What a weights file holds, on the CPU: of torch.save or safetensors, told by the content.

    Raises:
        UserError: If it is missing, damaged, or holds anything but data.
    """
    if file.suffix != ".safetensors":
        return load_tensors(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_regular(file):
            return dict(load_file(file, device="cpu"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except SafetensorError as error:
        raise UserError(
            f"{file}: is no safetensors file, or damaged ({error}); fetch it again"
        ) from None


def tensors_of(content: Mapping[str, Any], file: Path | str) -> dict[str, Tensor]:
    """The weights in a checkpoint of any code: those of its first holder that has some.

    Raises:
        UserError: If there are none.
    """
    for holder in (None, *_HOLDERS):
        state = content if holder is None else content.get(holder)
        if not isinstance(state, Mapping):
            continue
        tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if tensors:
            return tensors
    raise UserError(
        f"{file}: holds no weights, neither as tensors by name nor as one of {', '.join(_HOLDERS)}"
    )


@dataclass(frozen=True)
class Match:
    """How the tensors of a file are those of a network.

    Args:
        matched: The network's key to the file's tensor, of equal shapes.
        misshapen: The network's key to the file's tensor, of other shapes.
        left: Keys of the file that the network does not have.
        dropped: What was dropped before the file's keys.
        root: The part of the network that the file is of; "" if of all.
    """

    matched: dict[str, Tensor]
    misshapen: dict[str, Tensor]
    left: list[str]
    dropped: str = ""
    root: str = ""


def best_match(state: Mapping[str, Tensor], network: Segmenter) -> Match:
    """The way to read a file's keys by which most of its tensors are the network's."""
    expected = network.state_dict()
    best: Match | None = None
    for root in ("", *network.weight_roots):
        # timm joins the first parts of names where it cuts a backbone into maps.
        names = {
            key.removeprefix(root).replace(".", "_"): key
            for key in expected
            if key.startswith(root)
        }
        for dropped, renamed in _readings(state):
            matched: dict[str, Tensor] = {}
            other: dict[str, Tensor] = {}
            left = [key for key in state if key not in renamed.values()]
            for name, original in renamed.items():
                key = names.get(name.replace(".", "_"))
                if key is None:
                    left.append(original)
                elif state[original].shape == expected[key].shape:
                    matched[key] = state[original]
                else:
                    other[key] = state[original]
            if best is None or len(matched) > len(best.matched):
                best = Match(matched, other, left, dropped, root)
    assert best is not None
    return best


def _readings(state: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, str]]]:
    """Prefix, and names without it to the keys that had it; first without any."""
    waiting = [("", {key: key for key in state})]
    while waiting:
        dropped, names = waiting.pop(0)
        yield dropped, names
        for prefix in _PREFIXES:
            shorter = {
                name.removeprefix(prefix): key
                for name, key in names.items()
                if name.startswith(prefix)
            }
            if shorter and dropped.count(".") < _DEEPEST:
                waiting.append((dropped + prefix, shorter))


def load_weights(
    network: Segmenter, name: str, state: Mapping[str, Tensor], file: Path | str
) -> None:
    """Load weights of other code, and say in one line what matched and what did not.

    Args:
        network: Gets them.
        name: As `segmentation.network` gives it.
        state: The file's tensors.
        file: For the line, and for errors.

    Raises:
        UserError: If a layer outside of the head is missing or has another shape, or if the file
            is of the whole network and has layers that are none of it.
    """
    match = best_match(state, network)
    if _lost(match, network) and name.startswith(TIMM) and hasattr(network, "backbone"):
        match = max(
            (match, _as_timm_reads(state, name, network)),
            key=lambda candidate: len(candidate.matched),
        )
    lost = _lost(match, network)
    misshapen = [key for key in match.misshapen if not key.startswith(network.head_prefixes)]
    unknown = match.left if not match.root else []
    if lost or misshapen or unknown:
        expected = network.state_dict()
        shapes = [
            f"{key} is {tuple(match.misshapen[key].shape)}, must be {tuple(expected[key].shape)}"
            for key in misshapen
        ]
        problems = {"missing": lost, "of another shape": shapes, "unknown": unknown}
        said = "; ".join(f"{what}: {_named(keys)}" for what, keys in problems.items() if keys)
        raise UserError(f"{file}: does not fit {name}: {said}{_advice(name)}")
    network.load_state_dict(match.matched, strict=False)
    log.info("%s: %s", file, _account(match, network, name))


def _lost(match: Match, network: Segmenter) -> list[str]:
    """Keys outside of the head that the file does not have."""
    return [
        key
        for key in network.state_dict()
        if key not in match.matched
        and key not in match.misshapen
        and not key.startswith((*network.head_prefixes, "normalize."))
        and not key.endswith(_COUNTERS)
    ]


def _as_timm_reads(state: Mapping[str, Tensor], name: str, network: Segmenter) -> Match:
    """The same of what timm makes of files in the format of a backbone's authors."""
    backbone = name.removeprefix(TIMM)
    with torch.device("meta"):
        whole = timm.create_model(backbone, pretrained=False)
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    try:
        converted = convert(dict(state), whole) if convert is not None else state
    except Exception:  # what it raises for a file of anything else is of any kind
        converted = state
    return best_match(converted, network)


def _account(match: Match, network: Segmenter, name: str) -> str:
    """What matched and what did not."""
    expected = network.state_dict()
    parts = [f"{len(match.matched)} of {len(expected)} tensors are those of {name}"]
    if match.dropped:
        parts.append(f"'{match.dropped}' before their names is dropped")
    if match.root:
        parts.append(f"they are those of {match.root.removesuffix('.')}")
    fresh = sorted({key.split(".")[0] for key in expected if key not in match.matched})
    fresh = [key for key in fresh if key != "normalize"]
    if fresh:
        parts.append(f"new: {', '.join(fresh)}")
    if match.left:
        parts.append(f"not used: {_named(match.left)}")
    return "; ".join(parts)


def _advice(name: str) -> str:
    return "; convert it with import-weights" if name in ("deeplab_v2", "fcn8s_vgg16") else ""


def _named(keys: list[str]) -> str:
    more = len(keys) - _NAMED
    return ", ".join(keys[:_NAMED]) + (f" and {more} more" if more > 0 else "")
