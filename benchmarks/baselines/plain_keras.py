"""AlexNet as a user of Keras writes it: `Sequential`, `Conv2D(groups=2)`, Keras's SGD, `fit` and `predict_on_batch`."""

import keras
from keras import layers, ops

from benchmarks.baselines.fitting import fit

CANDIDATES = ("keras",)
NORMALIZATIONS = ()


class LocalResponseNorm(layers.Layer):
    """Across channels: the squares, shifted five times and summed."""

    def call(self, x):
        channels = x.shape[-1]
        squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
        energy = sum(squares[..., i : i + channels] for i in range(5))
        return x * ops.power(2.0 + 1e-4 * energy, -0.75)


def alexnet(image_size=227, width=1.0, classes=1000, dropout=0.5):
    """Pixels `(batch, size, size, 3)`, uint8, to logits `(batch, classes)`."""
    std = 0.01 / width**0.5

    def settings(bias):
        return {
            "kernel_initializer": keras.initializers.RandomNormal(stddev=std),
            "bias_initializer": keras.initializers.Constant(bias),
            "kernel_regularizer": keras.regularizers.L2(5e-4 / 2),  # SGD's own weight_decay is another rule
        }

    def conv(name, filters, size, bias=0.0, **more):
        filters = 2 * round(filters * width / 2)
        return layers.Conv2D(filters, size, activation="relu", name=name, **settings(bias), **more)

    def dense(name):
        return layers.Dense(round(4096 * width), activation="relu", name=name, **settings(1.0))

    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            layers.Normalization(mean=[127.30, 119.72, 104.91], variance=[1.0, 1.0, 1.0]),
            conv("conv1", 96, 11, strides=4),
            LocalResponseNorm(),
            layers.MaxPooling2D(3, 2),
            conv("conv2", 256, 5, 1.0, padding="same", groups=2),
            LocalResponseNorm(),
            layers.MaxPooling2D(3, 2),
            conv("conv3", 384, 3, padding="same"),
            conv("conv4", 384, 3, 1.0, padding="same", groups=2),
            conv("conv5", 256, 3, 1.0, padding="same", groups=2),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            dense("fc6"),
            layers.Dropout(dropout),
            dense("fc7"),
            layers.Dropout(dropout),
            layers.Dense(classes, name="fc8", **settings(0.0)),
        ]
    )


class Network:
    """A compiled model, and the same one with a softmax."""

    def __init__(self, candidate, image_size=227, width=1.0, classes=1000, dropout=0.5, learning_rate=0.01):
        self.model = alexnet(image_size, width, classes, dropout)
        self.model.compile(
            keras.optimizers.SGD(learning_rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.classifier = keras.Sequential([self.model, layers.Softmax()])

    def batch(self, images, labels):
        return images, labels

    def train(self, batch, steps):
        """Make `steps` steps on a batch; returns their mean loss, with weight decay's penalty, and their seconds."""
        return fit(self.model, batch, steps)

    def predict(self, batch):
        """Probabilities `(batch, classes)` as NumPy."""
        return self.classifier.predict_on_batch(batch[0])

    def set_weights(self, weights):
        """Kernels and biases, NumPy, by layer."""
        for name, arrays in weights.items():
            self.model.get_layer(name).set_weights(arrays)
