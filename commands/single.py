"""`translate`, `export`, `measure`, `segment`, `pseudo-label`, `evaluate`: one stage by itself."""

import argparse
import time

from bdl.commands.run import conclude
from bdl.execution import Loop
from bdl.runtime.config import load_config
from bdl.runtime.console import spoken
from bdl.runtime.errors import UserError
from bdl.runtime.stage import Stage
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


def main(options: argparse.Namespace) -> None:
    """Make one stage, and show the results that the run has then."""
    started = time.monotonic()
    config = load_config(options.config, options.overrides)
    with spoken(options.verbosity) as console:
        loop = Loop.of(config, console, dry=options.dry_run)
        name = _choose(loop, options).name
        rows = loop.run_single(name, options.again, options.replace, options.dry_run)
        if not options.dry_run:
            conclude(loop, rows, started)


def _choose(loop: Loop, options: argparse.Namespace) -> Stage:
    """The stage that the command, --k and --i mean; the last one, where they are not given."""
    kind = _KINDS[options.command]
    stages = [stage for stage in loop.stages if isinstance(stage, kind)]
    k, i = options.k, getattr(options, "i", None)
    if k is None:
        k = max((stage.k for stage in stages), default=loop.config.iterations)
    if i is None:
        i = max((stage.i for stage in stages if stage.k == k), default=0)
    chosen = [stage for stage in stages if (stage.k, stage.i) == (k, i if k else 0)]
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
