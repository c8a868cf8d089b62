"""AlexNet in plain JAX: functions of a tree of parameters, optax, one jitted step.

| candidate | |
|---|---|
| `grouped` | the paper's columns as `feature_group_count=2` |
| `columns` | as two convolutions whose outputs are concatenated |
"""

import functools
import time

import jax
import jax.numpy as jnp
import optax
from jax import lax

CANDIDATES = ("columns", "grouped")
NORMALIZATIONS = ("shifted sum",)

MEAN = (127.30, 119.72, 104.91)
BIASES_OF_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def init(key, image_size, width, classes):
    """Parameters: by layer `kernel` `(rows, columns, in, out)` or `(in, out)`, and `bias`."""
    c1, c2, c3, c4, c5 = (2 * round(filters * width / 2) for filters in (96, 256, 384, 384, 256))
    hidden = round(4096 * width)
    side = (image_size - 11) // 4 + 1  # after conv1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    shapes = {
        "conv1": (11, 11, 3, c1),
        "conv2": (5, 5, c1 // 2, c2),
        "conv3": (3, 3, c2, c3),
        "conv4": (3, 3, c3 // 2, c4),
        "conv5": (3, 3, c4 // 2, c5),
        "fc6": (c5 * side * side, hidden),
        "fc7": (hidden, hidden),
        "fc8": (hidden, classes),
    }
    return {
        name: {
            "kernel": 0.01 / width**0.5 * jax.random.normal(layer_key, shape),
            "bias": jnp.full(shape[-1], name in BIASES_OF_ONE, jnp.float32),
        }
        for (name, shape), layer_key in zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True)
    }


def conv(x, layer, stride=1, padding="SAME", groups=1, split=True):
    """A convolution in `groups` columns, side by side (`split`) or as XLA's grouped convolution."""
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if groups > 1 and split:
        columns = zip(jnp.split(x, groups, -1), jnp.split(layer["kernel"], groups, -1), strict=True)
        return jnp.concatenate([convolve(*column) for column in columns], -1) + layer["bias"]
    return convolve(x, layer["kernel"], feature_group_count=groups) + layer["bias"]


def local_response_norm(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Across channels: the squares, shifted n times and summed."""
    squares = jnp.pad(x**2, [(0, 0)] * (x.ndim - 1) + [(n // 2, n // 2)])
    energy = sum(squares[..., i : i + x.shape[-1]] for i in range(n))
    return x * (k + alpha * energy) ** -beta


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def drop(key, x, rate):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def forward(params, pixels, split, dropout=0.0, key=None):
    """Logits of uint8 pixels `(batch, size, size, 3)`; with a key, as in training."""
    x = pixels.astype(jnp.float32) - jnp.array(MEAN)
    x = jax.nn.relu(conv(x, params["conv1"], stride=4, padding="VALID"))
    x = pool(local_response_norm(x))
    x = jax.nn.relu(conv(x, params["conv2"], groups=2, split=split))
    x = pool(local_response_norm(x))
    x = jax.nn.relu(conv(x, params["conv3"]))
    x = jax.nn.relu(conv(x, params["conv4"], groups=2, split=split))
    x = pool(jax.nn.relu(conv(x, params["conv5"], groups=2, split=split)))
    x = x.reshape(len(x), -1)
    keys = [None, None] if key is None else jax.random.split(key)
    for name, layer_key in zip(("fc6", "fc7"), keys, strict=True):
        x = jax.nn.relu(dense(x, params[name]))
        if layer_key is not None and dropout:
            x = drop(layer_key, x, dropout)
    return dense(x, params["fc8"])


class Network:
    """Parameters, the optimizer's state, and two jitted functions of them."""

    def __init__(self, candidate, image_size=227, width=1.0, classes=1000, dropout=0.5, learning_rate=0.01):
        split = candidate == "columns"
        self.key, key = jax.random.split(jax.random.key(0))
        self.params = init(key, image_size, width, classes)
        optimizer = optax.chain(
            optax.add_decayed_weights(5e-4, mask=lambda params: jax.tree.map(lambda weight: weight.ndim > 1, params)),
            optax.sgd(learning_rate, momentum=0.9),
        )
        self.state = optimizer.init(self.params)

        def loss(params, images, labels, key):
            logits = forward(params, images, split, dropout, key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(params, state, key, images, labels):
            key, dropout_key = jax.random.split(key)
            value, gradients = jax.value_and_grad(loss)(params, images, labels, dropout_key)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, key, value

        self.step = step
        self.probabilities = jax.jit(lambda params, images: jax.nn.softmax(forward(params, images, split)))

    def batch(self, images, labels):
        """NumPy images `(batch, size, size, 3)` and labels `(batch,)` as a data loader would deliver them."""
        return images, labels

    def train(self, batch, steps):
        """Make `steps` steps on a batch; returns the last one's loss, and the seconds of all."""
        began = time.perf_counter()
        for _ in range(steps):
            self.params, self.state, self.key, loss = self.step(self.params, self.state, self.key, *batch)
        return float(loss), time.perf_counter() - began

    def predict(self, batch):
        """Probabilities `(batch, classes)` as NumPy."""
        return jax.device_get(self.probabilities(self.params, batch[0]))

    def set_weights(self, weights):
        """Kernels and biases, NumPy, by layer."""
        self.params = {
            name: {"kernel": jnp.array(kernel), "bias": jnp.array(bias)} for name, (kernel, bias) in weights.items()
        }


def normalization(candidate, activations, above):
    """The normalization alone: activations and a gradient from above, NumPy `(batch, rows, columns, channels)`.

    Returns a function without arguments, which returns the normalized activations and the gradient below.
    """

    @jax.jit
    def both(x, above):
        output, pull = jax.vjp(local_response_norm, x)
        return output, *pull(above)

    tensors = jax.device_put((activations, above))
    return lambda: jax.block_until_ready(both(*tensors))
