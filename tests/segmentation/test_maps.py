"""Probabilities made by rows are those made whole, in little memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bdl.segmentation import maps as module
from bdl.segmentation.maps import Mean, Mirrored, Stored, Upsampled
from bdl.segmentation.networks.base import upsample

SIDES = st.integers(1, 12)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_any_rows_are_those_of_the_whole(h, w, height, width, step):
    given_maps = random(2, 3, h, w)
    whole = upsample(given_maps, (height, width))
    maps = Upsampled(Stored(given_maps), (height, width))
    for start in range(0, height, step):
        stop = min(height, start + step)
        torch.testing.assert_close(maps.rows(start, stop), whole[:, :, start:stop])
        mirrored = Mirrored(maps).rows(start, stop)
        torch.testing.assert_close(mirrored, whole[:, :, start:stop].flip(-1))


@pytest.mark.parametrize("values", [1, 500, 1 << 24])
def test_blocks_are_the_whole_and_no_larger_than_allowed(monkeypatch, values):
    """Upsampled twice, as windows of a resized photo are, and the mean of two."""
    monkeypatch.setattr(module, "_VALUES", values)
    first, second = random(1, 3, 4, 6), random(1, 3, 7, 5)
    inner = Upsampled(Stored(first), (9, 8))
    maps = Mean(
        [(0, 0, Upsampled(inner, (21, 17))), (0, 0, Upsampled(Stored(second), (21, 17)))], (21, 17)
    )
    twice = upsample(upsample(first, (9, 8)), (21, 17))
    blocks = [block for _, block in maps.blocks()]
    assert all(block.numel() <= max(values, 3 * 17) for block in blocks)
    whole = (twice + upsample(second, (21, 17))) / 2
    torch.testing.assert_close(torch.cat(blocks, 2), whole)


def test_where_parts_overlap_their_mean_counts():
    one, two = random(1, 2, 4, 4), random(1, 2, 4, 4)
    maps = Mean([(0, 0, Stored(one)), (2, 1, Stored(two))], (6, 5))
    found = maps.rows(1, 6)
    torch.testing.assert_close(found[:, :, :1, :4], one[:, :, 1:2])
    torch.testing.assert_close(found[:, :, 1:3, 1:4], (one[:, :, 2:, 1:] + two[:, :, :2, :3]) / 2)
    torch.testing.assert_close(found[:, :, 3:, 1:], two[:, :, 2:])
