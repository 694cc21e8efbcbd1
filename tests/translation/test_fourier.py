"""Translation by amplitudes: its numbers, its pairs, and a run of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bdl.domains.datasets import Sample
from bdl.domains.loading import WholeImages
from bdl.translation.fourier import export_with_amplitudes, partner, swap_amplitude
from bdl.translation.stages import image_path

SIDES = st.integers(2, 33)


def expected(image: np.ndarray, other: np.ndarray, beta: float) -> np.ndarray:
    """The same by numpy: H x W, spectra with the mean in the middle, amplitudes cut and pasted."""
    of_image, of_other = (np.fft.fftshift(np.fft.fft2(pixels)) for pixels in (image, other))
    amplitude, phase = np.abs(of_image), np.angle(of_image)
    middle = [side // 2 for side in image.shape]
    reach = [int(np.floor(beta * side)) for side in image.shape]
    rows, columns = (slice(max(0, m - r), m + r + 1) for m, r in zip(middle, reach, strict=True))
    amplitude[rows, columns] = np.abs(of_other)[rows, columns]
    return np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real


@settings(deadline=None, max_examples=30)
@given(height=SIDES, width=SIDES, beta=st.floats(0, 0.49), seed=st.integers(0, 99))
def test_amplitudes_are_those_of_an_independent_transform(height, width, beta, seed):
    random = np.random.default_rng(seed)
    image, other = random.random((2, 3, height, width))
    made = swap_amplitude(torch.from_numpy(image)[None], torch.from_numpy(other)[None], beta)
    channels = [expected(*pair, beta) for pair in zip(image, other, strict=True)]
    np.testing.assert_allclose(made[0].numpy(), channels, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(height=SIDES, width=SIDES, beta=st.floats(0, 0.5))
def test_phases_and_high_frequencies_stay(height, width, beta):
    image, other = torch.rand(2, 1, 3, height, width, dtype=torch.float64)
    made = torch.fft.fft2(swap_amplitude(image, other, beta))
    before, given_amplitudes = torch.fft.fft2(image), torch.fft.fft2(other).abs()
    # A sign that flips on its way through 0 turns the phase of nothing.
    turned = (made * before.conj()).angle().abs()
    assert bool(((turned < 1e-6) | (made.abs() < 1e-9)).all())
    changed = (made.abs() - before.abs()).abs() > 1e-6
    assert bool(((made.abs() - given_amplitudes).abs() < 1e-6)[changed].all())


@pytest.mark.parametrize("beta", [0, 0.01, 0.3, 0.5])
def test_an_image_by_its_own_amplitudes_is_itself(beta):
    image = torch.rand(1, 3, 24, 31)
    torch.testing.assert_close(swap_amplitude(image, image, beta), image, atol=1e-5, rtol=0)


def test_with_beta_0_only_the_mean_is_the_others():
    image, other = torch.rand(2, 1, 3, 20, 30)
    made = swap_amplitude(image, other, 0)
    shift = other.mean((2, 3), keepdim=True) - image.mean((2, 3), keepdim=True)
    torch.testing.assert_close(made, image + shift, atol=1e-5, rtol=0)


def _samples(folder, names, size, value=0):
    folder.mkdir()
    random = np.random.default_rng(value)
    samples = []
    for name in names:
        pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
        file = folder / f"{name}.png"
        Image.fromarray(pixels).save(file)
        samples.append(Sample(name, file, None))
    return samples


def test_exported_images_do_not_depend_on_the_others(run, tmp_path):
    """Who is paired with whom, and what is written, are those of name and seed: in another order
    and without some of the images they are the same."""
    target = WholeImages(_samples(tmp_path / "target", "xyz", (20, 16), 1), None)
    samples = _samples(tmp_path / "source", "abcdef", (24, 16))
    all_of_them, some = tmp_path / "all", tmp_path / "some"
    made = export_with_amplitudes(run, all_of_them, WholeImages(samples, None), target, 0.1, 3)
    assert made.images == 6
    part = [samples[4], samples[1]]
    export_with_amplitudes(run, some, WholeImages(part, None), target, 0.1, 3)
    for sample in part:
        one, other = (image_path(folder, sample.name) for folder in (all_of_them, some))
        assert one.read_bytes() == other.read_bytes()
        assert Image.open(one).size == (24, 16)
    assert len({partner(seed, name, 1000) for seed in (3, 4) for name in "abcdef"}) > 6


def test_transparent_parts_stay_transparent(run, tmp_path):
    target = WholeImages(_samples(tmp_path / "target", "x", (24, 16), 1), None)
    (sample,) = _samples(tmp_path / "source", "a", (24, 16))
    picture = Image.open(sample.image).convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat([[0, 255]], 16, 0).astype(np.uint8).repeat(12, 1)))
    picture.save(sample.image)
    export_with_amplitudes(run, tmp_path / "made", WholeImages([sample], None), target, 0.1, 0)
    alpha = np.asarray(Image.open(image_path(tmp_path / "made", "a")))[..., 3]
    assert (alpha[:, :12] == 0).all() and (alpha[:, 12:] == 255).all()


def test_a_run_without_a_translator(command, tmp_path, capsys):
    """No training of a translator in the plan, translated files that numpy makes likewise, measures
    of both rounds, and a second round whose files are the first's."""
    folder = tmp_path / "run"
    arguments = ["translation.method=fda", "translation.fda.beta=0.1", "self_training_steps=0"]
    assert command("run", f"out={folder}", "init=previous", *arguments) == 0
    said = capsys.readouterr().out
    assert "translator" not in said.partition("[1/")[0] and "same as k1/translated" in said
    source, target = (sorted((folder / f"data/{r}/images").glob("*")) for r in ("source", "target"))
    for file in source:
        made = np.asarray(Image.open(folder / "k1/translated/images" / file.name), float)
        image, other = (
            np.asarray(Image.open(f).convert("RGB"), float).transpose(2, 0, 1) / 255
            for f in (file, target[partner(0, file.stem, len(target))])
        )
        wanted = np.stack([expected(*pair, 0.1) for pair in zip(image, other, strict=True)], -1)
        assert np.abs(made - 255 * wanted.clip(0, 1)).max() <= 0.51
        assert (folder / "k2/translated/images" / file.name).read_bytes() == (
            folder / "k1/translated/images" / file.name
        ).read_bytes()
    for k in (1, 2):
        assert (folder / f"k{k}/translated/measures/metrics.json").is_file()
    assert "F(1)" in (folder / "report.html").read_text(encoding="utf-8")
    # Single stages of it, and the command that has nothing to do here.
    for name in ("export", "measure"):
        assert command(name, "--k", "1", f"out={folder}", "init=previous", *arguments) == 0
    assert command("translate", "--k", "1", f"out={folder}", "init=previous", *arguments) == 2
    assert "there are none" in capsys.readouterr().err
