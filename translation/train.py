"""Training of a translator: two generators, two discriminators, and what must stay the same."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from domains.images import to_unit
from domains.loading import TrainingSamples, training_batches
from runtime.checkpoint import Checkpoint, Curves
from runtime.config import TranslationConfig, TranslationWeights
from runtime.console import Console
from runtime.device import has_fused_optimizers, random_for, seed_torch
from runtime.files import load_tensors, save_tensors
from runtime.stages import Metrics, Stopwatch
from runtime.step_end import StepEnd
from runtime.tracking import Tracker
from translation import losses
from translation.grain import add_grain
from translation.networks import Generator, PatchDiscriminator, memory_format, to_signed
from translation.pool import FakePool

ScoreMaps = Callable[[Tensor], Tensor]  # images in [0, 1] to score maps N x C x h x w

RESULT = "translator.pt"


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

    def forward(self, a: Tensor, b: Tensor) -> Cycle:
        # One call for the passes that share a generator; instance norm keeps images independent.
        # No grain where the result is held to the input: it would be learned to be taken away.
        fake_b, identity_b = self.a_to_b(torch.cat([add_grain(a, self.grain), b])).split(len(a))
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
    if weights.perceptual or weights.perceptual_reconstruction:
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


@dataclass(frozen=True)
class Schedule:
    """Epochs at the full rate, then a linear descent to zero; epochs are counted from 1."""

    constant_epochs: int
    decay_epochs: int
    steps_per_epoch: int

    @classmethod
    def of(cls, config: TranslationConfig, source_images: int) -> "Schedule":
        per_epoch = config.steps_per_epoch or max(1, source_images // config.batch_size)
        return cls(config.constant_epochs, config.decay_epochs, per_epoch)

    @property
    def steps(self) -> int:
        """Steps in which something is learned: the last epoch's rate is zero if there is decay."""
        idle = 1 if self.decay_epochs else 0
        return (self.constant_epochs + self.decay_epochs - idle) * self.steps_per_epoch

    def factor(self, step: int) -> float:
        """Factor of the learning rate in `step`, counted from 0."""
        if not self.decay_epochs:
            return 1.0
        epoch = step // self.steps_per_epoch + 1
        return 1 - max(0, epoch + 1 - self.constant_epochs) / (self.decay_epochs + 1)


class TranslationStep:
    """What one step of training does: the generators learn, then the discriminators.

    Brings `generators` and `discriminators` to the device of `fabric`; `compiled`, they and the
    frozen network are so by torch.compile. A call takes images of both domains, N x 3 x H x W in
    [0, 1] on the device, and the learning rate; it gives the losses by name, still on the device:
    nothing in it waits for the device.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TranslationConfig,
        generators: Translator,
        discriminators: Discriminators,
        score_maps: ScoreMaps,
        pools: Sequence[FakePool],
        *,
        compiled: bool = False,
    ) -> None:
        self.fabric, self.weights = fabric, config.weights
        self.discriminators, self.pools = discriminators, pools
        self.checkpointing = config.gradient_checkpointing
        for generator in (generators.a_to_b, generators.b_to_a):
            generator.checkpointing = self.checkpointing
        for network in (generators, discriminators):
            network.to(memory_format=memory_format(fabric.device))  # type: ignore[call-overload]
        if compiled:
            for part in (*generators.children(), *discriminators.children()):
                part.compile(dynamic=False)
            score_maps = torch.compile(score_maps, dynamic=False)
        self.score_maps = score_maps
        betas = (config.betas[0], config.betas[1])
        fused = has_fused_optimizers(fabric.device)
        optimizer_g, optimizer_d = (
            torch.optim.Adam(network.parameters(), config.lr, betas, fused=fused)
            for network in (generators, discriminators)
        )
        self.translate, self.optimizer_g = fabric.setup(generators, optimizer_g)
        self.judge, self.optimizer_d = fabric.setup(discriminators, optimizer_d)

    def __call__(self, a: Tensor, b: Tensor, rate: float) -> dict[str, Tensor]:
        for optimizer in (self.optimizer_g, self.optimizer_d):
            for group in optimizer.param_groups:
                group["lr"] = rate

        # Generators. The discriminators judge, and do not learn here.
        self.discriminators.requires_grad_(False)
        made = self.translate(a, b)
        with self.fabric.autocast():
            terms = generator_losses(
                a,
                b,
                made,
                self.discriminators,
                self.score_maps,
                self.weights,
                self.checkpointing,
            )
        self.optimizer_g.zero_grad()
        self.fabric.backward(weighted_sum(terms, self.weights))
        self.optimizer_g.step()

        # Discriminators, on fakes made before the generators' step, and on older ones.
        self.discriminators.requires_grad_(True)
        fake_a = self.pools[0].exchange(made.fake_a.detach())
        fake_b = self.pools[1].exchange(made.fake_b.detach())
        judged = self.judge(a, b, fake_a, fake_b)
        self.optimizer_d.zero_grad()
        self.fabric.backward(judged["discriminator_a"] + judged["discriminator_b"])
        self.optimizer_d.step()
        return {**terms, **judged}


def train_translator(
    fabric: Fabric,
    console: Console,
    tracker: Tracker,
    folder: Path,
    config: TranslationConfig,
    source: TrainingSamples,
    target: TrainingSamples,
    score_maps: ScoreMaps,
    *,
    start: Path | None = None,
    seed: int,
    workers: int,
    compiled: bool = False,
    log_every: int,
    checkpoint_every: int,
    keep_checkpoints: int,
) -> Metrics:
    """Train both directions and write `folder`/translator.pt; goes on from a saved state.

    `score_maps` is the frozen network of the step before; `start` the folder of a translator to
    go on from, instead of from initial weights. Returns curves, warnings and seconds.
    """
    seed_torch(seed, "translator")
    generators = Translator(**asdict(config.generator))
    discriminators = Discriminators(config.discriminator_width)
    if start is not None:
        begun = load_tensors(start / RESULT)
        generators.load_state_dict(begun["state"])
        if "discriminators" in begun:  # a translator trained elsewhere comes without
            discriminators.load_state_dict(begun["discriminators"])
    pools = [
        FakePool(
            -(-config.pool_size // fabric.world_size),
            int(random_for(seed, f"pool {domain}", fabric.global_rank).integers(2**62)),
        )
        for domain in "ab"
    ]
    learn = TranslationStep(
        fabric, config, generators, discriminators, score_maps, pools, compiled=compiled
    )
    curves, stopwatch = Curves(), Stopwatch()
    state = Checkpoint(
        fabric,
        folder,
        shared={
            "generators": generators,
            "discriminators": discriminators,
            "optimizer_g": learn.optimizer_g,
            "optimizer_d": learn.optimizer_d,
            "precision": fabric.strategy.precision,
            "curves": curves,
            "stopwatch": stopwatch,
        },
        own={"pool_a": pools[0], "pool_b": pools[1]},
        keep=keep_checkpoints,
    )
    # Grain draws from torch's random state, which the checkpoint restores.
    seed_torch(seed, f"grain {fabric.global_rank}")
    first = state.restore()
    schedule = Schedule.of(config, len(source.samples))

    batches = zip(
        _batches(fabric, source, first, schedule.steps, config.batch_size, workers),
        _batches(fabric, target, first, schedule.steps, config.batch_size, workers),
        strict=True,
    )
    with console.track(tracker.name, schedule.steps, first) as task:
        end_step = StepEnd(
            fabric,
            tracker,
            task,
            state,
            curves,
            steps=schedule.steps,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            discriminators=["discriminator_a", "discriminator_b"],
            shown=["cycle_a", "discriminator_b"],
            rate_key="translation.lr",
        )
        for step, (a, b) in enumerate(batches, start=first):
            rate = config.lr * schedule.factor(step)
            terms = learn(a, b, rate)
            end_step(step + 1, terms, lr=rate)

    if fabric.is_global_zero:
        options: dict[str, Any] = asdict(config.generator)
        content = {"options": options, "state": generators.state_dict()}
        # Not part of the translator, but of a training that goes on from it.
        content["discriminators"] = discriminators.state_dict()
        save_tensors(folder / RESULT, content)
    fabric.barrier()
    return {
        "steps": schedule.steps,
        "seconds": stopwatch.seconds,
        "curves": curves.rows,
        "warnings": end_step.warnings(),
    }


def _batches(
    fabric: Fabric, samples: TrainingSamples, first: int, steps: int, batch_size: int, workers: int
) -> Iterator[Tensor]:
    batches = training_batches(
        samples, first, steps, batch_size, workers, fabric.global_rank, fabric.world_size
    )
    for batch in batches:
        yield to_unit(fabric.to_device(batch["image"]))
