"""`bdl score`: any predictions against labels."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from bdl.commands.paths import require_path
from bdl.domains.label_space import LabelSpace, load_label_space
from bdl.runtime.console import Console, log
from bdl.runtime.ownership import require_replaceable


def main(options: Namespace) -> None:
    """Print the IoU of each class, and the means; write them to `--json`."""
    console = Console()
    if options.json:
        require_replaceable(Path(options.json), _are_scores, "scores", "--json")
    from bdl.runtime.files import write_json
    from bdl.segmentation.score import AUTO, OWN, detect_encoding, find_pairs, own_table, score

    pairs = find_pairs(Path(options.predictions), Path(options.labels))
    space = _space_of(options)
    encoding = options.encoding
    if encoding == AUTO:
        encoding = pairs.encoding or detect_encoding([label for _, label in pairs.files], space)
        log.info("labels: taken as %s", "train ids" if encoding == OWN else encoding)
    table = own_table(space) if encoding == OWN else space.table(encoding)
    with console.track("score", len(pairs.files), unit="images") as task:
        scores = score(pairs.files, space, table, task.advance)
    if pairs.left_out:
        log.info("%d predictions have no label and were left out", pairs.left_out)
    log.info("%s", describe_scores(scores))
    if options.json:
        write_json(Path(options.json), scores)


def _are_scores(content: bytes) -> bool:
    """Whether a file's content is what `score` writes."""
    try:
        scores = json.loads(content)
    except ValueError:
        return False
    return isinstance(scores, dict) and {"miou", "iou"} <= scores.keys()


def _space_of(options: Namespace) -> LabelSpace:
    """The label space that is meant: a run's, or one by its name."""
    if options.run is None:
        return load_label_space(options.label_space)
    require_path(options.run, "a run's folder or a segmenter.pt")
    from bdl.segmentation.score import space_of

    return space_of(options.run)


def describe_scores(scores: dict[str, Any]) -> str:
    """IoU by class and the means, in percent; - for what is in neither file."""
    rows = {**scores["iou"], **{key: value for key, value in scores.items() if key != "iou"}}
    return "\n".join(
        f"{name:<16}" + (f"{100 * value:>7.2f}" if value is not None else f"{'-':>7}")
        for name, value in rows.items()
    )
