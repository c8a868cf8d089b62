"""`train(recipe)`: from a recipe to a trained network, and a folder with a full record of the run."""

import contextlib
import logging
import random
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from alexnet.data import compute_pixel_stats, load_data
from alexnet.data.pixel_stats import PixelStats
from alexnet.evaluation import evaluate
from alexnet.model import AlexNet, without_softmax
from alexnet.progress import is_interactive
from alexnet.recipe import Recipe, RecipeError, resolve
from alexnet.runtime import trim_memory, tuned_process
from alexnet.training.attached import fetch_attached
from alexnet.training.callbacks import (
    CheckpointCallback,
    HistoryLogger,
    StepMonitor,
    TrimMemory,
    ValidationCallback,
)
from alexnet.training.display import EpochBar, EpochLogger, again, explain_interruption, position
from alexnet.training.distribution import DistributionError, find_distribution
from alexnet.training.metrics import TopK
from alexnet.training.optimizer import SGD, ReduceLROnPlateau, update_factors
from alexnet.training.run_dir import HISTORY_FIELDS, Run, RunDir, only_run, read_history
from alexnet.training.settings import kept_random_states, keras_settings
from alexnet.training.state import Checkpoint, TrainState, dataset_fingerprint, find_resumable
from alexnet.training.stopping import Interrupted, LossError, RunError, Signals, interruptible, reraise_oom
from alexnet.training.system_info import hardware, peak_memory, print_versions, versions

logger = logging.getLogger(__name__)

__all__ = [
    "HISTORY_FIELDS",
    "SGD",
    "DistributionError",
    "Interrupted",
    "ReduceLROnPlateau",
    "Run",
    "RunError",
    "TopK",
    "build_model",
    "compile_model",
    "evaluate",
    "load_or_train",
    "hardware",
    "peak_memory",
    "print_versions",
    "read_history",
    "train",
    "versions",
]


def train(
    recipe: Recipe, callbacks: Sequence[keras.callbacks.Callback] = (), verbose: Literal[0, 1, 2] | None = None
) -> Run:
    """Train the network that a recipe describes, and record the run.

    Args:
        recipe: `alexnet.Recipe`.
        callbacks: A list of your own `keras.callbacks.Callback`s. Their `model` is the network up to its logits; after
            each epoch, `logs` has the validation results and the learning rate. A callback that sets
            `stop_training` ends the run early; the run then counts as finished. Their own state is not saved:
            after an interruption they start again.
        verbose: 0 for silence; 2 for a summary of the data, then a line an epoch under a line of titles; 1 for a
            progress bar besides, and in a notebook a curve of the epochs so far. None is 1 where a person is watching,
            at a terminal or in an open notebook, and 2 elsewhere. In a file or a pipe 1 is the same as 2.

    Returns:
        `Run`. Its folder holds `params.yaml`, `metrics.json`, `history.csv`, `model.keras`, its model card
        `README.md`, `skipped.csv` if images were left out, `passed_over.csv` if some files were not images,
        `last_good.keras` after a loss of NaN or infinity, and, until the run is finished, `checkpoints/`, from which
        a later call with the same recipe resumes: on the same machine it ends with the same weights, bit for bit, as
        without the interruption. A finished run of the same name is removed and trained again; `load_or_train` keeps
        it.

    Raises:
        DataError, CheckpointError: data or weights that cannot be used. Nothing has been written.
        RunError: a folder that cannot be written, or where another run is writing; an unfinished run with other
            parameters; a loss of NaN or infinity; too little memory.
        TooManyBadImagesError: a larger share of the images than `max_skipped` cannot be read.
        Interrupted: Ctrl-C, SIGTERM or a notebook's stop button, a `KeyboardInterrupt`. The state is saved, and the
            message says how to go on.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, run_dir=folder, width=1 / 16, epochs=2, validation_split=0.2)
        >>> run = alexnet.train(recipe, verbose=0)
        >>> run.metrics["status"], [row["epoch"] for row in run.history]
        ('finished', [1, 2])
    """
    backend = keras.backend.backend()
    _check_callbacks(callbacks)
    if verbose is None:
        verbose = 1 if is_interactive() else 2
    if recipe.backend not in (None, backend):
        raise RunError(f"The recipe asks for {recipe.backend}, but Keras runs on {backend} in this process.")
    if keras.config.max_epochs() or keras.config.max_steps_per_epoch():
        raise RunError("Keras would cut the training short: unset KERAS_MAX_EPOCHS and KERAS_MAX_STEPS_PER_EPOCH.")
    with contextlib.ExitStack() as stack:
        for context in (tuned_process(), kept_random_states(), keras_settings(recipe.dtype_policy)):
            stack.enter_context(context)
        try:
            distribution = find_distribution(recipe)
            stack.enter_context(distribution.scope())
            verbose = verbose if distribution.is_chief else 0
            return _train(recipe, recipe.run_folder / backend, list(callbacks), verbose, distribution, stack)
        except Interrupted:
            raise
        except KeyboardInterrupt:  # while data and network were prepared
            message = f"Interrupted before the training began: {again(recipe)} to start."
            raise Interrupted(signal.SIGINT, between_steps=False, message=message) from None


def _check_callbacks(callbacks):
    listed = isinstance(callbacks, list | tuple)
    if not listed or not all(isinstance(callback, keras.callbacks.Callback) for callback in callbacks):
        raise TypeError(f"callbacks: expected a list of keras.callbacks.Callback. Received: {callbacks!r}")


def _train(recipe, folder, users, verbose, distribution, stack):
    training, validation = load_data(recipe)
    training.share = validation.share = (distribution.rank, distribution.processes)
    data = dataset_fingerprint(training, validation)
    lock, checkpoint = _open_folder(recipe, folder, verbose, data, distribution, stack)
    training.pixel_stats = _pixel_stats(recipe, training, checkpoint, distribution)
    with reraise_oom(recipe.batch_size):
        model = build_model(recipe, len(training.class_names), training.pixel_stats)
        training_model = compile_model(model, recipe)
        distribution.start(training_model)
        run = Run(folder, recipe, model, training=training, validation=validation, is_chief=distribution.is_chief)
        schedule = ReduceLROnPlateau(recipe.patience, len(validation))
        run_dir = RunDir(run, TrainState(run, training_model, schedule, data, distribution), lock)
    run_dir.start(checkpoint)
    if verbose:
        _announce(run, checkpoint)
    with Signals(distribution) as signals:
        try:
            with reraise_oom(recipe.batch_size):
                with EpochBar(run_dir.state) if verbose == 1 else contextlib.nullcontext() as bar:
                    _fit(run_dir, users, signals, verbose, bar)
                if recipe.views > 1:
                    images = interruptible(validation, signals)
                    run.metrics["ten_views"] = distribution.evaluate(model, images, recipe.views, verbose == 1)
            signals.held = True
            run_dir.finish()
        except BaseException as error:
            signals.held = True
            cause = _fail(run_dir, error)
            if cause is error:
                raise
            raise cause from None
        finally:
            trim_memory()
    if verbose and len(training.skipped):
        print(f"{training.skipped} ({folder / 'skipped.csv'})", flush=True)
    return run


def _open_folder(recipe, folder, verbose, data, distribution, stack):
    """The lock of the run's folder, which the chief holds, and the `Checkpoint` from which all processes resume."""
    lock = None

    def choose():
        nonlocal lock
        lock = stack.enter_context(only_run(folder))
        fetch_attached(recipe, folder, verbose)
        checkpoint = find_resumable(recipe, folder, data, distribution.processes)
        return checkpoint and str(checkpoint.path)

    path = distribution.on_chief(choose)
    return lock, path and Checkpoint.read(path)


def _pixel_stats(recipe, training, checkpoint, distribution):
    if checkpoint and checkpoint.progress["colors"]:
        return PixelStats.from_json(checkpoint.progress["colors"])

    def compute():
        share, training.share = training.share, (0, 1)  # the chief reads the sample for all
        found, training.share = compute_pixel_stats(recipe, training), share
        return found.to_json()

    return PixelStats.from_json(distribution.on_chief(compute))


def _fail(run_dir, error):
    """Save what can be saved of a run that ends early; returns the error to be raised."""
    run, state = run_dir.run, run_dir.state
    # A framework passes an image's error on as its own; too little memory has its sentence already.
    cause = error if isinstance(error, RunError) else run.training.failure or run.validation.failure or error
    try:
        if isinstance(error, Interrupted) and error.between_steps and state.saved != (state.epoch, state.step):
            run_dir.save()
        if isinstance(cause, LossError) and (kept := run_dir.keep_last_good()):
            cause = RunError(f"{cause} The last good weights are in {kept}.")
    except (OSError, RunError) as problem:
        logger.warning(problem)
    if isinstance(cause, Interrupted):
        cause = cause.with_message(explain_interruption(state))
    run_dir.fail(cause)
    return cause


def _announce(run, checkpoint):
    print(run.training.summary, flush=True)
    if checkpoint is not None:
        there = position(run, checkpoint.progress["epoch"], checkpoint.progress["step"])
        print(f"Resuming {there}", flush=True)


def _fit(run_dir, users, signals, verbose, bar):
    """Train the remaining epochs, the first of which may be partly done."""
    run, state = run_dir.run, run_dir.state
    training_model = state.training_model
    steps_per_epoch = run.training.steps_per_epoch
    steps = StepMonitor(run_dir, signals)
    after_epoch = [
        steps,
        TrimMemory(),
        ValidationCallback(run_dir.state, signals, bar),
        HistoryLogger(run_dir),
        *([EpochLogger(run)] if verbose else []),
        *([bar] if bar else []),
        state.schedule,
        *users,
        CheckpointCallback(run_dir, signals),
    ]

    def fit(first, epochs, count):
        training_model.fit(
            run.training.batches(first),
            steps_per_epoch=count,
            initial_epoch=state.epoch,
            epochs=epochs,
            shuffle=False,  # the data set shuffles itself
            callbacks=after_epoch,
            verbose=0,
        )

    if state.step == steps_per_epoch:  # all steps were made, and the run was interrupted during validation
        _end_epoch(state, after_epoch)
    elif state.step:
        fit(state.global_step, state.epoch + 1, steps_per_epoch - state.step)
    if state.epoch < run.recipe.epochs and not training_model.stop_training:
        fit(state.global_step, run.recipe.epochs, steps_per_epoch)


def _end_epoch(state, after_epoch):
    epoch, model = state.epoch, state.training_model
    called = keras.callbacks.CallbackList(after_epoch, model=model, epochs=state.run.recipe.epochs, verbose=0)
    model.stop_training = False
    called.on_train_begin()
    called.on_epoch_begin(epoch)
    called.on_epoch_end(epoch, {name: float(value) for name, value in model.get_metrics_result().items()})
    called.on_train_end()


def load_or_train(recipe: Recipe, matching: Iterable[str] = (), verbose: Literal[0, 1, 2] | None = None) -> Path:
    """The folder of the finished run that a recipe names. If there is none of that name, it is trained now.

    Args:
        recipe: Its `run_dir` and `name` determine the folder.
        matching: Names of fields that an existing run must share with the recipe.
        verbose: As for `train`.

    Raises:
        RunError: an existing run of that name with other values; and as `train`.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, run_dir=folder, width=1 / 16, epochs=1, validation_split=0.2)
        >>> made = alexnet.load_or_train(recipe, verbose=0)
        >>> alexnet.load_or_train(recipe, verbose=0) == made  # the second time it is there
        True
    """
    folder = recipe.run_folder / keras.backend.backend()
    if not (folder / "model.keras").is_file():
        with only_run(folder):
            fetch_attached(recipe, folder, verbose, finished=True)
    if not (folder / "model.keras").is_file():
        train(recipe, verbose=verbose)
        return folder
    made_with = Recipe.read_run(folder / "params.yaml")
    for name in matching:
        if getattr(made_with, name) != getattr(recipe, name):
            raise RunError(
                f"{folder} holds a run with a different {name}: {getattr(made_with, name)} there, "
                f"{getattr(recipe, name)} here. Give this run a different name."
            )
    return folder


def build_model(recipe: Recipe, classes: int, pixel_stats: PixelStats | None = None) -> keras.Model:
    """The network that a recipe describes, with `classes` classes and the weights that its training starts from.

    Args:
        pixel_stats: `PixelStats`, whose mean is subtracted where the recipe asks for the training images' own.

    Examples:
        >>> alexnet.build_model(alexnet.Recipe(width=1 / 16), classes=3).output.shape
        (None, 3)
    """
    if recipe.freeze and recipe.weights is None:
        raise RecipeError(
            f"freeze: {recipe.freeze} layers cannot keep the checkpoint's values, because weights is None."
        )
    mean = None
    if pixel_stats is not None and recipe.color_statistics == "training" and recipe.weights is None:
        mean = pixel_stats.mean.tolist()
    with kept_random_states(), keras_settings(recipe.dtype_policy):
        # Keras draws the seeds of initializers and dropout from Python's generator. Its own set_random_seed would
        # import TensorFlow on every backend.
        random.seed(recipe.seed)
        model = AlexNet(
            recipe.network,
            (recipe.image_size, recipe.image_size, 3),
            classes,
            recipe.width,
            weights=recipe.weights and resolve(recipe.weights),
            initializer=recipe.initializer,
            dropout=recipe.dropout,
            mean=mean,
            activation=recipe.activation,
            without=recipe.without.split("+") if recipe.without else (),
        )
    for layer in recipe.row.weighted[: recipe.freeze]:
        model.get_layer(layer.name).trainable = False
    trim_memory()  # initializers use twice the memory of their results
    return model


def compile_model(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The model that `train` fits: the network up to its logits, because a loss computed from probabilities loses its
    gradient near 0. It shares the layers of `model`; its optimizer, loss and metrics are those of the recipe."""
    classes = model.output_shape[-1]
    with keras_settings(recipe.dtype_policy):
        training_model = without_softmax(model)
        training_model.compile(
            SGD(recipe.learning_rate, recipe.momentum, recipe.weight_decay, factors=update_factors(recipe.row)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[TopK(1, "top1"), TopK(min(5, classes), "top5")],
        )
        training_model.optimizer.build(training_model.trainable_variables)
        # Keras creates the metrics' variables in the first step; restoring a saved state needs them earlier.
        training_model.compute_metrics(None, np.zeros(1, "int32"), np.zeros((1, classes), "float32"))
        training_model.reset_metrics()
    return training_model
