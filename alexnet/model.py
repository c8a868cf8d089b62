"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from pixels to class probabilities."""

import functools
import math
import numbers
import random
from pathlib import Path

import keras
import numpy as np

from alexnet import checkpoints
from alexnet.backend import without
from alexnet.checkpoints import CheckpointError
from alexnet.kernels import memory
from alexnet.layers import (
    AverageMaps,
    Dense,
    GroupedConv2D,
    LocalResponseNormalization,
    MaxPooling2D,
    PixelNormalization,
    SameMapNormalization,
)
from alexnet.presets import INITIALIZERS, LAYERS, PRESETS, SMALLEST_INPUT, Convolution

PIXEL_STD = 75.0  # of natural images, 0-255
_ZEROS = "zeros"  # for values that are overwritten or never used; JAX would compile the random ones


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
    column and `SameMapNormalization` follows the second. conv5 is pooled before its ReLU there and in `one_tower`,
    which is the same. `torchvision` pads conv1 by 2 for an input of 224 pixels, averages what is not 6 x 6 after pool5
    to 6 x 6, drops before fc6 and fc7 and normalizes pixels to a deviation of 1.

    The paper says its input is 224 pixels wide; the sizes it gives further on need 227. An input of 256 pixels
    ends in the same 6 x 6 maps as one of 227, so one checkpoint serves both.

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
    checkpoint = None if weights is None else checkpoints.read(weights)
    if mean is None:
        mean = network.mean if checkpoint is None or checkpoint.mean is None else checkpoint.mean
    pixels = keras.Input(input_shape, name="pixels")
    x = PixelNormalization(tuple(mean), network.scale, name="mean")(pixels)

    for layer, spec in network.layers.items():
        number = layer[-1]
        if isinstance(spec, Convolution):
            fan_in = spec.kernel**2 * x.shape[-1] // spec.columns
            padded = spec.stride == 1 and spec.padding == spec.kernel // 2  # what Keras calls same
            if spec.padding and not padded:
                x = keras.layers.ZeroPadding2D(spec.padding, data_format="channels_last", name=f"pad{number}")(x)
            x = GroupedConv2D(
                scaled(spec.filters, width, network.columns),
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
                x = _step(step, number, network, dropout, x)
            x = Dense(
                classes if spec.units is None else scaled(spec.units, width),
                **_initializers(network, spec, initializer, width, x.shape[-1]),
                dtype="float32" if spec.units is None else None,
                name=layer,
            )(x)
        else:
            break
        for step in spec.then:
            x = _step(step, number, network, dropout, x)

    if include_top and classifier_activation is not None:
        x = keras.layers.Activation(classifier_activation, dtype="float32", name="prob")(x)
    model = keras.Model(pixels, x, name=name or f"alexnet_{preset}")
    if checkpoint is not None:
        _take(model, checkpoint, preset)
    return model


def _step(step, number, network, dropout, x):
    """One of the layers without weights, named after the layer that it belongs to."""
    if step == "relu":
        return keras.layers.ReLU(name=f"relu{number}")(x)
    if step == "lrn":
        return LocalResponseNormalization(**network.lrn, data_format="channels_last", name=f"norm{number}")(x)
    if step == "same_map":
        return SameMapNormalization(**network.same_map, name=f"map_norm{number}")(x)
    if step == "pool":
        return MaxPooling2D(3, 2, data_format="channels_last", name=f"pool{number}")(x)
    if step == "average":
        if x.shape[1:3] == (6, 6):  # nothing to average at the size that the network was trained with
            return x
        return AverageMaps(6, name="average")(x)
    # With a seed of its own: without one PyTorch's dropout follows a generator that no checkpoint holds.
    return keras.layers.Dropout(dropout, seed=random.randrange(2**31), name=f"drop{number}")(x)


def _initializers(network, spec, initializer, width, fan_in):
    if initializer == _ZEROS:
        kernel, bias = keras.initializers.Zeros(), keras.initializers.Zeros()
    elif initializer == "he_normal":
        kernel = keras.initializers.VarianceScaling(2.0 * he_gain(network) ** 2, "fan_in", "untruncated_normal")
        bias = keras.initializers.Zeros()
    elif spec.std is None:  # PyTorch's default
        reach = 1 / math.sqrt(fan_in)
        kernel, bias = keras.initializers.RandomUniform(-reach, reach), keras.initializers.RandomUniform(-reach, reach)
    else:
        kernel = keras.initializers.RandomNormal(stddev=spec.std / math.sqrt(width))
        bias = keras.initializers.Constant(spec.bias)
    return {"kernel_initializer": kernel, "bias_initializer": bias}


def he_gain(network):
    """What He's standard deviation is multiplied by in each of the eight layers, so that logits start at about 1."""
    return float(PIXEL_STD / np.mean(network.scale)) ** (-1 / len(LAYERS))


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


def load_checkpoint(path, preset=None):
    """A checkpoint as a Keras model from RGB pixels 0-255 to probabilities, whatever its makers fed it with.

    Reads torchvision's `.pth`, Caffe's `.caffemodel`, the ONNX zoo's `bvlcalexnet`, `bvlc_alexnet.npy`, safetensors,
    and our own `.keras`, `.weights.h5`, or the folder of a run. The format is recognized from the content, sizes and
    number of classes from the arrays.

    Args:
        path: The file.
        preset: Which network it holds, where the file does not tell; None to recognize it.

    Returns:
        `keras.Model`, its input of the size that the network was trained with.

    Raises:
        CheckpointError: a missing or damaged file, another network than `preset`, or one that cannot be told.
    """
    if preset is not None and preset not in PRESETS:
        raise CheckpointError(f"preset: received {preset!r}; allowed: {', '.join(PRESETS)}.")
    path, format = checkpoints.recognize(path)
    if format == "keras":
        return _load_keras(path, preset)
    checkpoint = checkpoints.read(path)
    preset = preset or checkpoint.preset
    if preset is None:
        fitting = checkpoint.candidates()
        raise CheckpointError(
            f"weights: {path} ({checkpoints.FORMATS[format]}) does not tell which network it holds. "
            + (f"Its kernels fit these; give one as preset: {', '.join(fitting)}." if fitting else "None fits.")
        )
    if checkpoint.preset not in (None, preset):
        raise CheckpointError(f"weights: {path}: expected the preset {preset}, found {checkpoint.preset}.")
    checkpoint.preset = preset
    side = checkpoint.image_size
    model = AlexNet(
        preset, (side, side, 3), checkpoint.classes, checkpoint.width, initializer=_ZEROS, mean=checkpoint.mean
    )
    _take(model, checkpoint, preset)
    del checkpoint
    memory.release()
    return model


def save_checkpoint(model, path):
    """Write a model in the format that the path's ending names.

    | ending | |
    |---|---|
    | `.keras`, `.weights.h5` | Keras |
    | `.onnx` | one graph from `pixels` (RGB 0-255, channels last) to `fc8` and `prob`, on every backend |
    | `.safetensors`, `.pth` | PyTorch's layout; torchvision's names for its preset |
    | `.tflite` | LiteRT, on TensorFlow |
    | none | a folder with a TensorFlow SavedModel, on TensorFlow and JAX |

    Raises:
        ValueError: another ending, or a format that Keras does not write on this backend.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".keras", ".weights.h5")):
        ending = ".keras" if path.suffix == ".keras" else ".weights.h5"
        if ending == ".weights.h5":
            _require_the_presets_mean(model, path)
        unfinished = path.with_name(f".unfinished-{path.name.removesuffix(ending)}{ending}")
        with without("tensorflow"):
            model.save(unfinished) if ending == ".keras" else model.save_weights(unfinished)
        unfinished.replace(path)
    elif path.suffix in (".onnx", ".safetensors", ".pth"):
        _require_whole_and_square(model, path)
        write = checkpoints.write_onnx if path.suffix == ".onnx" else checkpoints.write_state_dict
        if path.suffix != ".onnx":
            _require_the_presets_mean(model, path)
        with without("tensorflow"):
            write(model, path, preset_of(model))
    elif path.suffix in ("", ".tflite"):
        _export(model, path)
    else:
        raise ValueError(
            f"{path.name}: the ending names the format: .keras, .weights.h5, .onnx, .safetensors, .pth, .tflite, or "
            "none for a TensorFlow SavedModel."
        )


def preset_of(model):
    """The preset whose layers a model has, in whatever width, or None."""
    shape, signature = tuple(model.input.shape[1:]), _signature(model)
    return next((preset for preset in PRESETS if signature == _preset_signature(preset, shape)), None)


# What makes two networks the same; the mean belongs to the images, and the rest is about training.
SETTINGS = ("std", "n", "k", "alpha", "beta", "groups", "size", "strides", "padding", "pool_size")


def _settings(layer):
    with without("tensorflow"):
        return _essence(layer.get_config())


def _essence(settings):
    return {key: _plain(settings[key]) for key in SETTINGS if key in settings}


def _plain(value):
    return tuple(_plain(part) for part in value) if isinstance(value, list | tuple) else value


def _signature(model):
    """The layers that compute something in inference, and how."""
    return [
        (layer.name, _settings(layer))
        for layer in model.layers
        if type(layer).__name__ not in ("InputLayer", "Dropout", "Activation")
    ]


@functools.cache
def _preset_signature(preset, input_shape):
    state = random.getstate()  # building a network draws seeds
    signature = _signature(AlexNet(preset, input_shape, classes=1, width=1 / 64, initializer=_ZEROS))
    random.setstate(state)
    return signature


def _load_keras(path, preset):
    try:
        with without("tensorflow"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, JSON and Keras each have their own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"weights: {path} is damaged or not safe to load ({reason}).") from None
    names = {layer.name for layer in getattr(model, "layers", [])}
    if missing := [name for name in LAYERS if name not in names]:
        raise CheckpointError(
            f"weights: {path} does not hold an AlexNet: expected layers {', '.join(LAYERS)}, "
            f"found none called {', '.join(missing)}."
        )
    if preset is not None and preset_of(model) != preset:
        raise CheckpointError(
            f"weights: {path} holds {preset_of(model) or 'a network of its own'}. Received: preset={preset!r}"
        )
    return model


def _take(model, checkpoint, preset):
    """Copy a checkpoint's arrays into a model, but for an `fc8` of other classes."""
    where = f"weights: {checkpoint.path} ({checkpoints.FORMATS[checkpoint.format]})"
    problems = []
    if checkpoint.settings:
        ours = [layer.name for layer in model.layers if layer.name in checkpoint.settings]
        theirs = [name for name in checkpoint.settings if name in ours]
        if ours != theirs:
            problems.append(f"expected the order {' '.join(ours)}, found {' '.join(theirs)}")
        for layer in model.layers:
            ours, theirs = _settings(layer), _essence(checkpoint.settings.get(layer.name, {}))
            problems += [
                f"{layer.name}: expected {key}={value}, found {theirs[key]}"
                for key, value in ours.items()
                if key in theirs and theirs[key] != value
            ]
    elif checkpoint.preset not in (None, preset):
        problems.append(f"expected the preset {preset}, found {checkpoint.preset}")
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
    if problems:
        raise CheckpointError(f"{where} holds another network than {preset} here.\n  " + "\n  ".join(problems))
    for variable, array in pairs:
        variable.assign(np.ascontiguousarray(array))


def _require_whole_and_square(model, path):
    if quantized := [layer.name for layer in model.layers if layer.quantization_mode]:
        raise ValueError(
            f"{path.name}: this format is written from float32 weights. Received: a model quantized in "
            f"{', '.join(quantized)}. Write .keras."
        )
    missing = set(LAYERS) - {layer.name for layer in model.layers}
    height, width = model.input.shape[1:3]
    if missing or height != width:
        what = f"one without {', '.join(sorted(missing))}" if missing else f"one of {height} x {width} pixels"
        raise ValueError(f"{path.name}: this format holds whole networks with square inputs. Received: {what}")


def _require_the_presets_mean(model, path):
    """For formats that hold nothing but arrays of layers with weights."""
    preset, mean = preset_of(model), model.get_layer("mean").mean
    if preset is not None and not np.allclose(mean, PRESETS[preset].mean, atol=0.01):
        numbers = ", ".join(f"{value:.2f}" for value in mean)
        raise ValueError(
            f"{path.name}: this format has no place for the mean of the training images ({numbers}), and without it "
            "the network would see other pixels. Write .keras or .onnx."
        )


def _export(model, path):
    """What Keras itself can write."""
    format, backends = ("litert", ("tensorflow",)) if path.suffix else ("tf_saved_model", ("tensorflow", "jax"))
    if keras.backend.backend() not in backends:
        raise ValueError(
            f"{path.name}: Keras writes this format on {' and '.join(backends)}. "
            f"This process runs on {keras.backend.backend()}."
        )
    model.export(path, format=format, verbose=False)


def _check_arguments(preset, input_shape, classes, width, initializer, dropout):
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset. Received: preset={preset!r}. Known: {', '.join(PRESETS)}")
    if initializer not in (*INITIALIZERS, _ZEROS):
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
