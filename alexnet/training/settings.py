"""Keras's settings for the whole process: a run has its own, and leaves the user's as they were."""

import contextlib

import keras


@contextlib.contextmanager
def keras_settings(dtype_policy):
    """Within it Keras computes as its own defaults and a recipe say, whatever `~/.keras/keras.json` or the program has
    set; they come back at the end.

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
