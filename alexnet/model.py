"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from pixels to class probabilities."""

import math
import numbers
import random
from pathlib import Path

import keras

from alexnet.layers import GroupedConv2D, LocalResponseNormalization, PixelNormalization
from alexnet.presets import INITIALIZERS, PRESETS, SMALLEST_INPUT

PIXEL_STD = 75.0  # of natural images, 0-255
HE_GAIN = PIXEL_STD ** (-1 / 8)


class CheckpointError(ValueError):
    """A file of weights that this network cannot take, in one sentence."""


def AlexNet(
    preset="paper",
    input_shape=(227, 227, 3),
    classes=1000,
    width=1.0,
    include_top=True,
    weights=None,
    classifier_activation="softmax",
    name=None,
    *,
    initializer="paper",
    dropout=0.5,
):
    """AlexNet as a `keras.Model`, built as section 3 of the paper describes it.

    The paper says its input is 224 pixels wide; the sizes it gives further on need 227. An input of 256 pixels
    ends in the same 6 x 6 maps as one of 227, so one checkpoint serves both.

    Args:
        preset: Which published network; `"paper"` is the text of the paper.
        input_shape: `(height, width, 3)`, each side 67 pixels or more.
        classes: Number of classes, the units of `fc8`.
        width: Factor of the number of filters and hidden units. The standard deviation of the paper's initial
            values is multiplied by `1 / sqrt(width)`, so that activities keep their size.
        include_top: False ends the network after `pool5`.
        weights: None, or the path of a `.keras` or `.weights.h5` file of the same network.
        classifier_activation: What follows `fc8`, in float32; None returns the logits.
        name: The model's name.
        initializer: `"paper"` for section 5's Gaussian and its biases of 1, or `"he_normal"`, which learns much
            sooner from a small data set: biases of 0 and He's Gaussian, whose standard deviation sqrt(2 / inputs)
            is multiplied by `HE_GAIN`. He's rule keeps the size of what it is given, and pixels have a size of
            about 75: the eight layers share the way down to logits of about 1.
        dropout: Share of `fc6` and `fc7` that is left out in training (section 4.2).

    Returns:
        A model from RGB pixels 0-255 (uint8 or float, the mean is subtracted inside), of shape
        `(batch, height, width, 3)`, to probabilities of shape `(batch, classes)`. Without its top, to maps of
        shape `(batch, rows, columns, 256 * width)`.

    Raises:
        ValueError: an unknown preset or initializer, or a size out of range.
        CheckpointError: a missing or damaged file of weights, or one of another network.
    """
    _check_arguments(preset, input_shape, classes, width, initializer, dropout)
    network = PRESETS[preset]

    def gaussian():
        if initializer == "he_normal":
            return keras.initializers.VarianceScaling(2.0 * HE_GAIN**2, "fan_in", "untruncated_normal")
        return keras.initializers.RandomNormal(stddev=network.std / math.sqrt(width))

    def constant(bias):
        return keras.initializers.Constant(bias if initializer == "paper" else 0.0)

    pixels = keras.Input(input_shape, name="pixels")
    x = PixelNormalization(network.mean, name="mean")(pixels)

    for layer, spec in network.convolutions.items():
        number = layer.removeprefix("conv")
        x = GroupedConv2D(
            scaled(spec.filters, width, spec.columns),
            spec.kernel,
            strides=spec.stride,
            padding=spec.padding,
            groups=spec.columns,
            data_format="channels_last",
            kernel_initializer=gaussian(),
            bias_initializer=constant(spec.bias),
            name=layer,
        )(x)
        for step in spec.then:
            if step == "relu":
                x = keras.layers.ReLU(name=f"relu{number}")(x)
            elif step == "lrn":
                x = LocalResponseNormalization(**network.lrn, data_format="channels_last", name=f"norm{number}")(x)
            elif step == "pool":
                x = keras.layers.MaxPooling2D(3, 2, data_format="channels_last", name=f"pool{number}")(x)

    if include_top:
        x = keras.layers.Flatten(data_format="channels_last", name="flatten")(x)
        for layer, units in network.hidden.items():
            number = layer.removeprefix("fc")
            x = keras.layers.Dense(
                scaled(units, width),
                kernel_initializer=gaussian(),
                bias_initializer=constant(network.hidden_bias),
                name=layer,
            )(x)
            x = keras.layers.ReLU(name=f"relu{number}")(x)
            # With a seed of its own: without one PyTorch's dropout follows a generator that no checkpoint holds.
            x = keras.layers.Dropout(dropout, seed=random.randrange(2**31), name=f"drop{number}")(x)
        x = keras.layers.Dense(classes, kernel_initializer=gaussian(), dtype="float32", name="fc8")(x)
        if classifier_activation is not None:
            x = keras.layers.Activation(classifier_activation, dtype="float32", name="prob")(x)

    model = keras.Model(pixels, x, name=name or f"alexnet_{preset}")
    if weights is not None:
        _load_weights(model, weights)
    return model


def layer_table(model):
    """A model layer by layer: what section 3 counts, as a list of dictionaries.

    Each has `layer`, `kind`, `output` (its shape without the batch), `parameters` and `multiply_adds` for one image.
    """
    rows = []
    for layer in model.layers[1:]:
        output = tuple(layer.output.shape[1:])
        kernel = getattr(layer, "kernel", None)
        positions = math.prod(output[:-1])  # one for a fully connected layer
        rows.append(
            {
                "layer": layer.name,
                "kind": type(layer).__name__,
                "output": output,
                "parameters": layer.count_params(),
                "multiply_adds": math.prod(kernel.shape) * positions if kernel is not None else 0,
            }
        )
    return rows


def scaled(size, width, columns=1):
    """`size` filters or units times `width`, a multiple of `columns`, at least one in each."""
    return max(1, round(size * width / columns)) * columns


def logits_model(model):
    """The same network (shared weights) up to `fc8`, before the softmax: what a loss is computed from."""
    return keras.Model(model.input, model.get_layer("fc8").output, name=f"{model.name}_logits")


def _load_weights(model, path):
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights: there is no file {path}.")
    if not path.name.endswith((".keras", ".weights.h5")):
        raise CheckpointError(f"weights: {path} must end in .keras or .weights.h5.")
    try:
        if path.suffix == ".keras":
            _copy_weights(keras.saving.load_model(path, compile=False, safe_mode=True), model, path)
        else:
            model.load_weights(path)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile, h5py, JSON and Keras each have their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"weights: {path} does not hold this network ({reason})") from None


def _copy_weights(source, model, path):
    found = {weight.path: weight for weight in source.weights}
    for weight in model.weights:
        if weight.path not in found:
            raise CheckpointError(f"weights: {path} holds another network, without {weight.path}.")
        if found[weight.path].shape != weight.shape:
            raise CheckpointError(
                f"weights: {path} holds another network: {weight.path} is {tuple(found[weight.path].shape)} there "
                f"and {tuple(weight.shape)} here."
            )
    for weight in model.weights:
        weight.assign(found[weight.path])


def _check_arguments(preset, input_shape, classes, width, initializer, dropout):
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset. Received: preset={preset!r}. Known: {', '.join(PRESETS)}")
    if initializer not in INITIALIZERS:
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
