"""Training of a translator: two generators, two discriminators, and what must stay the same."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bdl.domains.loading import TrainingSamples, View, training_batches
from bdl.domains.problem import followed
from bdl.domains.tensors import to_bytes, to_tensor, to_unit
from bdl.runtime.config import TranslationWeights, TranslatorTraining
from bdl.runtime.device import (
    draws_apart,
    has_fused_optimizers,
    random_for,
    seed_torch,
)
from bdl.runtime.errors import UserError
from bdl.runtime.estimate import seconds_of
from bdl.runtime.files import load_tensors, save_tensors
from bdl.runtime.live import Sample
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.replay import make_replay
from bdl.runtime.run import Run
from bdl.runtime.training import TrainingStep, fit
from bdl.translation import losses
from bdl.translation.grain import add_grain, draw_grain
from bdl.translation.networks import Generator, PatchDiscriminator, memory_format, to_signed
from bdl.translation.pool import FakePool
from bdl.translation.schedule import Schedule
from bdl.translation.stages import RESULT

Frame = tuple[int, str, Tensor]  # index, name, and 3 x H x W uint8
ScoreMaps = Callable[[Tensor], Tensor]  # images in [0, 1] to score maps N x C x h x w

_WIDEST = 640  # pixels of a sample that is shown


@dataclass
class Cycle:
    """All images that one step's generators make; A is the source, B the target."""

    fake_b: Tensor  # G_AB(a)
    fake_a: Tensor  # G_BA(b)
    reconstructed_a: Tensor  # G_BA(G_AB(a))
    reconstructed_b: Tensor  # G_AB(G_BA(b))
    identity_b: Tensor  # G_AB(b)
    identity_a: Tensor  # G_BA(a)


class Translator(nn.Module):
    """Both generators; a call makes all six images of a step.

    `grain` is the strength of the texture (`add_grain`) that source images get before G_AB: a
    convolution makes one colour of an area of one colour, never brick or foliage.
    """

    def __init__(self, width: int, blocks: int, skip: bool = False, grain: float = 0.0) -> None:
        super().__init__()
        self.grain = grain
        self.a_to_b = Generator(width, blocks, skip)
        self.b_to_a = Generator(width, blocks, skip)

    def forward(self, a: Tensor, b: Tensor, add: Callable[[Tensor], Tensor] | None = None) -> Cycle:
        """All images of a step.

        Args:
            a: Source images, N x 3 x H x W in [0, 1].
            b: Target images, likewise.
            add: Adds the grain that was drawn for `a`; None: it is drawn here.
        """
        grained = add_grain(a, self.grain) if add is None else add(a)
        # One call for the passes that share a generator; instance norm keeps images independent.
        # No grain where the result is held to the input: it would be learned to be taken away.
        fake_b, identity_b = self.a_to_b(torch.cat([grained, b])).split(len(a))
        fake_a, identity_a = self.b_to_a(torch.cat([b, a])).split(len(a))
        return Cycle(
            fake_b, fake_a, self.b_to_a(fake_b), self.a_to_b(fake_a), identity_b, identity_a
        )

    def to_target(self, source: Tensor) -> Tensor:
        """Source images, N x 3 x H x W in [0, 1], translated: G_AB alone."""
        return self.a_to_b(add_grain(source, self.grain))


class Discriminators(nn.Module):
    """Both patch discriminators; a call gives their losses on real and pooled images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = PatchDiscriminator(width)
        self.b = PatchDiscriminator(width)

    def forward(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> dict[str, Tensor]:
        return {
            name: losses.discriminator(*network(torch.cat([real, fake])).split(len(real)))
            for name, network, real, fake in (
                ("discriminator_a", self.a, a, fake_a),
                ("discriminator_b", self.b, b, fake_b),
            )
        }


def generator_losses(
    a: Tensor,
    b: Tensor,
    made: Cycle,
    discriminators: Discriminators,
    score_maps: ScoreMaps,
    weights: TranslationWeights,
    checkpointing: bool = False,
) -> dict[str, Tensor]:
    """The ten terms of the translation loss, unweighted; a term of weight 0 is left out.

    `_a` names the direction that begins with source images, `_b` the other. `a` and `b` are
    N x 3 x H x W in [0, 1], of equal shape. With `checkpointing` the frozen network keeps nothing
    for the backward pass, and computes one term after the other again.
    """
    terms: dict[str, Tensor] = {}
    if weights.adversarial:
        terms["adversarial_a"] = losses.adversarial(discriminators.b(made.fake_b))
        terms["adversarial_b"] = losses.adversarial(discriminators.a(made.fake_a))
    if weights.cycle:
        terms["cycle_a"] = losses.cycle(to_signed(made.reconstructed_a), to_signed(a))
        terms["cycle_b"] = losses.cycle(to_signed(made.reconstructed_b), to_signed(b))
    if weights.identity:
        terms["identity_b"] = losses.identity(to_signed(made.identity_b), to_signed(b))
        terms["identity_a"] = losses.identity(to_signed(made.identity_a), to_signed(a))
    if weights.is_perceptual:
        with torch.no_grad():
            references = dict(zip("ab", score_maps(torch.cat([a, b])).split(len(a)), strict=True))
        compared: dict[str, Tensor] = {}
        if weights.perceptual:
            compared |= {"perceptual_a": made.fake_b, "perceptual_b": made.fake_a}
        if weights.perceptual_reconstruction:
            compared |= {
                "perceptual_reconstruction_a": made.reconstructed_a,
                "perceptual_reconstruction_b": made.reconstructed_b,
            }
        if checkpointing:
            scores = [
                checkpoint(score_maps, image, use_reentrant=False) for image in compared.values()
            ]
        else:
            # One call of the frozen network: in evaluation mode its images are independent.
            scores = score_maps(torch.cat(list(compared.values()))).split(len(a))
        for name, maps in zip(compared, scores, strict=True):
            terms[name] = losses.perceptual(maps, references[name[-1]])
    return terms


def weighted_sum(terms: dict[str, Tensor], weights: TranslationWeights) -> Tensor:
    """The translation loss: each term (named as in `generator_losses`) times its weight."""
    by_name = asdict(weights)
    return torch.stack([by_name[name[:-2]] * term for name, term in terms.items()]).sum()


class TranslationStep(TrainingStep[Tensor, Tensor]):
    """What one step of training does: the generators learn, then the discriminators.

    Brings the networks to the run's device, compiled with `run.compile`.

    Args:
        run: Device and precision, compilation, gradient checkpointing.
        training: Learning rate, Adam's betas and weights of the terms.
        generators: Both, to be trained.
        discriminators: Both, to be trained.
        score_maps: The frozen network: images N x 3 x H x W in [0, 1] to maps N x C x h x w.
        pools: Past fakes of the source's domain, and of the target's.
        frames: Gives source images of which samples are made: index, name, and 3 x H x W uint8.
    """

    lr_key = "translation.lr"
    noise = "grain"
    shown = ("cycle_a", "discriminator_b")
    discriminators = ("discriminator_a", "discriminator_b")

    def __init__(
        self,
        run: Run,
        training: TranslatorTraining,
        generators: Translator,
        discriminators: Discriminators,
        score_maps: ScoreMaps,
        pools: Sequence[FakePool],
        frames: Callable[[], Sequence[Frame]] = tuple,
    ) -> None:
        self.fabric, self.weights, self.lr = run.fabric, training.weights, training.lr
        self.judges, self.pools = discriminators, pools
        self.generators, self.frames = generators, cache(frames)
        self.checkpointing = run.gradient_checkpointing
        for generator in (generators.a_to_b, generators.b_to_a):
            generator.checkpointing = self.checkpointing
        layout = memory_format(run.fabric.device, run.compile)
        for network in (generators, discriminators):
            network.to(memory_format=layout)  # type: ignore[call-overload]
        if run.compile:
            for part in (*generators.children(), *discriminators.children()):
                part.compile(dynamic=False, fullgraph=True)
        self.score_maps = score_maps
        betas = (training.betas[0], training.betas[1])
        fused = has_fused_optimizers(run.fabric.device)
        optimizer_g, optimizer_d = (
            torch.optim.Adam(network.parameters(), self.lr, betas, fused=fused)
            for network in (generators, discriminators)
        )
        self.translate, self.optimizer_g = run.fabric.setup(generators, optimizer_g)
        self.judge, self.optimizer_d = run.fabric.setup(discriminators, optimizer_d)
        self.shared = {
            "generators": generators,
            "discriminators": discriminators,
            "optimizer_g": self.optimizer_g,
            "optimizer_d": self.optimizer_d,
        }
        self.own = {"pool_a": pools[0], "pool_b": pools[1]}
        self.replay = make_replay(run.fabric, run.replay, self.shared.values())

    def __call__(self, source: Tensor, target: Tensor, factor: float) -> dict[str, Tensor]:
        """Learn from images of both domains.

        Args:
            source: N x 3 x H x W in [0, 1], on the device.
            target: The same of the target, of equal shape.
            factor: Factor of the learning rate.

        Returns:
            The terms of `generator_losses` and both discriminators' losses, scalars on the device:
            nothing here waits for it.
        """
        for optimizer in (self.optimizer_g, self.optimizer_d):
            for group in optimizer.param_groups:
                self.replay.set_rate(group, self.lr * factor)
        grain = draw_grain(source, self.generators.grain)
        terms = self.replay(self._learn_to_translate, source, target, grain)
        # On fakes made before the generators' step, and on older ones.
        fake_a = self.pools[0].exchange(terms.pop("fake_a"))
        fake_b = self.pools[1].exchange(terms.pop("fake_b"))
        return terms | self.replay(self._learn_to_judge, source, target, fake_a, fake_b)

    def _learn_to_translate(
        self, source: Tensor, target: Tensor, grain: Tensor | None
    ) -> dict[str, Tensor]:
        """The generators learn; returns their losses, and the fakes of both domains."""
        self.judges.requires_grad_(False)  # they judge, and do not learn here
        # By a function: a tensor would be rounded to the precision of the networks.
        made = self.translate(
            source, target, lambda images: images if grain is None else images + grain
        )
        with self.fabric.autocast():
            terms = generator_losses(
                source,
                target,
                made,
                self.judges,
                self.score_maps,
                self.weights,
                self.checkpointing,
            )
        self.optimizer_g.zero_grad()
        self.fabric.backward(weighted_sum(terms, self.weights))
        self.optimizer_g.step()
        return {**terms, "fake_a": made.fake_a.detach(), "fake_b": made.fake_b.detach()}

    def _learn_to_judge(
        self, source: Tensor, target: Tensor, fake_a: Tensor, fake_b: Tensor
    ) -> dict[str, Tensor]:
        """The discriminators learn; returns their losses."""
        self.judges.requires_grad_(True)
        judged = self.judge(source, target, fake_a, fake_b)
        self.optimizer_d.zero_grad()
        self.fabric.backward(judged["discriminator_a"] + judged["discriminator_b"])
        self.optimizer_d.step()
        return judged

    def samples(self) -> Sequence[Sample]:
        """Followed source images, translated. Their grain has the seeds of the export's, and is the
        same where `load_width` is the width at which they are exported."""
        made = []
        device = self.fabric.device
        with draws_apart(device), torch.no_grad(), self.fabric.autocast():
            for index, name, image in self.frames():
                seed_torch(index, "grain")
                source = to_unit(self.fabric.to_device(image[None]))
                # There is no mode to change: no layer of it works otherwise in evaluation.
                translated = self.generators.to_target(source)
                made.append(Sample(name, *(_shown(one[0]) for one in (source, translated))))
        return made


def seconds_per_step(run: Run, training: TranslatorTraining, score_maps: ScoreMaps) -> float:
    """How long a step takes, tried on noise.

    Args:
        run: Device and precision.
        training: Networks, loss and batches.
        score_maps: The frozen network.
    """
    generators, discriminators = untrained_networks(training)
    pools = [FakePool(1, 0), FakePool(1, 1)]
    learn = TranslationStep(run, training, generators, discriminators, score_maps, pools)
    width, height = training.crop
    noise = torch.rand(training.batch_size, 3, height, width)
    images = run.fabric.to_device(noise.contiguous(memory_format=torch.channels_last))
    return seconds_of(lambda: learn(images, images, 1.0), run.fabric.device)


def _shown(image: Tensor) -> np.ndarray:
    """An image, 3 x H x W in [0, 1], as H x W x 3 uint8, no wider than it is shown."""
    pixels = to_bytes(image)
    if pixels.shape[1] <= _WIDEST:
        return pixels
    size = (_WIDEST, max(1, round(pixels.shape[0] * _WIDEST / pixels.shape[1])))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def followed_images(source: TrainingSamples, indices: Sequence[int], most: int) -> Sequence[Frame]:
    """Source images at the scale at which a training sees them.

    Args:
        source: The training's images.
        indices: Which of them.
        most: Pixels that one may have: of a larger one the middle is cut out, in the size of the
            training's crop.
    """
    images = []
    whole = View(size=source.view.size, width=source.view.width)
    for index in indices:
        sample = source.samples[index]
        pixels, _ = source.reader.image(sample.image, whole)
        height, width = pixels.shape[:2]
        crop = source.view.crop
        if crop is not None and height * width > most:
            left, top = (width - crop[0]) // 2, (height - crop[1]) // 2
            pixels = pixels[top : top + crop[1], left : left + crop[0]]
        images.append((index, sample.name, to_tensor(pixels)))
    return images


def train_translator(
    run: Run,
    folder: Path,
    training: TranslatorTraining,
    seed: int,
    source: TrainingSamples,
    target: TrainingSamples,
    score_maps: ScoreMaps,
    start: Path | None = None,
) -> TrainingMetrics:
    """Train both directions and write translator.pt; goes on from a saved state.

    Args:
        run: Devices and messages, how often to log and to save.
        folder: Where the result and states to resume from lie.
        training: Networks, loss, rate and length.
        seed: Of initial weights, pools and grain.
        source: Images of the source.
        target: Images of the target.
        score_maps: The frozen network of the step before.
        start: Folder of a translator to go on from; None for initial weights.

    Returns:
        Steps, curves, warnings and seconds.

    Raises:
        UserError: An image or a saved state cannot be used, or training has diverged.
    """
    seed_torch(seed, "translator")
    if start is None:
        generators, discriminators = untrained_networks(training)
    else:
        file = start / RESULT
        generators, discriminators = go_on_from(load_tensors(file), file, training)
    fabric, schedule = run.fabric, Schedule.of(training, len(source.samples))
    pools = [
        FakePool(
            -(-training.pool_size // fabric.world_size),
            int(random_for(seed, f"pool {domain}", fabric.global_rank).integers(2**62)),
        )
        for domain in "ab"
    ]
    # Translated without gradients, an image of that size takes less memory than a step does.
    most = 2 * max(1, training.batch_size // fabric.world_size) * math.prod(training.crop)
    shown = partial(followed_images, source, followed(len(source.samples)), most)
    learn = TranslationStep(run, training, generators, discriminators, score_maps, pools, shown)

    def batches(first: int) -> Iterator[tuple[Tensor, Tensor]]:
        process, size = (fabric.global_rank, fabric.world_size), training.batch_size
        roles = {"source": source, "target": target}
        for batch in training_batches(roles, first, schedule.steps, size, run.workers, *process):
            a, b = (to_unit(fabric.to_device(batch[role]["image"])) for role in roles)
            yield a, b

    metrics = fit(run, folder, learn, batches, schedule.factor, schedule.steps, seed)
    if run.is_main:
        _save(folder / RESULT, training, generators, discriminators)
    fabric.barrier()
    return metrics


def untrained_networks(training: TranslatorTraining) -> tuple[Translator, Discriminators]:
    """Both generators and both discriminators, from torch's random state."""
    generators = Translator(**asdict(training.generator))
    return generators, Discriminators(training.discriminator_width)


def go_on_from(
    content: dict[str, Any], file: Path, training: TranslatorTraining
) -> tuple[Translator, Discriminators]:
    """Networks as `training` has them, with the weights of trained ones.

    Args:
        content: Of the trained ones' file, which may lack discriminators: those are untrained.
        file: That file, for errors.
        training: Networks of the training that goes on.

    Raises:
        UserError: The trained networks are others.
    """
    anew = "or translation.init=initial to begin anew"
    for name, value in asdict(training.generator).items():
        theirs = content["options"].get(name, value)
        if theirs != value and name != "grain":  # which images get, and no weight knows
            key = f"translation.generator.{name}"
            raise UserError(f"{file}: was made with {key}={theirs}; set it, {anew}")
    generators, discriminators = untrained_networks(training)
    generators.load_state_dict(content["state"])
    if "discriminators" in content:
        try:
            discriminators.load_state_dict(content["discriminators"])
        except RuntimeError:
            key = "translation.discriminator_width"
            why = f"its discriminators are not those of {key}={training.discriminator_width}"
            raise UserError(f"{file}: {why}; set theirs, {anew}") from None
    return generators, discriminators


def _save(
    file: Path, training: TranslatorTraining, generators: Translator, discriminators: Discriminators
) -> None:
    options: dict[str, Any] = asdict(training.generator)
    content = {"options": options, "state": generators.state_dict()}
    # Not part of the translator, but of a training that goes on from it.
    content["discriminators"] = discriminators.state_dict()
    content["weights"] = asdict(training.weights)  # of the loss's terms, as it was trained with
    save_tensors(file, content)
