"""The notebooks run from their first cell to their last, in a process of their own, and show what they are to show."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WITH_PAIRS = ("01_end_to_end", "02_choose_eps", "06_new_videos")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests have clusters at the same time, one of which has the port of the dashboard.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:Port 8787 is already in use")
    nbformat: Any = pytest.importorskip("nbformat", reason="notebooks need nbclient: pip install '.[test]'")
    nbclient: Any = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install '.[test]'")
    pytest.importorskip("ipykernel", reason="notebooks need ipykernel: pip install '.[test]'")
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources=place).execute()
    check_outputs(notebook, path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_are_stored_as_they_are_to_be_seen(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), (
        "run from the first to the last"
    )
    check_outputs(notebook, path.stem)


def check_outputs(notebook: Any, name: str) -> None:
    """No warning, no environment of anybody, few outputs a cell, and pictures where they are promised."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not re.search("site-packages|/home/|/root/", json.dumps(outputs))
    shown = [json.dumps(output.get("data", {})) for output in outputs]
    if name in WITH_PAIRS:
        assert sum(text.count("data:image/jpeg;base64") for text in shown) >= 2, "strips of pairs"
    if name != "03_cluster":
        assert any("image/" in text for text in shown)
    for cell in notebook["cells"]:
        progress = [text for output in cell.get("outputs", ()) if "opacity:.75" in (text := str(output.get("data")))]
        assert len(progress) <= 1, "one output that changes, and no more"
