"""A recorder of steps on the CPU that keeps to a CUDA graph's rules."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bdl.runtime.replay import Outputs


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Log(TorchDispatchMode):
    """Notes every operation with its tensors, and the numbers that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        given = {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        # A view needs no operation: it is of the memory of what is computed again.
        fresh = [leaf for leaf in made if _memory(leaf) not in given]
        if fresh or func._schema.is_mutable:
            self.operations.append((func, args, kwargs, made))
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the step waits for a result")
        return results


class Recorder:
    """Replays the operations that a work did when it was recorded, in the same memory.

    As of a CUDA graph: Python does not run again, so that numbers and choices are those of the
    recording; results overwrite those of the last time; nothing may wait for a result.

    Attributes:
        replays: How often something was replayed.
        draws: Operations that were recorded and draw at random.
    """

    def __init__(self) -> None:
        self.replays = 0
        self.draws: list[str] = []

    def compute(self, work: Callable[[], Outputs]) -> Outputs:
        return work()

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        with _Log() as log:
            outputs = work()
        seeded = torch.Tag.nondeterministic_seeded
        self.draws += [str(func) for func, *_ in log.operations if seeded in func.tags]

        @torch.no_grad()
        def again() -> None:
            self.replays += 1
            for func, args, kwargs, made in log.operations:
                results = [r for r in tree_leaves(func(*args, **kwargs)) if isinstance(r, Tensor)]
                for before, result in zip(made, results, strict=True):
                    if before.data_ptr() != result.data_ptr():
                        before.copy_(result)

        return again, outputs
