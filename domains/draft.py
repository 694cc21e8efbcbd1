"""A first configuration for a user's own data, derived from what their folders hold."""

import colorsys
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bdl.domains.datasets import LAYOUTS
from bdl.domains.label_space import (
    IGNORE,
    OWN,
    LabelSpace,
    load_label_space,
    stored_as_text,
)
from bdl.domains.looks import Looks
from bdl.domains.rules import (
    FAR_COLORS,
    Choice,
    Scale,
    choose_cut,
    choose_loop,
    choose_segmentation,
    choose_steps,
    choose_translation,
    choose_translator_crop,
    choose_translator_epoch,
    is_far,
    scaled,
)
from bdl.domains.survey import Survey
from bdl.runtime.console import counted
from bdl.runtime.errors import UserError

TARGET_LABELLED = "target_labelled"
STORED = "stored"  # the encoding of a drafted label space
BINARY = "mask"  # its second one, of 0 and 255
_LINE = 100  # characters


_MOST = 0.9  # of the labelled pixels are classes of a label space that is proposed

_NO_VALIDATION = """\
  # Nothing is measured: no network is evaluated. With a few labelled images like the target's,
  # write a section like the source's; a run then makes the evaluations alone.
  validation: null
"""


@dataclass
class Amounts:
    """Sizes (width, height) that images are resized to, by role; steps of a segmentation training
    without pseudo labels; the translator's steps in each of its epochs."""

    sizes: dict[str, tuple[int, int]]
    steps: int
    steps_per_epoch: int


def looks_of(surveys: Mapping[str, Survey]) -> Looks:
    """What is known of the surveyed problem."""
    counts = {role: surveyed.count for role, surveyed in surveys.items()}
    return Looks.of(counts, surveys["source"].look, surveys["target"].look)


def derive_amounts(surveys: Mapping[str, Survey], scale: Scale) -> Amounts:
    """What suits the surveyed data."""
    problem = looks_of(surveys)
    return Amounts(
        {
            role: scaled(surveyed.size, scale.side)
            for role, surveyed in surveys.items()
            if role != TARGET_LABELLED  # it is the target's
        },
        choose_steps(problem, scale),
        choose_translator_epoch(problem, scale),
    )


def draft_config(
    file: Path,
    surveys: Mapping[str, Survey],
    amounts: Amounts,
    label_space: str,
    encodings: Mapping[str, str],
    scale: Scale,
    network: str,
) -> str:
    """The YAML text of a configuration, with comments.

    `surveys` are by role, `encodings` by labelled role; `label_space` is a name or a path. Raises
    UserError if the images are too small to be cut.
    """
    problem = looks_of(surveys)
    smallest = {role: surveys[role].smallest_at(size) for role, size in amounts.sizes.items()}
    labelled = surveys.get(TARGET_LABELLED)
    if labelled is not None and not surveys["target"].one_size:  # they are cut alike
        width, height = smallest["target"]
        smallest["target"] = width, min(height, max(1, round(width / labelled.flattest)))
    load_width = min(smallest["source"][0], smallest["target"][0])
    try:
        crop = choose_translator_crop(smallest, load_width, scale)
    except ValueError as error:
        raise UserError(f"--source, --target: {error}") from None
    sections = "".join(
        _section(role, surveys[role], amounts.sizes.get(role), encodings.get(role))
        for role in surveys
    )
    if "validation" not in surveys:
        sections += _NO_VALIDATION
    flat = [round(100 * share) for share in problem.flat]
    vivid = [f"{levels:.1f}" for levels in problem.colorfulness]
    far = f"{'far apart' if is_far(problem) else 'near'} ({FAR_COLORS:.0f} and more are far)"
    translation = choose_translation(problem, scale, crop, load_width, amounts.steps_per_epoch)
    cut = choose_cut(smallest, scale.crop_area)
    segmentation = choose_segmentation(problem, scale, network, amounts.steps, cut)
    return f"""\
# Bidirectional learning on own data, for {scale.words}.
# Every key is explained in docs/configuration.md; what is not here has the value given there.
# The rules behind these numbers know the data and no machine. From the source's colours to the
# target's it is {problem.color_distance:.1f} levels of 255: {far}.
# Areas of one colour are {flat[0]} % of the source and {flat[1]} % of the target.
# The median pixel is {vivid[0]} levels from grey in the source, {vivid[1]} in the target.
# Check it:  bdl check --config {_text(file.as_posix())}
# Run it:    bdl run --config {_text(file.as_posix())}
out: {_text(f"runs/{file.stem}")}
{_settings(choose_loop(problem), 0)}
data:
  label_space: {_text(label_space)}
{sections}
translation:
{_settings(translation, 1)}
segmentation:
{_settings(segmentation, 1)}"""


def _settings(choices: Sequence[Choice], depth: int) -> str:
    """Lines of YAML, `depth` sections deep, each setting after its reason."""
    lines = []
    indent = "  " * depth
    for choice in choices:
        name = choice.key.rpartition(".")[2]
        value = yaml.safe_dump(choice.value, default_flow_style=True, width=1000, sort_keys=False)
        line = f"{indent}{name}: {value.removesuffix(chr(10)).removesuffix(chr(10) + '...')}"
        reason = f"  # {choice.reason}" if choice.reason else ""
        if len(line + reason) > _LINE:
            width = _LINE - len(indent) - 2
            lines += [f"{indent}# {part}" for part in textwrap.wrap(choice.reason, width)]
            reason = ""
        lines.append(line + reason)
    return "".join(f"{line}\n" for line in lines)


def choose_encoding(space: LabelSpace, surveyed: Survey) -> str:
    """How the surveyed labels count the classes of `space`: as their layout says, else told by ids.

    Raises UserError if no id is a class under any encoding.
    """
    own = LAYOUTS[surveyed.domain.layout].encoding
    if surveyed.domain.layout != "folder" and own in space.encodings:
        return own
    ids = list(surveyed.ids)
    known = {name: len(ids) - len(unknown) for name, unknown in _unknown(space, surveyed).items()}

    def fit(name: str) -> tuple[bool, bool, int]:
        # Files of train ids hold nothing else; those of other encodings have ids to ignore too. An
        # encoding that a file states goes before those that are always there.
        return known[name] == len(ids), name not in ("train_id", "color"), known[name]

    best = max(known, key=fit, default=None)
    if best is None or not known[best]:
        kind = "colours" if surveyed.by_color else "ids"
        held = ", ".join(stored_as_text(number, surveyed.by_color) for number in ids[:8])
        raise UserError(
            f"--label-space: '{space.name}' knows none of the label {kind} (they hold {held}); "
            f"leave it out to have one written from the {kind}"
        )
    return best


def fitting_spaces(surveys: Mapping[str, Survey]) -> list[str]:
    """The project's own label spaces that the ids of all surveyed labels may be of, those with
    fewest classes first: almost all pixels are classes of theirs."""
    labelled = [surveyed for surveyed in surveys.values() if surveyed.ids]
    spaces = [load_label_space(file.stem) for file in sorted(OWN.glob("*.yaml"))]

    def known(space: LabelSpace, surveyed: Survey) -> float:
        """The share of the pixels that are of a class, by the encoding that fits best."""
        total = sum(surveyed.ids.values())
        return max(
            1 - sum(surveyed.ids[number] for number in unknown) / total
            for unknown in _unknown(space, surveyed).values()
        )

    return [
        space.name
        for space in sorted(spaces, key=lambda space: space.num_classes)
        if all(IGNORE not in surveyed.ids or surveyed.by_color for surveyed in labelled)
        and all(known(space, surveyed) > _MOST for surveyed in labelled)
    ]


def draft_label_space(surveys: Mapping[str, Survey]) -> str:
    """The YAML text of a label space with a class for every id, or colour, of the source's labels,
    to be renamed by the user, whose encoding STORED maps them.

    Where it has two classes and another role's labels hold 0 and 255, BINARY maps these. Raises
    UserError if there are no two classes, or too many.
    """
    source = surveys["source"]
    for role, found in surveys.items():
        if found.ids and found.by_color != source.by_color:
            kinds = ("colours", "ids") if source.by_color else ("ids", "colours")
            raise UserError(
                f"--{role.replace('_', '-')}: its labels hold {kinds[1]}, those of --source "
                f"{kinds[0]}; store both alike, or give --label-space with an encoding of each"
            )
    ids = source.ids
    if source.names and source.names.keys() & ids.keys():
        ids = {number: ids[number] for number in source.names if number in ids}
    if not 2 <= len(ids) < IGNORE:
        held = ", ".join(stored_as_text(n, source.by_color) for n in list(ids)[:8])
        also = " and 255, which is ignored" if source.ignored and not source.by_color else ""
        kind = "colours" if source.by_color else "ids"
        raise UserError(
            f"--source: its labels hold {len(ids)} {kind} ({held or 'none'}{also}); they must be "
            "maps of 2 to 254 classes"
        )
    names = {
        number: source.names.get(number) or f"class {stored_as_text(number, source.by_color)}"
        for number in ids
    }
    names = {number: names[number].replace("#", "") for number in ids}
    kind = "colour" if source.by_color else "id"
    lines = [
        f"# A class for every {kind} in the label files. Rename each, here and below; two {kind}s",
        "# may be one class; one that is deleted below, with its class, is ignored.",
        "classes:",
    ]
    for position, number in enumerate(ids):
        color = [number >> 16, number >> 8 & 255, number & 255]
        if not source.by_color:
            # Steps of the golden ratio around the colour circle keep neighbours apart.
            hue = colorsys.hsv_to_rgb(position * 0.618034 % 1, 0.65, 0.9 - 0.3 * (position % 2))
            color = [round(255 * channel) for channel in hue]
        percent = f"{100 * ids[number]:.1f} % of the pixels"
        lines.append(f"  - {{name: {_text(names[number])}, color: {color}}}  # {percent}")
    lines += ["encodings:", f"  {STORED}:  # {kind} in the label files: class"]
    for number, name in names.items():
        stored = stored_as_text(number, source.by_color)
        lines.append(f"    {json.dumps(stored) if source.by_color else stored}: {_text(name)}")
    others = [found for role, found in surveys.items() if role != "source" and not found.by_color]
    if len(ids) == 2 and any(IGNORE in found.ids for found in others) and IGNORE not in ids:
        first, second = names.values()
        lines += [f"  {BINARY}:", f"    0: {_text(first)}", f"    {IGNORE}: {_text(second)}"]
    return "\n".join(lines) + "\n"


def _unknown(space: LabelSpace, surveyed: Survey) -> dict[str, list[int]]:
    """By encoding of the kind that the labels are of: their ids, or colours, that are no class."""
    return {
        name: [number for number in surveyed.ids if number not in stored]
        for name, stored in space.encodings.items()
        if (name in space.by_color) == surveyed.by_color
    }


def space_for(surveys: Mapping[str, Survey]) -> str | None:
    """The label space of known data sets; None for plain folders."""
    known = any(found.domain.layout != "folder" for found in surveys.values())
    return "cityscapes19" if known else None


def _section(
    role: str, surveyed: Survey, size: tuple[int, int] | None, encoding: str | None
) -> str:
    domain = surveyed.domain
    note = f"{counted(surveyed.count, 'image')} of {surveyed.size[0]}x{surveyed.size[1]}"
    if not surveyed.one_size:
        note += " and other sizes"
    lines = [f"{role}:  # {note}", f"  layout: {domain.layout}", f"  root: {_text(domain.root)}"]
    if domain.layout == "cityscapes":
        lines.append(f"  split: {domain.split}")
    if domain.layout == "folder":
        lines.append(f"  images: {_text(domain.images)}")
        if domain.labels is not None:
            lines.append(f"  labels: {_text(domain.labels)}")
    if encoding is not None:
        ids = ", ".join(stored_as_text(n, surveyed.by_color) for n in list(surveyed.ids)[:20])
        more = ", ..." if len(surveyed.ids) > 20 else ""
        kind = "colours" if surveyed.by_color else "ids"
        lines.append(f"  encoding: {_text(encoding)}  # {kind} in its labels: {ids}{more}")
    if size is None:
        pass  # it is another section's
    elif surveyed.one_size:
        lines.append(f"  size: [{size[0]}, {size[1]}]")
    else:
        lines.append("  size: null")
        lines.append(f"  width: {size[0]}  # each keeps its shape")
    return "".join(f"  {line}\n" for line in lines)


def _text(text: str | None) -> str:
    """A string as YAML has it, quoted where it must be."""
    plain = str(text)
    simple = re.fullmatch(r"[\w./~-]+", plain) and isinstance(yaml.safe_load(plain), str)
    return plain if simple else json.dumps(plain, ensure_ascii=False)
