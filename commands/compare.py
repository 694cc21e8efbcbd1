"""`bdl compare`: finished runs side by side."""

from argparse import Namespace

from bdl.commands.paths import require_path
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import require_replaceable

_TITLE = b"bidirectional learning</title>"  # of pages of ours


def main(options: Namespace) -> None:
    """Write the page to `--out`, and print the table."""
    Console()
    if len(options.runs) < 2:
        raise UserError("compare: takes two runs or more; give their folders")
    for folder in options.runs:
        require_path(folder, "the folder of a run")
    require_replaceable(options.out, lambda content: _TITLE in content, "comparison")
    from bdl.reports.comparison import as_text, notes, write_comparison
    from bdl.reports.finished_runs import class_colors, compared_frames, read_runs

    runs = read_runs(options.runs)
    compared = [run.compared for run in runs]
    write_comparison(options.out, compared, class_colors(runs[0]), compared_frames(runs))
    for note in notes(compared):
        log.warning("%s", note)
    log.info("%s\nsee %s", as_text(compared), options.out)
