"""`train(recipe)`: from a recipe to a trained network and a folder with everything about how it came to be."""

import contextlib
import csv
import datetime
import importlib.metadata
import json
import math
import os
import platform
import random
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import psutil
from keras import ops

from alexnet.backend import without_tensorflow
from alexnet.data import load_data
from alexnet.evaluation import evaluate
from alexnet.model import AlexNet, logits_model
from alexnet.presets import LAYERS
from alexnet.progress import someone_watches
from alexnet.recipe import FREE, Recipe, RecipeError, resolve

HISTORY = (
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
LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "grain", "pillow")


class RunError(RuntimeError):
    """A run that cannot begin or cannot go on, in one sentence."""


@keras.saving.register_keras_serializable(package="alexnet")
class SGD(keras.optimizers.SGD):
    """Gradient descent with the paper's momentum and weight decay (section 5).

        v <- momentum * v - learning_rate * (gradient + decay * w)
        w <- w + v

    The decay is inside the momentum, an L2 penalty of `decay / 2`; Keras's own `weight_decay` is another rule. Only
    kernels decay.

    Args:
        learning_rate: Step size, > 0.
        momentum: Share of the last step that is kept, in [0, 1).
        decay: Weight decay, >= 0.
    """

    def __init__(self, learning_rate=0.01, momentum=0.9, decay=0.0005, name="sgd", **kwargs):
        super().__init__(learning_rate, momentum, name=name, **kwargs)
        self.decay = decay

    def update_step(self, gradient, variable, learning_rate):
        if self.decay and len(variable.shape) > 1:  # biases have one axis
            gradient = ops.cast(gradient, variable.dtype) + self.decay * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}


class DivideOnPlateau(keras.callbacks.Callback):
    """The paper's schedule: the learning rate is divided by 10 when validation stalls, at most three times.

    Validation stalls when its top-1 has not risen by more than its standard error: less is chance.

    Args:
        patience: Epochs without such a rise before a division.
        images: How many validation images there are.
    """

    def __init__(self, patience, images, divisions=3):
        super().__init__()
        self.patience = patience
        self.images = images
        self.state = {"best": 0.0, "waited": 0, "left": divisions}

    def on_epoch_end(self, epoch, logs):
        state = self.state
        standard_error = math.sqrt(state["best"] * (1 - state["best"]) / self.images)
        if logs["val_top1"] > state["best"] + standard_error:
            state.update(best=logs["val_top1"], waited=0)
            return
        state["waited"] += 1
        if state["waited"] >= self.patience and state["left"] > 0:
            optimizer = self.model.optimizer
            optimizer.learning_rate = float(ops.convert_to_numpy(optimizer.learning_rate)) / 10
            state.update(waited=0, left=state["left"] - 1)


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


def train(recipe, verbose=None):
    """Train a network as a recipe says and record the run.

    Args:
        recipe: `alexnet.Recipe`.
        verbose: 1 for a progress bar, 2 for a line an epoch, 0 for silence; None takes the bar where a person is
            watching, at a terminal or in an open notebook.

    Returns:
        `Run`. Its folder holds `params.yaml`, `metrics.json`, `history.csv`, `model.keras` and, until the run is
        finished, `state.npz`, from which a later call with the same recipe goes on.

    Raises:
        DataError, CheckpointError: data or weights that cannot be used; nothing is written then.
        RunError: a folder that cannot be written, an unfinished run with other parameters, a loss that is no number.
        KeyboardInterrupt: Ctrl-C; the folder says that the run was interrupted.
    """
    backend = keras.backend.backend()
    if verbose is None:
        verbose = 1 if someone_watches() else 2
    if recipe.backend not in (None, backend):
        raise RunError(f"The recipe asks for {recipe.backend}, but Keras runs on {backend} in this process.")
    keras.config.set_dtype_policy(recipe.dtype_policy)
    training, validation = load_data(recipe)
    model = build(recipe, len(training.class_names))
    run = Run(recipe.run_folder / backend, recipe, model, training=training, validation=validation)
    trainee = _compile(run)
    schedule = DivideOnPlateau(recipe.patience, len(validation))
    record = _Record(run, schedule)
    record.open(trainee)
    try:
        trainee.fit(
            training.batches(first=len(run.history) * training.steps_per_epoch),
            steps_per_epoch=training.steps_per_epoch,
            epochs=recipe.epochs,
            initial_epoch=len(run.history),
            shuffle=False,  # the order is the data's own affair
            callbacks=[
                _Validate(model, validation),
                record,
                *([_Line()] if verbose == 2 else []),
                schedule,
                _Save(record),
            ],
            verbose=int(verbose == 1),
        )
        if recipe.views > 1:
            run.metrics["ten_views"] = evaluate(model, validation, recipe.views, verbose == 1)
        record.close()
    except BaseException as error:
        cause = training.failure or error
        record.abandon(cause)
        if cause is error:
            raise
        raise cause from None
    return run


def finished_run(recipe, matching=(), verbose=None):
    """The folder of the finished run that a recipe names; trained now if there is none of that name.

    Args:
        recipe: Its `run_dir` and `name` tell the folder, all of it what is trained.
        matching: Names of fields in which a run that is there must agree with the recipe.
        verbose: As for `train`.

    Raises:
        RunError: a run of that name that does not agree; and as `train`.
    """
    folder = recipe.run_folder / keras.backend.backend()
    if not (folder / "model.keras").is_file():
        train(recipe, verbose)
        return folder
    made_with = Recipe.read(folder / "params.yaml")
    for name in matching:
        if getattr(made_with, name) != getattr(recipe, name):
            raise RunError(
                f"{folder} holds a run with another {name}: {getattr(made_with, name)} there, "
                f"{getattr(recipe, name)} here. Give this one another name."
            )
    return folder


def read_history(folder):
    """The `history.csv` of a run's folder: a dictionary for each epoch, of the names in `HISTORY`."""
    with (Path(folder) / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in epoch.items()} for epoch in csv.DictReader(file)]


def build(recipe, classes):
    """The network that a recipe asks for, with `classes` classes: the values that its training starts from."""
    # Keras draws the seeds of initializers and dropout from Python's generator. Its own set_random_seed would
    # import TensorFlow on every backend.
    if recipe.freeze and recipe.weights is None:
        raise RecipeError(f"freeze: {recipe.freeze} layers cannot stay as weights has them, because weights is None.")
    random.seed(recipe.seed)
    model = AlexNet(
        recipe.preset,
        (recipe.image_size, recipe.image_size, 3),
        classes,
        recipe.width,
        weights=recipe.weights and resolve(recipe.weights),
        initializer=recipe.initializer,
        dropout=recipe.dropout,
    )
    for name in LAYERS[: recipe.freeze]:
        model.get_layer(name).trainable = False
    return model


def _compile(run):
    """The network up to its logits, compiled: a loss computed from probabilities loses its gradient near 0."""
    recipe = run.recipe
    trainee = logits_model(run.model)
    trainee.compile(
        SGD(recipe.learning_rate, recipe.momentum, recipe.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseTopKCategoricalAccuracy(1, name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(min(5, len(run.class_names)), name="top5"),
        ],
    )
    trainee.optimizer.build(trainee.trainable_variables)
    return trainee


class _Validate(keras.callbacks.Callback):
    """Adds `val_loss`, `val_top1` and `val_top5` to the epoch's results, and how long training alone took."""

    def __init__(self, network, validation):
        super().__init__()
        self.network = network
        self.validation = validation

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        logs["training_seconds"] = time.perf_counter() - self.began
        if not np.isfinite(logs["loss"]):
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise RunError(f"The loss became {logs['loss']} in epoch {epoch + 1} at a learning rate of {rate:g}.")
        logs.update(
            {f"val_{name}": value for name, value in evaluate(self.network, self.validation, verbose=0).items()}
        )


class _Line(keras.callbacks.Callback):
    """One line for each epoch, for a log file and a notebook without a reader."""

    def on_epoch_end(self, epoch, logs):
        names = ("loss", "top1", "val_loss", "val_top1", "val_top5")
        values = "  ".join(f"{name} {logs[name]:.4f}" for name in names)
        epochs = self.params["epochs"]
        print(
            f"{epoch + 1:{len(str(epochs))}d}/{epochs}  {values}  learning_rate {logs['learning_rate']:.2g}", flush=True
        )


class _Save(keras.callbacks.Callback):
    """Last of all callbacks: writes the state from which the run could go on after this epoch."""

    def __init__(self, record):
        super().__init__()
        self.record = record

    def on_epoch_end(self, epoch, logs):
        self.record.save_state()


class _Record(keras.callbacks.Callback):
    """The run's folder. Files are replaced whole, so that none is ever half-written."""

    def __init__(self, run, schedule):
        super().__init__()
        self.run = run
        self.schedule = schedule

    def open(self, trainee):
        """Begin a run in its folder, or take up the unfinished one that lies there."""
        run, self.trainee = self.run, trainee
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            if not (run.recipe.resume and self._take_up()):
                self._clear()
            _replace(run.folder / "params.yaml", run.recipe.to_yaml())
        except OSError as error:
            raise RunError(f"The run cannot be written to {run.folder} ({error.strerror or error}).") from None
        self.began = time.perf_counter()
        self.seconds_before = sum(epoch["seconds"] for epoch in run.history)
        run.metrics = {
            "status": "running",
            "name": run.recipe.name,
            "backend": keras.backend.backend(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "parameters": run.recipe.model_dump(),
            "results": {},
            "times": {},
            "data": self._data(),
            "model": {"name": run.model.name, "weights": run.model.count_params()},
            "versions": versions(),
            "hardware": hardware(),
        }
        self.write()

    def _data(self):
        return {
            "training_images": len(self.run.training),
            "validation_images": len(self.run.validation),
            "class_names": list(self.run.class_names),
        }

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {"epoch": epoch + 1, **logs, "seconds": time.perf_counter() - self.epoch_began}
        del logs["training_seconds"]  # not for the progress bar
        self.run.history.append({name: values[name] for name in HISTORY})
        _replace_history(self.run.folder / "history.csv", self.run.history)
        self.write()

    def write(self):
        run = self.run
        if run.history:
            last = run.history[-1]
            run.metrics["results"] = {name: last[name] for name in HISTORY[: HISTORY.index("learning_rate")]}
            run.metrics["times"] = self._times()
        run.metrics["peak_memory_bytes"] = peak_memory()
        _replace(run.folder / "metrics.json", json.dumps(run.metrics, indent=2) + "\n")

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

    def close(self):
        unfinished = self.run.folder / "unfinished.keras"
        for layer in self.run.model.layers:
            layer.trainable = True  # whoever loads it decides for himself what to freeze
        with without_tensorflow():
            self.run.model.save(unfinished)
        os.replace(unfinished, self.run.folder / "model.keras")
        self.run.metrics["status"] = "finished"
        self.write()
        (self.run.folder / "state.npz").unlink(missing_ok=True)

    def abandon(self, error):
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        self.run.metrics["status"] = "interrupted" if interrupted else "failed"
        self.run.metrics["error"] = None if interrupted else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # the disk may be what failed; the error itself is on its way up
            (self.run.folder / "unfinished.keras").unlink(missing_ok=True)
            self.write()

    def save_state(self):
        """Everything that the next epoch depends on, but for the data, whose order follows from the seed."""
        variables = {f"v{i}": ops.convert_to_numpy(ops.cast(v, v.dtype)) for i, v in enumerate(self._variables())}
        progress = {"history": self.run.history, "schedule": self.schedule.state, "data": self._data()}
        unfinished = self.run.folder / "state.tmp"
        with unfinished.open("wb") as file:
            np.savez(file, progress=json.dumps(progress), **variables)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.run.folder / "state.npz")

    def _variables(self):
        # The model's hold the random state of dropout too, the optimizer's the learning rate and the step.
        return [*self.trainee.variables, *self.trainee.optimizer.variables]

    def _take_up(self):
        """Restore the state of an unfinished run; False if there is none."""
        state, params = self.run.folder / "state.npz", self.run.folder / "params.yaml"
        if not (state.is_file() and params.is_file()):
            return False
        theirs, ours = Recipe.read(params).model_dump(), self.run.recipe.model_dump()
        if differences := [
            f"{name}: {theirs[name]} there, {ours[name]} here"
            for name in ours
            if name not in FREE and theirs[name] != ours[name]
        ]:
            raise RunError(
                f"{self.run.folder} holds an unfinished run with other parameters ({'; '.join(differences)}). "
                "Give this run another name, or set resume to false to begin afresh."
            )
        with np.load(state, allow_pickle=False) as saved:
            progress = json.loads(str(saved["progress"]))
            if progress["data"] != self._data():
                raise RunError(
                    f"{self.run.folder} holds an unfinished run on other images, "
                    f"{self.run.recipe.data_dir} has changed. "
                    "Give this run another name, or set resume to false to begin afresh."
                )
            for i, variable in enumerate(self._variables()):
                variable.assign(saved[f"v{i}"])
        self.run.history = progress["history"]
        self.schedule.state = progress["schedule"]
        return True

    def _clear(self):
        for name in ("metrics.json", "history.csv", "model.keras", "unfinished.keras", "state.npz", "state.tmp"):
            (self.run.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.run.folder / "figures", ignore_errors=True)


def _replace(path, text):
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _replace_history(path, history):
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY)
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in epoch.items()} for epoch in history)
    os.replace(unfinished, path)


def versions():
    """Of Python and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def hardware():
    """What the run ran on: processor, cores, memory in bytes, Keras's devices."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "devices": _devices(),
    }


def _devices():
    """What the backend computes on. Keras lists devices for JAX and TensorFlow only."""
    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu:0"]
    return list(keras.distribution.list_devices())


def peak_memory():
    """The most memory that this process has held so far, in bytes."""
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):  # Windows
        return usage.peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
