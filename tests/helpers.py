"""What several tests need: small data, gradients on any backend."""

import keras
import numpy as np
from keras import ops

from alexnet.data import shapes


def write_class_folders(folder, splits, classes=("cross", "ring", "triangle")):
    """JPEGs of a few shapes as `folder/<split>/<class>/NNNN.jpg`; the split "" puts classes right into `folder`."""
    for number, (split, count) in enumerate(splits.items()):
        for label, shape in enumerate(classes):
            target = folder / split / shape
            target.mkdir(parents=True)
            for i in range(count):
                shapes.draw(shape, np.random.default_rng([number, label, i])).save(target / f"{i:04d}.jpg")
    return folder


def gradient(function, x):
    """The gradient at `x` of the sum of what `function` returns, as a NumPy array."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda value: function(value).sum())(jax.numpy.asarray(x)))
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
