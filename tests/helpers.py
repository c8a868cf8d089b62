"""Helpers for several tests: small data, gradients on any backend."""

import io

import keras
import numpy as np
import pytest
from keras import ops

from alexnet.data import DataError, load_data, shapes
from alexnet.recipe import Recipe

RUNS = {}  # `run_dir`, which `conftest` sets to a separate folder for each test


def recipe(folder, **values):
    return Recipe(**{"data_dir": str(folder), "resize": 72, "batch_size": 8, **RUNS, **values})


def refused(folder, message, load=load_data):
    """Check that loading fails with one line that contains `message`."""
    with pytest.raises(DataError, match=message) as error:
        load(recipe(folder))
    assert str(error.value).startswith("data_dir: ") and "\n" not in str(error.value)


def jpeg(shape="ring", seed=0):
    """The content of a JPEG file."""
    content = io.BytesIO()
    shapes.draw(shape, np.random.default_rng(seed)).resize((80, 76)).save(content, format="JPEG")
    return content.getvalue()


def write_class_folders(folder, splits, classes=("cross", "ring", "triangle")):
    """Write JPEGs of a few shapes, `folder/<split>/<class>/NNNN.jpg`; the split "" puts classes in `folder` itself."""
    for number, (split, count) in enumerate(splits.items()):
        for label, shape in enumerate(classes):
            target = folder / split / shape
            target.mkdir(parents=True)
            for i in range(count):
                shapes.draw(shape, np.random.default_rng([number, label, i])).save(target / f"{i:04d}.jpg")
    return folder


def gradient(function, x):
    """The gradient of the sum of `function(x)`, as a NumPy array."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(lambda value: function(value).sum()))(jax.numpy.asarray(x)))
    if backend == "torch":
        import torch

        value = torch.tensor(x, requires_grad=True)
        function(value).sum().backward()
        return value.grad.numpy()
    import tensorflow as tf

    value = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(function(value))
    return tape.gradient(total, value).numpy()


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)
