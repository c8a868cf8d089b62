"""Runs notebooks, each in a process and a folder of its own."""

import contextlib
import dataclasses
import importlib.util
import itertools
import re
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alexnet.packages import install
from alexnet.recipe import BACKENDS, Recipe, is_url, nearest
from alexnet.studies.engines import check_engine, open_engine
from alexnet.studies.errors import BatchError, MirrorError
from alexnet.studies.mirror import Mirror, check_url
from alexnet.studies.report import write_report
from alexnet.studies.tasks import PATIENCE, Result, RunFiles, Task, run_task


@dataclass
class Job(RunFiles):
    """A task, and what is known of it here.

    `status` goes from `"waiting"` to `"finished"`, `"skipped"` (it had finished before), `"failed"`, or `"locked"`:
    another process is running it, and nothing was changed.
    """

    label: str = ""
    epochs: int = 1
    status: str = "waiting"
    error: str = ""

    @property
    def backend(self) -> str:
        return self.task.backend


def run_batch(
    notebooks: Sequence[str],
    values: Mapping[str, Any],
    backends: Sequence[str] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    jobs: int | None = None,
    force: bool = False,
    engine: str = "local",
    address: str | None = None,
) -> int:
    """Run every notebook on every backend with every combination of the grid, then write the report.

    Args:
        notebooks: Paths of notebooks with a cell tagged `parameters`.
        values: Parameters by name, for all runs. `run_dir` may be a URL for fsspec.
        backends: Names of backends; None for all three.
        grid: A list of values for each name; every combination is run, under a name that says which.
        jobs: How many runs at a time on this machine; None for one.
        force: Run what has finished before, too.
        engine: Where they run: `local`, `dask` or `ray`.
        address: Of the scheduler of Dask or Ray; None for a cluster of its own on this machine.

    Returns:
        The exit status: 0 when every run finished, now or before, and 1 when one failed.

    Raises:
        BatchError, RecipeError: an unknown notebook, parameter, backend or engine, a scheduler that does not answer, or
            a URL that cannot be used, before anything is run.
        MirrorError: the results cannot be copied from the URL, or the report to it.
    """
    check_engine(engine, address, jobs)
    # A file of parameters may name the backend; a list on the command line goes before it.
    backends = list(dict.fromkeys(backends or filter(None, [values.get("backend")]))) or list(BACKENDS)
    _check_backends(backends, here=address is None)
    with contextlib.ExitStack() as stack:
        url = str(values.get("run_dir", ""))
        if is_url(url):  # what the report needs is copied here
            room = stack.enter_context(tempfile.TemporaryDirectory(prefix="alexnet-"))
            values = {**values, "run_dir": room}
        batch = _plan(notebooks, values, backends, grid or {}, is_url(url) and url)
        if is_url(url):
            check_url(url, engine)
            try:
                _fetch(batch, url, room)
            except MirrorError as error:
                raise BatchError(str(error)) from None
        for job in batch:
            if not force and job.has_finished():
                job.status = "skipped"
        console = Console(stderr=True)
        if not console.is_terminal:
            console.width = 150  # a log file has room for the whole table
        waiting = [job for job in batch if job.status == "waiting"]
        name = secrets.token_hex(8)
        for job in waiting:
            job.task = dataclasses.replace(job.task, batch=name, engine=engine, force=force)
        if waiting:
            _run_all(waiting, jobs, engine, address, console)
        folder = Recipe(**{name: values[name] for name in ("name", "run_dir") if name in values})
        report = folder.run_folder.with_name(f"{folder.name}.html")
        if is_url(url):
            mirror = _fetch(batch, url, room)
            write_report(report, batch, console)
            mirror.put("")
            print(f"{url.rstrip('/')}/{report.name}")
        else:
            write_report(report, batch, console)
            print(report)
    return 1 if any(job.status in ("failed", "locked") for job in batch) else 0


def _fetch(batch, url, folder):
    """Copy from the URL what tells how each run has ended, and what the report shows."""
    mirror = Mirror(url, Path(folder))
    for job in batch:
        shutil.rmtree(job.folder, ignore_errors=True)
        names = ["metrics.json", "history.csv", "figures/filters.png", job.output.name, job.unfinished.name]
        mirror.fetch(job.task.place, names)
    return mirror


def _check_backends(backends, here):
    """`here`: whether the runs are on this machine, which then needs the backends."""
    for backend in backends:
        if backend not in BACKENDS:
            raise BatchError(
                f"--backends: received {backend!r}; allowed: {', '.join(BACKENDS)}.{nearest(backend, BACKENDS)}"
            )
        if here and importlib.util.find_spec(backend) is None:
            raise BatchError(f"--backends: {backend} is not installed here. {install(backend)}")


def _plan(notebooks, values, backends, grid, url=None):
    """Every job of the batch, all its parameters checked. `url` is where the runs are, if not in `run_dir`."""
    for name in grid:
        if name in ("backend", "run_dir", "name"):
            raise BatchError(f"--grid: {name} is not for the grid; every run has a folder of its own (see --backends).")
    batch, notebooks = [], [Path(notebook) for notebook in notebooks]
    for notebook in notebooks:
        known = parameter_names(notebook)
        source = notebook.read_text(encoding="utf-8")
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
                task = Task(
                    notebook=notebook.name,
                    source=source,
                    backend=backend,
                    parameters=parameters,
                    run_dir=url or recipe.run_dir,
                    place=f"{recipe.name}/{backend}",
                    recipe=recipe.model_dump(),
                    records=records,
                    reads=f"{name}/{backend}",
                )
                label = " ".join([notebook.stem, recipe.name, backend])
                job = Job(task, recipe.run_folder / backend, label=label, epochs=recipe.epochs)
                if any(job.output == other.output for other in batch):
                    raise BatchError(
                        f"Two runs would share the folder {job.folder}: the same value is twice in the grid."
                    )
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


def _run_all(batch, jobs, engine, address, console):
    """Run the jobs, and say of each how it ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        _terminable(),
        open_engine(engine, address, jobs) as (executor, stop),
        _terminable(),  # again: Ray has put its own way of ending in place
    ):
        overall = progress.add_task("all runs", total=len(batch), unit="runs")
        for job in batch:
            job.before = job.metrics().get("started", "")
        futures = {executor.submit(run_task, job.task): job for job in batch}
        bars = {}
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    job = futures[future]
                    _end(job, future)
                    if future in bars:
                        progress.remove_task(bars[future])
                    progress.advance(overall)
                    progress.console.print(
                        f"{job.status}: {job.label}" + (f": {job.error}" if job.error else ""),
                        highlight=False,
                        markup=False,
                    )
                if not progress.disable:
                    _show_epochs(progress, bars, {future: futures[future] for future in pending})
        except BaseException:
            stop(batch[0].task.batch)
            with contextlib.suppress(OSError):  # the terminal may be the cause
                progress.console.print("Stopping: each run saves its state first.")
            wait([future for future in pending if not future.done()], timeout=PATIENCE + 10)
            raise


def _end(job, future):
    """Take a job's result, whatever has become of its worker."""
    try:
        result = future.result()
    except Exception as error:  # of Dask or Ray: workers were lost again and again, or have no alexnet
        said = next(iter(str(error).strip().splitlines()), "")
        result = Result("failed", f"{type(error).__name__}: {said}" if said else type(error).__name__)
    job.status, job.error, job.before = result.status, result.error, result.before
    url = is_url(job.task.run_dir)
    if job.status in ("finished", "skipped") and not url and not job.output.is_file():
        job.status = "failed"
        job.error = f"it has finished, but {job.output} is not on this machine: run_dir must be a folder that all "
        job.error += "workers and this machine share, or a URL"


def _show_epochs(progress, bars, pending):
    """A bar for each run that is being made. Dask and Ray do not say which: their runs are seen by their metrics."""
    for future, job in pending.items():
        metrics = job.metrics()
        if future not in bars and (future.running() or metrics.get("status") == "running"):
            bars[future] = progress.add_task(job.label, total=job.epochs, unit="epochs")
        if future in bars:
            progress.update(bars[future], completed=metrics.get("results", {}).get("epoch", 0))


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
