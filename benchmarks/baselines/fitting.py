"""Steps of Keras's `fit`, and how long they take."""

import time

import keras


class Steps(keras.callbacks.Callback):
    """Measures the time from the beginning of the first step to the end of the last.

    `fit` does its work before and after them only once in a whole training. On TensorFlow it ends by waiting up to a
    second for a thread of tf.data, which would be a third of a short turn.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.seconds = -time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter()


def fit(model, batch, steps, callbacks=()):
    """Make `steps` steps on a batch; returns their mean loss and the seconds that they took."""

    def batches():
        while True:
            yield batch

    measured = Steps()
    callbacks = [measured, *callbacks]
    history = model.fit(batches(), steps_per_epoch=steps, shuffle=False, callbacks=callbacks, verbose=0)
    return history.history["loss"][-1], measured.seconds
