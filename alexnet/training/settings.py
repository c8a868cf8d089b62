"""Settings and random states of the whole process: a run uses its own and restores the user's."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def keras_settings(dtype_policy: str) -> Iterator[None]:
    """A context in which Keras uses its own defaults and a recipe's settings, whatever `~/.keras/keras.json` or the
    program has set. Their settings are restored at the end.

    Args:
        dtype_policy: The name of a policy, such as `"float32"`.
    """
    config = keras.config
    before = config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy()
    try:
        _set("float32", 1e-7, "channels_last", dtype_policy)
        yield
    finally:
        _set(*before)


def _set(floatx, epsilon, image_data_format, dtype_policy):
    keras.config.set_floatx(floatx)
    keras.config.set_epsilon(epsilon)
    keras.config.set_image_data_format(image_data_format)
    keras.config.set_dtype_policy(dtype_policy)


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """Restores the random states of Python, NumPy and PyTorch afterwards, as if nothing had been drawn.

    Keras draws the seeds of initializers from Python's, and PyTorch a number for each pass over a loader.
    """
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
    ]
    if keras.backend.backend() == "torch":
        import torch

        states.append((torch.set_rng_state, torch.get_rng_state()))
    try:
        yield
    finally:
        for restore, state in states:
            restore(state)
