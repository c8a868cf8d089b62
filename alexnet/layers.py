"""Keras layers that AlexNet needs and Keras does not have."""

import math
import numbers

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="alexnet")
class LocalResponseNormalization(keras.layers.Layer):
    """Response normalization across neighbouring channels (section 3.3 of the paper).

    Each activity is divided by a power of its neighbours' energy:

        b[i] = a[i] / (k + alpha * sum(a[j] ** 2)) ** beta
        j from max(0, i - n // 2) to min(N - 1, i + n // 2), N channels in all

    The symbols have the paper's meaning: `alpha` is *not* divided by `n`, and an even `n` reaches as far as
    the paper's formula says, `n / 2` channels to both sides, a window of `n + 1`. Others write the same with

    | implementation | this layer's n, k, alpha, beta become |
    |---|---|
    | `tf.nn.local_response_normalization` | depth_radius=n // 2, bias=k, alpha=alpha, beta=beta |
    | `torch.nn.LocalResponseNorm` | size=w, k=k, alpha=w * alpha, beta=beta |
    | Caffe `LRN` | local_size=w, k=k, alpha=w * alpha, beta=beta |
    | ONNX `LRN` | size=w, bias=k, alpha=w * alpha, beta=beta |

    where w = 2 * (n // 2) + 1 is the window's width (n itself when n is odd).

    The sum of squares is kept in float32 when the activities are float16 or bfloat16.

    Args:
        n: Window of neighbouring channels, a whole number >= 1.
        k: Added to the sum, > 0, so that nothing is divided by zero.
        alpha: Factor of the sum of squares, >= 0.
        beta: Exponent, any finite number.
        data_format: `"channels_last"` or `"channels_first"`; None takes `keras.config.image_data_format()`.

    Shapes:
        Input and output are alike: `(batch, ..., channels)`, or `(batch, channels, ...)` when channels come
        first, of rank 2 or more. All sizes but the channels' may be unknown.

    Raises:
        ValueError: an argument out of its range, a rank below 2 or an unknown number of channels.
    """

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75, data_format=None, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(n, numbers.Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"n must be a whole number of 1 or more. Received: n={n!r}")
        _require("k", k, "greater than 0", lambda value: value > 0)
        _require("alpha", alpha, "0 or more", lambda value: value >= 0)
        _require("beta", beta, "finite", lambda value: True)
        if data_format not in (None, "channels_last", "channels_first"):
            raise ValueError(
                f"data_format must be 'channels_last' or 'channels_first'. Received: data_format={data_format!r}"
            )
        self.n = int(n)
        self.k = float(k)
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.data_format = data_format or keras.config.image_data_format()
        self.supports_masking = True

    def build(self, input_shape):
        self._count_channels(input_shape)
        self.built = True

    def call(self, inputs):
        activities = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        energy = self._sum_over_window(ops.square(activities))
        outputs = activities * _power(self.k + self.alpha * energy, -self.beta)
        return ops.cast(outputs, inputs.dtype)

    def _sum_over_window(self, squares):
        """The sum over `n // 2` channels to both sides: the product with a band matrix of ones.

        Measured on two CPU cores, forward and backward, three times as fast in JAX and TensorFlow as a sum of
        shifted copies, and one and a half times in PyTorch.
        """
        axis = self._channel_axis(len(squares.shape))
        distance = np.arange(squares.shape[axis])[:, None] - np.arange(squares.shape[axis])
        band = ops.convert_to_tensor(np.abs(distance) <= self.n // 2, squares.dtype)
        if axis == len(squares.shape) - 1:
            return ops.matmul(squares, band)
        return ops.moveaxis(ops.matmul(ops.moveaxis(squares, axis, -1), band), -1, axis)

    def _channel_axis(self, rank):
        return 1 if self.data_format == "channels_first" else rank - 1

    def _count_channels(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(f"The input needs a rank of 2 or more. Received: input_shape={tuple(input_shape)}")
        channels = input_shape[self._channel_axis(len(input_shape))]
        if channels is None:
            raise ValueError(
                f"The number of channels ({self.data_format}) must be known. Received: input_shape={tuple(input_shape)}"
            )
        return channels

    def compute_output_shape(self, input_shape):
        self._count_channels(input_shape)
        return tuple(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(n=self.n, k=self.k, alpha=self.alpha, beta=self.beta, data_format=self.data_format)
        return config


@keras.saving.register_keras_serializable(package="alexnet")
class GroupedConv2D(keras.layers.Conv2D):
    """`Conv2D` computed in a form that is fast on each backend; the paper's columns are its `groups`.

    Arguments, kernel, bias and results are `keras.layers.Conv2D`'s. Only the way there differs:

    - `groups` convolutions side by side (section 3.2, figure 2) in place of one grouped convolution, which is slow
      on a CPU in JAX and TensorFlow and is not split over devices by XLA;
    - on JAX's CPU a convolution with a stride as matrix products: conv1 made a training step of the whole network
      twice as slow.
    """

    def convolution_op(self, inputs, kernel):
        if self.groups == 1:
            return self._convolve(inputs, kernel)
        axis = -1 if self.data_format == "channels_last" else 1
        columns = zip(ops.split(inputs, self.groups, axis), ops.split(kernel, self.groups, -1), strict=True)
        return ops.concatenate([self._convolve(column, filters) for column, filters in columns], axis)

    def _convolve(self, inputs, kernel):
        plain = self.padding == "valid" and self.data_format == "channels_last" and self.dilation_rate == (1, 1)
        if plain and self.strides[0] > 1 and None not in inputs.shape[1:] and _on_jax_cpu():
            return strided_convolution(inputs, kernel, self.strides)
        return super().convolution_op(inputs, kernel)


def strided_convolution(inputs, kernel, strides):
    """`ops.conv(inputs, kernel, strides, "valid")` as a matrix product for each row of the kernel.

    A stride's worth of neighbouring pixels counts as one pixel of more channels, so that the product has long rows.
    """
    _, height, width, channels = inputs.shape
    down, across = strides
    rows, kernel_width = kernel.shape[:2]
    blocks = math.ceil(kernel_width / across)
    out_height, out_width = (height - rows) // down + 1, (width - kernel_width) // across + 1
    covered = across * (out_width + blocks - 1)
    pixels = ops.pad(inputs[:, :, :covered], ((0, 0), (0, 0), (0, max(0, covered - width)), (0, 0)))
    pixels = ops.reshape(pixels, (-1, height, covered // across, across * channels))
    windows = ops.concatenate([pixels[:, :, block : block + out_width] for block in range(blocks)], -1)
    weights = ops.pad(kernel, ((0, 0), (0, blocks * across - kernel_width), (0, 0), (0, 0)))
    weights = ops.reshape(weights, (rows, blocks * across * channels, -1))
    last = (out_height - 1) * down + 1
    return sum(ops.matmul(windows[:, row : row + last : down], weights[row]) for row in range(rows))


def _on_jax_cpu():
    return keras.backend.backend() == "jax" and keras.distribution.list_devices()[0].startswith("cpu")


@keras.saving.register_keras_serializable(package="alexnet")
class PixelNormalization(keras.layers.Layer):
    """Pixels minus the mean of each colour, divided by its standard deviation, in float32.

    Args:
        mean: One number for each channel, in the pixels' own units (0-255).
        std: One number for each channel, or 1 to leave the scale alone, as the paper does (section 2).

    Shapes:
        Input `(batch, height, width, channels)` of any dtype, output the same shape in float32.
    """

    def __init__(self, mean, std=1.0, **kwargs):
        super().__init__(dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.mean = mean
        self.std = std

    def call(self, inputs):
        pixels = ops.cast(inputs, "float32")
        centred = pixels - ops.convert_to_tensor(self.mean, "float32")
        return centred if self.std == 1.0 else centred / ops.convert_to_tensor(self.std, "float32")

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}


def _require(name, value, allowed, holds):
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must be a finite number, {allowed}. Received: {name}={value!r}")


def _power(base, exponent):
    """`base ** exponent` for a positive base; roots in place of the general power, which is slow on a CPU."""
    if exponent == -0.75:
        root = ops.rsqrt(base)
        return root * ops.sqrt(root)
    return ops.power(base, exponent)
