"""TensorFlow on a CPU."""

import functools

import tensorflow as tf

from alexnet._compat import tensorflow_has_tangents
from alexnet.ops import reference

_has_tangents = tensorflow_has_tangents()


@functools.cache
def _only_cpus():
    return not tf.config.list_physical_devices("GPU")


def is_measured(x):
    """Whether this process has no other device: in a graph, TensorFlow does not tell where `x` will be."""
    return _only_cpus()


def local_response_normalization(activations, axis, radius, k, alpha, beta, groups=1):
    """As sums of shifted copies, which XLA makes one loop each way."""
    settings = (axis, radius, k, alpha, beta, groups)
    activations = tf.convert_to_tensor(activations)
    if _has_tangents(activations):
        return reference.local_response_normalization(activations, *settings)

    @tf.custom_gradient
    def normalize(activations):
        return _forward(activations, *settings), lambda grad: _backward(activations, grad, *settings)

    return normalize(activations)


_forward = tf.function(reference.local_response_normalization, jit_compile=True)
_backward = tf.function(reference.normalization_gradient, jit_compile=True)


def dense(inputs, kernel, bias=None):
    """With the gradient of `inputs` as kernel times the gradient above, which reads the kernel as it lies in memory."""
    if inputs.dtype != kernel.dtype:
        return reference.dense(inputs, kernel, bias)

    @tf.custom_gradient
    def matmul(inputs, kernel):
        def gradient(grad):
            return (
                tf.transpose(tf.matmul(kernel, grad, transpose_b=True)),
                tf.matmul(inputs, grad, transpose_a=True),
            )

        return tf.matmul(inputs, kernel), gradient

    # Called eagerly, `tf.custom_gradient` takes no `tf.Variable`.
    outputs = matmul(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


def momentum_step(variable, velocity, gradient, learning_rate, momentum, decay):
    """In one pass over the weights, by XLA, where a graph is made that will be run many times."""
    variables = (each if isinstance(each, tf.Variable) else each.value for each in (variable, velocity))
    compiled = not tf.executing_eagerly()
    step = tf.function(reference.momentum_step, jit_compile=True) if compiled else reference.momentum_step
    step(*variables, gradient, learning_rate, momentum, decay)
