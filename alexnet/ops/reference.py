"""Every operation in plain `keras.ops`: what the fast forms are compared with, and what other devices compute."""

import functools
import operator

from keras import ops


def local_response_normalization(activities, axis, reach, k, alpha, beta, groups=1):
    """`activities / (k + alpha * energy) ** beta`, the energy being the sum of squares of `reach` neighbours to both
    sides along `axis`, inside one of `groups` equal parts of it (section 3.3 of the paper).

    Args:
        activities: float32 or float64, of rank 2 or more.
        axis: A number, or a tuple of them for a window over several axes.
    """
    return activities * power(k + alpha * window_sum(ops.square(activities), axis, reach, groups), beta)


def normalization_tangent(activities, tangent, axis, reach, k, alpha, beta, groups=1):
    """How far the result moves when `activities` move by `tangent`:

    db = da * s ** -beta - 2 alpha beta * a * s ** (-beta - 1) * window(a * da)      s = k + alpha * window(a ** 2)
    """
    scale = k + alpha * window_sum(ops.square(activities), axis, reach, groups)
    powers = power(scale, beta)
    sums = window_sum(activities * tangent, axis, reach, groups)
    return powers * tangent - 2 * alpha * beta * activities * powers / scale * sums


def normalization_gradient(activities, upstream, axis, reach, k, alpha, beta, groups=1):
    """The gradient of a loss by `activities`; `upstream` is that by the result. Written out because a framework would
    keep five arrays for the way back, where the activities suffice.

    da = db * s ** -beta - 2 alpha beta * a * window(db * a * s ** (-beta - 1))      s = k + alpha * window(a ** 2)
    """
    scale = k + alpha * window_sum(ops.square(activities), axis, reach, groups)
    shrunk = upstream * power(scale, beta)
    sums = window_sum(shrunk * activities / scale, axis, reach, groups)
    return shrunk - 2 * alpha * beta * activities * sums


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


def window_sum(values, axis, reach, groups=1):
    """Each value's sum with its `reach` neighbours to both sides along `axis`, inside its own of `groups` equal parts.

    Of shifted copies. A product with a band matrix of ones would be float32 in name only on a GPU (TF32: three digits),
    spread one infinity over all channels (0 * inf), and write past its memory in TensorFlow when a size is 1.
    """
    if isinstance(axis, tuple):
        return functools.reduce(lambda sums, each: window_sum(sums, each, reach, groups), axis, values)
    axis %= len(values.shape)
    if groups > 1:
        parts = ops.split(values, groups, axis)
        return ops.concatenate([window_sum(part, axis, reach) for part in parts], axis)
    size = values.shape[axis]
    reach = min(reach, size - 1)
    if reach < 1:
        return values
    before = (slice(None),) * axis
    edge = ops.zeros_like(
        values[(*before, slice(reach))]
    )  # ops.pad numbers its calls: torch.compile compiles each anew
    padded = ops.concatenate([edge, values, edge], axis)
    copies = (padded[(*before, slice(shift, shift + size))] for shift in range(2 * reach + 1))
    return functools.reduce(operator.add, copies)


def power(base, beta):
    """`base ** -beta` for a positive base; roots in place of the general power, which is slow on a CPU."""
    if beta == 0.75:
        root = ops.rsqrt(base)
        return root * ops.sqrt(root)
    return ops.power(base, -beta)
