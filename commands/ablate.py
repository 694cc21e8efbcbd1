"""`ablate`: the loop for every variant, K, N and seed, in folders below `out`, and a table."""

import argparse
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bdl.commands.run import warn
from bdl.domains.problem import index_of
from bdl.execution import Loop, describe_plan
from bdl.reports.ablation import WRITTEN, Cell, as_markdown, summarize, write_ablation
from bdl.reports.comparison import ComparedRun, scored_otherwise
from bdl.reports.finished_runs import read_run
from bdl.reports.records import Row
from bdl.runtime.config import load_config, value_at
from bdl.runtime.console import Console, counted, log, spoken
from bdl.runtime.errors import UserError
from bdl.runtime.output import rank_in_environment
from bdl.runtime.ownership import RUN, mark, require_free
from bdl.runtime.store import Entry, require_consent

# A training's result depends on them, though no fingerprint holds them.
_MADE_ON = ("device", "devices", "nodes", "precision", "compile")


def main(options: argparse.Namespace) -> None:
    """Run every cell, and write the table anew after each."""
    config = load_config(options.config, options.overrides)
    folder = Path(config.out)
    notes: list[str] = []
    cells = ablation_cells(options, folder, notes)
    with spoken(options.verbosity) as console:
        warn(notes)
        _run(options, folder, cells, console)


def _run(
    options: argparse.Namespace, folder: Path, cells: Sequence[Cell], console: Console
) -> None:
    require_free(folder, WRITTEN)
    data = cells[0].config.data
    index = index_of(data, folder, console, writing=not options.dry_run)  # files are looked at once
    loops = [Loop.of(cell.config, console, index=index) for cell in cells]
    plans = planned(loops, options.replace)
    if options.dry_run:
        for cell, loop, plan in zip(cells, loops, plans, strict=True):
            console.say(f"\n{describe_cell(cell)}")
            console.say(describe_plan(loop.config, plan))
        entries = list(itertools.chain(*plans))
        to_run = sum(entry.run for entry in entries)
        console.say(f"\n{counted(len(cells), 'run')}: {to_run} of {len(entries)} stages to run")
        return
    for loop, plan in zip(loops, plans, strict=True):
        require_consent(loop.store.folder, plan)
    results: list[tuple[Cell, list[Row]]] = []
    compared: list[ComparedRun] = []
    notes: dict[str, None] = {}  # each once
    with processes(loops):
        for number, (cell, loop) in enumerate(zip(cells, loops, strict=True), start=1):
            log.info("\nrun %d of %d: %s", number, len(cells), describe_cell(cell))
            others = shared_with(loop, loops)
            results.append((cell, loop.run(replaced=options.replace, others=others)))
            if rank_in_environment() == 0:
                mark(folder, RUN)
                compared.append(read_run(loop.store.folder, cell.variant).compared)
                notes |= dict.fromkeys(scored_otherwise(compared[-1], compared[0]))
                write_ablation(folder, results, len(cells), list(notes))
    console.say(f"\n{as_markdown(summarize(results, folder), list(notes))}")
    log.info("see %s", folder / "ablation.html")


@contextmanager
def processes(loops: Sequence[Loop]) -> Iterator[None]:
    """Inside, the processes of all runs are there, if they have several.

    Raises:
        UserError: The runs differ in their numbers of processes.
    """
    numbers = {(loop.config.devices, loop.config.nodes) for loop in loops}
    if len(numbers) > 1:
        raise UserError(
            "--row: sets devices or nodes, which all runs of one ablation share; set them for the "
            "whole command, or give that row a command of its own"
        )
    if numbers == {(1, 1)}:
        yield
        return
    from bdl.runtime.device import make_fabric
    from bdl.runtime.processes import launched

    with launched(make_fabric(loops[0].config)):
        for loop in loops:
            loop.launched = True
        yield


def describe_cell(cell: Cell) -> str:
    return (
        f"{cell.variant}, K = {cell.iterations}, N = {cell.self_training_steps}, seed {cell.seed}"
    )


def shared_with(loop: Loop, loops: Sequence[Loop]) -> list[Path]:
    """The folders of other runs that equal stages may be taken from: those made on the same."""

    def made_on(other: Loop) -> list[object]:
        return [value_at(other.config, key) for key in _MADE_ON]

    return [
        other.store.folder
        for other in loops
        if other is not loop and made_on(other) == made_on(loop)
    ]


def planned(loops: Sequence[Loop], replaced: bool) -> list[list[Entry]]:
    """What each run will do after those before it, from which it takes equal stages."""
    made: dict[tuple[str, str], Path] = {}
    plans = []
    for loop in loops:
        others = shared_with(loop, loops)
        plan = []
        for entry in loop.store.plan(loop.stages, replaced=replaced, others=others):
            folders = [made.get((entry.stage.fingerprint, str(other))) for other in others]
            holder = next((folder for folder in folders if folder is not None), None)
            if entry.run and holder is not None and not loop.store.has_begun(entry.stage):
                entry = Entry(
                    entry.stage,
                    False,
                    f"of {holder}",
                    source=holder / entry.stage.name,
                    loses=entry.loses,
                    consented=entry.consented,
                )
            plan.append(entry)
            made[entry.stage.fingerprint, str(loop.store.folder)] = loop.store.folder
        plans.append(plan)
    return plans


def ablation_cells(options: argparse.Namespace, folder: Path, notes: list[str]) -> list[Cell]:
    """Every variant with every K, N and seed; a row that sets one of these has that one alone.

    `notes` get a line for settings that nothing reads in any run of a variant.
    """
    variants: dict[str, list[str]] = {"as configured": []}
    folders = {"as-configured"}
    for row in options.row:
        name, settings = parse_row(row)
        if folder_name(name).casefold() in folders:
            raise UserError(  # file systems may not tell upper case from lower
                f"--row: '{name}' is there already, or its folder '{folder_name(name)}' is; give "
                "each row a name of its own"
            )
        variants[name] = settings
        folders.add(folder_name(name).casefold())
    cells = []
    for variant, settings in variants.items():
        config = load_config(options.config, [*options.overrides, *settings])
        own = {setting.partition("=")[0] for setting in settings}
        if "out" in own:
            raise UserError(
                f"--row: '{variant}' sets out, but each run has a folder of its own below that of "
                "the whole command; give out=... to that"
            )
        lists = {
            "iterations": options.iterations,
            "self_training_steps": options.self_training_steps,
            "seed": options.seeds,
        }
        values = [
            listed if listed and key not in own else [value_at(config, key)]
            for key, listed in lists.items()
        ]
        told: list[list[str]] = []
        for k, n, seed in itertools.product(*map(dict.fromkeys, values)):
            if k == 0 and n != values[1][0]:
                continue  # source only, whatever N
            out = folder / folder_name(variant) / f"K{k}-N{n}" / f"seed-{seed}"
            cell = [f"iterations={k}", f"self_training_steps={n}", f"seed={seed}", f"out={out}"]
            overrides = [*options.overrides, *settings, *cell]
            told.append([])
            own_config = load_config(options.config, overrides, notes=told[-1])
            cells.append(Cell(variant, k, n, seed, own_config))
        everywhere = [line for line in told[0] if all(line in lines for lines in told)]
        notes += [line for line in everywhere if line not in notes]
    return cells


def folder_name(variant: str) -> str:
    """The folder of a variant's runs."""
    return variant.replace(" ", "-")


def parse_row(text: str) -> tuple[str, list[str]]:
    """A row of an ablation, "NAME: key=value key=value", as its name and overrides."""
    name, colon, overrides = text.partition(":")
    if not colon or not re.fullmatch(r"[\w. -]+", name) or not name.strip(" .-"):
        raise UserError(f"--row: '{text}' is not of the form \"NAME: key=value key=value\"")
    return name.strip(), overrides.split()
