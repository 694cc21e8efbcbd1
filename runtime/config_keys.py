"""Every key of the configuration: its type, its range, its default and what it means.

The defaults are the paper's GTA5 -> Cityscapes recipe with DeepLab-v2, but for the schedule, which
follows the training. docs/configuration.md is made from this file, and so are the checks of types
(the annotations) and of ranges (`number`); config_checks.py has what concerns several keys at once.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed", "auto"]
Switch = Literal["auto", "true", "false"]


@dataclass(frozen=True)
class Range:
    """Where a number may lie: from `least` or from above `above`, to `most` or to below `below`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Whether `number` lies in it; infinity and NaN lie in none."""
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (number <= self.most if self.most is not None else number < float("inf"))
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.most is None and self.below is None:
            return f"above {self.above}" if self.least is None else f"at least {self.least}"
        first = f"above {self.above}" if self.least is None else f"{self.least}"
        return f"{first} to {self.most}" if self.below is None else f"{first} to below {self.below}"


def number(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    form: str | None = None,
) -> Any:
    """A field of a number, or of several, each of which lies in the range.

    Args:
        default: The field's default.
        least, above, most, below: The range's ends, as in `Range`.
        form: What several numbers are, for example "[width, height] in pixels".
    """
    return field(
        default=default, metadata={"range": Range(least, above, most, below), "form": form}
    )


def pixels(default: tuple[int, int] | None) -> Any:
    """A field of a width and a height in pixels."""
    return number(default, least=8, form="[width, height] in pixels")


def decay_rates(*default: float) -> Any:
    """A field of the two decay rates of Adam's means."""
    return number(default, least=0, below=1)


def path(what: str, default: str | None = None) -> Any:
    """A field of the path of a file or folder, in which a leading ~ is the home folder."""
    return field(default=default, metadata={"path": what})


@dataclass
class DomainConfig:
    """One set of images, with or without labels."""

    layout: str = "folder"  # folder | gta5 | synthia | synthia_mapped | cityscapes | streets
    root: str | None = path("folder")  # of the data set; streets render into the run without it
    split: str = "train"  # fills {split} in the layout's patterns
    images: str | None = None  # pattern below root, e.g. images/*.png; default: the layout's
    labels: str | None = None  # pattern with as many *, e.g. labels/*.png; default: the layout's
    encoding: str | None = None  # how label files count classes; default: the layout's
    list_file: str | None = path("file")  # text of the names of the images to use, one a line
    on_error: Literal["stop", "skip"] = "stop"  # skip: samples that cannot be used are left out
    size: tuple[int, int] | None = pixels(None)  # images are resized to it; default: as stored
    # In place of `size`: images are resized to this width, each keeps its shape
    width: int | None = number(None, least=8)
    scenes: int = number(0, least=0)  # streets: how many to render
    appearance: Literal["synthetic", "real"] = "synthetic"  # streets: how they look


def _source() -> DomainConfig:
    return DomainConfig(layout="gta5", size=(1280, 720))


def _target() -> DomainConfig:
    return DomainConfig(layout="cityscapes", size=(1024, 512))


def _validation() -> DomainConfig:
    return DomainConfig(layout="cityscapes", split="val", size=(1024, 512))


@dataclass
class DataConfig:
    # A name, or the path of a YAML file
    label_space: str = path("name or file", "cityscapes19")
    source: DomainConfig = field(default_factory=_source)  # Its labels are what is learned.
    # Its labels are never opened. null, for none, goes with iterations=0.
    target: DomainConfig | None = field(default_factory=_target)
    # Its labels only measure. null, for none: nothing is evaluated.
    validation: DomainConfig | None = field(default_factory=_validation)
    # A few labelled images like the target's, from one on: all networks but source only learn from
    # them, and none may be a validation image. They get the target's size: leave size and width
    # out. null: there are none.
    target_labelled: DomainConfig | None = None
    workers: int = number(2, least=0)  # processes that load images; 0: the training process does
    cache: str | None = path("folder")  # keeps decoded and resized images; runs may share it
    cache_gb: float = number(100.0, least=0)  # no more are added once they take this many GB


@dataclass
class GeneratorConfig:
    width: int = number(64, least=1)  # channels of the first convolution
    blocks: int = number(9, least=0)  # residual blocks
    skip: bool = False  # adds the normalised image to what it draws, which keeps its detail
    # Random texture that source images get: standard deviation, where images are 0 to 1
    grain: float = number(0.0, least=0)


@dataclass
class _OtherWeights:
    adversarial: float = number(1.0, least=0)  # least squares, against the patch discriminators
    cycle: float = number(10.0, least=0)  # L1 between an image and its reconstruction
    identity: float = number(5.0, least=0)  # L1 between an image and its translation to itself


@dataclass
class TranslationWeights(_OtherWeights):
    """The weights of one translator's training."""

    perceptual: float = 0.1
    perceptual_reconstruction: float = 10.0

    @property
    def is_perceptual(self) -> bool:
        """Whether any term compares what the frozen network sees."""
        return self.perceptual > 0 or self.perceptual_reconstruction > 0


def by_round(default: float) -> Any:
    """A field of a number of at least 0 for each round of the loop."""
    return number((default,), least=0, form="number, or list of numbers by round")


@dataclass
class WeightsByRound(_OtherWeights):
    """Weights of the translation loss's terms, each used for both directions."""

    # Score maps of an image and of its translation. Of a list, F(k) has the k-th number; the last
    # one stays for the rounds after it
    perceptual: tuple[float, ...] = by_round(0.1)
    perceptual_reconstruction: tuple[float, ...] = by_round(10.0)  # the same of its reconstruction

    def of_round(self, k: int) -> TranslationWeights:
        """The weights of F(k); rounds are counted from 1."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("perceptual", "perceptual_reconstruction"):
            values[name] = values[name][min(k, len(values[name])) - 1]
        return TranslationWeights(**values)


@dataclass
class _TranslatorSettings:
    # Images are scaled to this width before cropping; null: as stored
    load_width: int | None = number(1024, least=8)
    crop: tuple[int, int] = pixels((452, 452))  # cut at random
    flip: bool = True  # mirror every second image
    batch_size: int = number(4, least=1)  # over all devices of all machines together
    constant_epochs: int = number(10, least=0)  # at the full learning rate
    decay_epochs: int = number(10, least=0)  # linearly down to zero; the last is left out
    steps_per_epoch: int | None = number(None, least=1)  # default: source images / batch_size
    lr: float = number(2e-4, least=0)  # of generators and discriminators
    betas: tuple[float, float] = decay_rates(0.5, 0.999)  # Adam
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator_width: int = number(64, least=1)  # channels of its first convolution
    pool_size: int = number(50, least=0)  # past fakes kept for the discriminators, on all devices


@dataclass
class TranslatorTraining(_TranslatorSettings):
    """What the training of a translator reads."""

    weights: TranslationWeights = field(default_factory=TranslationWeights)


@dataclass
class FourierConfig:
    """Translation without training (FDA)."""

    # Frequencies of up to this part of each side, in cycles an image, get the amplitudes of a
    # target image; phases stay
    beta: float = number(0.01, least=0, most=0.5)


@dataclass
class TranslationConfig(_TranslatorSettings):
    """The translators: how they are trained, and what may take their place."""

    # cyclegan: a translator is trained in each round; fda: amplitudes of low frequencies, see `fda`
    method: Literal["cyclegan", "fda"] = "cyclegan"
    fda: FourierConfig = field(default_factory=FourierConfig)
    weights: WeightsByRound = field(default_factory=WeightsByRound)
    # full: perceptual weights as they stand; measured: times how far the frozen network knows the
    # target (0 to 1), which is judged without the target's labels
    trust: Literal["measured", "full"] = "measured"
    images: str | None = path("folder")  # of images translated already: in a translator's place
    # Translators trained elsewhere that take a stage's place, e.g. {k1/translator: FILE}
    checkpoints: dict[str, str] = field(default_factory=dict, metadata={"path": "file"})
    # A translator starts from: initial, or previous, the round before's; null: as `init`
    init: Literal["initial", "previous"] | None = None
    # Activations of residual blocks and of the frozen network are computed again for the backward
    # pass instead of kept: less memory, more time, the same gradients.
    gradient_checkpointing: bool = False
    # Of the source and of the target, on which each translator is measured; 0: none
    measure_images: int = number(200, least=0)

    def of_round(self, k: int) -> TranslatorTraining:
        """What the training of F(k) reads."""
        shared = part_of(_TranslatorSettings, self)
        return TranslatorTraining(**vars(shared), weights=self.weights.of_round(k))


@dataclass
class OptimizerConfig:
    name: Literal["sgd", "adam", "adamw"] = "sgd"  # the method
    lr: float = number(2.5e-4, least=0)  # of the backbone
    head_multiplier: float = number(10.0, least=0)  # factor on the rate of the classifier head
    # Each layer learns at this factor of the rate of the one after it; null: all alike
    layer_decay: float | None = number(None, above=0, most=1)
    momentum: float = number(0.9, least=0)  # sgd
    betas: tuple[float, float] = decay_rates(0.9, 0.99)  # adam, adamw
    weight_decay: float = number(5e-4, least=0)  # of all weights
    # As the paper prints them, or effective: what the published optimizer did (deeplab_v2)
    rates: Literal["printed", "effective"] = "printed"


@dataclass
class ScheduleConfig:
    """The learning rate over the steps, for the network and the discriminator alike."""

    name: Literal["poly", "step"] = "poly"  # a descent to zero, or drops
    # poly: where the rate reaches zero; default: the end of the training. step: steps between drops
    steps: int | None = number(None, least=1)
    power: float = number(0.9, least=0)  # poly
    gamma: float = number(0.1, least=0)  # step: factor of a drop
    # Steps in which the rate rises linearly from next to nothing
    warmup_steps: int = number(0, least=0)


@dataclass
class AdversarialConfig:
    weight: float = number(1e-3, least=0)  # lambda_adv; 0 trains without the discriminator
    lr: float = number(1e-4, least=0)  # of the discriminator
    betas: tuple[float, float] = decay_rates(0.9, 0.99)  # Adam
    width: int = number(64, least=1)  # channels of the discriminator's first convolution


@dataclass
class PseudoLabelConfig:
    # Of a class's confidences; its value is the class's threshold
    quantile: float = number(0.5, least=0, most=1)
    max_threshold: float = number(0.9, least=0, most=1)  # no class's threshold is higher
    flip: bool = False  # the mean prediction of the image and of its mirror image is used
    # Likewise of the image resized by each factor
    scales: tuple[float, ...] = number((1.0,), above=0)
    # Labels of a class are at most so many times those of the pseudo labels before; beyond it the
    # least confident are left out. null: no limit
    max_growth: float | None = field(
        default=None, metadata={"range": Range(least=1), "optional": True}
    )


@dataclass
class AugmentationConfig:
    flip: bool = False  # mirror every second image
    # Range of a random zoom
    scale: tuple[float, float] = number((1.0, 1.0), above=0, form="[smallest, largest]")
    crop: tuple[int, int] | None = pixels(None)  # cut at random; default: the whole image
    # Colour: largest relative change, drawn for each image
    brightness: float = number(0.0, least=0)
    contrast: float = number(0.0, least=0)  # likewise
    saturation: float = number(0.0, least=0)  # likewise
    hue: float = number(0.0, least=0, most=0.5)  # largest shift, in turns of the colour circle


@dataclass
class EvaluationConfig:
    size: tuple[int, int] | None = pixels(None)  # to score at; default: the stored labels' size


@dataclass
class SegmenterTraining:
    """What every training of a segmentation network reads."""

    # compact | deeplab_v2 | fcn8s_vgg16 | timm:BACKBONE | smp:ARCH/ENCODER | python:MODULE:FUNCTION
    network: str = "deeplab_v2"
    # The network's own, see its file; a file or command line that names another network drops them
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"no settings": ("gradient_checkpointing",)}
    )
    # Source images a step, and as many target images; over all devices together
    batch_size: int = number(1, least=1)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass
class SegmentationConfig(SegmenterTraining):
    """The segmentation networks: how they are trained, on what, and how they are measured."""

    weights: str | None = path("file")  # initial weights; default: the network's own
    # Networks trained elsewhere that take a stage's place, e.g. {k1/segmentation-0: FILE}
    checkpoints: dict[str, str] = field(default_factory=dict, metadata={"path": "file"})
    steps: int = number(80_000, least=1)  # of a training without pseudo labels
    # Of a training with pseudo labels; null: `steps`
    pseudo_label_steps: int | None = number(120_000, least=1)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    # Networks train on the source images as they are beside their translations, in equal shares
    originals: bool = False
    # Half of each source image's classes are pasted onto the target image beside it, in trainings
    # with pseudo labels; needs images of one size: augmentation.crop, or equal data sizes
    class_mixing: bool = False
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    # Steps from one evaluation of a network in training on the validation images to the next: a
    # curve, and the best state is kept; null: none
    validate_every: int | None = number(None, least=1)


@dataclass
class Config:
    out: str = path("folder", "runs/gta5-cityscapes")  # of the run
    seed: int = number(0, least=0)  # of every draw: weights, order, crops
    iterations: int = number(2, least=0)  # K: rounds of translation and segmentation
    self_training_steps: int = number(2, least=0)  # N: pseudo-label trainings in each round
    # Each training starts from: initial, the initial weights; previous, the network before it;
    # adapted, likewise, but M(1,0) from the initial weights
    init: Literal["initial", "previous", "adapted"] = "initial"
    device: DeviceName = "auto"  # what computes; auto: the fastest here
    devices: int = number(1, least=1)  # processes, one a device, on each machine
    nodes: int = number(1, least=1)  # machines; torchrun or Slurm starts the processes of several
    # auto: bf16 where the hardware computes in it
    precision: PrecisionName = "32-true"
    # torch.compile for blocks of the networks that train and for the loss, with a C++ compiler on
    # the CPU; auto: no, as it is not measured on a GPU yet
    compile: Switch = "auto"
    # Steps of trainings are recorded once and replayed (CUDA graphs), on one CUDA device; auto: no
    replay: Switch = "auto"
    log_every: int = number(20, least=1)  # steps between entries of curves
    checkpoint_every: int = number(200, least=1)  # steps between states to resume from
    # The latest of them stay while a stage trains; its result always
    keep_checkpoints: int = number(2, least=1)
    data: DataConfig = field(default_factory=DataConfig)
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)


# Keys that had other names, which are still read
RENAMED = {
    "segmentation.pseudo_labels.portion": "segmentation.pseudo_labels.quantile",
    "segmentation.pseudo_labels.cap": "segmentation.pseudo_labels.max_threshold",
}


def part_of(kind: type[Kind], config: object) -> Kind:
    """The fields of the dataclass `kind` copied out of `config`, whose class is derived from it."""
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: deepcopy(getattr(config, name)) for name in names})


def value_at(config: object, key: str) -> Any:
    """The value of a dotted key, e.g. "segmentation.optimizer.lr"; None below a null section."""
    for part in key.split("."):
        config = None if config is None else getattr(config, part)
    return config


def default_of(key: str) -> Any:
    """The default of a dotted key; in a section that is null by default, that of the section once
    it is there."""
    section, _, name = key.rpartition(".")
    holder = value_at(Config(), section) if section else Config()
    return getattr(all_keys()[section].hint() if holder is None else holder, name)


def set_value(config: object, key: str, value: Any) -> None:
    """Give a dotted key a value; its section must be there."""
    section, _, name = key.rpartition(".")
    setattr(value_at(config, section) if section else config, name, value)


def known_keys() -> list[str]:
    """All dotted keys of the configuration, sections included."""
    return list(all_keys())


@dataclass(frozen=True)
class Key:
    """A key's type without None, whether None is a value of it, and its field's metadata."""

    hint: Any
    optional: bool
    metadata: Mapping[str, Any]

    @property
    def is_section(self) -> bool:
        return is_dataclass(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values to choose from; empty where any of the type will do."""
        return get_args(self.hint) if get_origin(self.hint) is Literal else ()

    @property
    def is_list(self) -> bool:
        """Whether it takes any number of values; one alone is a list of one."""
        return get_origin(self.hint) is tuple and get_args(self.hint)[-1] is Ellipsis

    @property
    def takes_text(self) -> bool:
        return self.hint is str or bool(self.choices)

    @property
    def range(self) -> Range | None:
        return self.metadata.get("range")

    def __str__(self) -> str:
        """What a value of it is, in words."""
        if self.choices:
            return " | ".join(self.choices)
        if self.metadata.get("form"):
            return str(self.metadata["form"])
        arguments = get_args(self.hint)
        if get_origin(self.hint) is tuple:
            kind = {int: "whole numbers", float: "numbers"}[arguments[0]]
            return f"list of {kind}" if self.is_list else f"two {kind}"
        text = self.metadata.get("path", "text")
        if get_origin(self.hint) is dict:
            return f"{{name: {text}}}" if arguments[1] is str else "{name: value}"
        return text if self.hint is str else _WORDS[self.hint]


_WORDS = {int: "whole number", float: "number", bool: "true | false"}


@cache
def all_keys() -> Mapping[str, Key]:
    """All keys, sections included, by dotted name."""
    return dict(_keys(Config, ""))


def _keys(kind: Any, prefix: str) -> list[tuple[str, Key]]:
    keys: list[tuple[str, Key]] = []
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint, name = hints[item.name], prefix + item.name
        optional = get_origin(hint) in (Union, UnionType)
        if optional:
            (hint,) = (given for given in get_args(hint) if given is not NoneType)
        keys.append((name, Key(hint, optional, item.metadata)))
        if is_dataclass(hint):
            keys += _keys(hint, f"{name}.")
    return keys
