"""The state within a training stage: saved whole, found again after a kill at any instant."""

from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric

from runtime.errors import UserError
from runtime.files import load_tensors, read_json, save_tensors, write_json

_POINTER = "checkpoint.json"


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Checkpoint:
    """Saves and restores the objects of one training.

    `shared` are equal on all processes (networks, optimizers) and saved once; `own` differ
    (a pool of past fakes) and are saved by each process, with its random state. The file
    `checkpoint.json` names the step whose files are complete; it is replaced last, so that there
    is always one complete state, and the files of older ones are removed after it.
    """

    def __init__(
        self, fabric: Fabric, folder: Path, shared: dict[str, Stateful], own: dict[str, Stateful]
    ) -> None:
        self.fabric, self.folder, self.shared, self.own = fabric, folder, shared, own

    def restore(self) -> int:
        """Load the latest state; returns the number of steps done, 0 without one.

        Raises UserError if the state was saved by another number of processes.
        """
        pointer = self.folder / _POINTER
        if not pointer.is_file():
            return 0
        latest = read_json(pointer)
        if latest["processes"] != self.fabric.world_size:
            raise UserError(
                f"{self.folder}: was begun with devices={latest['processes']}; go on with as many"
            )
        step = int(latest["step"])
        shared = load_tensors(self._shared_file(step))
        own = load_tensors(self._own_file(step))
        for name, item in self.shared.items():
            item.load_state_dict(shared[name])
        for name, item in self.own.items():
            item.load_state_dict(own[name])
        torch.set_rng_state(own["random"]["cpu"])
        if torch.cuda.is_available() and "cuda" in own["random"]:
            torch.cuda.set_rng_state(own["random"]["cuda"], self.fabric.device)
        return step

    def save(self, step: int) -> None:
        """Make the present state the one to resume from, as that after `step` steps."""
        own: dict[str, Any] = {name: item.state_dict() for name, item in self.own.items()}
        own["random"] = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            own["random"]["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        save_tensors(self._own_file(step), own)
        if self.fabric.is_global_zero:
            shared = {name: item.state_dict() for name, item in self.shared.items()}
            save_tensors(self._shared_file(step), shared)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            write_json(self.folder / _POINTER, {"step": step, "processes": self.fabric.world_size})
            remove_checkpoints(self.folder, keep=step)
        self.fabric.barrier()

    def _shared_file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}.pt"

    def _own_file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step:08d}-process-{self.fabric.global_rank}.pt"


def remove_checkpoints(folder: Path, keep: int | None = None) -> None:
    """Remove saved states: those of other steps than `keep`, or, without it, all of them."""
    kept = None if keep is None else f"checkpoint-{keep:08d}"
    if kept is None:
        (folder / _POINTER).unlink(missing_ok=True)
    for file in folder.glob("checkpoint-*.pt*"):
        if kept is None or not file.name.startswith(kept):
            file.unlink()


class Curves:
    """Means of named losses between log points, kept for the report and saved on resume.

    Values are summed as tensors where they are, and read only when a log point is due, so that
    a step does not wait for the device.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Scalars of one step, by name."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def close_row(self, step: int, **extra: float) -> dict[str, float]:
        """End the row at `step`; returns it: the mean of every value since the last row."""
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        row = {"step": step, **means, **extra}
        self.rows.append(row)
        self._sums, self._count = {}, 0
        return row

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self._sums, self._count = state["rows"], state["sums"], state["count"]
