"""The words of the command line. Nothing is imported here but the standard library, so that help
and a mistyped word are answered at once."""

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from bdl import __version__
from bdl.runtime.errors import UserError
from bdl.runtime.output import print_text

Answer = TypeVar("Answer")
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

COMPLETION = "--print-completion"
_SETTING = re.compile(r"[a-z_][\w.]*=")
# Commands that run one stage of the loop.
SINGLE = {
    "translate": "train the translator of round K",
    "export": "translate every source image with the translator of round K",
    "measure": "say what the translator of round K loses, and how near the target it comes",
    "segment": "train the segmentation network M(k,i); k 0 is source only",
    "pseudo-label": "label the target confidently with M(k,i-1)",
    "evaluate": "score M(k,i) on the validation images",
}
# Networks whose published weights can be imported: the tables' names, which need torch.
SEGMENTATION = ("deeplab_v2", "fcn8s_vgg16", "output_discriminator")
TRANSLATION = ("generator", "discriminator")
TORCHVISION = "torchvision"  # stands for a file: ImageNet weights from torchvision's hub

FOLDERS = {
    "source": "labelled images, such as renderings",
    "target": "unlabelled images, such as photos",
    "validation": "labelled images like the target's, which only measure",
}


class Parser(argparse.ArgumentParser):
    """Prints help to whoever still reads it."""

    def print_help(self, file: Any = None) -> None:
        if file is None:
            print_text(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)


class ShowVersions(argparse.Action):
    """Prints the versions that results may depend on, and stops."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from bdl.runtime.versions import versions

        rows = {"bdl": __version__, **versions()}.items()
        print_text("\n".join(f"{name:<12} {version}" for name, version in rows))
        parser.exit()


class PrintCompletion(argparse.Action):
    """Prints a shell's completion of the command line, and stops."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        try:
            import shtab
        except ImportError:
            parser.error('--print-completion: needs shtab: pip install "bdl[completion]"')
        from bdl.commands.completion import completion

        print_text(completion(parser, shell, shtab))
        parser.exit()


def make_parser() -> tuple[Parser, Commands]:
    """The parser, and those of the commands in it."""
    parser = Parser(
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
        COMPLETION,
        choices=("bash", "zsh", "tcsh"),
        action=PrintCompletion,
        help="print a script that completes this command in the shell, and stop",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_config(command)
        if name != "check":
            command.add_argument(
                "--dry-run",
                action="store_true",
                help="print what would run and what is reused; stop",
            )
            command.add_argument(
                "--replace",
                action="store_true",
                help="replace results that were made with other settings",
            )
        add_loudness(command)
        add_overrides(command)
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
    for name, text in SINGLE.items():
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
    check.add_argument(
        "--fit",
        action="store_true",
        help="measure likewise, and print a plan for the data and this machine: crops, batches, "
        "steps, sampling, precision, each with its rule, as settings to copy",
    )
    check.add_argument(
        "--hours",
        type=read_argument(read_hours),
        metavar="H",
        help="with --fit: plan steps that take so long (default: the steps stay)",
    )
    add_show_config(commands)
    add_score(commands)
    add_import_weights(commands)
    add_predict(commands)
    add_export_network(commands)
    add_compare(commands)
    add_init_config(commands)
    return parser, commands


def add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        default="demo",
        metavar="YAML",
        help="configuration: a file, or the name of one of the project's own (default: demo)",
    )


def add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace those of the file, e.g. seed=1 segmentation.steps=500",
    )


def add_show_config(commands: Commands) -> None:
    text = "the whole configuration as YAML, with what differs from the defaults marked"
    command = commands.add_parser("show-config", help=text, description=f"Prints {text}.")
    add_config(command)
    add_overrides(command)


def add_score(commands: Commands) -> None:
    text = "IoU of any predictions stored as PNG files of train ids; needs no model"
    command = commands.add_parser("score", help=text, description=f"{text}.")
    command.add_argument("--predictions", required=True, metavar="DIR", help="PNG files, any depth")
    command.add_argument("--labels", required=True, metavar="DIR", help="the same, of equal names")
    classes = command.add_mutually_exclusive_group()
    classes.add_argument(
        "--label-space",
        default="cityscapes19",
        metavar="NAME",
        help="one of the project's own, or a YAML file (default: cityscapes19)",
    )
    classes.add_argument(
        "--run",
        type=Path,
        metavar="PATH",
        help="a run's folder, or a network's file in one: its classes, and how its validation "
        "images' labels count them",
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
        help="size that photos are resized to for the network (default: as the run "
        "evaluates images, in a run's folder; else the photo's own)",
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
        help="size of the images it will take (default: that at which its run evaluates images)",
    )
    command.add_argument(
        "--free-size",
        action="store_true",
        help="let it take any number of images of any size, as far as the network allows",
    )
    add_loudness(command)


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="a run's folder, or a segmenter.pt",
    )
    command.add_argument(
        "--network",
        default="last",
        metavar="last | best | STAGE",
        help="which network of the run: the last; the best of all that are kept, by their mIoU on "
        "the validation images; or that of a stage, e.g. k1/segmentation-0 (default: last)",
    )
    command.add_argument(
        "--own-network",
        metavar="NAME",
        help="python:MODULE:FUNCTION, where the checkpoint is of your own network: its code runs "
        "only if you name it",
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
        "steps, with what was derived as the answer of Enter. Without validation images nothing is "
        "measured.",
    )
    for option, meaning in FOLDERS.items():
        command.add_argument(f"--{option}", metavar="DIR", help=f"folder of {meaning}")
    command.add_argument(
        "--target-labelled",
        metavar="DIR",
        help="folder of a few labelled images like the target's, from one on, that networks learn "
        "from, too; no validation images (default: none)",
    )
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
        help="steps of each segmentation training (default: 800; with --machine gpu by the "
        "number of images)",
    )
    command.add_argument(
        "--steps-per-epoch",
        type=read_argument(read_count),
        metavar="NUMBER",
        help="steps of the translator in each of its 8 epochs, the last of which is left out "
        "(default: 100; with --machine gpu by the number of images)",
    )
    command.add_argument(
        "--machine",
        choices=("cpu", "gpu"),
        default="cpu",
        help="what it is for, which decides sizes and steps: an hour of a CPU core, or hours of a "
        "GPU (default: cpu, wherever it is written)",
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


def read_hours(text: str) -> float:
    """Hours above 0. Raises UserError for anything else."""
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) or float(text) == 0:
        raise UserError(f"'{text}' is not a number of hours above 0")
    return float(text)


def read_count(text: str) -> int:
    """A whole number of 1 or more. Raises UserError for anything else."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise UserError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options; options and settings come in any order, where argparse alone
    wants all settings in one place, and not after an option that takes several values.

    Exits with status 2, after one line, if it is none.
    """
    parser, commands = make_parser()
    name = _command_in(arguments)
    if name is None:
        return parser.parse_args(arguments)
    command = commands.choices.get(name)
    if command is None:
        parser.error(f"there is no command '{name}'{_nearest(name, commands.choices)}")
    # The value of an option may look like a setting: --config lr=2.yaml
    with_value = {
        option
        for action in command._actions
        if action.nargs is None
        for option in action.option_strings
    }
    takes_settings = any(action.dest == "overrides" for action in command._actions)
    settings: list[str] = []
    others: list[str] = []
    for before, item in pairwise(["", *arguments]):
        is_setting = takes_settings and _SETTING.match(item) and before not in with_value
        (settings if is_setting else others).append(item)
    options, unknown = parser.parse_known_args(others)
    if unknown:
        after = dict(pairwise([*others, ""])).get(unknown[0], "")
        command.error(_explain(unknown, after, command, takes_settings))
    if takes_settings:
        options.overrides += settings
    return options


def _command_in(arguments: Sequence[str]) -> str | None:
    """The first word that is no option, no option's value and no setting."""
    for before, item in pairwise(["", *arguments]):
        if not item.startswith("-") and not _SETTING.match(item) and before != COMPLETION:
            return item
    return None


def _explain(
    unknown: Sequence[str], after: str, command: argparse.ArgumentParser, takes_settings: bool
) -> str:
    """What is wrong with arguments that `command` does not know; `after` is the word that follows
    the first of them."""
    given = unknown[0]
    if not takes_settings and _SETTING.match(given):
        return f"{(command.prog or '').split()[-1]} takes no settings, such as {given}"
    text = f"unrecognized arguments: {' '.join(unknown)}"
    if not given.startswith("-"):
        return text
    option, _, value = given.partition("=")
    if takes_settings and (key := _key_of(option)):
        value = value or ("" if after.startswith("-") else after) or "VALUE"
        return f"{text}; settings are given as key=value: {key}={value}"
    known = [name for action in command._actions for name in action.option_strings]
    return text + _nearest(option, known)


def _key_of(option: str) -> str | None:
    """The setting that somebody means who writes it as an option; None for another mistake."""
    from bdl.runtime.config import known_keys

    key = option.lstrip("-").replace("-", "_")
    keys = known_keys()
    ending = [name for name in keys if name == key or name.endswith(f".{key}")]
    if ending and ("." in key or key in ending):
        return ending[0]
    if "." not in key:
        return None
    return next(iter(difflib.get_close_matches(key, keys, n=1)), key)


def _nearest(word: str, known: Iterable[str]) -> str:
    """The known word that may be meant, as the end of a message; empty where none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
