"""Parts of networks become code of their own (torch.compile): which parts, and when they are used.

Not whole networks: the equal blocks that a network is made of share their code, so that compiling
takes a fraction of the time.
"""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from bdl.runtime.errors import UserError, first_line

_VARIANTS = 64  # of a block, by channels, strides and sizes of images, for which there may be code


def require_compiler(device: torch.device) -> None:
    """Raises UserError if torch.compile cannot compile for `device`: it may lack a compiler."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except RuntimeError as error:  # all of torch.compile's own are such
        raise UserError(
            f"compile: torch.compile does not work on this machine ({first_line(error)}); install "
            "a C++ compiler (Debian: g++), or set compile=false"
        ) from None


def compile_blocks(network: nn.Module) -> None:
    """Compile the blocks of a network, in place: modules of which a sequence holds several of one
    kind, such as residual blocks, and that hold no such sequence themselves."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _VARIANTS
    blocks = [block for module in network.modules() for block in _repeated(module)]
    for block in blocks:
        if not any(_repeated(part) for part in block.modules()):
            block.compile(dynamic=False)


def _repeated(module: nn.Module) -> list[nn.Module]:
    """Children of a sequence of which it has several of one kind, and that have children."""
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return []
    kinds = Counter(map(type, module))
    return [child for child in module if kinds[type(child)] > 1 and any(child.children())]


def uncompiled(compiled: bool) -> AbstractContextManager[object]:
    """Inside, networks compute as if they were not compiled: for images of other sizes than those
    of a training, for which there would be other code.

    Args:
        compiled: Whether anything is compiled; if not, there is nothing to do.
    """
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
