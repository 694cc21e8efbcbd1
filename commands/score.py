"""`bdl score`: any predictions against labels."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdl.commands.paths import require_path
from bdl.domains.label_space import OWN as SPACES
from bdl.domains.label_space import LabelSpace, described, load_label_space
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.ownership import CONFIGURATION, require_replaceable

if TYPE_CHECKING:
    from bdl.segmentation.score import Pairs

AUTO = "auto"
_SCORED = ("validation", "target_labelled", "source")  # first the roles of images like those scored


@dataclass(frozen=True)
class Counting:
    """The classes that files are scored by, and how label files count them.

    Args:
        space: The classes; without encodings where a network alone tells of them.
        encoding: How label files count; None where that is not said.
        said_by: Who says it, in words.
    """

    space: LabelSpace
    encoding: str | None = None
    said_by: str = ""


def main(options: Namespace) -> None:
    """Print the IoU of each class, and the means; write them to `--json`."""
    console = Console()
    if options.json:
        require_replaceable(Path(options.json), _are_scores, "file of scores", "--json")
    from bdl.runtime.files import write_json
    from bdl.segmentation.score import OWN, find_pairs, own_table, score

    if options.run is not None:
        counting = counting_of(options.run)
    else:
        counting = Counting(load_label_space(options.label_space))
    space = counting.space
    asked = None if options.encoding == AUTO else options.encoding
    if not space.encodings and asked != OWN:
        raise UserError(
            f"--run: {options.run} does not say how label files count its classes; where they "
            f"hold train ids, 0 to {space.num_classes - 1}, give --encoding own, else the label "
            "space's file with --label-space in the place of --run"
        )
    pairs = find_pairs(Path(options.predictions), Path(options.labels), asked or counting.encoding)
    encoding = asked or encoding_of(pairs, counting)
    table = own_table(space) if encoding == OWN else space.table(encoding)
    _require_ids(pairs, space, encoding, console)
    with console.track("score", len(pairs.files), unit="images") as task:
        left_out = space.left_out.get(encoding, ())
        scores = score(pairs.files, space, table, task.advance, left_out)
    if pairs.left_out:
        log.info("%d predictions have no label and were left out", pairs.left_out)
    log.info("%s", describe_scores(scores))
    if options.json:
        write_json(Path(options.json), scores)


def _require_ids(pairs: Pairs, space: LabelSpace, encoding: str, console: Console) -> None:
    """Raises UserError for files whose palettes say that their indices are no ids."""
    from bdl.domains.index import Index
    from bdl.domains.palettes import ambiguous_palettes
    from bdl.segmentation.score import OWN

    index = Index(None, console)
    predictions, labels = zip(*pairs.files, strict=True)
    own = space if encoding in (OWN, "train_id") else None
    line = ambiguous_palettes(predictions, index, "--predictions", space)
    if line is None and encoding not in space.by_color:
        line = ambiguous_palettes(labels, index, "--labels", own)
    if line is not None:
        raise UserError(line)


def counting_of(path: Path) -> Counting:
    """What a run's folder, or a network's file, tells of classes and label files; said in the log.

    A run's configuration names the label space, and how the labels of its validation images, or
    else of others, count. Of a network elsewhere the project's own label space of the same classes
    is taken, if there is one.

    Raises:
        UserError: There is neither a run nor a network, or the label space is not the network's.
    """
    require_path(path, "a run's folder or a segmenter.pt")
    from bdl.domains.datasets import layout_of
    from bdl.runtime.config import load_config
    from bdl.segmentation.choice import kept_networks, no_network, single_network
    from bdl.segmentation.run_view import run_of

    file = single_network(path)
    if file is None:
        file = next(
            (kept.file for kept in reversed(kept_networks(path)) if kept.step is None), None
        )
    run = run_of(file or path)
    network = None if file is None else _space_in(file)
    if run is None:
        if network is None:
            raise no_network(path)
        own = [load_label_space(known.stem) for known in sorted(SPACES.glob("*.yaml"))]
        space = next((one for one in own if one.names == network.names), network)
        log.info("classes: the %d of %s", space.num_classes, file)
        return Counting(space)
    config = load_config(run / CONFIGURATION)
    try:
        space = load_label_space(config.data.label_space)
    except UserError as error:
        raise UserError(
            f"{run / CONFIGURATION}: {error}; call score where the run was made, or give "
            "--label-space and --encoding in the place of --run"
        ) from None
    if network is not None and _are_moved(network.names, space.names):
        raise UserError(
            f"{run / CONFIGURATION}: its label space '{space.name}' has other classes, or another "
            f"order of them, than {file}; give the one that it was trained with with --label-space"
        )
    log.info("classes: the %d of '%s', the label space of %s", space.num_classes, space.name, run)
    role = next(role for role in _SCORED if getattr(config.data, role) is not None)
    encoding = layout_of(getattr(config.data, role), f"data.{role}").encoding
    return Counting(space, encoding, f"as data.{role} of {run} says")


def encoding_of(pairs: Pairs, counting: Counting) -> str:
    """How the labels of pairs count, by what is said of them, their names or their ids; it is said
    in the log.

    Raises:
        UserError: Names say something else, or ids do not tell.
    """
    from bdl.segmentation.score import OWN, detect_encoding

    by_names = pairs.encoding if pairs.encoding in counting.space.encodings else None
    if counting.encoding is not None:
        if by_names not in (None, counting.encoding):
            raise UserError(
                f"--labels: hold {by_names} by their names, and {counting.encoding} "
                f"{counting.said_by}; give --encoding, one of the two"
            )
        encoding, why = counting.encoding, counting.said_by
    elif by_names is not None:
        encoding, why = by_names, "as their names say"
    else:
        labels = [label for _, label in pairs.files]
        encoding, why = detect_encoding(labels, counting.space), "by the ids in them"
    log.info("labels: taken as %s, %s", "train ids" if encoding == OWN else encoding, why)
    return encoding


def _space_in(file: Path) -> LabelSpace:
    """The classes' names and colours in the file of a network."""
    from bdl.runtime.files import load_tensors

    content = load_tensors(file)
    if "label_space" not in content:
        raise UserError(f"{file}: does not say which classes it tells apart; give --label-space")
    return described(content["label_space"])


def _are_moved(trained: tuple[str, ...], present: tuple[str, ...]) -> bool:
    """Whether train ids do not mean the same by both lists of names, some of which may be new."""
    return len(trained) != len(present) or any(
        name in present and present.index(name) != number for number, name in enumerate(trained)
    )


def _are_scores(content: bytes) -> bool:
    """Whether a file's content is what `score` writes."""
    try:
        scores = json.loads(content)
    except ValueError:
        return False
    return isinstance(scores, dict) and {"miou", "iou"} <= scores.keys()


def describe_scores(scores: dict[str, Any]) -> str:
    """IoU by class and the means, in percent; - for what is in neither file."""
    rows = {**scores["iou"], **{key: value for key, value in scores.items() if key != "iou"}}
    return "\n".join(
        f"{name:<16}" + (f"{100 * value:>7.2f}" if value is not None else f"{'-':>7}")
        for name, value in rows.items()
    )
