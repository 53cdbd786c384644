"""The example notebook runs from top to bottom, with seconds of training in place of minutes."""

import os
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install nbclient ipykernel)")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel", reason="ipykernel is not installed (pip install nbclient ipykernel)")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "denoise.ipynb"
SHORT = {"MINUTES = 3 ": "MINUTES = 0.05 ", '"1024x1024"': '"512x512"'}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook, executed."""
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    for before, after in SHORT.items():
        assert before in found.cells[1].source
        found.cells[1].source = found.cells[1].source.replace(before, after)
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(found, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    return found


def outputs(notebook: nbformat.NotebookNode, start: str) -> list[dict[str, str]]:
    """What the cell displays whose code has a line that starts like this."""
    (cell,) = (cell for cell in notebook.cells if any(line.startswith(start) for line in cell.source.splitlines()))
    return [output["data"] for output in cell.outputs if "data" in output]


def test_the_summary_and_the_table_are_shown(notebook: nbformat.NotebookNode) -> None:
    (summary,) = outputs(notebook, "summary = n2n_deploy.denoise")
    assert "<th>denoised</th><td>2</td>" in summary["text/html"]
    (table,) = outputs(notebook, "denoised = summary.denoised_tables")
    assert "rlnDefocusU" in table["text/html"]


def test_each_comparison_is_one_picture(notebook: nbformat.NotebookNode) -> None:
    for start in ("project = ", "    result = "):
        (picture,) = outputs(notebook, start)
        assert "image/png" in picture


def test_it_is_kept_without_outputs() -> None:
    """A diff of the notebook shows what was changed in it."""
    found = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in found.cells)
