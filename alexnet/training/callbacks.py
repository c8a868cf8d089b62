"""What happens after each step and each epoch."""

import time

import keras
import numpy as np
from keras import ops

from alexnet._compat import sync_variables
from alexnet.runtime import trim_memory
from alexnet.training.run_dir import RunDir
from alexnet.training.stopping import LossError, Signals, interruptible
from alexnet.training.system_info import memory_in_use


class StepMonitor(keras.callbacks.Callback):
    """After each step: checks the loss, saves the state when it is due, and stops on a signal.

    Args:
        run_dir: `RunDir`.
        signals: `Signals`.
    """

    def __init__(self, run_dir: RunDir, signals: Signals):
        super().__init__()
        self.run_dir = run_dir
        self.state = run_dir.state
        self.distribution = run_dir.state.distribution
        self.signals = signals
        self.recipe = run_dir.run.recipe
        self._unchecked = self._bad = None

    def on_epoch_begin(self, epoch, logs=None):
        self.state.restore_metrics()
        self.state.epoch_began = time.perf_counter()
        self.signals.waiting = True

    def on_train_batch_end(self, batch, logs=None):
        self.state.step += 1
        # The loss of the previous step: this step's would make the host wait for the device.
        bad = self._is_bad()
        self._unchecked = (self.state.step, logs["loss"])
        bad, stop, late = self.distribution.any(bad, self.signals.received is not None, self._is_late())
        if bad:
            self._fail()
        due = late or (self.recipe.save_steps and self.state.global_step % self.recipe.save_steps == 0)
        if due or stop:
            self._check()
        if due:
            self.run_dir.save()
        if stop:
            self.signals.stop()

    def on_epoch_end(self, epoch, logs=None):
        self._check()
        if self.state.training_seconds is None:  # otherwise the run was interrupted during validation
            self.state.training_seconds = self.state.elapsed()
        self.signals.check()
        self.distribution.merge_results(self.model, logs)
        logs["training_seconds"] = self.state.training_seconds

    def _is_late(self):
        passed = time.monotonic() - self.run_dir.last_save
        return bool(self.recipe.save_seconds and passed >= self.recipe.save_seconds)

    def _check(self):
        if any(self.distribution.gather(self._is_bad())):
            self._fail()

    def _is_bad(self):
        if self._unchecked is not None:
            (step, loss), self._unchecked = self._unchecked, None
            loss = float(ops.convert_to_numpy(loss))
            if self._bad is None and not np.isfinite(loss):
                self._bad = step, loss
        return self._bad is not None

    def _fail(self):
        step, loss = self._bad or (self.state.step, "infinite or NaN in another process")
        self.state.bad_step = self.state.epoch * self.run_dir.run.training.steps_per_epoch + step
        sync_variables(self.model)
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        raise LossError(
            f"The loss became {loss} in step {step} of epoch {self.state.epoch + 1} at a learning rate of {rate:g}."
        )


class TrimMemory(keras.callbacks.Callback):
    """Returns kept memory (`alexnet.tune_process`) that training does not need: after the first step what compiling
    used, and later the gaps between used blocks when they have grown."""

    GROWTH = 1.25  # factor over the memory held after the first epoch, or at the last release

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
            self._usual = held  # whatever is allocated again is needed


class ValidationCallback(keras.callbacks.Callback):
    """Adds `val_loss`, `val_top1` and `val_top5` to the epoch's results."""

    def __init__(self, state, signals, bar=None):
        super().__init__()
        self.state = state
        self.images = interruptible(state.run.validation, signals, bar.validating if bar else iter)

    def on_epoch_end(self, epoch, logs=None):
        metrics = self.state.distribution.evaluate(self.state.run.model, self.images)
        if not np.isfinite(metrics["loss"]):
            raise LossError(f"The validation loss became {metrics['loss']} after epoch {epoch + 1}.")
        logs.update({f"val_{name}": value for name, value in metrics.items()})


class HistoryLogger(keras.callbacks.Callback):
    """Adds the learning rate to the epoch's results, and the results to the run's folder."""

    def __init__(self, run_dir: RunDir):
        super().__init__()
        self.run_dir = run_dir

    def on_epoch_end(self, epoch, logs=None):
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.run_dir.end_epoch({"epoch": epoch + 1, **logs, "seconds": self.run_dir.state.elapsed()})
        del logs["training_seconds"]  # not for callbacks of the user's own


class CheckpointCallback(keras.callbacks.Callback):
    """Saves the state after each epoch. It must be the last callback."""

    def __init__(self, run_dir: RunDir, signals: Signals):
        super().__init__()
        self.run_dir = run_dir
        self.signals = signals

    def on_epoch_end(self, epoch, logs=None):
        self.run_dir.save()
        self.signals.check()
