"""What happens after each step and each epoch."""

import time

import keras
import numpy as np
from keras import ops

from alexnet.evaluation import evaluate
from alexnet.runtime import trim_memory
from alexnet.training.stopping import LossError
from alexnet.training.system_info import memory_in_use


class StepMonitor(keras.callbacks.Callback):
    """After each step: is the loss a number, is it time to save, has somebody asked to stop?

    Args:
        record: `Record`.
        signals: `Signals`.
    """

    def __init__(self, record, signals):
        super().__init__()
        self.record = record
        self.signals = signals
        self.recipe = record.run.recipe
        self._unchecked = None

    def on_epoch_begin(self, epoch, logs=None):
        self.record.restore_metrics()
        self.record.epoch_began = time.perf_counter()
        self.signals.waiting = True

    def on_train_batch_end(self, batch, logs=None):
        record = self.record
        record.step += 1
        # The loss of the step before: to ask for this step's would wait for the device, which is still at it.
        self._check()
        self._unchecked = (record.step, logs["loss"])
        due = self._is_due()
        if due or self.signals.received is not None:
            self._check()
        if due:
            record.save()
        self.signals.check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()
        if self.record.training_seconds is None:  # otherwise the run was interrupted while it validated
            self.record.training_seconds = self.record.elapsed()
        self.signals.check()
        logs["training_seconds"] = self.record.training_seconds

    def _is_due(self):
        recipe, record = self.recipe, self.record
        passed = time.monotonic() - record.last_save
        by_time = recipe.save_seconds and passed >= recipe.save_seconds
        return by_time or (recipe.save_steps and record.number % recipe.save_steps == 0)

    def _check(self):
        if self._unchecked is None:
            return
        (step, loss), self._unchecked = self._unchecked, None
        loss = float(ops.convert_to_numpy(loss))
        if np.isfinite(loss):
            return
        optimizer = self.model.optimizer
        if hasattr(self.model, "jax_state_sync") and getattr(self.model, "_jax_state", None) is not None:
            self.model.jax_state_sync()
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        raise LossError(
            f"The loss became {loss} in step {step} of epoch {self.record.epoch + 1} at a learning rate of {rate:g}."
        )


class TrimMemory(keras.callbacks.Callback):
    """Gives back the kept memory (`alexnet.tune_process`) that training does not need: what compiling took,
    after the first step, and what lies between blocks in use, when that has grown."""

    GROWTH = 1.25  # times what was held after the first epoch, or at the last release

    def __init__(self):
        super().__init__()
        self._first = True
        self._usual = None

    def on_train_batch_end(self, batch, logs=None):
        if self._first:
            trim_memory()
            self._first = False

    def on_epoch_end(self, epoch, logs=None):
        held = memory_in_use()
        self._usual = self._usual or held
        if held and held > self.GROWTH * self._usual:
            trim_memory()
            self._usual = held  # what comes back is needed


class Interruptible:
    """Images for `evaluate` that stop between two batches when a signal has come."""

    def __init__(self, images, signals):
        self.class_names = images.class_names
        self.steps_per_epoch = images.steps_per_epoch
        self.images = lambda: signals.between(images.images())


class ValidationCallback(keras.callbacks.Callback):
    """Adds `val_loss`, `val_top1` and `val_top5` to the epoch's results."""

    def __init__(self, network, validation, signals):
        super().__init__()
        self.network = network
        self.validation = validation
        self.signals = signals

    def on_epoch_end(self, epoch, logs=None):
        scores = evaluate(self.network, Interruptible(self.validation, self.signals), verbose=0)
        if not np.isfinite(scores["loss"]):
            raise LossError(f"The validation loss became {scores['loss']} after epoch {epoch + 1}.")
        logs.update({f"val_{name}": value for name, value in scores.items()})


class HistoryLogger(keras.callbacks.Callback):
    """Adds the learning rate to the epoch's results, and the results to the run's folder."""

    def __init__(self, record):
        super().__init__()
        self.record = record

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.record.add_epoch({"epoch": epoch + 1, **logs, "seconds": self.record.elapsed()})
        del logs["training_seconds"]  # not for the progress bar


class EpochLogger(keras.callbacks.Callback):
    """One line for each epoch, for a log file and a notebook without a reader."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        names = ("loss", "top1", "val_loss", "val_top1", "val_top5")
        values = "  ".join(f"{name} {logs[name]:.4f}" for name in names)
        print(
            f"{epoch + 1:{len(str(self.epochs))}d}/{self.epochs}  {values}  learning_rate {logs['learning_rate']:.2g}",
            flush=True,
        )


class CheckpointCallback(keras.callbacks.Callback):
    """Last of all: saves the state from which the run could go on after this epoch."""

    def __init__(self, record, signals):
        super().__init__()
        self.record = record
        self.signals = signals

    def on_epoch_end(self, epoch, logs=None):
        self.record.save()
        self.signals.check()
