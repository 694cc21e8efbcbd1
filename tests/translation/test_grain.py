"""The random texture that source images get before they are translated."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bdl.translation.grain import add_grain
from bdl.translation.train import Translator


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 3),
    st.integers(8, 40),
    st.integers(8, 40),
    st.floats(0.01, 1.0, exclude_min=True),
)
def test_it_is_grey_and_as_strong_as_asked(number, height, width, strength):
    images = torch.rand(number, 3, height, width)
    grain = add_grain(images, strength) - images
    torch.testing.assert_close(grain[:, 0], grain[:, 2], atol=1e-5, rtol=0)
    deviation = grain[:, 0].std((1, 2))
    torch.testing.assert_close(deviation, torch.full((number,), strength), rtol=1e-3, atol=1e-5)


def test_it_has_detail_of_every_size():
    """Means of blocks of 16 x 16 pixels: of white noise they would deviate by a sixteenth."""
    torch.manual_seed(0)
    flat = torch.full((4, 3, 256, 256), 0.5)
    coarse = F.avg_pool2d(add_grain(flat, 0.1) - flat, 16)[:, 0]
    fine = (add_grain(flat, 0.1) - flat)[:, 0]
    assert 0.03 < coarse.std() < 0.08
    assert (fine[..., 1:] - fine[..., :-1]).std() > 0.05


def test_without_strength_nothing_is_drawn():
    images, state = torch.rand(1, 3, 8, 8), torch.get_rng_state()
    assert add_grain(images, 0.0) is images
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def made():
    """What a translator with grain makes of a pair, and what its generators make one by one."""
    torch.manual_seed(0)
    translator = Translator(width=4, blocks=1, grain=0.2)
    a, b = torch.rand(2, 2, 3, 32, 32)
    with torch.no_grad():
        torch.manual_seed(1)
        made = translator(a, b)
        torch.manual_seed(1)
        return translator, a, b, made, translator.to_target(a)


def test_only_the_translation_of_the_source_has_it(made):
    translator, a, b, cycle, fake_b = made
    torch.testing.assert_close(cycle.fake_b, fake_b)
    with torch.no_grad():
        assert not torch.allclose(cycle.fake_b, translator.a_to_b(a), atol=0.01)
        torch.testing.assert_close(cycle.reconstructed_a, translator.b_to_a(fake_b))
        torch.testing.assert_close(cycle.identity_b, translator.a_to_b(b))
        torch.testing.assert_close(cycle.identity_a, translator.b_to_a(a))
        torch.testing.assert_close(cycle.fake_a, translator.b_to_a(b))
        torch.testing.assert_close(cycle.reconstructed_b, translator.a_to_b(cycle.fake_a))
