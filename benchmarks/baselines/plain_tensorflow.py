"""AlexNet in plain TensorFlow: a `tf.Module` of variables and `tf.nn`, one `tf.function` for a step.

| candidate | |
|---|---|
| `function` | a graph of TensorFlow's kernels; oneDNN's on a CPU that has them |
| `xla` | the same functions with `jit_compile=True` |

The paper's columns are two convolutions: TensorFlow has no gradient of a grouped one on a CPU.
"""

import functools
import time

import tensorflow as tf

CANDIDATES = ("function", "xla")
NORMALIZATIONS = ("tf.nn.lrn eager", "tf.nn.lrn XLA")

BIASES_OF_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")


def local_response_norm(x):
    """The paper's, n = 5, k = 2, alpha = 1e-4, beta = .75."""
    return tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)


class AlexNet(tf.Module):
    """Pixels `(batch, size, size, 3)`, uint8, to logits `(batch, classes)`."""

    def __init__(self, image_size=227, width=1.0, classes=1000, dropout=0.5):
        super().__init__()
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
        std = 0.01 / width**0.5
        self.kernels = {name: tf.Variable(tf.random.normal(shape, stddev=std)) for name, shape in shapes.items()}
        self.biases = {
            name: tf.Variable(tf.fill(shape[-1:], float(name in BIASES_OF_ONE))) for name, shape in shapes.items()
        }
        self.mean = tf.constant([127.30, 119.72, 104.91])
        self.dropout = dropout

    def conv(self, name, x, stride=1, padding="SAME", columns=1):
        parts = zip(tf.split(x, columns, -1), tf.split(self.kernels[name], columns, -1), strict=True)
        maps = [tf.nn.conv2d(part, kernel, stride, padding) for part, kernel in parts]
        return tf.nn.relu(tf.nn.bias_add(tf.concat(maps, -1) if columns > 1 else maps[0], self.biases[name]))

    def dense(self, name, x):
        return tf.nn.bias_add(x @ self.kernels[name], self.biases[name])

    def __call__(self, pixels, training=False):
        x = tf.cast(pixels, tf.float32) - self.mean
        x = self.conv("conv1", x, stride=4, padding="VALID")
        x = tf.nn.max_pool2d(local_response_norm(x), 3, 2, "VALID")
        x = self.conv("conv2", x, columns=2)
        x = tf.nn.max_pool2d(local_response_norm(x), 3, 2, "VALID")
        x = self.conv("conv3", x)
        x = self.conv("conv4", x, columns=2)
        x = self.conv("conv5", x, columns=2)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        x = tf.reshape(x, (len(x), -1))
        for name in ("fc6", "fc7"):
            x = tf.nn.relu(self.dense(name, x))
            if training and self.dropout:
                x = tf.nn.dropout(x, self.dropout)
        return self.dense("fc8", x)


class Network:
    """A network, its momentum, and two functions."""

    def __init__(self, candidate, image_size=227, width=1.0, classes=1000, dropout=0.5, learning_rate=0.01):
        tf.random.set_seed(0)
        model = self.model = AlexNet(image_size, width, classes, dropout)
        variables = model.trainable_variables
        velocities = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        compiled = functools.partial(tf.function, jit_compile=candidate == "xla")

        @compiled
        def step(images, labels):
            with tf.GradientTape() as tape:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images, training=True))
                loss = tf.reduce_mean(losses)
            for variable, velocity, gradient in zip(variables, velocities, tape.gradient(loss, variables), strict=True):
                if len(variable.shape) > 1:  # only kernels decay
                    gradient += 5e-4 * variable
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=variable.handle, accum=velocity.handle, lr=learning_rate, grad=gradient, momentum=0.9
                )
            return loss

        self.step = step
        self.probabilities = compiled(lambda images: tf.nn.softmax(model(images)))

    def batch(self, images, labels):
        """NumPy images `(batch, size, size, 3)` and labels `(batch,)` as a data loader would deliver them."""
        return tf.constant(images), tf.constant(labels)

    def train(self, batch, steps):
        """Make `steps` steps on a batch; returns the last one's loss, and the seconds of all."""
        began = time.perf_counter()
        for _ in range(steps):
            loss = self.step(*batch)
        return float(loss), time.perf_counter() - began

    def predict(self, batch):
        """Probabilities `(batch, classes)` as NumPy."""
        return self.probabilities(batch[0]).numpy()

    def set_weights(self, weights):
        """Kernels and biases, NumPy, by layer."""
        for name, (kernel, bias) in weights.items():
            self.model.kernels[name].assign(kernel)
            self.model.biases[name].assign(bias)


def normalization(candidate, activations, above):
    """The normalization alone: activations and a gradient from above, NumPy `(batch, rows, columns, channels)`.

    Returns a function without arguments, which returns the normalized activations and the gradient below.
    """

    def both(x, above):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = local_response_norm(x)
        return output, tape.gradient(output, x, above)

    if candidate == "tf.nn.lrn XLA":
        both = tf.function(both, jit_compile=True)
    return functools.partial(both, tf.constant(activations), tf.constant(above))
