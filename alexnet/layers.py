"""Keras layers that AlexNet needs and Keras does not have."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from alexnet.ops import convolution, dense, local_response_normalization, max_pooling


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
        groups: Equal parts of the channels that no window leaves; 2 for a network of two columns whose columns are
            normalized apart, as in the program of 2012. The paper's text has 1.

    Shapes:
        Input and output are alike: `(batch, ..., channels)`, or `(batch, channels, ...)` when channels come
        first, of rank 2 or more. All sizes but the channels' may be unknown.

    Raises:
        ValueError: an argument out of its range, a rank below 2, or a number of channels that is unknown or no
            multiple of `groups`.
    """

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75, data_format=None, groups=1, **kwargs):
        super().__init__(**kwargs)
        _require_whole("n", n)
        _require_whole("groups", groups)
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
        self.groups = int(groups)
        self.supports_masking = True

    def build(self, input_shape):
        self._count_channels(input_shape)
        self.built = True

    def call(self, inputs):
        axis = self._channel_axis(len(inputs.shape))
        return _normalized(self, inputs, axis, self.n // 2, self.k, self.alpha, self.beta, self.groups)

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
        if channels % self.groups:
            raise ValueError(
                f"The channels cannot be cut into {self.groups} equal groups. "
                f"Received: input_shape={tuple(input_shape)}, groups={self.groups}"
            )
        return channels

    def compute_output_shape(self, input_shape):
        self._count_channels(input_shape)
        return tuple(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(
            n=self.n, k=self.k, alpha=self.alpha, beta=self.beta, data_format=self.data_format, groups=self.groups
        )
        return config


@keras.saving.register_keras_serializable(package="alexnet", name="SameMapNormalization")  # as saved models call it
class WithinChannelLRN(keras.layers.Layer):
    """Response normalization over a square of neighbours in the same map.

    The program of 2012 has it after the second layer's LRN; the paper does not mention it.

        b[y, x] = a[y, x] / (k + alpha * sum(a[v, u] ** 2)) ** beta
        v, u within size // 2 of y, x and inside the map

    `alpha` is the factor of the sum, as in `LocalResponseNormalization`: the program's scale divided by `size ** 2`.
    Caffe calls it LRN `WITHIN_CHANNEL`, with k = 1 and `size ** 2 * alpha`.

    Args:
        size: Side of the square, an odd whole number.
        k: Added to the sum, > 0.
        alpha: Factor of the sum of squares, >= 0.
        beta: Exponent, any finite number.

    Shapes:
        Input and output `(batch, height, width, channels)`, height and width known.

    Raises:
        ValueError: an argument out of its range, or a shape that is no known image's.
    """

    def __init__(self, size=5, k=1.0, alpha=4e-5, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        _require_whole("size", size)
        if size % 2 == 0:
            raise ValueError(f"size must be odd. Received: size={size!r}")
        _require("k", k, "greater than 0", lambda value: value > 0)
        _require("alpha", alpha, "0 or more", lambda value: value >= 0)
        _require("beta", beta, "finite", lambda value: True)
        self.size = int(size)
        self.k = float(k)
        self.alpha = float(alpha)
        self.beta = float(beta)

    def build(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:3]:
            raise ValueError(
                f"The input must be (batch, height, width, channels), height and width known. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.built = True

    def call(self, inputs):
        return _normalized(self, inputs, (1, 2), self.size // 2, self.k, self.alpha, self.beta)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "k": self.k, "alpha": self.alpha, "beta": self.beta}


@keras.saving.register_keras_serializable(package="alexnet")
class AverageMaps(keras.layers.Layer):
    """Maps of any size averaged to `size` x `size`, as `torch.nn.AdaptiveAvgPool2d` does it.

    Keras's own layer of that purpose fails on TensorFlow for maps smaller than `size`.

    Args:
        size: Rows and columns of the output.

    Shapes:
        Input `(batch, height, width, channels)`, height and width known; output `(batch, size, size, channels)`.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        _require_whole("size", size)
        self.size = int(size)

    def call(self, inputs):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype)):
            inputs = ops.cast(inputs, self.compute_dtype)
        for axis in (1, 2):
            windows = (slice(None),) * axis
            means = [ops.mean(inputs[(*windows, window)], axis) for window in self._windows(inputs.shape[axis])]
            inputs = ops.stack(means, axis)
        return inputs

    def matrices(self, input_shape):
        """The same as products, for formats without such a layer: matrices of `(height, size)` and `(width, size)`."""
        found = []
        for side in input_shape[1:3]:
            matrix = np.zeros((side, self.size), "float32")
            for number, window in enumerate(self._windows(side)):
                matrix[window, number] = 1 / (window.stop - window.start)
            found.append(matrix)
        return found

    def _windows(self, side):
        """Window i goes from i * side / size to the next, whole pixels."""
        return [slice(i * side // self.size, -(-(i + 1) * side // self.size)) for i in range(self.size)]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="alexnet")
class GroupedConv2D(keras.layers.Conv2D):
    """`Conv2D`, whose `groups` are the paper's columns (section 3.2, figure 2), computed as `alexnet.ops` knows.

    Arguments, kernel, bias and results are `keras.layers.Conv2D`'s.
    """

    def call(self, inputs):
        if self.data_format == "channels_first" or self.dilation_rate != (1, 1):
            return super().call(inputs)
        kernel, bias = (None if each is None else ops.convert_to_tensor(each) for each in (self.kernel, self.bias))
        outputs = convolution(inputs, kernel, bias, self.strides, self.padding, self.groups)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="alexnet")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D`, computed as `alexnet.ops` knows."""

    def call(self, inputs):
        square = self.pool_size[0] == self.pool_size[1] and self.strides[0] == self.strides[1]
        if not square or self.padding != "valid" or self.data_format == "channels_first":
            return super().call(inputs)
        return max_pooling(inputs, self.pool_size[0], self.strides[0])


@keras.saving.register_keras_serializable(package="alexnet")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`, computed as `alexnet.ops` knows."""

    def call(self, inputs, training=None):
        if len(inputs.shape) != 2:
            return super().call(inputs, training)
        kernel, bias = (None if each is None else ops.convert_to_tensor(each) for each in (self.kernel, self.bias))
        outputs = dense(inputs, kernel, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def quantize(self, mode=None, type_check=True, config=None):
        super().quantize(mode, type_check=False, config=config)  # which knows Keras's own class by its type


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


def _normalized(layer, inputs, axis, *settings):
    """Response normalization in float32 or better, in the dtype of the inputs, or the layer's for whole numbers."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    activities = ops.cast(inputs, keras.backend.result_type(dtype, "float32"))
    outputs = local_response_normalization(activities, axis, *settings)
    return ops.cast(outputs, dtype if keras.backend.is_float_dtype(dtype) else layer.compute_dtype)


def _require_whole(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more. Received: {name}={value!r}")


def _require(name, value, allowed, holds):
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must be a finite number, {allowed}. Received: {name}={value!r}")
