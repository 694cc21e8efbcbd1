"""`run`: the whole loop."""

import argparse
import shlex
import time
from collections.abc import Sequence

from bdl.commands.running import called
from bdl.execution import Loop
from bdl.reports.records import CONFIGURATION, REPORT, Row
from bdl.reports.results import show_results
from bdl.runtime.config import load_config
from bdl.runtime.console import duration, log, spoken


def main(options: argparse.Namespace) -> None:
    """Make all stages that are not there, and show the results."""
    started = time.monotonic()
    config = load_config(options.config, options.overrides)
    with spoken(options.verbosity) as console:
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


def conclude(loop: Loop, rows: Sequence[Row], started: float) -> None:
    """Show the results, and say what to open."""
    show_results(loop.console, rows)
    took = duration(time.monotonic() - started)
    log.info("done in %s; open %s in a browser", took, loop.store.folder / REPORT)
