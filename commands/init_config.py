"""`bdl init-config`: look at the user's folders and write a configuration for them."""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from bdl.commands.parser import FOLDERS, read_count
from bdl.commands.running import called
from bdl.domains.draft import (
    Amounts,
    choose_encoding,
    derive_amounts,
    draft_config,
    draft_label_space,
    fitting_spaces,
    space_for,
)
from bdl.domains.guard import Held, judge
from bdl.domains.index import Index
from bdl.domains.label_space import load_label_space
from bdl.domains.overlap import about_shared, shared_files
from bdl.domains.rules import LARGE, SMALL, Scale
from bdl.domains.survey import Survey, survey
from bdl.runtime.config import load_config
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError
from bdl.runtime.files import write_text
from bdl.runtime.stopping import stop_request

Answer = TypeVar("Answer")
_PRETRAINED = "tf_efficientnet_lite0"  # a backbone whose weights come as a package


def main(options: Namespace) -> None:
    """Write `--out`, and beside it a label space where the project has none for the ids."""
    console = Console()
    file: Path = options.out
    classes = file.with_name(f"{file.stem}_classes.yaml")
    for taken in (file, classes):
        if taken.exists():
            raise UserError(f"{taken}: is there already; move it, or give another --out")
    if file.suffix != ".yaml":
        raise UserError(f"--out: {file} must end with .yaml")
    if options.label_space:
        load_label_space(options.label_space)  # a mistake in it is said before anything is asked
    surveys = survey_folders(options, Index(None, console))
    label_space = options.label_space or space_for(surveys) or ask_label_space(surveys)
    scale = LARGE if options.machine == "gpu" else SMALL
    amounts = choose_amounts(options, surveys, scale)
    from bdl.segmentation.packaged_weights import packaged_weights

    network = f"timm:{_PRETRAINED}" if packaged_weights(_PRETRAINED) else "compact"
    try:
        if label_space is None:
            label_space = classes.as_posix()
            write_text(classes, draft_label_space(surveys))
            kind = "colours" if surveys["source"].by_color else "ids"
            log.info("%s: a class for each of the %s in the labels; give them names", classes, kind)
        space = load_label_space(label_space)
        encodings = {
            role: choose_encoding(space, surveyed)
            for role, surveyed in surveys.items()
            if role != "target"
        }
        for role, encoding in encodings.items():
            _tell(role, Held(surveys[role].amounts, space, encoding))
        text = draft_config(file, surveys, amounts, label_space, encodings, scale, network)
        write_text(file, text)
        load_config(file)
    except UserError:
        for made in (classes, file):
            made.unlink(missing_ok=True)
        raise
    check = shlex.join([*called(), "check", "--config", str(file)])
    log.info("%s: written; look at it, then: %s", file, check)


def _tell(role: str, held: Held) -> None:
    """Say what a role's labels hold. Raises UserError if nothing can be learned from them."""
    log.info("%s: %s", role, ", ".join(held.shares()))
    if held.unknown:
        log.info("%s: ignored, as no class: %s", role, held.text(sorted(held.unknown)))
    told = judge(held, f"--{role.replace('_', '-')}", learned=role == "source", whole=True)
    for line in told.warnings:
        log.warning("warning: %s", line)
    if told.problems:
        raise UserError(told.problems[0])


def can_ask() -> bool:
    """Whether somebody sits at standard input, which may be closed."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def survey_folders(options: Namespace, index: Index) -> dict[str, Survey]:
    """What the folders of the roles hold; asks for those that are not given. Without a folder for
    validation nothing is measured."""
    surveys: dict[str, Survey] = {}
    for role, meaning in FOLDERS.items():
        split = "val" if role == "validation" else "train"
        look = partial(survey, split=split, labelled=role != "target", key=f"--{role}", index=index)
        root = getattr(options, role)
        if role == "validation" and not root:
            root = _other_split(surveys["target"], split)
        if role == "validation" and not root:
            surveyed = _ask_for_validation(f"Folder of {meaning}", look)
        else:
            surveyed = look(root) if root else ask(f"Folder of {meaning}", f"--{role}", look)
        if surveyed is not None:
            surveys[role] = surveyed
            _tell_what_is_taken(role, surveyed)
        if role == "target" and options.target_labelled:
            key = "--target-labelled"
            labelled = survey(options.target_labelled, "train", True, key, index)
            surveys["target_labelled"] = labelled
            _tell_what_is_taken("target_labelled", labelled)
    if "validation" in surveys and "target_labelled" in surveys:
        _require_apart(surveys["target_labelled"], surveys["validation"], index)
    if "validation" not in surveys:
        log.warning(
            "warning: without --validation, a folder of a few labelled images like the target's, "
            "nothing will be measured: the configuration has `validation: null`; add a section to "
            "it at any time, and a run makes the evaluations alone"
        )
    else:
        measuring = sorted(surveys["validation"].files)
        for role in ("source", "target"):
            learned = sorted(surveys[role].files)
            for line in about_shared(f"--{role}", role, measuring, learned, index):
                log.warning("warning: %s", line)
    return surveys


def _require_apart(labelled: Survey, validation: Survey, index: Index) -> None:
    """Raises UserError if a validation image is among those to learn from, by their contents."""
    for file, other in shared_files(sorted(labelled.files), sorted(validation.files), index):
        raise UserError(
            f"--target-labelled: {file} is the validation image {other}, which may only measure; "
            "take it out of one of the two"
        )


def _other_split(target: Survey, split: str) -> str | None:
    """Cityscapes' folder, for a target that is there, if it has labels of that split."""
    root = target.domain.root
    if target.domain.layout != "cityscapes" or root is None:
        return None
    return root if (Path(root).expanduser() / "gtFine" / split).is_dir() else None


def _ask_for_validation(question: str, look: Callable[[str], Survey]) -> Survey | None:
    """The labelled images to measure on; None if there are none, or nobody can be asked."""
    if not can_ask():
        return None

    def read(answer: str) -> Survey | None:
        return None if answer == "none" else look(answer)

    return ask(f"{question}; none: nothing is measured", "--validation", read, default="none")


def _tell_what_is_taken(role: str, surveyed: Survey) -> None:
    domain = surveyed.domain
    labels = f", labels {domain.labels}" if domain.labels else ""
    patterns = f": {domain.images}{labels}" if domain.layout == "folder" else ""
    taken = f"{domain.root}{patterns}"
    log.info("%s: %d images of %dx%d in %s", role, surveyed.count, *surveyed.size, taken)
    if surveyed.beside:
        log.info("%s: also there, and not taken: %s", role, ", ".join(surveyed.beside))


def ask_label_space(surveys: dict[str, Survey]) -> str | None:
    """The label space that the ids are of, which they alone cannot tell; None for one of their
    own."""
    fitting = ", ".join(fitting_spaces(surveys))
    if not fitting:
        return None
    if not can_ask():
        log.info("the label ids may also be of %s: if so, give it with --label-space", fitting)
        return None

    def read(answer: str) -> str | None:
        if answer == "new":
            return None
        load_label_space(answer)
        return answer

    question = f"Classes: the label ids may be of {fitting}; or a YAML file; or new: of their own"
    return ask(question, "--label-space", read, default="new")


def choose_amounts(options: Namespace, surveys: dict[str, Survey], scale: Scale) -> Amounts:
    """Sizes and steps: as given; else derived, and asked for where folders were, too."""
    amounts = derive_amounts(surveys, scale)
    talking = any(getattr(options, role) is None for role in FOLDERS) and can_ask()
    for role in ("source", "target"):
        size = getattr(options, f"{role}_size")
        if size is None and talking:
            stored = "x".join(map(str, surveys[role].size))
            size = ask(
                f"Size of {role} images in training, stored at {stored}",
                f"--{role}-size",
                read_size,
                default="x".join(map(str, amounts.sizes[role])),
            )
        if size is not None:
            amounts.sizes[role] = size[0], size[1]
            validation = surveys.get("validation")
            if role == "target" and validation and validation.size == surveys["target"].size:
                amounts.sizes["validation"] = amounts.sizes["target"]
    for name, question in (
        ("steps", "Steps of each segmentation training"),
        ("steps_per_epoch", "Steps of the translator in each of its 8 epochs, the last left out"),
    ):
        value = getattr(options, name)
        if value is None and talking:
            default = str(getattr(amounts, name))
            value = ask(question, f"--{name.replace('_', '-')}", read_count, default=default)
        if value is not None:
            setattr(amounts, name, value)
    return amounts


def read_size(text: str) -> tuple[int, int]:
    """ "1280x720" as (1280, 720). Raises UserError for anything else."""
    sides = re.fullmatch(r"([1-9]\d*) *[x ] *([1-9]\d*)", text)
    if not sides:
        raise UserError(f"'{text}' is not a size such as 1280x720")
    return int(sides[1]), int(sides[2])


def ask(
    question: str, option: str, read: Callable[[str], Answer], default: str | None = None
) -> Answer:
    """What `read` makes of the user's answer, or of the `default` if they just press Enter; asked
    again for as long as it raises UserError.

    Raises UserError if nobody can be asked, or nothing is answered where there is no default.
    """
    if not can_ask():
        raise UserError(f"{option}: is not given, and nobody can be asked; give it")
    while True:
        try:
            with stop_request.at_once():
                answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
        except (EOFError, OSError, UnicodeDecodeError):
            raise UserError(f"{option}: nothing was answered; nothing was written") from None
        if not answer and default is None:
            raise UserError(f"{option}: nothing was answered; nothing was written")
        try:
            return read(answer or str(default))
        except UserError as error:
            log.info("%s", error)
