"""Where the time of a network goes, layer by layer."""

import statistics
import time

import keras
import numpy as np
from keras import ops


def layer_times(model, images, repetitions=5):
    """The seconds that each layer takes alone, forward and backward as in training.

    Layers are compiled where the backend compiles them. A compiled network can be faster than the sum of its layers.

    Args:
        model: One of `alexnet.AlexNet`'s, a chain of layers.
        images: `(batch, height, width, 3)`; each layer is given what the layers below make of them.
        repetitions: The median of so many is taken.

    Returns:
        A dictionary for each layer: `layer`, `forward_seconds`, `backward_seconds`. The second one is what the
        gradients cost beyond the output; a layer that only takes pixels has none.
    """
    rows, values = [], np.asarray(images)
    for layer in model.layers[1:]:
        forward, both = _functions(layer, model.jit_compile)
        values = ops.convert_to_tensor(values)
        # The first layer hands nothing down, and pixels have no gradient.
        differentiable = keras.backend.is_float_dtype(values.dtype)
        once = _median(lambda: forward(values), repetitions)  # noqa: B023  called at once
        twice = _median(lambda: both(values), repetitions) if differentiable else once  # noqa: B023
        rows.append({"layer": layer.name, "forward_seconds": once, "backward_seconds": max(0.0, twice - once)})
        values = ops.convert_to_numpy(forward(values))
    return rows


def _median(function, repetitions):
    times = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])  # the first one compiles


def _functions(layer, jit_compile):
    """Two functions of an activity, which wait for their results: the layer's output, and all its gradients too."""
    return {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()](layer, jit_compile)


def _jax(layer, jit_compile):
    import jax

    variables = layer.trainable_variables
    weights = [variable.value for variable in variables]

    @jax.jit
    def forward(weights, x):
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return layer(x, training=True)

    @jax.jit
    def both(weights, x):
        output, pull = jax.vjp(forward, weights, x)
        return pull(jax.numpy.ones_like(output))

    return (
        lambda x: jax.block_until_ready(forward(weights, x)),
        lambda x: jax.block_until_ready(both(weights, x)),
    )


def _tensorflow(layer, jit_compile):
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def forward(x):
        return layer(x, training=True)

    @tf.function(jit_compile=jit_compile)
    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = layer(x, training=True)
        weights = [variable.value for variable in layer.trainable_variables]
        return tape.gradient(output, [x, *weights])

    return forward, both


def _torch(layer, jit_compile):
    import torch

    weights = [variable.value for variable in layer.trainable_variables]

    def forward(x):
        with torch.no_grad():
            return layer(x, training=True)

    def both(x):
        x = x.detach().requires_grad_()
        output = layer(x, training=True)
        return torch.autograd.grad(output, [x, *weights], torch.ones_like(output))

    return forward, both
