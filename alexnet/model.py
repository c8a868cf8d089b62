"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from pixels to class probabilities."""

import math
import numbers
import random
from dataclasses import dataclass

import keras
import numpy as np

from alexnet.layers import (
    AverageMaps,
    AveragePooling2D,
    Dense,
    GroupedConv2D,
    LocallyConnected2D,
    LocalResponseNormalization,
    MaxPooling2D,
    PixelNormalization,
    WithinChannelLRN,
)
from alexnet.networks import INITIALIZERS, network_of, specs
from alexnet.weights import FORMATS, Checkpoint, CheckpointError, read_checkpoint

PIXEL_STD = 75.0  # of natural images, 0-255
ZEROS = "zeros"  # for values that are overwritten or never used; JAX would compile the random ones


def AlexNet(
    network="paper",
    input_shape=None,
    classes=1000,
    width=1.0,
    include_top=True,
    weights=None,
    classifier_activation="softmax",
    name=None,
    *,
    initializer="paper",
    dropout=0.5,
    mean=None,
    activation="relu",
    without=(),
):
    """AlexNet as a `keras.Model`, built as section 3 of the paper describes it, or as others have built it.

    | network | filters | columns | after conv1 | after conv2 | alpha, k of LRN | parameters |
    |---|---|---|---|---|---|---|
    | `paper` | 96-256-384-384-256 | 2 | ReLU, LRN, pool | ReLU, LRN, pool | 1e-4, 2 | 60,965,224 |
    | `krizhevsky2012` | 96-256-384-384-256 | 2 | LRN, pool, ReLU | ReLU, both LRNs, pool | 2e-5, 2 | 60,965,224 |
    | `caffe` | 96-256-384-384-256 | 2 | ReLU, LRN, pool | ReLU, LRN, pool | 2e-5, 1 | 60,965,224 |
    | `caffenet` | 96-256-384-384-256 | 2 | ReLU, pool, LRN | ReLU, pool, LRN | 2e-5, 1 | 60,965,224 |
    | `one_tower` | 64-192-384-256-256 | 1 | LRN, pool, ReLU | ReLU, LRN, pool | 2e-5, 2 | 61,100,840 |
    | `torchvision` | 64-192-384-256-256 | 1 | ReLU, pool | ReLU, pool | none | 61,100,840 |

    `krizhevsky2012` is net 145 of the source code of 2012, whose ten-view errors are the paper's: LRN stays inside each
    column and `WithinChannelLRN` follows the second. conv5 is pooled before its ReLU there and in `one_tower`,
    which is the same. `torchvision` pads conv1 by 2 for an input of 224 pixels, averages what is not 6 x 6 after pool5
    to 6 x 6, drops before fc6 and fc7 and normalizes pixels to a deviation of 1.

    The paper says its input is 224 pixels wide; the sizes it gives further on need 227. In the programs of the time
    the last window reaches past an image of 224 pixels: that of conv1 in 2012, over three rows and columns of zeros
    behind the pixels minus their mean; that of pool1 in Caffe. So it is here for sides of 224 to 226 pixels. Sides of
    224 to 258 pixels all end in 6 x 6 maps, so one checkpoint serves them all; at other sizes fc6 has different
    inputs.

    Args:
        network: Which network, a name in `alexnet.NETWORKS`: those of the table; its ablations `net147` (pools that do
            not overlap), `net148` (no LRN), `net150` (conv3 in two columns, too), `net145_half` (one column); the
            CIFAR-10 networks `cifar10_80sec`, `cifar10_18pct`, `cifar10_13pct`, `cifar10_13pct_lrn`,
            `cifar10_11pct`; or one that `alexnet.register_network` was given.
        input_shape: `(height, width, 3)`, each side 67 pixels or more for most of them; None for what the network was
            trained with, 227 pixels a side, 224 for `"torchvision"`, 32 or 24 for those of CIFAR-10.
        classes: Number of classes, the units of `fc8`.
        width: Factor of the number of filters and hidden units. The standard deviation of the paper's initial
            values is multiplied by `1 / sqrt(width)`, so that activations keep their size.
        include_top: False ends the network after `pool5`.
        weights: None, or the path of a checkpoint in any format that `alexnet.load_checkpoint` reads. If it has
            a different number of classes, all layers but the last are loaded, and the last one keeps fresh initial
            values. `"imagenet"` raises an error that says where to get published weights.
        classifier_activation: What follows `fc8`, in float32; None returns the logits.
        name: The model's name.
        initializer: `"paper"` for the initial values of the network's authors (in `"paper"` section 5's Gaussian and
            its biases of 1), or `"he_normal"`, which learns much sooner from a small data set: biases of 0 and He's
            Gaussian, whose standard deviation sqrt(2 / inputs) is multiplied by 75 ** (-1/8). He's rule keeps the
            size of what it is given, and pixels have a size of about 75: the layers share the way down to
            logits of about 1. Pixels that the network scales itself (`"torchvision"`) need less.
        dropout: Share of `fc6` and `fc7` that is left out in training (section 4.2).
        activation: `"relu"`, or `"tanh"`, which replaces every ReLU (section 3.1).
        mean: RGB mean of the training images, 0-255, which is subtracted from every pixel (section 2). None for the
            checkpoint's where the file has one, and for the network's otherwise.
        without: Names of layers to leave out, each with its own activation and dropout, like `("conv4",)`: section 7
            asks what a layer is worth.

    Returns:
        A model from RGB pixels 0-255 (uint8 or float, the mean is subtracted inside), of shape
        `(batch, height, width, 3)`, to probabilities of shape `(batch, classes)`. Without its top, to maps of
        shape `(batch, rows, columns, 256 * width)`.

    Raises:
        ValueError: an unknown network, initializer or layer, or a size out of range.
        CheckpointError: a missing or damaged checkpoint, or one of a different network.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> model.predict(np.zeros((2, 67, 67, 3), "uint8"), verbose=0).shape
        (2, 3)
    """
    row = network_of(network, activation, without)
    if input_shape is None:
        input_shape = (row.image_size, row.image_size, 3)
    _check_arguments(row, network, input_shape, classes, width, initializer, dropout)
    checkpoint = weights
    if weights is not None and not isinstance(weights, Checkpoint):
        checkpoint = read_checkpoint(weights)
    overhang = None
    if checkpoint is not None:
        mean = checkpoint.mean if mean is None else mean
        overhang = checkpoint.overhang(input_shape[:2])
    if overhang is None:
        overhang = {row.overhang: tuple(map(row.overhanging, input_shape[:2]))}
    build = _Build(row, classes, width, initializer, dropout, overhang)
    pixels = keras.Input(input_shape, name="pixels")
    x = PixelNormalization(tuple(row.pixel_mean if mean is None else mean), row.pixel_std, name="mean")(pixels)
    for spec in row.layers:
        if isinstance(spec, specs.Flatten) and not include_top:
            break
        x = _BUILDERS[type(spec)](spec, x, build)
    if include_top and classifier_activation is not None:
        x = keras.layers.Activation(classifier_activation, dtype="float32", name="prob")(x)
    model = keras.Model(pixels, x, name=name or f"alexnet_{network}")
    if checkpoint is not None:
        _assign_weights(model, checkpoint, network, row)
    return model


@dataclass(frozen=True)
class _Build:
    """What a layer's builder needs beside its spec.

    `overhang` has, by layer, the rows and columns of zeros behind its input.
    """

    network: specs.Network
    classes: int
    width: float
    initializer: str
    dropout: float
    overhang: dict


def _convolution(spec, x, build):
    fan_in = spec.kernel**2 * x.shape[-1] // spec.groups
    x, padding = _padded(spec, x, build)
    return GroupedConv2D(
        specs.scale_width(spec.filters, build.width, build.network.groups),
        spec.kernel,
        strides=spec.stride,
        padding=padding,
        groups=spec.groups,
        data_format="channels_last",
        **_initializers(spec, build, fan_in),
        name=spec.name,
    )(x)


def _locally_connected(spec, x, build):
    fan_in = spec.kernel**2 * x.shape[-1]
    x, padding = _padded(spec, x, build)
    return LocallyConnected2D(
        specs.scale_width(spec.filters, build.width, build.network.groups),
        spec.kernel,
        strides=spec.stride,
        padding=padding,
        **_initializers(spec, build, fan_in),
        name=spec.name,
    )(x)


def _padded(spec, x, build):
    """The input of a convolution with its zeros around it, and the padding that is left to Keras."""
    same = spec.stride == 1 and spec.kernel % 2 and spec.padding == spec.kernel // 2  # what Keras calls same
    zeros = tuple((spec.padding, spec.padding + rows) for rows in build.overhang.get(spec.name, (0, 0)))
    if any(map(any, zeros)) and not same:
        name = f"pad{_number(spec.name)}"
        x = keras.layers.ZeroPadding2D(zeros, data_format="channels_last", name=name)(x)
    return x, "same" if same else "valid"


def _dense(spec, x, build):
    return Dense(
        build.classes if spec.units is None else specs.scale_width(spec.units, build.width),
        **_initializers(spec, build, x.shape[-1]),
        dtype="float32" if spec.units is None else None,
        name=spec.name,
    )(x)


def _activation(spec, x, build):
    if spec.function == "relu":
        return keras.layers.ReLU(name=spec.name)(x)
    return keras.layers.Activation(spec.function, name=spec.name)(x)


def _lrn(spec, x, build):
    return LocalResponseNormalization(**specs.settings(spec), data_format="channels_last", name=spec.name)(x)


def _within_channel_lrn(spec, x, build):
    return WithinChannelLRN(**specs.settings(spec), name=spec.name)(x)


def _pool(spec, x, build):
    zeros = build.overhang.get(spec.name, (0, 0))
    if any(zeros) and spec.rounding == "floor":  # zeros are as good as nothing here: a ReLU comes before or after
        zeros = tuple((0, rows) for rows in zeros)
        name = f"overhang{_number(spec.name)}"
        x = keras.layers.ZeroPadding2D(zeros, data_format="channels_last", name=name)(x)
    layer = MaxPooling2D if spec.kind == "max" else AveragePooling2D
    return layer(spec.size, spec.stride, data_format="channels_last", rounding=spec.rounding, name=spec.name)(x)


def _adaptive_pool(spec, x, build):
    if x.shape[1:3] == (spec.size, spec.size):  # nothing to average at the size that the network was trained with
        return x
    return AverageMaps(spec.size, name=spec.name)(x)


def _flatten(spec, x, build):
    return keras.layers.Flatten(data_format="channels_last", name=spec.name)(x)


def _dropout(spec, x, build):
    # With its own seed: without one, PyTorch's dropout follows a generator whose state no checkpoint holds.
    return keras.layers.Dropout(build.dropout, seed=random.randrange(2**31), name=spec.name)(x)


_BUILDERS = {
    specs.Conv: _convolution,
    specs.LocallyConnected: _locally_connected,
    specs.Dense: _dense,
    specs.Activation: _activation,
    specs.LRN: _lrn,
    specs.WithinChannelLRN: _within_channel_lrn,
    specs.Pool: _pool,
    specs.AdaptivePool: _adaptive_pool,
    specs.Flatten: _flatten,
    specs.Dropout: _dropout,
}


def _number(name):
    """The 1 of `conv1`: layers that belong to it have the same number."""
    return name.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") or f"_{name}"


def _initializers(spec, build, fan_in):
    if build.initializer == ZEROS:
        kernel, bias = keras.initializers.Zeros(), keras.initializers.Zeros()
    elif build.initializer == "he_normal":
        kernel = keras.initializers.RandomNormal(stddev=init_gain(build.network) * math.sqrt(2 / fan_in))
        bias = keras.initializers.Zeros()
    elif spec.init_std is None:  # PyTorch's default
        bound = 1 / math.sqrt(fan_in)
        kernel, bias = keras.initializers.RandomUniform(-bound, bound), keras.initializers.RandomUniform(-bound, bound)
    else:
        kernel = keras.initializers.RandomNormal(stddev=spec.init_std / math.sqrt(build.width))
        bias = keras.initializers.Constant(spec.init_bias)
    return {"kernel_initializer": kernel, "bias_initializer": bias}


def init_gain(network):
    """What He's standard deviation is multiplied by in each layer of a `Network`, so that logits start at about 1."""
    return float(PIXEL_STD / np.mean(network.pixel_std)) ** (-1 / len(network.weighted))


def summarize_layers(model):
    """A model layer by layer: what section 3 counts, as a list of dictionaries.

    Each has `layer`, `kind`, `output` (its shape without the batch), `parameters` and `macs` for one image.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> alexnet.summarize_layers(model)[1]["layer"]
        'conv1'
    """
    rows = []
    for layer in functional(model).layers[1:]:
        output = tuple(layer.output.shape[1:])
        kernel = getattr(layer, "kernel", None)
        # One for a fully connected layer; the kernel of a locally connected one has all of them already.
        positions = 1 if isinstance(layer, LocallyConnected2D) else math.prod(output[:-1])
        rows.append(
            {
                "layer": layer.name,
                "kind": type(layer).__name__,
                "output": output,
                "parameters": layer.count_params(),
                "macs": math.prod(kernel.shape) * positions if kernel is not None else 0,
            }
        )
    return rows


def logits_layer(model):
    """The layer whose output are the logits: the last one with weights.

    Raises:
        ValueError: there is none.
    """
    for layer in reversed(model.layers):
        if getattr(layer, "kernel", None) is not None:
            return layer
    raise ValueError(f"{model.name} has no layer with weights, and so no logits.")


def without_softmax(model):
    """The same network (shared weights) up to its logits, before the softmax: what a loss is computed from.

    Raises:
        ValueError: the last layer itself applies a softmax or a different function, so the model has no logits.

    Examples:
        >>> model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=1 / 16)
        >>> alexnet.without_softmax(model).layers[-1].name
        'fc8'
    """
    last = logits_layer(model)
    if (end := getattr(last, "activation", None)) not in (None, keras.activations.linear):
        raise ValueError(
            f"{last.name} of {model.name} ends in {end.__name__}, so its logits are not the output of a layer. "
            f"Make {last.name} linear, and put the activation in a separate layer."
        )
    return keras.Model(model.inputs[0], last.output, name=f"{model.name}_logits")


def functional(model):
    """The same model (shared layers) as a functional one: a `Sequential` lacks `input`, `output` and its input layer.

    Raises:
        ValueError: a `Sequential` that is not built yet.
    """
    if not isinstance(model, keras.Sequential):
        return model
    if not getattr(model, "inputs", None):
        raise ValueError(f"{model.name} does not say what size of images it takes; begin it with keras.Input.")
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def require_the_network(checkpoint, network, row=None):
    """Refuse a checkpoint that holds a different network.

    Args:
        network: A name in `NETWORKS`.
        row: The `Network` it stands for, if it is not `NETWORKS[network]`.
    """
    if problems := checkpoint.differences(network, row):
        _refuse(checkpoint, network, problems)


def _refuse(checkpoint, network, problems):
    where = f"weights: {checkpoint.path} ({FORMATS[checkpoint.format]})"
    raise CheckpointError(f"{where} does not hold the network {network} as it is here.\n  " + "\n  ".join(problems))


def _assign_weights(model, checkpoint, network, row):
    """Copy a checkpoint's arrays into a model, except for logits of other classes."""
    problems = checkpoint.differences(network, row)
    present = {layer.name for layer in model.layers}
    last = row.weighted[-1].name
    names = [layer.name for layer in row.weighted]
    if others := [name for name in checkpoint.layers if name not in names]:
        problems.append(f"the network here has no layer called {', '.join(others)}")
    problems += [f"{name}: expected a kernel and a bias, found none" for name in names if name not in checkpoint.layers]
    if others or len(names) != len(checkpoint.layers):
        _refuse(checkpoint, network, problems)
    pairs = []
    for name, arrays in checkpoint.layers.items():
        if name not in present:
            continue  # without its top
        layer = model.get_layer(name)
        if name == last and layer.units != checkpoint.classes and layer.kernel.shape[0] == arrays[0].shape[0]:
            continue
        for variable, array, blob in zip((layer.kernel, layer.bias), arrays, checkpoint.blobs[name], strict=True):
            if tuple(variable.shape) != array.shape:
                part = variable.path.split("/")[-1]
                problems.append(f"{name} {part}: expected {tuple(variable.shape)}, found {array.shape} in {blob}")
            pairs.append((variable, array))
    first = next((layer.name for layer in row.weighted if isinstance(layer, specs.Dense)), None)
    if len(problems) == 1 and problems[0].startswith(f"{first} kernel"):
        _refuse_the_size(model, checkpoint, row)
    if problems:
        _refuse(checkpoint, network, problems)
    for variable, array in pairs:
        variable.assign(np.ascontiguousarray(array))


def _refuse_the_size(model, checkpoint, row):
    """The error for a checkpoint that fits except for the size of the maps that its first dense layer sees."""
    flatten = next(layer for layer in model.layers if isinstance(layer, keras.layers.Flatten))
    rows, columns, maps = flatten.input.shape[1:]
    first = next(layer.name for layer in row.weighted if isinstance(layer, specs.Dense))
    inputs = checkpoint.layers[first][0].shape[0]
    side = math.isqrt(inputs // maps)
    height, width = model.input.shape[1:3]
    sides = row.input_sides(side) if side * side * maps == inputs else None
    fitting = f"images of {sides[0]} to {sides[-1]} pixels a side" if sides else "others"
    raise CheckpointError(
        f"weights: {checkpoint.path} ({FORMATS[checkpoint.format]}) does not fit images of {height} x "
        f"{width} pixels: they end in maps of {rows} x {columns}, and its {first} has {inputs} inputs for {fitting}."
    )


def _check_arguments(row, network, input_shape, classes, width, initializer, dropout):
    if initializer not in (*INITIALIZERS, ZEROS):
        raise ValueError(
            f"Unknown initializer. Received: initializer={initializer!r}. Known: {', '.join(INITIALIZERS)}"
        )
    if len(input_shape) != 3 or input_shape[-1] != 3:
        raise ValueError(f"input_shape must be (height, width, 3), RGB. Received: input_shape={tuple(input_shape)}")
    smallest = row.smallest_input
    if any(not isinstance(side, numbers.Integral) or side < smallest for side in input_shape[:2]):
        raise ValueError(
            f"Height and width must be whole numbers of {smallest} pixels or more for {network}: a smaller image "
            f"leaves nothing for its last layers. Received: input_shape={tuple(input_shape)}"
        )
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(f"classes must be a whole number of 1 or more. Received: classes={classes!r}")
    if not isinstance(width, numbers.Real) or not (0 < width < math.inf):
        raise ValueError(f"width must be a finite number above 0. Received: width={width!r}")
    if not isinstance(dropout, numbers.Real) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1). Received: dropout={dropout!r}")
