"""What of a configuration cannot be used: values out of their ranges, and values that do not go
together."""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import get_origin

from bdl.runtime.config_keys import (
    Config,
    DomainConfig,
    Key,
    all_keys,
    default_of,
    set_value,
    value_at,
)

OUTPUT_DISCRIMINATOR, OUTPUT_LEAST = "output discriminator", 32  # pixels of a side


@dataclass(frozen=True)
class Fault:
    """A key whose value cannot be used, and why; `others` are the keys that it does not go with."""

    key: str
    problem: str
    others: tuple[str, ...] = ()


Faults = Iterator[Fault]


def faults(config: Config) -> list[Fault]:
    """All that is wrong with the values, each of which is of its key's type."""
    alone = [
        Fault(name, problem)
        for name, key in all_keys().items()
        if (problem := unusable(key, value_at(config, name))) is not None
    ]
    # The others are looked at as if what is wrong by itself had been repaired.
    repaired = deepcopy(config)
    for fault in alone:
        set_value(repaired, fault.key, default_of(fault.key))
    wrong = {fault.key for fault in alone}
    together = [fault for check in _CHECKS for fault in check(repaired)]
    return alone + [fault for fault in together if wrong.isdisjoint((fault.key, *fault.others))]


def unusable(key: Key, value: object) -> str | None:
    """Why a value of the right type cannot be used; None if it can."""
    if key.is_section or value is None:
        return None
    if isinstance(value, str) and not value.strip():
        what = key.metadata.get("path", "text")
        return f"is empty; give the {what}{', or null for none' if key.optional else ''}"
    numbers = value if isinstance(value, tuple) else (value,)
    if key.range is not None and not (numbers and all(map(key.range.holds, numbers))):
        return f"is {shown(value)}, must be {wanted(key)}"
    return None


def wanted(key: Key) -> str:
    """What a value must be, in words."""
    kind = str(key).replace(" | ", " or ")
    article = "a " if re.match(r"(whole|number|list|file|folder)\b", kind) else ""
    what = article + kind
    if key.range is not None:
        ends = str(key.range)
        if ends[0].isdigit():
            ends = f"from {ends}"
        several = get_origin(key.hint) is tuple
        what += ", each " if several else " of " if ends.startswith("at least") else " "
        what += ends
    return what + (", or null" if key.optional else "")


def shown(value: object) -> str:
    """A value as one writes it in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {shown(item)}' for name, item in value.items())}}}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def smallest_inputs(config: Config) -> list[tuple[str, int, str]]:
    """Keys of sizes, each with the least side that a discriminator needs, and with its name."""
    least = [("translation.crop", 24, "patch discriminator")]
    if config.iterations and config.segmentation.adversarial.weight > 0:
        crop = "segmentation.augmentation.crop"
        given = [crop] if value_at(config, crop) else ["data.source.size", "data.target.size"]
        least += [(key, OUTPUT_LEAST, OUTPUT_DISCRIMINATOR) for key in given]
    return least


def trains_translators(config: Config) -> bool:
    """Whether source images are translated by networks that the run's rounds train or are given."""
    return config.translation.images is None and config.translation.method == "cyclegan"


def domains_of(config: Config) -> dict[str, DomainConfig]:
    """The sections of the data sets that are there, by key."""
    keys = [f"data.{role}" for role in ("source", "target", "target_labelled", "validation")]
    return {key: domain for key in keys if (domain := value_at(config, key)) is not None}


def _small_images(config: Config) -> Faults:
    for key, least, network in smallest_inputs(config):
        size = value_at(config, key)
        if size is not None and min(size) < least:
            problem = f"is {shown(size)}, must be at least {least} each for the {network}"
            yield Fault(key, problem, ("iterations", "segmentation.adversarial.weight"))


def _zoom(config: Config) -> Faults:
    scale = config.segmentation.augmentation.scale
    if scale[0] > scale[1]:
        yield Fault(
            "segmentation.augmentation.scale", f"is {shown(scale)}, must be [smallest, largest]"
        )
    elif scale[0] < 1 and config.segmentation.augmentation.crop is None:
        yield Fault(
            "segmentation.augmentation.scale",
            f"is {shown(scale)}: images get smaller than they are used; set "
            "segmentation.augmentation.crop, or a smallest scale of 1 or more",
            ("segmentation.augmentation.crop",),
        )


def _folder_name(config: Config) -> Faults:
    """TensorBoard, for one, takes no name of bytes that are no text."""
    try:
        config.out.encode()
    except UnicodeEncodeError:
        yield Fault("out", f"{shown(config.out)} is no text in UTF-8; choose another name")


def _scales(config: Config) -> Faults:
    key = "segmentation.pseudo_labels.scales"
    scales = config.segmentation.pseudo_labels.scales
    target = config.data.target
    if target is None or scales == (1.0,):
        return
    sides = target.size or ((target.width,) if target.width is not None else ())
    if not sides:
        problem = f"is {shown(scales)}, of which size? Set data.target.size or data.target.width"
        yield Fault(key, problem, ("data.target.size", "data.target.width"))
    elif min(sides) * min(scales) < 8:
        problem = f"is {shown(scales)}: images of less than 8 pixels a side"
        yield Fault(key, problem, ("data.target.size", "data.target.width"))


def _sizes(config: Config) -> Faults:
    for key, domain in domains_of(config).items():
        if domain.size is not None and domain.width is not None:
            problem = f"is {domain.width}, and {key}.size is {shown(domain.size)}; set one to null"
            yield Fault(f"{key}.width", problem, (f"{key}.size",))


def _shares_of_batches(config: Config) -> Faults:
    processes = config.devices * config.nodes
    of = "devices" if config.nodes == 1 else "devices x nodes"
    for key in ("translation.batch_size", "segmentation.batch_size"):
        batch_size = value_at(config, key)
        if batch_size % processes:
            problem = f"is {batch_size}, must be a multiple of {of} ({processes})"
            yield Fault(key, problem, ("devices", "nodes"))


def _epochs(config: Config) -> Faults:
    constant, decay = config.translation.constant_epochs, config.translation.decay_epochs
    trains = config.iterations > 0 and trains_translators(config)
    if trains and constant + decay < (2 if decay else 1):  # a decay's last epoch has the rate 0
        problem = f"is {constant}, with decay_epochs {decay}; nothing would be trained"
        yield Fault("translation.constant_epochs", problem, ("translation.decay_epochs",))


def _nothing_to_learn(config: Config) -> Faults:
    """The other terms may weigh 0, too, where the frozen network does not know the target."""
    section = "translation.weights"
    keys = tuple(f"{section}.{name}" for name in ("adversarial", "cycle", "identity"))
    trains = config.iterations > 0 and trains_translators(config)
    if trains and not any(value_at(config, key) for key in keys):
        problem = f"is 0, as are {keys[1]} and {keys[2]}; set one of them above 0"
        yield Fault(keys[0], f"{problem}, or a translator may learn nothing", keys[1:])


def _two_translations(config: Config) -> Faults:
    method, images = config.translation.method, config.translation.images
    if method != "cyclegan" and images is not None:
        problem = (
            f"is {method}, and translation.images gives images that are translated already; set "
            "translation.images=null, or leave the method out"
        )
        yield Fault("translation.method", problem, ("translation.images",))


def _schedule(config: Config) -> Faults:
    """A rate that is zero before a training ends, and drops of which nobody says when."""
    key, schedule = "segmentation.schedule.steps", config.segmentation.schedule
    if schedule.steps is None:
        if schedule.name == "step":
            problem = "is null; schedule.name=step needs it: the steps between two drops"
            yield Fault(key, problem, ("segmentation.schedule.name",))
        return
    poly = schedule.name == "poly"
    ends = schedule.power > 0 if poly else schedule.gamma == 0
    for length, steps in trainings_of(config).items():
        if ends and steps > schedule.steps:
            remedy = f"{key}=null to follow the training" if poly else "a gamma above 0"
            problem = (
                f"is {schedule.steps}, where the rate becomes 0, but {length} is {steps}: nothing "
                f"would be learned after that; set {remedy}"
            )
            yield Fault(key, problem, (length, "segmentation.schedule.name"))
            return


def trainings_of(config: Config) -> dict[str, int]:
    """The steps of the trainings of segmentation networks that the run has, by the key that says
    how many."""
    given = config.segmentation.checkpoints
    rounds = range(1, config.iterations + 1)
    first = ["source-only", *(f"k{k}/segmentation-0" for k in rounds)]
    later = [
        f"k{k}/segmentation-{i}" for k in rounds for i in range(1, config.self_training_steps + 1)
    ]
    trainings = {}
    if any(name not in given for name in first):
        trainings["segmentation.steps"] = config.segmentation.steps
    steps = config.segmentation.pseudo_label_steps
    if any(name not in given for name in later):
        if steps is not None:
            trainings["segmentation.pseudo_label_steps"] = steps
        else:
            trainings["segmentation.steps"] = config.segmentation.steps
    return trainings


def _missing_target(config: Config) -> Faults:
    if config.data.target is None and config.iterations > 0:
        problem = f"is null, and iterations={config.iterations} adapts to it; set iterations=0"
        yield Fault("data.target", f"{problem}, or give the target's images", ("iterations",))


def _labelled_target(config: Config) -> Faults:
    """Labelled images of the target are used as the target's others are."""
    key, target = "data.target_labelled", config.data.target
    labelled = config.data.target_labelled
    if labelled is None:
        return
    if target is None:
        problem = "is set, and data.target is null; give the target's images, or set"
        yield Fault(key, f"{problem} {key}=null", ("data.target",))
        return
    for name in ("size", "width"):
        own, of_target = getattr(labelled, name), getattr(target, name)
        if own is not None and own != of_target:
            problem = f"is {shown(own)}, and data.target.{name} {shown(of_target)}; leave it out"
            yield Fault(f"{key}.{name}", f"{problem}: it is the target's", (f"data.target.{name}",))


def _nothing_to_score_on(config: Config) -> Faults:
    key, every = "segmentation.validate_every", config.segmentation.validate_every
    if every is not None and config.data.validation is None:
        problem = f"is {every}, and data.validation is null; give labelled images there, or set"
        yield Fault(key, f"{problem} {key}=null", ("data.validation",))


def _data_sets(config: Config) -> Faults:
    for key, domain in domains_of(config).items():
        if domain.layout == "streets" and domain.root is None and domain.scenes < 1:
            problem = "is 0; give the number of scenes to render"
            yield Fault(f"{key}.scenes", problem, (f"{key}.layout", f"{key}.root"))
        for name in ("images", "labels"):
            pattern = getattr(domain, name)
            if pattern and (Path(pattern).is_absolute() or ".." in Path(pattern).parts):
                yield Fault(f"{key}.{name}", f"'{pattern}' leads out of the root; move the root")


def _crops(config: Config) -> Faults:
    key, smallest = "segmentation.augmentation.crop", config.segmentation.augmentation.scale[0]
    crop = config.segmentation.augmentation.crop
    for domain_key, domain in domains_of(config).items():
        size = domain.size
        if crop is None or domain_key == "data.validation":
            continue
        if domain.width is not None and crop[0] > round(smallest * domain.width):
            problem = f"is {shown(crop)}, wider than {domain_key}.width {domain.width}"
            others = (f"{domain_key}.width", "segmentation.augmentation.scale")
            yield Fault(key, f"{problem} at the smallest scale", others)
        if size is None:
            continue
        if any(c > round(smallest * s) for c, s in zip(crop, size, strict=True)):
            problem = f"is {shown(crop)}, larger than {domain_key}.size {shown(size)}"
            others = (f"{domain_key}.size", "segmentation.augmentation.scale")
            yield Fault(key, f"{problem} at the smallest scale", others)
    crop, width = config.translation.crop, config.translation.load_width
    if width is not None and crop[0] > width:
        problem = f"is {shown(crop)}, wider than translation.load_width {width}"
        yield Fault("translation.crop", problem, ("translation.load_width",))


def _mixed_sizes(config: Config) -> Faults:
    segmentation, data = config.segmentation, config.data
    mixes = segmentation.class_mixing and config.iterations * config.self_training_steps > 0
    if not mixes or segmentation.augmentation.crop is not None or data.target is None:
        return
    if data.source.size is None or data.source.size != data.target.size:
        yield Fault(
            "segmentation.class_mixing",
            f"needs source and target images of one size, has {shown(data.source.size)} and "
            f"{shown(data.target.size)}; set segmentation.augmentation.crop, or one size for both",
            ("data.source.size", "data.target.size", "segmentation.augmentation.crop"),
        )


_CHECKS: tuple[Callable[[Config], Faults], ...] = (
    _folder_name,
    _small_images,
    _zoom,
    _scales,
    _sizes,
    _shares_of_batches,
    _epochs,
    _nothing_to_learn,
    _two_translations,
    _schedule,
    _missing_target,
    _labelled_target,
    _nothing_to_score_on,
    _data_sets,
    _crops,
    _mixed_sizes,
)
