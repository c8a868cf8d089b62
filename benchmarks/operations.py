"""The fast form of each operation beside its reference, forward and backward, on the device that the framework chooses.

    KERAS_BACKEND=torch python -m benchmarks.operations [BATCH_SIZE]

The two take turns. `error` is the largest relative distance between their results and gradients. It is about one in a
thousand if the reference multiplies in TF32 on a GPU.
"""

import functools
import statistics
import sys
import time

import numpy as np

import alexnet

keras = alexnet.import_keras()
alexnet.tune_process()

from alexnet.ops import backend_ops, reference  # noqa: E402

LRN = {"axis": -1, "radius": 2, "k": 2.0, "alpha": 1e-4, "beta": 0.75}
ROUNDS = 10
# Layers of the paper's network: name, operation, shapes of its arrays without the batch, settings.
CASES = (
    ("norm1", "local_response_normalization", [(55, 55, 96)], LRN),
    ("norm2", "local_response_normalization", [(27, 27, 256)], LRN),
    ("pool1", "max_pooling", [(55, 55, 96)], {"size": 3, "stride": 2}),
    ("conv1", "convolution", [(227, 227, 3), (11, 11, 3, 96), (96,)], {"strides": (4, 4)}),
    ("conv2", "convolution", [(27, 27, 96), (5, 5, 48, 256), (256,)], {"padding": "same", "groups": 2}),
    ("conv4", "convolution", [(13, 13, 384), (3, 3, 192, 384), (384,)], {"padding": "same", "groups": 2}),
    ("fc6", "dense", [(9216,), (9216, 4096), (4096,)], {}),
)


def differentiated(function, arrays):
    """A function without arguments that computes the result and the gradients of all arrays, and waits for them."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def both(*arrays):
            output, pull = jax.vjp(function, *arrays)
            return output, *pull(output)

        run, tensors = jax.jit(both), jax.device_put(arrays)
        return lambda: jax.block_until_ready(run(*tensors))
    if backend == "torch":
        import torch

        from benchmarks.baselines.plain_torch import DEVICE, wait_for

        tensors = [torch.from_numpy(array).to(DEVICE).requires_grad_() for array in arrays]

        def run():
            output = function(*tensors)
            return wait_for(output, *torch.autograd.grad(output, tensors, output.detach()))

        return run
    import tensorflow as tf

    tensors = [tf.constant(array) for array in arrays]

    @tf.function
    def taped(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = function(*tensors)
        return output, *tape.gradient(output, tensors, tf.stop_gradient(output))

    return lambda: [each.numpy() for each in taped(*tensors)]


def seconds(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def relative_distance(one, other):
    one, other = (keras.ops.convert_to_numpy(each).astype("float64") for each in (one, other))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def main(batch_size=32):
    from alexnet.training import hardware

    print(f"{keras.backend.backend()} on {', '.join(hardware()['devices'])}, batches of {batch_size}")
    rng = np.random.default_rng(0)
    for layer, name, (inputs, *weights), settings in CASES:
        if not hasattr(backend_ops, name):
            continue
        maps = np.maximum(rng.normal(0, 50, (batch_size, *inputs)), 0).astype("float32")  # like the output of a ReLU
        arrays = [maps, *(rng.normal(0, 0.01, shape).astype("float32") for shape in weights)]
        forms = [getattr(module, name) for module in (backend_ops, reference)]
        fast, plain = (differentiated(functools.partial(form, **settings), arrays) for form in forms)
        error = max(relative_distance(*pair) for pair in zip(fast(), plain(), strict=True))
        times = np.array([(seconds(fast), seconds(plain)) for _ in range(ROUNDS)])
        ratio = statistics.median(times[:, 1] / times[:, 0])
        ours, theirs = 1000 * np.median(times, axis=0)
        print(f"{layer:6} {ours:8.2f} ms, reference {theirs:8.2f} ms: {ratio:5.2f} times as fast, error {error:.0e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
