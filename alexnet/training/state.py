"""The state of a run in training, and its checkpoints on disk, written atomically. The last two are kept."""

import contextlib
import errno
import json
import logging
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from alexnet._compat import sync_variables
from alexnet.atomic import atomic_write, remove_unfinished
from alexnet.data.dataset import ImageDataset
from alexnet.recipe import NON_MODEL_FIELDS, Recipe
from alexnet.training.stopping import LossError, RunError
from alexnet.training.system_info import computed_by, versions

logger = logging.getLogger(__name__)

MAX_TO_KEEP = 2


class TrainState:
    """The state of a run: everything that the rest of it depends on, except the data, whose order follows from the
    seed.

    These are weights, momentum, learning rate, the states of dropout, metrics and schedule, the history, and the step.

    Args:
        run: `Run`.
        training_model: The model that is fitted, from `compile_model`.
        schedule: `ReduceLROnPlateau`.
        data: As `dataset_fingerprint` returns it.
        distribution: `Distribution`.

    Attributes:
        epoch, step: Epochs that are finished, and steps made in the current one.
        bad_step: Number, in the whole run, of the step whose loss was NaN or infinite; None while there is none.
        saved: The `(epoch, step)` that was saved last, or None.
        epoch_began: `time.perf_counter()` when the current epoch began, or None.
        earlier_seconds: Seconds of the current epoch before the run was interrupted.
        training_seconds: Seconds of the current epoch once all its steps are made.
    """

    def __init__(self, run, training_model, schedule, data, distribution):
        self.run = run
        self.training_model = training_model
        self.schedule = schedule
        self.data = data
        self.distribution = distribution
        self.epoch, self.step, self.saved, self.bad_step = 0, 0, None, None
        self.epoch_began, self.earlier_seconds, self.training_seconds = None, 0.0, None
        self._metrics = None

    @property
    def global_step(self) -> int:
        """Steps made in the whole run."""
        return self.epoch * self.run.training.steps_per_epoch + self.step

    def elapsed(self) -> float:
        """Seconds of the current epoch so far, before and after an interruption."""
        return self.earlier_seconds + (0 if self.epoch_began is None else time.perf_counter() - self.epoch_began)

    def end_epoch(self, results: dict[str, float]) -> None:
        """An epoch has ended: its row of the history, a dictionary of the names in `HISTORY_FIELDS`."""
        self.run.history.append(results)
        self.epoch, self.step = self.epoch + 1, 0
        self.epoch_began, self.earlier_seconds, self.training_seconds = None, 0.0, None

    def progress(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.elapsed(),
            "training_seconds": self.training_seconds,
            "versions": versions(),
            "computed_by": computed_by(self.distribution.processes),
            "history": self.run.history,
            "schedule": self.schedule.state,
            "data": self.data,
            "colors": self.run.training.pixel_stats.to_json(),
            "skipped": self.run.training.skipped.reasons,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The values of all variables by name, NumPy; of metrics those of all processes together.

        Raises:
            LossError: some are NaN or infinite.
            RunError: the processes' weights differ.
        """
        sync_variables(self.training_model)
        arrays = {name: ops.convert_to_numpy(ops.cast(v, v.dtype)) for name, v in self._variables().items()}
        self.distribution.check_replicas({name: array for name, array in arrays.items() if name[0] != "s"})
        metrics = [name for name in arrays if name[0] == "s"]
        merged = self.distribution.merge_metrics([arrays[name] for name in metrics])
        arrays.update(zip(metrics, merged, strict=True))
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise LossError(f"Weights became infinite or NaN by step {self.step} of epoch {self.epoch + 1}.")
        return arrays

    def restore(self, checkpoint: "Checkpoint") -> None:
        """Go on from a `Checkpoint`.

        Raises:
            RunError: it has other variables.
        """
        arrays, variables = checkpoint.arrays(), self._variables()
        if {name: array.shape for name, array in arrays.items()} != {n: tuple(v.shape) for n, v in variables.items()}:
            raise RunError(
                f"{checkpoint.path} is from a different version. Set resume to false to start from the beginning."
            )
        for name, variable in variables.items():
            variable.assign(arrays[name])
        # Keras resets its metrics when an epoch begins; those of a partial epoch are restored after that.
        saved = [arrays[f"s{i}"] for i in range(len(self.training_model.metrics_variables))]
        self._metrics = self.distribution.own_metrics(saved)
        progress = checkpoint.progress
        self.epoch, self.step, self.saved = progress["epoch"], progress["step"], (progress["epoch"], progress["step"])
        self.earlier_seconds, self.training_seconds = progress["seconds"], progress["training_seconds"]
        self.run.history = progress["history"]
        self.schedule.state = progress["schedule"]
        self.run.training.skipped.reasons.update(progress["skipped"])

    def restore_metrics(self) -> None:
        """Restore the metrics of the interrupted epoch, once."""
        if self._metrics is not None and self.step:
            for variable, value in zip(self.training_model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)
        self._metrics = None

    def restore_weights(self, checkpoint: "Checkpoint") -> None:
        """Restore only the weights of a `Checkpoint`."""
        arrays = checkpoint.arrays()
        for name, variable in self._variables().items():
            if name.startswith("m"):
                variable.assign(arrays[name])

    def _variables(self):
        # Names in the file: m, the model's variables (with dropout's random state); o, the optimizer's (with learning
        # rate and step); s, the metrics'.
        model = self.training_model
        groups = {"m": model.variables, "o": model.optimizer.variables, "s": model.metrics_variables}
        return {f"{group}{i}": variable for group, found in groups.items() for i, variable in enumerate(found)}


@dataclass
class Checkpoint:
    """A saved state.

    Attributes:
        path: The file.
        progress: Everything but the arrays, as JSON.
    """

    path: Path
    progress: dict[str, Any]

    @classmethod
    def read(cls, path: str | PathLike) -> "Checkpoint":
        """The state in a file that is known to be whole.

        Raises:
            RunError: this process does not find it.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                return cls(Path(path), json.loads(str(saved["progress"])))
        except FileNotFoundError:
            raise RunError(f"{path} is not here: all processes must see the same run_dir.") from None

    def arrays(self) -> dict[str, np.ndarray]:
        """The saved arrays by name."""
        with np.load(self.path, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files if name != "progress"}


class CheckpointManager:
    """The folder `checkpoints/` of a run. Earlier versions kept states in `saves/`; they are read and removed there,
    too.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | PathLike):
        self.folder = Path(folder) / "checkpoints"
        self._folders = (self.folder, Path(folder) / "saves")

    def write(self, step: int, progress: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Write a state atomically: if the process is killed, the earlier ones or this one are left, never half of it.

        Args:
            step: Its number in the whole run, for the file's name.
            progress: Anything that can be JSON.
            arrays: NumPy arrays by name.

        Raises:
            OSError: the disk is full, or the folder cannot be written. Earlier states stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)  # left by a killed process
        path = self.folder / f"step-{step:09d}.npz"
        with atomic_write(path, durable=True) as unfinished, unfinished.open("wb") as file:
            np.savez(file, progress=json.dumps(progress), **arrays)
        for old in [other for other in self._paths() if other != path][MAX_TO_KEEP - 1 :]:
            old.unlink(missing_ok=True)

    def newest(self, most: int | None = None) -> Checkpoint | None:
        """The newest `Checkpoint` that is whole, or None if there is no file at all. Damaged ones are logged.

        Args:
            most: The largest step to consider; None for any.

        Raises:
            RunError: there are files, and none can be used. They are not touched.
        """
        paths = [path for path in self._paths() if most is None or step_of(path) <= most]
        for path in paths:
            try:
                with np.load(path, allow_pickle=False) as saved:
                    if saved.zip.testzip() is None:
                        return Checkpoint(path, json.loads(str(saved["progress"])))
            except OSError as error:
                if error.errno not in (None, errno.EINVAL):  # not the file's fault: it may be whole
                    raise RunError(f"{path} cannot be read ({error.strerror}).") from None
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass
            logger.warning(f"{path} is damaged.")
        if paths:
            raise RunError(f"No state in {self.folder} is whole. Set resume to false to start from the beginning.")
        return None

    def clear(self) -> None:
        """Remove all states."""
        for path in self._paths():
            path.unlink(missing_ok=True)
        for folder in self._folders:
            remove_unfinished(folder)
            for path in folder.glob("step-*.tmp"):  # their name in `saves/`
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds other files, or does not exist
                folder.rmdir()

    def _paths(self):
        """Files of states, the latest first."""
        found = [path for folder in self._folders for path in folder.glob("step-*.npz")]
        return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in the name of a state's file."""
    return int(path.stem.partition("-")[2])


def find_resumable(recipe: Recipe, folder: Path, data: Mapping[str, Any], processes: int = 1) -> Checkpoint | None:
    """The `Checkpoint` from which a run resumes, or None if there is none.

    Args:
        recipe: The run to start.
        folder: The run's folder.
        data: The images, as `dataset_fingerprint` describes them.
        processes: How many processes train.

    Raises:
        RunError: an unfinished run with other parameters, or on other images.
    """
    params = folder / "params.yaml"
    if not recipe.resume or not params.is_file():
        return None
    checkpoint = CheckpointManager(folder).newest()
    if checkpoint is None:
        return None
    theirs, ours = Recipe.read_run(params).model_dump(), recipe.model_dump()
    if differences := [
        f"{name}: {theirs[name]} there, {ours[name]} here"
        for name in ours
        if name not in NON_MODEL_FIELDS and theirs[name] != ours[name]
    ]:
        raise RunError(
            f"{folder} holds an unfinished run with other parameters ({'; '.join(differences)}). "
            "Give this run a different name, or set resume to false to start from the beginning."
        )
    if differences := [
        f"{key}: {there} there, {data[key]} here" if len(str(there)) < 40 else f"{key} differ"
        for key, there in checkpoint.progress["data"].items()
        if there != data[key]
    ]:
        raise RunError(
            f"{folder} holds an unfinished run on other images, {recipe.data_dir} has changed "
            f"({'; '.join(differences)}). Give this run a different name, or set resume to false to start from the "
            "beginning."
        )
    there = {**checkpoint.progress["versions"], **checkpoint.progress.get("computed_by", {})}
    computed = computed_by(processes)
    here = {**versions(), **computed}
    known = [name for name in {**there, **here} if name in there or name not in computed]
    if changes := [
        f"{name.replace('_', ' ')} {there.get(name, 'absent')}, now {here.get(name, 'absent')}"
        for name in known
        if there.get(name) != here.get(name)
    ]:
        logger.warning(f"The run was started with {'; '.join(changes)}. It will not end with the same numbers.")
    return checkpoint


def dataset_fingerprint(training: ImageDataset, validation: ImageDataset) -> dict[str, Any]:
    """A description of a run's images that is equal for two runs on the same images."""
    return {
        "source": training.source.layout,
        "training_images": len(training),
        "validation_images": len(validation),
        "digest": training.source.digest()[:12] + validation.source.digest()[:12],
        "class_names": list(training.class_names),
    }
