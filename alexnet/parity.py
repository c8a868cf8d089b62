"""The same network with the same weights on every backend: how much the results differ."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

from alexnet._compat import variable_index
from alexnet.model import ZEROS, AlexNet, without_softmax
from alexnet.networks import PUBLISHED
from alexnet.progress import progress
from alexnet.recipe import BACKENDS

IMAGES, STEPS, CLASSES = 3, 5, 1000
# What `difference` may be at most where two backends compute the same.
BOUNDS = {"logits": 1e-4, "gradients": 1e-3, "training": 1e-3}
WORKER = """
import json, sys, alexnet
alexnet.import_keras()
import numpy
from alexnet.parity import measure
numpy.savez(sys.argv[2], **measure(*json.loads(sys.argv[1])))
"""


class _Keep(keras.optimizers.Optimizer):
    """Leaves the weights alone and keeps the gradients, in a way that works on every backend."""

    def build(self, variables):
        super().build(variables)
        self.kept = self.add_optimizer_variables(variables, "gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.kept[variable_index(self, variable)], gradient)


class Gradients:
    """Of a model: the gradients of the mean cross-entropy of some images, by layer those of kernel and bias."""

    def __init__(self, model):
        self._training_model = without_softmax(model)
        self._training_model.compile(
            _Keep(1.0, name="keep"), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )

    def __call__(self, images, labels):
        self._training_model.train_on_batch(images, labels)
        kept = iter(self._training_model.optimizer.kept)
        layers = [layer.name for layer in self._training_model.layers if layer.trainable_variables]
        return {name: tuple(ops.convert_to_numpy(next(kept)) for _ in range(2)) for name in layers}


def set_numpy_weights(model, seed=0):
    """Give a model weights that are the same on every backend: kernels that keep activations' size, small biases."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None:
            fan_in = np.prod(layer.kernel.shape[:-1])
            kernel = rng.standard_normal(layer.kernel.shape, np.float32) * np.float32(fan_in**-0.5)
            layer.set_weights([kernel, rng.normal(0, 0.1, layer.bias.shape).astype("float32")])


def measure(network, width=1.0, image_size=None):
    """Logits, gradients and five training losses of a network on this process's backend, by name.

    Weights, images and labels come from NumPy. The gradients are those of each image alone.
    """
    shape = None if image_size is None else (image_size, image_size, 3)
    model = AlexNet(network, shape, CLASSES, width, dropout=0.0, initializer=ZEROS)
    set_numpy_weights(model)
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (IMAGES, *model.input.shape[1:]), dtype="uint8")
    labels = rng.integers(0, CLASSES, IMAGES)
    training_model = without_softmax(model)
    found = {"logits": np.asarray(training_model.predict_on_batch(images))}
    gradients = Gradients(model)
    for i in range(IMAGES):
        for layer, (kernel, bias) in gradients(images[i : i + 1], labels[i : i + 1]).items():
            found |= {f"gradient {i} {layer} kernel": kernel, f"gradient {i} {layer} bias": bias}
    rate = 3e-3 if network == "torchvision" else 1e-5  # its pixels are sixty times smaller
    training_model.compile(
        keras.optimizers.SGD(rate, 0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    found["losses"] = np.array([batch_loss(training_model, images, labels) for _ in range(STEPS)])
    return found


def batch_loss(training_model, images, labels):
    """The loss of one training step. Some versions of Keras give the mean of all steps since the last reset."""
    training_model.reset_metrics()
    return float(training_model.train_on_batch(images, labels))


def difference(one, other):
    """The difference of two measurements, relative to the first: of logits and losses the largest number, of
    gradients the norm of each array.

    An activation next to a kink of ReLU or of max-pooling may fall on different sides on different backends, which
    changes the gradient of its image. So the median of the three images counts: a real fault shows in all three.
    """
    # NumPy's max and median, unlike Python's, do not lose a NaN.
    gradients = [
        np.max(
            [
                np.linalg.norm(one[name] - other[name]) / np.linalg.norm(one[name])
                for name in one
                if name.startswith(f"gradient {i} ")
            ]
        )
        for i in range(IMAGES)
    ]
    return {
        "logits": float(np.abs(one["logits"] - other["logits"]).max() / np.abs(one["logits"]).max()),
        "gradients": float(np.median(gradients)),
        "training": float(np.abs(one["losses"] - other["losses"]).max() / np.abs(one["losses"]).max()),
    }


def compare(networks=PUBLISHED, backends=BACKENDS, width=1.0, image_size=None, verbose=None):
    """Every network on every backend, each in a process of its own.

    Returns:
        A dictionary for each network: `network`, and the largest relative difference of `logits`, `gradients` and
        `training` (five losses) between any two backends.

    Raises:
        subprocess.CalledProcessError: a process failed; its error stream is shown.
    """
    rows, jobs = [], list(itertools.product(networks, backends))
    with tempfile.TemporaryDirectory() as folder:
        for network, backend in progress(jobs, len(jobs), "Comparing backends", verbose):
            path = Path(folder) / f"{backend}.npz"
            arguments = json.dumps([network, width, image_size])
            environment = {**os.environ, "KERAS_BACKEND": backend}
            subprocess.run([sys.executable, "-c", WORKER, arguments, path], env=environment, check=True)
            if backend == backends[-1]:
                found = [dict(np.load(Path(folder) / f"{name}.npz", allow_pickle=False)) for name in backends]
                pairs = [difference(one, other) for one, other in itertools.combinations(found, 2)]
                rows.append(
                    {"network": network, **{key: float(np.max([pair[key] for pair in pairs])) for key in pairs[0]}}
                )
    return rows
