"""Training of a segmentation network: the terms of source, target labels, pseudo labels and
adversary."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bdl.domains.augment import jitter_colors, mix_classes
from bdl.domains.images import write_labels
from bdl.domains.label_space import LabelSpace
from bdl.domains.loading import TrainingSamples, training_batches
from bdl.domains.problem import Problem
from bdl.domains.tensors import to_bytes, to_unit
from bdl.runtime.compiling import compile_blocks
from bdl.runtime.config import AdversarialConfig, Config, OptimizerConfig, SegmenterTraining
from bdl.runtime.device import (
    channels_last,
    has_fused_optimizers,
    seed_torch,
    sum_on_device,
)
from bdl.runtime.errors import UserError
from bdl.runtime.estimate import seconds_of
from bdl.runtime.files import save_png
from bdl.runtime.replay import make_replay
from bdl.runtime.run import Run
from bdl.runtime.training import TrainingStep, Validation, fit
from bdl.segmentation import losses
from bdl.segmentation.checkpoint import initial_segmenter, save_segmenter
from bdl.segmentation.metrics import TARGET_LABELS, SegmenterMetrics
from bdl.segmentation.networks.base import Segmenter, upsample
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.networks.layers import require_several_images, split_by_layer
from bdl.segmentation.networks.user_module import users_errors
from bdl.segmentation.schedule import rate_factor
from bdl.segmentation.stages import RESULT, batch_count, batch_path
from bdl.segmentation.validation import BestState, ValidationData

_TRIED = 128  # pixels of a side of the image that a network is tried with, at the most
Labelled = tuple[Tensor, Tensor]  # images and train ids
Maps = Literal["none", "shown", "learned"]  # whether made, and whether learned through


class Target(NamedTuple):
    """A step's batch of the target, on the device.

    Args:
        images: N x 3 x H x W in [0, 1]; None where labelled images alone are seen.
        pseudo_labels: Train ids, N x H x W; None where there are none.
        labelled: Images and train ids of the user's, likewise; None where there are none.
    """

    images: Tensor | None
    pseudo_labels: Tensor | None = None
    labelled: Labelled | None = None


def make_optimizer(
    network: Segmenter, config: OptimizerConfig, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimizer, a group for each learning rate; each group's "base_lr" is its full rate.

    `fused`: all weights in one pass over memory, on devices that can. Raises UserError for a
    `layer_decay` with a network that has no order of layers.
    """
    groups: list[dict[str, Any]] = []
    layers = network.layers() if config.layer_decay is not None else []
    if config.layer_decay is not None and not layers:
        raise UserError(
            "segmentation.optimizer.layer_decay: this network has no order of layers; set it to "
            "null, or take a timm: or smp: network"
        )
    for group in network.parameter_groups(config.rates):
        head = config.head_multiplier if group.head else 1.0
        for parameters, factor in split_by_layer(group, layers, config.layer_decay or 1.0):
            rate = config.lr * group.multiplier * head * factor
            groups.append({"params": parameters, "lr": rate, "base_lr": rate})
            if not group.decays:
                groups[-1]["weight_decay"] = 0.0
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    betas = (config.betas[0], config.betas[1])
    return kind(groups, betas=betas, weight_decay=config.weight_decay, fused=fused)


def require_trainable(
    network: Segmenter, training: SegmenterTraining, images: int, size: tuple[int, int]
) -> None:
    """Find out without training what a training would stop at; the network is not to be used after.

    Args:
        network: As it starts.
        training: Its optimizer.
        images: Images that pass at once.
        size: Their width and height, or less: the more, the longer it takes.

    Raises:
        UserError: The network has no order of layers for `layer_decay`, or it normalises over the
            images of a batch, and there is only one, or the user's own code fails.
    """
    make_optimizer(network, training.optimizer)
    if network.users_name is not None:
        with users_errors(network.users_name, images), several_images(images):
            network.train()(torch.zeros(images, 3, size[1], size[0])).mean().backward()
    elif images == 1:
        with torch.no_grad(), several_images(images):
            network.train()(torch.zeros(1, 3, size[1], size[0]))


def require_network(config: Config, data: Problem) -> None:
    """Build the network and see that it trains as configured.

    Args:
        config: The configuration.
        data: Its data sets.

    Raises:
        UserError: The network cannot be built, or cannot be trained so.
    """
    segmentation, weights = config.segmentation, config.segmentation.weights
    file = Path(weights).expanduser() if weights is not None else None
    network = initial_segmenter(segmentation, file, data.space.names, seed=0)
    crop = segmentation.augmentation.crop
    roles = ["source"]
    if config.iterations:
        roles += [role for role in ("target", "target_labelled") if role in data.roles]
    sizes = [crop] if crop else [_smallest(data, role) for role in roles]
    width, height = min(sizes, key=math.prod)
    images = segmentation.batch_size // (config.devices * config.nodes)
    require_trainable(network, segmentation, images, (min(width, _TRIED), min(height, _TRIED)))


def _smallest(data: Problem, role: str) -> tuple[int, int]:
    """Width and height of the smallest of the role's images, as they are used."""
    size = data.size(role)
    if size is not None or data.is_rendered(role):
        return size or (_TRIED, _TRIED)
    sizes = map(data.view(role).full_size, data.inspect(role).sizes)
    return min(sizes, key=math.prod, default=(_TRIED, _TRIED))


@contextmanager
def several_images(count: int) -> Iterator[None]:
    """Inside, a batch norm that has a single value of a channel to normalise is the user's error.

    Args:
        count: Images that pass the network at once.
    """
    try:
        yield
    except ValueError as error:
        require_several_images(error, "the network", count)
        raise


@dataclass(frozen=True)
class SegmentationData:
    """What a segmentation network learns from.

    Args:
        source: Labelled images.
        target: Images of the other domain; labels that they have are pseudo labels. None: no
            target image passes the network, as batch norm would learn from it.
        adversarial: The discriminator that compares the network's outputs on both domains; None,
            or a weight of 0: there is none.
        class_mixing: Whether half of each source image's classes are pasted onto the target image
            beside it, where it has pseudo labels.
        validation: What it is scored on as it learns, which changes nothing; None: nothing.
        labelled: Images of the other domain with the user's labels, as many in each step as of the
            source; None: there are none.
    """

    source: TrainingSamples
    target: TrainingSamples | None = None
    adversarial: AdversarialConfig | None = None
    class_mixing: bool = False
    validation: ValidationData | None = None
    labelled: TrainingSamples | None = None

    @property
    def target_labels(self) -> int:
        """Number of labelled images of the other domain."""
        return len(self.labelled.samples) if self.labelled is not None else 0


class LossAndMaps(nn.Module):
    """What a network learns by, from images on: a module, as processes share the calls of one.

    Args:
        network: Gives class logits.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the network's blocks, and all that is done at the images' size as one function,
        which then need not be written to memory as often."""
        compile_blocks(self.network)
        self._at_full_size = torch.compile(  # type: ignore[method-assign]
            self._at_full_size, *args, **options
        )

    def forward(
        self, images: Tensor, labels: Tensor | None, maps: Maps
    ) -> tuple[Tensor | None, Tensor | None]:
        """The sum of the cross entropy and the softmax maps at the size of the images.

        Args:
            images: N x 3 x H x W in [0, 1].
            labels: Train ids, N x H x W; None: there is no cross entropy.
            maps: Whether there are maps, and whether the network learns through them.

        Returns:
            A scalar, and N x num_classes x H x W, in float32; None for what is not asked for.
        """
        scores, size = self.network.scores(images), (images.shape[-2], images.shape[-1])
        return self._at_full_size(scores, size, labels, maps)

    def _at_full_size(
        self,
        scores: Tensor,
        size: tuple[int, int],
        labels: Tensor | None,
        maps: Maps,
    ) -> tuple[Tensor | None, Tensor | None]:
        """As `forward`, from scores at the network's own stride."""
        logits = upsample(scores, size).float()
        loss = losses.summed_cross_entropy(logits, labels) if labels is not None else None
        if maps == "none":
            return loss, None
        return loss, (logits if maps == "learned" else logits.detach()).softmax(1)


class SegmentationStep(TrainingStep[Labelled, Target | None]):
    """What one step of training does: the network learns, then the discriminator.

    Brings the networks to the run's device, compiled with `run.compile`.

    Args:
        run: Device and precision, compilation.
        optimizer: Of the network.
        network: To be trained.
        adversarial: Weight of the adversarial term and optimizer of the discriminator.
        discriminator: To be trained; None without the adversarial term.
    """

    lr_key = "segmentation.optimizer.lr"
    noise = "dropout"
    shown = ("source", "target_labels", "pseudo_labels", "adversarial", "discriminator")
    discriminators = ("discriminator",)

    def __init__(
        self,
        run: Run,
        optimizer: OptimizerConfig,
        network: Segmenter,
        adversarial: AdversarialConfig,
        discriminator: OutputDiscriminator | None,
    ) -> None:
        self.fabric, self.adversarial, self.lr = run.fabric, adversarial, optimizer.lr
        self.users_name = network.users_name
        fused = has_fused_optimizers(run.fabric.device)
        network = channels_last(network).train()  # type: ignore[assignment]
        learner = LossAndMaps(network)
        if run.compile:
            learner.compile(dynamic=False, fullgraph=True)
        self.segment, self.optimizer = run.fabric.setup(
            learner, make_optimizer(network, optimizer, fused)
        )
        self.shared = {"network": network, "optimizer": self.optimizer}
        self.own = {}
        self.discriminator = discriminator
        self.optimizer_d = None
        if discriminator is not None:
            channels_last(discriminator)
            if run.compile:
                discriminator.compile(dynamic=False, fullgraph=True)
            betas = (adversarial.betas[0], adversarial.betas[1])
            optimizer_d = torch.optim.Adam(
                discriminator.parameters(), adversarial.lr, betas, fused=fused
            )
            self.judge, self.optimizer_d = run.fabric.setup(discriminator, optimizer_d)
            self.shared |= {"discriminator": discriminator, "optimizer_d": self.optimizer_d}
        self.replay = make_replay(run.fabric, run.replay, self.shared.values())

    def __call__(self, source: Labelled, target: Target | None, factor: float) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            source: Images, N x 3 x H x W in [0, 1], and train ids, N x H x W, on the device.
            target: What is seen of the target; None without one.
            factor: Factor of all learning rates.

        Returns:
            Losses by name, scalars on the device: nothing here waits for it.
        """
        for group in self.optimizer.param_groups:
            self.replay.set_rate(group, group["base_lr"] * factor)
        if self.optimizer_d is not None:
            for group in self.optimizer_d.param_groups:
                self.replay.set_rate(group, self.adversarial.lr * factor)
        images, pseudo_labels, labelled = target or Target(None)
        seen = (images, pseudo_labels, *(labelled or (None, None)))
        with users_errors(self.users_name, len(source[0])):
            return self.replay(self._learn, *source, *seen)

    def _learn(
        self,
        images: Tensor,
        labels: Tensor,
        target_images: Tensor | None,
        pseudo: Tensor | None,
        labelled_images: Tensor | None,
        labels_of_target: Tensor | None,
    ) -> dict[str, Tensor]:
        """What `__call__` does once the rates are set, without a draw or a wait."""
        judged = target_images is not None and self.discriminator is not None
        self.optimizer.zero_grad()
        on_source, source_maps = self._loss_and_maps(images, labels, "shown" if judged else "none")
        assert on_source is not None
        terms = {"source": on_source}
        self.fabric.backward(on_source)

        maps = None
        if target_images is not None:
            on_target, maps = self._loss_and_maps(
                target_images, pseudo, "learned" if judged else "none"
            )
            loss = torch.zeros((), device=self.fabric.device)
            if on_target is not None:
                terms["pseudo_labels"] = on_target
                loss = loss + on_target
            if maps is not None and self.discriminator is not None:
                self.discriminator.requires_grad_(False)
                with self.fabric.autocast():
                    scores = self.discriminator(maps)
                terms["adversarial"] = losses.adversarial(scores.float())
                loss = loss + self.adversarial.weight * terms["adversarial"]
                self.discriminator.requires_grad_(True)
            if loss.requires_grad:
                self.fabric.backward(loss)
        if labelled_images is not None and labels_of_target is not None:
            on_labelled, _ = self._loss_and_maps(labelled_images, labels_of_target, "none")
            assert on_labelled is not None
            terms["target_labels"] = on_labelled
            self.fabric.backward(on_labelled)
        self.optimizer.step()

        if maps is not None and self.optimizer_d is not None:
            # Both from the forward passes above: as the network was before its step.
            terms["discriminator"] = losses.discriminator(
                self.judge(source_maps), self.judge(maps.detach())
            )
            self.optimizer_d.zero_grad()
            self.fabric.backward(terms["discriminator"])
            self.optimizer_d.step()
        return terms

    def _loss_and_maps(
        self, images: Tensor, labels: Tensor | None, maps: Maps
    ) -> tuple[Tensor | None, Tensor | None]:
        """As `LossAndMaps`, the cross entropy as a share of that of all processes."""
        with several_images(len(images)):
            summed, made = self.segment(images, labels, maps)
        if labels is None:
            return None, made
        # Shares have more and fewer labelled pixels; gradients are averaged over processes. Divided
        # out here: what is given to a network is rounded to its precision.
        total = sum_on_device(self.fabric, losses.count_labelled(labels))
        return summed / (total.clamp_min(1) / self.fabric.world_size), made


def seconds_per_step(
    run: Run,
    training: SegmenterTraining,
    network: Segmenter,
    size: tuple[int, int],
    target: bool,
    pseudo_labels: bool,
    adversarial: AdversarialConfig | None,
    labelled: bool,
) -> float:
    """How long a step takes, tried on noise.

    Args:
        run: Device and precision.
        training: Optimizer, batch size and augmentation.
        network: Is changed.
        size: Width and height of the images before they are cut.
        target: Whether the target takes part.
        pseudo_labels: Whether it has labels.
        adversarial: The discriminator's configuration; None: there is none.
        labelled: Whether labelled images of the target take part.
    """
    adversarial = adversarial or AdversarialConfig(weight=0)
    judge = None
    if adversarial.weight > 0:
        judge = OutputDiscriminator(network.num_classes, adversarial.width)
    learn = SegmentationStep(run, training.optimizer, network, adversarial, judge)
    width, height = training.augmentation.crop or size
    noise = torch.rand(training.batch_size, 3, height, width)
    images = run.fabric.to_device(noise.contiguous(memory_format=torch.channels_last))
    labels = torch.randint(network.num_classes, (len(images), height, width))
    labels = run.fabric.to_device(labels)
    seen = Target(
        images if target else None,
        labels if pseudo_labels else None,
        (images, labels) if labelled else None,
    )
    return seconds_of(lambda: learn((images, labels), seen, 1.0), run.fabric.device)


def train_segmenter(
    run: Run,
    folder: Path,
    training: SegmenterTraining,
    seed: int,
    steps: int,
    space: LabelSpace,
    network: Segmenter,
    data: SegmentationData,
) -> SegmenterMetrics:
    """Train a network and write segmenter.pt, with validation also its best state; goes on from a
    saved state.

    Args:
        run: Devices and messages, how often to log and to save.
        folder: Where the result and states to resume from lie.
        training: Optimizer, schedule, batches and augmentation; name and options of the network.
        seed: Of the discriminator, dropout and augmentation.
        steps: Steps of the training.
        space: The classes.
        network: As it starts; it is trained in place.
        data: Both domains, and how the target takes part.

    Returns:
        Steps, curves, warnings and seconds, and which state was the best.

    Raises:
        UserError: An image or a saved state cannot be used, or training has diverged.
    """
    adversarial, discriminator = data.adversarial or AdversarialConfig(weight=0), None
    if adversarial.weight > 0:
        seed_torch(seed, "discriminator")
        discriminator = OutputDiscriminator(space.num_classes, adversarial.width)
    learn = SegmentationStep(run, training.optimizer, network, adversarial, discriminator)

    def batches(first: int) -> Iterator[tuple[Labelled, Target | None]]:
        process = run.fabric.global_rank, run.fabric.world_size
        return segmentation_batches(run, training, seed, data, range(first, steps), process)

    def factor(step: int) -> float:
        return rate_factor(training.schedule, step, steps)

    said = {TARGET_LABELS: data.target_labels} if data.labelled is not None else {}
    if run.is_main:
        write_first_batch(run, folder, training, seed, space, data)
    best = None
    if data.validation is not None:
        best = BestState(run, folder, network, training, space, data.validation, said)
        learn.validation = Validation(data.validation.every, best.look, data.validation.on)
    metrics = fit(run, folder, learn, batches, factor, steps, seed)
    if run.is_main:
        save_segmenter(folder / RESULT, network, training, space, said)
    run.fabric.barrier()
    return SegmenterMetrics(
        **vars(metrics),
        best=best.best if best is not None else None,
        target_labels=data.target_labels,
    )


def segmentation_batches(
    run: Run,
    training: SegmenterTraining,
    seed: int,
    data: SegmentationData,
    steps: range,
    process: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Labelled, Target | None]]:
    """The batches of some steps, augmented, on the device.

    Args:
        run: The device, and processes that load images.
        training: Batch size and augmentation.
        seed: Of augmentation and class mixing.
        data: Both domains.
        steps: Which steps, one after the other.
        process: Rank and number of the processes that share each batch.

    Yields:
        Source images, N x 3 x H x W in [0, 1], and train ids, N x H x W; what is seen of the
        target, None without one.
    """

    roles = {"source": data.source, "target": data.target, "labelled": data.labelled}
    size = training.batch_size
    loaded = training_batches(roles, steps.start, steps.stop, size, run.workers, *process)
    for step, batches in enumerate(loaded, start=steps.start):
        seen: dict[str, tuple[Tensor, Tensor | None]] = {}
        for role, samples in roles.items():
            if samples is not None:
                batch = run.fabric.to_device(batches[role])
                purpose = f"{samples.purpose} 0"  # the same for all processes, each takes its own
                images = to_unit(batch["image"])
                images = jitter_colors(images, training.augmentation, seed, purpose, step, *process)
                seen[role] = images, batch.get("label")
        source, target = _labelled(seen["source"]), None
        if "target" in seen:
            target = Target(*seen["target"])
            if data.class_mixing and target.pseudo_labels is not None:
                mixed = mix_classes(source, _labelled(seen["target"]), seed, step, *process)
                target = Target(*mixed)
        if "labelled" in seen:
            target = (target or Target(None))._replace(labelled=_labelled(seen["labelled"]))
        yield source, target


def _labelled(batch: tuple[Tensor, Tensor | None]) -> Labelled:
    images, labels = batch
    assert labels is not None
    return images, labels


def write_first_batch(
    run: Run,
    folder: Path,
    training: SegmenterTraining,
    seed: int,
    space: LabelSpace,
    data: SegmentationData,
) -> None:
    """Write some images of the first step's batch as the network gets them, with their labels.

    Nothing that a training does later depends on it: what a step sees is a function of its number.
    """
    alone = replace(run, workers=0)
    (source, target), *_ = segmentation_batches(alone, training, seed, data, range(1))
    seen: dict[str, tuple[Tensor, Tensor | None]] = {"source": source}
    if target is not None and target.images is not None:
        seen["target"] = target.images, target.pseudo_labels
    if target is not None and target.labelled is not None:
        seen["target_labelled"] = target.labelled
    for role, (images, labels) in seen.items():
        for number in range(batch_count(training.batch_size)):
            pixels = Image.fromarray(to_bytes(images[number]))
            save_png(batch_path(folder, role, number), pixels)
            if labels is not None:
                ids = labels[number].cpu().numpy().astype(np.uint8)
                write_labels(batch_path(folder, role, number, labels=True), ids, space)
