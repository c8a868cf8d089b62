"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from pixels to class probabilities."""

import math
import numbers
import random

import keras
import numpy as np

from alexnet.layers import (
    AverageMaps,
    Dense,
    GroupedConv2D,
    LocalResponseNormalization,
    MaxPooling2D,
    PixelNormalization,
    WithinChannelLRN,
)
from alexnet.presets import INITIALIZERS, LAYERS, PRESETS, SMALLEST_INPUT, Convolution
from alexnet.weights import FORMATS, Checkpoint, CheckpointError, read_checkpoint

PIXEL_STD = 75.0  # of natural images, 0-255
ZEROS = "zeros"  # for values that are overwritten or never used; JAX would compile the random ones


def AlexNet(
    preset="paper",
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
):
    """AlexNet as a `keras.Model`, built as section 3 of the paper describes it, or as others have built it.

    | preset | filters | columns | after conv1 | after conv2 | a, k of LRN | parameters |
    |---|---|---|---|---|---|---|
    | `paper` | 96-256-384-384-256 | 2 | ReLU, LRN, pool | ReLU, LRN, pool | 1e-4, 2 | 60,965,224 |
    | `krizhevsky2012` | 96-256-384-384-256 | 2 | LRN, pool, ReLU | ReLU, LRN, same-map, pool | 2e-5, 2 | 60,965,224 |
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
    224 to 258 pixels all end in 6 x 6 maps, and one checkpoint serves them; with other sizes fc6 has other inputs.

    Args:
        preset: Which published network, a name of the table.
        input_shape: `(height, width, 3)`, each side 67 pixels or more; None for what the network was trained with,
            227 pixels a side, or 224 for `"torchvision"`.
        classes: Number of classes, the units of `fc8`.
        width: Factor of the number of filters and hidden units. The standard deviation of the paper's initial
            values is multiplied by `1 / sqrt(width)`, so that activities keep their size.
        include_top: False ends the network after `pool5`.
        weights: None, or the path of a checkpoint in any format that `alexnet.load_checkpoint` reads. If it has
            another number of classes, its seven lower layers are taken and `fc8` keeps fresh initial values.
            `"imagenet"` is answered with where published ones can be had.
        classifier_activation: What follows `fc8`, in float32; None returns the logits.
        name: The model's name.
        initializer: `"paper"` for the initial values of the preset's authors (in `"paper"` section 5's Gaussian and
            its biases of 1), or `"he_normal"`, which learns much sooner from a small data set: biases of 0 and He's
            Gaussian, whose standard deviation sqrt(2 / inputs) is multiplied by 75 ** (-1/8). He's rule keeps the
            size of what it is given, and pixels have a size of about 75: the eight layers share the way down to
            logits of about 1. Pixels that the network scales itself (`"torchvision"`) need less.
        dropout: Share of `fc6` and `fc7` that is left out in training (section 4.2).
        mean: RGB mean of the training images, 0-255, which is subtracted from every pixel (section 2). None for the
            checkpoint's where the file has one, and for the preset's otherwise.

    Returns:
        A model from RGB pixels 0-255 (uint8 or float, the mean is subtracted inside), of shape
        `(batch, height, width, 3)`, to probabilities of shape `(batch, classes)`. Without its top, to maps of
        shape `(batch, rows, columns, 256 * width)`.

    Raises:
        ValueError: an unknown preset or initializer, or a size out of range.
        CheckpointError: a missing or damaged checkpoint, or one of another network.
    """
    if preset in PRESETS and input_shape is None:
        input_shape = (PRESETS[preset].image_size, PRESETS[preset].image_size, 3)
    _check_arguments(preset, input_shape, classes, width, initializer, dropout)
    network = PRESETS[preset]
    checkpoint = weights
    if weights is not None and not isinstance(weights, Checkpoint):
        checkpoint = read_checkpoint(weights)
    overhang = None
    if checkpoint is not None:
        mean = checkpoint.mean if mean is None else mean
        overhang = checkpoint.overhang(input_shape[:2])
    mean = network.mean if mean is None else mean
    overhang = _overhang(network, input_shape) if overhang is None else overhang
    pixels = keras.Input(input_shape, name="pixels")
    x = PixelNormalization(tuple(mean), network.scale, name="mean")(pixels)

    for layer, spec in network.layers.items():
        number = layer[-1]
        if isinstance(spec, Convolution):
            fan_in = spec.kernel**2 * x.shape[-1] // spec.columns
            padded = spec.stride == 1 and spec.padding == spec.kernel // 2  # what Keras calls same
            zeros = tuple((spec.padding, spec.padding + rows) for rows in overhang.get(layer, (0, 0)))
            if any(map(any, zeros)) and not padded:
                x = keras.layers.ZeroPadding2D(zeros, data_format="channels_last", name=f"pad{number}")(x)
            x = GroupedConv2D(
                scale_width(spec.filters, width, network.columns),
                spec.kernel,
                strides=spec.stride,
                padding="same" if padded else "valid",
                groups=spec.columns,
                data_format="channels_last",
                **_initializers(network, spec, initializer, width, fan_in),
                name=layer,
            )(x)
        elif include_top:
            if len(x.shape) == 4:
                x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
            for step in spec.before:
                x = _step(step, number, network, dropout, overhang, x)
            x = Dense(
                classes if spec.units is None else scale_width(spec.units, width),
                **_initializers(network, spec, initializer, width, x.shape[-1]),
                dtype="float32" if spec.units is None else None,
                name=layer,
            )(x)
        else:
            break
        for step in spec.then:
            x = _step(step, number, network, dropout, overhang, x)

    if include_top and classifier_activation is not None:
        x = keras.layers.Activation(classifier_activation, dtype="float32", name="prob")(x)
    model = keras.Model(pixels, x, name=name or f"alexnet_{preset}")
    if checkpoint is not None:
        _assign_weights(model, checkpoint, preset)
    return model


def _overhang(network, input_shape):
    """By layer, the rows and columns of zeros behind its input, where 224 to 226 pixels pass for 227."""
    missing = tuple(227 - side if 224 <= side < 227 else 0 for side in input_shape[:2])
    if network.overhang is None or not any(missing):
        return {}
    if network.overhang == "pool1":  # of 54 rows, where 227 pixels leave 55
        missing = tuple(min(1, rows) for rows in missing)
    return {network.overhang: missing}


def _step(step, number, network, dropout, overhang, x):
    """One of the layers without weights, named after the layer that it belongs to."""
    if step == "relu":
        return keras.layers.ReLU(name=f"relu{number}")(x)
    if step == "lrn":
        return LocalResponseNormalization(**network.lrn, data_format="channels_last", name=f"norm{number}")(x)
    if step == "same_map":
        return WithinChannelLRN(**network.same_map, name=f"map_norm{number}")(x)
    if step == "pool":
        if f"pool{number}" in overhang:  # zeros are as good as nothing here: a ReLU comes before or after
            zeros = tuple((0, rows) for rows in overhang[f"pool{number}"])
            x = keras.layers.ZeroPadding2D(zeros, data_format="channels_last", name=f"overhang{number}")(x)
        return MaxPooling2D(3, 2, data_format="channels_last", name=f"pool{number}")(x)
    if step == "average":
        if x.shape[1:3] == (6, 6):  # nothing to average at the size that the network was trained with
            return x
        return AverageMaps(6, name="average")(x)
    # With a seed of its own: without one PyTorch's dropout follows a generator that no checkpoint holds.
    return keras.layers.Dropout(dropout, seed=random.randrange(2**31), name=f"drop{number}")(x)


def _initializers(network, spec, initializer, width, fan_in):
    if initializer == ZEROS:
        kernel, bias = keras.initializers.Zeros(), keras.initializers.Zeros()
    elif initializer == "he_normal":
        kernel = keras.initializers.VarianceScaling(2.0 * init_gain(network) ** 2, "fan_in", "untruncated_normal")
        bias = keras.initializers.Zeros()
    elif spec.std is None:  # PyTorch's default
        reach = 1 / math.sqrt(fan_in)
        kernel, bias = keras.initializers.RandomUniform(-reach, reach), keras.initializers.RandomUniform(-reach, reach)
    else:
        kernel = keras.initializers.RandomNormal(stddev=spec.std / math.sqrt(width))
        bias = keras.initializers.Constant(spec.bias)
    return {"kernel_initializer": kernel, "bias_initializer": bias}


def init_gain(network):
    """What He's standard deviation is multiplied by in each of the eight layers, so that logits start at about 1."""
    return float(PIXEL_STD / np.mean(network.scale)) ** (-1 / len(LAYERS))


def summarize_layers(model):
    """A model layer by layer: what section 3 counts, as a list of dictionaries.

    Each has `layer`, `kind`, `output` (its shape without the batch), `parameters` and `macs` for one image.
    """
    rows = []
    for layer in functional(model).layers[1:]:
        output = tuple(layer.output.shape[1:])
        kernel = getattr(layer, "kernel", None)
        positions = math.prod(output[:-1])  # one for a fully connected layer
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


def scale_width(size, width, columns=1):
    """`size` filters or units times `width`, a multiple of `columns`, at least one in each."""
    return max(1, round(size * width / columns)) * columns


def without_softmax(model):
    """The same network (shared weights) up to `fc8`, before the softmax: what a loss is computed from.

    Raises:
        ValueError: `fc8` itself applies a softmax or another function, so that the model has no logits.
    """
    last = model.get_layer("fc8")
    if (end := getattr(last, "activation", None)) not in (None, keras.activations.linear):
        raise ValueError(
            f"fc8 of {model.name} ends in {end.__name__}, and what comes before it is no output of a layer. Make fc8 "
            "linear, and what follows it a layer of its own."
        )
    return keras.Model(model.inputs[0], last.output, name=f"{model.name}_logits")


def functional(model):
    """The same model (shared layers) with an `input`, an `output` and all its layers, which a `Sequential` has not.

    Raises:
        ValueError: a `Sequential` that has no shape yet.
    """
    if not isinstance(model, keras.Sequential):
        return model
    if not getattr(model, "inputs", None):
        raise ValueError(f"{model.name} does not say which images it takes; begin it with keras.Input.")
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def require_the_network(checkpoint, preset):
    if problems := checkpoint.differences(preset):
        _refuse(checkpoint, preset, problems)


def _refuse(checkpoint, preset, problems):
    where = f"weights: {checkpoint.path} ({FORMATS[checkpoint.format]})"
    raise CheckpointError(f"{where} holds another network than {preset} here.\n  " + "\n  ".join(problems))


def _assign_weights(model, checkpoint, preset):
    """Copy a checkpoint's arrays into a model, but for an `fc8` of other classes."""
    problems = checkpoint.differences(preset)
    present = {layer.name for layer in model.layers}
    pairs = []
    for name, arrays in checkpoint.layers.items():
        if name not in present:
            continue  # without its top
        layer = model.get_layer(name)
        if name == "fc8" and layer.units != checkpoint.classes and layer.kernel.shape[0] == arrays[0].shape[0]:
            continue
        for variable, array, blob in zip((layer.kernel, layer.bias), arrays, checkpoint.blobs[name], strict=True):
            if tuple(variable.shape) != array.shape:
                part = variable.path.split("/")[-1]
                problems.append(f"{name} {part}: expected {tuple(variable.shape)}, found {array.shape} in {blob}")
            pairs.append((variable, array))
    if len(problems) == 1 and problems[0].startswith("fc6 kernel"):
        _refuse_the_size(model, checkpoint)
    if problems:
        _refuse(checkpoint, preset, problems)
    for variable, array in pairs:
        variable.assign(np.ascontiguousarray(array))


def _refuse_the_size(model, checkpoint):
    """Of a checkpoint that fits but for the number of maps that fc6 sees."""
    maps = model.get_layer("conv5").filters
    inputs = checkpoint.layers["fc6"][0].shape[0]
    side = math.isqrt(inputs // maps)
    rows, columns = model.get_layer("flatten").input.shape[1:3]
    height, width = model.input.shape[1:3]
    smallest = 224 if side == 6 else 32 * side + 35
    fitting = f"images of {smallest} to {32 * side + 66} pixels a side" if side * side * maps == inputs else "others"
    raise CheckpointError(
        f"weights: {checkpoint.path} ({FORMATS[checkpoint.format]}) does not fit images of {height} x "
        f"{width} pixels: they end in maps of {rows} x {columns}, and its fc6 has {inputs} inputs for {fitting}."
    )


def _check_arguments(preset, input_shape, classes, width, initializer, dropout):
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset. Received: preset={preset!r}. Known: {', '.join(PRESETS)}")
    if initializer not in (*INITIALIZERS, ZEROS):
        raise ValueError(
            f"Unknown initializer. Received: initializer={initializer!r}. Known: {', '.join(INITIALIZERS)}"
        )
    if len(input_shape) != 3 or input_shape[-1] != 3:
        raise ValueError(f"input_shape must be (height, width, 3), RGB. Received: input_shape={tuple(input_shape)}")
    if any(not isinstance(side, numbers.Integral) or side < SMALLEST_INPUT for side in input_shape[:2]):
        raise ValueError(
            f"Height and width must be whole numbers of {SMALLEST_INPUT} pixels or more: a smaller image leaves "
            f"nothing for pool5. Received: input_shape={tuple(input_shape)}"
        )
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 1:
        raise ValueError(f"classes must be a whole number of 1 or more. Received: classes={classes!r}")
    if not isinstance(width, numbers.Real) or not (0 < width < math.inf):
        raise ValueError(f"width must be a finite number above 0. Received: width={width!r}")
    if not isinstance(dropout, numbers.Real) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1). Received: dropout={dropout!r}")
