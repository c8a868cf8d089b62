"""Batches of a notebook that does not train: what runs, what is refused, what is skipped, what fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from rich.console import Console

from alexnet.locking import FolderLock
from alexnet.recipe import RecipeError
from alexnet.studies import BatchError, run_batch
from alexnet.studies.pages import notebook_page
from alexnet.studies.report import write_report
from alexnet.studies.runner import Job, _plan
from alexnet.studies.tasks import Task, run_task

pytestmark = pytest.mark.once

PARAMETERS = 'backend = None  # backend\nrun_dir = "runs"  # where\nname = "default"  # what\nwidth = 0.25  # width\n'
PARAMETERS += "resume = True  # go on\n"
RECORD = """
import json, os, pathlib
folder = pathlib.Path(run_dir) / name / backend
results = {"epoch": 3, "val_top1": width, "val_top5": 1.0, "val_loss": 0.5}
metrics = {"status": "finished", "started": str(os.times()), "results": results,
           "times": {"seconds": 4.0, "images_per_second": 50.0},
           "versions": {backend: "1.2.3"}, "peak_memory_bytes": 2e9, "hardware": {"memory_bytes": 16e9},
           "parameters": {"width": width, "network": "paper", "data_dir": "shapes"}}
(folder / "metrics.json").write_text(json.dumps(metrics))
header = "epoch,loss,top1,top5,val_loss,val_top1,val_top5,learning_rate,seconds"
(folder / "history.csv").write_text(header + "\\n1,1,.5,1,.9,.4,1,.1,1\\n2,.5,.6,1,.5,.5,1,.1,1\\n")
count = folder / "count"
count.write_text(str(int(count.read_text()) + 1) if count.exists() else "1")
assert os.environ["KERAS_BACKEND"] == backend and "keras" not in __import__("sys").modules
if width == 0.125: raise RuntimeError("too narrow")
"""


@pytest.fixture
def notebook(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, RECORD)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    return tmp_path / "small.ipynb"


def count(tmp_path, *parts):
    return int((tmp_path / "runs").joinpath(*parts, "count").read_text())


def test_backends_grid_skipping_failing_and_the_report(notebook, tmp_path, capfd):
    values = {"run_dir": str(tmp_path / "runs"), "name": "try"}
    grid = {"width": ["0.5", "1.25e-1"]}  # a number that YAML and papermill read as text
    assert run_batch([notebook], values, ["jax", "torch"], grid, jobs=2) == 1
    runs = tmp_path / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["try,width=0.125", "try,width=0.5", "try.html"]
    for backend in ("jax", "torch"):
        executed = nbformat.read(runs / "try,width=0.5" / backend / "small.ipynb", 4)
        assert executed.metadata.papermill.parameters["width"] == 0.5
        assert not (runs / "try,width=0.125" / backend / "small.ipynb").exists()
        assert "too narrow" in (runs / "try,width=0.125" / backend / "small.log").read_text()
    output, errors = capfd.readouterr()
    assert output.strip().splitlines()[-1] == str(runs / "try.html")
    assert "too narrow" in errors and "50.0%" in errors

    page = (runs / "try.html").read_text()
    for text in ("2 failed", "50.0%", "1.2.3", "2.0 GB", "too narrow", 'href="try,width=0.5/jax/small.html"'):
        assert text in page, text
    for text in ("<title>AlexNet (paper) on shapes: 4 runs", "4.0 s", "16 GB", "prefers-color-scheme: dark"):
        assert text in page, text
    assert 'alt="Validation loss and top-1 error by epoch, a line for each run. The error ends at small' in page
    assert page.count("data:image/png;base64,") == 1 and "<script" not in page and "http" not in page
    assert (runs / "try,width=0.5" / "jax" / "small.html").is_file()

    # Started again, only failed runs are repeated; with force, all of them.
    assert run_batch([notebook], values, ["jax", "torch"], grid) == 1
    assert count(tmp_path, "try,width=0.5", "jax") == 1 and count(tmp_path, "try,width=0.125", "jax") == 2
    assert "finished before" in (runs / "try.html").read_text()
    assert run_batch([notebook], values, ["jax"], {"width": ["0.5"]}, force=True) == 0
    assert count(tmp_path, "try,width=0.5", "jax") == 2


def test_a_page_of_a_notebook_has_its_title_and_the_descriptions_of_its_figures(tmp_path):
    picture = {"image/png": "iVBORw0KGgo="}
    shown = [
        nbformat.v4.new_output("display_data", picture, metadata={"image/png": {"alt": 'a "ring" & more', "width": 7}}),
        nbformat.v4.new_output("display_data", picture),
    ]
    cells = [nbformat.v4.new_markdown_cell("# Rings\n\ntext"), nbformat.v4.new_code_cell("1", outputs=shown)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    page = notebook_page(tmp_path / "x.ipynb")
    assert "<title>Rings</title>" in page and page.count("iVBORw0KGgo=") == 2
    assert re.search(r"""<img alt=("a &quot;ring&quot; &amp; more"|'a "ring" &amp; more')[^>]* width="7\"""", page)


def test_other_parameters_are_another_run(notebook, tmp_path):
    values = {"run_dir": str(tmp_path / "runs")}
    for width, expected in ((0.5, 1), (0.5, 1), (0.75, 2)):
        assert run_batch([notebook], {**values, "width": width}, ["torch"]) == 0
        assert count(tmp_path, "default", "torch") == expected


@pytest.mark.parametrize(
    ("values", "backends", "grid", "message"),
    [
        ({"widht": 1}, None, {}, "widht: unknown parameter of small.ipynb. Did you mean width?"),
        ({"epochs": 1}, None, {}, "epochs: unknown parameter of small.ipynb. Known: backend, run_dir, name, width"),
        ({}, None, {"hight": [1]}, "hight: unknown parameter"),
        ({"width": -1}, None, {}, "width: received -1; allowed: a number above 0."),
        ({}, None, {"backend": ["jax"]}, "--grid: backend is not for the grid"),
        ({}, ["jax"], {"width": ["0.5", "0.50"]}, "Two runs would share the folder"),
        ({}, ["jaxx"], {}, "--backends: received 'jaxx'.*Did you mean jax?"),
    ],
)
def test_nothing_starts_with_a_parameter_that_is_wrong(notebook, tmp_path, values, backends, grid, message):
    with pytest.raises((BatchError, RecipeError), match=message):
        run_batch([notebook], {"run_dir": str(tmp_path / "runs"), **values}, backends, grid)
    assert not (tmp_path / "runs").exists()


def test_notebooks_that_cannot_be_run(tmp_path):
    (tmp_path / "text.ipynb").write_text("no JSON")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("a = 1")]), tmp_path / "untagged.ipynb")
    for name, message in (
        ("absent", "There is no notebook"),
        ("text", "is not a notebook"),
        ("untagged", "no cell tagged"),
    ):
        with pytest.raises(BatchError, match=message):
            run_batch([tmp_path / f"{name}.ipynb"], {}, ["torch"])
    with pytest.raises(BatchError, match="--jobs: received 0"):
        run_batch([tmp_path / "untagged.ipynb"], {}, ["torch"], jobs=0)


def test_an_unwritable_folder_fails_that_run_only(notebook, tmp_path):
    (tmp_path / "runs" / "default").mkdir(parents=True)
    (tmp_path / "runs" / "default" / "jax").touch()
    assert run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["jax", "torch"]) == 1
    assert count(tmp_path, "default", "torch") == 1
    assert "cannot be used" in (tmp_path / "runs" / "default.html").read_text()


def test_two_batches_at_once(notebook, tmp_path, capfd):
    """The second batch leaves out what the first is running, and runs the rest."""
    values = {"run_dir": str(tmp_path / "runs")}
    folder = tmp_path / "runs" / "default" / "torch"
    with FolderLock(folder, ".small.lock"):
        for name in ("small.ipynb", "unfinished.small.ipynb", "unfinished.small.yaml", "small.log"):
            (folder / name).write_text("of the first")
        assert run_batch([notebook], values, ["torch", "jax"]) == 1
        assert {path.read_text() for path in folder.glob("*small*") if path.suffix != ".lock"} == {"of the first"}
    assert count(tmp_path, "default", "jax") == 1
    assert "in use by another process" in (said := capfd.readouterr().err) and "It runs this notebook there" in said
    assert "in use by another process" in (tmp_path / "runs" / "default.html").read_text()
    for path in folder.iterdir():
        path.unlink()
    assert run_batch([notebook], values, ["torch"]) == 0  # it has ended
    job = _plan([notebook], values, ["torch"], {})[0]
    # Planned before the other batch had finished.
    assert run_task(job.task).status == "skipped" and count(tmp_path, "default", "torch") == 1


def test_a_batch_does_not_correct_the_record_of_a_live_run(notebook, tmp_path):
    """A different run began in the folder while the batch's notebook started, so the notebook was refused."""
    cells = nbformat.read(notebook, 4)
    record = "(folder / 'metrics.json').write_text('{\"status\": \"running\"}'); raise ValueError('in use')"
    cells.cells.append(nbformat.v4.new_code_cell(record))
    nbformat.write(cells, notebook)
    folder = tmp_path / "runs" / "default" / "torch"
    with FolderLock(folder):
        assert run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["torch"]) == 1
    assert json.loads((folder / "metrics.json").read_text())["status"] == "running"


def test_papermill_alone_refuses_a_parameter_that_is_misspelled(tmp_path):
    root = Path(__file__).resolve().parents[1]
    for path, name, message in (
        ("02_train", "learnin_rate", "Did you mean learning_rate?"),
        ("01_architecture", "epochs", "Known: backend, network"),
    ):
        command = [sys.executable, "-m", "papermill", str(root / "notebooks" / f"{path}.ipynb"), "out.ipynb"]
        found = subprocess.run([*command, "-p", name, "1"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert found.returncode != 0 and f"{name}: unknown parameter. {message}" in found.stderr, found.stderr


def test_a_notebook_that_only_reads_leaves_the_run_alone(notebook, tmp_path):
    """It has no parameter `resume`: its executed copy is put beside the run, whose records stay as they are."""
    values = {"run_dir": str(tmp_path / "runs"), "name": "mine"}
    assert run_batch([notebook], values, ["torch"]) == 0
    folder = tmp_path / "runs" / "mine" / "torch"
    records = {name: (folder / name).read_bytes() for name in ("metrics.json", "history.csv", "count")}
    source = "backend = None  # backend\nrun_dir = 'runs'  # where\nname = 'default'  # what\n"
    cells = [nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("print(run_dir, name)")]
    cells[0].metadata["tags"] = ["parameters"]
    reader = tmp_path / "reader.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=nbformat.read(notebook, 4).metadata), reader)
    assert run_batch([reader], values, ["torch"]) == 0
    assert f"{tmp_path / 'runs'} mine" in (folder / "reader.ipynb").read_text()
    assert records == {name: (folder / name).read_bytes() for name in records}
    (task,) = [job.task for job in _plan([notebook, reader], values, ["torch"], {}) if job.output.name == reader.name]
    assert task.parameters["name"] == "mine" and not task.records  # the run's name, whatever the folder's name


def test_a_dead_kernel_is_a_failed_run(notebook, tmp_path, capfd):
    cells = nbformat.read(notebook, 4)
    cells.cells.append(nbformat.v4.new_code_cell("import os; os._exit(3)"))
    nbformat.write(cells, notebook)
    assert run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["torch"]) == 1
    assert not (tmp_path / "runs" / "default" / "torch" / "small.ipynb").exists()
    assert "Kernel died" in (said := capfd.readouterr().err) and "If memory was short, try batch_size 32" in said


def test_the_page_escapes_what_it_shows(tmp_path):
    task = Task("x.ipynb", "", "jax", {}, str(tmp_path), "none", {})
    job = Job(task, tmp_path / "none", label="<script>label</script>", status="failed", error="<b>error</b>")
    write_report(tmp_path / "x.html", [job], Console(file=open(os.devnull, "w")))  # noqa: SIM115
    page = (tmp_path / "x.html").read_text()
    assert "<script>" not in page and "<b>error" not in page and "&lt;b&gt;error" in page


def test_a_name_in_the_file_and_the_grid_and_the_backend_of_the_file(notebook, tmp_path):
    values = {"run_dir": str(tmp_path / "runs"), "width": "0.25", "backend": "torch"}
    assert run_batch([notebook], values, None, {"width": ["0.5"]}) == 0
    assert [path.name for path in (tmp_path / "runs" / "default,width=0.5").iterdir()] == ["torch"]


def test_a_run_made_with_other_parameters_since_is_run_again(notebook, tmp_path):
    values = {"run_dir": str(tmp_path / "runs")}
    run_batch([notebook], values, ["torch"])
    metrics = tmp_path / "runs" / "default" / "torch" / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"width": 0.25', '"width": 0.75'))
    run_batch([notebook], values, ["torch"])
    assert count(tmp_path, "default", "torch") == 2


def test_a_killed_run_does_not_stay_running(notebook, tmp_path):
    cells = nbformat.read(notebook, 4)
    killed = "(folder / 'metrics.json').write_text('{\"status\": \"running\"}'); raise ValueError('[/odd] markup')"
    cells.cells.append(nbformat.v4.new_code_cell(killed))
    nbformat.write(cells, notebook)
    assert run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["torch"]) == 1
    folder = tmp_path / "runs" / "default" / "torch"
    assert json.loads((folder / "metrics.json").read_text())["status"] == "failed"
    page = (tmp_path / "runs" / "default.html").read_text()
    assert "[/odd] markup" in page and 'href="default/torch/unfinished.small.ipynb"' in page


def test_several_notebooks_have_folders_of_their_own(notebook, tmp_path):
    other = notebook.with_name("other.ipynb")
    other.write_bytes(notebook.read_bytes())
    jobs = _plan([notebook, other], {"run_dir": str(tmp_path)}, ["jax"], {"width": ["0.5"]})
    names = [job.folder.relative_to(tmp_path).as_posix() for job in jobs]
    assert names == ["default-small,width=0.5/jax", "default-other,width=0.5/jax"]


def test_names_of_grid_runs_are_safe_folders(notebook, tmp_path):
    jobs = _plan([notebook], {"run_dir": str(tmp_path)}, ["jax"], {"width": [0.5, 1]})
    assert [job.folder.relative_to(tmp_path).as_posix() for job in jobs] == [
        "default,width=0.5/jax",
        "default,width=1.0/jax",
    ]
    assert json.dumps(jobs[0].task.parameters)


def test_a_batch_that_is_stopped_goes_on_where_it_was(tiny, tmp_path):
    """SIGTERM to the batch: the kernel saves its state, and the same command finishes the run."""
    fields = {**tiny, "epochs": 12, "backend": "torch"}
    parameters = "\n".join(f"{name} = {value!r}" for name, value in {**fields, "resume": True}.items())
    training = (
        "import alexnet\nalexnet.import_keras(backend)\nrun = alexnet.train(alexnet.Recipe.from_notebook(globals()))"
    )
    cells = [nbformat.v4.new_code_cell(source) for source in (parameters, training)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "train.ipynb")
    command = [sys.executable, "-m", "alexnet", "batch", str(tmp_path / "train.ipynb"), "--backends", "torch"]
    command += ["--set", "run_dir", tiny["run_dir"], "--set", "name", "tiny"]
    folder = tmp_path / "runs" / "tiny" / "torch"

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*.npz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 143, errors
    assert "Run the same command again to go on" in errors and "Traceback" not in errors
    assert json.loads((folder / "metrics.json").read_text())["status"] == "interrupted"
    done = len((folder / "history.csv").read_text().splitlines()) - 1
    assert 1 <= done < 12

    found = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert found.returncode == 0, found.stderr
    assert "Resuming " in (folder / "train.ipynb").read_text()
    assert json.loads((folder / "metrics.json").read_text())["results"]["epoch"] == 12
