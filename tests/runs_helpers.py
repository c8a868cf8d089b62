"""Helpers for the tests of runs."""

import json

import keras

from alexnet.training.callbacks import StepMonitor

BACKEND = keras.backend.backend()


def metrics(run):
    return json.loads((run.folder / "metrics.json").read_text())


def stop_after(monkeypatch, steps, error):
    """Let the run fail with `error` after `steps` steps."""
    real, count = StepMonitor.on_train_batch_end, []

    def on_train_batch_end(self, batch, logs=None):
        real(self, batch, logs)
        count.append(batch)
        if len(count) == steps:
            raise error

    monkeypatch.setattr(StepMonitor, "on_train_batch_end", on_train_batch_end)


class Told(keras.callbacks.Callback):
    """A user's callback that records its calls. It may stop the run after an epoch, or fail."""

    def __init__(self, stop_after=None, error=None):
        super().__init__()
        self.calls, self.logs, self.stop_after, self.error = [], [], stop_after, error

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append("step")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(epoch)
        self.logs.append(dict(logs))
        self.model.stop_training = self.stop_after == epoch + 1
        if self.error:
            raise self.error

    def on_train_end(self, logs=None):
        self.calls.append("end")
