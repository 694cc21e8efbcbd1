"""Steps of a training that are recorded once and replayed, so that the device never waits.

A processor hands out the thousands of kernels of a step one by one; on a fast GPU that takes longer
than the GPU computes. A recorded step (a CUDA graph) is handed out as one. It does what it did when
it was recorded, with the same memory and the same numbers: so what changes from step to step must
lie in tensors that are filled, and what it returns is overwritten the next time. `Replay` sees to
both, and to it that a replayed step does what a computed one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from bdl.runtime.console import log
from bdl.runtime.device import random_state, set_random_state
from bdl.runtime.errors import first_line

Inputs = Sequence[Tensor | None]
Outputs = dict[str, Tensor]
Part = Callable[..., Outputs]

WARM_UP = 5  # computed steps before the first is recorded: libraries search, optimizers begin
_SPREADS = 3.0  # times that two computed steps differ, by which a replayed one may
_ROUNDING = 1e-4  # relative, of a loss
_UPDATE = 1e-3  # of what a step changes


class Recorder(Protocol):
    """What records work and replays it."""

    def compute(self, work: Callable[[], Outputs]) -> Outputs:
        """Do the work as it will be done when it is recorded, on the same stream."""

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Record the work, which may be done or not.

        Returns:
            What does it again, and the tensors that this overwrites with its results.

        Raises:
            RuntimeError: It cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs, which share their memory."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def compute(self, work: Callable[[], Outputs]) -> Outputs:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = work()
        current.wait_stream(self._stream)
        return outputs

    def record(self, work: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        graph = torch.cuda.CUDAGraph()
        # The thread that pins images in memory goes on meanwhile: its calls are no errors.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            outputs = work()
        return graph.replay, outputs


@dataclass(frozen=True)
class _Recorded:
    """A part of a step as it was recorded: what does it again, and where its inputs and outputs
    lie."""

    again: Callable[[], None]
    inputs: list[Tensor | None]
    outputs: Outputs


class Replay:
    """Computes the parts of a step; after some steps it records each, and replays it from then on.

    A part is a function of tensors to named tensors that learns, in place, and draws nothing at
    random but from torch's own state. Before a part is replayed, one step of it is done three
    times from the same state and inputs: computed twice, replayed once. If losses or what is
    learned differ by more than the computed ones do among themselves, or if anything else does not
    work, all later steps are computed, and one warning says why.

    Args:
        learned: Networks and optimizers that the parts change.
        device: Where they are.
        recorder: What records; None: all steps are computed.

    Attributes:
        replayed: How many steps were replayed so far, counted by the part that was least often.
        warning: Why steps are computed though they were to be replayed; empty if they are not.
    """

    def __init__(
        self, learned: Iterable[Any], device: torch.device, recorder: Recorder | None
    ) -> None:
        self._learned, self._device, self._recorder = list(learned), device, recorder
        self._computed: dict[str, int] = {}
        self._recorded: dict[str, _Recorded] = {}
        self._replayed: dict[str, int] = {}
        self._rates_on_device = False
        self.warning = ""

    @classmethod
    def none(cls) -> Replay:
        """One that computes every step."""
        return cls((), torch.device("cpu"), None)

    @property
    def replayed(self) -> int:
        return min(self._replayed.values(), default=0)

    @property
    def records(self) -> bool:
        """Whether steps are replayed, or will be once they are recorded."""
        return self._recorder is not None

    def set_rate(self, group: dict[str, Any], rate: float) -> None:
        """Give a group of an optimizer its learning rate, before a step: in a tensor of its own
        once steps are recorded, as a number is what it was then for ever."""
        if "capturable" in group:
            group["capturable"] = self._rates_on_device
        if not self._rates_on_device:
            group["lr"] = rate
        elif isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = torch.tensor(rate, dtype=torch.float32, device=self._device)

    def __call__(self, part: Part, *inputs: Tensor | None) -> Outputs:
        """Do one part of a step.

        Args:
            part: The part: a function with a name, the same in all steps.
            inputs: Its inputs, on the device.

        Returns:
            What it returns, in tensors that stay as they are.
        """
        if self._recorder is None:
            return part(*inputs)
        name = part.__name__
        if name not in self._recorded:
            computed = self._computed.get(name, 0)
            if computed < WARM_UP:
                self._computed[name] = computed + 1
                return self._recorder.compute(lambda: part(*inputs))
            return self._record(name, part, inputs)
        recorded = self._recorded[name]
        if not _fits(inputs, recorded.inputs):
            self._stop("the sizes of images change")
            return part(*inputs)
        _copy(inputs, recorded.inputs)
        recorded.again()
        self._replayed[name] += 1
        return {key: value.clone() for key, value in recorded.outputs.items()}

    def _record(self, name: str, part: Part, inputs: Inputs) -> Outputs:
        """Record a part, and see that it does the same; the step is done once, by whom ever."""
        assert self._recorder is not None
        static = [None if given is None else given.detach().clone() for given in inputs]
        self._put_rates_on_device()
        before, random = self._state(), random_state(self._device)

        def start_anew() -> None:
            self._put_back(before)
            set_random_state(self._device, random)
            _copy(inputs, static)

        def computed() -> tuple[dict[str, float], list[Tensor]]:
            assert self._recorder is not None
            outputs = self._recorder.compute(lambda: part(*static))
            return _scalars(outputs), self._state()

        try:
            first, other = computed(), None
            start_anew()
            other = computed()
            start_anew()
            again, outputs = self._recorder.record(lambda: part(*static))
            start_anew()
            again()
            replayed = _scalars(outputs), self._state()
            problem = difference(before, first, other, replayed)
        except RuntimeError as error:
            problem = first_line(error)
        if problem:
            start_anew()
            self._stop(problem)
            return part(*inputs)
        # Without the graph of their gradients, whose memory is a later replay's.
        outputs = {key: value.detach() for key, value in outputs.items()}
        self._recorded[name] = _Recorded(again, static, outputs)
        self._replayed[name] = 1
        return {key: value.clone() for key, value in outputs.items()}

    def _stop(self, problem: str) -> None:
        self._recorder, self._rates_on_device = None, False
        self._recorded.clear()
        self.warning = f"steps are not replayed ({problem}): each is computed, which takes longer"
        log.warning("  warning: %s", self.warning)

    def _put_rates_on_device(self) -> None:
        self._rates_on_device = True
        for optimizer in self._learned:
            if not isinstance(optimizer, nn.Module):
                for group in optimizer.param_groups:
                    self.set_rate(group, float(group["lr"]))

    def tensors(self) -> Iterator[Tensor]:
        """All that is learned, in a fixed order."""
        for learned in self._learned:
            if isinstance(learned, nn.Module):
                yield from learned.parameters()
                yield from learned.buffers()
            else:
                for group in learned.param_groups:
                    for parameter in group["params"]:
                        values = learned.state.get(parameter, {}).values()
                        yield from (value for value in values if isinstance(value, Tensor))

    def _state(self) -> list[Tensor]:
        """A copy of all that is learned, in main memory: the device's is for the step."""
        return [tensor.detach().to("cpu", copy=True) for tensor in self.tensors()]

    @torch.no_grad()
    def _put_back(self, state: Sequence[Tensor]) -> None:
        for tensor, value in zip(self.tensors(), state, strict=True):
            tensor.copy_(value)


def make_replay(fabric: Fabric, wanted: bool, learned: Iterable[Any]) -> Replay:
    """The replay of a training's steps.

    Args:
        fabric: Its device, precision and processes.
        wanted: Whether steps are to be replayed, where they can be (`replay_needs`).
        learned: Networks and optimizers.
    """
    recorder = CudaRecorder(fabric.device) if wanted and not replay_needs(fabric) else None
    return Replay(learned, fabric.device, recorder)


def replay_needs(fabric: Fabric) -> str:
    """What steps need in order to be replayed, and these have not; empty if they can be. They are
    on one CUDA device alone, without the loss scaling of 16-mixed, which reads a result in each
    step."""
    if fabric.device.type != "cuda":
        return "a CUDA device"
    if fabric.world_size > 1:
        return "a single device"
    scales = getattr(fabric.strategy.precision, "scaler", None) is not None
    return "another precision than 16-mixed" if scales else ""


def difference(
    before: Sequence[Tensor],
    first: tuple[Mapping[str, float], Sequence[Tensor]],
    other: tuple[Mapping[str, float], Sequence[Tensor]],
    replayed: tuple[Mapping[str, float], Sequence[Tensor]],
) -> str:
    """What a replayed step does otherwise than a computed one; empty if it does the same.

    Losses may differ by a little more than two computed steps do, as what is learned may, by the
    distance of all its tensors together.

    Args:
        before: What was learned before the step.
        first: Losses of a computed step, and what was learned after it.
        other: The same of another one, from the same state and inputs.
        replayed: The same of a replayed one.
    """
    for name, value in first[0].items():
        spread = abs(other[0][name] - value)
        allowed = _SPREADS * spread + _ROUNDING * abs(value)
        if not abs(replayed[0][name] - value) <= allowed:  # NaN is no agreement
            return f"{name} is {replayed[0][name]:.6g} in place of {value:.6g}"
    allowed = _SPREADS * distance(first[1], other[1]) + _UPDATE * distance(first[1], before)
    apart = distance(first[1], replayed[1])
    if not apart <= allowed:
        return f"the networks differ by {apart:.3g}, by {allowed:.3g} at the most if computed"
    return ""


def distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The Euclidean distance of all tensors of two states together."""
    return math.sqrt(
        sum(
            float((one.double() - other.double()).square().sum())
            for one, other in zip(some, others, strict=True)
        )
    )


def _scalars(outputs: Outputs) -> dict[str, float]:
    return {name: value.item() for name, value in outputs.items() if value.dim() == 0}


def _fits(inputs: Inputs, static: Inputs) -> bool:
    def kind(tensor: Tensor | None) -> object:
        return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)

    return [kind(given) for given in inputs] == [kind(own) for own in static]


def _copy(inputs: Inputs, static: Inputs) -> None:
    for given, own in zip(inputs, static, strict=True):
        if given is not None and own is not None:
            own.copy_(given, non_blocking=True)
