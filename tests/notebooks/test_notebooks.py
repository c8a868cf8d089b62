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


def run_papermill(notebook, folder, *options):
    """Papermill alone, from another folder; returns the executed notebook."""
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / notebook), "out.ipynb", "--no-progress-bar"]
    command += ["-p", "backend", BACKEND, "-p", "run_dir", str(folder / "runs"), *options]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}  # the parameter wins
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert found.returncode == 0, found.stderr
    return nbformat.read(folder / "out.ipynb", 4)


def metrics_of(folder, name):
    return json.loads((folder / "runs" / name / BACKEND / "metrics.json").read_text())


@pytest.mark.skipif(BACKEND != "torch", reason="nbval trains it on each; papermill is the same")
def test_papermill_with_parameters(tmp_path):
    """A file of parameters and more, as docs/notebooks.md shows it."""
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"epochs": 1, "width": 0.0625, "learning_rate": "1e-3"}))
    text = json.dumps(run_papermill("02_train.ipynb", tmp_path, "-f", "x.yaml", "-p", "name", "from_papermill"))
    metrics = metrics_of(tmp_path, "from_papermill")
    assert metrics["status"] == "finished" and metrics["parameters"]["learning_rate"] == 1e-3
    assert metrics["results"]["epoch"] == 1
    assert "/step" not in text and len(text) < 2_000_000


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a dozen networks; `make test-notebooks` runs it whole on each")
def test_the_notebook_on_few_images_in_short(tmp_path):
    """Every cell of 04, with networks of a quarter of the width that train for one epoch."""
    notebook = run_papermill("04_finetune.ipynb", tmp_path, "-p", "epochs", "2", "-p", "width", "0.0625")
    metrics = metrics_of(tmp_path, "default-finetune")
    assert metrics["status"] == "finished" and metrics["results"]["epoch"] == 1
    assert metrics["parameters"]["weights"] == str(tmp_path / "runs" / "default-signs" / BACKEND)
    (table,) = [
        output.data["text/markdown"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "from scratch" in output.get("data", {}).get("text/markdown", "")
    ]
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == [
        "from scratch",
        "fine-tuned",
        "convolutions frozen",
    ]
