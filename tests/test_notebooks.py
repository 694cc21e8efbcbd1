"""docs/notebooks/: they run to their end, show pictures and scores, and are kept without output."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.long
def test_the_notebook_of_the_loop_shows_each_step_and_ends_with_a_better_network(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    (file,) = (file for file in NOTEBOOKS if file.stem == "loop")
    notebook = nbformat.read(file, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=3600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [item for cell in notebook.cells for item in cell.get("outputs", [])]
    pictures = [item for item in outputs if "image/png" in item.get("data", {})]
    assert len(pictures) == 9
    (last,) = (cell for cell in notebook.cells if "loop(iterations=2" in cell.source)
    said = "".join(item.text for item in last.outputs if item.output_type == "stream")
    scores = dict(re.findall(r"^(\S+) +mIoU ([\d.]+) %$", said, re.M))
    stages = ("segmentation-0", "segmentation-1")
    assert list(scores) == ["source-only", *(f"k{k}/{name}" for k in (1, 2) for name in stages)]
    # Far more than seeds differ by.
    assert float(scores["k1/segmentation-1"]) > float(scores["source-only"]) + 5
    assert (tmp_path / "runs/notebook/report.html").is_file()
