"""What the processes do that `doctor` starts: one task each, whose results are files in a folder."""

import contextlib
import importlib
import io
import json
import os
import sys
from pathlib import Path

from alexnet.runtime import without

NETWORK, WIDTH, IMAGE_SIZE = "paper", 1 / 16, 67
STEPS, BATCH, CLASSES = 3, 8, 10  # of the training on replicas
REPLICAS = 2


def main(task, folder, *arguments):
    os.environ.pop("TF_CONFIG", None)  # which may name other processes; TensorFlow does not take an empty one
    TASKS[task](Path(folder), *arguments)


def is_cpu(devices):
    """Whether a backend computes on a CPU, judged by the names of its devices."""
    return all(device.lower().startswith("cpu") for device in devices)


def _write(folder, name, value):
    (folder / f"{name}.json").write_text(json.dumps(value))


def import_modules(folder, *modules):
    """`imports.json`: by the name of a module that cannot be imported, why; `importing.json`: the one being tried."""
    failed = {}
    for module in modules:
        _write(folder, "importing", module)
        try:
            with without("tensorflow"), without("jax"), without("torch"):  # which some import if they are there
                importlib.import_module(module)
        except Exception as error:
            failed[module] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    _write(folder, "imports", failed)


def look(folder, label, *plain):
    """`<label>-devices.json`: the backend's devices. `<label>.npz`: the numbers of a few steps; `<label>.json`: how
    much they differ from those that others have left in the folder, and may differ at most. On something other than a
    CPU, the label of these two ends with `-gpu`. With a further argument, `<label>-plain` is the same with the plain
    form of each operation."""
    _start()
    from alexnet.training import hardware

    devices = hardware()["devices"]
    _write(folder, f"{label}-devices", devices)
    if not is_cpu(devices):
        label += "-gpu"
        _compute_exactly()
    _measure(folder, label)
    if plain:
        from alexnet.ops import backend_ops

        backend_ops.is_measured = lambda x: False
        _measure(folder, f"{label}-plain")


def _start(devices=0):
    import alexnet

    alexnet.import_keras()
    if devices:
        alexnet.divide_processor(devices)
    alexnet.tune_process()


def _compute_exactly():
    """Let a GPU compute in float32, which it would round to fewer bits."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def _measure(folder, label):
    import numpy as np

    from alexnet.parity import BOUNDS, difference, measure

    found = measure(NETWORK, WIDTH, IMAGE_SIZE)
    differences = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as other:
            differences[path.stem] = difference(dict(other), found)
    np.savez(folder / f"{label}.npz", **found)
    _write(folder, label, {"differences": differences, "bounds": BOUNDS})


def train_replicas(folder, *divided):
    """`replicas.json`: losses of a few steps on one device and on several, and then a digest of each replica. With a
    further argument the devices are virtual ones, or processes, of the CPU."""
    backend = os.environ["KERAS_BACKEND"]
    if backend == "torch" and not os.environ["WORLD_SIZE"]:
        from alexnet.launching import launch_on_loopback

        command = [sys.executable, *sys.orig_argv[1:]]
        with contextlib.redirect_stderr(io.StringIO()):  # what it says of ranks
            status = launch_on_loopback(command, backend, REPLICAS, grace=2)
        sys.exit(status)
    _start(devices=REPLICAS if divided and backend != "torch" else 0)
    from alexnet.recipe import Recipe
    from alexnet.training import hardware
    from alexnet.training.distribution import Distribution, find_distribution

    sizes = {"image_size": IMAGE_SIZE, "resize": IMAGE_SIZE, "width": WIDTH}
    recipe = Recipe(**sizes, batch_size=BATCH, dropout=0, learning_rate=1e-3, distribute="data")
    distribution = find_distribution(recipe)
    devices = hardware()["devices"]
    if not is_cpu(devices):
        _compute_exactly()
    alone, _ = _train(recipe, Distribution())
    together, digests = _train(recipe, distribution)
    if distribution.is_chief:
        found = {"devices": distribution.devices, "on_cpu": is_cpu(devices)}
        _write(folder, "replicas", {**found, "alone": alone, "together": together, "digests": digests})


def _train(recipe, distribution):
    """Losses after each step, of all processes, and digests of the replicas."""
    import keras
    import numpy as np

    from alexnet.model import ZEROS, AlexNet
    from alexnet.parity import set_numpy_weights
    from alexnet.training import compile_model

    rng = np.random.default_rng(0)
    share = (STEPS, distribution.processes, BATCH // distribution.processes)
    images = rng.integers(0, 256, (*share, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)[:, distribution.rank]
    labels = rng.integers(0, CLASSES, share)[:, distribution.rank]
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs["loss"]))

    with distribution.scope():
        shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
        model = AlexNet(NETWORK, shape, CLASSES, WIDTH, dropout=0.0, initializer=ZEROS)
        set_numpy_weights(model)
        training_model = compile_model(model, recipe)
        distribution.start(training_model)
        training_model.fit(
            images.reshape(-1, *shape),
            labels.reshape(-1),
            batch_size=share[-1],
            shuffle=False,
            verbose=0,
            callbacks=[Losses()],
        )
        digests = distribution.replica_digests([*model.variables, *training_model.optimizer.variables])
    return np.mean(distribution.gather(losses), axis=0).tolist(), digests


TASKS = {each.__name__: each for each in (import_modules, look, train_replicas)}
