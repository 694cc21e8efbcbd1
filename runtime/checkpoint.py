"""The state within a training stage: saved whole, found again after a kill at any instant."""

import re
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import nn

from bdl.runtime.console import log
from bdl.runtime.device import random_state, set_random_state, sum_on_device
from bdl.runtime.errors import UserError
from bdl.runtime.files import PARTIAL, load_tensors, read_json, save_tensors, write_json
from bdl.runtime.processes import largest

_POINTER = "checkpoint.json"
# No other file is one of ours, whatever its name begins with.
_STATE = re.compile(
    rf"checkpoint-(?P<step>\d{{8,}})(-process-\d+)?\.pt({re.escape(PARTIAL)})?", re.ASCII
)


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Checkpoint:
    """Saves and restores the objects of one training.

    `shared` are equal on all processes (networks, optimizers) and saved once; `own` differ
    (a pool of past fakes) and are saved by each process, with its random state. The file
    `checkpoint.json` names the step whose files are complete; it is replaced last, so that there
    is always one complete state, and the files of all but the last `keep` states are removed
    after it.
    """

    def __init__(
        self,
        fabric: Fabric,
        folder: Path,
        shared: dict[str, Stateful],
        own: dict[str, Stateful],
        keep: int = 1,
    ) -> None:
        self.fabric, self.folder, self.shared, self.own = fabric, folder, shared, own
        self.keep = keep

    def restore(self) -> int:
        """Load the latest state; returns the number of steps done, 0 without one.

        A state whose files are damaged is passed over for the one before it. Raises UserError if
        none can be read, or if the state was saved by another number of processes.
        """
        pointer = self.folder / _POINTER
        if not pointer.is_file():
            return 0
        latest = read_json(pointer)
        if latest["processes"] != self.fabric.world_size:
            raise UserError(
                f"{self.folder}: was begun with devices={latest['processes']}; go on with as many"
            )
        for step in reversed(_saved_steps(self.folder, int(latest["step"]))):
            damage = ""
            try:
                shared = load_tensors(self._shared_file(step))
                own = load_tensors(self._own_file(step))
            except UserError as error:
                damage = str(error)
            if largest(self.fabric, int(bool(damage))):  # on any process
                log.warning("%s", damage or f"the state after step {step} is damaged")
                continue
            self._load(shared, own)
            return step
        raise UserError(
            f"{self.folder}: none of its saved states can be read; remove the folder, and the "
            "stage begins anew"
        )

    def _load(self, shared: dict[str, Any], own: dict[str, Any]) -> None:
        for name, item in self.shared.items():
            item.load_state_dict(shared[name])
        for name, item in self.own.items():
            item.load_state_dict(own[name])
        set_random_state(self.fabric.device, own["random"])

    def save(self, step: int) -> None:
        """Make the present state the one to resume from, as that after `step` steps."""
        own: dict[str, Any] = {name: item.state_dict() for name, item in self.own.items()}
        own["random"] = random_state(self.fabric.device)
        save_tensors(self._own_file(step), own)
        if self.fabric.is_global_zero:
            shared = {name: item.state_dict() for name, item in self.shared.items()}
            save_tensors(self._shared_file(step), shared)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            write_json(self.folder / _POINTER, {"step": step, "processes": self.fabric.world_size})
            _remove(self.folder, set(_saved_steps(self.folder, step)[-self.keep :]))
        self.fabric.barrier()

    def latest(self) -> int | None:
        """The step after which the latest state was saved; None without one."""
        pointer = self.folder / _POINTER
        return int(read_json(pointer)["step"]) if pointer.is_file() else None

    def not_finite(self) -> list[str]:
        """Names of the weights of the networks that hold NaN or infinity, by network."""
        return [
            f"{name}.{key}"
            for name, item in self.shared.items()
            if isinstance(item, nn.Module)
            for key, value in item.state_dict().items()
            if value.is_floating_point() and not bool(value.isfinite().all())
        ]

    def _shared_file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.pt"

    def _own_file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}-process-{self.fabric.global_rank}.pt"


def _saved_steps(folder: Path, latest: int) -> list[int]:
    """The steps of the complete states, ascending: `latest` and those before it."""
    steps = {step for file, step in _states(folder) if not file.name.endswith(PARTIAL)}
    return sorted(step for step in steps if step <= latest)


def _remove(folder: Path, keep: set[int]) -> None:
    for file, step in _states(folder):
        if step not in keep:
            file.unlink()


def _states(folder: Path) -> list[tuple[Path, int]]:
    """The files of saved states, and what kills left of them, each with its step."""
    named = [(file, _STATE.fullmatch(file.name)) for file in folder.iterdir()]
    return [(file, int(name["step"])) for file, name in named if name]


class Curves:
    """Means of named losses between log points, kept for the report and saved on resume.

    Values are summed as tensors where they are, and read only when a log point is due, so that
    a step does not wait for the device.

    Args:
        validated_on: Tells apart what the rows of `validation` are measured on.
    """

    def __init__(self, validated_on: str = "") -> None:
        self.validated_on = validated_on
        self.rows: list[dict[str, float]] = []
        self.validation: list[dict[str, float]] = []  # rows of what validation images gave
        self._sums: dict[str, torch.Tensor] = {}
        self.count = 0  # steps since the last row
        self._finite = torch.tensor(0)  # steps of this row before the first that was not finite

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Scalars of one step, by name."""
        # Scalars of the CPU, as those restored, add to a device's without a copy to wait for.
        together = torch.zeros(())
        for name, value in values.items():
            value = value.detach().float()
            together = together + value
            if name in self._sums:
                value = value + self._sums[name]
            self._sums[name] = value
        self._finite = self._finite + ((self._finite == self.count) & together.isfinite())
        self.count += 1

    def first_not_finite(self) -> tuple[int, list[str]] | None:
        """How many steps since the last row were finite, and which values then were not."""
        steps = int(self._finite)
        if steps == self.count:
            return None
        return steps, [name for name, value in self._sums.items() if not value.isfinite()]

    def average(self, fabric: Fabric) -> None:
        """Make the values since the last row their means over all processes, which all call it."""
        if fabric.world_size == 1 or not self._sums:
            return
        sums = torch.stack([value.to(fabric.device) for value in self._sums.values()])
        means = sum_on_device(fabric, sums) / fabric.world_size
        self._sums = dict(zip(self._sums, means.unbind(), strict=True))

    def close_row(self, step: int, **extra: float) -> dict[str, float]:
        """End the row at `step`; returns it: the mean of every value since the last row."""
        means = {name: float(value) / self.count for name, value in self._sums.items()}
        row = {"step": step, **means, **extra}
        self.rows.append(row)
        self._sums, self.count, self._finite = {}, 0, torch.tensor(0)
        return row

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "validation": self.validation,
            "validated_on": self.validated_on,
            "sums": self._sums,
            "count": self.count,
            "finite": self._finite,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self._sums, self.count = state["rows"], state["sums"], state["count"]
        self._finite = state["finite"]
        # States saved before these were have none; rows of other images do not go together.
        same = state.get("validated_on") == self.validated_on
        self.validation = state.get("validation", []) if same else []
