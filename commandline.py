"""The command line's words, and the commands that run no stage of the loop."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch

from domains.draft import (
    ON_CPU,
    ON_GPU,
    Amounts,
    Scale,
    choose_encoding,
    derive_amounts,
    draft_config,
    draft_label_space,
    fitting_spaces,
    ignored_ids,
    space_for,
)
from domains.label_space import load_label_space
from domains.survey import Survey, survey
from runtime import __version__
from runtime.comparison import as_text, write_comparison
from runtime.comparison import notes as comparison_notes
from runtime.config import load_config
from runtime.console import Console, log, print_text
from runtime.errors import UserError
from runtime.files import save_tensors, write_json, write_text
from runtime.stages import versions
from segmentation.export_network import export_network
from segmentation.finished_runs import class_colors, compared_frames, read_runs
from segmentation.networks.timm_backbone import packaged_weights
from segmentation.predictor import Predictor, find_photos, predict_files
from segmentation.reference_weights import REFERENCES as SEGMENTATION
from segmentation.reference_weights import TORCHVISION, import_weights
from segmentation.score import AUTO, OWN, detect_encoding, find_pairs, own_table, score
from translation.reference_weights import NETWORKS as TRANSLATION
from translation.reference_weights import import_translator
from translation.reference_weights import import_weights as import_translation_weights

Answer = TypeVar("Answer")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_SETTING = re.compile(r"[a-z_][\w.]*=")
_PRETRAINED = "tf_efficientnet_lite0"  # a backbone whose weights come as a package
_SINGLE = {
    "translate": "train the translator of round K",
    "export": "translate every source image with the translator of round K",
    "measure": "say what the translator of round K breaks, and how near the target it comes",
    "segment": "train the segmentation network M(k,i); k 0 is source only",
    "pseudo-label": "label the target confidently with M(k,i-1)",
    "evaluate": "score M(k,i) on the validation images",
}


_FOLDERS = {
    "source": "labelled images, such as renderings",
    "target": "unlabelled images, such as photos",
    "validation": "labelled images like the target's, which only measure",
}


# What stands for a path in the help, and how shtab completes it.
_PATHS: dict[Any, Callable[[Any], Any]] = {
    **dict.fromkeys(("DIR", "RUN"), lambda shtab: shtab.DIRECTORY),
    **dict.fromkeys(("FILE", "PATH", "YAML", "IN", "OUT"), lambda shtab: shtab.FILE),
}


class ShowVersions(argparse.Action):
    """Prints the versions that results may depend on, and stops."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        rows = {"bdl": __version__, **versions()}.items()
        print_text("\n".join(f"{name:<12} {version}" for name, version in rows))
        parser.exit()


class PrintCompletion(argparse.Action):
    """Prints a shell's completion of commands, options and paths, and stops."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        try:
            import shtab
        except ImportError:
            parser.error('--print-completion: needs shtab: pip install "bdl[completion]"')
        pending = [parser]
        while pending:
            for action in pending.pop()._actions:
                if isinstance(action, argparse._SubParsersAction):
                    pending += action.choices.values()
                elif action.metavar in _PATHS:
                    action.complete = _PATHS[action.metavar](shtab)  # type: ignore[attr-defined]
        print_text(shtab.complete(parser, shell))
        parser.exit()


def make_parser() -> tuple[argparse.ArgumentParser, Commands]:
    """The parser, and those of the commands in it."""
    parser = argparse.ArgumentParser(
        prog="bdl",
        description="Bidirectional learning for domain adaptation of semantic segmentation: a "
        "translator and a segmentation network, trained in turns.",
        epilog="Every stage that is finished for the same settings is reused. A run that was "
        "stopped goes on with the same command.",
    )
    parser.add_argument(
        "--version", action=ShowVersions, nargs=0, help="print versions of bdl and its libraries"
    )
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        action=PrintCompletion,
        help="print a script that completes this command in the shell, and stop",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "--config",
            default="demo",
            metavar="YAML",
            help="configuration: a file, or the name of one of the project's own (default: demo)",
        )
        if name != "check":
            command.add_argument(
                "--dry-run",
                action="store_true",
                help="print what would run and what is reused; stop",
            )
        add_loudness(command)
        command.add_argument(
            "overrides",
            nargs="*",
            metavar="key=value",
            help="settings that replace those of the file, e.g. seed=1 segmentation.steps=500",
        )
        return command

    run = add("run", "the whole loop: translate, train, pseudo-label, retranslate")
    run.add_argument(
        "--from-stage",
        metavar="STAGE",
        help="run this stage again and all that depends on it, e.g. k1/translator",
    )
    ablation = add("ablate", "the loop for several K, N, seeds and settings, in one table")
    for option, meaning in (
        ("--iterations", "values of K"),
        ("--self-training-steps", "values of N"),
        ("--seeds", "seeds"),
    ):
        ablation.add_argument(
            option,
            type=int,
            nargs="+",
            metavar="NUMBER",
            help=f"{meaning} (default: as configured)",
        )
    ablation.add_argument(
        "--row",
        action="append",
        default=[],
        metavar='"NAME: key=value ..."',
        help="a further variant of the settings, with its own K, N or seed where it sets them; "
        "can be given several times",
    )
    for name, text in _SINGLE.items():
        command = add(name, text)
        command.add_argument("--k", type=int, metavar="K", help="round (default: the last)")
        if name not in ("translate", "export", "measure"):
            command.add_argument(
                "--i", type=int, metavar="I", help="self-training step (default: the last)"
            )
        command.add_argument(
            "--again", action="store_true", help="run it again even if it is finished"
        )
    check = add("check", "find what is wrong with configuration and data, all of it; plan")
    check.add_argument("--pixels", action="store_true", help="decode every image and label file")
    check.add_argument(
        "--measure",
        action="store_true",
        help="take a few real steps of each kind of stage: hours and memory of the whole run",
    )
    add_score(commands)
    add_import_weights(commands)
    add_predict(commands)
    add_export_network(commands)
    add_compare(commands)
    add_init_config(commands)
    return parser, commands


def add_score(commands: Commands) -> None:
    text = "IoU of any predictions stored as PNG files of train ids; needs no model"
    command = commands.add_parser("score", help=text, description=f"{text}.")
    command.add_argument("--predictions", required=True, metavar="DIR", help="PNG files, any depth")
    command.add_argument("--labels", required=True, metavar="DIR", help="the same, of equal names")
    command.add_argument(
        "--label-space",
        default="cityscapes19",
        metavar="NAME",
        help="one of the project's own, or a YAML file (default: cityscapes19)",
    )
    command.add_argument(
        "--encoding",
        default="auto",
        metavar="NAME",
        help="how the labels count classes: own (train ids), an encoding of the label space, e.g. "
        "label_id, or auto: told by their names or ids (default)",
    )
    command.add_argument("--json", metavar="FILE", help="write the scores there")


def add_import_weights(commands: Commands) -> None:
    text = "make published or torchvision weights a file of this project"
    command = commands.add_parser(
        "import-weights",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: initial weights for segmentation.weights, or a "
        "trained network that every command can use.",
    )
    command.add_argument("origin", metavar="IN", help=f"published file, or '{TORCHVISION}'")
    command.add_argument("out", metavar="OUT", help="file to write")
    command.add_argument("--network", required=True, choices=[*SEGMENTATION, *TRANSLATION])
    command.add_argument(
        "--branches",
        type=int,
        choices=(2, 4),
        help="deeplab_v2: branches of the head to sum (default: told by the weights)",
    )
    command.add_argument(
        "--back",
        metavar="FILE",
        help="generator: that of target to source; OUT is then a whole translator, for "
        "translation.checkpoints",
    )
    command.add_argument(
        "--label-space",
        default="cityscapes19",
        metavar="NAME",
        help="classes of a trained network (default: cityscapes19)",
    )


def add_predict(commands: Commands) -> None:
    text = "label your own photos with a trained network"
    command = commands.add_parser(
        "predict",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: label maps with the classes' colours, and "
        "overlays.",
    )
    add_checkpoint(command)
    command.add_argument(
        "--images", type=Path, required=True, metavar="PATH", help="a photo, or a folder of photos"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the results"
    )
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="size that photos are resized to for the network (default: the width it was trained "
        "at, in a run's folder; else the photo's own)",
    )
    command.add_argument(
        "--window", type=int, nargs=2, metavar=("W", "H"), help="slide a window of this size"
    )
    command.add_argument("--flip", action="store_true", help="mean with the mirrored photo's")
    command.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="mean over the photo resized by each factor",
    )
    command.add_argument(
        "--probabilities", action="store_true", help="also write class probabilities (npz, 16 bit)"
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    command.add_argument(
        "--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed", "auto")
    )
    add_loudness(command)


def add_export_network(commands: Commands) -> None:
    text = "a trained network for other programs, as ONNX or a torch.export archive"
    command = commands.add_parser("export-network", help=text, description=f"Writes {text}.")
    add_checkpoint(command)
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="NAME.onnx or NAME.pt2"
    )
    command.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="size of the images it will take (default: that of its training)",
    )
    add_loudness(command)


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run's folder (its last network), or a segmenter.pt",
    )


def add_compare(commands: Commands) -> None:
    text = "finished runs side by side, in one HTML page and a table"
    command = commands.add_parser("compare", help=text, description=f"Puts {text}.")
    command.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folders of runs; the first is the measure",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="the page to write (default: comparison.html)",
    )


def add_init_config(commands: Commands) -> None:
    text = "a commented configuration for your own data, derived from it"
    command = commands.add_parser(
        "init-config",
        help=text,
        description=f"Writes {text}. Folders that are not given are asked for, and then sizes and "
        "steps, with what was derived as the answer of Enter.",
    )
    for option, meaning in _FOLDERS.items():
        command.add_argument(f"--{option}", metavar="DIR", help=f"folder of {meaning}")
    command.add_argument(
        "--label-space",
        metavar="NAME",
        help="one of the project's own, or a YAML file (default: told by the data set; else "
        "asked for, or written from the ids in the labels)",
    )
    for role in ("source", "target"):
        command.add_argument(
            f"--{role}-size",
            type=int,
            nargs=2,
            metavar=("W", "H"),
            help=f"size that {role} images are resized to (default: theirs, no wider than suits "
            "the machine)",
        )
    command.add_argument(
        "--steps",
        type=read_argument(read_count),
        metavar="NUMBER",
        help="steps of each segmentation training (default: by the number of images)",
    )
    command.add_argument(
        "--steps-per-epoch",
        type=read_argument(read_count),
        metavar="NUMBER",
        help="steps of the translator in each of its 20 epochs (default: likewise)",
    )
    command.add_argument(
        "--machine",
        choices=("cpu", "gpu"),
        help="what it will run on, which decides sizes and steps (default: what is here)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("mine.yaml"),
        metavar="FILE",
        help="the YAML file to write (default: mine.yaml)",
    )


def read_argument(read: Callable[[str], Answer]) -> Callable[[str], Answer]:
    """`read` as a type of argparse, which has its own kind of error."""

    def typed(text: str) -> Answer:
        try:
            return read(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def add_loudness(command: argparse.ArgumentParser) -> None:
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument(
        "--quiet",
        dest="verbosity",
        action="store_const",
        const=-1,
        default=0,
        help="print only problems and results",
    )
    loudness.add_argument(
        "--verbose",
        dest="verbosity",
        action="store_const",
        const=1,
        help="print also each stage's settings, each entry of the curves, and what libraries warn "
        "of",
    )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options and settings in any order; argparse alone wants all settings in one place, and not
    after an option that takes several values."""
    parser, commands = make_parser()
    name = next((item for item in arguments if item in commands.choices), None)
    known = commands.choices[name]._actions if name else []
    if not any(action.dest == "overrides" for action in known):
        options, unknown = parser.parse_known_args(arguments)
        if taken := [item for item in unknown if _SETTING.match(item)]:
            parser.error(f"{options.command} takes no settings, such as {taken[0]}")
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options
    # The value of an option may look like a setting: --config lr=2.yaml
    with_value = {
        option for action in known if action.nargs is None for option in action.option_strings
    }
    settings: list[str] = []
    others: list[str] = []
    for before, item in pairwise(["", *arguments]):
        is_setting = _SETTING.match(item) and before not in with_value
        (settings if is_setting else others).append(item)
    options = parser.parse_args(others)
    options.overrides += settings
    return options


def score_command(options: argparse.Namespace) -> None:
    """`score`: any predictions against labels."""
    console = Console()
    space = load_label_space(options.label_space)
    pairs = find_pairs(Path(options.predictions), Path(options.labels))
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


def describe_scores(scores: dict[str, Any]) -> str:
    """IoU by class and the means, in percent; - for what is in neither file."""
    rows = {**scores["iou"], **{key: value for key, value in scores.items() if key != "iou"}}
    return "\n".join(
        f"{name:<16}" + (f"{100 * value:>7.2f}" if value is not None else f"{'-':>7}")
        for name, value in rows.items()
    )


def import_command(options: argparse.Namespace) -> None:
    """`import-weights`: a file of other code becomes one of this project."""
    Console()
    if Path(options.origin).resolve() == Path(options.out).resolve():
        raise UserError(f"{options.out}: is the file to import; give another name for OUT")
    if options.back is not None and options.network != "generator":
        raise UserError("--back: goes with --network generator; leave it out")
    if options.network in TRANSLATION:
        if options.branches is not None:
            raise UserError(f"--branches: {options.network} has no branches; leave it out")
        if options.back is not None:
            content, note = import_translator(options.origin, options.back)
        else:
            content, note = import_translation_weights(options.origin, options.network)
    else:
        space = load_label_space(options.label_space)
        content, note = import_weights(options.origin, options.network, space, options.branches)
    save_tensors(Path(options.out), content)
    log.info("%s: %s", options.out, note)


def predict_command(options: argparse.Namespace) -> None:
    console = Console(verbosity=options.verbosity)
    photos = find_photos(options.images, options.out)
    predictor = Predictor(
        options.checkpoint,
        size=options.size and tuple(options.size),
        window=options.window and tuple(options.window),
        flip=options.flip,
        scales=options.scales,
        device=options.device,
        precision=options.precision,
    )
    claim_folder(options.out, "--out")
    log.info("%d photos with %s", len(photos), predictor.file)
    predict_files(predictor, console, photos, options.out, options.probabilities)
    log.info("labels and overlays are in %s", options.out)


def export_network_command(options: argparse.Namespace) -> None:
    Console(verbosity=options.verbosity)
    size = options.size and tuple(options.size)
    predictor = Predictor(options.checkpoint, size=size, device="cpu")
    claim_folder(options.out.parent, "--out")
    export_network(predictor, options.out, size)
    log.info("%s gives the same labels as %s", options.out, predictor.file)


def compare_command(options: argparse.Namespace) -> None:
    """`compare`: finished runs side by side."""
    Console()
    if len(options.runs) < 2:
        raise UserError("compare: takes two runs or more; give their folders")
    runs = read_runs(options.runs)
    compared = [run.compared for run in runs]
    write_comparison(options.out, compared, class_colors(runs[0]), compared_frames(runs))
    for note in comparison_notes(compared):
        log.warning("%s", note)
    log.info("%s\nsee %s", as_text(compared), options.out)


def init_command(options: argparse.Namespace) -> None:
    """`init-config`: look at the user's folders and write a configuration for them."""
    Console()
    file: Path = options.out
    classes = file.with_name(f"{file.stem}_classes.yaml")
    for taken in (file, classes):
        if taken.exists():
            raise UserError(f"{taken}: is there already; move it, or give another --out")
    if file.suffix != ".yaml":
        raise UserError(f"--out: {file} must end with .yaml")
    if options.label_space:
        load_label_space(options.label_space)  # a mistake in it is said before anything is asked
    surveys = survey_folders(options)
    label_space = options.label_space or space_for(surveys) or ask_label_space(surveys)
    on_gpu = options.machine == "gpu" if options.machine else torch.cuda.is_available()
    scale = ON_GPU if on_gpu else ON_CPU
    amounts = choose_amounts(options, surveys, scale)
    network = f"timm:{_PRETRAINED}" if packaged_weights(_PRETRAINED) else "compact"
    try:
        if label_space is None:
            label_space = classes.as_posix()
            write_text(classes, draft_label_space(surveys["source"].ids))
            log.info("%s: a class for each of the ids in the labels; give them names", classes)
        space = load_label_space(label_space)
        encodings = {r: choose_encoding(space, surveys[r]) for r in ("source", "validation")}
        for role, encoding in encodings.items():
            if unknown := ignored_ids(space, encoding, surveys[role].ids):
                log.info("%s: ignored, as no class of the label space: ids %s", role, unknown)
        text = draft_config(file, surveys, amounts, label_space, encodings, scale, network)
        write_text(file, text)
        load_config(file)
    except UserError:
        for made in (classes, file):
            made.unlink(missing_ok=True)
        raise
    log.info("%s: written; look at it, then: bdl check --config %s", file, file)


def survey_folders(options: argparse.Namespace) -> dict[str, Survey]:
    """What the folders of the three roles hold; asks for those that are not given."""
    surveys: dict[str, Survey] = {}
    for role, meaning in _FOLDERS.items():
        split = "val" if role == "validation" else "train"
        look = partial(survey, split=split, labelled=role != "target", key=f"--{role}")
        root = getattr(options, role)
        if role == "validation" and surveys["target"].domain.layout == "cityscapes":
            root = root or surveys["target"].domain.root  # its other split
        found = look(root) if root else ask(f"Folder of {meaning}", f"--{role}", look)
        surveys[role] = found
        log.info("%s: %d images of %dx%d in %s", role, found.count, *found.size, found.domain.root)
    if shared := surveys["target"].files & surveys["validation"].files:
        log.warning(
            "%d validation images are among the target's: scores on images that were trained on "
            "are too high; give a folder without them, or set data.target.list_file",
            len(shared),
        )
    return surveys


def ask_label_space(surveys: dict[str, Survey]) -> str | None:
    """The label space that the ids are of, which they alone cannot tell; None for one of their
    own."""
    fitting = ", ".join(fitting_spaces(surveys))
    if not fitting:
        return None
    if not sys.stdin.isatty():
        log.info("the label ids may also be of %s: if so, give it with --label-space", fitting)
        return None

    def read(answer: str) -> str | None:
        if answer == "new":
            return None
        load_label_space(answer)
        return answer

    question = f"Classes: the label ids may be of {fitting}; or a YAML file; or new: of their own"
    return ask(question, "--label-space", read, default="new")


def choose_amounts(
    options: argparse.Namespace, surveys: dict[str, Survey], scale: Scale
) -> Amounts:
    """Sizes and steps: as given; else derived, and asked for where folders were, too."""
    amounts = derive_amounts(surveys, scale)
    talking = any(getattr(options, role) is None for role in _FOLDERS) and sys.stdin.isatty()
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
            if role == "target" and surveys["validation"].size == surveys["target"].size:
                amounts.sizes["validation"] = amounts.sizes["target"]
    for name, question in (
        ("steps", "Steps of each segmentation training"),
        ("steps_per_epoch", "Steps of the translator in each of its 20 epochs"),
    ):
        value = getattr(options, name)
        if value is None and talking:
            default = str(getattr(amounts, name))
            value = ask(question, f"--{name.replace('_', '-')}", read_count, default=default)
        if value is not None:
            setattr(amounts, name, value)
    return amounts


def read_count(text: str) -> int:
    """A whole number of 1 or more. Raises UserError for anything else."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise UserError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def read_size(text: str) -> tuple[int, int]:
    """ "1280x720" as (1280, 720). Raises UserError for anything else."""
    found = re.fullmatch(r"([1-9]\d*) *[x ] *([1-9]\d*)", text)
    if not found:
        raise UserError(f"'{text}' is not a size such as 1280x720")
    return int(found[1]), int(found[2])


def ask(
    question: str, option: str, read: Callable[[str], Answer], default: str | None = None
) -> Answer:
    """What `read` makes of the user's answer, or of the `default` if they just press Enter; asked
    again for as long as it raises UserError.

    Raises UserError if nobody can be asked, or nothing is answered where there is no default.
    """
    if not sys.stdin.isatty():
        raise UserError(f"{option}: is not given, and nobody can be asked; give it")
    while True:
        try:
            answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
        except EOFError:
            raise UserError(f"{option}: nothing was answered; nothing was written") from None
        if not answer and default is None:
            raise UserError(f"{option}: nothing was answered; nothing was written")
        try:
            return read(answer or str(default))
        except UserError as error:
            log.info("%s", error)


def claim_folder(folder: Path, key: str = "out") -> None:
    """Make the folder of results that `key` sets. Raises UserError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{key}: {folder} cannot be written to ({error.strerror})") from None


# The commands that need no configuration, and so no loop.
TOOLS = {
    "score": score_command,
    "import-weights": import_command,
    "predict": predict_command,
    "export-network": export_network_command,
    "compare": compare_command,
    "init-config": init_command,
}
