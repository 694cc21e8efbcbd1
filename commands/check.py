"""`check`: everything that can be found without training, all of it; then the plan."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bdl.commands.run import warn
from bdl.domains.problem import Problem
from bdl.execution import Loop, describe_plan, find_problems, require_own_folder
from bdl.pipeline import algorithm
from bdl.runtime.config import Config, load_config
from bdl.runtime.config_checks import trainings_of
from bdl.runtime.console import Console, log, spoken
from bdl.runtime.errors import UserError
from bdl.runtime.lock import require_writable
from bdl.runtime.stage import Stage

Answer = TypeVar("Answer")


def main(options: argparse.Namespace) -> None:
    """List what is wrong with configuration and data; without problems, say what a run would do.

    Raises:
        UserError: There are problems; they are printed.
    """
    if options.hours is not None and not options.fit:
        raise UserError("--hours: goes with --fit, which plans steps that take so long")
    problems: list[str] = []
    notes: list[str] = []
    config = load_config(options.config, options.overrides, problems, notes)
    with spoken(options.verbosity) as console:
        warn(notes)
        _check(options, config, problems, console)


def _check(
    options: argparse.Namespace, config: Config, problems: list[str], console: Console
) -> None:
    def attempt(action: Callable[[], Answer]) -> Answer | None:
        """What `action` returns; None if it cannot, for a reason that is a problem."""
        try:
            return action()
        except UserError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return None

    sound = not problems
    attempt(lambda: require_writable(Path(config.out)))
    attempt(lambda: require_own_folder(config))
    if config.data.cache is not None:
        cache = Path(config.data.cache).expanduser()
        attempt(lambda: require_writable(cache, "data.cache"))
    data = attempt(lambda: Problem(config.data, Path(config.out), console))
    if data is not None:
        stages: list[Stage] = []
        if sound:
            with suppress(UserError):  # which is found below, or said once there is nothing else
                stages = algorithm(config, data)
        trains = bool(trainings_of(config))
        problems += find_problems(config, data, console, stages, trains, options.pixels, sound)
    if sound:  # what loads torch is for settings that can be used
        attempt(lambda: _require_device(config))
    if data is not None and not problems:
        stages = stages or attempt(lambda: algorithm(config, data)) or []
        loop = Loop(config, data, stages, console)
        plan = attempt(lambda: loop.store.plan(loop.stages))
    for line in problems:
        log.warning("problem: %s", line)
    if problems:
        raise UserError(f"{len(problems)} problem(s), listed above; nothing was run")
    assert plan is not None
    log.info("%s", describe_plan(config, plan))
    work = Counter({entry.stage.unit: 0 for entry in plan})
    for entry in plan:
        work[entry.stage.unit] += entry.stage.work * entry.run
    amounts = ", ".join(f"{amount} {unit}" for unit, amount in work.items())
    log.info("no problem found; to do: %s", amounts)
    to_run = [entry.stage for entry in plan if entry.run and entry.stage.kind != "given"]
    if options.fit:
        from bdl.commands.fit import fit

        assert data is not None
        fit(config, data, to_run, options.hours, options.overrides)
    elif options.measure:
        from bdl.commands.trial import measure_stages

        measure_stages(config, to_run)


def _require_device(config: Config) -> None:
    """Raises UserError if the run cannot compute as it is to."""
    from bdl.runtime.compiling import require_compiler
    from bdl.runtime.device import make_fabric

    fabric = make_fabric(config)
    if config.compile == "true":
        require_compiler(fabric.device)
