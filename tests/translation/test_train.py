"""Training of a translator: schedule, the ten terms, and what learns from which."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bdl.domains.datasets import Sample
from bdl.domains.loading import TrainingSamples, View
from bdl.runtime.config import GeneratorConfig, TranslationWeights, TranslatorTraining
from bdl.runtime.device import seed_torch
from bdl.runtime.live import LivePage, Progress
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.run import Run
from bdl.runtime.tracking import Tracker
from bdl.translation.pool import FakePool
from bdl.translation.schedule import Schedule
from bdl.translation.train import (
    Discriminators,
    TranslationStep,
    Translator,
    followed_images,
    generator_losses,
    train_translator,
    weighted_sum,
)
from bdl.translation.translate import load_translator

TERMS = ("adversarial", "cycle", "identity", "perceptual", "perceptual_reconstruction")


# Schedule


def test_published_schedule():
    """Ten epochs at the full rate but for the tenth, 10/11, then down to 0 in the twentieth."""
    schedule = Schedule(constant_epochs=10, decay_epochs=10, steps_per_epoch=100)
    by_epoch = [schedule.factor(100 * (epoch - 1)) for epoch in range(1, 21)]
    expected = [1.0] * 9 + [(11 - n) / 11 for n in range(1, 12)]
    assert by_epoch == pytest.approx(expected)
    assert by_epoch[9] == pytest.approx(10 / 11) and by_epoch[19] == pytest.approx(0)
    # A rate holds for the whole of its epoch, and the idle one is not run.
    assert schedule.factor(999) == schedule.factor(900) and schedule.factor(899) == 1
    assert schedule.steps == 1900
    assert schedule.factor(schedule.steps - 1) == pytest.approx(1 / 11)


def test_without_decay_every_epoch_runs_at_the_full_rate():
    schedule = Schedule(constant_epochs=3, decay_epochs=0, steps_per_epoch=7)
    assert schedule.steps == 21
    assert {schedule.factor(step) for step in range(21)} == {1.0}


@pytest.mark.parametrize(
    ("images", "batch_size", "steps_per_epoch", "expected"),
    [(24_966, 4, None, 6241), (24_966, 4, 50, 50), (3, 4, None, 1)],
)
def test_steps_of_an_epoch(images, batch_size, steps_per_epoch, expected):
    config = TranslatorTraining(batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    assert Schedule.of(config, images).steps_per_epoch == expected


# The loss


@pytest.fixture(scope="module")
def translator() -> Translator:
    torch.manual_seed(0)
    return Translator(width=4, blocks=1)


@pytest.fixture(scope="module")
def discriminators() -> Discriminators:
    torch.manual_seed(1)
    return Discriminators(width=4)


@pytest.fixture(scope="module")
def frozen() -> torch.nn.Conv2d:
    torch.manual_seed(2)
    return torch.nn.Conv2d(3, 5, 3, stride=2).requires_grad_(False)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    a, b = torch.rand(2, 2, 3, 32, 32, generator=random)
    return a, b


def test_the_ten_terms_equal_separate_passes(translator, discriminators, frozen, pair):
    a, b = pair
    a_to_b, b_to_a = translator.a_to_b, translator.b_to_a

    def norm(maps):
        variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt()

    def apart(image, other):
        return (2 * image - 2 * other).abs().mean()  # in [-1, 1]

    def semantic(image, other):
        return (norm(frozen(image)) - norm(frozen(other))).square().mean()

    with torch.no_grad():
        expected = {
            "adversarial_a": (discriminators.b(a_to_b(a)) - 1).square().mean(),
            "adversarial_b": (discriminators.a(b_to_a(b)) - 1).square().mean(),
            "cycle_a": apart(b_to_a(a_to_b(a)), a),
            "cycle_b": apart(a_to_b(b_to_a(b)), b),
            "identity_a": apart(b_to_a(a), a),
            "identity_b": apart(a_to_b(b), b),
            "perceptual_a": semantic(a_to_b(a), a),
            "perceptual_b": semantic(b_to_a(b), b),
            "perceptual_reconstruction_a": semantic(b_to_a(a_to_b(a)), a),
            "perceptual_reconstruction_b": semantic(a_to_b(b_to_a(b)), b),
        }
        weights = TranslationWeights()
        terms = generator_losses(a, b, translator(a, b), discriminators, frozen, weights)
    assert terms.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(terms[name], expected[name], msg=name)
    published = {
        "adversarial": 1,
        "cycle": 10,
        "identity": 10 * 0.5,
        "perceptual": 0.1,
        "perceptual_reconstruction": 10,
    }
    total = sum(published[name[:-2]] * float(value) for name, value in expected.items())
    assert weighted_sum(terms, weights).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("left_out", TERMS)
def test_weight_0_leaves_a_term_out(translator, discriminators, frozen, pair, left_out):
    weights = TranslationWeights(**{left_out: 0.0})
    a, b = pair
    with torch.no_grad():
        terms = generator_losses(a, b, translator(a, b), discriminators, frozen, weights)
    kept = [term for term in TERMS if term != left_out]
    assert set(terms) == {f"{term}_{direction}" for term in kept for direction in "ab"}


def test_without_perceptual_terms_the_frozen_network_is_not_run(translator, discriminators, pair):
    def must_not_run(images):
        raise AssertionError

    weights = TranslationWeights(perceptual=0, perceptual_reconstruction=0)
    a, b = pair
    terms = generator_losses(a, b, translator(a, b), discriminators, must_not_run, weights)
    assert len(terms) == 6


def test_the_generators_learn_through_the_frozen_network_and_it_does_not(
    translator, discriminators, frozen, pair
):
    weights = TranslationWeights(adversarial=0, cycle=0, identity=0)
    a, b = pair
    terms = generator_losses(a, b, translator(a, b), discriminators, frozen, weights)
    translator.zero_grad()
    weighted_sum(terms, weights).backward()
    assert all(parameter.grad is None for parameter in frozen.parameters())
    for name, parameter in translator.named_parameters():
        if "weight" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in discriminators.parameters())


def test_checkpointing_gives_the_same_losses_and_gradients(discriminators, frozen, pair):
    a, b = pair
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        translator = Translator(width=4, blocks=2)
        for generator in (translator.a_to_b, translator.b_to_a):
            generator.checkpointing = checkpointing
        weights = TranslationWeights()
        terms = generator_losses(
            a, b, translator(a, b), discriminators, frozen, weights, checkpointing
        )
        weighted_sum(terms, weights).backward()
        gradients = {name: p.grad for name, p in translator.named_parameters()}
        found.append((terms, gradients))
    (terms, gradients), (terms_again, gradients_again) = found
    for name in terms:
        torch.testing.assert_close(terms_again[name], terms[name], msg=name)
    for name in gradients:
        torch.testing.assert_close(gradients_again[name], gradients[name], msg=name)


def test_discriminators_judge_their_own_domain(discriminators, pair):
    a, b = pair
    fake_a, fake_b = b.flip(3), a.flip(3)
    with torch.no_grad():
        judged = discriminators(a, b, fake_a, fake_b)
        for domain, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
            judge = getattr(discriminators, domain)
            expected = ((judge(real) - 1).square().mean() + judge(fake).square().mean()) / 2
            torch.testing.assert_close(judged[f"discriminator_{domain}"], expected)


# Training


@pytest.fixture
def samples(tmp_path) -> list[TrainingSamples]:
    random = np.random.default_rng(0)
    found = []
    for domain in "ab":
        listed = []
        for number in range(3):
            file = tmp_path / f"{domain}{number}.png"
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(file)
            listed.append(Sample(str(number), file, None))
        found.append(TrainingSamples(listed, View(crop=(32, 32), flip=True), 0, domain))
    return found


def train(fabric, console, samples, folder, frozen, page=None, **changes) -> TrainingMetrics:
    settings = {
        "batch_size": 2,
        "constant_epochs": 1,
        "decay_epochs": 1,
        "steps_per_epoch": 3,
        "generator": GeneratorConfig(width=4, blocks=1),
        "discriminator_width": 4,
        "pool_size": 2,
    }
    config = TranslatorTraining(**{**settings, **changes})
    run = Run(folder, fabric, console, log_every=1, checkpoint_every=100, keep_checkpoints=1)
    run = run.named("k1/translator", lambda: Tracker(folder / "log"), page)
    return train_translator(run, folder, config, 5, *samples, frozen)


def test_one_step_is_adams_from_the_initial_weights(fabric, console, samples, tmp_path, frozen):
    """Adam's first step moves each weight by the rate along its gradient's sign."""
    made = tmp_path / "out"
    metrics = train(fabric, console, samples, made, frozen, steps_per_epoch=1, lr=1e-3)
    assert metrics.steps == 1 and len(metrics.curves) == 1
    # The only constant epoch stands right before the decay: 1 - 1/2.
    assert metrics.curves[0]["lr"] == pytest.approx(5e-4)
    still = tmp_path / "still"
    train(fabric, console, samples, still, frozen, steps_per_epoch=1, lr=0)
    moved, start = load_translator(made).state_dict(), load_translator(still).state_dict()
    steps = torch.cat([(moved[k] - start[k]).flatten().abs() for k in moved if "weight" in k])
    assert steps.max().item() == pytest.approx(5e-4, rel=1e-3)
    assert steps.median().item() == pytest.approx(5e-4, rel=1e-2)


def test_a_compiled_step_learns_as_one_that_is_not(
    fabric, console, tmp_path, monkeypatch, frozen, pair
):
    """Traced, not turned into machine code, which would take a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    config = TranslatorTraining(pool_size=0, lr=1e-3)
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        networks = Translator(4, 1), Discriminators(4)
        run = Run(tmp_path, fabric, console, compile=compiled)
        pools = [FakePool(0, 0), FakePool(0, 0)]
        step = TranslationStep(run, config, *networks, frozen, pools)
        step(*pair, 1.0)
        found.append({name: value.item() for name, value in step(*pair, 1.0).items()})
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert "_orig_mod" not in "".join(networks[0].state_dict())


def test_same_seed_same_translator(fabric, console, samples, tmp_path, frozen):
    first, second = (
        (train(fabric, console, samples, tmp_path / n, frozen), load_translator(tmp_path / n))
        for n in "12"
    )
    assert first[0].curves == second[0].curves
    for name, value in first[1].state_dict().items():
        assert torch.equal(value, second[1].state_dict()[name]), name


def test_curves_of_the_first_step_are_the_losses_of_the_initial_networks(
    fabric, console, samples, tmp_path, frozen
):
    """With a rate of 0 the networks stay, so that the second step's losses can be made anew."""
    metrics = train(fabric, console, samples, tmp_path / "out", frozen, lr=0, pool_size=0)
    translator = load_translator(tmp_path / "out")
    a, b = (
        torch.stack([item[number]["image"] for number in (2, 3)]).float() / 255 for item in samples
    )
    with torch.no_grad():
        cycle = translator(a, b).reconstructed_a
    assert metrics.curves[1]["cycle_a"] == pytest.approx(
        float(F.l1_loss(2 * cycle, 2 * a)), rel=1e-5
    )
    assert set(asdict(TranslationWeights())) == set(TERMS)


# Samples


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is due at every row."""
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SHARE", float("inf"))


def test_samples_are_shown_and_change_nothing(fabric, console, samples, tmp_path, frozen, always):
    """With grain, which is drawn for steps and samples alike: curves and networks are bit for bit
    those of a training that shows nothing."""
    grain = GeneratorConfig(width=4, blocks=1, grain=0.1)
    alone = train(fabric, console, samples, tmp_path / "alone", frozen, generator=grain)
    heard: list[Progress] = []
    watched = train(
        fabric,
        console,
        samples,
        tmp_path / "watched",
        frozen,
        page=LivePage(heard.append, 0.0),
        generator=grain,
    )
    assert watched.curves == alone.curves
    expected = load_translator(tmp_path / "alone").state_dict()
    for name, value in load_translator(tmp_path / "watched").state_dict().items():
        assert torch.equal(value, expected[name]), name
    names = [[sample.name for sample in progress.samples] for progress in heard]
    assert names == [["0", "1", "2"]] * 2  # at every row but the last
    log = EventAccumulator(str(tmp_path / "watched/log"), size_guidance={"images": 0}).Reload()
    assert log.Tags()["images"] == ["samples/0", "samples/1", "samples/2"]
    assert [event.step for event in log.Images("samples/2")] == [1, 2]


def test_a_sample_is_what_the_generator_makes_of_the_image(
    fabric, console, samples, tmp_path, frozen, pair
):
    """With the grain of its export, which that of another sample does not change."""
    torch.manual_seed(0)
    translator = Translator(4, 1, grain=0.2)
    config = TranslatorTraining(pool_size=0)
    run, pools = Run(tmp_path, fabric, console), [FakePool(0, 0), FakePool(0, 0)]
    followed = partial(followed_images, samples[0], [0, 2], 40 * 40)
    step = TranslationStep(run, config, translator, Discriminators(4), frozen, pools, followed)
    state = torch.get_rng_state()
    _, sample = step.samples()
    assert torch.equal(torch.get_rng_state(), state)
    pixels = np.asarray(Image.open(samples[0].samples[2].image))
    assert np.array_equal(sample.before, pixels)
    seed_torch(2, "grain")
    with torch.no_grad():
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
        made = translator.to_target(image)[0].permute(1, 2, 0).mul(255).round().clamp(0, 255)
    assert np.abs(sample.after.astype(int) - made.numpy()).max() <= 1


def test_of_a_large_image_the_middle_is_a_sample(samples):
    ((_, _, whole),) = followed_images(samples[0], [1], 40 * 40)
    ((index, name, cut),) = followed_images(samples[0], [1], 40 * 40 - 1)
    assert (index, name, cut.dtype) == (1, "1", torch.uint8)
    assert torch.equal(cut, whole[:, 4:36, 4:36])
