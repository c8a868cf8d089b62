"""Batches on Dask and Ray, and at URLs: workers that are killed, what is refused, what is said."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from engines_helpers import (
    listening_addresses,
    metrics,
    notebooks_that_run,
    read_lines,
    wait_until,
    worker_of,
    write_notebook,
)

import alexnet
from alexnet.cli import main
from alexnet.locking import FolderLock, is_locked
from alexnet.recipe import Recipe, RecipeError
from alexnet.studies import BatchError, run_batch, tasks
from alexnet.studies.engines import RayExecutor, open_engine
from alexnet.studies.errors import MirrorError
from alexnet.studies.mirror import Mirror, _inside
from alexnet.studies.runner import Job, _end, _plan
from alexnet.studies.tasks import run_task

pytestmark = [pytest.mark.once, pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")]
ROOT = Path(__file__).resolve().parents[1]
WIDTHS = [round(0.05 * i, 2) for i in range(1, 13)]


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", str(tmp_path))  # by which the kernels of a test are found


@pytest.fixture
def dask_address(tmp_path):
    """A Dask cluster of two workers on loopback."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        silence_logs=50,
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        yield cluster.scheduler_address


def kill_the_first_worker(tmp_path, killed):
    """When a run has begun, kill the worker that made it."""
    first = wait_until(lambda: next((line for line in read_lines(tmp_path) if line[0] == "begin"), None), 60)
    worker = worker_of(int(first[2]))
    killed += [first[1], worker.pid]
    worker.kill()


def check_twelve(tmp_path, killed, status, said):
    """All have finished, none twice; that of the killed worker has resumed, and nothing is left running."""
    assert status == 0, said
    lines = read_lines(tmp_path)
    ends = sorted(float(width) for word, width, _ in lines if word == "end")
    assert ends == WIDTHS, lines
    again = [(word, width) for word, width, _ in lines if word == "resume"]
    assert ("resume", killed[0]) in again and len([1 for word, *_ in lines if word == "begin"]) == 12
    begun = [process for word, width, process in lines if width == killed[0] and word != "end"]
    assert len(set(begun)) == 2  # the kernel whose worker was killed, and the one that went on
    assert said.count("finished: work") == 12
    for width in WIDTHS:
        folder = tmp_path / "runs" / f"default,width={width}" / "torch"
        executed = nbformat.read(folder / "work.ipynb", 4)
        assert executed.metadata.papermill.parameters["width"] == width
        assert {path.name for path in folder.iterdir()} >= {"metrics.json", "work.ipynb"}
        assert not list(folder.glob("unfinished*")) and not list(folder.glob(".*.lock"))
    assert (tmp_path / "runs" / "default.html").is_file()
    wait_until(lambda: not notebooks_that_run(tmp_path), 10)


def run_twelve(notebook, tmp_path, capfd, engine, **options):
    killed = []
    killer = threading.Thread(target=kill_the_first_worker, args=(tmp_path, killed))
    killer.start()
    values = {"run_dir": str(tmp_path / "runs")}
    status = run_batch([notebook], values, ["torch"], {"width": WIDTHS}, engine=engine, **options)
    killer.join(timeout=60)
    check_twelve(tmp_path, killed, status, capfd.readouterr().err)
    assert not psutil.pid_exists(killed[1]) or psutil.Process(killed[1]).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_twelve_runs_on_dask_when_a_worker_is_killed(notebook, tmp_path, capfd, dask_address):
    run_twelve(notebook, tmp_path, capfd, "dask", address=dask_address)


@pytest.mark.slow
def test_twelve_runs_on_ray_when_a_worker_is_killed(notebook, tmp_path, capfd):
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    run_twelve(notebook, tmp_path, capfd, "ray", jobs=2)
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_")} == before


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask", "ray"])
def test_ctrl_c_lets_the_runs_save(engine, tmp_path):
    """To the whole group, as a terminal sends it. Those that wait are not begun. Nobody outside reaches the cluster."""
    notebook = write_notebook(tmp_path, seconds=60)
    command = [sys.executable, "-m", "alexnet", "batch", str(notebook), "--backends", "torch", "--engine", engine]
    command += ["--jobs", "2", "--grid", "width=0.1,0.2,0.3,0.4", "--set", "run_dir", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HERE": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        wait_until(lambda: len(read_lines(tmp_path)) == 2, 60)
        assert listening_addresses(tmp_path) == {"127.0.0.1"}
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Stopping: each run saves its state first." in said, said
    assert "Traceback" not in said, said
    assert sorted(word for word, *_ in read_lines(tmp_path)) == ["begin", "begin", "saved", "saved"]
    assert [metrics(path.parent)["status"] for path in tmp_path.rglob("metrics.json")] == ["interrupted"] * 2
    wait_until(lambda: not notebooks_that_run(tmp_path), 10)


@pytest.mark.slow
def test_a_killed_batch_leaves_no_notebook_and_keeps_the_lock_until_then(tmp_path):
    notebook = write_notebook(tmp_path, seconds=60)
    command = [sys.executable, "-m", "alexnet", "batch", str(notebook), "--backends", "torch"]
    command += ["--set", "run_dir", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HERE": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        (first,) = wait_until(lambda: read_lines(tmp_path), 60)
        kernel = psutil.Process(int(first[2]))
        papermill = kernel.parent()
        assert os.getpgid(kernel.pid) != os.getpgid(papermill.pid)  # so that killing a group is not enough
        kernel.suspend()  # it cannot see that its parent has gone
        watcher = next(each for each in psutil.Process(process.pid).children() if each.pid != papermill.pid)
        watcher.suspend()
        process.kill()
        process.wait()
        folder = tmp_path / "runs" / "default" / "torch"
        assert is_locked(folder, ".work.lock") and kernel.is_running()
        watcher.resume()
        wait_until(lambda: not is_locked(folder, ".work.lock"), 20)
        assert not notebooks_that_run(tmp_path)


# --- What is refused, before anything is run


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--engine", "dsk"], "--engine: received 'dsk'; allowed: local, dask, ray. Did you mean dask?"),
        (["--address", "127.0.0.1:8786"], "name its kind as well, --engine dask or --engine ray"),
        (["--engine", "dask", "--address", "127.0.0.1"], "received '127.0.0.1'; allowed: HOST:PORT"),
        (["--engine", "ray", "--address", "a:b"], "received 'a:b'; allowed: HOST:PORT, as in 10.0.0.5:6379"),
        (
            ["--engine", "dask", "--address", "127.0.0.1:1", "--jobs", "2"],
            "the one at --address has workers of its own",
        ),
        (["--engine", "dask", "--address", "127.0.0.1:1"], "--address: no Dask cluster answers at 127.0.0.1:1"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "--address: no Ray cluster answers at 127.0.0.1:1"),
        (["--jobs", "0"], "--jobs: received 0"),
        (["--engine", "dask", "--set", "run_dir", "memory://runs"], "is the memory of one process"),
        (["--set", "run_dir", "nothing://runs"], "run_dir: nothing://runs cannot be used (Protocol not known: nothing"),
        (["--set", "run_dir", "http://127.0.0.1:1/runs"], "run_dir: http://127.0.0.1:1/runs cannot be used ("),
    ],
)
def test_wrong_use_is_one_sentence(flags, sentence, notebook, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("alexnet.studies.engines._SECONDS", 1)
    arguments = ["batch", str(notebook), "--backends", "torch", "--set", "run_dir", str(tmp_path / "runs"), *flags]
    began = time.monotonic()
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and not said.out, said.err
    assert time.monotonic() - began < 20 and not read_lines(tmp_path) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [("dask", "distributed", "dask"), ("dask", "cryptography", "dask"), ("ray", "ray", "ray")],
)
def test_a_missing_package_is_named_with_its_extra(engine, package, extra, notebook, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    message = f"the package {package} is not installed here.*alexnet-keras.{extra}"
    with pytest.raises(BatchError, match=message):
        run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["torch"], engine=engine)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_address_where_something_else_listens(engine, notebook, tmp_path, monkeypatch):
    monkeypatch.setattr("alexnet.studies.engines._SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(BatchError, match=f"no {engine.title()} cluster answers at {address}"):
            run_batch([notebook], {"run_dir": str(tmp_path / "runs")}, ["torch"], engine=engine, address=address)
    assert time.monotonic() - began < 20 and not (tmp_path / "runs").exists()


def test_a_url_is_for_batches_only(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = "run_dir: received 's3://bucket/runs'; allowed: a folder of this machine. Only the command batch takes a"
    with pytest.raises(RecipeError) as error:
        Recipe.from_notebook({"run_dir": "s3://bucket/runs"})
    assert str(error.value).startswith(sentence)
    assert main(["train", "--run_dir", "s3://bucket/runs"]) == 2
    assert sentence in capsys.readouterr().err and not list(tmp_path.iterdir())


# --- Tasks and their results


def plan(notebook, tmp_path, **values):
    return _plan([notebook], {"run_dir": str(tmp_path / "runs"), **values}, ["torch"], {})


def test_other_versions_are_named(notebook, tmp_path):
    (job,) = plan(notebook, tmp_path)
    result = run_task(dataclasses.replace(job.task, version="0.0.9"))
    assert result.status == "failed" and not read_lines(tmp_path)
    assert f"has alexnet {alexnet.__version__}, and the batch was started with 0.0.9: install the same" in result.error


def test_a_run_that_lies_on_another_machine_is_not_taken_for_finished(notebook, tmp_path):
    (job,) = plan(notebook, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        _end(job, pool.submit(tasks.Result, "finished"))
    assert job.status == "failed" and "run_dir must be a folder that all workers and this machine share" in job.error
    with ThreadPoolExecutor(1) as pool:
        _end(job, pool.submit(int, "no number\nat all"))
    assert job.error == "ValueError: invalid literal for int() with base 10: 'no number\\nat all'"


def test_the_task_of_a_killed_worker_waits_for_the_folder(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "_WAIT", {"local": 0, "dask": 20})
    (job,) = plan(notebook, tmp_path)
    lock = FolderLock(job.folder, ".work.lock")
    with ThreadPoolExecutor(1) as pool:
        lock.__enter__()
        assert run_task(job.task).status == "locked"
        waiting = pool.submit(run_task, dataclasses.replace(job.task, engine="dask"))
        time.sleep(0.5)
        assert not waiting.done()
        lock.__exit__()
        assert waiting.result(timeout=60).status == "finished"


def test_threads_are_those_that_a_person_has_set(notebook, tmp_path, monkeypatch):
    (job,) = plan(notebook, tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(psutil.Process, "environ", lambda self: {})
    assert tasks._environment(job.task)["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in tasks._environment(dataclasses.replace(job.task, engine="ray"))
    monkeypatch.setattr(psutil.Process, "environ", lambda self: {"OMP_NUM_THREADS": "1"})
    assert tasks._environment(dataclasses.replace(job.task, engine="ray"))["OMP_NUM_THREADS"] == "1"


# --- Runs at a URL


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_batch_at_a_url(protocol, tmp_path, capfd):
    """It is skipped, made again and reported as in a folder, and leaves nothing on this machine."""
    (tmp_path / "temporary").mkdir()
    notebook = write_notebook(tmp_path, seconds=0)
    url = f"file://{tmp_path}/runs/" if protocol == "file" else f"memory://{tmp_path.name}/runs"
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    try:
        for width, runs in ((0.5, 1), (0.5, 1), (0.75, 2)):
            assert run_batch([notebook], {"run_dir": url, "width": width}, ["torch"]) == 0, capfd.readouterr().err
            assert [word for word, *_ in read_lines(tmp_path)].count("end") == runs
    finally:
        patch.undo()
    assert capfd.readouterr().out.splitlines() == [f"{url.rstrip('/')}/default.html"] * 3
    assert not list((tmp_path / "temporary").iterdir())
    copy = Mirror(url, tmp_path / "copy")
    copy.fetch("default/torch")
    folder = tmp_path / "copy" / "default" / "torch"
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "work.ipynb", "work.html"}, names  # the state was removed there as well
    assert metrics(folder)["parameters"] == {"width": 0.75}
    copy._system.get_file(f"{copy._root}/default.html", str(tmp_path / "report.html"))
    assert "finished" in (tmp_path / "report.html").read_text()


def test_a_state_is_at_the_url_while_the_run_goes_on(tmp_path):
    """So a killed worker's run goes on elsewhere. Its folder is removed, and the next task resumes."""
    notebook = write_notebook(tmp_path, seconds=60)
    command = [sys.executable, "-m", "alexnet", "batch", str(notebook), "--backends", "torch"]
    command += ["--set", "run_dir", f"file://{tmp_path}/runs"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary"), "HERE": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        wait_until((tmp_path / "runs" / "default" / "torch" / "checkpoints" / "step.npz").exists, 60)
        process.kill()
    wait_until(lambda: not list((tmp_path / "temporary").rglob("step.npz")), 10)
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert [word for word, *_ in read_lines(tmp_path)] == ["begin", "resume", "end"]


def test_results_that_cannot_be_put_back_are_kept(tmp_path, monkeypatch):
    notebook = write_notebook(tmp_path, seconds=0)
    (job,) = _plan([notebook], {"run_dir": str(tmp_path / "room")}, ["torch"], {}, f"file://{tmp_path}/runs")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def put(self, place, last=()):
        raise MirrorError("run_dir: x cannot be used (denied).")

    monkeypatch.setattr(Mirror, "put", put)
    result = run_task(job.task)
    assert result.status == "failed" and "denied" in result.error and "The run is kept in" in result.error
    (kept,) = tmp_path.glob("alexnet-*")
    assert str(kept) in result.error and metrics(kept / "default" / "torch")["status"] == "finished"


def test_names_in_a_listing_do_not_lead_outside(tmp_path, monkeypatch):
    assert _inside("bucket/runs", "bucket/runs/a/b.json") == "a/b.json"
    assert _inside("", "/a") == "a"
    for path in ("bucket/runs/../secret", "bucket/runs/a/../../b", "bucket/other/a", "bucket/runs", "bucket/runs/a\0b"):
        with pytest.raises(MirrorError, match="is not a name that a run's file has"):
            _inside("bucket/runs", path)
    mirror = Mirror(f"memory://{tmp_path.name}", tmp_path / "here")
    listing = [f"/{tmp_path.name}/default/torch/../../../stolen"]
    monkeypatch.setattr(type(mirror._system), "find", lambda self, path: listing)
    with pytest.raises(MirrorError, match="is not a name"):
        mirror.fetch("default/torch")
    assert not (tmp_path / "stolen").exists() and not (tmp_path / "here").exists()


def test_a_forced_run_that_fails_is_not_finished_at_the_url(tmp_path):
    notebook = write_notebook(tmp_path, seconds=0)
    values = {"run_dir": f"file://{tmp_path}/runs"}
    assert run_batch([notebook], values, ["torch"]) == 0
    cells = nbformat.read(notebook, 4)
    cells.cells.append(nbformat.v4.new_code_cell("1 / 0"))
    nbformat.write(cells, notebook)
    assert run_batch([notebook], values, ["torch"], force=True) == 1
    folder = tmp_path / "runs" / "default" / "torch"
    assert not (folder / "work.ipynb").exists() and (folder / "unfinished.work.ipynb").exists()
    assert "ZeroDivisionError" in (page := (tmp_path / "runs" / "default.html").read_text())
    assert f"see file://{tmp_path}/runs/default/torch/work.log" in page and (folder / "work.log").is_file()


def test_the_executors_are_of_one_kind():
    with open_engine("local", jobs=2) as (executor, stop):
        assert executor.submit(sum, [1, 2]).result(timeout=10) == 3 and callable(stop)
    assert issubclass(RayExecutor, type(executor).__mro__[1]) and issubclass(Job, tasks.RunFiles)
