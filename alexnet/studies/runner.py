"""Runs notebooks, each in a process and a folder of its own."""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alexnet.atomic import write_text
from alexnet.locking import FolderLock, LockedError, is_locked
from alexnet.packages import install
from alexnet.recipe import BACKENDS, NON_MODEL_FIELDS, Recipe, nearest
from alexnet.studies.report import write_report


class BatchError(ValueError):
    """A batch that cannot start; the message is one sentence. Nothing has been run."""


@dataclass
class Job:
    """One notebook with one set of parameters.

    `status` goes from `"waiting"` over `"running"` to `"finished"`, `"skipped"` (it had finished before), `"failed"`,
    or `"locked"`: another process is running it, and nothing was changed.
    """

    notebook: Path
    backend: str
    parameters: dict[str, Any]
    folder: Path
    epochs: int
    label: str
    status: str = "waiting"
    error: str = ""
    records: bool = True  # the notebook trains, so the metrics in its folder are its own
    recipe: Recipe | None = None
    process: subprocess.Popen | None = field(default=None, repr=False)
    before: str = ""  # when the run began whose metrics lay in the folder before

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return self.folder / self.notebook.name

    @property
    def unfinished(self) -> Path:
        """The notebook while it is executed, and what is left of it when the run has failed."""
        return self.folder / f"unfinished.{self.notebook.name}"

    def metrics(self) -> dict[str, Any]:
        """The run's `metrics.json`, or nothing where the notebook records none."""
        if not self.records:
            return {}
        try:
            metrics = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {} if self.before and metrics.get("started") == self.before else metrics


def run_batch(
    notebooks: Sequence[str],
    values: Mapping[str, Any],
    backends: Sequence[str] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    jobs: int = 1,
    force: bool = False,
) -> int:
    """Run every notebook on every backend with every combination of the grid, then write the report.

    Args:
        notebooks: Paths of notebooks with a cell tagged `parameters`.
        values: Parameters by name, for all runs.
        backends: Names of backends; None for all three.
        grid: A list of values for each name; every combination is run, under a name that says which.
        jobs: How many runs at a time.
        force: Run what has finished before, too.

    Returns:
        The exit status: 0 when every run finished, now or before, and 1 when one failed.

    Raises:
        BatchError, RecipeError: an unknown notebook, parameter or backend, before anything is run.
    """
    if jobs < 1:
        raise BatchError(f"--jobs: received {jobs}; allowed: a whole number at least 1.")
    # A file of parameters may name the backend; a list on the command line goes before it.
    backends = list(dict.fromkeys(backends or filter(None, [values.get("backend")]))) or list(BACKENDS)
    _check_backends(backends)
    batch = _plan(notebooks, values, backends, grid or {})
    for job in batch:
        if not force and _has_finished(job):
            job.status = "skipped"
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 150  # a log file has room for the whole table
    _run_all([job for job in batch if job.status == "waiting"], jobs, console, force)
    folder = Recipe(**{name: values[name] for name in ("name", "run_dir") if name in values})
    report = folder.run_folder.with_name(f"{folder.name}.html")
    write_report(report, batch, console)
    print(report)
    return 1 if any(job.status in ("failed", "locked") for job in batch) else 0


def _check_backends(backends):
    for backend in backends:
        if backend not in BACKENDS:
            raise BatchError(
                f"--backends: received {backend!r}; allowed: {', '.join(BACKENDS)}.{nearest(backend, BACKENDS)}"
            )
        if importlib.util.find_spec(backend) is None:
            raise BatchError(f"--backends: {backend} is not installed here. {install(backend)}")


def _plan(notebooks, values, backends, grid):
    """Every job of the batch, all its parameters checked."""
    for name in grid:
        if name in ("backend", "run_dir", "name"):
            raise BatchError(f"--grid: {name} is not for the grid; every run has a folder of its own (see --backends).")
    batch, notebooks = [], [Path(notebook) for notebook in notebooks]
    for notebook in notebooks:
        known = parameter_names(notebook)
        for name in [*values, *grid]:
            if name not in known:
                near = nearest(name, known)
                raise BatchError(
                    f"{name}: unknown parameter of {notebook.name}.{near or ' Known: ' + ', '.join(known)}"
                )
        for combination in itertools.product(*grid.values()):
            chosen = dict(zip(grid, combination, strict=True))
            recipe = Recipe(**{**values, **chosen})
            name = recipe.name
            suffix = f"-{notebook.stem}" if len(notebooks) > 1 else ""
            suffix += "".join(f",{field}={_folder_part(getattr(recipe, field))}" for field in chosen)
            recipe = recipe.replace(name=recipe.name + suffix, run_dir=str(recipe.run_folder.parent))
            for backend in backends:
                # As Recipe reads them: a file's 1e-4, which is text to YAML, arrives as a number.
                parameters = {field: getattr(recipe, field) for field in {**values, **chosen}}
                parameters["backend"] = backend
                # A notebook that trains takes resume, too, and gets a name of its own; another one reads a run.
                records = {"run_dir", "name", "resume"} <= set(known)
                if {"run_dir", "name"} <= set(known):
                    parameters |= {"run_dir": recipe.run_dir, "name": recipe.name if records else name}
                label = " ".join([notebook.stem, recipe.name, backend])
                folder = recipe.run_folder / backend
                job = Job(notebook, backend, parameters, folder, recipe.epochs, label, records=records, recipe=recipe)
                if any(job.output == other.output for other in batch):
                    raise BatchError(f"Two runs would share the folder {folder}: the same value is twice in the grid.")
                batch.append(job)
    return batch


def _folder_part(value):
    """A grid's value as part of a folder's name; of a path, its last part."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", Path(str(value)).name)


def parameter_names(notebook: Path) -> list[str]:
    """Names that a notebook's cell tagged `parameters` assigns."""
    from papermill import inspect_notebook

    if not notebook.is_file():
        raise BatchError(f"There is no notebook {notebook}.")
    try:
        names = list(inspect_notebook(str(notebook)))
    except Exception as error:  # nbformat's and json's errors
        raise BatchError(f"{notebook} is not a notebook ({next(iter(str(error).splitlines()), '')}).") from None
    if not names:
        raise BatchError(f"{notebook} has no cell tagged parameters.")
    return names


def _has_finished(job):
    """Whether the executed notebook lies there, made with the same parameters by a run that ended well."""
    metrics, recipe = job.metrics(), job.recipe.model_dump()
    if not job.output.is_file() or metrics.get("status", "finished") != "finished":
        return False
    # The folder may since have been used by a run with other parameters.
    made_with = {name: value for name, value in metrics.get("parameters", {}).items() if name not in NON_MODEL_FIELDS}
    if any(recipe.get(name) != value for name, value in made_with.items()):
        return False
    try:
        record = nbformat.read(job.output, as_version=4).metadata.get("papermill", {})
    except Exception:
        return False
    return dict(record.get("parameters", {})) == job.parameters


def _run_all(batch, jobs, console, force):
    lock = threading.Lock()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        overall = progress.add_task("all runs", total=len(batch), unit="runs")

        def run(job):
            task = progress.add_task(job.label, total=job.epochs, unit="epochs")
            _execute(job, lambda epoch: progress.update(task, completed=epoch), force)
            progress.remove_task(task)
            progress.advance(overall)
            with lock:
                progress.console.print(
                    f"{job.status}: {job.label}" + (f": {job.error}" if job.error else ""),
                    highlight=False,
                    markup=False,
                )

        with _terminable(), ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(run, job) for job in batch]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                progress.console.print("Stopping: each run saves its state first.")
                _stop([job.process for job in batch if job.process and job.process.poll() is None])
                raise


class Terminated(KeyboardInterrupt):
    """SIGTERM or a lost terminal ended the batch."""

    status = 128 + signal.SIGTERM


@contextlib.contextmanager
def _terminable():
    """Within it SIGTERM and SIGHUP are raised as an exception, so that the runs can be told."""

    def end(number, frame):
        raise Terminated("Terminated. Run the same command again to go on.")

    numbers = [signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGTERM]
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, end) for number in numbers} if here else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(processes, patience=60):
    """Ask running notebooks to end. Papermill would kill the kernel at once; the kernel itself saves its run."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            kernels = psutil.Process(process.pid).children(recursive=True)
            for kernel in kernels:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernel.send_signal(signal.SIGINT)
            if not kernels:
                process.terminate()
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()


def _execute(job, show_epoch, force):
    """Run a job's notebook, unless another batch is running it or, without `force`, has finished it meanwhile."""
    try:
        with FolderLock(job.folder, f".{job.notebook.stem}.lock"):
            if not force and _has_finished(job):
                job.status = "skipped"
            else:
                _run_notebook(job, show_epoch)
    except LockedError as error:
        job.status, job.error = "locked", f"{error} It runs this notebook there."
    except OSError as error:
        job.status, job.error = "failed", f"{job.folder} cannot be used ({error.strerror or error})"


def _run_notebook(job, show_epoch):
    """The notebook is moved to its place when the run has ended well."""
    job.status = "running"
    parameters = job.folder / f"unfinished.{job.notebook.stem}.yaml"
    log = job.folder / f"{job.notebook.stem}.log"
    # One backend a process; a headless kernel must not believe that a person is watching.
    environment = {name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"}
    environment["KERAS_BACKEND"] = job.backend
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        job.output.unlink(missing_ok=True)
        job.before = job.metrics().get("started", "")
        parameters.write_text(yaml.safe_dump(job.parameters, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "papermill", str(job.notebook), str(job.unfinished), "-f", str(parameters)]
        command += ["-k", "python3", "--no-progress-bar", "--no-log-output"]
        with log.open("wb") as output:
            # In a session of its own, since the terminal would send Ctrl-C to papermill, too, which kills the kernel.
            job.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            while job.process.poll() is None:
                try:
                    job.process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    show_epoch(job.metrics().get("results", {}).get("epoch", 0))
        if job.process.returncode == 0:
            os.replace(job.unfinished, job.output)
            log.unlink()
            job.status = "finished"
        else:
            job.status, job.error = "failed", f"{_last_line(log)} (see {log})"
            if "DeadKernelError" in job.error:  # Linux ends a process that wants more memory than there is
                job.error += f". If memory was short, try batch_size {max(1, job.recipe.batch_size // 2)}"
            _correct_status(job)
    finally:
        parameters.unlink(missing_ok=True)


def _correct_status(job):
    """A process that was killed could not write how its run ended."""
    metrics = job.metrics()
    if metrics.get("status") == "running" and not is_locked(job.folder):  # then it is the record of another, live run
        metrics["status"] = "interrupted" if job.process.returncode < 0 else "failed"
        write_text(job.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def _last_line(log):
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "the process ended without a message"
