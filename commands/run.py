"""`run`: the whole loop."""

import argparse
import time
from collections.abc import Sequence

from bdl.execution import Loop
from bdl.reports.records import REPORT, Row
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


def conclude(loop: Loop, rows: Sequence[Row], started: float) -> None:
    """Show the results, and say where there is more."""
    show_results(loop.console, rows)
    took = duration(time.monotonic() - started)
    log.info("done in %s; see %s", took, loop.store.folder / REPORT)
