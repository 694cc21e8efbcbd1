"""The command line: one file a command, imported when the command is called."""

from argparse import Namespace
from collections.abc import Callable
from importlib import import_module

from bdl.commands.parser import SINGLE


def find(name: str) -> Callable[[Namespace], None]:
    """The function of the command `name`, which takes its parsed options.

    Raises UserError for whatever the user can repair when it is called.
    """
    module = "single" if name in SINGLE else name.replace("-", "_")
    return import_module(f"bdl.commands.{module}").main
