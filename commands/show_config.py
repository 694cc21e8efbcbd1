"""`bdl show-config`: every setting that a command would use, as one YAML file."""

from argparse import Namespace

from bdl.runtime.config import Config, escaped, load_config, value_at
from bdl.runtime.config_keys import all_keys, default_of
from bdl.runtime.output import print_text
from bdl.runtime.values import plain
from bdl.runtime.yaml_text import to_line


def main(options: Namespace) -> None:
    """Print the configuration of `--config` and the settings after it."""
    print_text(annotated(load_config(options.config, options.overrides)))


def annotated(config: Config) -> str:
    """The whole configuration as YAML, which `load_config` reads back as the same.

    Args:
        config: The configuration.

    Returns:
        A line for each key, in the order of docs/configuration.md. A comment says the default
        where the value is another.
    """
    lines = []
    for name, key in all_keys().items():
        section, _, last = name.rpartition(".")
        if section and value_at(config, section) is None:
            continue  # the line of the section says null
        value, usual = value_at(config, name), default_of(name)
        line = "  " * name.count(".") + f"{last}:"
        if value is None or not key.is_section:
            line += f" {to_line(escaped(plain(value)))}"
            if value != usual:
                line += f"  # default: {'a section' if key.is_section else to_line(plain(usual))}"
        lines.append(line)
    return "\n".join(lines)
