"""From a Keras model's configuration to an `Architecture`."""

from typing import Any

from alexnet.weights.architecture import Architecture, Layer, activation, convolution, local, lrn, padding, pool

# Layers that compute nothing in inference.
WITHOUT_EFFECT = ("InputLayer", "Dropout", "SpatialDropout2D", "ActivityRegularization")


def from_config(config: dict[str, Any]) -> Architecture:
    """The `Architecture` of a functional or sequential model's `get_config()`, not resolved yet.

    Layers that no network here has stay in it with their class and name, so that a comparison can name them.
    """
    found = Architecture([])
    previous, size = None, None
    for entry in config["layers"]:
        kind, settings = entry["class_name"].rpartition(">")[2], entry["config"]  # without the package, in HDF5
        name = settings.get("name") or entry.get("name") or kind
        shape = settings.get("batch_shape") or settings.get("batch_input_shape")
        if shape and len(shape) == 4 and size is None:
            size = tuple(shape[1:3])
        parents = set(_parents(entry.get("inbound_nodes", [])))
        if previous is not None and parents and parents != {previous}:
            found.layers.append(Layer(f"branch from {' and '.join(sorted(parents))}", name=name))
        previous = name
        if kind in WITHOUT_EFFECT:
            continue
        if kind == "PixelNormalization" and not found.layers and found.mean is None:
            found.mean, found.std = settings["mean"], settings["std"]
            continue
        if settings.get("data_format") == "channels_first":
            found.layers.append(Layer("channels_first", name=name))
        found.layers += _layers(kind, settings, name)
    if found.mean is None:
        found.layers.insert(0, Layer("no PixelNormalization"))
    if size and None not in size:
        found.input_size = size
    return found


def _layers(kind, settings, name):
    """One of Keras's layers as one `Layer`, or as two if it includes an activation."""
    if kind in ("Conv2D", "GroupedConv2D"):
        sides = _padding(settings["padding"])
        shape = _pair(settings["kernel_size"]), _pair(settings["strides"]), sides
        dilation = _pair(settings.get("dilation_rate", 1))
        yield convolution(*shape, settings.get("groups", 1), dilation, name)
        yield from _activation(settings.get("activation"), name)
    elif kind == "Dense":
        yield Layer("dense", name=name)
        yield from _activation(settings.get("activation"), name)
    elif kind == "Activation":
        yield from _activation(settings["activation"], name)
    elif kind == "Softmax":
        yield activation("softmax", name)
    elif kind == "ReLU":
        plain = not any(settings.get(key) for key in ("max_value", "negative_slope", "threshold"))
        yield Layer("relu" if plain else "ReLU with a bound or a slope", name=name)
    elif kind == "ZeroPadding2D":
        yield padding(tuple(map(tuple, settings["padding"])), name)
    elif kind == "MaxPooling2D":
        size = _pair(settings["pool_size"])
        rounding = settings.get("rounding", "floor")
        yield pool(
            size, _pair(settings["strides"] or size), _padding(settings["padding"]), rounding=rounding, name=name
        )
    elif kind == "AveragePooling2D" and settings["padding"] == "valid":  # "same" differs from backend to backend
        size, rounding = _pair(settings["pool_size"]), settings.get("rounding", "floor")
        strides = _pair(settings["strides"] or size)
        yield pool(size, strides, _padding("valid"), rounding=rounding, name=name, kind="average_pool")
    elif kind == "LocallyConnected2D":
        yield local(_pair(settings["kernel_size"]), _pair(settings["strides"]), _padding(settings["padding"]), name)
        yield from _activation(settings.get("activation"), name)
    elif kind == "LocalResponseNormalization" and "groups" in settings:
        window = 2 * (settings["n"] // 2) + 1
        yield lrn(window, settings["k"], settings["alpha"], settings["beta"], settings["groups"], name)
    elif kind in ("WithinChannelLRN", "SameMapNormalization"):  # the second is the name in older models
        yield Layer("within_channel_lrn", {key: settings[key] for key in ("size", "k", "alpha", "beta")}, name)
    elif kind == "AverageMaps":
        yield Layer("average", {"size": settings["size"]}, name)
    elif kind == "Flatten":
        yield Layer("flatten", name=name)
    else:
        yield Layer(kind, name=name)


def _activation(function, name):
    if function in (None, "linear"):
        return []
    if function == "relu":
        return [Layer("relu", name=name)]
    return [activation(function if isinstance(function, str) else "a custom activation", name)]


def _padding(text):
    return ((0, 0), (0, 0)) if text == "valid" else text


def _pair(value):
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _parents(nodes):
    """Names of the layers that give a layer its inputs, as Keras 3 and Keras 2 write them."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        else:
            for part in nodes.values():
                yield from _parents(part)
    elif isinstance(nodes, list | tuple):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and all(isinstance(part, int) for part in nodes[1:3]):
            yield nodes[0]
        else:
            for part in nodes:
                yield from _parents(part)
