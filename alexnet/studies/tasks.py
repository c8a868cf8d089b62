"""One run of a notebook: what is sent to a worker, and what the worker does. A worker is a thread or a process, here or
on another machine."""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import yaml

import alexnet
from alexnet.atomic import write_text
from alexnet.locking import FolderLock, LockedError, is_locked
from alexnet.recipe import NON_MODEL_FIELDS, is_url
from alexnet.studies.errors import MirrorError
from alexnet.studies.mirror import Mirror
from alexnet.watching import watch

PATIENCE = 60  # seconds that a run has to save its state
# Seconds to wait for a folder that is in use: when a worker was killed, another one gets its task, and what it had
# started takes a moment to be gone. In one process nothing of this kind happens.
_WAIT = {"local": 0, "dask": 30, "ray": 30}
# Dask and Ray set these to 1 in their workers, for computations in the worker itself.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_running: dict[subprocess.Popen, str] = {}  # of this process, with the batch of each
_stopped: dict[str, float] = {}  # batches that were told to stop, and when


@dataclass(frozen=True)
class Task:
    """One notebook with one set of parameters, for a worker. It holds plain values only.

    Attributes:
        notebook: The notebook's file name.
        source: The notebook itself, as JSON: a worker need not have the file.
        run_dir: A folder, or a URL for fsspec.
        place: The run's folder in it, `name/backend`.
        recipe: The parameters of the recipe, as `metrics.json` holds them.
        records: Whether the notebook trains, so that the metrics in its folder are its own.
        reads: The folder in `run_dir` with the run that it reads.
        batch: Which batch it belongs to; see `stop_batch`.
        force: Whether to run it though it has finished before.
        engine: Whose workers run it.
        version: Of this package, where the batch was started.
    """

    notebook: str
    source: str
    backend: str
    parameters: dict[str, Any]
    run_dir: str
    place: str
    recipe: dict[str, Any]
    records: bool = True
    reads: str = ""
    batch: str = ""
    force: bool = False
    engine: str = "local"
    version: str = alexnet.__version__


@dataclass(frozen=True)
class Result:
    """How a task ended: its `status` and `error` as a `Job` has them, and when the run began whose metrics lay in the
    folder before."""

    status: str
    error: str = ""
    before: str = ""


@dataclass
class RunFiles:
    """The files of a task's run, in a folder of this machine."""

    task: Task
    folder: Path
    before: str = ""  # when the run began whose metrics lay in the folder before

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return self.folder / self.task.notebook

    @property
    def unfinished(self) -> Path:
        """The notebook while it is executed, and what is left of it when the run has failed."""
        return self.folder / f"unfinished.{self.task.notebook}"

    @property
    def log(self) -> Path:
        """What papermill said, where the run has failed."""
        return self.output.with_suffix(".log")

    def metrics(self) -> dict[str, Any]:
        """The run's `metrics.json`, or nothing where the notebook records none."""
        if not self.task.records:
            return {}
        try:
            metrics = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {} if self.before and metrics.get("started") == self.before else metrics

    def has_finished(self) -> bool:
        """Whether the executed notebook lies there, made with the same parameters by a run that ended well."""
        metrics, recipe = self.metrics(), self.task.recipe
        if not self.output.is_file() or metrics.get("status", "finished") != "finished":
            return False
        # The folder may since have been used by a run with other parameters.
        made_with = {name: value for name, value in metrics.get("parameters", {}).items()}
        if any(recipe.get(name) != value for name, value in made_with.items() if name not in NON_MODEL_FIELDS):
            return False
        try:
            record = nbformat.read(self.output, as_version=4).metadata.get("papermill", {})
        except Exception:
            return False
        return self._comparable(record.get("parameters", {})) == self._comparable(self.task.parameters)

    def _comparable(self, parameters):
        """Of a run at a URL without the folder in which it was made."""
        own = "run_dir" if is_url(self.task.run_dir) else ""
        return {name: value for name, value in parameters.items() if name != own}


def run_task(task: Task) -> Result:
    """Run a task's notebook, unless another process is running it or, without `force`, has finished it meanwhile.

    Nothing is raised for a run that fails. `stop_batch` ends it, and so does KeyboardInterrupt in the main thread; its
    state is saved first. When this process is killed, so is the notebook.
    """
    if task.version != alexnet.__version__:
        return Result(
            "failed",
            f"the worker on {platform.node()} has alexnet {alexnet.__version__}, and the batch was started with "
            f"{task.version}: install the same version everywhere",
        )
    if task.batch in _stopped:
        return Result("failed", "stopped before it began")
    try:
        if is_url(task.run_dir):
            return _run_at_url(task)
        files = RunFiles(task, Path(task.run_dir) / task.place)
        with _lock(files) as lock:
            if not task.force and files.has_finished():
                return Result("skipped")
            return _run_notebook(files, task.parameters, lock.fileno())
    except LockedError as error:
        return Result("locked", f"{error} It runs this notebook there.")
    except MirrorError as error:
        return Result("failed", str(error))
    except OSError as error:
        return Result("failed", f"{Path(task.run_dir) / task.place} cannot be used ({error.strerror or error})")


def stop_batch(batch: str) -> None:
    """Tell a batch's runs in this process to save their states and end, and let none begin. It does not wait."""
    _stopped[batch] = time.monotonic()
    for process, of in list(_running.items()):
        if of == batch:
            _interrupt(process)


def _interrupt(process):
    """Ask a running notebook to end. Papermill would kill the kernel at once; the kernel itself saves its run."""
    with contextlib.suppress(psutil.NoSuchProcess):
        kernels = psutil.Process(process.pid).children(recursive=True)
        for kernel in kernels:
            with contextlib.suppress(psutil.NoSuchProcess):
                kernel.send_signal(signal.SIGINT)
        if not kernels:
            process.terminate()


@contextlib.contextmanager
def _lock(files):
    """The `FolderLock` of a run for one notebook."""
    end = time.monotonic() + _WAIT[files.task.engine]
    with contextlib.ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(FolderLock(files.folder, f".{files.output.stem}.lock"))
                break
            except LockedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        yield lock


def _run_at_url(task):
    """The run is made in a folder of this machine, from what lies at the URL, and put back whenever a state is saved
    and when it ends, well or badly."""
    room = Path(tempfile.mkdtemp(prefix="alexnet-"))
    kept = False
    try:
        mirror, files = Mirror(task.run_dir, room), RunFiles(task, room / task.place)
        places = list(dict.fromkeys([task.place, task.reads or task.place]))
        for place in places:
            mirror.fetch(place)
        if not task.force and files.has_finished():
            return Result("skipped")
        files.folder.mkdir(parents=True, exist_ok=True)
        saved = _states(files)

        def put():
            for place in places:
                mirror.put(place, last=["metrics.json", task.notebook])

        def put_states():
            nonlocal saved
            if (found := _states(files)) != saved:
                with contextlib.suppress(MirrorError):  # it is tried again at the end, where it is an error
                    put()
                    saved = found

        parameters = task.parameters | ({"run_dir": str(room)} if "run_dir" in task.parameters else {})
        result = _run_notebook(files, parameters, None, room, each_second=put_states)
        try:
            put()
        except MirrorError as error:
            kept = True
            return Result("failed", f"{error} The run is kept in {room} on {platform.node()}", result.before)
        if result.error:
            result = dataclasses.replace(result, error=result.error.replace(str(room), task.run_dir.rstrip("/")))
        return result
    finally:
        if not kept:
            shutil.rmtree(room, ignore_errors=True)


def _states(files):
    return sorted(path.name for path in (files.folder / "checkpoints").glob("*.npz"))


def _run_notebook(files, parameters, descriptor, *folders, each_second=None):
    """The notebook is moved to its place when the run has ended well."""
    task, written = files.task, files.folder / f"{files.unfinished.stem}.yaml"
    try:
        files.output.unlink(missing_ok=True)
        files.before = files.metrics().get("started", "")
        written.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
        files.unfinished.write_text(task.source, encoding="utf-8")
        status = _papermill(files, written, descriptor, folders, each_second)
        if status == 0:
            os.replace(files.unfinished, files.output)
            files.log.unlink()
            return Result("finished", "", files.before)
        error = f"{_last_line(files.log)} (see {files.log})"
        if "DeadKernelError" in error:  # Linux ends a process that wants more memory than there is
            error += f". If memory was short, try batch_size {max(1, task.recipe['batch_size'] // 2)}"
        _correct_status(files, status)
        return Result("failed", error, files.before)
    finally:
        written.unlink(missing_ok=True)


def _papermill(files, parameters, descriptor, folders, each_second):
    """Papermill's exit status."""
    batch = files.task.batch
    command = [sys.executable, "-m", "papermill", str(files.unfinished), str(files.unfinished), "-f", str(parameters)]
    command += ["-k", "python3", "--no-progress-bar", "--no-log-output"]
    keep = () if descriptor is None else (descriptor,)
    watcher = watch(*folders, keep=keep) if hasattr(os, "killpg") else contextlib.nullcontext(lambda line: None)
    with watcher as tell, files.log.open("wb") as output, _deliver_interrupts():
        # In a session of its own, since the terminal would send Ctrl-C to papermill, too, which kills the kernel.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(files.task),
            start_new_session=True,
        )
        tell(f"+{process.pid}")  # after an error below the watcher kills it
        _running[process] = batch
        if batch in _stopped:
            _interrupt(process)
        try:
            while process.poll() is None:
                try:
                    _wait(process, batch, each_second)
                except KeyboardInterrupt:
                    stop_batch(batch)
        finally:
            del _running[process]
        tell(f"-{process.pid}")
    return process.returncode


def _wait(process, batch, each_second):
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
        return
    if each_second:
        each_second()
    if batch in _stopped and time.monotonic() > _stopped[batch] + PATIENCE:
        process.terminate()


def _environment(task):
    """The variables for papermill: one backend a process, and the number of threads that a person has set."""
    environment = dict(os.environ)
    environment.pop("JPY_SESSION_NAME", None)  # a headless kernel must not believe that a person is watching
    if task.engine != "local":
        with contextlib.suppress(psutil.Error, AttributeError):
            given = psutil.Process().parent().environ()  # the process that started the worker, as a person started it
            for name in _THREADS:
                if name not in given:
                    environment.pop(name, None)
    environment["KERAS_BACKEND"] = task.backend
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return environment


@contextlib.contextmanager
def _deliver_interrupts():
    """Within it, processes are started that SIGINT reaches: Ray's workers may block it, and a process inherits that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _correct_status(files, status):
    """A process that was killed could not write how its run ended."""
    metrics = files.metrics()
    if metrics.get("status") == "running" and not is_locked(files.folder):  # then it is the record of another, live run
        metrics["status"] = "interrupted" if status < 0 else "failed"
        write_text(files.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def _last_line(log):
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "the process ended without a message"
