"""Records and rows: what is read from a run's folder, and what results.json holds."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdl.domains.label_space import NO_SUBSETS, LabelSpace
from bdl.reports.records import (
    Record,
    Row,
    fitting,
    read_rows,
    records_in,
    rows_of,
)
from bdl.runtime.errors import UserError
from bdl.runtime.files import write_json
from bdl.runtime.metrics import Metrics, TrainingMetrics
from bdl.runtime.ownership import RESULTS
from bdl.runtime.store import VERSION, Manifest
from bdl.runtime.values import plain
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelClass, PseudoLabelMetrics
from bdl.segmentation.stages import RESULT

SPACE = LabelSpace("two", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), {}, {"few": (1,)})
SHARES = st.none() | st.floats(0, 1)
NAMES = st.text(min_size=1).filter(lambda name: name not in NO_SUBSETS)
ROWS = st.builds(
    Row,
    stage=st.text(min_size=1),
    k=st.integers(0, 9),
    i=st.integers(0, 9),
    miou=SHARES,
    subsets=st.dictionaries(NAMES, SHARES, max_size=3),
    iou=st.dictionaries(st.text(), SHARES, max_size=3),
    seconds=st.floats(0, 1e6),
    note=st.none() | st.text(min_size=1),
    target_labels=st.integers(0, 50),
)


@given(ROWS)
def test_a_row_comes_back_from_json(row: Row) -> None:
    assert Row.from_json(json.loads(json.dumps(row.as_json()))) == row


def test_a_row_without_a_note_has_no_key_of_it() -> None:
    row = Row("source-only", 0, 0, None, {"few": 0.5}, {}, 1.0)
    content = {"stage": "source-only", "k": 0, "i": 0, "miou": None, "few": 0.5, "iou": {}}
    assert row.as_json() == {**content, "seconds": 1.0}
    assert row.symbol == "M(0)" and replace(row, k=2, i=1).symbol == "M(2,1)"


@pytest.mark.parametrize("content", [[1], [{}], {"stage": "x"}, [{"stage": "x", "k": 0}]])
def test_results_that_are_none_are_named(tmp_path: Path, content: object) -> None:
    write_json(tmp_path / RESULTS, content)
    with pytest.raises(UserError, match=r"results\.json: is not the results of a run"):
        read_rows(tmp_path)


def made(
    folder: Path, stage: str, kind: str, k: int, i: int, metrics: Metrics, **others: object
) -> None:
    """A finished stage's folder, without the files that it made."""
    manifest = Manifest(version=VERSION, stage=stage, kind=kind, k=k, i=i, symbol=stage)
    content = {**plain(manifest), "fingerprint": stage, "seconds": 2.0, **others}
    write_json(folder / stage / "manifest.json", content)
    write_json(folder / stage / "metrics.json", plain(metrics))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """K = 10, of which rounds 2 and 10 are left: as names sort, 10 is before 2."""
    trained = TrainingMetrics(steps=1, curves=[{"step": 1, "source": 0.5}])
    scores = EvaluationMetrics(images=1, miou=0.5, iou=[0.5, None], confusion=[[1, 1], [0, 0]])
    for k in (10, 2):
        name, inputs = f"k{k}/segmentation-0", {f"k{k}/translated": f"k{k}/translated"}
        made(tmp_path, name, "segment", k, 0, trained, inputs=inputs, files=[RESULT])
        made(tmp_path, f"k{k}/translated", "export", k, 0, Metrics())
        evaluation = f"{name}/evaluation"
        made(tmp_path, evaluation, "evaluate", k, 0, scores, inputs={name: name})
    return tmp_path


def test_records_of_a_folder_are_in_order_and_typed(run: Path) -> None:
    records = records_in(run)
    assert [record.stage for record in records] == [
        f"k{k}/{stage}"
        for k in (2, 10)
        for stage in ("translated", "segmentation-0", "segmentation-0/evaluation")
    ]
    assert isinstance(records[1].metrics, TrainingMetrics)
    assert isinstance(records[2].metrics, EvaluationMetrics)
    assert records[1].segmenter == run / "k2/segmentation-0" / RESULT
    assert records[2].segmenter is None and {record.note for record in records} == {None}


def test_files_of_others_are_no_records(run: Path) -> None:
    """A stage that is being moved to its place, a copy of a run, JSON of the same names."""
    made(run, "k3/segmentation-0", "segment", 3, 0, Metrics())
    (run / "k3/segmentation-0").rename(run / "k3/segmentation-0.unfinished-0123456789ab")
    (run / "copy").mkdir()
    (run / "k2").rename(run / "copy/k2")
    (run / "web").mkdir()
    (run / "web/manifest.json").write_text("[]")
    (run / "metrics.json").write_text("{}")
    assert {record.k for record in records_in(run)} == {10}


def test_what_was_made_from_what_is_no_longer_there_has_a_note(run: Path) -> None:
    made(run, "k2/translated", "export", 2, 0, Metrics(), fingerprint="another")
    records = {record.stage: record.note for record in records_in(run)}
    assert records["k2/segmentation-0"] == "made from an earlier k2/translated"
    assert records["k2/segmentation-0/evaluation"] == "made from an earlier k2/segmentation-0"
    assert records["k10/segmentation-0"] is None


def network(k: int, note: str | None = None) -> Record:
    manifest = Manifest(files=[RESULT], seconds=3.0)
    return Record(f"M{k}", "segment", k, 0, f"M{k}", Path(), manifest, TrainingMetrics(), note)


def evaluation(k: int, metrics: Metrics | None, note: str | None = None) -> Record:
    manifest = Manifest() if metrics is not None else None
    return Record(f"E{k}", "evaluate", k, 0, f"M{k}", Path(), manifest, metrics, note)


SCORES = EvaluationMetrics(miou=0.5, subsets={"few": 0.2}, iou=[0.8, None])


def test_a_network_has_a_row_once_it_is_evaluated() -> None:
    records = [network(0), evaluation(0, SCORES), network(1), evaluation(1, None)]
    assert rows_of(records, SPACE) == [
        Row("M0", 0, 0, 0.5, {"few": 0.2}, {"road": 0.8, "sky": None}, 3.0)
    ]


def test_without_validation_rows_have_no_scores() -> None:
    assert rows_of([network(0), network(1)], SPACE) == [
        Row(f"M{k}", k, 0, None, {}, {}, 3.0) for k in (0, 1)
    ]


def test_a_row_has_the_note_of_its_network_or_of_its_evaluation() -> None:
    records = [network(0, "old"), evaluation(0, SCORES), network(1), evaluation(1, SCORES, "older")]
    assert [row.note for row in rows_of(records, SPACE)] == ["old", "its score was older"]


def test_numbers_of_other_classes_are_left_out() -> None:
    labels = PseudoLabelMetrics(["w"], classes=[PseudoLabelClass(0.5, 1, 0.5)] * 3)
    records = [
        network(0),
        evaluation(0, replace(SCORES, iou=[0.5] * 3)),
        replace(evaluation(1, SCORES), metrics=labels),
        evaluation(2, SCORES),
    ]
    left = fitting(records, 2)
    assert [type(record.metrics) for record in left] == [
        TrainingMetrics,
        Metrics,
        Metrics,
        EvaluationMetrics,
    ]
    assert left[2].metrics == Metrics(["w"])
    assert rows_of(left, SPACE) == []


def test_the_time_of_a_stage_that_is_the_same_as_another_is_not_its_own() -> None:
    record = network(2)
    assert record.manifest is not None
    same = replace(record, manifest=replace(record.manifest, same_as="M1"))
    assert (record.seconds, same.seconds, same.same_as) == (3.0, 0.0, "M1")


def test_no_subset_takes_the_place_of_what_else_a_row_has() -> None:
    assert {field.name for field in fields(Row)} - {"subsets"} == set(NO_SUBSETS)
