"""A run's folder, and what is written into it."""

import contextlib
import csv
import datetime
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from alexnet.atomic import atomic_write, remove_unfinished, write_csv, write_text
from alexnet.locking import FolderLock, LockedError
from alexnet.recipe import Recipe
from alexnet.runtime import without
from alexnet.training.model_card import model_card
from alexnet.training.state import Checkpoint, CheckpointManager, TrainState
from alexnet.training.stopping import RunError
from alexnet.training.system_info import hardware, peak_memory, versions

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
    """A run and its record.

    Attributes:
        folder: Where it is recorded, `run_dir/name/backend`.
        recipe: Its parameters.
        model: The network, from pixels to probabilities.
        history: A dictionary for each epoch, with the names in `HISTORY_FIELDS`.
        metrics: The content of `metrics.json`.
        training, validation: The images.
        is_chief: Whether this process writes the record; of several processes that train together, one does.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, run_dir=folder, width=1 / 16, epochs=1, validation_split=0.2)
        >>> run = alexnet.train(recipe, verbose=0)
        >>> run.class_names, run.model.output.shape
        (['cross', 'ring', 'triangle'], (None, 3))
    """

    folder: Path
    recipe: Recipe
    model: keras.Model | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    training: Any = None
    validation: Any = None
    is_chief: bool = True

    @property
    def class_names(self) -> list[str]:
        return self.validation.class_names

    def save_figure(self, figure: Any, name: str) -> Any:
        """Keep a figure of matplotlib as `figures/<name>.png` in the run's folder and return it, to be shown.

        Its description, `figure.alt`, is in the file as the PNG's own.
        """
        (self.folder / "figures").mkdir(exist_ok=True)
        described = {"Description": figure.alt} if hasattr(figure, "alt") else None
        figure.savefig(self.folder / "figures" / f"{name}.png", dpi=2 * figure.dpi, metadata=described)
        return figure


def read_history(folder: str | PathLike) -> list[dict[str, float]]:
    """The `history.csv` of a run's folder: a dictionary for each epoch, with the names in `HISTORY_FIELDS`.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, run_dir=folder, width=1 / 16, epochs=1, validation_split=0.2)
        >>> len(alexnet.read_history(alexnet.load_or_train(recipe, verbose=0)))
        1
    """
    with (Path(folder) / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[FolderLock]:
    """A context in which no other run writes into the folder; yields the lock.

    Raises:
        RunError: another run is writing now, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(FolderLock(folder))
        except LockedError as error:
            raise RunError(f"{error} Wait for the end of that run, or give this one a different name.") from None
        except OSError as error:
            raise RunError(_unwritable(folder, error)) from None
        yield lock


def _unwritable(folder, error):
    return f"The run cannot be written to {folder} ({error.strerror or error})."


class RunDir:
    """A run's folder and the files in it. They are written atomically, so none is ever half-written.

    Of several processes only the chief writes; each calls the same methods.

    Args:
        run: `Run`.
        state: `TrainState`, which is saved there.
        lock: The folder's, a `FolderLock`; None in processes that do not write.

    Attributes:
        checkpoints: `CheckpointManager`.
        last_save: `time.monotonic()` of the last save, successful or not.
    """

    def __init__(self, run: Run, state: TrainState, lock: FolderLock | None):
        self.run = run
        self.state = state
        self.lock = lock
        self.folder = run.folder
        self.checkpoints = CheckpointManager(run.folder)
        self.last_save = time.monotonic()

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Start a run in its folder, or resume it from a `Checkpoint`.

        Raises:
            RunError: the folder cannot be written, or the state is from a different version.
        """
        writes = self.lock is not None
        try:
            if writes:
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_unfinished(self.folder)
            if checkpoint is not None:
                self.state.restore(checkpoint)
            elif writes:
                self._clear()
            self._describe()
            if writes:
                write_text(self.folder / "params.yaml", self.run.recipe.to_yaml())
                self.run.training.summary.write(self.folder / "passed_over.csv")
            self.write()
        except OSError as error:
            raise RunError(_unwritable(self.folder, error)) from None

    def _describe(self):
        run = self.run
        self._began = time.perf_counter()
        self._seconds_before = sum(epoch["seconds"] for epoch in run.history) + self.state.earlier_seconds
        run.metrics = {
            "status": "running",
            "name": run.recipe.name,
            "backend": keras.backend.backend(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "parameters": run.recipe.model_dump(),
            "results": {},
            "times": {},
            "data": self.state.data | run.training.summary.to_json(),
            "model": {"name": run.model.name, "weights": run.model.count_params()},
            "versions": versions(),
            "hardware": hardware(),
            "distribution": self.state.distribution.describe(),
        }

    def write(self) -> None:
        """Bring `metrics.json`, `history.csv` and `skipped.csv` up to date."""
        run = self.run
        if run.history:
            last = run.history[-1]
            run.metrics["results"] = {
                name: last[name] for name in HISTORY_FIELDS[: HISTORY_FIELDS.index("learning_rate")]
            }
            run.metrics["times"] = self._times()
        run.metrics["peak_memory_bytes"] = peak_memory()
        run.metrics["skipped_images"] = len(run.training.skipped)
        if self.lock is None:
            return
        self._keep_lock()
        if run.history:
            rows = ([f"{epoch[name]:.6g}" if name in epoch else "" for name in HISTORY_FIELDS] for epoch in run.history)
            write_csv(self.folder / "history.csv", HISTORY_FIELDS, rows)
        run.training.skipped.write(self.folder / "skipped.csv")
        write_text(self.folder / "metrics.json", json.dumps(run.metrics, indent=2) + "\n")

    def end_epoch(self, values: Mapping[str, float]) -> None:
        """An epoch has ended, with values of the names in `HISTORY_FIELDS`. A full disk does not end the run."""
        self.state.end_epoch({name: values[name] for name in HISTORY_FIELDS})
        skipped = self.run.training.skipped.reasons
        for of_process in self.state.distribution.gather(skipped):  # each knows those of its share
            skipped.update(of_process)
        try:
            self.write()
        except OSError as error:
            logger.warning(f"The results could not be written ({error.strerror or error}).")

    def _times(self):
        seconds = [epoch["seconds"] for epoch in self.run.history]
        training = [epoch["training_seconds"] for epoch in self.run.history]
        later = seconds[1:] or seconds  # the first epoch compiles
        images = self.run.training.steps_per_epoch * self.run.recipe.batch_size
        return {
            "seconds": self._seconds_before + time.perf_counter() - self._began,
            "first_epoch_seconds": seconds[0],
            "median_epoch_seconds": float(np.median(later)),
            "images_per_second": images / float(np.median(training[1:] or training)),  # without validation
        }

    def save(self) -> None:
        """Save the state. A full disk does not end the run: the earlier states stay, and the next save tries again.

        Raises:
            LossError: weights are NaN or infinite. Earlier states stay.
        """
        state = self.state
        arrays = state.arrays()
        try:
            if self.lock is not None:
                self._keep_lock()
                self.checkpoints.write(state.global_step, state.progress(), arrays)
            state.saved = (state.epoch, state.step)
            self.write()
        except OSError as error:
            logger.warning(f"The state could not be saved ({error.strerror or error}).")
        self.last_save = time.monotonic()

    def _keep_lock(self):
        try:
            self.lock.keep()
        except LockedError as error:
            raise RunError(f"{error} The folder of this run was removed, and another run has started there.") from None

    def keep_last_good(self) -> Path | None:
        """The weights of the last state that led to a finite loss as `last_good.keras`.

        Returns:
            Its path, or None where no such state was saved.
        """
        # A step's loss comes from the weights after the previous step, so those may already be bad.
        bad = self.state.global_step if self.state.bad_step is None else self.state.bad_step
        checkpoint = self.checkpoints.newest(most=bad - 2)
        if checkpoint is None or self.lock is None:
            return None
        self.state.restore_weights(checkpoint)
        return self._save_model("last_good.keras")

    def _save_model(self, name):
        frozen = [layer for layer in self.run.model.layers if not layer.trainable]
        for layer in frozen:
            layer.trainable = True  # the freezing belongs to this run, not to the saved model
        with atomic_write(self.folder / name) as unfinished, without("tensorflow"), self.state.distribution.paused():
            self.run.model.save(unfinished)
        return self.folder / name

    def finish(self) -> None:
        """The run is finished.

        Raises:
            RunError: its model cannot be written. The saved states stay.
        """
        self.run.metrics["status"] = "finished"
        if self.lock is None:
            self.write()
            return
        try:
            self._save_model("model.keras")
            self.write()
            write_text(self.folder / "README.md", model_card(self.run.metrics, self.run.history))
        except OSError as error:
            raise RunError(
                f"The trained model cannot be written to {self.folder} ({error.strerror or error}). Make room and "
                "start the run again: it resumes from its last saved state."
            ) from None
        self.checkpoints.clear()

    def fail(self, error: BaseException) -> None:
        """The run ends early."""
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        self.run.metrics["status"] = "interrupted" if interrupted else "failed"
        self.run.metrics["error"] = None if interrupted else f"{type(error).__name__}: {error}"
        try:
            self.write()
        except OSError as problem:  # the disk may be the cause; the original error is raised anyway
            logger.warning(f"{self.folder} cannot be written ({problem.strerror or problem}).")
        except RunError:  # the folder belongs to another run now, which is the error being handled
            pass

    def _clear(self):
        names = ("metrics.json", "history.csv", "model.keras", "last_good.keras", "skipped.csv", "passed_over.csv")
        names += ("README.md",)
        names += ("unfinished.keras",)  # a killed run of an earlier version may have left this
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        self.checkpoints.clear()
        shutil.rmtree(self.folder / "figures", ignore_errors=True)
