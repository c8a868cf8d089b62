"""Keras layers that AlexNet needs and Keras does not have."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from alexnet.ops import (
    ceil_pooling,
    convolution,
    dense,
    local_convolution,
    local_response_normalization,
    max_pooling,
)


@keras.saving.register_keras_serializable(package="alexnet")
class LocalResponseNormalization(keras.layers.Layer):
    """Response normalization across neighbouring channels (section 3.3 of the paper).

    Each activation is divided by a power of its neighbours' squared sum:

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

    The sum of squares is kept in float32 when the activations are float16 or bfloat16.

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

    Examples:
        >>> norm = alexnet.LocalResponseNormalization(n=3, k=2.0, alpha=1.0, beta=1.0)
        >>> keras.ops.convert_to_numpy(norm(np.array([[3.0, 4.0, 12.0]], "float32"))).round(4)
        array([[0.1111, 0.0234, 0.0741]], dtype=float32)
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

    Examples:
        >>> norm = alexnet.WithinChannelLRN(3, k=1.0, alpha=1.0, beta=1.0)
        >>> keras.ops.convert_to_numpy(norm(np.ones((1, 3, 3, 1), "float32")))[0, :, :, 0].round(4)
        array([[0.2   , 0.1429, 0.2   ],
               [0.1429, 0.1   , 0.1429],
               [0.2   , 0.1429, 0.2   ]], dtype=float32)
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

    Examples:
        >>> layer = alexnet.GroupedConv2D(8, 3, groups=2)
        >>> tuple(layer(np.ones((1, 5, 5, 4), "float32")).shape), tuple(layer.kernel.shape)
        ((1, 3, 3, 8), (3, 3, 2, 8))
    """

    def call(self, inputs):
        if self.data_format == "channels_first" or self.dilation_rate != (1, 1):
            return super().call(inputs)
        kernel, bias = (None if each is None else ops.convert_to_tensor(each) for each in (self.kernel, self.bias))
        outputs = convolution(inputs, kernel, bias, self.strides, self.padding, self.groups)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="alexnet")
class LocallyConnected2D(keras.layers.Layer):
    """A convolution whose weights are not shared: every place of the output has filters and biases of its own.

    cuda-convnet's CIFAR-10 networks end in two of them; Keras had this layer until version 2.

    Args:
        filters: Feature maps of the output.
        kernel_size: Rows and columns of a window, a whole number or two of them.
        strides: Rows and columns from one window to the next.
        padding: `"valid"`, or `"same"` for as many places as the input has, at strides of 1.
        activation: Applied to the output; None for none.
        use_bias: Whether there is a bias, one number for each place and feature map.
        kernel_initializer: Of the kernel. Those that scale with the number of inputs count the inputs of one place.
        bias_initializer: Of the bias.

    Shapes:
        Input `(batch, height, width, channels)`, all but the batch known; output `(batch, rows, columns, filters)`.
        The kernel is `(rows, columns, kernel_size[0] * kernel_size[1] * channels, filters)`, the values of a window in
        the order of a convolution's kernel; the bias `(rows, columns, filters)`.

    Raises:
        ValueError: an argument out of its range, an unknown size, or an input smaller than one window.

    Examples:
        >>> layer = alexnet.LocallyConnected2D(8, 3, padding="same")
        >>> tuple(layer(np.ones((1, 4, 4, 2), "float32")).shape), tuple(layer.kernel.shape)
        ((1, 4, 4, 8), (4, 4, 18, 8))
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        _require_whole("filters", filters)
        self.filters = int(filters)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same'. Received: padding={padding!r}")
        if padding == "same" and self.strides != (1, 1):
            raise ValueError(f"padding='same' needs strides of 1. Received: strides={strides!r}")
        self.padding = padding
        self.activation = keras.activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        inputs = math.prod(self.kernel_size) * input_shape[-1]
        initializer = self.kernel_initializer
        if isinstance(initializer, keras.initializers.VarianceScaling):
            # Keras takes the places for a kernel's rows and columns, and so for inputs of one unit.
            initializer = keras.initializers.VarianceScaling(
                initializer.scale * rows * columns, initializer.mode, initializer.distribution, initializer.seed
            )
        self.kernel = self.add_weight(
            name="kernel", shape=(rows, columns, inputs, self.filters), initializer=initializer
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(rows, columns, self.filters), initializer=self.bias_initializer
            )
        self.built = True

    def call(self, inputs):
        if self.padding == "same":
            around = [((side - 1) // 2, side - 1 - (side - 1) // 2) for side in self.kernel_size]
            inputs = ops.pad(inputs, ((0, 0), *around, (0, 0)))
        kernel, bias = (None if each is None else ops.convert_to_tensor(each) for each in (self.kernel, self.bias))
        outputs = local_convolution(inputs, kernel, bias, self.kernel_size, self.strides)
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape):
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"The input must be (batch, height, width, channels), all but the batch known. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        sides = tuple(input_shape[1:3])
        if self.padding == "valid":
            pairs = zip(sides, self.kernel_size, self.strides, strict=True)
            sides = tuple((side - window) // stride + 1 for side, window, stride in pairs)
        if min(sides) < 1:
            raise ValueError(
                f"The input is smaller than one window. "
                f"Received: input_shape={tuple(input_shape)}, kernel_size={self.kernel_size}"
            )
        return (input_shape[0], *sides, self.filters)

    def get_config(self):
        names = ("filters", "kernel_size", "strides", "padding", "use_bias")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


class _Pooling2D:
    """What `rounding` adds to Keras's pooling layers: `"ceil"` has a last window that is cut off at the end, where
    windows do not come out even. Channels last, the same size and strides along both axes, padding `"valid"`."""

    def __init__(self, pool_size=(2, 2), strides=None, padding="valid", data_format=None, rounding="floor", **kwargs):
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        if rounding not in ("floor", "ceil"):
            raise ValueError(f"rounding must be 'floor' or 'ceil'. Received: rounding={rounding!r}")
        if rounding == "ceil" and (not self._is_plain() or self.strides[0] > self.pool_size[0]):
            raise ValueError(
                "rounding='ceil' needs square windows that do not lie apart, padding='valid', channels last. Received: "
                f"pool_size={pool_size!r}, strides={strides!r}, padding={padding!r}, data_format={self.data_format!r}"
            )
        self.rounding = rounding

    def _is_plain(self):
        square = self.pool_size[0] == self.pool_size[1] and self.strides[0] == self.strides[1]
        return square and self.padding == "valid" and self.data_format == "channels_last"

    def compute_output_shape(self, input_shape):
        if self.rounding == "floor":
            return super().compute_output_shape(input_shape)
        size, stride = self.pool_size[0], self.strides[0]
        if len(input_shape) != 4 or None in input_shape[1:3] or min(input_shape[1:3]) < size:
            raise ValueError(
                "rounding='ceil' needs a known height and width of at least one window. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        sides = (-(-(side - size) // stride) + 1 for side in input_shape[1:3])
        return (input_shape[0], *sides, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "rounding": self.rounding}


@keras.saving.register_keras_serializable(package="alexnet")
class MaxPooling2D(_Pooling2D, keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D`, computed as `alexnet.ops` knows, with a `rounding` (`"floor"` or `"ceil"`)."""

    def call(self, inputs):
        if self.rounding == "ceil":
            return ceil_pooling(inputs, self.pool_size[0], self.strides[0], "max")
        if not self._is_plain():
            return super().call(inputs)
        return max_pooling(inputs, self.pool_size[0], self.strides[0])


@keras.saving.register_keras_serializable(package="alexnet")
class AveragePooling2D(_Pooling2D, keras.layers.AveragePooling2D):
    """`keras.layers.AveragePooling2D` with a `rounding`, `"floor"` or `"ceil"`. A window that is cut off averages
    what it sees.

    Examples:
        >>> layer = alexnet.AveragePooling2D(3, 2, rounding="ceil")
        >>> tuple(layer(np.ones((1, 6, 6, 1), "float32")).shape)
        (1, 3, 3, 1)
    """

    def call(self, inputs):
        if self.rounding == "ceil":
            return ceil_pooling(inputs, self.pool_size[0], self.strides[0], "average")
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="alexnet")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`, computed as `alexnet.ops` knows."""

    def call(self, inputs, training=None):
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
        centered = pixels - ops.convert_to_tensor(self.mean, "float32")
        return centered if self.std == 1.0 else centered / ops.convert_to_tensor(self.std, "float32")

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}


def _normalized(layer, inputs, axis, *settings):
    """Response normalization in float32 or better, in the dtype of the inputs, or the layer's for whole numbers."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    activations = ops.cast(inputs, keras.backend.result_type(dtype, "float32"))
    outputs = local_response_normalization(activations, axis, *settings)
    return ops.cast(outputs, dtype if keras.backend.is_float_dtype(dtype) else layer.compute_dtype)


def _require_whole(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more. Received: {name}={value!r}")


def _pair(name, value):
    """A whole number, or two of them, as two."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    for each in pair:
        _require_whole(name, each)
    if len(pair) != 2:
        raise ValueError(f"{name} must be one whole number or two. Received: {name}={value!r}")
    return tuple(map(int, pair))


def _require(name, value, allowed, holds):
    if not isinstance(value, numbers.Real) or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must be a finite number, {allowed}. Received: {name}={value!r}")
