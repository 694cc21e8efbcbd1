"""Runs made by bdl 0.1 are read as this version writes them, and never changed."""

import json
import shutil
from pathlib import Path

import pytest

from bdl.domains.label_space import load_label_space
from bdl.reports.comparison import as_text, notes, write_comparison
from bdl.reports.finished_runs import class_colors, compared_frames, read_runs
from bdl.reports.old_runs import renewed
from bdl.reports.records import read_rows, records_in
from bdl.reports.report import Report, write_report
from bdl.runtime.errors import UserError
from bdl.runtime.files import read_json, write_json
from bdl.runtime.metrics import TrainingMetrics
from bdl.runtime.ownership import RESULTS
from bdl.runtime.store import Manifest
from bdl.segmentation.metrics import EvaluationMetrics, PseudoLabelMetrics
from bdl.segmentation.predictor import find_segmenter
from bdl.segmentation.run_view import RunView, run_view
from bdl.segmentation.stages import RESULT
from bdl.translation.metrics import Confused, MeasureMetrics

OLD = Path(__file__).parents[1] / "data" / "run-0.1"
SPACE = load_label_space("camvid11")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def named(stage: str) -> Manifest:
    return renewed(Manifest(version=1, stage=stage))


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ("source-only", "M(0)"),
        ("k1/translator", "F(1)"),
        ("k2/translated/measures", "F(2)"),
        ("translated/measures", "given translations"),
        ("k12/segmentation-3", "M(12,3)"),
        ("k12/segmentation-3/evaluation", "M(12,3)"),
        ("k2/pseudo-labels-1", "pseudo labels for M(2,1)"),
        ("data/source", "data/source"),
    ],
)
def test_symbols(stage: str, text: str) -> None:
    assert named(stage).symbol == text


def test_rounds_steps_and_networks() -> None:
    names = ["source-only", "source-only/evaluation", "k1/translator", "k12/segmentation-3"]
    names += ["k12/pseudo-labels-3", "k2/translated/measures", "data/target"]
    read = [(m.k, m.i, m.network) for m in map(named, names)]
    expected = [(0, 0, True), (0, 0, False), (1, 0, True), (12, 3, True)]
    assert read == [*expected, (12, 3, False), (2, 0, False), (0, 0, False)]


def test_all_stages_are_read_in_the_loops_order() -> None:
    records = records_in(OLD)
    assert len(records) == 21 and {record.note for record in records} == {None}
    seen: set[str] = set()
    for record in records:
        assert record.manifest is not None and set(record.manifest.inputs) <= seen
        seen.add(record.stage)
    networks = [record.symbol for record in records if record.segmenter is not None]
    assert networks == ["M(0)", "M(1,0)", "M(1,1)", "M(2,0)", "M(2,1)"]


def test_numbers_are_those_of_the_files_by_train_id() -> None:
    records = {record.stage: record for record in records_in(OLD)}

    def file(stage: str) -> dict:
        return read_json(OLD / stage / "metrics.json")

    evaluation, scores = (
        records["k2/segmentation-1/evaluation"].metrics,
        file("k2/segmentation-1/evaluation"),
    )
    assert isinstance(evaluation, EvaluationMetrics)
    assert evaluation.miou == scores["miou"] and evaluation.confusion == scores["confusion"]
    assert evaluation.iou == [scores["iou"][name] for name in SPACE.names]
    assert evaluation.subsets == {}
    made, labels = records["k1/pseudo-labels-1"].metrics, file("k1/pseudo-labels-1")
    assert isinstance(made, PseudoLabelMetrics) and made.kept == labels["kept"]
    assert [vars(one) for one in made.classes] == [labels["classes"][n] for n in SPACE.names]
    training = records["k1/translator"].metrics
    assert isinstance(training, TrainingMetrics)
    assert training.curves == file("k1/translator")["curves"]
    measures, drift = records["k1/translated/measures"].metrics, file("k1/translated/measures")
    assert isinstance(measures, MeasureMetrics) and measures.drift is not None
    assert measures.drift.lost == drift["drift"]["broken"]
    assert measures.drift.of_right == drift["drift"]["of_right"]


def test_means_over_subsets_and_what_was_lost_most_are_read(old: Path) -> None:
    file = old / "source-only/evaluation/metrics.json"
    write_json(file, {**read_json(file), "few": 0.25})
    measures = old / "k1/translated/measures/metrics.json"
    content = read_json(measures)
    content["drift"]["worst"] = [{"label": "sky", "predicted": "road", "share": 0.5}]
    write_json(measures, content)
    records = {record.stage: record for record in records_in(old)}
    evaluation = records["source-only/evaluation"].metrics
    assert isinstance(evaluation, EvaluationMetrics) and evaluation.subsets == {"few": 0.25}
    metrics = records["k1/translated/measures"].metrics
    assert isinstance(metrics, MeasureMetrics) and metrics.drift is not None
    assert metrics.drift.worst == [Confused(SPACE.names.index("sky"), 0, 0.5)]


def test_damaged_numbers_are_named(old: Path) -> None:
    file = old / "k1/pseudo-labels-1/metrics.json"
    write_json(file, {"kept": 0.5})
    with pytest.raises(UserError, match=r"metrics\.json: is not what a stage measured"):
        records_in(old)


def test_they_can_be_compared(old: Path, tmp_path: Path) -> None:
    rows = json.loads((OLD / RESULTS).read_text(encoding="utf-8"))
    (old / RESULTS).write_text(json.dumps(rows[:3]), encoding="utf-8")
    runs = read_runs([OLD, old])
    compared = [run.compared for run in runs]
    assert notes(compared) == []
    for row in rows[:3]:
        miou = f"{100 * row['miou']:.1f}"
        assert f"{row['stage']:<20}" in as_text(compared) and miou in as_text(compared)
    assert class_colors(runs[0]) == list(zip(SPACE.names, SPACE.colors, strict=True))
    strips = compared_frames(runs)
    captions = [panel.caption for panel in strips[0].panels]
    assert captions == ["validation", "label", *(run.name for run in compared)]
    page = tmp_path / "page.html"
    write_comparison(page, compared, class_colors(runs[0]), strips)
    text = page.read_text(encoding="utf-8")
    assert 'id="shares-table"' in text and 'id="curves"' in text


def test_their_settings_have_the_names_of_today() -> None:
    (run,) = read_runs([OLD])
    settings = run.compared.settings
    assert settings["segmentation.pseudo_labels.quantile"] == 0.5
    assert "segmentation.pseudo_labels.portion" not in settings


def test_they_can_be_reported(tmp_path: Path) -> None:
    """All sections but the pictures, from the folder alone."""
    classes = list(zip(SPACE.names, SPACE.colors, strict=True))
    report = Report("old", read_rows(OLD), records_in(OLD), [], classes=classes)
    write_report(tmp_path / "report.html", report)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for section in ("results", "classes", "translations", "curves", "pseudo-labels", "stages"):
        assert f'id="{section}"' in text
    assert "All 21 stages are finished" in text


def test_their_networks_can_be_used() -> None:
    file = find_segmenter(OLD)
    assert file == OLD / "k2/segmentation-1" / RESULT
    assert run_view(file) == RunView(size=(64, 32))
    assert run_view(OLD / "source-only" / RESULT) == RunView(size=(64, 32))
