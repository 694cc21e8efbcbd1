"""`translate`, `export`, `measure`, `segment`, `pseudo-label`, `evaluate`: one stage by itself."""

import argparse
import shlex
import time
from collections.abc import Sequence

from bdl.commands.run import conclude, warn
from bdl.commands.running import called
from bdl.execution import InputsMissing, Loop
from bdl.runtime.config import load_config
from bdl.runtime.console import spoken
from bdl.runtime.errors import UserError
from bdl.runtime.stage import Stage
from bdl.runtime.store import Entry
from bdl.segmentation.stages import Evaluation, PseudoLabels, Segmenter
from bdl.translation.stages import Translated, TranslationMeasures, Translator

_KINDS: dict[str, type[Stage]] = {
    "translate": Translator,
    "export": Translated,
    "measure": TranslationMeasures,
    "segment": Segmenter,
    "pseudo-label": PseudoLabels,
    "evaluate": Evaluation,
}
_BY_STEP = (Segmenter, PseudoLabels, Evaluation)  # kinds that are there for each k and i


def main(options: argparse.Namespace) -> None:
    """Make one stage, and show the results that the run has then."""
    started = time.monotonic()
    notes: list[str] = []
    config = load_config(options.config, options.overrides, notes=notes)
    with spoken(options.verbosity) as console:
        warn(notes)
        loop = Loop.of(config, console, dry=options.dry_run)
        name = _choose(loop, options).name
        try:
            rows = loop.run_single(name, options.again, options.replace, options.dry_run)
        except InputsMissing as error:
            raise UserError(f"{error}; {_first(error.missing, options)}") from None
        if not options.dry_run:
            conclude(loop, rows, started)


def _first(missing: Sequence[Entry], options: argparse.Namespace) -> str:
    """The commands that make what is missing, and the one that makes all."""

    def command(*words: str, replaces: bool = False) -> str:
        config = [] if options.config == "demo" else ["--config", options.config]
        consent = ["--replace"] if replaces else []
        return shlex.join([*called(), *words, *config, *consent, *options.overrides])

    commands = []
    for entry in missing:
        stage = entry.stage
        name = next(name for name, kind in _KINDS.items() if isinstance(stage, kind))
        step = ["--i", str(stage.i)] if stage.k and isinstance(stage, _BY_STEP) else []
        words = [name, "--k", str(stage.k), *step]
        commands.append(command(*words, replaces=bool(entry.loses)))
    return f"run first: {' && '.join(commands)}; or make all: {command('run')}"


def _choose(loop: Loop, options: argparse.Namespace) -> Stage:
    """The stage that the command, --k and --i mean; the last one, where they are not given."""
    kind = _KINDS[options.command]
    stages = [stage for stage in loop.stages if isinstance(stage, kind)]
    k, i = options.k, getattr(options, "i", None)
    if k is None:
        k = max((stage.k for stage in stages), default=loop.config.iterations)
    if i is None:
        i = max((stage.i for stage in stages if stage.k == k), default=0)
    chosen = [stage for stage in stages if (stage.k, stage.i) == (k, i)]
    if not stages and kind is Evaluation:
        raise UserError(
            "evaluate: nothing is measured, as data.validation is null; set data.validation to "
            "labelled images like the target's"
        )
    if not chosen:
        given = {"--k": options.k, "--i": getattr(options, "i", None)}
        words = [f"{word} {value}" for word, value in given.items() if value is not None]
        raise UserError(
            f"{' '.join([options.command, *words])}: no such stage with "
            f"iterations={loop.config.iterations} and "
            f"self_training_steps={loop.config.self_training_steps}; there are "
            f"{', '.join(stage.name for stage in stages) or 'none'}"
        )
    return chosen[0]
