"""Reads ONNX: the graph of an AlexNet, from its output back to its pixels."""

import math
from pathlib import Path

import numpy as np

from alexnet.networks import NETWORKS, names_by_counts
from alexnet.networks.alexnets import CAFFE
from alexnet.weights.architecture import Architecture, Layer, activation, convolution, lrn, padding, pool
from alexnet.weights.checkpoint import Checkpoint, CheckpointError, as_network

PRODUCER = "alexnet"
LARGEST = 2**27  # the most numbers in an array that a graph computes from constants
LONGEST = 1000  # the most nodes between input and output
# Functions that may follow the logits, and their names in Keras.
ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid", "Tanh": "tanh"}
# Nodes whose value is computed if their inputs are constants.
FOLDED = (
    *("Constant", "ConstantOfShape", "Identity", "Transpose", "Reshape"),
    *("Cast", "Unsqueeze", "Squeeze", "Concat", "Gather"),
)


def read_onnx(path: Path) -> Checkpoint:
    """An ONNX file as a `Checkpoint`.

    Every node between the graph's input and its output is read, and they identify the network. Arrays may have any
    names. Caffe's networks see blue first.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise CheckpointError(f"weights: {path} keeps its arrays in other files. Save it as one file.")
    ours = model.producer_name == PRODUCER
    trace = _Trace(model.graph)
    architecture = trace.architecture()
    kinds = [layer.kind for layer in architecture.layers]
    layers = names_by_counts(kinds.count("conv"), 0, kinds.count("dense"))
    if layers is None:
        found = sorted({node.op_type for node in model.graph.node})
        raise CheckpointError(
            f"weights: {path} (ONNX) does not hold an AlexNet.\n  expected 5 Conv and 3 Gemm, found "
            f"{kinds.count('conv')} and {kinds.count('dense')}\n  the file has: {', '.join(found) or 'no nodes'}"
        )
    names = dict(zip(sum(layers, []), trace.arrays["conv"] + trace.arrays["dense"], strict=True))
    blobs = {name: trace.value(name) for pair in names.values() for name in pair if name in trace.constants}
    for _, bias in names.values():
        if bias in blobs and blobs[bias].shape[:-1] == (1,):
            blobs[bias] = blobs[bias].ravel()
    checkpoint = as_network(path, "onnx", blobs, names, architecture=architecture)
    if not ours:
        _as_fed(checkpoint, trace)
        if checkpoint.activation in (None, "log_softmax"):
            checkpoint.architecture.activation = "softmax"
    elif trace.factor is not None:
        mean, std = -trace.shift / trace.factor, 1 / trace.factor
        checkpoint.mean = checkpoint.architecture.mean = mean.tolist()
        checkpoint.architecture.std = std.tolist()
        checkpoint.network = checkpoint.architecture.detect()
    return checkpoint


def _as_fed(checkpoint, trace):
    """Set the mean and the order of colors of a network that another program exported, by what its authors feed it.

    If a graph normalizes its pixels itself, the mean that it subtracts reveals the order.
    """
    network = checkpoint.network
    blue_first = network in ("caffe", "caffenet")
    if trace.factor is not None:
        mean, std = -trace.shift / trace.factor, 1 / trace.factor
        row = NETWORKS[network or "torchvision"]
        ours, scale = np.array(row.pixel_mean), row.pixel_std
        readings = [
            (reverse, unit)
            for reverse in (False, True)
            for unit in (1, 255)
            if np.allclose((mean * unit)[:: -1 if reverse else 1], ours, atol=2)
            and np.allclose((std * unit)[:: -1 if reverse else 1], scale, rtol=1e-2)
        ]
        if network is None or not readings:
            numbers = f"mean {np.round(mean, 4).tolist()} and deviation {np.round(std, 4).tolist()}"
            raise CheckpointError(
                f"weights: {checkpoint.path} (ONNX) normalizes its pixels itself, by {numbers}, and no network known "
                f"here does so{'' if network is None else f' ({network}: {row.pixel_mean} and {scale})'}."
            )
        blue_first, unit = readings[0]
        checkpoint.mean = (mean * unit)[:: -1 if blue_first else 1].tolist()
    elif blue_first:
        checkpoint.mean = CAFFE.pixel_mean
    if blue_first:
        first = next(iter(checkpoint.layers))
        kernel, bias = checkpoint.layers[first]
        checkpoint.layers[first] = kernel[:, :, ::-1], bias


class _Trace:
    """The way back from a graph's output to its input.

    Attributes:
        constants: Names of the values that do not depend on the input.
        arrays: Names of the kernels and biases of `"conv"` and `"dense"`, in order.
        factor, shift: How the graph normalizes its pixels, one number for each channel; None if it does not.
    """

    def __init__(self, graph):
        self.graph = graph
        self.arrays = {"conv": [], "dense": []}
        self.factor = self.shift = None
        self.nodes = {output: node for node in graph.node for output in node.output if output}
        self.known = {tensor.name: tensor for tensor in graph.initializer}
        self.constants = set(self.known)
        for node in graph.node:
            # A value's shape counts as constant: only its batch size is used, before the first dense layer.
            inputs = all(name in self.constants for name in node.input if name)
            if node.op_type == "Shape" or (node.op_type in FOLDED and inputs):
                self.constants.update(node.output)

    def value(self, name):
        """The array of a constant; None if it would be too large, or its nodes are not supported."""
        import onnx

        found = self.known.get(name)
        if isinstance(found, onnx.TensorProto):
            self.known[name] = found = onnx.numpy_helper.to_array(found)
        elif name not in self.known and name in self.nodes:
            node = self.nodes[name]
            self.known[name] = None  # for now, so that a cycle ends
            if node.op_type == "Shape":
                found = np.array([-1])
            else:
                found = _fold(node, [self.value(each) if each else None for each in node.input])
            self.known[name] = found
        return found

    def architecture(self):
        """The `Architecture`. The layers are found from the last to the first."""
        inputs = [value for value in self.graph.input if value.name not in self.constants]
        if len(inputs) != 1 or not self.graph.output:
            return Architecture([Layer(f"{len(inputs)} inputs and {len(self.graph.output)} outputs")])
        (pixels,) = inputs
        dims = [dim.dim_value for dim in pixels.type.tensor_type.shape.dim]
        self.batch = dims[0] if dims else 0
        layers, seen, value = [], set(), self._last()
        bias = None  # added to a product that is found next
        while value != pixels.name:
            node = self.nodes.get(value)
            if node is None or value in seen or len(seen) > LONGEST or node.output[0] != value:
                layers.append(Layer(f"no way from {pixels.name} to", name=value))
                break
            seen.add(value)
            found, value = self._step(node, bias)
            bias = None
            if isinstance(found, str):  # a bias
                bias = found
            elif found is not None:
                layers.append(found)
        others = [output.name for output in self.graph.output if output.name not in seen]
        layers += [Layer("another output", name=name) for name in others]
        layers = self._without_normalization(layers[::-1])
        size = dims[2:4]
        if layers and layers[0].kind == "transpose":
            layers, size = layers[1:], dims[1:3]
        for names in self.arrays.values():
            names.reverse()
        return Architecture(layers, tuple(size) if len(size) == 2 and all(size) else None)

    def _last(self):
        """The output that is farthest from the input. All others must be on the way to it."""

        def length(name):
            count = 0
            while name in self.nodes and count <= LONGEST:
                inputs = [each for each in self.nodes[name].input if each and each not in self.constants]
                name, count = inputs[0] if inputs else "", count + 1
            return count

        return max((output.name for output in self.graph.output), key=length)

    def _step(self, node, bias):
        """`(layer, input)` of a node. The layer is None if it has no effect, and a bias's name if it only adds one."""
        kind, name = node.op_type, node.name or node.output[0]
        inputs = list(node.input)
        data = [each for each in inputs if each and each not in self.constants]
        constants = [each for each in inputs if each in self.constants]
        previous = data[0] if data else ""
        strange = Layer(kind if node.domain in ("", "ai.onnx") else f"{node.domain}.{kind}", name=name)
        if node.domain not in ("", "ai.onnx") or not data:
            return strange, previous
        if len(data) > 1:
            return self._composed(node, strange) or (strange, previous)
        if kind in ("Identity", "Dropout") or (kind == "Cast" and _attribute(node, "to", 0) in (1, 10, 11, 16)):
            return None, previous
        if kind == "Conv" and previous == inputs[0] and self.value(inputs[1]) is not None:
            self.arrays["conv"].append(tuple([*inputs, ""][1:3]))
            return _convolution(node, self.value(inputs[1]).shape[2:], name), previous
        if kind == "MatMul" and (found := self._average_of_our_own(node)):
            return found
        if kind in ("Gemm", "MatMul") and previous == inputs[0]:
            scaled = any(_attribute(node, key, 1.0) != 1 for key in ("alpha", "beta")) or _attribute(node, "transA", 0)
            kernel = self.value(inputs[1])
            if scaled or kernel is None or kernel.ndim != 2:
                return strange, previous
            kernel_name = inputs[1]
            if not _attribute(node, "transB", 0):
                kernel_name = f"{kernel_name} (transposed)"
                self.known[kernel_name] = kernel.T
                self.constants.add(kernel_name)
            self.arrays["dense"].append((kernel_name, bias or [*inputs, ""][2]))
            return Layer("dense", name=name), previous
        if kind in ("Add", "Sub", "Mul", "Div") and len(constants) == 1 and self.value(constants[0]) is not None:
            values, below = self.value(constants[0]), self.nodes.get(previous)
            if kind == "Add" and values.ndim < 3 and below is not None and below.op_type == "MatMul":
                return constants[0], previous
            affine = kind, values.astype("float64"), inputs[0] == constants[0]
            return Layer(kind, {"affine": affine}, name), previous
        if kind == "Relu":
            return Layer("relu", name=name), previous
        if kind == "LRN":
            return lrn(*_lrn(node), name=name), previous
        if kind == "MaxPool" and len([output for output in node.output if output]) == 1:
            return _pool(node, name), previous
        if kind == "AveragePool":
            return self._average(node, strange), previous
        if kind == "Pad":
            return self._pad(node, strange), previous
        if kind == "Transpose" and list(_attribute(node, "perm", [])) == [0, 3, 1, 2]:
            return Layer("transpose", name=name), previous
        if self._flattens(node):
            return Layer("flatten", name=name), previous
        if kind in ACTIVATIONS and _attribute(node, "axis", -1) in (-1, 1):
            return activation(ACTIVATIONS[kind], name), previous
        return strange, previous

    def _flattens(self, node):
        if node.op_type == "Flatten":
            return _attribute(node, "axis", 1) == 1
        if node.op_type != "Reshape":
            return False
        shape = list(_attribute(node, "shape", []))  # up to opset 4
        if len(node.input) > 1:
            value = self.value(node.input[1])
            shape = [] if value is None else np.ravel(value).tolist()
        return len(shape) == 2 and shape[0] in (-1, 0, 1, self.batch) and (shape[1] == -1 or shape[1] > 1)

    def _pad(self, node, strange):
        pads = list(_attribute(node, "pads", []))  # up to opset 10
        value = _attribute(node, "value", 0.0)
        if len(node.input) > 1:
            found = self.value(node.input[1])
            pads = [] if found is None else np.ravel(found).tolist()
        if len(node.input) > 2 and node.input[2]:
            value = self.value(node.input[2])
        axes = len(node.input) > 3 and node.input[3]
        if (
            value is None
            or np.any(value)
            or axes
            or _attribute(node, "mode", b"constant") != b"constant"
            or len(pads) != 8
        ):
            return strange
        if any(pads[i] for i in (0, 1, 4, 5)):
            return strange
        return padding(((int(pads[2]), int(pads[6])), (int(pads[3]), int(pads[7]))), strange.name)

    def _average(self, node, strange):
        """Torchvision's adaptive average: of maps that are already 6 x 6, or over adjacent windows."""
        size = list(_attribute(node, "kernel_shape", []))
        strides = list(_attribute(node, "strides", [1] * len(size)))
        if size != strides and not _attribute(node, "count_include_pad", 0):
            return _pool(node, strange.name)
        plain = size == strides and len(set(size)) == 1 and not any(_attribute(node, "pads", []))
        plain = plain and _attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        if plain and size[0] == 1:
            return None
        return Layer("average", {"size": 6, "window": size[0]}, strange.name) if plain else strange

    def _average_of_our_own(self, node):
        """An adaptive average as `add_layer` writes it: products of rows and then columns with fixed matrices."""
        from alexnet.layers import AverageMaps

        rows = self.nodes.get(node.input[0])
        if rows is None or rows.op_type != "MatMul" or rows.input[0] not in self.constants:
            return None
        found = [self.value(rows.input[0]), self.value(node.input[1]) if node.input[1] in self.constants else None]
        if any(matrix is None or matrix.ndim != 2 for matrix in found) or found[0].shape[0] != found[1].shape[1]:
            return None
        average = AverageMaps(found[1].shape[1])
        matrices = average.matrices((None, found[0].shape[1], found[1].shape[0], 1))
        if not all(np.allclose(a, b) for a, b in zip((found[0].T, found[1]), matrices, strict=True)):
            return None
        return Layer("average", {"size": average.size}, node.output[0]), rows.input[1]

    def _composed(self, node, strange):
        """A layer that consists of several nodes: normalization within each column, or within each map."""
        if node.op_type == "Concat" and _attribute(node, "axis", 0) == 1:
            return self._grouped_lrn(node, strange)
        if node.op_type == "Div":
            return self._within_channel_lrn(node, strange)
        return None

    def _grouped_lrn(self, node, strange):
        parts = [self.nodes.get(name) for name in node.input]
        if any(part is None or part.op_type != "LRN" for part in parts):
            return None
        splits = {part.input[0]: self.nodes.get(part.input[0]) for part in parts}
        split = next(iter(splits.values()))
        if split is None or split.op_type != "Split" or _attribute(split, "axis", 0) != 1:
            return None
        sizes = _attribute(split, "split", None)
        if len(split.input) > 1 and split.input[1]:
            sizes = self.value(split.input[1])
        if list(split.output) != [part.input[0] for part in parts] or (sizes is not None and len(set(sizes)) != 1):
            return None
        settings = {tuple(_lrn(part)) for part in parts}
        if len(settings) != 1:
            return None
        return lrn(*settings.pop(), groups=len(parts), name=strange.name), split.input[0]

    def _within_channel_lrn(self, node, strange):
        """x / (k + alpha * sum of squares) ** beta, where the sum is a mean times the number of its terms."""

        def constant(node, kind):
            if node is None or node.op_type != kind:
                return None, None
            for i in (1, 0):
                value = self.value(node.input[i]) if node.input[i] in self.constants else None
                if np.size(value) == 1 and value is not None:
                    return self.nodes.get(node.input[1 - i]), float(np.ravel(value)[0])
            return None, None

        x = node.input[0]
        below, beta = constant(self.nodes.get(node.input[1]), "Pow")
        below, k = constant(below, "Add")
        below, factor = constant(below, "Mul")
        if below is None or below.op_type != "AveragePool":
            return None
        size, pads = list(_attribute(below, "kernel_shape", [])), list(_attribute(below, "pads", []))
        squares = self.nodes.get(below.input[0])
        plain = _attribute(below, "count_include_pad", 0) and set(_attribute(below, "strides", [1])) == {1}
        if not plain or len(set(size)) != 1 or pads != [size[0] // 2] * 4:
            return None
        if squares is None or squares.op_type != "Mul" or list(squares.input) != [x, x]:
            return None
        settings = {"size": size[0], "k": k, "alpha": factor / size[0] ** 2, "beta": beta}
        return Layer("within_channel_lrn", settings, strange.name), x

    def _without_normalization(self, layers):
        """The layers without the normalization of pixels at their beginning, which becomes `factor` and `shift`."""
        rest, begin = list(layers), []
        factor, shift = np.ones(3), np.zeros(3)
        while rest:
            if rest[0].kind == "transpose" and not begin:
                begin.append(rest.pop(0))
                continue
            if "affine" not in rest[0].settings:
                break
            kind, values, first = rest[0].settings["affine"]
            values = values.ravel()
            if values.size not in (1, 3) or (first and kind == "Div"):
                break
            if kind == "Add":
                shift = shift + values
            elif kind == "Sub":
                factor, shift = (-factor, values - shift) if first else (factor, shift - values)
            else:
                values = 1 / values if kind == "Div" else values
                factor, shift = factor * values, shift * values
            self.factor, self.shift = factor, shift
            rest.pop(0)
        return begin + rest


def _fold(node, inputs):
    """The value of a node, given those of its inputs; None if it is too large, or the node is not supported."""
    import onnx

    kind = node.op_type
    if kind == "Constant":
        if (value := _attribute(node, "value", None)) is not None:
            return onnx.numpy_helper.to_array(value)
        for key in ("value_float", "value_floats", "value_int", "value_ints"):
            if (value := _attribute(node, key, None)) is not None:
                return np.asarray(value, "float32" if "float" in key else "int64")
    if not inputs or any(value is None for value in inputs):
        return None
    first = inputs[0]
    if kind == "Gather" and first.tolist() == [-1]:  # the batch
        return np.int64(-1) if not np.any(inputs[1]) else None
    if kind == "ConstantOfShape":
        value = _attribute(node, "value", None)
        value = np.float32(0) if value is None else onnx.numpy_helper.to_array(value).ravel()[0]
        shape = [int(side) for side in np.ravel(first)]
        return np.broadcast_to(value, shape) if 0 <= math.prod(shape) <= LARGEST else None
    if kind == "Identity":
        return first
    if kind == "Transpose":
        return first.transpose(_attribute(node, "perm", None))
    if kind == "Reshape" and len(inputs) == 2 and 0 not in inputs[1]:
        return first.reshape(inputs[1].tolist())
    if kind == "Cast":
        kinds = {1: "float32", 7: "int64", 10: "float16", 11: "float64"}
        return first.astype(kinds[_attribute(node, "to", 0)]) if _attribute(node, "to", 0) in kinds else None
    if kind in ("Unsqueeze", "Squeeze"):
        axes = _attribute(node, "axes", None) if len(inputs) == 1 else np.ravel(inputs[1]).tolist()
        if kind == "Unsqueeze":
            return np.expand_dims(first, tuple(axes))
        return np.squeeze(first, None if axes is None else tuple(axes))
    if kind == "Concat" and all(value.ndim < 2 and value.size <= 8 for value in inputs):
        return np.concatenate([np.atleast_1d(value) for value in inputs])
    return None


def _lrn(node):
    """n, k, alpha and beta as the paper defines them."""
    size = _attribute(node, "size", 0)
    alpha, beta = _attribute(node, "alpha", 1e-4), _attribute(node, "beta", 0.75)
    return size, _attribute(node, "bias", 1.0), alpha / max(1, size), beta


def _convolution(node, kernel, name):
    strides, dilations = (tuple(_attribute(node, key, [1] * len(kernel))) for key in ("strides", "dilations"))
    return convolution(tuple(kernel), strides, _pads(node, len(kernel)), _attribute(node, "group", 1), dilations, name)


def _pool(node, name):
    size = tuple(_attribute(node, "kernel_shape", []))
    strides, dilations = (tuple(_attribute(node, key, [1] * len(size))) for key in ("strides", "dilations"))
    rounding = "ceil" if _attribute(node, "ceil_mode", 0) else "floor"
    kind = "pool" if node.op_type == "MaxPool" else "average_pool"
    return pool(size, strides, _pads(node, len(size)), dilations, rounding, name, kind)


def _pads(node, rank):
    """Zeros before and after, for each axis."""
    auto = _attribute(node, "auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        return "same" if auto == b"SAME_UPPER" else "same_lower"
    pads = list(_attribute(node, "pads", [])) or [0] * 2 * rank
    pads = [0] * 2 * rank if auto == b"VALID" else pads
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def _attribute(node, name, default):
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
