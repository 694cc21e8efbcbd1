"""Ablations: the table holds the runs' own numbers, and finished stages are shared by links."""

import csv
import io
import json
import os
from pathlib import Path

from runtime.ablation import Cell, as_csv, as_markdown, run_ablation
from runtime.config import Config
from runtime.stages import Stage, begin, finish, make_plan, take_over


def cell(variant: str, seed: int, folder: Path) -> Cell:
    return Cell(variant, 1, 0, seed, Config(out=str(folder / variant / str(seed))))


def test_the_table_has_mean_spread_and_each_seeds_gain_over_its_own_source_only(tmp_path):
    values = {0: (0.20, 0.30), 1: (0.22, 0.36)}
    cells = [cell("plain", 0, tmp_path), cell("plain", 1, tmp_path)]

    def run(made: Cell, others: list[Path]) -> list[dict]:
        assert others == [other.folder for other in cells if other is not made]
        source_only, adapted = values[made.seed]
        return [
            {"stage": "source-only", "miou": source_only},
            {"stage": "k1/segmentation-0", "miou": adapted},
        ]

    lines = run_ablation(tmp_path, cells, run)

    # By hand: mean of 30 and 36 is 33, their standard deviation 6 / sqrt(2) = 4.24.
    assert "| plain | 1 | 0 | k1/segmentation-0 | 33.0 ± 4.2 | +10.0 | +14.0 |" in as_markdown(
        lines
    )
    table = list(csv.DictReader(io.StringIO(as_csv(lines))))
    assert [(row["network"], row["seed"], float(row["miou"])) for row in table] == [
        ("source-only", "0", 0.20),
        ("source-only", "1", 0.22),
        ("k1/segmentation-0", "0", 0.30),
        ("k1/segmentation-0", "1", 0.36),
    ]
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored[1]["miou"] == {"0": 0.30, "1": 0.36}
    assert (tmp_path / "ablation.md").read_text() == as_markdown(lines)


def make(folder: Path, stage: Stage, content: str) -> None:
    begin(folder, stage)
    (folder / stage.name / "weights.pt").write_text(content)
    finish(folder, stage, {}, 1.0, {})


def a_stage(name: str, setting: int, *inputs: Stage) -> Stage:
    return Stage(name, "segment", {"setting": setting}, inputs, lambda folder: {}, 1, "steps")


def test_a_stage_finished_elsewhere_is_taken_over_without_the_stages_inside_it(tmp_path):
    trained = a_stage("source-only", 1)
    scored = a_stage("source-only/evaluation", 1, trained)
    make(tmp_path / "one", trained, "trained")
    make(tmp_path / "one", scored, "scored")

    take_over(tmp_path / "two", [trained], [tmp_path / "one"])

    taken = tmp_path / "two" / "source-only"
    assert (taken / "weights.pt").read_text() == "trained"
    assert not (taken / "evaluation").exists()
    assert os.path.samefile(taken / "weights.pt", tmp_path / "one" / "source-only" / "weights.pt")
    plan = make_plan(tmp_path / "two", [trained, scored])
    assert [entry.run for entry in plan] == [False, True]


def test_a_stage_of_other_settings_or_unfinished_is_not_taken_over(tmp_path):
    make(tmp_path / "one", a_stage("source-only", 1), "trained")
    begin(tmp_path / "one", a_stage("k1/translator", 1))

    wanted = [a_stage("source-only", 2), a_stage("k1/translator", 1)]
    take_over(tmp_path / "two", wanted, [tmp_path / "one"])

    assert not (tmp_path / "two").exists()
