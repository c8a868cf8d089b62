"""Execute the notebooks and store them as they are committed: with outputs and counts, but nothing of the machine.

make notebooks        all of them, and the solutions of their exercises
python tests/notebooks/refresh.py notebooks/01_architecture.ipynb
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def normalize(notebook):
    """Remove what differs between machines and runs: kernel, times of execution, metadata of papermill and editors."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {})
    return notebook


def refresh(path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        coalesce_streams=True,
    )
    client.execute()
    nbformat.write(normalize(notebook), path)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.pop("JPY_SESSION_NAME", None)
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NOTEBOOKS.rglob("[0-9]*.ipynb")):
        print(f"executing {path.name}", flush=True)
        refresh(path.resolve())
