"""`bdl compare`: finished runs side by side."""

import re
from argparse import Namespace

from bdl.commands.paths import require_path
from bdl.reports.records import REPORT
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import is_run, require_replaceable

_SIGNATURE = re.compile(rb"<h1>\d+ runs compared</h1>")  # of pages that compare wrote


def main(options: Namespace) -> None:
    """Write the page to `--out`, and print the table."""
    Console()
    if len(options.runs) < 2:
        raise UserError("compare: takes two runs or more; give their folders")
    for folder in options.runs:
        require_path(folder, "the folder of a run")
    if options.out.name == REPORT and is_run(options.out.parent):
        raise UserError(f"--out: {options.out} is a run's own report; give another file")
    require_replaceable(options.out, lambda content: bool(_SIGNATURE.search(content)), "comparison")
    from bdl.reports.comparison import as_text, notes, write_comparison
    from bdl.reports.finished_runs import class_colors, compared_frames, read_runs

    runs = read_runs(options.runs)
    compared = [run.compared for run in runs]
    write_comparison(options.out, compared, class_colors(runs[0]), compared_frames(runs))
    for note in notes(compared):
        log.warning("%s", note)
    log.info("%s\nsee %s", as_text(compared), options.out)
