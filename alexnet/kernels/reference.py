"""Every operation in plain `keras.ops`: what the fast forms are compared with, and what other devices compute."""

import numpy as np
from keras import ops


def local_response_normalization(activities, axis, reach, k, alpha, beta, groups=1):
    """`activities / (k + alpha * energy) ** beta`, the energy being the sum of squares of `reach` neighbours to both
    sides along `axis`, inside one of `groups` equal parts of it (section 3.3 of the paper).

    Args:
        activities: float32 or float64, of rank 2 or more.
    """
    energy = times_band(ops.square(activities), axis, reach, groups)
    return activities * power(k + alpha * energy, beta)


def convolution(inputs, kernel, bias=None, strides=(1, 1), padding="valid", groups=1):
    """Convolution of `(batch, height, width, channels)` with a kernel `(rows, columns, channels / groups, filters)`.

    A bias is added to each filter's map. The groups are convolutions side by side: one grouped convolution is slow in
    JAX and TensorFlow on a CPU, and XLA does not split it over devices.
    """
    if groups == 1:
        outputs = ops.conv(inputs, kernel, strides, padding, "channels_last")
    else:
        columns = zip(ops.split(inputs, groups, -1), ops.split(kernel, groups, -1), strict=True)
        outputs = ops.concatenate(
            [ops.conv(part, filters, strides, padding, "channels_last") for part, filters in columns], -1
        )
    return outputs if bias is None else outputs + bias


def max_pooling(inputs, size, stride):
    """The largest of each `size` x `size` pixels, `stride` pixels apart, of `(batch, height, width, channels)`."""
    return ops.max_pool(inputs, size, stride, "valid", "channels_last")


def dense(inputs, kernel, bias=None):
    """`(batch, inputs)` times `(inputs, units)`, and a bias for each unit."""
    outputs = ops.matmul(inputs, kernel)
    return outputs if bias is None else outputs + bias


def momentum_step(variable, velocity, gradient, learning_rate, momentum, decay):
    """The paper's update rule (section 5), which changes a variable `w` and its velocity `v`.

    v <- momentum * v - learning_rate * (gradient + decay * w)
    w <- w + v
    """
    if decay:
        gradient = gradient + decay * variable
    velocity.assign(momentum * velocity - learning_rate * gradient)
    variable.assign_add(velocity)


def times_band(values, axis, reach, groups=1):
    """Along `axis`, each value's sum with its `reach` neighbours to both sides inside its own of `groups` parts: a
    product with a band matrix of ones."""
    place = np.arange(values.shape[axis])
    part = place * groups // values.shape[axis]
    return times(values, axis, (np.abs(place[:, None] - place) <= reach) & (part[:, None] == part))


def times(values, axis, matrix):
    """The product of one axis with a matrix."""
    matrix = ops.convert_to_tensor(matrix, values.dtype)
    if axis in (-1, len(values.shape) - 1):
        return ops.matmul(values, matrix)
    return ops.moveaxis(ops.matmul(ops.moveaxis(values, axis, -1), matrix), -1, axis)


def power(base, beta):
    """`base ** -beta` for a positive base; roots in place of the general power, which is slow on a CPU."""
    if beta == 0.75:
        root = ops.rsqrt(base)
        return root * ops.sqrt(root)
    return ops.power(base, -beta)
