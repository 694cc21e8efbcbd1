"""Training of a segmentation network: rates, groups, which terms see what, what is written."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from bdl.domains.augment import mix_classes
from bdl.domains.datasets import Sample
from bdl.domains.label_space import load_label_space
from bdl.domains.loading import TrainingSamples, View
from bdl.runtime.config import (
    AdversarialConfig,
    AugmentationConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentationConfig,
)
from bdl.runtime.console import Console
from bdl.runtime.errors import UserError
from bdl.runtime.run import Run
from bdl.segmentation.checkpoint import initial_segmenter, load_segmenter, save_segmenter
from bdl.segmentation.metrics import SegmenterMetrics
from bdl.segmentation.networks import build_segmenter
from bdl.segmentation.networks.base import ParameterGroup, Segmenter
from bdl.segmentation.networks.discriminator import OutputDiscriminator
from bdl.segmentation.schedule import rate_factor
from bdl.segmentation.stages import RESULT
from bdl.segmentation.train import (
    LossAndMaps,
    SegmentationData,
    SegmentationStep,
    Target,
    make_optimizer,
    require_trainable,
    segmentation_batches,
    train_segmenter,
)

SPACE = load_label_space("camvid11")


class Counting(Segmenter):
    """One convolution, after batch norm if `normed`; notes the images that pass."""

    def __init__(self, normed: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = SPACE.num_classes
        self.norm = nn.BatchNorm2d(3) if normed else nn.Identity()
        self.head = nn.Conv2d(3, self.num_classes, 1)
        self.seen: list[Tensor] = []

    def scores(self, images: Tensor) -> Tensor:
        self.seen.extend(images.detach().clone())
        return self.head(self.norm(images))

    def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
        head = list(self.head.parameters())
        return [ParameterGroup(list(self.norm.parameters())), ParameterGroup(head, head=True)]


# Rates


def test_poly_schedule():
    """Published: power 0.9 over 250,000 steps, at most 120,000 of them made."""
    schedule = ScheduleConfig(steps=250_000)
    factors = {
        step: rate_factor(schedule, step, 80_000) for step in (0, 80_000, 125_000, 250_000, 300_000)
    }
    assert factors[0] == 1
    assert factors[125_000] == pytest.approx(0.5**0.9)
    assert factors[80_000] == pytest.approx(0.68**0.9)
    assert factors[250_000] == factors[300_000] == 0


def test_without_steps_of_its_own_the_poly_schedule_ends_with_the_training():
    schedule = ScheduleConfig()
    assert rate_factor(schedule, 0, 500) == 1
    assert rate_factor(schedule, 250, 500) == pytest.approx(0.5**0.9)
    assert rate_factor(schedule, 499, 500) > 0 == rate_factor(schedule, 500, 500)


def test_step_schedule():
    schedule = ScheduleConfig(name="step", steps=50_000, gamma=0.1)
    factors = [rate_factor(schedule, step, 80_000) for step in (0, 49_999, 50_000, 99_999, 100_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("name", ["poly", "step"])
def test_a_schedule_rises_in_its_first_steps(name):
    plain, rising = ScheduleConfig(name), ScheduleConfig(name, warmup_steps=4)
    for step in range(20):
        expected = rate_factor(plain, step, 20) * min(1, (step + 1) / 4)
        assert rate_factor(rising, step, 20) == pytest.approx(expected)


def test_optimizer_gives_each_group_its_rate():
    class Grouped(Counting):
        def parameter_groups(self, rates: str = "printed") -> list[ParameterGroup]:
            body, head = super().parameter_groups()
            body.multiplier = 3.0 if rates == "effective" else 1.0
            head.multiplier = 2.0
            return [body, head]

    config = OptimizerConfig(lr=0.1, head_multiplier=10, momentum=0.8, weight_decay=0.02)
    optimizer = make_optimizer(Grouped(), config)
    assert isinstance(optimizer, torch.optim.SGD)
    assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 2])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 2])
    assert {(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (0.8, 0.02)
    }
    effective = make_optimizer(Grouped(), OptimizerConfig(lr=0.1, rates="effective"))
    assert [group["lr"] for group in effective.param_groups] == pytest.approx([0.3, 2])


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW")])
def test_adaptive_optimizers(name, kind):
    config = OptimizerConfig(name=name, betas=(0.8, 0.95), weight_decay=0.1)
    optimizer = make_optimizer(Counting(), config)
    assert type(optimizer).__name__ == kind
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)


def test_what_a_training_would_stop_at_is_found_without_it():
    config = SegmentationConfig(optimizer=OptimizerConfig(layer_decay=0.9))
    with pytest.raises(UserError, match="layer_decay"):
        require_trainable(Counting(), config, 2, (8, 8))
    require_trainable(Counting(), SegmentationConfig(), 1, (8, 8))


# Training


@pytest.fixture
def domains(tmp_path) -> dict[str, TrainingSamples]:
    """Source images are dark, target images bright; pseudo-labelled ones as bright."""
    found = {}
    for name, low in (("source", 0), ("target", 130)):
        found[name] = draw_domain(tmp_path, name, low)
        plain = [replace(sample, label=None) for sample in found[name].samples]
        found[f"plain {name}"] = TrainingSamples(plain, View(), 0, name)
    return found


def draw_domain(folder: Path, name: str, low: int) -> TrainingSamples:
    """Three labelled images, of `low` brightness to 120 more."""
    random = np.random.default_rng(low)
    samples = []
    for number in range(3):
        image = folder / f"{name}{number}.png"
        pixels = random.integers(low, low + 120, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(image)
        label = folder / f"{name}{number}-label.png"
        Image.fromarray(random.choice([0, 3, 10, 255], (32, 48)).astype(np.uint8)).save(label)
        samples.append(Sample(str(number), image, label))
    return TrainingSamples(samples, View(), 0, name)


def train(
    fabric, console, folder, network, source, target, steps=3, few=None, **changes
) -> SegmenterMetrics:
    defaults = {
        "batch_size": 2,
        "optimizer": OptimizerConfig(lr=0.01),
        "schedule": ScheduleConfig(steps=10),
        "adversarial": AdversarialConfig(weight=0.1, width=4),
    }
    config = SegmentationConfig(**{**defaults, **changes})
    run = Run(folder, fabric, console, log_every=1, checkpoint_every=100, keep_checkpoints=1)
    data = SegmentationData(source, target, config.adversarial, config.class_mixing, labelled=few)
    return train_segmenter(run, folder, config, 0, steps, SPACE, network, data)


def brightness(network: Counting) -> list[str]:
    return ["target" if image.min() > 0.5 else "source" for image in network.seen]


@pytest.fixture
def saved_state(monkeypatch):
    """The networks of these tests are not of the project's own names; their files do not count."""
    monkeypatch.setattr("bdl.segmentation.train.save_segmenter", lambda *arguments: None)


def test_without_target_only_source_images_pass(fabric, console, tmp_path, domains, saved_state):
    network = Counting()
    metrics = train(fabric, console, tmp_path, network, domains["source"], None)
    assert brightness(network) == ["source"] * 6
    assert network.norm.running_mean.max() < 0.25
    for row in metrics.curves:
        assert row.keys() == {"step", "lr", "source"}
    rates = [0.01 * (1 - step / 10) ** 0.9 for step in range(3)]
    assert [row["lr"] for row in metrics.curves] == pytest.approx(rates)


def test_with_target_as_many_of_its_images_pass(fabric, console, tmp_path, domains, saved_state):
    network = Counting()
    metrics = train(fabric, console, tmp_path, network, domains["source"], domains["plain target"])
    assert sorted(brightness(network)) == ["source"] * 6 + ["target"] * 6
    for row in metrics.curves:
        assert row.keys() == {"step", "lr", "source", "adversarial", "discriminator"}


def test_pseudo_labels_add_their_term(fabric, console, tmp_path, domains, saved_state):
    metrics = train(fabric, console, tmp_path, Counting(), domains["source"], domains["target"])
    assert {"source", "pseudo_labels", "adversarial"} <= metrics.curves[0].keys()
    without = AdversarialConfig(weight=0)
    folder = tmp_path / "without"
    metrics = train(
        fabric,
        console,
        folder,
        Counting(),
        domains["source"],
        domains["target"],
        adversarial=without,
    )
    assert metrics.curves[0].keys() == {"step", "lr", "source", "pseudo_labels"}


@pytest.mark.parametrize("class_mixing", [False, True])
def test_the_first_step_is_sgd_on_the_sum_of_the_terms(
    fabric, console, tmp_path, domains, saved_state, class_mixing
):
    """Without the discriminator: the head moves by 10 times the rate along the gradient."""
    network, expected = Counting(normed=False), Counting(normed=False)
    options = {"adversarial": AdversarialConfig(weight=0), "steps": 1, "class_mixing": class_mixing}
    train(fabric, console, tmp_path, network, domains["source"], domains["target"], **options)

    def batch(samples: TrainingSamples) -> tuple[Tensor, Tensor]:
        items = [samples[number] for number in (0, 1)]
        return (
            torch.stack([item["image"] for item in items]).float() / 255,
            torch.stack([item["label"] for item in items]),
        )

    source, target = batch(domains["source"]), batch(domains["target"])
    if class_mixing:
        target = mix_classes(source, target, seed=0, step=0)
    loss = torch.zeros(())
    for images, labels in (source, target):
        logits = expected(images).log_softmax(1).permute(0, 2, 3, 1)
        labelled = labels != 255
        loss = loss - logits[labelled].gather(1, labels[labelled][:, None]).mean()
    loss.backward()
    # Weight decay adds its share of the weights to the gradient.
    gradient = expected.head.weight.grad + 5e-4 * expected.head.weight
    moved = Counting(normed=False).head.weight - network.head.weight
    torch.testing.assert_close(moved, 0.1 * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seen", [None, "plain target", "target"])
def test_labelled_target_images_add_their_term(
    fabric, console, tmp_path, domains, saved_state, seen
):
    """At batch 1, too: one SGD step is along the gradient of the sum. What else is drawn stays."""
    options = {"adversarial": AdversarialConfig(weight=0), "batch_size": 1, "steps": 1}
    labelled = labelled_as(domains["target"], "target_labelled")
    target = domains[seen] if seen else None
    moved = {}
    for name, few in (("without", None), ("with", labelled)):
        network = Counting(normed=False)
        folder = tmp_path / name
        metrics = train(
            fabric, console, folder, network, domains["source"], target, few=few, **options
        )
        moved[name] = Counting(normed=False).head.weight - network.head.weight
        assert ("target_labels" in metrics.curves[0]) == (few is not None)
        assert metrics.target_labels == (3 if few is not None else 0)
    item, expected = labelled[0], Counting(normed=False)
    logits = expected((item["image"] / 255)[None]).log_softmax(1)[0].permute(1, 2, 0)
    known = item["label"] != 255
    (-logits[known].gather(1, item["label"][known][:, None]).mean()).backward()
    gradient = 0.1 * expected.head.weight.grad  # 10 times the rate 0.01
    torch.testing.assert_close(moved["with"] - moved["without"], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_compiled_step_learns_as_one_that_is_not(console, tmp_path, monkeypatch, precision):
    """Losses and weights after two steps with all terms; only traced."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    random = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 3, 32, 48, generator=random)
    ids = torch.randint(0, 5, (3, 1, 32, 48), generator=random)
    ids[:, :, :4] = 255
    (source, target, labelled), seen = zip(images, ids, strict=True), []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = build_segmenter("compact", 5, width=4, dilations=[1, 2])
        judge, adversarial = OutputDiscriminator(5, 4), AdversarialConfig(weight=0.1, lr=0.01)
        fabric = Fabric(accelerator="cpu", precision=precision)
        run = Run(tmp_path, fabric, console, compile=compiled)
        step = SegmentationStep(run, OptimizerConfig(lr=0.01), network, adversarial, judge)
        terms = [step(source, Target(*target, labelled), 1.0) for _ in range(2)]
        seen.append(([{k: v.item() for k, v in one.items()} for one in terms], network))
    (expected, plain), (terms, network) = seen
    assert len(terms[1]) == 5
    for one, other in zip(terms, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_what_a_network_learns_by_is_at_the_size_of_its_images():
    """Cross entropy and maps of `network(images)`; through maps that are only shown nothing is
    learned."""
    torch.manual_seed(0)
    network = build_segmenter("compact", 5, width=4, dilations=[1, 2]).train()
    images, ids = torch.rand(2, 3, 33, 40), torch.randint(0, 5, (2, 33, 40))
    logits = network(images)
    learner = LossAndMaps(network)
    summed, shown = learner(images, ids, "shown")
    loss = summed / ids.numel()
    assert loss == nn.functional.cross_entropy(logits, ids) and not shown.requires_grad
    none, learned = learner(images, None, "learned")
    assert none is None and learned.requires_grad
    assert torch.equal(shown, logits.softmax(1)) and torch.equal(learned, shown)
    assert learner(images, None, "none") == (None, None)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_is_the_mean_over_all_labelled_pixels_in_any_precision(tmp_path, console, precision):
    """Their number, 2442, has more digits than bf16."""
    torch.manual_seed(0)
    network = build_segmenter("compact", 5, width=4, dilations=[1, 2])
    run = Run(tmp_path, Fabric(accelerator="cpu", precision=precision), console)
    learn = SegmentationStep(run, OptimizerConfig(), network, AdversarialConfig(weight=0), None)
    images, ids = torch.rand(2, 3, 33, 41), torch.randint(0, 5, (2, 33, 41))
    ids[:, :, :4] = 255
    _, maps = learn.segment(images, ids, "shown")
    expected = nn.functional.nll_loss(maps.log(), ids, ignore_index=255)
    assert learn((images, ids), None, 1.0)["source"].item() == pytest.approx(expected.item(), 1e-5)


def labelled_as(samples: TrainingSamples, purpose: str) -> TrainingSamples:
    return TrainingSamples(samples.samples, View(), 0, purpose)


@settings(deadline=None, max_examples=10)
@given(first=st.integers(0, 6), batch=st.integers(1, 3))
def test_which_labelled_image_a_step_sees_depends_on_seed_and_step_alone(
    fabric, tmp_path_factory, first, batch
):
    """From whatever step on; and what it sees of both domains is as without them."""
    folder = tmp_path_factory.mktemp("images")
    few = draw_domain(folder, "few", 60)
    source, target = draw_domain(folder, "source", 0), draw_domain(folder, "target", 130)
    augmentation = AugmentationConfig(brightness=0.2)
    training = SegmentationConfig(batch_size=batch, augmentation=augmentation)
    run = Run(folder, fabric, Console(speaking=False))

    def steps(data: SegmentationData, begun: int) -> list[list[Tensor]]:
        made = segmentation_batches(run, training, 0, data, range(begun, 7))
        return [list(tensors_in(step)) for step in made]

    whole = steps(SegmentationData(source, target, labelled=few, class_mixing=True), 0)
    again = steps(SegmentationData(source, target, labelled=few, class_mixing=True), first)
    plain = steps(SegmentationData(source, target, class_mixing=True), first)
    assert len(again) == len(plain) == 7 - first
    for one, other, less in zip(whole[first:], again, plain, strict=True):
        assert len(one) == len(other) == len(less) + 2
        assert all(map(torch.equal, one, other)) and all(map(torch.equal, one[:-2], less))
        assert one[-1].shape[0] == batch


def tensors_in(batch: object) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif batch is not None:
        for item in batch:
            yield from tensors_in(item)


def test_all_ignored_pseudo_labels_train_on(fabric, console, tmp_path, domains, saved_state):
    """A target without one confident pixel gives the term 0, not NaN."""
    for sample in domains["target"].samples:
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(sample.label)
    network = Counting()
    metrics = train(fabric, console, tmp_path, network, domains["source"], domains["target"])
    assert [row["pseudo_labels"] for row in metrics.curves] == [0, 0, 0]
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_the_segmenter_does_not_learn_from_the_discriminators_loss(
    fabric, console, tmp_path, domains, saved_state
):
    """With an adversarial weight next to nothing it ends where it ends without the term."""
    ends = []
    for name, weight in (("tiny", 1e-12), ("larger", 100.0)):
        network = Counting()
        train(
            fabric,
            console,
            tmp_path / name,
            network,
            domains["source"],
            domains["target"],
            adversarial=AdversarialConfig(weight=weight, width=4),
        )
        ends.append(network.head.weight.detach())
    network = Counting()
    none = AdversarialConfig(weight=0)
    folder = tmp_path / "none"
    train(fabric, console, folder, network, domains["source"], domains["target"], adversarial=none)
    torch.testing.assert_close(ends[0], network.head.weight.detach(), rtol=1e-5, atol=1e-7)
    assert (ends[1] - ends[0]).abs().max() > 1e-4


def test_colors_are_augmented_alike_after_a_restart(
    fabric, console, tmp_path, domains, saved_state
):
    augmentation = AugmentationConfig(brightness=0.2, contrast=0.2, hue=0.1)
    seen = []
    for name in ("first", "second"):
        network = Counting()
        train(
            fabric,
            console,
            tmp_path / name,
            network,
            domains["source"],
            None,
            augmentation=augmentation,
        )
        seen.append(torch.stack(network.seen))
    assert torch.equal(*seen)
    plain = Counting()
    train(fabric, console, tmp_path / "plain", plain, domains["source"], None)
    assert (seen[0] - torch.stack(plain.seen)).abs().max() > 0.02


# Files


CONFIG = SegmentationConfig(network="compact", options={"width": 4, "dilations": [1, 2]})


def test_what_is_saved_is_loaded(tmp_path):
    network = initial_segmenter(CONFIG, None, SPACE.names, seed=0)
    file = tmp_path / RESULT
    save_segmenter(file, network, CONFIG, SPACE)
    loaded, described = load_segmenter(file)
    assert not loaded.training
    assert described == SPACE.describe()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_initial_networks_depend_on_the_seed_alone():
    torch.manual_seed(123)
    first = initial_segmenter(CONFIG, None, SPACE.names, seed=0)
    torch.rand(17)
    again, other = (initial_segmenter(CONFIG, None, SPACE.names, seed) for seed in (0, 1))
    name = "classifier.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_initial_weights_come_from_a_file(tmp_path):
    given = initial_segmenter(CONFIG, None, SPACE.names, seed=7)
    file = tmp_path / "given.pt"
    for content in (given.state_dict(), {"state": given.state_dict()}):
        torch.save(content, file)
        state = initial_segmenter(CONFIG, file, SPACE.names, seed=0).state_dict()
        assert all(torch.equal(state[name], value) for name, value in given.state_dict().items())
    # The head may be missing, as in weights of another task; it starts anew.
    body = {k: v for k, v in given.state_dict().items() if not k.startswith("classifier.")}
    torch.save(body, file)
    state = initial_segmenter(CONFIG, file, SPACE.names, seed=0).state_dict()
    assert all(torch.equal(state[name], value) for name, value in body.items())
    fresh = initial_segmenter(CONFIG, None, SPACE.names, seed=0).state_dict()
    assert torch.equal(state["classifier.weight"], fresh["classifier.weight"])


def test_a_head_is_kept_for_the_same_names_alone(tmp_path):
    """In the same order: that there are as many other classes says nothing."""
    given, file = initial_segmenter(CONFIG, None, SPACE.names, seed=7), tmp_path / "given.pt"
    save_segmenter(file, given, CONFIG, SPACE)
    name = "classifier.weight"
    fresh = initial_segmenter(CONFIG, None, SPACE.names, seed=0).state_dict()
    for names in (
        SPACE.names,
        SPACE.names[::-1],
        ("other", *SPACE.names[1:]),
    ):
        state = initial_segmenter(CONFIG, file, names, seed=0).state_dict()
        head = given.state_dict() if names == SPACE.names else fresh
        assert torch.equal(state[name], head[name])
        assert torch.equal(state["stem.0.weight"], given.state_dict()["stem.0.weight"])
    assert initial_segmenter(CONFIG, file, SPACE.names[:3], seed=0).num_classes == 3


@pytest.mark.parametrize("change", ["lost", "unknown", "shape"])
def test_initial_weights_that_do_not_fit_are_named(tmp_path, change):
    state = dict(initial_segmenter(CONFIG, None, SPACE.names, seed=7).state_dict())
    if change == "lost":
        del state["stem.0.weight"]
    elif change == "unknown":
        state["stem.99.weight"] = torch.zeros(1)
    else:
        state["stem.0.weight"] = torch.zeros(1)
    file = tmp_path / "given.pt"
    torch.save(state, file)
    with pytest.raises(UserError, match=rf"{file}: does not fit compact: .*stem\.\d+\.weight"):
        initial_segmenter(CONFIG, file, SPACE.names, seed=0)


def test_files_that_hold_no_segmenter_are_named(tmp_path):
    file = tmp_path / RESULT
    torch.save({"state": {}}, file)
    with pytest.raises(UserError, match=f"{file}: holds .* no segmentation network"):
        load_segmenter(file)
    network = initial_segmenter(CONFIG, None, SPACE.names, seed=0)
    save_segmenter(file, network, CONFIG, SPACE)
    content = torch.load(file, weights_only=True)
    content["options"]["width"] = 5
    torch.save(content, file)
    with pytest.raises(UserError, match=f"{file}: its weights do not fit its network"):
        load_segmenter(file)
