"""`train(recipe)`: from a recipe to a trained network and a folder with everything about how it came to be."""

import contextlib
import logging
import random
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
from alexnet.training.callbacks import (
    CheckpointCallback,
    EpochLogger,
    HistoryLogger,
    StepMonitor,
    TrimMemory,
    ValidationCallback,
)
from alexnet.training.metrics import TopK
from alexnet.training.optimizer import SGD, ReduceLROnPlateau, update_factors
from alexnet.training.run_dir import HISTORY_FIELDS, Run, RunDir, only_run, read_history
from alexnet.training.settings import kept_random_states, keras_settings
from alexnet.training.state import TrainState, dataset_fingerprint, find_resumable
from alexnet.training.stopping import Interrupted, LossError, RunError, Signals, interruptible, reraise_oom
from alexnet.training.system_info import hardware, peak_memory, versions

logger = logging.getLogger(__name__)

__all__ = [
    "HISTORY_FIELDS",
    "SGD",
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
    "read_history",
    "train",
    "versions",
]


def train(
    recipe: Recipe, callbacks: Sequence[keras.callbacks.Callback] = (), verbose: Literal[0, 1, 2] | None = None
) -> Run:
    """Train a network as a recipe says and record the run.

    Args:
        recipe: `alexnet.Recipe`.
        callbacks: A list of your own `keras.callbacks.Callback`s. Their `model` is the network up to its logits; after
            an epoch they find the validation's results and the learning rate in `logs`. One that sets
            `stop_training` ends the run early, with everything that a finished run has. What they remember is not
            in a saved state: after an interruption they begin anew.
        verbose: 1 for a progress bar, 2 for a line an epoch, 0 for silence; None takes the bar where a person is
            watching, at a terminal or in an open notebook.

    Returns:
        `Run`. Its folder holds `params.yaml`, `metrics.json`, `history.csv`, `model.keras`, its model card `README.md`,
        `skipped.csv` if images were left out, `passed_over.csv` if files were no images, `last_good.keras` after a loss
        that is no number, and, until the run is finished, `checkpoints/`, from which a later call with the same recipe
        goes on: on the same machine to the same weights, bit for bit, that it would have come to without a pause. A
        finished run of the same name is removed and trained anew; `load_or_train` keeps it.

    Raises:
        DataError, CheckpointError: data or weights that cannot be used; nothing is written then.
        RunError: a folder that cannot be written, or where another run is writing; an unfinished run with other
            parameters, a loss that is no number, too little memory.
        TooManyBadImagesError: more images than `max_skipped` cannot be read.
        Interrupted: Ctrl-C or SIGTERM, a `KeyboardInterrupt`; the state is saved.

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
        raise RunError("Keras would cut the training short: take away KERAS_MAX_EPOCHS and KERAS_MAX_STEPS_PER_EPOCH.")
    with contextlib.ExitStack() as stack:
        for context in (tuned_process(), kept_random_states(), keras_settings(recipe.dtype_policy)):
            stack.enter_context(context)
        return _train(recipe, recipe.run_folder / backend, list(callbacks), verbose, stack)


def _check_callbacks(callbacks):
    listed = isinstance(callbacks, list | tuple)
    if not listed or not all(isinstance(callback, keras.callbacks.Callback) for callback in callbacks):
        raise TypeError(f"callbacks: a list of keras.callbacks.Callback is needed. Received: {callbacks!r}")


def _train(recipe, folder, users, verbose, stack):
    training, validation = load_data(recipe)
    data = dataset_fingerprint(training, validation)
    lock = stack.enter_context(only_run(folder))
    checkpoint = find_resumable(recipe, folder, data)
    known = checkpoint and checkpoint.progress["colors"]
    training.pixel_stats = PixelStats.from_json(known) if known else compute_pixel_stats(recipe, training)
    with reraise_oom(recipe.batch_size):
        model = build_model(recipe, len(training.class_names), training.pixel_stats)
        run = Run(folder, recipe, model, training=training, validation=validation)
        schedule = ReduceLROnPlateau(recipe.patience, len(validation))
        run_dir = RunDir(run, TrainState(run, compile_model(model, recipe), schedule, data), lock)
    run_dir.start(checkpoint)
    if verbose:
        _announce(run, checkpoint)
    with Signals() as signals:
        try:
            with reraise_oom(recipe.batch_size):
                _fit(run_dir, users, signals, verbose)
                if recipe.views > 1:
                    images = interruptible(validation, signals)
                    run.metrics["ten_views"] = evaluate(model, images, recipe.views, verbose == 1)
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


def _fail(run_dir, error):
    """Save what can be saved of a run that ends early; returns the error to be raised."""
    run, state = run_dir.run, run_dir.state
    cause = run.training.failure or run.validation.failure or error
    try:
        if isinstance(error, Interrupted) and error.between_steps and state.saved != (state.epoch, state.step):
            run_dir.save()
        if isinstance(cause, LossError) and (kept := run_dir.keep_last_good()):
            cause = RunError(f"{cause} The last good weights are in {kept}.")
    except (OSError, RunError) as problem:
        logger.warning(problem)
    run_dir.fail(cause)
    return cause


def _announce(run, checkpoint):
    print(run.training.summary, flush=True)
    if checkpoint is not None:
        progress = checkpoint.progress
        print(f"Going on after epoch {progress['epoch']}, step {progress['step']}", flush=True)


def _fit(run_dir, users, signals, verbose):
    """The epochs that are left, the first of them perhaps a part of one."""
    run, state = run_dir.run, run_dir.state
    training_model = state.training_model
    steps_per_epoch = run.training.steps_per_epoch
    steps = StepMonitor(run_dir, signals)
    after_epoch = [
        steps,
        TrimMemory(),
        ValidationCallback(run.model, run.validation, signals),
        HistoryLogger(run_dir),
        *([EpochLogger(run.recipe.epochs)] if verbose == 2 else []),
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
            shuffle=False,  # the order is the data's own affair
            callbacks=after_epoch,
            verbose=int(verbose == 1),
        )

    if state.step == steps_per_epoch:  # all steps were made, and the run ended while it validated
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
    """The folder of the finished run that a recipe names; trained now if there is none of that name.

    Args:
        recipe: Its `run_dir` and `name` tell the folder, all of it what is trained.
        matching: Names of fields in which a run that is there must agree with the recipe.
        verbose: As for `train`.

    Raises:
        RunError: a run of that name that does not agree; and as `train`.

    Examples:
        With a folder of images for each class in `photos`:

        >>> recipe = alexnet.Recipe(data_dir=photos, run_dir=folder, width=1 / 16, epochs=1, validation_split=0.2)
        >>> made = alexnet.load_or_train(recipe, verbose=0)
        >>> alexnet.load_or_train(recipe, verbose=0) == made  # the second time it is there
        True
    """
    folder = recipe.run_folder / keras.backend.backend()
    if not (folder / "model.keras").is_file():
        train(recipe, verbose=verbose)
        return folder
    made_with = Recipe.read_run(folder / "params.yaml")
    for name in matching:
        if getattr(made_with, name) != getattr(recipe, name):
            raise RunError(
                f"{folder} holds a run with another {name}: {getattr(made_with, name)} there, "
                f"{getattr(recipe, name)} here. Give this one another name."
            )
    return folder


def build_model(recipe: Recipe, classes: int, pixel_stats: PixelStats | None = None) -> keras.Model:
    """The network that a recipe asks for, with `classes` classes: the values that its training starts from.

    Args:
        pixel_stats: `PixelStats`, whose mean is subtracted where the recipe asks for the training images' own.

    Examples:
        >>> alexnet.build_model(alexnet.Recipe(width=1 / 16), classes=3).output.shape
        (None, 3)
    """
    if recipe.freeze and recipe.weights is None:
        raise RecipeError(f"freeze: {recipe.freeze} layers cannot stay as weights has them, because weights is None.")
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
    trim_memory()  # initializers take twice what they give
    return model


def compile_model(model: keras.Model, recipe: Recipe) -> keras.Model:
    """What `train` fits: the network up to its logits, since a loss computed from probabilities loses its gradient
    near 0. It shares the layers of `model`; its optimizer, loss and metrics are those of the recipe."""
    classes = model.output_shape[-1]
    with keras_settings(recipe.dtype_policy):
        training_model = without_softmax(model)
        training_model.compile(
            SGD(recipe.learning_rate, recipe.momentum, recipe.weight_decay, factors=update_factors(recipe.row)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[TopK(1, "top1"), TopK(min(5, classes), "top5")],
        )
        training_model.optimizer.build(training_model.trainable_variables)
        # Keras makes the variables of the metrics in the first step; a saved state needs a place for them before.
        training_model.compute_metrics(None, np.zeros(1, "int32"), np.zeros((1, classes), "float32"))
        training_model.reset_metrics()
    return training_model
