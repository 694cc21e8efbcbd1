"""docs/results: a table that has a JSON beside it is what the JSON says."""

import json
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))
from tabulate_results import collect, table  # noqa: E402

TABLES = sorted((DOCS / "results").glob("*/table.json"))


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.parent.name)
def test_a_page_shows_its_table(file):
    page = file.with_name("README.md").read_text(encoding="utf-8")
    assert table(json.loads(file.read_text(encoding="utf-8"))) in page
    assert len(page.splitlines()) <= 120


def test_a_table_has_every_network_and_the_distance_to_the_first(tmp_path):
    def row(stage, k, i, miou):
        return {"stage": stage, "k": k, "i": i, "miou": miou, "iou": {"a": miou, "b": 0.5}}

    for run, results in {
        "one": [row("source-only", 0, 0, 0.25), row("k1/segmentation-1", 1, 1, 0.375)],
        "two": [row("source-only", 0, 0, 0.5)],
    }.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    rows = collect([f"adapted={tmp_path / 'one'}", f"bound={tmp_path / 'two'}:source-only"])
    assert table(rows).splitlines() == [
        "|  | M(0) | M(1,1) | last over first | a, last | b, last |",
        "| --- | --- | --- | --- | --- | --- |",
        "| adapted | 25.0 | 37.5 | +12.5 | 38 | 50 |",
        "| bound | 50.0 |  |  | 50 | 50 |",
    ]
