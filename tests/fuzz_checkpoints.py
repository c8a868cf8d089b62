"""Checkpoints with random changes must give the numbers that another program computes from the file, or an error.

KERAS_BACKEND=torch python tests/fuzz_checkpoints.py --count 10000 [--first SEED]
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from strange_helpers import SIDE, SMALL, arrays, caffe
from test_checkpoints import CAFFE_BGR, pixels
from test_saved_checkpoints import state
from test_strange_checkpoints import graph, layers_by_hand
from torch.nn import functional as F

from alexnet.model import AlexNet, without_softmax
from alexnet.saving import load_checkpoint
from alexnet.weights import CheckpointError

IMAGES = pixels(2, SIDE)
BGR = (IMAGES[..., ::-1].astype("float32") - np.float32(CAFFE_BGR)).transpose(0, 3, 1, 2).copy()


class NoOracle(Exception):
    """The other program cannot compute the file either."""


# --- ONNX: onnxruntime knows


def _pick(rng, options):
    return options[int(rng.integers(len(options)))]


UNARY = (
    "Relu",
    "Identity",
    "Dropout",
    "Elu",
    "LeakyRelu",
    "Tanh",
    "Sigmoid",
    "Neg",
    "Abs",
    "Exp",
    "Softplus",
    "Softmax",
)
ATTRIBUTES = {
    "Conv": {
        "strides": [[4, 4], [1, 1], [2, 2]],
        "pads": [[0] * 4, [1] * 4, [2] * 4, [1, 1, 0, 0], [2, 1, 2, 1]],
        "dilations": [[1, 1], [2, 2]],
        "auto_pad": ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"],
        "group": [1, 2],
    },
    "LRN": {"size": [5, 3, 4], "alpha": [1e-4, 2e-5, 5e-4], "beta": [0.75, 0.5], "bias": [1.0, 2.0]},
    "MaxPool": {
        "kernel_shape": [[3, 3], [2, 2]],
        "strides": [[2, 2], [3, 3], [1, 1]],
        "pads": [[0] * 4, [1] * 4, [0, 0, 1, 1]],
        "ceil_mode": [0, 1],
        "auto_pad": ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"],
        "dilations": [[1, 1], [2, 2]],
        "storage_order": [0, 1],
    },
    "Gemm": {"alpha": [1.0, 0.5], "beta": [1.0, 0.5, 0.0], "transB": [0, 1], "transA": [0, 1]},
    "Flatten": {"axis": [1, 2, -1]},
}


def _change_graph(rng, nodes, weights):
    kind = _pick(
        rng, ("attribute",) * 4 + ("operation", "insert", "insert", "remove", "swap", "weights", "names", "mean")
    )
    place = int(rng.integers(len(nodes)))
    node = nodes[place]
    if kind == "attribute":
        node = _pick(rng, [each for each in nodes if each.op_type in ATTRIBUTES])
        key = _pick(rng, list(ATTRIBUTES[node.op_type]))
        kept = [each for each in node.attribute if each.name != key]
        if key == "auto_pad":
            kept = [each for each in kept if each.name != "pads"]
        del node.attribute[:]
        node.attribute.extend(kept)
        if rng.random() < 0.8:
            node.attribute.append(onnx.helper.make_attribute(key, _pick(rng, ATTRIBUTES[node.op_type][key])))
    elif kind == "operation":
        node = _pick(rng, [each for each in nodes if each.op_type in (*UNARY, "MaxPool", "LRN")])
        node.op_type = _pick(rng, ("AveragePool", "MaxPool") if node.op_type == "MaxPool" else UNARY)
        if node.op_type in UNARY:
            del node.attribute[:]
    elif kind == "insert":
        name = f"more{len(nodes)}"
        more = onnx.helper.make_node(_pick(rng, (*UNARY, "LRN")), [node.output[0]], [name], name)
        if more.op_type == "LRN":
            more.attribute.append(onnx.helper.make_attribute("size", 5))
        _follow(nodes[place + 1 :], node.output[0], name)
        nodes.insert(place + 1, more)
    elif kind == "remove" and node.op_type in (*UNARY, "LRN", "MaxPool") and place + 1 < len(nodes):
        _follow(nodes, node.output[0], node.input[0])
        nodes.remove(node)
    elif kind == "swap":
        pairs = [
            (a, b)
            for a, b in zip(nodes, nodes[1:], strict=False)
            if {a.op_type, b.op_type} <= {"Relu", "LRN", "MaxPool"}
        ]
        if pairs:
            a, b = _pick(rng, pairs)
            kept = a.SerializeToString(), b.SerializeToString()
            ends = (list(a.input), list(a.output)), (list(b.input), list(b.output))
            a.ParseFromString(kept[1]), b.ParseFromString(kept[0])
            for each, (inputs, outputs) in zip((a, b), ends, strict=True):
                each.input[:], each.output[:] = inputs, outputs
    elif kind == "weights":
        name = _pick(rng, list(weights))
        how = _pick(rng, ("scale", "short", "shared", "whole"))
        if how == "shared":
            twins = [other for other in weights if weights[other].shape == weights[name].shape]
            weights[name] = weights[_pick(rng, twins)]
        else:
            changed = {"scale": weights[name] * 2, "short": weights[name][:-1], "whole": weights[name].astype("int64")}
            weights[name] = changed[how]
    elif kind == "names":
        for number, each in enumerate(nodes):
            each.name = f"n{number}" if rng.random() < 0.5 else ""
    elif kind == "mean":
        first = nodes[0]
        values = _pick(rng, (CAFFE_BGR, CAFFE_BGR[::-1], (0.0, 0.0, 0.0), (10.0, 20.0, 30.0)))
        weights["mean"] = np.float32(values).reshape(1, 3, 1, 1)
        nodes.insert(
            0, onnx.helper.make_node(_pick(rng, ("Sub", "Add", "Div")), [first.input[0], "mean"], ["minus"], "minus")
        )
        first.input[0] = "minus"


def _follow(nodes, old, new):
    for node in nodes:
        node.input[:] = [new if each == old else each for each in node.input]


def onnx_case(rng, folder):
    """A graph with up to three changes, and the numbers that onnxruntime computes for each way of feeding it."""

    def change(nodes, weights):
        for _ in range(_pick(rng, (0, 1, 1, 2))):
            _change_graph(rng, nodes, weights)

    path = folder / "a.onnx"
    try:
        made = graph(change)
        onnx.save(made, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        session = onnxruntime.InferenceSession(path, options)
        rgb = IMAGES.astype("float32").transpose(0, 3, 1, 2).copy()
        # A graph that subtracts a mean takes raw pixels, in the order of its mean; other graphs are Caffe's.
        minus = any(node.op_type in ("Sub", "Add", "Div") and node.name != "sum" for node in made.graph.node)
        fed = [rgb, rgb[:, ::-1].copy()] if minus else [BGR]
        return path, [session.run(None, {session.get_inputs()[0].name: each})[0] for each in fed]
    except Exception as error:
        raise NoOracle(path) from error


# --- Caffe: an interpreter of its layers


def _windows(x, given, method):
    size, stride, pad = given.get("kernel"), given.get("stride", 1), given.get("pad", 0)
    if method or not size:
        raise NoOracle  # for averages, Caffe has its own rule at the edges
    return F.max_pool2d(x, size, stride, pad, ceil_mode=True)


def _caffe_numbers(layers):
    """The output that Caffe computes from the layers of `caffe`, for images prepared as the layers say."""
    x, weights = None, {name: [torch.tensor(v) for v in pair] for name, pair in arrays().items()}
    for name, kind, given in layers:
        if kind == "Data":
            mean = given["mean_value"] or CAFFE_BGR
            x = torch.tensor(IMAGES[..., ::-1].astype("float32") - np.float32(mean)).permute(0, 3, 1, 2)
            x = x * given["scale"]
        elif kind == "Convolution":
            w, b = weights[name]
            if "kernel" in given and given["kernel"] != w.shape[-1]:
                raise NoOracle
            x = F.conv2d(
                x, w, b, given.get("stride", 1), given.get("pad", 0), given.get("dilation", 1), given.get("group", 1)
            )
        elif kind == "ReLU":
            x = F.leaky_relu(x, given.get("slope", 0.0))
        elif kind == "LRN":
            if given.get("region"):
                raise NoOracle
            size = given.get("local_size", 5)
            x = F.local_response_norm(x, size, given.get("alpha", 1.0), given.get("beta", 0.75), given.get("k", 1.0))
        elif kind == "Pooling":
            x = _windows(x, given, given.get("method", 0))
        elif kind == "InnerProduct":
            w, b = weights[name]
            x = F.linear(x.flatten(1), w, b)
        elif kind in ("TanH", "Sigmoid"):
            x = {"TanH": torch.tanh, "Sigmoid": torch.sigmoid}[kind](x)
        elif kind not in ("Dropout", "SoftmaxWithLoss"):
            raise NoOracle
    return x.numpy()


CAFFE_SETTINGS = {
    "Convolution": {
        "stride": [1, 2, 4],
        "pad": [0, 1, 2],
        "group": [1, 2],
        "dilation": [1, 2],
        "kernel": [3, 5, 11],
    },
    "LRN": {"local_size": [5, 3], "alpha": [1e-4, 5e-4], "beta": [0.75, 0.5], "k": [1.0, 2.0], "region": [0, 1]},
    "Pooling": {"kernel": [2, 3], "stride": [1, 2, 3], "pad": [0, 1], "method": [0, 1]},
    "ReLU": {"slope": [0.0, 0.1]},
    "Data": {"scale": [1.0, 0.5], "mean_value": [[], [104.0, 117.0, 123.0], [0.0, 0.0, 0.0]]},
}


def _change_layers(rng, layers):
    kind = _pick(rng, ("setting",) * 4 + ("drop", "swap", "type", "more", "forget"))
    place = int(rng.integers(1, len(layers)))
    if kind in ("setting", "forget"):
        layer = _pick(rng, [each for each in layers if each[1] in CAFFE_SETTINGS])
        key = _pick(rng, list(CAFFE_SETTINGS[layer[1]]))
        if kind == "setting":
            layer[2][key] = _pick(rng, CAFFE_SETTINGS[layer[1]][key])
        elif layer[1] != "Data":
            layer[2].pop(key, None)
    elif kind == "drop" and layers[place][1] in ("ReLU", "LRN", "Pooling", "Dropout", "SoftmaxWithLoss"):
        del layers[place]
    elif kind == "swap" and {layers[place - 1][1], layers[place][1]} <= {"ReLU", "LRN", "Pooling"}:
        layers[place - 1 : place + 1] = layers[place - 1 : place + 1][::-1]
    elif kind == "type" and layers[place][1] == "ReLU":
        layers[place][1] = _pick(rng, ("TanH", "Sigmoid", "BNLL"))
    elif kind == "more":
        layers.insert(
            place, [f"more{len(layers)}", _pick(rng, ("ReLU", "TanH", "Dropout", "BatchNorm", "Sigmoid")), {}]
        )


def caffe_case(rng, folder):
    kept = []

    def change(layers):
        for _ in range(_pick(rng, (0, 1, 1, 2))):
            _change_layers(rng, layers)
        kept.extend(layers)

    path = caffe(folder / "a.caffemodel", change, double=bool(rng.integers(2)))
    try:
        return path, [_caffe_numbers(kept)]
    except NoOracle:
        raise NoOracle(path) from None
    except (RuntimeError, KeyError) as error:  # shapes that do not fit
        raise NoOracle(path) from error


# --- PyTorch: torchvision's arithmetic


def pytorch_case(rng, folder):
    """A state dict, nested in some way, perhaps with arrays that are missing, superfluous or of a different shape."""
    from safetensors.torch import save_file

    dtype = _pick(rng, (torch.float32, torch.float16, torch.bfloat16, torch.float64))
    values = state(dtype=dtype)
    shapes = {name: tensor.shape for name, tensor in values.items()}
    for _ in range(int(rng.integers(3))):
        key = _pick(rng, list(values))
        how = _pick(rng, ("drop", "more", "transpose", "int8", "rename", "half", "order"))
        if how == "drop":
            del values[key]
        elif how == "more":
            more = _pick(rng, (f"{key}_scale", "features.1.weight", "aux.weight", "classifier.7.bias"))
            values[more] = torch.ones(3)
        elif how == "transpose":
            values[key] = values[key].mT.contiguous() if values[key].ndim > 1 else values[key][:-1].clone()
        elif how == "rename":
            values[key.replace("features.", "layers.").replace("classifier.", "head.")] = values.pop(key)
        elif how == "order":
            values = {name: values[name] for name in [list(values)[k] for k in rng.permutation(len(values))]}
        else:
            values[key] = values[key].to(torch.int8 if how == "int8" else torch.float16)
    known = {name: tensor.shape for name, tensor in values.items()} == shapes
    known = known and all(tensor.is_floating_point() for tensor in values.values())
    numbers = _torchvision_numbers(values) if known else None
    prefix = _pick(rng, ("", "module.", "model.", "_orig_mod.module.", "net.a."))
    values = {prefix + name: tensor for name, tensor in values.items()}
    path = folder / "a"
    if rng.integers(2):
        save_file(values, path)
    else:
        wrapped = {"epoch": 3, "state_dict": values, "best": 0.5} if rng.integers(2) else values
        torch.save(wrapped, path, _use_new_zipfile_serialization=bool(rng.integers(2)))
    if not known:
        raise NoOracle(path)
    return path, [numbers]


def _torchvision_numbers(values):
    values = {name: tensor.float() for name, tensor in values.items()}
    x = torch.tensor(IMAGES.transpose(0, 3, 1, 2)).float() / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (x - mean) / std
    for place, stride, pad in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        x = F.relu(F.conv2d(x, values[f"features.{place}.weight"], values[f"features.{place}.bias"], stride, pad))
        x = F.max_pool2d(x, 3, 2) if place in (0, 3, 10) else x
    x = F.adaptive_avg_pool2d(x, (6, 6)).flatten(1)
    for place in (1, 4, 6):
        x = F.linear(x, values[f"classifier.{place}.weight"], values[f"classifier.{place}.bias"])
        x = F.relu(x) if place < 6 else x
    return x.numpy()


# --- Keras: the model itself


def keras_case(rng, folder):
    """Handwritten layers, one of them perhaps changed. They are read as the network that they look like."""
    import keras

    from alexnet.layers import LocalResponseNormalization

    extra = _pick(rng, (None, None, "norm", "relu", "dropout", "scale"))
    extra = {
        None: None,
        "norm": LocalResponseNormalization(5, 1.0, 2e-5, 0.75, "channels_last", name="norm5"),
        "relu": keras.layers.ReLU(),
        "dropout": keras.layers.Dropout(0.5),
        "scale": keras.layers.Rescaling(2.0),
    }[extra]
    model = layers_by_hand(_pick(rng, ("relu", "relu", "tanh", "gelu")), bool(rng.random() < 0.8), extra)
    path = folder / ("a.keras" if rng.integers(2) else "a.h5")
    model.save(path)
    return path, [model.predict_on_batch(IMAGES)]


CASES = {"onnx": onnx_case, "caffe": caffe_case, "pytorch": pytorch_case, "keras": keras_case}


def check(seed, folder):
    """The outcome of a case: `(kind, "right" | "refused")`.

    Raises:
        AssertionError: no error, although the numbers differ from the other program's, or it computes none.
    """
    rng = np.random.default_rng(seed)
    kind = list(CASES)[seed % 4]
    try:
        path, expected = CASES[kind](rng, folder)
    except NoOracle as error:
        (path,), expected = error.args, None
        if not path.is_file():
            return kind, "refused"
    networks = {"keras": ("caffe",), "pytorch": ("torchvision", "torchvision", "one_tower")}
    network = _pick(rng, networks.get(kind, (None, None, "caffe", "caffenet", "paper")))
    try:
        if kind in networks or (network is not None and rng.integers(2)):
            model = AlexNet(network, **SMALL, weights=path)
        else:
            model = load_checkpoint(path, network)
    except CheckpointError as error:
        assert len(str(error)) > 30, f"seed {seed}: {error}"
        return kind, "refused"
    assert expected is not None, f"seed {seed}: accepted, but the other program cannot compute it"
    found = [model.predict_on_batch(IMAGES), without_softmax(model).predict_on_batch(IMAGES)]
    differences = [
        np.abs(one - other).max() / np.abs(other).max() if one.shape == other.shape else np.inf
        for other in expected
        for one in found
    ]
    assert min(differences) <= 3e-4, f"seed {seed}: {kind} differs by {min(differences):.2g}"
    return kind, "right"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    results, wrong = Counter(), 0
    for seed in range(options.first, options.first + options.count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                results[" ".join(check(seed, Path(folder)))] += 1
            except AssertionError as error:
                wrong += 1
                print(error, flush=True)
    print(", ".join(f"{count:,} {what}" for what, count in sorted(results.items())), f"and {wrong:,} silently wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
