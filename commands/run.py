"""`run`: the whole loop."""

import argparse
import shlex
import time
from collections.abc import Iterable, Sequence

from bdl.commands.running import called
from bdl.execution import Loop
from bdl.reports.records import REPORT, Row
from bdl.reports.results import show_results
from bdl.runtime.config import load_config
from bdl.runtime.console import counted, duration, log, spoken
from bdl.runtime.ownership import CONFIGURATION


def main(options: argparse.Namespace) -> None:
    """Make all stages that are not there, and show the results."""
    started = time.monotonic()
    notes: list[str] = []
    config = load_config(options.config, options.overrides, notes=notes)
    with spoken(options.verbosity) as console:
        warn(notes)
        loop = Loop.of(config, console, dry=options.dry_run)
        rows = loop.run(options.from_stage, options.replace, dry=options.dry_run)
        if not options.dry_run:
            conclude(loop, rows, started)
            if rows:
                log.info("next:%s", describe_next(loop))


def describe_next(loop: Loop) -> str:
    """What to try after a run, a line each: what for, and the command."""
    folder, program = str(loop.store.folder), called()
    photos, tries = "PHOTOS", []
    if loop.data.is_rendered("source"):  # as in the demo: the user's own come next
        photos, other = f"{folder}/data/validation/images", f"{folder}-2"
        change = [f"out={other}", "segmentation.originals=false"]
        tries = [
            ("change one thing", ["run", "--config", f"{folder}/{CONFIGURATION}", *change]),
            ("compare both", ["compare", folder, other, "--out", "comparison.html"]),
            ("your own folders", ["init-config"]),
        ]
    predict = ["predict", "--checkpoint", folder, "--images", photos, "--out", "predicted"]
    tries.insert(0, ("label photos", predict))
    return "".join(f"\n  {title + ':':<18}{shlex.join([*program, *w])}" for title, w in tries)


def warn(lines: Iterable[str]) -> None:
    """Say what may not be meant, though it can be done."""
    for line in lines:
        log.warning("warning: %s", line)


def conclude(loop: Loop, rows: Sequence[Row], started: float) -> None:
    """Show the results, and say how long it took, all stages of the run likewise, and what to
    open."""
    show_results(loop.console, rows)
    took = duration(time.monotonic() - started)
    made = [record for record in loop.results.records() if record.manifest is not None]
    stages, all_of_it = counted(len(made), "stage"), duration(sum(r.seconds for r in made))
    page = loop.store.folder / REPORT
    log.info("done in %s (the run's %s: %s); open %s in a browser", took, stages, all_of_it, page)
