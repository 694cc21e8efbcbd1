"""The layers of a network that somebody else wrote: their order, their weights, their memory."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bdl.runtime.errors import UserError
from bdl.segmentation.networks.base import ParameterGroup
from bdl.segmentation.networks.depthwise import DepthwiseOnCpu

_EMBEDDINGS = ("pos_embed", "token", "position_bias_table")  # learned, and not to be made small


def parameter_groups_of(backbone: nn.Module, head: Sequence[nn.Module]) -> list[ParameterGroup]:
    """Backbone and head as groups, norms and biases without weight decay.

    Args:
        backbone: Learns at the configured rate.
        head: Modules that learn at the head's rate.

    Returns:
        Four groups at most: with and without weight decay, of backbone and head.
    """
    groups = []
    for modules, is_head in (([backbone], False), (list(head), True)):
        named = [item for module in modules for item in module.named_parameters()]
        trained = [(name, p) for name, p in named if p.requires_grad]
        for decays in (True, False):
            chosen = [p for name, p in trained if _decays(name, p) == decays]
            if chosen:
                groups.append(ParameterGroup(chosen, head=is_head, decays=decays))
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not any(part in name for part in _EMBEDDINGS)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks that a network is a stack of, as it registers them.

    A block is an element of a list or sequence of modules of one kind that have parts and weights
    of their own and hold no such list themselves. (To be compiled, blocks may also stand in a
    sequence of several kinds: `runtime/compiling.py`. Here they are layers, one after the other.)
    """
    containers = []
    for module in network.modules():
        children = list(module.children())
        is_list = isinstance(module, nn.ModuleList | nn.Sequential)
        if is_list and children and all(_is_block(child, children[0]) for child in children):
            containers.append(module)
    inner = [
        container
        for container in containers
        if not any(part in containers for part in container.modules() if part is not container)
    ]
    return [block for container in inner for block in container.children()]


def _is_block(module: nn.Module, first: nn.Module) -> bool:
    has_weights = any(True for _ in module.parameters())
    parts = [part for part in module.modules() if next(part.parameters(False), None) is not None]
    return type(module) is type(first) and has_weights and len(parts) > 1


@torch.no_grad()
def layers_of(backbone: nn.Module, size: tuple[int, int]) -> list[list[nn.Parameter]]:
    """The backbone's parameters by layer, in the order in which it computes.

    Layer 0 is what comes before the first block; each block is a layer, with what follows it up to
    the next one. The order is seen in a pass of one small image.

    Args:
        backbone: Takes N x 3 x H x W.
        size: Height and width that it takes.
    """
    blocks = repeated_blocks(backbone)
    owners = {id(part): number for number, block in enumerate(blocks) for part in block.modules()}
    started: dict[int, int] = {}  # block's number to its layer
    layer_of: dict[int, int] = {}  # a module outside of all blocks, to its layer

    def note(module: nn.Module, given: Any) -> None:
        number = owners.get(id(module))
        if number is None:
            layer_of.setdefault(id(module), len(started))
        else:
            started.setdefault(number, len(started) + 1)

    owning = [m for m in backbone.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [m.register_forward_pre_hook(note) for m in {*blocks, *owning}]
    training = {m: m.training for m in backbone.modules()}
    parameter = next(backbone.parameters())
    try:
        backbone.eval()
        backbone(torch.zeros(1, 3, *size, dtype=parameter.dtype, device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    layers: list[list[nn.Parameter]] = [[] for _ in range(len(started) + 1)]
    seen: set[int] = set()
    for module in owning:
        number = owners.get(id(module))
        layer = layer_of.get(id(module), 0) if number is None else started.get(number, 0)
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen and parameter.requires_grad:
                seen.add(id(parameter))
                layers[layer].append(parameter)
    return layers


def split_by_layer(
    group: ParameterGroup, layers: list[list[nn.Parameter]], decay: float
) -> list[tuple[list[nn.Parameter], float]]:
    """A group's parameters with the factor of their rate: decay^d, d layers below the head.

    Args:
        group: Of the network that the layers are of.
        layers: As `layers_of` gives them; what is in none of them has the factor 1.
        decay: Factor of one layer, in (0, 1].

    Returns:
        Parameters and factor, the layers nearest to the image first.
    """
    depth = {id(p): len(layers) - n for n, layer in enumerate(layers) for p in layer}
    parts: dict[int, list[nn.Parameter]] = {}
    for parameter in group.parameters:
        parts.setdefault(depth.get(id(parameter), 0), []).append(parameter)
    return [(parts[number], decay**number) for number in sorted(parts, reverse=True)]


def replace_depthwise(network: nn.Module) -> None:
    """Let depthwise convolutions compute as `DepthwiseOnCpu` says."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.forward = DepthwiseOnCpu(module)  # type: ignore[method-assign, assignment]


class Recomputed:
    """Takes the place of a block's `forward`: keeps its input alone for the backward pass.

    The block computes once more then, with the same dropout and drop path; running statistics of
    batch norm follow the first time alone.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block, self.forward = block, block.forward

    def __call__(self, *given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self.forward(*given, **named)
        if not any(_follows(part) for part in self.block.modules()):
            return checkpoint(self.forward, *given, use_reentrant=False, **named)
        return checkpoint(
            self.forward, *given, use_reentrant=False, context_fn=self._contexts, **named
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(self.block)


def _follows(module: nn.Module) -> bool:
    """Whether it is a batch norm whose running statistics follow the images."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    # A step of 0 in what runs along: it stays bitwise as it is, and all else computes alike.
    following = [
        (module, module.momentum, module.num_batches_tracked)
        for module in block.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and _follows(module)
    ]
    counts = [count.clone() if count is not None else None for _, _, count in following]
    for module, _, _ in following:
        module.momentum = 0.0
    try:
        yield
    finally:
        for (module, momentum, count), before in zip(following, counts, strict=True):
            module.momentum = momentum
            if count is not None and before is not None:
                count.copy_(before)


def recompute_blocks(backbone: nn.Module) -> None:
    """Gradient checkpointing: each block of the backbone is computed again for its gradient."""
    for block in repeated_blocks(backbone):
        block.forward = Recomputed(block)  # type: ignore[method-assign, assignment]


def freeze_unused(network: nn.Module, scores: Tensor) -> None:
    """Parameters that scores do not depend on learn nothing, and no process waits for them.

    Args:
        network: Whose scores they are.
        scores: Made with gradients.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(scores.sum(), trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)


def require_several_images(error: ValueError, name: str, count: int) -> None:
    """Raise UserError if `error` is batch norm's of too few values: that a network called `name`,
    which normalises over the images of a batch, cannot train on `count` of them."""
    if "more than 1 value per channel" in str(error):
        raise UserError(
            f"segmentation.batch_size: {name} normalises over the images of a batch and cannot "
            f"train on {count}; set segmentation.batch_size=2 or more"
        ) from None
