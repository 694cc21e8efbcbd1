"""The configuration: every key a recipe can set, with its type, default and meaning.

The defaults are the paper's GTA5 -> Cityscapes recipe with DeepLab-v2; a YAML file states what it
changes, the command line's `key=value` comes last.
"""

import difflib
import math
import re
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from runtime.errors import UserError


@dataclass
class DomainConfig:
    """One set of images, with or without labels."""

    layout: str = "folder"  # folder | gta5 | synthia | synthia_mapped | cityscapes | streets
    root: str | None = None  # folder of the data set; streets render into the run without it
    split: str = "train"  # fills {split} in the layout's patterns
    images: str | None = None  # pattern below root, e.g. images/*.png; default: the layout's
    labels: str | None = None  # pattern with as many *, e.g. labels/*.png; default: the layout's
    encoding: str | None = None  # how label files count classes; default: the layout's
    list_file: str | None = None  # text file that names the images to use, one a line
    on_error: str = "stop"  # stop | skip: what a sample does whose files cannot be used
    size: list[int] | None = None  # width, height the images are resized to; default: as stored
    scenes: int = 0  # streets: how many to render
    appearance: str = "synthetic"  # streets: synthetic | real


@dataclass
class DataConfig:
    label_space: str = "cityscapes19"  # a name, or the path of a YAML file
    source: DomainConfig = field(
        default_factory=lambda: DomainConfig(layout="gta5", size=[1280, 720])
    )
    target: DomainConfig = field(
        default_factory=lambda: DomainConfig(layout="cityscapes", size=[1024, 512])
    )
    validation: DomainConfig = field(
        default_factory=lambda: DomainConfig(layout="cityscapes", split="val", size=[1024, 512])
    )
    workers: int = 2  # processes that load images; 0 loads in the training process
    cache: str | None = None  # folder that keeps decoded and resized images; runs may share it
    cache_gb: float = 100.0  # no more are added once they take this many GB


@dataclass
class GeneratorConfig:
    width: int = 64  # channels of the first convolution
    blocks: int = 9  # residual blocks
    skip: bool = False  # adds the normalised image to what it draws, which keeps its detail
    grain: float = 0.0  # random texture that source images get: standard deviation, of 0 to 1


@dataclass
class TranslationWeights:
    """Weights of the translation loss's terms, each used for both directions."""

    adversarial: float = 1.0  # least squares, against the patch discriminators
    cycle: float = 10.0  # L1 between an image and its reconstruction
    identity: float = 5.0  # L1 between an image and its translation into its own domain
    perceptual: float = 0.1  # score maps of an image and of its translation
    perceptual_reconstruction: float = 10.0  # the same of its reconstruction


@dataclass
class TranslationConfig:
    images: str | None = None  # folder of images translated already: takes a translator's place
    # Translators trained elsewhere that take a stage's place, e.g. {k1/translator: FILE}
    checkpoints: dict[str, str] = field(default_factory=dict)
    load_width: int | None = 1024  # images are scaled to this width before cropping
    crop: list[int] = field(default_factory=lambda: [452, 452])  # width, height
    flip: bool = True  # mirror every second image
    batch_size: int = 4  # over all devices of all machines together
    constant_epochs: int = 10  # at the full learning rate
    decay_epochs: int = 10  # linearly down to zero
    steps_per_epoch: int | None = None  # default: source images / batch_size
    init: str | None = None  # initial | previous: the round before's translator; null: as `init`
    lr: float = 2e-4  # of generators and discriminators
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])  # Adam
    # Activations of residual blocks and of the frozen network are computed again for the backward
    # pass instead of kept: less memory, more time, the same gradients.
    gradient_checkpointing: bool = False
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator_width: int = 64  # channels of its first convolution
    pool_size: int = 50  # past fakes kept for the discriminators, over all devices together
    weights: TranslationWeights = field(default_factory=TranslationWeights)
    measure_images: int = 200  # of the source, on which each translator is measured; 0: none


@dataclass
class OptimizerConfig:
    name: str = "sgd"  # sgd | adam | adamw
    lr: float = 2.5e-4  # of the backbone
    head_multiplier: float = 10.0  # the classifier head learns this many times faster
    momentum: float = 0.9  # sgd
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])  # adam, adamw
    weight_decay: float = 5e-4  # of all weights
    rates: str = "printed"  # printed | effective: what the published optimizer did (deeplab_v2)


@dataclass
class ScheduleConfig:
    """The learning rate over the steps, for the network and the discriminator alike."""

    name: str = "poly"  # poly | step
    steps: int = 250_000  # poly: where the rate would reach zero; step: steps between drops
    power: float = 0.9  # poly
    gamma: float = 0.1  # step: factor of a drop


@dataclass
class AdversarialConfig:
    weight: float = 1e-3  # lambda_adv; 0 trains without the discriminator
    lr: float = 1e-4  # of the discriminator
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])  # Adam
    width: int = 64  # channels of the discriminator's first convolution


@dataclass
class PseudoLabelConfig:
    portion: float = 0.5  # the quantile of a class's confidences that becomes its threshold
    cap: float = 0.9  # no threshold is higher
    flip: bool = False  # the mean prediction of the image and of its mirror image is used
    scales: list[float] = field(default_factory=lambda: [1.0])  # likewise of the image so resized


@dataclass
class AugmentationConfig:
    flip: bool = False  # mirror every second image
    scale: list[float] = field(default_factory=lambda: [1.0, 1.0])  # range of a random zoom
    crop: list[int] | None = None  # width, height; default: the whole image
    brightness: float = 0.0  # colour: largest relative change, drawn for each image
    contrast: float = 0.0  # likewise
    saturation: float = 0.0  # likewise
    hue: float = 0.0  # largest shift, in turns of the colour circle (at most 0.5)


@dataclass
class EvaluationConfig:
    size: list[int] | None = None  # width, height to score at; default: the stored labels' size


@dataclass
class SegmentationConfig:
    network: str = "deeplab_v2"  # compact | deeplab_v2 | fcn8s_vgg16 | timm:BACKBONE
    # The network's own, see its file; a file or command line that names another network drops them
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None  # initial weights; default: the network's own initialisation
    # Networks trained elsewhere that take a stage's place, e.g. {k1/segmentation-0: FILE}
    checkpoints: dict[str, str] = field(default_factory=dict)
    steps: int = 80_000  # when trained without pseudo labels
    pseudo_label_steps: int | None = 120_000  # steps when trained with pseudo labels; null: `steps`
    batch_size: int = 1  # source images a step, and as many target images; over all devices
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    pseudo_labels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    # Networks train on the source images as they are beside their translations, in equal shares
    originals: bool = False
    # Half of each source image's classes are pasted onto the target image beside it, in trainings
    # with pseudo labels; needs images of one size: augmentation.crop, or equal data sizes
    class_mixing: bool = False
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass
class Config:
    out: str = "runs/gta5-cityscapes"  # folder of the run
    seed: int = 0  # of every draw: weights, order, cuts
    iterations: int = 2  # K: rounds of translation and segmentation
    self_training_steps: int = 2  # N: pseudo-label trainings in each round
    # Each training starts from: initial | previous, the network before it | adapted, likewise but
    # for M(1,0), as source only has not seen the target
    init: str = "initial"
    device: str = "auto"  # auto | cpu | cuda | mps
    devices: int = 1  # processes, one a device, on each machine
    nodes: int = 1  # machines; torchrun or Slurm starts the processes of several
    precision: str = "32-true"  # 32-true | bf16-mixed | 16-mixed | auto
    compile: bool = False  # torch.compile for the networks that train: meant for a GPU
    log_every: int = 20  # steps between entries of curves
    checkpoint_every: int = 200  # steps between states to resume from
    keep_checkpoints: int = 2  # the latest of them stay while a stage trains; its result always
    data: DataConfig = field(default_factory=DataConfig)
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)


CONFIGURATIONS = Path(__file__).resolve().parent.parent / "configs"
BASE_KEY = "base"  # a file's own key: YAML files, beside it or own, that it builds on, last wins

_CHOICES = {
    "init": ("initial", "previous", "adapted"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("32-true", "bf16-mixed", "16-mixed", "auto"),
    "translation.init": ("initial", "previous"),
    "segmentation.optimizer.name": ("sgd", "adam", "adamw"),
    "segmentation.optimizer.rates": ("printed", "effective"),
    "segmentation.schedule.name": ("poly", "step"),
    "data.source.on_error": ("stop", "skip"),
    "data.target.on_error": ("stop", "skip"),
    "data.validation.on_error": ("stop", "skip"),
    "data.source.appearance": ("synthetic", "real"),
    "data.target.appearance": ("synthetic", "real"),
    "data.validation.appearance": ("synthetic", "real"),
}
_AT_LEAST = {
    "seed": 0,
    "iterations": 0,
    "self_training_steps": 0,
    "devices": 1,
    "nodes": 1,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "data.workers": 0,
    "data.cache_gb": 0,
    "data.source.scenes": 0,
    "data.target.scenes": 0,
    "data.validation.scenes": 0,
    "translation.batch_size": 1,
    "translation.constant_epochs": 0,
    "translation.decay_epochs": 0,
    "translation.steps_per_epoch": 1,
    "translation.pool_size": 0,
    "translation.measure_images": 0,
    "translation.load_width": 8,
    "translation.generator.width": 1,
    "translation.generator.blocks": 0,
    "translation.generator.grain": 0,
    "translation.discriminator_width": 1,
    "translation.weights.adversarial": 0,
    "translation.weights.cycle": 0,
    "translation.weights.identity": 0,
    "translation.weights.perceptual": 0,
    "translation.weights.perceptual_reconstruction": 0,
    "translation.lr": 0,
    "segmentation.steps": 1,
    "segmentation.pseudo_label_steps": 1,
    "segmentation.batch_size": 1,
    "segmentation.optimizer.lr": 0,
    "segmentation.optimizer.head_multiplier": 0,
    "segmentation.optimizer.momentum": 0,
    "segmentation.optimizer.weight_decay": 0,
    "segmentation.schedule.steps": 1,
    "segmentation.schedule.power": 0,
    "segmentation.schedule.gamma": 0,
    "segmentation.adversarial.weight": 0,
    "segmentation.adversarial.width": 1,
    "segmentation.adversarial.lr": 0,
    "segmentation.augmentation.brightness": 0,
    "segmentation.augmentation.contrast": 0,
    "segmentation.augmentation.saturation": 0,
    "segmentation.augmentation.hue": 0,
}
_AT_MOST = {
    "segmentation.pseudo_labels.portion": 1,
    "segmentation.pseudo_labels.cap": 1,
    "segmentation.augmentation.hue": 0.5,
}
_PAIRS = (
    "data.source.size",
    "data.target.size",
    "data.validation.size",
    "translation.crop",
    "segmentation.augmentation.crop",
    "segmentation.evaluation.size",
)


def load_config(
    path: str | Path, overrides: list[str] | None = None, problems: list[str] | None = None
) -> Config:
    """Read a YAML file and `key=value` overrides into a checked Config.

    `path` is a file, or the name of one of the project's own configurations. Raises UserError
    that names the file (or the command line) and the key; with a list `problems`, values that
    cannot be used are added to it instead, all of them.
    """
    file = find_config(path)
    schema = OmegaConf.structured(Config)
    for origin, content in [*_layers(file, ()), _override_layer(overrides or [])]:
        schema = _merge(schema, content, origin)
    try:
        config = OmegaConf.to_object(schema)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "configuration"
        unset = re.search(r"Environment variable '(\w+)' not found", str(error))
        problem = (
            f"the environment variable {unset[1]} is not set; set it, or give {key}=VALUE"
            if unset
            else _first_line(error)
        )
        raise UserError(f"{file}: {key}: {problem}") from None
    assert isinstance(config, Config)
    found = [f"{file}: {key}: {problem}" for key, problem in _invalid(config)]
    if problems is not None:
        problems += found
    elif found:
        raise UserError(found[0])
    return config


def find_config(path: str | Path) -> Path:
    """The file at `path`, or the project's own configuration of that name."""
    if Path(path).is_file():
        return Path(path)
    own = CONFIGURATIONS / f"{Path(path).stem}.yaml"
    # Not for any folder's: a mistyped path would silently run something else.
    if Path(path).parent in (Path(), Path(CONFIGURATIONS.name)) and own.is_file():
        return own
    known = ", ".join(sorted(p.stem for p in CONFIGURATIONS.glob("[!_]*.yaml")))
    raise UserError(f"{path}: no such configuration file; the project's own are: {known}")


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML, which `load_config` reads back as the same."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def value_at(config: object, key: str) -> Any:
    """The value of a dotted key, e.g. "segmentation.optimizer.lr"."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


def known_keys(kind: type = Config, prefix: str = "") -> list[str]:
    """All dotted keys of the configuration, sections included."""
    keys = []
    hints = get_type_hints(kind)
    for item in fields(kind):
        key = prefix + item.name
        keys.append(key)
        hint = hints[item.name]
        if is_dataclass(hint) and isinstance(hint, type):
            keys.extend(known_keys(hint, key + "."))
    return keys


def _layers(file: Path, above: tuple[Path, ...]) -> list[tuple[str, Any]]:
    """The file and those it builds on, as (origin, content), most basic first."""
    if file.resolve() in above:
        raise UserError(f"{file}: builds on itself through '{BASE_KEY}'; remove the circle")
    try:
        content = OmegaConf.load(file)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        where = str(getattr(error, "problem_mark", "")).strip()
        raise UserError(
            f"{file}: is not valid YAML: {_first_line(error)} {where}".strip()
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{file}: must be a mapping of keys to values")
    bases = content.pop(BASE_KEY, None)
    layers = []
    for base in bases if isinstance(bases, ListConfig) else filter(None, [bases]):
        beside = file.parent / str(base)
        try:
            base_file = beside if beside.is_file() else find_config(str(base))
        except UserError as error:
            raise UserError(f"{file}: {BASE_KEY}: {error}") from None
        layers += _layers(base_file, (*above, file.resolve()))
    return [*layers, (str(file), content)]


def _override_layer(overrides: list[str]) -> tuple[str, Any]:
    for override in overrides:
        if "=" not in override:
            raise UserError(f"command line: '{override}' is not of the form key=value")
    try:
        return "command line", OmegaConf.from_dotlist(overrides)
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"command line: {_first_line(error)}") from None


def _merge(schema: Any, content: Any, origin: str) -> Any:
    try:
        network = _select(content, "segmentation.network")
        if network is not None and network != schema.segmentation.network:
            # Options are those of the network that was named with them: another one has its own.
            OmegaConf.update(schema, "segmentation.options", {}, merge=False)
        return OmegaConf.merge(schema, content)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        for section in _values_for_sections(content):
            raise UserError(
                f"{origin}: {section}: has keys of its own; set {section}.KEY"
            ) from None
        if key and key not in known_keys():
            raise UserError(f"{origin}: unknown key '{key}'{_suggestion(key)}") from None
        raise UserError(f"{origin}: {key}: {_first_line(error)}") from None


def _values_for_sections(content: Any) -> list[str]:
    """The keys of sections to which `content` gives a value, which OmegaConf does not name."""
    keys = known_keys()
    parents = {key.rpartition(".")[0] for key in keys}
    return [
        key
        for key in keys
        if key in parents and not isinstance(_select(content, key), DictConfig | NoneType)
    ]


def _select(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, DictConfig) else None
    return content


def _suggestion(key: str) -> str:
    """The nearest known key: one of the same last part, else by the whole dotted name, or by
    its last part."""
    keys = known_keys()
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(keys)}
    same = [name for name in keys if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    same = [name for name in same if name.split(".")[0] == key.split(".")[0]] or same
    near = difflib.get_close_matches(key, same or keys, n=1, cutoff=0 if same else 0.75)
    if not near:
        parts = difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.6)
        near = [last[part] for part in parts] or difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _smallest_inputs(config: Config) -> list[tuple[str, int, str]]:
    """Keys of sizes, each with the least side that a discriminator needs, and with its name."""
    found = [("translation.crop", 24, "patch discriminator")]
    if config.iterations and config.segmentation.adversarial.weight > 0:
        crop = "segmentation.augmentation.crop"
        cut = [crop] if value_at(config, crop) else ["data.source.size", "data.target.size"]
        found += [(key, 32, "output discriminator") for key in cut]
    return found


def _invalid(config: Config) -> list[tuple[str, str]]:
    """The keys whose values cannot be used, and why."""
    found: list[tuple[str, str]] = []

    def fail(key: str, problem: str) -> None:
        found.append((key, problem))

    for key, choices in _CHOICES.items():
        value = value_at(config, key)
        if value is not None and value not in choices:
            fail(key, f"'{value}' is not one of {', '.join(choices)}")
    for key, least in _AT_LEAST.items():
        value = value_at(config, key)
        if value is not None and not least <= value < math.inf:
            fail(key, f"is {value}, must be a number of at least {least}")
    for key, most in _AT_MOST.items():
        value = value_at(config, key)
        if not 0 <= value <= most:
            fail(key, f"is {value}, must lie between 0 and {most}")
    for key in _PAIRS:
        value = value_at(config, key)
        if value is not None and (len(value) != 2 or min(value) < 8):
            fail(key, f"is {value}, must be [width, height] in pixels, at least 8 each")
    for key, least, network in _smallest_inputs(config):
        value = value_at(config, key)
        if value is not None and min(value, default=0) < least:
            fail(key, f"is {value}, must be at least {least} each for the {network}")
    for key in (
        "translation.betas",
        "segmentation.optimizer.betas",
        "segmentation.adversarial.betas",
    ):
        value = value_at(config, key)
        if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
            fail(key, f"is {value}, must be two numbers from 0 to below 1")
    scale = config.segmentation.augmentation.scale
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        fail("segmentation.augmentation.scale", f"is {scale}, must be [smallest, largest] above 0")
    scales, size = config.segmentation.pseudo_labels.scales, config.data.target.size
    if not scales or not all(0 < scale < math.inf for scale in scales):
        fail("segmentation.pseudo_labels.scales", f"is {scales}, must be numbers above 0")
    elif size is None and scales != [1.0]:
        fail(
            "segmentation.pseudo_labels.scales", f"is {scales}, of which size? Set data.target.size"
        )
    elif size and min(size, default=0) * min(scales) < 8:
        fail(
            "segmentation.pseudo_labels.scales", f"is {scales}: images of less than 8 pixels a side"
        )
    for key in ("translation.batch_size", "segmentation.batch_size"):
        processes = max(1, config.devices) * max(1, config.nodes)
        if value_at(config, key) % processes:
            of = "devices" if config.nodes <= 1 else "devices x nodes"
            fail(key, f"is {value_at(config, key)}, must be a multiple of {of} ({processes})")
    if config.iterations and config.translation.images is None:
        constant, decay = config.translation.constant_epochs, config.translation.decay_epochs
        if constant + decay < (2 if decay else 1):  # the last epoch of a decay has the rate 0
            fail(
                "translation.constant_epochs",
                f"is {constant}, with decay_epochs {decay}; nothing would be trained",
            )
    if not config.out.strip():
        fail("out", "is empty; give the folder of the run")
    if config.data.cache is not None and not config.data.cache.strip():
        fail("data.cache", "is empty; give a folder, or null for none")
    for role in ("source", "target", "validation"):
        domain: DomainConfig = getattr(config.data, role)
        if domain.layout == "streets" and domain.root is None and domain.scenes < 1:
            fail(f"data.{role}.scenes", "is 0; give the number of scenes to render")
        for key in ("images", "labels"):
            pattern = getattr(domain, key)
            if pattern and (Path(pattern).is_absolute() or ".." in Path(pattern).parts):
                fail(f"data.{role}.{key}", f"'{pattern}' leads out of the root; move the root")
    crop = config.segmentation.augmentation.crop
    for role in ("source", "target"):
        size = getattr(config.data, role).size
        if not (crop and size and scale):
            continue
        if any(c > round(scale[0] * s) for c, s in zip(crop, size, strict=False)):
            fail(
                "segmentation.augmentation.crop",
                f"is {crop}, larger than data.{role}.size {size} at the smallest scale",
            )
    sizes = config.data.source.size, config.data.target.size
    mixes = config.segmentation.class_mixing and config.iterations * config.self_training_steps > 0
    if mixes and not crop and (not sizes[0] or sizes[0] != sizes[1]):
        fail(
            "segmentation.class_mixing",
            f"needs source and target images of one size, has {sizes[0]} and {sizes[1]}; set "
            "segmentation.augmentation.crop, or one size for both",
        )
    crop, width = config.translation.crop, config.translation.load_width
    if crop and width is not None and crop[0] > width:
        fail("translation.crop", f"is {crop}, wider than translation.load_width {width}")
    return found
