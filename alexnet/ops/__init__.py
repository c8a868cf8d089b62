"""The operations that take a step's time, each in the form that was measured to be fast where Keras runs.

`reference` has all of them in plain `keras.ops`. Beside it, `tensorflow_ops`, `jax_ops` and `torch_ops` have those that
their framework computes faster in another form on a CPU, and on CUDA with PyTorch. The tests compare each with its
reference, results and gradients. On other devices everything is the reference: no other form is known to be faster.

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
        return (impl if backend_ops.is_measured(x) else plain)(x, *arguments, **settings)

    operation.__name__, operation.__doc__ = name, plain.__doc__
    return operation


_local_response_normalization = _chosen("local_response_normalization")
_convolution = _chosen("convolution")
local_convolution = _chosen("local_convolution")
max_pooling = _chosen("max_pooling")
ceil_pooling = _chosen("ceil_pooling")
_dense = _chosen("dense")
momentum_step = _chosen("momentum_step")


def _column_mesh(groups):
    """The devices that hold one of `groups` columns of channels each, or None where the channels are not divided so."""
    return backend_ops.column_mesh(groups) if groups > 1 and hasattr(backend_ops, "column_mesh") else None


def convolution(inputs, kernel, bias=None, strides=(1, 1), padding="valid", groups=1):
    mesh = _column_mesh(groups)
    if mesh is None:
        return _convolution(inputs, kernel, bias, strides, padding, groups)
    arrays = [inputs, kernel] if bias is None else [inputs, kernel, bias]
    return backend_ops.in_columns(lambda *own: _convolution(*own, strides=strides, padding=padding), mesh, *arrays)


def local_response_normalization(activations, axis, radius, k, alpha, beta, groups=1):
    settings = (axis, radius, k, alpha, beta)
    mesh = _column_mesh(groups)
    if mesh is None:
        return _local_response_normalization(activations, *settings, groups)
    return backend_ops.in_columns(lambda own: _local_response_normalization(own, *settings), mesh, activations)


convolution.__doc__ = _convolution.__doc__
local_response_normalization.__doc__ = _local_response_normalization.__doc__


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
    """Which one XLA computes convolutions with on a CPU in this process; None on a GPU and on the other backends.
    `alexnet.tune_process` chooses it where JAX has computed nothing yet, and the last digits depend on it."""
    if not hasattr(backend_ops, "fuses_convolutions") or not backend_ops.is_measured(None):
        return None
    return "YNNPACK" if backend_ops.fuses_convolutions() else "Eigen"
