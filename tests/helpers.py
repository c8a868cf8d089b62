"""What several tests need: small data, NumPy weights, gradients on any backend."""

import keras
import numpy as np
from keras import ops

from alexnet.data import shapes
from alexnet.model import logits_model


def write_class_folders(folder, splits, classes=("cross", "ring", "triangle")):
    """JPEGs of a few shapes as `folder/<split>/<class>/NNNN.jpg`; the split "" puts classes right into `folder`."""
    for number, (split, count) in enumerate(splits.items()):
        for label, shape in enumerate(classes):
            target = folder / split / shape
            target.mkdir(parents=True)
            for i in range(count):
                shapes.draw(shape, np.random.default_rng([number, label, i])).save(target / f"{i:04d}.jpg")
    return folder


def set_numpy_weights(model, seed=0):
    """Give a model weights that are the same on every backend: kernels that keep activities' size, small biases."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None:
            fan_in = np.prod(layer.kernel.shape[:-1])
            kernel = rng.standard_normal(layer.kernel.shape, np.float32) * np.float32(fan_in**-0.5)
            layer.set_weights([kernel, rng.normal(0, 0.1, layer.bias.shape).astype("float32")])


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


class Keep(keras.optimizers.Optimizer):
    """Changes nothing and keeps the gradients: the way to them that is the same on every backend."""

    def build(self, variables):
        super().build(variables)
        self.kept = self.add_optimizer_variables(variables, "gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.kept[self._get_variable_index(variable)], gradient)


class Gradients:
    """Of a model: the gradients of the mean cross-entropy of some images, by layer those of kernel and bias."""

    def __init__(self, model):
        self.trainee = logits_model(model)
        self.trainee.compile(Keep(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def __call__(self, images, labels):
        self.trainee.train_on_batch(images, labels)
        kept = iter(self.trainee.optimizer.kept)
        layers = [layer.name for layer in self.trainee.layers if layer.trainable_variables]
        return {name: (to_numpy(next(kept)), to_numpy(next(kept))) for name in layers}


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)
