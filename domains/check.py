"""All that is wrong with the data, found before anything is trained: every file, not the first.

`check` lists it, `run` refuses it: one function for both.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bdl.domains.datasets import Sample, list_samples, spread
from bdl.domains.guard import LOOKED_AT, look_at, not_in_source
from bdl.domains.index import Index
from bdl.domains.inspection import SKIP, Inspection, inspect_samples
from bdl.domains.matching import excess_of, named_alike
from bdl.domains.palettes import ambiguous_palettes
from bdl.domains.problem import Problem
from bdl.domains.target_labels import match_labels
from bdl.domains.views import View
from bdl.runtime.config import Config
from bdl.runtime.config_checks import OUTPUT_DISCRIMINATOR, OUTPUT_LEAST, trains_translators
from bdl.runtime.console import Console, log
from bdl.runtime.errors import UserError


def check_problem(
    config: Config, problem: Problem, pixels: bool, crops: bool, console: Console
) -> list[str]:
    """Everything wrong with the data sets of a configuration, a line each that says what to do.

    What the files hold is logged, a few lines a role, and what `on_error: skip` will leave out.
    Headers of all files are read, and pixels of some label files. Rendered roles have no files yet
    and are right by construction.

    Args:
        config: The configuration.
        problem: Its data sets.
        pixels: Whether all pixels of all files are looked at.
        crops: Whether crops that do not fit are problems.
        console: Shows progress.
    """
    given = config.translation.images
    problems = [
        line
        for role in problem.roles
        if not problem.is_rendered(role)
        for line in _check_role(
            problem, role, _passes(config, problem, role) if crops else [], pixels, console
        )
    ]
    with suppress(UserError):  # which is among the problems already
        problems += problem.leaks()
    if not problems:
        _log_matches(problem)
        _compare_palettes(problem)
        for line in [*problem.overlaps(), *not_in_source(problem)]:
            log.warning("warning: %s", line)
        problems += _mixed_target(config, problem) if crops else []
    if given is not None and not problems:
        try:
            problems += problem.translations(Path(given).expanduser())[1].flaws
        except UserError as error:
            problems.append(str(error))
    return problems


@dataclass(frozen=True)
class _Pass:
    """How a role's images pass a network in training.

    Args:
        view: How each is cut.
        count: Images of a batch, of one process.
        least: The least side that the network takes.
        network: Its name.
    """

    view: View
    count: int = 1
    least: int = 1
    network: str = ""


def _passes(config: Config, problem: Problem, role: str) -> list[_Pass]:
    """How the images of a role are used in training."""
    segmentation, translation = config.segmentation, config.translation
    adapts = config.iterations > 0
    passes = []
    if role == "source" or (role in ("target", "target_labelled") and adapts):
        augmentation = segmentation.augmentation
        judged = adapts and segmentation.adversarial.weight > 0
        passes.append(
            _Pass(
                replace(problem.view(role), crop=augmentation.crop, scale=augmentation.scale),
                segmentation.batch_size // (config.devices * config.nodes),
                OUTPUT_LEAST if judged else 1,
                OUTPUT_DISCRIMINATOR,
            )
        )
        if adapts and trains_translators(config) and role != "target_labelled":
            passes.append(_Pass(View(width=translation.load_width, crop=translation.crop)))
    return passes


def _check_role(
    problem: Problem, role: str, passes: Sequence[_Pass], pixels: bool, console: Console
) -> list[str]:
    domain, key = problem.domain(role), f"data.{role}"
    problems = []
    try:
        inspection = problem.inspect(role, pixels)
    except UserError as error:
        problems.append(str(error))
        try:  # What is wrong with labels or their names leaves the images to look at.
            samples = list_samples(domain, key, labelled=False).samples
            images = [Sample(sample.name, sample.image, None) for sample in samples]
            inspection = inspect_samples(images, problem.index, key, pixels, inside=True)
        except UserError:
            return problems
    problems += _long_names(inspection.samples)
    if role != "validation":  # of which what is made goes by numbers
        files = {sample.name: sample.image for sample in inspection.samples}
        problems += named_alike(files, problem.folder)
    problems += _misfits(inspection, key, passes)
    if pixels:
        _log_transparent(inspection.samples, key, problem.index)
    if inspection.samples:
        told = look_at(problem, role, inspection, whole=pixels)
        console.once("\n".join(told.table))
        for line in told.warnings:
            log.warning("warning: %s", line)
        problems += told.problems
    if domain.on_error == SKIP and inspection.samples:
        for line in inspection.flaws:
            log.info("left out: %s", line)
        return problems
    return problems + inspection.flaws


def _long_names(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{sample.image}: its name is too long for the files made of it; shorten it by {excess} "
        "bytes"
        for sample in samples
        if (excess := excess_of(sample.name))
    ]


def _misfits(inspection: Inspection, key: str, passes: Sequence[_Pass]) -> list[str]:
    """Images that a training would stop at for their sizes; where all images are resized alike, one
    line says it."""
    problems = []
    for used in passes:
        view = used.view
        count = 1 if view.size is not None else len(inspection.samples)
        stored = {
            sample.image: size
            for sample, size in zip(inspection.samples[:count], inspection.sizes, strict=False)
        }
        if view.crop is None:
            problems += _odd_sizes(
                {file: view.full_size(stored[file]) for file in stored}, key, used
            )
            continue
        for file, size in stored.items():
            width, height = (max(1, round(side * view.scale[0])) for side in view.full_size(size))
            if view.crop[0] > width or view.crop[1] > height:
                where = key if view.size is not None else str(file)
                problems.append(
                    f"{where}: the crop {view.crop[0]}x{view.crop[1]} is larger than the image, "
                    f"{width}x{height} at its smallest; choose a smaller crop"
                )
    return problems


def _odd_sizes(sizes: Mapping[Path, tuple[int, int]], key: str, used: _Pass) -> list[str]:
    """Uncut images that are too small for the network, or of another size than others of a batch.

    Args:
        sizes: Width and height in training by file.
        key: Their data set in messages.
        used: How they are used.
    """
    # Labelled images of the target have the target's size, and none of their own.
    sized = "data.target" if key == "data.target_labelled" else key
    warnings = [
        f"{file}: is {width}x{height}, must be at least {used.least} each for the {used.network}; "
        f"set {sized}.size"
        for file, (width, height) in sizes.items()
        if min(width, height) < used.least
    ]
    one_of_each = list({size: file for file, size in reversed(list(sizes.items()))}.items())[-2:]
    if used.count > 1 and len(one_of_each) > 1:
        told = " and ".join(f"{file} is {width}x{height}" for (width, height), file in one_of_each)
        warnings.append(
            f"{key}: {told}, which do not go into one batch; set {sized}.size or "
            "segmentation.augmentation.crop"
        )
    return warnings


def _compare_palettes(problem: Problem) -> None:
    """Warn of roles whose ids have one encoding, but whose palettes show them otherwise."""
    alike: dict[str, list[Path]] = {}
    for role in problem.roles:
        if role == "target" or problem.is_rendered(role) or problem.is_by_color(role):
            continue
        files = [sample.label for sample in problem.samples(role) if sample.label is not None]
        chosen = alike.setdefault(problem.layout(role).encoding, [])
        chosen += [files[i] for i in spread(len(files), LOOKED_AT)]
        own = problem.space if problem.layout(role).encoding == "train_id" else None
        if line := ambiguous_palettes(chosen, problem.index, f"data.{role}", own):
            log.warning("warning: %s", line)


def _log_matches(problem: Problem) -> None:
    """Say how many of the labelled images the target has."""
    roles = ("target", "target_labelled")
    if not set(roles) <= set(problem.roles) or any(map(problem.is_rendered, roles)):
        return
    matched = match_labels(problem.target, problem.target_labelled)
    new = len(matched.added)
    log.info(
        "data.target_labelled: %d of them are images of the target, %d join it",
        len(problem.samples("target_labelled")) - new,
        new,
    )
    for line in _told_twice(problem):
        log.warning("warning: %s", line)


def _told_twice(problem: Problem) -> list[str]:
    """A line for each image of the target that is labelled twice, and not alike."""
    key, samples = "data.target_labelled", problem.samples("target_labelled")
    labels = problem.index.hashes([s.label for s in samples if s.label is not None], key)
    hashes = problem.index.hashes([sample.image for sample in samples], key)
    first: dict[str, tuple[Sample, str]] = {}
    lines = []
    for sample, image, label in zip(samples, hashes, labels, strict=True):
        before, other = first.setdefault(image, (sample, label))
        if other != label:
            lines.append(
                f"{sample.label}: is not as {before.label}, though both are labels of one image; "
                "networks learn from both, and pseudo labels take the first; remove one"
            )
    return lines


def _mixed_target(config: Config, problem: Problem) -> list[str]:
    """Uncut images of the target and labelled ones that do not go into one batch."""
    roles = ("target", "target_labelled")
    if not config.iterations or not set(roles) <= set(problem.roles):
        return []
    (used, *_) = _passes(config, problem, "target")
    if used.view.crop is not None or used.view.size is not None:
        return []
    files: dict[Path, tuple[int, int]] = {}
    for role in (role for role in roles if not problem.is_rendered(role)):
        inspection = problem.inspect(role)
        images = [sample.image for sample in inspection.samples]
        sizes = map(used.view.full_size, inspection.sizes)
        files |= dict(zip(images, sizes, strict=True))
    return _odd_sizes(files, "data.target", used)


def _log_transparent(samples: Sequence[Sample], key: str, index: Index) -> None:
    decoded = index.decoded([sample.image for sample in samples], key)
    shares = [image.transparent for image in decoded if image.transparent]
    if shares:
        log.info(
            "%s: ignored, as transparent: %.1f %% of the pixels, in %d of %d images",
            key,
            100 * sum(shares) / len(samples),
            len(shares),
            len(samples),
        )
