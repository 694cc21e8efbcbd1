"""What a shell completes: commands, options and paths by shtab; recipes, keys and stages, which are
known but not the only words allowed, by functions of the shell."""

import argparse
from types import ModuleType
from typing import Any

from bdl.runtime.config import CONFIGURATIONS
from bdl.runtime.config_keys import all_keys

# By what stands for the words in the help. shtab takes a function for one of files by its name.
_FUNCTIONS = {
    "YAML": "_bdl_files_and_recipes",
    "key=value": "_bdl_keys",
    "STAGE": "_bdl_stages",
    "last | best | STAGE": "_bdl_networks",
}
# Rounds, and self-training steps in each, whose stages are offered: one more than the paper has.
_ROUNDS, _STEPS = range(1, 4), range(1, 4)
# A shell's function that offers words; `{files}` also offers files.
_OFFER = {
    "bash": '{name}() {{\n  compgen -W "{words}" -- "$1"\n{files}}}\n',
    "zsh": "{name}() {{\n  compadd -S '{end}' -- {words}\n{files}}}\n",
}
_FILES = {"bash": '  _shtab_compgen_files "$1"\n', "zsh": "  _files\n"}
# No space after a key's "="; after it, what the shell itself completes, such as a file.
_BASH_ENDS_OF_KEYS = """
_bdl() {
  [[ ${COMP_WORDS[COMP_CWORD]} == = || ${COMP_WORDS[COMP_CWORD-1]} == = ]] && return
  _shtab_bdl
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o bashdefault -o default -F _bdl bdl
"""


def completion(parser: argparse.ArgumentParser, shell: str, shtab: ModuleType) -> str:
    """A script that completes the command line.

    Args:
        parser: That of `bdl`, whose actions get what completes them.
        shell: bash, zsh or tcsh; the last completes no recipes, keys and stages.
        shtab: The library, which is optional.

    Returns:
        The script, to be sourced.
    """
    paths = {
        **dict.fromkeys(("DIR", "RUN"), shtab.DIRECTORY),
        **dict.fromkeys(("FILE", "PATH", "IN", "OUT"), shtab.FILE),
    }
    pending = [parser]
    while pending:
        for action in pending.pop()._actions:
            complete: dict[str, Any] | None = None
            if isinstance(action, argparse._SubParsersAction):
                pending += action.choices.values()
            elif isinstance(action.metavar, str):
                complete = paths.get(action.metavar)
                if action.metavar in _FUNCTIONS:
                    functions = dict.fromkeys(_OFFER, _FUNCTIONS[action.metavar])
                    complete = {**shtab.FILE, **functions}
            if complete is not None:
                action.complete = complete  # type: ignore[attr-defined]
    preamble = "".join(
        _OFFER[shell].format(
            name=_FUNCTIONS[metavar],
            words=" ".join(offered),
            files=_FILES[shell] if metavar == "YAML" else "",
            end="" if metavar == "key=value" else " ",
        )
        for metavar, offered in known_words().items()
        if shell in _OFFER
    )
    script: str = shtab.complete(parser, shell, preamble=preamble)
    return script + (_BASH_ENDS_OF_KEYS if shell == "bash" else "")


def known_words() -> dict[str, list[str]]:
    """Words by what stands for them in the help."""
    networks = [f"k{k}/segmentation-{i}" for k in _ROUNDS for i in (0, *_STEPS)]
    labels = [f"k{k}/pseudo-labels-{i}" for k in _ROUNDS for i in _STEPS]
    translators = [f"k{k}/{name}" for k in _ROUNDS for name in ("translator", "translated")]
    return {
        "YAML": sorted(file.stem for file in CONFIGURATIONS.glob("[!_]*.yaml")),
        "key=value": [f"{name}=" for name, key in all_keys().items() if not key.is_section],
        "STAGE": ["source-only", *translators, *networks, *labels],
        "last | best | STAGE": ["last", "best", "source-only", *networks],
    }
