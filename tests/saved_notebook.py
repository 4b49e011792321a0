"""Runs the notebook in examples/, and saves its outputs in it: `python tests/saved_notebook.py`.

Bars and warnings are not saved. tests/test_examples.py compares what a run gives with what is
saved: the cells and the kinds of their outputs, not bits.
"""

import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parents[1] / "examples" / "long_video.ipynb"


def read() -> nbformat.NotebookNode:
    """The notebook as it is saved."""
    return nbformat.read(NOTEBOOK, as_version=4)


def run(folder: Path) -> nbformat.NotebookNode:
    """Execute every cell in a folder; returns the notebook with its outputs."""
    notebook = read()
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    return notebook


def kinds(notebook: nbformat.NotebookNode) -> list[tuple[str, str, list[Any]]]:
    """Of each cell its type, its source and the kinds of its outputs, without bars."""
    return [
        (cell.cell_type, cell.source, [_kind(one) for one in _kept(cell)])
        for cell in notebook.cells
    ]


def _kept(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [one for one in cell.get("outputs", []) if one.get("name") != "stderr"]


def _kind(output: nbformat.NotebookNode) -> tuple[str, list[str]]:
    return output.output_type, sorted(output.get("data", {})) or [output.get("name", "")]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(Path(folder))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _kept(cell)
    notebook.metadata = read().metadata
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
