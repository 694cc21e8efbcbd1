"""Peak memory: it sees what was in use for a moment, and on Linux forgets earlier peaks."""

import sys
from pathlib import Path

import pytest
import torch

from bdl.runtime.memory import PeakMemory

MEGABYTES = 200


def allocate() -> None:
    torch.ones(MEGABYTES, 2**20, dtype=torch.uint8).sum()


def forgets() -> bool:
    """Whether this system lets a process forget its peak."""
    try:
        return bool(Path("/proc/self/clear_refs").write_text("5", encoding="ascii"))
    except OSError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells it there")
def test_a_moments_use_is_seen():
    before = PeakMemory().read()["peak_memory"]
    peak = PeakMemory()
    allocate()
    now = peak.read()["peak_memory"]
    assert now > MEGABYTES * 2**20
    assert now >= before + (MEGABYTES // 2) * 2**20 or not forgets()


@pytest.mark.skipif(not forgets(), reason="this system keeps one peak for a process")
def test_what_came_before_does_not_count():
    allocate()
    high = PeakMemory.read(PeakMemory.__new__(PeakMemory))["peak_memory"]
    assert PeakMemory().read()["peak_memory"] < high - (MEGABYTES // 2) * 2**20
