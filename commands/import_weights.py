"""`bdl import-weights`: a file of other code becomes one of this project."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from bdl.commands.parser import TORCHVISION, TRANSLATION
from bdl.commands.paths import require_path
from bdl.domains.label_space import load_label_space
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError


def main(options: Namespace) -> None:
    """Write OUT from IN, and say what it is."""
    Console()
    origin, out = options.origin, Path(options.out)
    if Path(origin).resolve() == out.resolve():
        raise UserError(f"{out}: is the file to import; give another name for OUT")
    if options.back is not None and options.network != "generator":
        raise UserError("--back: goes with --network generator; leave it out")
    if options.branches is not None and options.network != "deeplab_v2":
        raise UserError(f"--branches: {options.network} has no branches; leave it out")
    for given in filter(None, (origin, options.back)):
        if given != TORCHVISION:
            require_path(Path(given), f"a published file, or '{TORCHVISION}'")
    if options.network in TRANSLATION:
        from bdl.translation.reference_weights import import_translator
        from bdl.translation.reference_weights import import_weights as import_translation

        if options.back is not None:
            content, note = import_translator(origin, options.back)
        else:
            content, note = import_translation(origin, options.network)
    else:
        space = load_label_space(options.label_space)
        from bdl.segmentation.reference_weights import import_weights

        content, note = import_weights(origin, options.network, space, options.branches)
    from bdl.runtime.files import save_tensors

    if not os.path.lexists(out):
        save_tensors(out, content)
    elif not _holds(out, content):
        raise UserError(f"{out}: is there already, and holds something else; give another OUT")
    log.info("%s: %s", out, note)


def _holds(file: Path, content: dict[str, Any]) -> bool:
    """Whether a file holds just that: networks that were trained for hours look alike."""
    from bdl.runtime.files import load_tensors

    try:
        return _same(load_tensors(file), content)
    except UserError:
        return False


def _same(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if torch.is_tensor(one) and torch.is_tensor(other):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
