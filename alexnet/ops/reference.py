"""Every operation in plain `keras.ops`: what the fast forms are compared with, and what other devices compute."""

import functools
import operator

import numpy as np
from keras import ops


def local_response_normalization(activations, axis, radius, k, alpha, beta, groups=1):
    """`activations / (k + alpha * squared_sum) ** beta`, the sum being that of squares of `radius` neighbors to both
    sides along `axis`, inside one of `groups` equal parts of it (section 3.3 of the paper).

    Args:
        activations: float32 or float64, of rank 2 or more.
        axis: A number, or a tuple of them for a window over several axes.
    """
    return activations * inverse_power(k + alpha * windowed_sum(ops.square(activations), axis, radius, groups), beta)


def normalization_tangent(activations, tangent, axis, radius, k, alpha, beta, groups=1):
    """How far the result moves when `activations` move by `tangent`:

    db = da * s ** -beta - 2 alpha beta * a * s ** (-beta - 1) * window(a * da)      s = k + alpha * window(a ** 2)
    """
    scale = k + alpha * windowed_sum(ops.square(activations), axis, radius, groups)
    powers = inverse_power(scale, beta)
    sums = windowed_sum(activations * tangent, axis, radius, groups)
    return powers * tangent - 2 * alpha * beta * activations * powers / scale * sums


def normalization_gradient(activations, grad, axis, radius, k, alpha, beta, groups=1):
    """The gradient of a loss by `activations`; `grad` is that by the result. Written out because a framework would
    keep five arrays for the way back, where the activations suffice.

    da = db * s ** -beta - 2 alpha beta * a * window(db * a * s ** (-beta - 1))      s = k + alpha * window(a ** 2)
    """
    scale = k + alpha * windowed_sum(ops.square(activations), axis, radius, groups)
    shrunk = grad * inverse_power(scale, beta)
    sums = windowed_sum(shrunk * activations / scale, axis, radius, groups)
    return shrunk - 2 * alpha * beta * activations * sums


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


def local_convolution(inputs, kernel, bias=None, size=(1, 1), strides=(1, 1)):
    """A convolution without shared weights: `kernel` has a different set of filters for each position of the result.

    Args:
        inputs: `(batch, height, width, channels)`.
        kernel: `(rows, columns, size[0] * size[1] * channels, filters)`, the windows' values in the order of a
            convolution's kernel: rows, columns, channels.
        bias: `(rows, columns, filters)`.

    Returns:
        `(batch, rows, columns, filters)`.
    """
    rows, columns = kernel.shape[:2]
    shifted = [
        inputs[:, y : y + rows * strides[0] : strides[0], x : x + columns * strides[1] : strides[1]][:, :rows, :columns]
        for y in range(size[0])
        for x in range(size[1])
    ]
    windows = ops.concatenate(shifted, -1)
    # Each position is a separate product: the positions are the batch of one matrix product.
    outputs = ops.matmul(ops.transpose(windows, (1, 2, 0, 3)), kernel)
    outputs = ops.transpose(outputs, (2, 0, 1, 3))
    return outputs if bias is None else outputs + bias


def max_pooling(inputs, size, stride):
    """The largest of each `size` x `size` pixels, `stride` pixels apart, of `(batch, height, width, channels)`."""
    return ops.max_pool(inputs, size, stride, "valid", "channels_last")


def ceil_pooling(inputs, size, stride, kind="max"):
    """Pooling of `size` x `size` pixels, `stride` apart, whose last windows may be cut off at the end.

    Keras's padding `"same"` begins before the first pixel where a side is odd, and its average counts copies of the
    last pixel on PyTorch.

    Args:
        kind: `"max"` or `"average"`, which is of the pixels inside a window.
    """
    sides = inputs.shape[1:3]
    missing = [(-(-(side - size) // stride)) * stride + size - side for side in sides]
    lowest = float("-inf") if kind == "max" else 0.0
    padded = _padded(inputs, missing, lowest)
    if kind == "max":
        return max_pooling(padded, size, stride)
    sums = ops.average_pool(padded, size, stride, "valid", "channels_last") * (size * size)
    rows, columns = (
        np.array([min(size, side - start) for start in range(0, side + more - size + 1, stride)], "float32")
        for side, more in zip(sides, missing, strict=True)
    )
    return sums / ops.cast(np.outer(rows, columns)[None, :, :, None], sums.dtype)


def _padded(inputs, after, value):
    """With so many rows and columns of a value behind the last ones. `ops.pad` numbers its calls, so that
    torch.compile compiles each again."""
    for axis, count in zip((1, 2), after, strict=True):
        if count:
            edge = ops.full_like(inputs[(slice(None),) * axis + (slice(count),)], value)
            inputs = ops.concatenate([inputs, edge], axis)
    return inputs


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


def windowed_sum(values, axis, radius, groups=1):
    """Each value's sum with its `radius` neighbors to both sides along `axis`, inside its own of `groups` equal parts.

    Of shifted copies. A product with a band matrix of ones would be float32 in name only on a GPU (TF32: three digits),
    spread one infinity over all channels (0 * inf), and write past its memory in TensorFlow when a size is 1.
    """
    if isinstance(axis, tuple):
        return functools.reduce(lambda sums, each: windowed_sum(sums, each, radius, groups), axis, values)
    axis %= len(values.shape)
    if groups > 1:
        parts = ops.split(values, groups, axis)
        return ops.concatenate([windowed_sum(part, axis, radius) for part in parts], axis)
    size = values.shape[axis]
    radius = min(radius, size - 1)
    if radius < 1:
        return values
    before = (slice(None),) * axis
    edge = ops.zeros_like(
        values[(*before, slice(radius))]
    )  # ops.pad numbers its calls: torch.compile would compile each again
    padded = ops.concatenate([edge, values, edge], axis)
    copies = (padded[(*before, slice(shift, shift + size))] for shift in range(2 * radius + 1))
    return functools.reduce(operator.add, copies)


def inverse_power(base, beta):
    """`base ** -beta` for a positive base; roots in place of the general power, which is slow on a CPU."""
    if beta == 0.75:
        root = ops.rsqrt(base)
        return root * ops.sqrt(root)
    return ops.power(base, -beta)
