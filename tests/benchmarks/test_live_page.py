"""benchmarks/live_page: it sees every page of a training, and compares the networks."""

from pathlib import Path

import pytest

from benchmarks import live_page


@pytest.mark.slow
def test_pages_are_counted_and_networks_compared(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written at every row but the last of each training: after 3, 6 and 9 steps of 10."""
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("bdl.runtime.live._SHARE", float("inf"))
    result = live_page.measure(str(tiny_config), ["self_training_steps=0"])
    pages = {name: row["pages"] for name, row in result["trainings"].items()}
    assert pages == {"source-only": 3, "k1/translator": 1, "k1/segmentation-0": 3}
    for row in result["trainings"].values():
        assert 0 < row["page_seconds"] < row["seconds"]
        assert row["share"] == pytest.approx(row["page_seconds"] / row["seconds"])
    assert result["same_networks"] and result["tensors"] > 50
    assert result["between"]["times"] == 10
