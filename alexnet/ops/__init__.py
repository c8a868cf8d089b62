"""The operations that take a step's time, each in the form that was measured to be fast where Keras runs.

`reference` has all of them in plain `keras.ops`. Beside it, `tensorflow_ops`, `jax_ops` and `torch_ops` have those that
their framework computes faster in another form on a CPU; the tests compare each with its reference, results and
gradients. On other devices everything is the reference: nothing else has been measured there.

`python -m benchmarks` measures what it is worth.
"""

import importlib

import keras
from keras import ops

from alexnet.ops import reference

backend_ops = importlib.import_module(f"alexnet.ops.{keras.backend.backend()}_ops")


def _chosen(name):
    plain, impl = getattr(reference, name), getattr(backend_ops, name, None)
    if impl is None:
        return plain

    def operation(x, *arguments, **settings):
        return (impl if backend_ops.on_cpu(x) else plain)(x, *arguments, **settings)

    operation.__name__, operation.__doc__ = name, plain.__doc__
    return operation


local_response_normalization = _chosen("local_response_normalization")
convolution = _chosen("convolution")
local_convolution = _chosen("local_convolution")
max_pooling = _chosen("max_pooling")
ceil_pooling = _chosen("ceil_pooling")
_dense = _chosen("dense")
momentum_step = _chosen("momentum_step")


def dense(inputs, kernel, bias=None):
    """`(..., inputs)` times `(inputs, units)`, and a bias for each unit.

    Only arrays of rank 2 are multiplied. TensorFlow 2.20 multiplies rank 4 by rank 2 wrongly where a size is 1: it
    writes past its memory and says nothing.
    """
    if len(inputs.shape) == 2:
        return _dense(inputs, kernel, bias)
    outputs = _dense(ops.reshape(inputs, (-1, inputs.shape[-1])), kernel, bias)
    return ops.reshape(outputs, (*ops.shape(inputs)[:-1], kernel.shape[-1]))


def convolution_library():
    """Which one XLA computes convolutions with in this process; None on the other backends. `alexnet.tune_process`
    chooses it where JAX has computed nothing yet, and the last digits depend on it."""
    if not hasattr(backend_ops, "fuses_convolutions"):
        return None
    return "YNNPACK" if backend_ops.fuses_convolutions() else "Eigen"
