"""Time of batches and layers in this process, on its backend."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def batch_times(
    model: keras.Model, batch_sizes: Sequence[int] = (1, 2, 4, 8, 16, 32), repetitions: int = 3
) -> list[dict[str, float]]:
    """The seconds of a prediction in batches of different sizes.

    Args:
        model: A network that takes images.
        batch_sizes: Numbers of images.
        repetitions: The median of so many is taken.

    Returns:
        A dictionary for each: `batch_size`, and `seconds` for the whole batch.
    """
    images = np.random.default_rng(0).integers(0, 256, (max(batch_sizes), *model.input.shape[1:]), np.uint8)
    return [
        {
            "batch_size": batch_size,
            "seconds": _median(lambda: model.predict_on_batch(images[:batch_size]), repetitions),  # noqa: B023
        }
        for batch_size in batch_sizes
    ]


def layer_times(model: keras.Model, images: np.ndarray, repetitions: int = 5) -> list[dict[str, Any]]:
    """The seconds that each layer takes alone, forward and backward as in training.

    Layers are compiled where the backend compiles them. A compiled network can be faster than the sum of its layers.

    Args:
        model: One of `alexnet.AlexNet`'s, a chain of layers.
        images: `(batch, height, width, 3)`; each layer is given what the layers below make of them.
        repetitions: The median of so many is taken.

    Returns:
        A dictionary for each layer: `layer`, `forward_seconds`, `backward_seconds`. The second one is what the
        gradients cost beyond the output: those of the layer's weights, and of its input if a layer below has weights.
    """
    rows, values, weights_below = [], np.asarray(images), False
    for layer in model.layers[1:]:
        forward, both = _functions(layer, weights_below, model.jit_compile)
        values = ops.convert_to_tensor(values)
        once = twice = _median(lambda: forward(values), repetitions)  # noqa: B023  called at once
        if weights_below or layer.trainable_variables:
            twice = _median(lambda: both(values), repetitions)  # noqa: B023
            weights_below = True
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


def _functions(layer, hands_down, jit_compile):
    """Two functions of an activation that wait for their results: one computes the layer's output, the other also its
    gradients, for its weights and, if it `hands_down` one, for its input."""
    functions = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[keras.backend.backend()]
    return functions(layer, hands_down, jit_compile)


def _jax(layer, hands_down, jit_compile):
    import jax

    variables = layer.trainable_variables
    weights = [variable.value for variable in variables]

    @jax.jit
    def forward(weights, x):
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            return layer(x, training=True)

    @jax.jit
    def both(weights, x):
        output, pull = jax.vjp(forward, weights, x) if hands_down else jax.vjp(lambda w: forward(w, x), weights)
        return pull(jax.numpy.ones_like(output))

    return (
        lambda x: jax.block_until_ready(forward(weights, x)),
        lambda x: jax.block_until_ready(both(weights, x)),
    )


def _tensorflow(layer, hands_down, jit_compile):
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
        return tape.gradient(output, [x, *weights] if hands_down else weights)

    return forward, both


def _torch(layer, hands_down, jit_compile):
    import torch

    weights = [variable.value for variable in layer.trainable_variables]

    def forward(x):
        with torch.no_grad():
            return layer(x, training=True)

    def both(x):
        x = x.detach().requires_grad_(hands_down)
        output = layer(x, training=True)
        return torch.autograd.grad(output, [x, *weights] if hands_down else weights, torch.ones_like(output))

    return forward, both
