"""Response normalization along the last axis for compilers that fuse loops: sums of shifted copies, and the gradient
written out. A compiler would otherwise keep five arrays for the way back, where the activities suffice.

    b = a * s ** -beta                                              s = k + alpha * window(a ** 2)
    da = db * s ** -beta - 2 alpha beta * a * window(db * a * s ** (-beta - 1))
"""

from keras import ops

from alexnet.kernels.reference import power


def normalize(activities, reach, k, alpha, beta, groups):
    """What `reference.local_response_normalization` computes, along the last axis."""
    return activities * power(k + alpha * _window(ops.square(activities), reach, groups), beta)


def gradient(activities, upstream, reach, k, alpha, beta, groups):
    """The gradient of a loss by `activities`; `upstream` is that by the result."""
    scale = k + alpha * _window(ops.square(activities), reach, groups)
    shrunk = upstream * power(scale, beta)
    return shrunk - 2 * alpha * beta * activities * _window(shrunk * activities / scale, reach, groups)


def _window(values, reach, groups):
    """The sum of each value and its neighbours."""
    if groups > 1:
        return ops.concatenate([_window(part, reach, 1) for part in ops.split(values, groups, -1)], -1)
    channels = values.shape[-1]
    padded = ops.pad(values, [(0, 0)] * (len(values.shape) - 1) + [(reach, reach)])
    return sum(padded[..., shift : shift + channels] for shift in range(2 * reach + 1))
