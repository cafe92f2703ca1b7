"""The notebooks run from their first cell to their last, in a process of their own."""

from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path) -> None:
    nbformat: Any = pytest.importorskip("nbformat", reason="notebooks need nbclient: pip install 'semdedup[test]'")
    nbclient: Any = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install 'semdedup[test]'")
    pytest.importorskip("ipykernel", reason="notebooks need ipykernel: pip install 'semdedup[test]'")
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources=place).execute()
