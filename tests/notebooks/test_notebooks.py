"""What nbval does not check: that notebooks are committed executed, and that the training notebook trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


def complaints(notebook):
    """Why a notebook must not be committed; nbval compares nothing in a cell without an execution count."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "was not executed from top to bottom in a fresh kernel"
    if not any(cell.outputs for cell in code):
        yield "has no outputs"
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        yield "ends in an error"
    if any(output.get("name") == "stderr" for cell in code for output in cell.outputs):
        yield "has text on its error stream"
    if set(notebook.metadata) != {"kernelspec", "language_info"} or notebook.metadata.kernelspec.name != "python3":
        yield "has metadata of a machine: run `make notebooks`"
    if any(set(cell.metadata) - {"tags"} for cell in notebook.cells):
        yield "has metadata in its cells: run `make notebooks`"
    if any(len(cell.source.splitlines()) > 15 and "parameters" not in cell.metadata.get("tags", []) for cell in code):
        yield "has code that belongs in the package"
    if str(ROOT) in json.dumps(notebook):
        yield "names a folder of this machine"


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda path: "-".join(path.parts[-2:]))
def test_committed_as_executed(path):
    assert list(complaints(nbformat.read(path, 4))) == []
    assert path.stat().st_size < 2_000_000


def test_a_stripped_notebook_is_refused():
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    assert list(complaints(notebook)) == ["was not executed from top to bottom in a fresh kernel", "has no outputs"]


def test_the_training_notebook_trained():
    """nbval has just run 02_train with its defaults on this backend: nine of ten shapes are recognized."""
    folder = ROOT / "runs" / "default" / BACKEND
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["status"] == "finished" and metrics["backend"] == BACKEND
    assert metrics["results"]["val_top1"] >= 0.9
    assert metrics["peak_memory_bytes"] < 4e9
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= {"curves", "filters", "predictions"}


@pytest.mark.skipif(BACKEND != "torch", reason="nbval trains it on each; papermill is the same")
def test_papermill_with_parameters(tmp_path):
    """Papermill alone, from a different folder, with a file of parameters and more, as docs/notebooks.md shows it."""
    values = {"epochs": 1, "width": 0.0625, "run_dir": str(tmp_path / "runs"), "learning_rate": "1e-3"}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "notebooks" / "02_train.ipynb"),
        "out.ipynb",
        "-f",
        "x.yaml",
    ]
    command += ["-p", "backend", BACKEND, "-p", "name", "from_papermill", "--no-progress-bar"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}  # the parameter wins
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment)
    assert found.returncode == 0, found.stderr
    metrics = json.loads((tmp_path / "runs" / "from_papermill" / BACKEND / "metrics.json").read_text())
    assert (metrics["status"], metrics["parameters"]["learning_rate"], metrics["results"]["epoch"]) == (
        "finished",
        1e-3,
        1,
    )
    text = json.dumps(nbformat.read(tmp_path / "out.ipynb", 4))
    assert "/step" not in text and len(text) < 2_000_000
