"""What the page that lives costs a training: its share of the time; and the networks are the same.

    python -m benchmarks.live_page [--config demo] [--json FILE] [key=value ...]

Runs the first round of a configuration twice, in temporary folders: once as `bdl run` does, and
once without a page. Of each training of the first run it says how often the page was written, and
which share of the training's time that took with all that belongs to it, samples and their pictures
in TensorBoard included: of the time on the clock, and of the time in which the process computed,
which other programs change less. What is written between two stages is counted apart. The exit
status is 1 if a network of the two runs differs in any bit, or if a page took more than 1 % of a
training. Pages come at most every half minute, so that a training of less shows little or nothing.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bdl import pipeline
from bdl.reports.results import Results
from bdl.runtime import training
from bdl.runtime.config import load_config
from bdl.runtime.files import write_json
from bdl.segmentation import train as segmentation
from bdl.translation import train as translation
from benchmarks.common import exit_status

HIGHEST = 0.01  # share of a training's time


@dataclass
class Spent:
    """Seconds on the clock, seconds in which the process computed, and how often."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    times: int = 0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """What is done inside counts."""
        before = time.monotonic(), time.process_time()
        yield
        self.seconds += time.monotonic() - before[0]
        self.cpu_seconds += time.process_time() - before[1]
        self.times += 1


@dataclass
class Trained:
    """A training of a stage: all of it, and what its page took of it."""

    whole: Spent
    page: Spent

    def as_json(self) -> dict[str, float]:
        """The numbers, with the shares."""
        whole, page = self.whole, self.page
        return {
            "seconds": whole.seconds,
            "cpu_seconds": whole.cpu_seconds,
            "pages": page.times,
            "page_seconds": page.seconds,
            "page_cpu_seconds": page.cpu_seconds,
            "share": page.seconds / whole.seconds,
            "cpu_share": page.cpu_seconds / whole.cpu_seconds,
        }


class Watch:
    """Takes the time of trainings, of the pages in them, and of the pages between them."""

    def __init__(self) -> None:
        self.trainings: dict[str, Trained] = {}
        self.between = Spent()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, all trainings of this process are watched."""
        show, fit, follow = training.TrainingMonitor._show, training.fit, Results.follow

        def watched_show(monitor: Any, done: int) -> None:
            spent, page = self.trainings[monitor.run.title].page, monitor._page
            sampled = monitor._pace._spent
            looked = Spent()
            with looked.spending():
                show(monitor, done)
            spent.seconds += looked.seconds
            spent.cpu_seconds += looked.cpu_seconds
            spent.times += page is not None and monitor._pace._spent > sampled

        def watched_fit(run: Any, *arguments: Any) -> Any:
            trained = self.trainings.setdefault(run.title, Trained(Spent(), Spent()))
            with trained.whole.spending():
                return fit(run, *arguments)

        def watched_follow(results: Any, *arguments: Any) -> Any:
            with self.between.spending():
                return follow(results, *arguments)

        with (
            patch.object(training.TrainingMonitor, "_show", watched_show),
            patch.object(segmentation, "fit", watched_fit),
            patch.object(translation, "fit", watched_fit),
            patch.object(Results, "follow", watched_follow),
        ):
            yield


def networks_in(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every network of a run."""
    return {
        f"{file.parent.relative_to(folder).as_posix()}: {name}": value
        for file in sorted(folder.rglob("*.pt"))
        for name, value in torch.load(file, weights_only=True)["state"].items()
    }


def measure(configuration: str, overrides: list[str]) -> dict[str, Any]:
    """Run it twice; see the module's docstring."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as temporary:
        lively, plain = Path(temporary) / "lively", Path(temporary) / "plain"
        settings = [*overrides, "iterations=1"]
        with watch.watching():
            pipeline.run_loop(load_config(configuration, [*settings, f"out={lively}"]))
        with patch.object(Results, "follow", lambda *arguments: None):
            pipeline.run_loop(load_config(configuration, [*settings, f"out={plain}"]))
        one, other = networks_in(lively), networks_in(plain)
        same = one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
        kilobytes = (lively / "report.html").stat().st_size / 1000
    return {
        "trainings": {name: trained.as_json() for name, trained in watch.trainings.items()},
        "between": vars(watch.between),
        "same_networks": same,
        "tensors": len(one),
        "last_page_kilobytes": kilobytes,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="demo")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    result = measure(options.config, options.overrides)
    print(f"\n{'training':<20}{'s':>9}{'pages':>7}{'s in them':>11}{'share':>9}{'of CPU':>9}")
    for name, row in result["trainings"].items():
        print(
            f"{name:<20}{row['seconds']:>9.1f}{row['pages']:>7}{row['page_seconds']:>11.3f}"
            f"{100 * row['share']:>8.2f}%{100 * row['cpu_share']:>8.2f}%"
        )
    between = result["between"]
    print(
        f"between stages {between['times']} pages in {between['seconds']:.2f} s "
        f"({between['cpu_seconds']:.2f} s of computing); the last has "
        f"{result['last_page_kilobytes']:.0f} KB"
    )
    same = "the same bit for bit" if result["same_networks"] else "NOT the same"
    print(f"networks with and without a page: {result['tensors']} tensors, {same}")
    if options.json is not None:
        write_json(options.json, result)
    cheap = all(row["cpu_share"] <= HIGHEST for row in result["trainings"].values())
    sys.exit(0 if cheap and result["same_networks"] else 1)


if __name__ == "__main__":
    sys.exit(exit_status(main))
