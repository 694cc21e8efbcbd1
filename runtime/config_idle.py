"""What of a configuration nothing reads: settings that have no effect beside the others."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from bdl.runtime.config_checks import domains_of, trainings_of
from bdl.runtime.config_keys import Config, TranslationConfig


@dataclass(frozen=True)
class Idle:
    """Keys whose values nothing reads in a run.

    Args:
        keys: The keys; the name of a section stands for all in it.
        why: Why nothing reads them, in a few words.
        because: The keys that make it so.
    """

    keys: tuple[str, ...]
    why: str
    because: tuple[str, ...]

    def holds(self, key: str) -> bool:
        """Whether nothing reads that key."""
        return any(key == own or key.startswith(f"{own}.") for own in self.keys)


def idle(config: Config) -> Iterator[Idle]:
    """All that nothing reads with these values; a key may be in several."""
    yield from _rounds(config)
    if config.iterations:
        yield from _translation(config)
    yield from _training(config)
    yield from _labels_and_scores(config)
    yield from _data(config)


_SELF_TRAINING = (
    "segmentation.pseudo_labels",
    "segmentation.pseudo_label_steps",
    "segmentation.class_mixing",
)
_ADAPTATION = (
    "self_training_steps",
    "init",
    "translation",
    "segmentation.adversarial",
    "segmentation.originals",
    "data.target_labelled",
    *_SELF_TRAINING,
)
_TRANSLATORS = tuple(
    f"translation.{item.name}"
    for item in fields(TranslationConfig)
    if item.name not in ("method", "fda", "images", "checkpoints", "measure_images")
)


def _rounds(config: Config) -> Iterator[Idle]:
    rounds, steps = config.iterations, config.self_training_steps
    both = ("iterations", "self_training_steps")
    if rounds == 0:
        yield Idle(_ADAPTATION, "iterations=0 trains source only", both[:1])
        return
    if steps == 0:
        yield Idle(_SELF_TRAINING, "self_training_steps=0 makes no pseudo labels", both[1:])
    if rounds * steps == 1:
        limit = ("segmentation.pseudo_labels.max_growth",)
        yield Idle(limit, "the run's only pseudo labels have none before them", both)
    if rounds == 1:
        yield Idle(("translation.init",), "iterations=1: no translator comes before", both[:1])


def _translation(config: Config) -> Iterator[Idle]:
    translation, section = config.translation, "translation"
    if translation.images is not None:
        taken = (*_TRANSLATORS, f"{section}.fda")
        why, key = "translation.images takes the translators' place", f"{section}.images"
        yield Idle(taken, why, (key,))
        return
    method = (f"{section}.method",)
    if translation.method == "fda":
        yield Idle(_TRANSLATORS, "translation.method=fda trains no translator", method)
        return
    yield Idle((f"{section}.fda",), "translation.method=cyclegan trains translators", method)
    rounds = range(1, config.iterations + 1)
    if all(f"k{k}/translator" in translation.checkpoints for k in rounds):
        key = f"{section}.checkpoints"
        yield Idle(_TRANSLATORS, f"{key} has every translator", (key,))
    if not any(translation.weights.of_round(k).is_perceptual for k in rounds):
        terms = ("perceptual", "perceptual_reconstruction")
        because = tuple(f"{section}.weights.{term}" for term in terms)
        yield Idle((f"{section}.trust",), "no perceptual term has a weight", because)


def _training(config: Config) -> Iterator[Idle]:
    """Of the segmentation networks."""
    segmentation, section = config.segmentation, "segmentation"
    optimizer, schedule = f"{section}.optimizer", f"{section}.schedule"
    descends, sgd = segmentation.schedule.name == "poly", segmentation.optimizer.name == "sgd"
    for key, unread, name in (
        (schedule, "gamma" if descends else "power", segmentation.schedule.name),
        (optimizer, "betas" if sgd else "momentum", segmentation.optimizer.name),
    ):
        yield Idle((f"{key}.{unread}",), f"{key}.name is {name}", (f"{key}.name",))
    if segmentation.network != "deeplab_v2":
        why = "all rates of this network are as printed"
        yield Idle((f"{optimizer}.rates",), why, (f"{section}.network",))
    if segmentation.adversarial.weight == 0:
        judge = tuple(f"{section}.adversarial.{name}" for name in ("lr", "betas", "width"))
        key = f"{section}.adversarial.weight"
        yield Idle(judge, f"{key}=0 trains no discriminator", (key,))
    if segmentation.checkpoints:
        key = f"{section}.checkpoints"
        lengths = (f"{section}.steps", f"{section}.pseudo_label_steps")
        untrained = tuple(name for name in lengths if name not in trainings_of(config))
        yield Idle(untrained, f"{key} has all networks of such trainings", (key,))


def _labels_and_scores(config: Config) -> Iterator[Idle]:
    section, labels = "segmentation.pseudo_labels", config.segmentation.pseudo_labels
    for zero, unread in (("max_threshold", "quantile"), ("quantile", "max_threshold")):
        if getattr(labels, zero) == 0 < getattr(labels, unread):
            key = f"{section}.{zero}"
            yield Idle((f"{section}.{unread}",), f"{key}=0 keeps every pixel", (key,))
    if config.data.validation is None:
        size, because = "segmentation.evaluation", ("data.validation",)
        yield Idle((size,), "data.validation=null: nothing is evaluated", because)


def _data(config: Config) -> Iterator[Idle]:
    if config.data.cache is None:
        yield Idle(("data.cache_gb",), "data.cache is null", ("data.cache",))
    for key, domain in domains_of(config).items():
        because = (f"{key}.layout", f"{key}.root")
        rendered = domain.layout == "streets" and domain.root is None
        if not rendered:
            streets = (f"{key}.scenes", f"{key}.appearance")
            yield Idle(streets, f"the run does not render {key}", because)
        plain = domain.layout in ("folder", "streets")  # whose own patterns have none
        if plain and "{split}" not in f"{domain.images} {domain.labels}":
            patterns = (f"{key}.images", f"{key}.labels")
            yield Idle((f"{key}.split",), f"no pattern of {key} has {{split}}", patterns)
