"""`train(recipe)`: from a recipe to a trained network and a folder with everything about how it came to be."""

import contextlib
import logging
import random

import keras
import numpy as np

from alexnet.data import compute_pixel_stats, load_data
from alexnet.data.pixel_stats import PixelStats
from alexnet.evaluation import evaluate
from alexnet.model import AlexNet, without_softmax
from alexnet.progress import is_interactive
from alexnet.recipe import Recipe, RecipeError, resolve
from alexnet.runtime import trim_memory, tuned_process
from alexnet.training import callbacks
from alexnet.training.metrics import TopK
from alexnet.training.optimizer import SGD, DivideOnPlateau, update_factors
from alexnet.training.record import (
    HISTORY_FIELDS,
    Record,
    Run,
    dataset_fingerprint,
    find_resumable,
    only_run,
    read_history,
)
from alexnet.training.settings import kept_random_states, keras_settings
from alexnet.training.stopping import Interrupted, LossError, RunError, Signals, reraise_oom
from alexnet.training.system_info import hardware, peak_memory, versions

logger = logging.getLogger(__name__)

__all__ = [
    "HISTORY_FIELDS",
    "SGD",
    "DivideOnPlateau",
    "Interrupted",
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


def train(recipe, callbacks=(), verbose=None):
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
        `Run`. Its folder holds `params.yaml`, `metrics.json`, `history.csv`, `model.keras`, `skipped.csv` if images
        were left out, `last_good.keras` after a loss that is no number, and, until the run is finished, `saves/`, from
        which a later call with the same recipe goes on: on the same machine to the same weights, bit for bit, that it
        would have come to without a pause.

    Raises:
        DataError, CheckpointError: data or weights that cannot be used; nothing is written then.
        RunError: a folder that cannot be written, or where another run is writing; an unfinished run with other
            parameters, a loss that is no number, too little memory.
        TooManyBadImagesError: more images than `max_skipped` cannot be read.
        Interrupted: Ctrl-C or SIGTERM, a `KeyboardInterrupt`; the state is saved.
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
    save = find_resumable(recipe, folder, data)
    training.pixel_stats = (
        PixelStats.from_json(save.progress["colors"]) if save else compute_pixel_stats(recipe, training)
    )
    with reraise_oom(recipe.batch_size):
        model = build_model(recipe, len(training.class_names), training.pixel_stats)
        run = Run(folder, recipe, model, training=training, validation=validation)
        trainee = compile_model(model, recipe)
    record = Record(run, trainee, DivideOnPlateau(recipe.patience, len(validation)), data, lock)
    record.open(save)
    if verbose:
        _announce(run, save)
    with Signals() as signals:
        try:
            with reraise_oom(recipe.batch_size):
                _fit(record, users, signals, verbose)
                if recipe.views > 1:
                    images = callbacks.Interruptible(validation, signals)
                    run.metrics["ten_views"] = evaluate(model, images, recipe.views, verbose == 1)
            signals.held = True
            record.close()
        except BaseException as error:
            signals.held = True
            cause = _abandon(record, error)
            if cause is error:
                raise
            raise cause from None
        finally:
            trim_memory()
    if verbose and len(training.skipped):
        print(f"{training.skipped} ({folder / 'skipped.csv'})", flush=True)
    return run


def _abandon(record, error):
    """Save what can be saved of a run that ends early; returns the error to be raised."""
    run = record.run
    cause = run.training.failure or run.validation.failure or error
    try:
        if isinstance(error, Interrupted) and error.between_steps and record.saved != (record.epoch, record.step):
            record.save()
        if isinstance(cause, LossError) and (kept := record.keep_last_good()):
            cause = RunError(f"{cause} The last good weights are in {kept}.")
    except (OSError, RunError) as problem:
        logger.warning(problem)
    record.abandon(cause)
    return cause


def _announce(run, save):
    print(run.training.summary, flush=True)
    if save is not None:
        print(f"Going on after epoch {save.progress['epoch']}, step {save.progress['step']}", flush=True)


def _fit(record, users, signals, verbose):
    """The epochs that are left, the first of them perhaps a part of one."""
    run, trainee = record.run, record.trainee
    steps_per_epoch = run.training.steps_per_epoch
    steps = callbacks.StepMonitor(record, signals)
    after_epoch = [
        steps,
        callbacks.TrimMemory(),
        callbacks.ValidationCallback(run.model, run.validation, signals),
        callbacks.HistoryLogger(record),
        *([callbacks.EpochLogger(run.recipe.epochs)] if verbose == 2 else []),
        record.schedule,
        *users,
        callbacks.CheckpointCallback(record, signals),
    ]

    def fit(first, epochs, count):
        trainee.fit(
            run.training.batches(first),
            steps_per_epoch=count,
            initial_epoch=record.epoch,
            epochs=epochs,
            shuffle=False,  # the order is the data's own affair
            callbacks=after_epoch,
            verbose=int(verbose == 1),
        )

    first = record.epoch * steps_per_epoch + record.step
    if record.step == steps_per_epoch:  # all steps were made, and the run ended while it validated
        _end_epoch(record, after_epoch)
    elif record.step:
        fit(first, record.epoch + 1, steps_per_epoch - record.step)
    if record.epoch < run.recipe.epochs and not trainee.stop_training:
        fit(record.epoch * steps_per_epoch, run.recipe.epochs, steps_per_epoch)


def _end_epoch(record, after_epoch):
    epoch, trainee = record.epoch, record.trainee
    called = keras.callbacks.CallbackList(after_epoch, model=trainee, epochs=record.run.recipe.epochs, verbose=0)
    trainee.stop_training = False
    called.on_train_begin()
    called.on_epoch_begin(epoch)
    called.on_epoch_end(epoch, {name: float(value) for name, value in trainee.get_metrics_result().items()})
    called.on_train_end()


def load_or_train(recipe, matching=(), verbose=None):
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


def build_model(recipe, classes, colors=None):
    """The network that a recipe asks for, with `classes` classes: the values that its training starts from.

    Args:
        colors: `PixelStats`, whose mean is subtracted where the recipe asks for the training images' own.
    """
    if recipe.freeze and recipe.weights is None:
        raise RecipeError(f"freeze: {recipe.freeze} layers cannot stay as weights has them, because weights is None.")
    own_mean = colors is not None and recipe.color_statistics == "training" and recipe.weights is None
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
            mean=colors.mean.tolist() if own_mean else None,
            activation=recipe.activation,
            without=recipe.without.split("+") if recipe.without else (),
        )
    for layer in recipe.row.weighted[: recipe.freeze]:
        model.get_layer(layer.name).trainable = False
    trim_memory()  # initializers take twice what they give
    return model


def compile_model(model, recipe):
    """What `train` fits: the network up to its logits, since a loss computed from probabilities loses its gradient
    near 0. It shares the layers of `model`; its optimizer, loss and metrics are those of the recipe."""
    classes = model.output_shape[-1]
    with keras_settings(recipe.dtype_policy):
        trainee = without_softmax(model)
        trainee.compile(
            SGD(recipe.learning_rate, recipe.momentum, recipe.weight_decay, factors=update_factors(recipe.row)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[TopK(1, "top1"), TopK(min(5, classes), "top5")],
        )
        trainee.optimizer.build(trainee.trainable_variables)
        # Keras makes the variables of the metrics in the first step; a saved state needs a place for them before.
        trainee.compute_metrics(None, np.zeros(1, "int32"), np.zeros((1, classes), "float32"))
        trainee.reset_metrics()
    return trainee
