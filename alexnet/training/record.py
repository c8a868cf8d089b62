"""A run's folder, and what is written into it."""

import contextlib
import csv
import datetime
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import ops

from alexnet.locking import FolderLock, LockedError
from alexnet.recipe import NON_MODEL_FIELDS, Recipe
from alexnet.replacing import replace_csv, replace_text
from alexnet.runtime import without
from alexnet.training.saves import CheckpointManager
from alexnet.training.stopping import LossError, RunError
from alexnet.training.system_info import computed_by, hardware, peak_memory, versions

logger = logging.getLogger(__name__)

HISTORY_FIELDS = (
    "epoch",
    "loss",
    "top1",
    "top5",
    "val_loss",
    "val_top1",
    "val_top5",
    "learning_rate",
    "training_seconds",
    "seconds",
)


@dataclass
class Run:
    """A run and what is left of it.

    Attributes:
        folder: Where it is recorded, `run_dir/name/backend`.
        recipe: Its parameters.
        model: The network, from pixels to probabilities.
        history: A dictionary for each epoch, of the names in `HISTORY`.
        metrics: The content of `metrics.json`.
        training, validation: The images.
    """

    folder: Path
    recipe: Recipe
    model: keras.Model = None
    history: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    training: object = None
    validation: object = None

    @property
    def class_names(self):
        return self.validation.class_names

    def save_figure(self, figure, name):
        """Keep a figure as `figures/<name>.png` in the run's folder and return it, to be shown."""
        (self.folder / "figures").mkdir(exist_ok=True)
        figure.savefig(self.folder / "figures" / f"{name}.png")
        return figure


def read_history(folder):
    """The `history.csv` of a run's folder: a dictionary for each epoch, of the names in `HISTORY`."""
    with (Path(folder) / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


@contextlib.contextmanager
def only_run(folder):
    """Within it no other run writes into the folder; gives the lock.

    Raises:
        RunError: another one does now, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(FolderLock(folder))
        except LockedError as error:
            raise RunError(f"{error} Wait for the end of that run, or give this one another name.") from None
        except OSError as error:
            raise RunError(_unwritable(folder, error)) from None
        yield lock


def _unwritable(folder, error):
    return f"The run cannot be written to {folder} ({error.strerror or error})."


def find_resumable(recipe, folder, data):
    """The `Checkpoint` from which a run goes on, or None where there is nothing to go on with.

    Args:
        recipe: What is to be run.
        folder: The run's folder.
        data: What is known of the images, as `describe` returns it.

    Raises:
        RunError: an unfinished run with other parameters, or on other images.
    """
    params = folder / "params.yaml"
    if not recipe.resume or not params.is_file():
        return None
    save = CheckpointManager(folder).newest()
    if save is None:
        return None
    theirs, ours = Recipe.read_run(params).model_dump(), recipe.model_dump()
    if differences := [
        f"{name}: {theirs[name]} there, {ours[name]} here"
        for name in ours
        if name not in NON_MODEL_FIELDS and theirs[name] != ours[name]
    ]:
        raise RunError(
            f"{folder} holds an unfinished run with other parameters ({'; '.join(differences)}). "
            "Give this run another name, or set resume to false to begin afresh."
        )
    if differences := [
        f"{key}: {there} there, {data[key]} here" if len(str(there)) < 40 else f"{key} differ"
        for key, there in save.progress["data"].items()
        if there != data[key]
    ]:
        raise RunError(
            f"{folder} holds an unfinished run on other images, {recipe.data_dir} has changed "
            f"({'; '.join(differences)}). Give this run another name, or set resume to false to begin afresh."
        )
    there = {**save.progress["versions"], **save.progress.get("computed_by", {})}
    here = {**versions(), **computed_by()}
    known = [name for name in {**there, **here} if name in there or name not in computed_by()]
    if changes := [
        f"{name.replace('_', ' ')} {there.get(name, 'absent')}, now {here.get(name, 'absent')}"
        for name in known
        if there.get(name) != here.get(name)
    ]:
        logger.warning(f"The run was begun with {'; '.join(changes)}. It will not end with the same numbers.")
    return save


def dataset_fingerprint(training, validation):
    """What a run says of its images; two runs on the same ones say the same."""
    return {
        "source": training.source.layout,
        "training_images": len(training),
        "validation_images": len(validation),
        "digest": training.source.digest()[:12] + validation.source.digest()[:12],
        "class_names": list(training.class_names),
    }


class Record:
    """Writes a run's folder. Files are replaced whole, so that none is ever half-written.

    Args:
        run: `Run`.
        trainee: The compiled model.
        schedule: `DivideOnPlateau`, whose state is saved too.
        data: As `describe` returns it.
        lock: The folder's, a `FolderLock`.

    Attributes:
        epoch, step: Where the run stands: whole epochs, and steps of the one after them.
        saved: The `(epoch, step)` that was saved last, or None.
    """

    def __init__(self, run, trainee, schedule, data, lock):
        self.lock = lock
        self.run = run
        self.trainee = trainee
        self.schedule = schedule
        self.data = data
        self.saves = CheckpointManager(run.folder)
        self.epoch, self.step, self.saved = 0, 0, None
        self.metrics_state = None
        self.epoch_began = None
        self.earlier_seconds = 0.0  # of the epoch under way, before the run was interrupted
        self.training_seconds = None  # of the epoch under way, once all its steps are made
        self.last_save = time.monotonic()

    @property
    def number(self):
        """Steps made in the whole run."""
        return self.epoch * self.run.training.steps_per_epoch + self.step

    def elapsed(self):
        """Seconds that the epoch under way has taken so far, before an interruption and after."""
        return self.earlier_seconds + (0 if self.epoch_began is None else time.perf_counter() - self.epoch_began)

    def open(self, save=None):
        """Begin a run in its folder, or go on from a `Checkpoint`.

        Raises:
            RunError: the folder cannot be written.
        """
        run = self.run
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            if save is None:
                self._clear()
            else:
                self._restore(save)
            replace_text(run.folder / "params.yaml", run.recipe.to_yaml())
            self._begin()
        except OSError as error:
            raise RunError(_unwritable(run.folder, error)) from None

    def _begin(self):
        run = self.run
        self.began = time.perf_counter()
        self.seconds_before = sum(epoch["seconds"] for epoch in run.history) + self.earlier_seconds
        run.metrics = {
            "status": "running",
            "name": run.recipe.name,
            "backend": keras.backend.backend(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "parameters": run.recipe.model_dump(),
            "results": {},
            "times": {},
            "data": self.data | run.training.summary.to_json(),
            "model": {"name": run.model.name, "weights": run.model.count_params()},
            "versions": versions(),
            "hardware": hardware(),
        }
        run.training.summary.write(run.folder / "passed_over.csv")
        self.write()

    def add_epoch(self, values):
        """An epoch has ended: its row of the history, a dictionary of the names in `HISTORY_FIELDS`."""
        self.run.history.append({name: values[name] for name in HISTORY_FIELDS})
        self.epoch, self.step = self.epoch + 1, 0
        self.epoch_began, self.earlier_seconds, self.training_seconds = None, 0.0, None
        try:
            self.write()
        except OSError as error:
            logger.warning(f"The results could not be written ({error.strerror or error}).")

    def write(self):
        """Bring `metrics.json`, `history.csv` and `skipped.csv` up to date."""
        self._keep_lock()
        run = self.run
        if run.history:
            last = run.history[-1]
            run.metrics["results"] = {
                name: last[name] for name in HISTORY_FIELDS[: HISTORY_FIELDS.index("learning_rate")]
            }
            run.metrics["times"] = self._times()
            rows = ([f"{epoch[name]:.6g}" if name in epoch else "" for name in HISTORY_FIELDS] for epoch in run.history)
            replace_csv(run.folder / "history.csv", HISTORY_FIELDS, rows)
        run.metrics["peak_memory_bytes"] = peak_memory()
        run.metrics["skipped_images"] = len(run.training.skipped)
        run.training.skipped.write(run.folder / "skipped.csv")
        replace_text(run.folder / "metrics.json", json.dumps(run.metrics, indent=2) + "\n")

    def _times(self):
        seconds = [epoch["seconds"] for epoch in self.run.history]
        training = [epoch["training_seconds"] for epoch in self.run.history]
        later = seconds[1:] or seconds  # the first epoch compiles
        images = self.run.training.steps_per_epoch * self.run.recipe.batch_size
        return {
            "seconds": self.seconds_before + time.perf_counter() - self.began,
            "first_epoch_seconds": seconds[0],
            "median_epoch_seconds": float(np.median(later)),
            "images_per_second": images / float(np.median(training[1:] or training)),  # without validation
        }

    def save(self):
        """Everything that the rest of the run depends on, but for the data, whose order follows from the seed.

        Weights, momentum, learning rate, the states of dropout, metrics and schedule, the history, and where the run
        stands. A disk that cannot take it does not end the run: the earlier states stay, and the next save tries again.

        Raises:
            LossError: weights that are no finite numbers. Earlier states stay.
        """
        if hasattr(self.trainee, "jax_state_sync") and getattr(self.trainee, "_jax_state", None) is not None:
            self.trainee.jax_state_sync()  # JAX's variables are brought up to date at the end of an epoch only
        progress = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.elapsed(),
            "training_seconds": self.training_seconds,
            "versions": versions(),
            "computed_by": computed_by(),
            "history": self.run.history,
            "schedule": self.schedule.state,
            "data": self.data,
            "colors": self.run.training.pixel_stats.to_json(),
            "skipped": self.run.training.skipped.reasons,
        }
        arrays = {name: ops.convert_to_numpy(ops.cast(v, v.dtype)) for name, v in self._variables().items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise LossError(f"Weights became infinite or NaN by step {self.step} of epoch {self.epoch + 1}.")
        try:
            self._keep_lock()
            self.saves.write(self.number, progress, arrays)
            self.saved = (self.epoch, self.step)
            self.write()
        except OSError as error:
            logger.warning(f"The state could not be saved ({error.strerror or error}).")
        self.last_save = time.monotonic()

    def _keep_lock(self):
        try:
            self.lock.keep()
        except LockedError as error:
            raise RunError(f"{error} The folder of this run was removed, and another run has begun there.") from None

    def _variables(self):
        # The model's hold the random state of dropout too, the optimizer's the learning rate and the step.
        groups = {"m": self.trainee.variables, "o": self.trainee.optimizer.variables}
        groups["s"] = self.trainee.metrics_variables
        return {f"{group}{i}": variable for group, found in groups.items() for i, variable in enumerate(found)}

    def _restore(self, save):
        arrays, variables = save.arrays(), self._variables()
        if {name: array.shape for name, array in arrays.items()} != {n: tuple(v.shape) for n, v in variables.items()}:
            raise RunError(f"{save.path} is of another version. Set resume to false to begin afresh.")
        for name, variable in variables.items():
            variable.assign(arrays[name])
        # Keras sets its metrics to zero when an epoch begins; those of half an epoch are put back after that.
        self.metrics_state = [arrays[f"s{i}"] for i in range(len(self.trainee.metrics_variables))]
        progress = save.progress
        self.epoch, self.step, self.saved = progress["epoch"], progress["step"], (progress["epoch"], progress["step"])
        self.earlier_seconds, self.training_seconds = progress["seconds"], progress["training_seconds"]
        self.run.history = progress["history"]
        self.schedule.state = progress["schedule"]
        self.run.training.skipped.reasons.update(progress["skipped"])

    def restore_metrics(self):
        """Put the metrics of the interrupted epoch back; once."""
        if self.metrics_state is not None and self.step:
            for variable, value in zip(self.trainee.metrics_variables, self.metrics_state, strict=True):
                variable.assign(value)
        self.metrics_state = None

    def keep_last_good(self):
        """The weights of the last state that led to a finite loss as `last_good.keras`.

        Returns:
            Its path, or None where no such state was saved.
        """
        # The loss of this step was wrong, so the weights after the one before may be wrong already.
        save = self.saves.newest(most=self.number - 2)
        if save is None:
            return None
        arrays = save.arrays()
        for name, variable in self._variables().items():
            if name.startswith("m"):
                variable.assign(arrays[name])
        return self._save_model("last_good.keras")

    def _save_model(self, name):
        unfinished = self.run.folder / "unfinished.keras"
        frozen = [layer for layer in self.run.model.layers if not layer.trainable]
        for layer in frozen:
            layer.trainable = True  # whoever loads it decides for himself what to freeze
        try:
            with without("tensorflow"):
                self.run.model.save(unfinished)
            os.replace(unfinished, self.run.folder / name)
        finally:
            unfinished.unlink(missing_ok=True)
        return self.run.folder / name

    def close(self):
        """The run is finished.

        Raises:
            RunError: its model cannot be written. The saved states stay.
        """
        try:
            self._save_model("model.keras")
            self.run.metrics["status"] = "finished"
            self.write()
        except OSError as error:
            raise RunError(
                f"The trained model cannot be written to {self.run.folder} ({error.strerror or error}). Make room and "
                "start the run again: it goes on from its last saved state."
            ) from None
        self.saves.clear()

    def abandon(self, error):
        """The run ends early."""
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        self.run.metrics["status"] = "interrupted" if interrupted else "failed"
        self.run.metrics["error"] = None if interrupted else f"{type(error).__name__}: {error}"
        try:
            self.write()
        except OSError as problem:  # the disk may be what failed; the error itself is on its way up
            logger.warning(f"{self.run.folder} cannot be written ({problem.strerror or problem}).")
        except RunError:  # the folder is another run's now, and this is that error
            pass

    def _clear(self):
        folder = self.run.folder
        names = ("metrics.json", "history.csv", "model.keras", "last_good.keras", "unfinished.keras", "skipped.csv")
        names += ("passed_over.csv",)
        for name in names:
            (folder / name).unlink(missing_ok=True)
        self.saves.clear()
        shutil.rmtree(folder / "figures", ignore_errors=True)
