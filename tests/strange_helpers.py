"""Helpers for the tests of strange checkpoints."""

import numpy as np
from test_checkpoints import field, number_field, varint

CLASSES, WIDTH, SIDE = 4, 1 / 16, 67


SMALL = {
    "input_shape": (SIDE, SIDE, 3),
    "classes": CLASSES,
    "width": WIDTH,
    "initializer": "zeros",
}  # JAX compiles others


MAPS = [6, 16, 24, 24, 16]


COLUMNS = [1, 2, 1, 2, 2]


def arrays(side=1):
    """Kernels and biases in Caffe's layout, of a sixteenth of the width, for maps of `side` x `side`."""
    rng, found, below = np.random.default_rng(7), {}, 3
    for i, (maps, columns, window) in enumerate(zip(MAPS, COLUMNS, (11, 5, 3, 3, 3), strict=True), 1):
        found[f"conv{i}"] = (maps, below // columns, window, window)
        below = maps
    found |= {"fc6": (256, below * side**2), "fc7": (256, 256), "fc8": (CLASSES, 256)}
    return {
        name: (
            rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype("float32"),
            rng.normal(0, 0.1, shape[0]).astype("float32"),
        )
        for name, shape in found.items()
    }


# --- Caffe -----------------------------------------------------------------------------------------------------------


def number(n, value):
    return varint(n << 3 | 5) + np.float32(value).tobytes()


def blob(values, double):
    shape = field(7, field(1, b"".join(map(varint, values.shape))))
    return shape + (field(8, values.astype("<f8").tobytes()) if double else field(5, values.astype("<f4").tobytes()))


def caffe(path, change=None, double=False, scale=1.0, mean=None):
    """A `.caffemodel` of a net for training with all its settings; `change` alters the list of layers."""
    lrn = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}
    layers = [["data", "Data", {"crop_size": SIDE, "scale": scale, "mean_value": mean or []}]]
    geometry = [(11, 4, 0), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    for i, (window, stride, pad) in enumerate(geometry, 1):
        layers.append(
            [f"conv{i}", "Convolution", {"kernel": window, "stride": stride, "pad": pad, "group": COLUMNS[i - 1]}]
        )
        layers.append([f"relu{i}", "ReLU", {}])
        if i < 3:
            layers.append([f"norm{i}", "LRN", dict(lrn)])
        if i in (1, 2, 5):
            layers.append([f"pool{i}", "Pooling", {"kernel": 3, "stride": 2}])
    for i in (6, 7, 8):
        layers.append([f"fc{i}", "InnerProduct", {}])
        layers += [[f"relu{i}", "ReLU", {}], [f"drop{i}", "Dropout", {}]] if i < 8 else []
    layers.append(["loss", "SoftmaxWithLoss", {}])
    if change:
        change(layers)
    weights, content, below = arrays(), field(1, b"AlexNet"), ""
    for name, kind, given in layers:
        top = below if kind in ("ReLU", "Dropout") else name
        text = field(1, name.encode()) + field(2, kind.encode())
        text += field(3, below.encode()) * bool(below) + field(4, top.encode())
        below = given.get("from", top)
        text += b"".join(field(7, blob(values, double)) for values in weights.get(name.removesuffix("_new"), ()))
        if kind == "Data":
            numbers = b"".join(number(5, value) for value in given["mean_value"])
            text += field(100, number(1, given["scale"]) + number_field(3, given["crop_size"]) + numbers)
        elif kind == "Convolution":
            keys = (("pad", 3), ("kernel", 4), ("group", 5), ("stride", 6), ("dilation", 18))
            text += field(106, b"".join(number_field(n, given[key]) for key, n in keys if key in given))
        elif kind == "LRN":
            text += field(118, _lrn_fields(given))
        elif kind == "Pooling":
            keys = (("method", 1), ("kernel", 2), ("stride", 3), ("pad", 4))
            text += field(121, b"".join(number_field(n, given[key]) for key, n in keys if key in given))
        elif kind == "ReLU" and given:
            text += field(123, number(1, given["slope"]))
        content += field(100, text)
    path.write_bytes(content)
    return path


def _lrn_fields(given):
    fields = {"local_size": (number_field, 1), "alpha": (number, 2), "beta": (number, 3), "region": (number_field, 4)}
    fields["k"] = (number, 5)
    return b"".join(fields[key][0](fields[key][1], value) for key, value in given.items())
