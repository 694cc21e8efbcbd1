"""Device, precision and processes, through Lightning Fabric; and the seeds of every draw."""

import logging
import os
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from bdl.runtime.config import Config
from bdl.runtime.errors import UserError, first_line

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Network = TypeVar("Network", bound=nn.Module)


def make_fabric(config: Config) -> Fabric:
    """The Fabric that `config` asks for; the caller launches it.

    Raises UserError if the device is not there or cannot compute in the precision.
    """
    available = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[config.device]:
        raise UserError(
            f"device: '{config.device}' is not available on this machine; use device=auto"
        )
    require_launcher(config)
    # The precision is in the plan and in every manifest; Fabric need not say it once more.
    for package in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # Fabric warns that more loader workers would help; how many there are is a setting here.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    try:
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices,
            precision=resolve_precision(config),
            num_nodes=config.nodes,
            strategy="ddp" if config.devices * config.nodes > 1 else "auto",
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"device={config.device} devices={config.devices} precision={config.precision}: "
            f"{first_line(error)}"
        ) from None
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    return fabric


def require_launcher(config: Config) -> None:
    """Raises UserError if the processes of the run cannot be started: torchrun has started other
    numbers of them than `devices` and `nodes` say (Slurm's are checked by Fabric), nobody has
    started those of several machines, or there is no script to start others with.
    """
    each, total = (int(os.environ.get(name, 0)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if each and (each, total) != (config.devices, config.devices * config.nodes):
        raise UserError(
            f"devices: torchrun has started {total} process(es), {each} on this machine; "
            f"set devices={each} nodes={total // each}"
        )
    if config.nodes > 1 and not each and "SLURM_PROCID" not in os.environ:
        raise UserError(
            f"nodes: is {config.nodes}, but nobody has started the processes of all machines; "
            "begin the command with torchrun or srun, see docs/multi_gpu.md"
        )
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None) or ""  # of standard input it is no file's name
    is_script = os.path.isfile(file) or getattr(main, "__spec__", None) is not None
    if config.devices > 1 and not each and "SLURM_PROCID" not in os.environ and not is_script:
        raise UserError(
            f"devices: is {config.devices}, but this Python runs no script that the other "
            "processes could run, too; put the calls into a file, or use the command line"
        )


def resolve_precision(config: Config) -> Precision:
    """`precision`, with "auto" resolved to bf16 where the hardware computes in it, the CPU by
    oneDNN, which some builds of torch lack; on Apple's GPU to 32 bits."""
    on_gpu = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if config.precision == "16-mixed" and not on_gpu:
        raise UserError("precision: 16-mixed needs a GPU; use bf16-mixed or 32-true")
    if config.precision != "auto":
        return cast(Precision, config.precision)
    if on_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    on_mps = config.device == "mps" or (
        config.device == "auto" and torch.backends.mps.is_available()
    )
    if on_mps or not torch.backends.mkldnn.is_available():
        return "32-true"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"


def channels_last(network: Network) -> Network:
    """The network with its convolutions in the memory layout that is fast on CPU and GPU."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether Adam and SGD can update all weights in one pass over memory there (`fused=True`)."""
    return device.type in ("cpu", "cuda", "mps")


def random_for(seed: int, purpose: str, number: int = 0) -> np.random.Generator:
    """A random generator that depends on nothing but its arguments.

    Draws made this way need no state to be saved: what step 700 draws is the same whether or
    not the process was started anew at step 600.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), number])


def seed_torch(seed: int, purpose: str) -> None:
    """Start torch's own random state for the initialisation of networks and for dropout."""
    torch.manual_seed(int(random_for(seed, purpose).integers(2**62)))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """torch's random states. What is drawn without them depends on the seed and step alone, or
    comes from a generator whose owner saves its state, such as a translator's pool of fakes."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(device: torch.device, states: dict[str, Tensor]) -> None:
    """Put torch's random states back to what `random_state` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextmanager
def draws_apart(device: torch.device) -> Iterator[None]:
    """Inside, torch's random draws are nobody else's: its states are afterwards as before."""
    states = random_state(device)
    try:
        yield
    finally:
        set_random_state(device, states)


def sum_on_device(fabric: Fabric, values: Tensor) -> Tensor:
    """`values`, on the run's device, summed over all processes, without waiting for the device."""
    if fabric.world_size == 1:
        return values
    summed = values.detach().clone()
    torch.distributed.all_reduce(summed)
    return summed


def sum_over_processes(fabric: Fabric, counts: Tensor) -> Tensor:
    """`counts` (any shape, on any device) summed over all processes, on the CPU."""
    if fabric.world_size == 1:
        return counts.cpu()
    summed = fabric.all_reduce(counts.to(fabric.device), reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed.cpu()
