"""Peak memory of a piece of work, as far as the system tells it."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows, where nothing in the standard library tells it
    resource = None  # type: ignore[assignment]


class PeakMemory:
    """The most memory in use since this object was made.

    Of the main memory, that is the process's own resident memory, without the processes that load
    images. Only Linux can forget an earlier peak; elsewhere it is that of the process so far.
    """

    def __init__(self) -> None:
        with suppress(OSError):  # not Linux, or a container that forbids it
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def read(self) -> dict[str, int]:
        """Bytes: "peak_memory", and "peak_gpu_memory" where there is a GPU; empty on Windows
        without one."""
        peaks = {}
        resident = _peak_of_linux()
        if resident is not None:
            peaks["peak_memory"] = resident
        elif resource is not None:
            unit = 1 if sys.platform == "darwin" else 1024
            peaks["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if torch.cuda.is_available():
            peaks["peak_gpu_memory"] = torch.cuda.max_memory_allocated()
        return peaks


def _peak_of_linux() -> int | None:
    """Bytes, by /proc: getrusage also counts what a parent held when it started this process."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def total_memory(device: torch.device) -> int | None:
    """Bytes of a device's memory, of the machine's for the CPU; None where nothing tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such call, others not the names
        return None
