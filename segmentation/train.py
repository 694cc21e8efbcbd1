"""Training of a segmentation network: source, adversarial and pseudo-label terms."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from domains.augment import jitter_colors, mix_classes
from domains.images import to_unit
from domains.label_space import LabelSpace
from domains.loading import TrainingSamples, training_batches
from runtime.checkpoint import Checkpoint, Curves, Stateful
from runtime.config import OptimizerConfig, ScheduleConfig, SegmentationConfig
from runtime.console import Console, log
from runtime.device import (
    channels_last,
    has_fused_optimizers,
    seed_torch,
    sum_on_device,
)
from runtime.errors import UserError
from runtime.files import load_tensors, save_tensors
from runtime.stages import Metrics, Stopwatch
from runtime.step_end import StepEnd
from runtime.tracking import Tracker
from runtime.weights import require_finite
from segmentation import losses
from segmentation.networks import build_segmenter
from segmentation.networks.base import Segmenter
from segmentation.networks.discriminator import OutputDiscriminator

RESULT = "segmenter.pt"


def save_segmenter(
    file: Path, network: Segmenter, config: SegmentationConfig, space: LabelSpace
) -> None:
    """Write the network with what is needed to build and to use it."""
    save_tensors(
        file,
        {
            "network": config.network,
            "options": dict(config.options),
            "label_space": space.describe(),
            "state": network.state_dict(),
        },
    )


def load_segmenter(file: Path) -> tuple[Segmenter, dict[str, Any]]:
    """The network in `file`, ready for use on the CPU, and its label space's description.

    Raises UserError if the file does not hold a segmentation network of this project.
    """
    return as_segmenter(load_tensors(file), file)


def as_segmenter(content: dict[str, Any], file: Path) -> tuple[Segmenter, dict[str, Any]]:
    """The same from the `content` of a file, which errors name."""
    try:
        names = content["label_space"]["names"]
        # Its weights are in the file: no others are fetched.
        options = dict(content["options"])
        if content["network"].startswith("timm:"):
            options["pretrained"] = False
        network = build_segmenter(content["network"], len(names), **options)
        network.load_state_dict(content["state"])
        require_finite(file, content["state"])
    except (KeyError, TypeError, AttributeError) as error:
        if "state" in content and "label_space" not in content:
            raise UserError(
                f"{file}: holds initial weights or no segmentation network at all; give the "
                "network that a training made, or a trained checkpoint from import-weights"
            ) from None
        raise UserError(
            f"{file}: is not a segmentation network of this project ({error})"
        ) from None
    except RuntimeError as error:
        raise UserError(f"{file}: its weights do not fit its network: {error}") from None
    return channels_last(network).eval(), content["label_space"]  # type: ignore[return-value]


def initial_segmenter(config: SegmentationConfig, num_classes: int, seed: int) -> Segmenter:
    """The network as every training of the loop starts with it: the same for the same seed.

    `segmentation.weights` may lack the head, or hold one for another number of classes, which is
    left out: it then starts anew. Raises UserError if the file is of another network.
    """
    seed_torch(seed, "segmenter")
    network = build_segmenter(config.network, num_classes, **config.options)
    if config.weights is not None:
        content = load_tensors(Path(config.weights).expanduser())
        state = content.get("state", content)
        require_finite(config.weights, state)
        if "network" in content:
            _require_same_network(config, network, content)
        classes = len(content["label_space"]["names"]) if "label_space" in content else num_classes
        if classes != num_classes:
            state = {k: v for k, v in state.items() if not k.startswith(network.head_prefixes)}
            log.info(
                "%s: its head, for %d classes, is left out: a new one starts for %d",
                config.weights,
                classes,
                num_classes,
            )
        try:
            missing, unexpected = network.load_state_dict(state, strict=False)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{config.weights}: does not fit {config.network}: {reason}") from None
        lost = [name for name in missing if not name.startswith(network.head_prefixes)]
        if lost or unexpected:
            raise UserError(
                f"{config.weights}: does not fit {config.network}: missing {lost[:3]}, "
                f"unknown {unexpected[:3]}; convert it with import-weights"
            )
    return network


def _require_same_network(
    config: SegmentationConfig, network: Segmenter, content: dict[str, Any]
) -> None:
    """Weights can fit a network that computes something else with them; their file tells."""
    if content["network"] != config.network:
        raise UserError(
            f"{config.weights}: is for segmentation.network={content['network']}, "
            f"not {config.network}"
        )
    parameters = inspect.signature(type(network)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    options = {**defaults, **config.options}
    for name, value in content.get("options", {}).items():
        # Where other weights once came from is not a property of these.
        if name != "pretrained" and options.get(name) != value:
            raise UserError(
                f"{config.weights}: was made with {name}={value}; "
                f"set segmentation.options.{name}={value}"
            )


def make_optimizer(
    network: Segmenter, config: OptimizerConfig, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimizer, a group for each learning rate; each group's "base_lr" is its full rate.

    `fused`: all weights in one pass over memory, on devices that can.
    """
    groups = []
    for group in network.parameter_groups(config.rates):
        head = config.head_multiplier if group.head else 1.0
        rate = config.lr * group.multiplier * head
        groups.append({"params": group.parameters, "lr": rate, "base_lr": rate})
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    betas = (config.betas[0], config.betas[1])
    return kind(groups, betas=betas, weight_decay=config.weight_decay, fused=fused)


def rate_factor(schedule: ScheduleConfig, step: int) -> float:
    """Factor of the learning rates in `step`, counted from 0.

    poly: (1 - step / steps)^power, which training usually ends before it is 0; step: `gamma`
    for every `steps` steps.
    """
    if schedule.name == "poly":
        return max(0.0, 1 - step / schedule.steps) ** schedule.power
    return schedule.gamma ** (step // schedule.steps)


class SegmentationStep:
    """What one step of training does: the network learns, then the discriminator.

    Brings `network` and `discriminator` to the device of `fabric`, `compiled` by torch.compile. A
    call takes a source batch (images N x 3 x H x W in [0, 1] and labels N x H x W, on the device),
    a target batch, whose labels may be None, or None in its place, and the factor of all learning
    rates; it gives the losses by name, still on the device: nothing in it waits for the device.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: SegmentationConfig,
        network: Segmenter,
        discriminator: OutputDiscriminator,
        *,
        compiled: bool = False,
    ) -> None:
        self.fabric, self.adversarial = fabric, config.adversarial
        self.discriminator = channels_last(discriminator)
        network = channels_last(network).train()  # type: ignore[assignment]
        if compiled:
            for module in (network, discriminator):
                module.compile(dynamic=False)
        fused = has_fused_optimizers(fabric.device)
        optimizer = make_optimizer(network, config.optimizer, fused)
        betas = (self.adversarial.betas[0], self.adversarial.betas[1])
        optimizer_d = torch.optim.Adam(
            discriminator.parameters(), self.adversarial.lr, betas, fused=fused
        )
        self.segment, self.optimizer = fabric.setup(network, optimizer)
        self.judge, self.optimizer_d = fabric.setup(discriminator, optimizer_d)

    def __call__(
        self,
        source: tuple[Tensor, Tensor],
        target: tuple[Tensor, Tensor | None] | None,
        factor: float,
    ) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        for group in self.optimizer_d.param_groups:
            group["lr"] = self.adversarial.lr * factor
        self.optimizer.zero_grad()

        images, labels = source
        logits = self.segment(images)
        terms = {"source": self._cross_entropy(logits, labels)}
        self.fabric.backward(terms["source"])

        maps = None
        if target is not None:
            target_images, pseudo_labels = target
            target_logits = self.segment(target_images)
            loss = torch.zeros((), device=self.fabric.device)
            if pseudo_labels is not None:
                terms["pseudo_labels"] = self._cross_entropy(target_logits, pseudo_labels)
                loss = loss + terms["pseudo_labels"]
            if self.adversarial.weight > 0:
                maps = target_logits.softmax(1)
                self.discriminator.requires_grad_(False)
                with self.fabric.autocast():
                    scores = self.discriminator(maps)
                terms["adversarial"] = losses.adversarial(scores.float())
                loss = loss + self.adversarial.weight * terms["adversarial"]
                self.discriminator.requires_grad_(True)
            if loss.requires_grad:
                self.fabric.backward(loss)
        self.optimizer.step()

        if maps is not None:
            # Both from the forward passes above: as the network was before its step.
            terms["discriminator"] = losses.discriminator(
                self.judge(logits.detach().softmax(1)), self.judge(maps.detach())
            )
            self.optimizer_d.zero_grad()
            self.fabric.backward(terms["discriminator"])
            self.optimizer_d.step()
        return terms

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Shares have more and fewer labelled pixels, and gradients are averaged over processes.
        total = sum_on_device(self.fabric, losses.count_labelled(labels))
        return losses.cross_entropy(logits, labels, total.clamp_min(1) / self.fabric.world_size)


def train_segmenter(
    fabric: Fabric,
    console: Console,
    tracker: Tracker,
    folder: Path,
    config: SegmentationConfig,
    space: LabelSpace,
    network: Segmenter,
    source: TrainingSamples,
    target: TrainingSamples | None,
    *,
    steps: int,
    seed: int,
    workers: int,
    compiled: bool = False,
    log_every: int,
    checkpoint_every: int,
    keep_checkpoints: int,
) -> Metrics:
    """Train `network` and write `folder`/segmenter.pt; goes on from a saved state.

    Without `target` training is on the source alone, and no target image passes the network:
    batch norm would learn from it. Target samples with labels (pseudo labels) add their term;
    the adversarial term takes part where its weight is above 0. Returns curves, warnings, seconds.
    """
    seed_torch(seed, "discriminator")
    discriminator = OutputDiscriminator(space.num_classes, config.adversarial.width)
    learn = SegmentationStep(fabric, config, network, discriminator, compiled=compiled)
    curves, stopwatch = Curves(), Stopwatch()
    shared: dict[str, Stateful] = {
        "network": network,
        "optimizer": learn.optimizer,
        "discriminator": discriminator,
        "optimizer_d": learn.optimizer_d,
        "precision": fabric.strategy.precision,
        "curves": curves,
        "stopwatch": stopwatch,
    }
    state = Checkpoint(fabric, folder, shared, own={}, keep=keep_checkpoints)
    # Dropout draws from torch's random state, which the checkpoint restores.
    seed_torch(seed, f"dropout {fabric.global_rank}")
    first = state.restore()

    process = (fabric.global_rank, fabric.world_size)

    def batches(samples: TrainingSamples) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        loaded = training_batches(samples, first, steps, config.batch_size, workers, *process)
        purpose = f"{samples.purpose} 0"  # the same draws for all processes, each takes its own
        for step, batch in enumerate(loaded, start=first):
            batch = fabric.to_device(batch)
            images = to_unit(batch["image"])
            images = jitter_colors(images, config.augmentation, seed, purpose, step, *process)
            yield step, images, batch.get("label")

    from_source = batches(source)
    from_target = batches(target) if target is not None else None
    with console.track(tracker.name, steps, first) as task:
        end_step = StepEnd(
            fabric,
            tracker,
            task,
            state,
            curves,
            steps=steps,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            discriminators=["discriminator"],
            shown=["source", "pseudo_labels", "adversarial", "discriminator"],
            rate_key="segmentation.optimizer.lr",
        )
        for step, images, labels in from_source:
            factor = rate_factor(config.schedule, step)
            assert labels is not None
            learned_from = None
            if from_target is not None:
                _, target_images, pseudo_labels = next(from_target)
                learned_from = target_images, pseudo_labels
                if config.class_mixing and pseudo_labels is not None:
                    labelled = target_images, pseudo_labels
                    learned_from = mix_classes((images, labels), labelled, seed, step, *process)
            terms = learn((images, labels), learned_from, factor)
            end_step(step + 1, terms, lr=config.optimizer.lr * factor)

    if fabric.is_global_zero:
        save_segmenter(folder / RESULT, network, config, space)
    fabric.barrier()
    return {
        "steps": steps,
        "seconds": stopwatch.seconds,
        "curves": curves.rows,
        "warnings": end_step.warnings(),
    }
