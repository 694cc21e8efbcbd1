"""Bidirectional learning, end to end: Algorithm 1 as a list of stages, and who runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdl.domains.problem import Problem
    from bdl.runtime.config import Config
    from bdl.runtime.stage import Stage


def algorithm(config: Config, data: Problem) -> list[Stage]:
    """Algorithm 1 of Li et al. 2019: the stages of a run, in order.

    M is the latest segmentation network, F the translator from source to target images, S the
    translated source images and Y the pseudo labels of the target images. Each stage is given what
    it is made of; nothing is trained here.

    Args:
        config: The configuration: K = config.iterations, N = config.self_training_steps.
        data: Labelled source images and unlabelled target images.
    """
    from bdl.plan import Plan

    plan = Plan(config, data)
    M, F = plan.segmenter(0, 0, data.source), None
    for k in range(1, config.iterations + 1):
        F = plan.translator(k, frozen=M, previous=F)
        S = plan.translated(k, F, frozen=M)
        M = plan.segmenter(k, 0, S, data.target, start=M)
        for i in range(1, config.self_training_steps + 1):
            Y = plan.pseudo_labels(k, i, M)
            M = plan.segmenter(k, i, S, Y, start=M)
    return plan.stages


def run_loop(
    config: Config, from_stage: str | None = None, verbosity: int = 0, replace: bool = False
) -> list[dict[str, Any]]:
    """Run the whole loop.

        run_loop(load_config("demo", ["seed=1", "out=runs/seed-1"]))

    What is finished in `config.out` for the same settings is reused. With several devices the
    calling script is run once for each.

    Args:
        config: The configuration, of `load_config`.
        from_stage: Name of a stage to make again, with all that depends on it.
        verbosity: -1 (quiet) to 1.
        replace: Whether results of other settings in `config.out` may be replaced.

    Returns:
        The rows of results.json, one for each network that was evaluated.

    Raises:
        UserError: Something that the user can repair.
    """
    from bdl.execution import Loop
    from bdl.runtime.console import spoken

    with spoken(verbosity) as console:
        rows = Loop.of(config, console).run(from_stage, replace)
    return [row.as_json() for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 2 for an error of the user's, 130 and 143
    after SIGINT and SIGTERM."""
    from bdl.commands.running import run_command

    return run_command(sys.argv[1:] if arguments is None else list(arguments))


if __name__ == "__main__":
    from bdl import pipeline  # by its own name, as everything else knows it

    sys.exit(pipeline.main())
