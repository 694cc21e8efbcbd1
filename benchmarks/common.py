"""What the benchmarks share: ways that take turns, medians, peak memory, a table and JSON.

A benchmark compares ways to do the same work. A way is a function that prepares what the work needs
(networks, inputs: not measured) and returns the work: a function of no arguments that does it once
and returns named numbers, by which one can tell that the ways do the same.
"""

import argparse
import gc
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

from bdl.runtime.config import Config
from bdl.runtime.device import resolve_precision
from bdl.runtime.errors import UserError
from bdl.runtime.files import write_json
from bdl.runtime.memory import PeakMemory
from bdl.runtime.replay import Replay

Numbers = Mapping[str, Tensor | float]
Work = Callable[[], Numbers]
Result = TypeVar("Result")
Way = Callable[[argparse.Namespace], Work]

PUBLISHED = "published"  # the way that the others are compared with
MB = 2**20
PLACES = ("json", "out")  # options that name where files go


@dataclass
class Measured:
    """Seconds of every turn, those that the process computed in each (of all its threads); the
    numbers of the first time that the work was done, and its seconds, in which a GPU's libraries
    search for their fastest algorithms and networks are compiled."""

    seconds: list[float]
    cpu_seconds: list[float]
    numbers: dict[str, float]
    first: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu_seconds)


@dataclass
class Memory:
    """Bytes above those of the process before it prepared: when prepared, and at the most after."""

    prepared: int
    peak: int


def make_parser(description: str, *, turns: int) -> argparse.ArgumentParser:
    """The options that every benchmark has; `turns` is how often each way is measured."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--turns", type=int, default=turns, help=f"of each way (default {turns})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    return parser


def exit_status(main: Callable[[], int | None]) -> int:
    """Do all that a benchmark does. Returns its exit status: 2, after one line that says why, for
    what the user can repair."""
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def compare(name: str, ways: Mapping[str, Way], options: argparse.Namespace) -> dict[str, Any]:
    """Measure the `ways`, the first of which is the published one, and tell the results.

    Prints a table and writes it to the file `options.json`, if given. The keys of the result are
    those of `describe`, "ways" (for each "seconds", the median; "turns", all of them;
    "first_seconds", of the first time; "ratio", the published time divided by its own;
    "cpu_seconds" and "cpu_ratio", the same of computing time, which other processes on the machine
    change less; "memory_prepared" and "memory_peak" in bytes; "numbers"), and "ratio" and
    "cpu_ratio", those of the last way.
    """
    measured = in_turns({way: ways[way](options) for way in ways}, options.turns, options.device)
    memory = {way: memory_of(ways[way], options) for way in ways}
    published = measured[PUBLISHED]
    result = describe(name, options)
    result["ways"] = {
        way: {
            "seconds": timing.median,
            "turns": timing.seconds,
            "first_seconds": timing.first,
            "ratio": published.median / timing.median,
            "cpu_seconds": timing.cpu_median,
            "cpu_ratio": published.cpu_median / timing.cpu_median,
            "memory_prepared": memory[way].prepared,
            "memory_peak": memory[way].peak,
            "numbers": timing.numbers,
        }
        for way, timing in measured.items()
    }
    for key in ("ratio", "cpu_ratio"):
        result[key] = result["ways"][list(ways)[-1]][key]
    rows = [
        [
            way,
            f"{timing['seconds']:.4g}",
            f"{min(timing['turns']):.4g} to {max(timing['turns']):.4g}",
            f"{timing['ratio']:.2f}",
            f"{timing['cpu_seconds']:.4g}",
            f"{timing['cpu_ratio']:.2f}",
            f"{timing['memory_peak'] / MB:.0f}",
        ]
        for way, timing in result["ways"].items()
    ]
    head = [name, "s (median)", "s (range)", "ratio", "computing s", "its ratio", "peak MB"]
    print(table(head, rows), flush=True)
    tell(result, options.json)
    return result


def in_turns(
    works: Mapping[str, Work], turns: int, device: str, *, warm_up: int = 1
) -> dict[str, Measured]:
    """Do each work `warm_up` times, then `turns` times, one after the other and back again.

    What else the machine does meanwhile then slows all of them alike.
    """
    measured = {way: Measured([], [], {}) for way in works}
    for turn in range(warm_up + turns):
        order = list(works) if turn % 2 == 0 else list(reversed(works))
        for way in order:
            synchronize(device)
            begin, begin_cpu = time.perf_counter(), time.process_time()
            numbers = works[way]()
            synchronize(device)
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
            if turn == 0:
                measured[way].first = seconds
                measured[way].numbers = {
                    key: value.item() if isinstance(value, Tensor) else value
                    for key, value in numbers.items()
                }
                print(f"{way}: {seconds:.4g} s the first time", flush=True)
            if turn >= warm_up:
                measured[way].seconds.append(seconds)
                measured[way].cpu_seconds.append(cpu_seconds)
    return measured


def memory_of(way: Way, options: argparse.Namespace, times: int = 2) -> Memory:
    """What a way needs that is alone: it prepares and does its work `times` times.

    Of a GPU the memory allocated, in this process, whose libraries need not search for their
    algorithms again. Else the resident memory of a new process.
    """
    if options.device == "cuda":
        gc.collect()
        return _memory(way, options, times, torch.get_num_threads())
    return in_new_process(_memory, way, options, times, torch.get_num_threads())


def in_new_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What the function returns, called in a process that has done nothing before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def profiled_on_gpu(work: Work, times: int) -> EventList:
    """Torch's profile of doing the work `times` times on a GPU, an entry for each operation."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(times):
            work()
        torch.cuda.synchronize()
    return profiler.key_averages()


def device_seconds(work: Work, times: int = 3) -> float:
    """For how long a GPU computes when the work is done once; 0 without one."""
    if not torch.cuda.is_available():
        return 0.0
    microseconds = sum(
        event.self_device_time_total
        for event in profiled_on_gpu(work, times)
        if event.device_type.name == "CUDA"
    )
    return microseconds / times / 1e6


def until_replayed(step: Work, replay: Replay) -> Work:
    """The work of a step. The first time it is done until it is replayed, or never will be: that
    belongs to the first time, as searching and compiling do."""

    def work() -> Numbers:
        numbers = step()
        while replay.records and not replay.replayed:
            step()
        return numbers

    return work


def _memory(way: Way, options: argparse.Namespace, times: int, threads: int) -> Memory:
    torch.set_num_threads(threads)
    before = _in_use(options.device)
    work = way(options)
    prepared = _in_use(options.device)
    watch = PeakMemory()
    for _ in range(times):
        work()
    key = "peak_gpu_memory" if options.device == "cuda" else "peak_memory"
    return Memory(prepared - before, watch.read().get(key, 0) - before)


def _in_use(device: str) -> int:
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return PeakMemory().read().get("peak_memory", 0)  # a peak forgotten just now is the present


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def describe(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a result has to say of where it is from: "benchmark", "date" (UTC), "command" and
    "settings" (both without the places of files), "machine" (its "auto" is what `precision=auto`
    is there), "versions"."""
    on_gpu = options.device == "cuda"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "benchmark": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(
            ["python", "-m", f"benchmarks.{name}", *without_places(sys.argv[1:])]
        ),
        "settings": {key: value for key, value in vars(options).items() if key not in PLACES},
        "machine": {
            "device": torch.cuda.get_device_name() if on_gpu else processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": load,  # processes that ran or waited in the minute before the end
            "auto": resolve_precision(Config(device=options.device, precision="auto")),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def without_places(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command without the options that name where its files go."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        option, given, _ = word.partition("=")
        if option.removeprefix("--") not in PLACES:
            kept.append(word)
        elif not given:
            next(words, None)
    return kept


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tell(result: Mapping[str, Any], file: Path | None) -> None:
    """Print the machine and the ratio, and write the result as JSON, if a file is given."""
    machine = result["machine"]
    print(f"{machine['device']}, {machine['threads']} threads; ratio {result['ratio']:.2f}")
    if file is not None:
        write_json(file, result)
