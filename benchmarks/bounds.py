"""What a step has to compute and to move: operations and bytes at the paper's sizes.

    python -m benchmarks.bounds [--json FILE]

Runs the steps on tensors without memory, in seconds on any machine. Operations are those of
convolutions (a multiplication and an addition are two), bytes those that all operations, one by
one, read and write in float32: what fused operations and 16 bits save is not counted.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bdl.runtime.config import TranslationWeights
from bdl.runtime.files import write_json
from bdl.segmentation import losses
from bdl.segmentation.networks.deeplab_v2 import DeepLabV2
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.translation.train import Discriminators, Translator, generator_losses, weighted_sum
from benchmarks.common import describe, exit_status, make_parser, table


class _Traffic(TorchDispatchMode):
    """Sums the bytes of all operations' tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            for item in tree_leaves((args, kwargs, made)):
                if isinstance(item, Tensor):
                    self.bytes += item.numel() * item.element_size()
        return made


def translation(crop: int = 452, batch: int = 1) -> None:
    """A step of the translator, without the optimizers."""
    translator, discriminators = Translator(64, 9), Discriminators(64)
    network = DeepLabV2(19, branches=2).eval().requires_grad_(False)
    a, b = torch.rand(2, batch, 3, crop, crop)
    weights = TranslationWeights()
    discriminators.requires_grad_(False)
    made = translator(a, b)
    terms = generator_losses(a, b, made, discriminators, network.scores, weights)
    weighted_sum(terms, weights).backward()
    discriminators.requires_grad_(True)
    judged = discriminators(a, b, made.fake_a.detach(), made.fake_b.detach())
    (judged["discriminator_a"] + judged["discriminator_b"]).backward()


def segmentation() -> None:
    """A step of segmentation with all terms, without the optimizers."""
    network, discriminator = DeepLabV2(19, branches=2), OutputDiscriminator(19)
    on_source = network(torch.rand(1, 3, 720, 1280))
    losses.cross_entropy(on_source, torch.zeros(1, 720, 1280, dtype=torch.long)).backward()
    on_target = network(torch.rand(1, 3, 512, 1024))
    loss = losses.cross_entropy(on_target, torch.zeros(1, 512, 1024, dtype=torch.long))
    discriminator.requires_grad_(False)
    (loss + losses.adversarial(discriminator(on_target.softmax(1)))).backward()
    discriminator.requires_grad_(True)
    maps = (logits.detach().softmax(1) for logits in (on_source, on_target))
    losses.discriminator(*(discriminator(domain) for domain in maps)).backward()


@torch.no_grad()
def prediction() -> None:
    """Score maps of one target image, for pseudo labels and evaluation."""
    DeepLabV2(19, branches=2).eval().scores(torch.rand(1, 3, 512, 1024))


@torch.no_grad()
def export() -> None:
    """The translation of one GTA5 image."""
    Translator(64, 9).a_to_b(torch.rand(1, 3, 720, 1280))


PATHS: dict[str, Callable[[], None]] = {
    "translation step, crop 452, batch 1": translation,
    "segmentation step, 1280x720 and 1024x512": segmentation,
    "score maps, 1024x512": prediction,
    "translation, 1280x720": export,
}


def count(path: Callable[[], None]) -> dict[str, Any]:
    """The "operations" and "bytes" of a path."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), _Traffic() as traffic, counter:
        path()
    return {"operations": counter.get_total_flops(), "bytes": traffic.bytes}


def main() -> None:
    options = make_parser(str(__doc__), turns=1).parse_args()
    counts = {name: count(path) for name, path in PATHS.items()}
    rows = []
    for name, counted in counts.items():
        operations, moved = counted["operations"], counted["bytes"]
        rows.append(
            [name, f"{operations / 1e12:.2f}", f"{moved / 1e9:.1f}", f"{operations / moved:.0f}"]
        )
    print(table(["path", "10^12 operations", "GB", "operations a byte"], rows))
    if options.json is not None:
        write_json(options.json, {**describe("bounds", options), "paths": counts})


if __name__ == "__main__":
    sys.exit(exit_status(main))
