"""The pool of past fakes: fills, exchanges one in two, and goes on where it was."""

import pytest
import torch

from bdl.translation.pool import FakePool


def fakes(*values: float) -> torch.Tensor:
    """A batch of images that are each told by one number."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


def numbers(images: torch.Tensor) -> list[float]:
    assert images.shape[1:] == (3, 2, 2)
    return images[:, 0, 0, 0].tolist()


def test_while_it_fills_each_fake_comes_back_and_is_kept():
    pool = FakePool(3, seed=0)
    assert numbers(pool.exchange(fakes(1, 2))) == [1, 2]
    assert numbers(pool.exchange(fakes(3))) == [3]
    assert numbers(torch.stack(pool.images)) == [1, 2, 3]


def test_when_full_each_is_exchanged_with_probability_one_half():
    pool = FakePool(5, seed=0)
    pool.exchange(fakes(*range(5)))
    exchanged, places = 0, torch.zeros(5)
    trials = 2000
    for number in range(5, 5 + trials):
        before = numbers(torch.stack(pool.images))
        (back,) = numbers(pool.exchange(fakes(number)))
        after = numbers(torch.stack(pool.images))
        if back == number:
            assert after == before
        else:
            place = before.index(back)
            before[place] = number
            assert after == before
            exchanged += 1
            places[place] += 1
    # Five standard deviations: sqrt(2000 / 4) = 22 and, for a fifth of 1000, sqrt(160) = 13.
    assert exchanged == pytest.approx(trials / 2, abs=112)
    assert ((places - exchanged / 5).abs() < 64).all()


def test_a_batch_may_get_back_what_it_brought():
    """Images of one batch pass one after the other."""
    pool = FakePool(1, seed=0)
    assert numbers(pool.exchange(fakes(1))) == [1]
    seen = [numbers(pool.exchange(fakes(2 * n, 2 * n + 1))) for n in range(1, 30)]
    assert any(second == 2 * n for n, (_, second) in enumerate(seen, start=1))


def test_size_0_gives_every_fake_back_and_keeps_none():
    pool = FakePool(0, seed=0)
    for number in range(20):
        assert numbers(pool.exchange(fakes(number))) == [number]
    assert pool.images == []


def test_kept_images_are_copies():
    pool = FakePool(1, seed=0)
    batch = fakes(7)
    pool.exchange(batch)
    batch.zero_()
    assert numbers(torch.stack(pool.images)) == [7]


def test_a_restored_pool_goes_on_alike():
    pool = FakePool(4, seed=1)
    pool.exchange(fakes(*range(10)))
    restored = FakePool(4, seed=99)
    restored.load_state_dict(pool.state_dict())
    # The state was taken over, not shared.
    expected = [numbers(pool.exchange(fakes(number))) for number in range(10, 40)]
    assert [numbers(restored.exchange(fakes(number))) for number in range(10, 40)] == expected


def test_seeds_give_different_draws():
    draws = []
    for seed in (0, 1):
        pool = FakePool(2, seed)
        draws.append([numbers(pool.exchange(fakes(n)))[0] for n in range(40)])
    assert draws[0] != draws[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_pool_restored_from_the_cpu_meets_fakes_on_the_gpu():
    pool = FakePool(1, seed=0)
    pool.load_state_dict({"images": [fakes(1)[0]], "random": pool.random.get_state()})
    back = pool.exchange(fakes(*range(2, 12)).cuda())
    assert back.is_cuda and len(back) == 10
