"""ONNX: the graph of an AlexNet, read and written."""

import numpy as np

from alexnet.checkpoints.checkpoint import CheckpointError, as_network, to_channels_first
from alexnet.presets import LAYERS, PRESETS

PRODUCER = "alexnet"
STEPS = {"Relu": "relu", "LRN": "lrn", "MaxPool": "pool"}


def read_onnx(path):
    """An ONNX file as a checkpoint.

    The five convolutions and three matrix products are taken in their order, whatever they are called; the preset is
    told from what stands between them. Networks in Caffe's manner see blue first.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise CheckpointError(f"weights: {path} keeps its arrays in other files. Save it as one file.")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    products = [node for node in model.graph.node if node.op_type == "Gemm"]
    if (len(convolutions), len(products)) != (5, 3):
        found = sorted({node.op_type for node in model.graph.node})
        raise CheckpointError(
            f"weights: {path} (ONNX) does not hold an AlexNet.\n  expected 5 Conv and 3 Gemm, found "
            f"{len(convolutions)} and {len(products)}\n  the file has: {', '.join(found) or 'no nodes'}"
        )
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    blobs, names = {}, {}
    for layer, node in zip(LAYERS, [*convolutions, *products], strict=True):
        names[layer] = tuple([*node.input, ""][1:3])
        blobs |= {name: onnx.numpy_helper.to_array(tensors[name]) for name in names[layer] if name in tensors}
        kernel = names[layer][0]
        if node in products and not _attribute(node, "transB", 0) and kernel in blobs:
            blobs[kernel] = blobs[kernel].T
    ours = model.producer_name == PRODUCER
    preset = next((entry.value for entry in model.metadata_props if ours and entry.key == "preset"), None)
    preset = preset if preset in PRESETS else _preset(model.graph)
    checkpoint = as_network(path, "onnx", blobs, names, preset, bgr=not ours and preset in ("caffe", "caffenet"))
    if ours and "mean.mean" in tensors:
        checkpoint.mean = onnx.numpy_helper.to_array(tensors["mean.mean"]).astype(float).tolist()
    return checkpoint


def _preset(graph):
    """The preset that has the same convolutions, the same steps after the first two, and the same LRN."""
    convolutions = [i for i, node in enumerate(graph.node) if node.op_type == "Conv"]
    between = [
        tuple(STEPS[node.op_type] for node in graph.node[start:stop] if node.op_type in STEPS)
        for start, stop in zip(convolutions[:2], convolutions[1:3], strict=True)
    ]
    norms = [_lrn(node) for node in graph.node if node.op_type == "LRN"]
    found = [_convolution(graph.node[i]) for i in convolutions]
    for name, preset in PRESETS.items():
        layers = [preset.layers[layer] for layer in LAYERS[:5]]
        expected = [(layer.stride, layer.padding, layer.columns) for layer in layers]
        ours = [[preset.lrn[key] for key in ("n", "alpha", "beta", "k")]] * 2 if preset.lrn else []
        same_norms = len(norms) == len(ours) and np.allclose(norms, ours, rtol=1e-4)
        plain = preset.same_map is None and (preset.lrn or {}).get("groups", 1) == 1
        if plain and same_norms and found == expected and between == [layer.then for layer in layers[:2]]:
            return name
    return None


def _lrn(node):
    size = _attribute(node, "size", 0)
    alpha, beta = _attribute(node, "alpha", 1e-4), _attribute(node, "beta", 0.75)
    return [size, alpha / max(1, size), beta, _attribute(node, "bias", 1.0)]


def _convolution(node):
    """Stride, padding and groups; None for what differs between directions."""
    strides, pads = _attribute(node, "strides", [1, 1]), _attribute(node, "pads", [0] * 4)
    alike = len(set(strides)) == len(set(pads)) == 1
    return (strides[0], pads[0], _attribute(node, "group", 1)) if alike else None


def _attribute(node, name, default):
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


class Graph:
    """An ONNX graph under construction: a chain of nodes, one after the other."""

    def __init__(self, value):
        self.nodes, self.arrays, self.value = [], [], value

    def array(self, name, values):
        import onnx

        values = np.ascontiguousarray(values)
        self.arrays.append(onnx.numpy_helper.from_array(values, name))
        return name

    def add(self, kind, output, *others, inputs=None, **attributes):
        """A node on the chain's last value, or on `inputs`, whose output goes on."""
        import onnx

        inputs = [self.value, *others] if inputs is None else inputs
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(onnx.helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))
        self.value = outputs[0]
        return self.value


def add_layer(graph, kind, name, settings, weights):
    """The nodes of one Keras layer, on images with channels first.

    Args:
        kind: The class of the layer.
        settings: Its `get_config()`.
        weights: Its arrays; of `AverageMaps` the matrices of both axes.
    """
    if kind == "PixelNormalization":
        graph.add("Sub", f"{name}_centred", graph.array(f"{name}.mean", np.asarray(settings["mean"], "float32")))
        if settings["std"] != 1.0:
            graph.add("Div", f"{name}_scaled", graph.array(f"{name}.std", np.asarray(settings["std"], "float32")))
        graph.add("Transpose", name, perm=[0, 3, 1, 2])
    elif kind == "GroupedConv2D":
        reach = (settings["kernel_size"][0] - 1) // 2 if settings["padding"] == "same" else 0
        kernel = graph.array(f"{name}.weight", to_channels_first(weights[0]))
        bias = graph.array(f"{name}.bias", weights[1])
        strides = list(settings["strides"])
        graph.add("Conv", name, kernel, bias, group=settings["groups"], strides=strides, pads=[reach] * 4)
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = settings["padding"]
        pads = np.array([0, 0, top, left, 0, 0, bottom, right])
        graph.add("Pad", name, graph.array(f"{name}.pads", pads))
    elif kind == "ReLU":
        graph.add("Relu", name)
    elif kind == "LocalResponseNormalization":
        _add_lrn(graph, name, settings)
    elif kind == "SameMapNormalization":
        _add_same_map(graph, name, settings)
    elif kind == "MaxPooling2D":
        graph.add("MaxPool", name, kernel_shape=list(settings["pool_size"]), strides=list(settings["strides"]))
    elif kind == "AverageMaps":
        _add_average(graph, name, weights)
    elif kind == "Flatten":
        graph.add("Flatten", name)
    elif kind == "Dense":
        graph.add(
            "Gemm", name, graph.array(f"{name}.weight", weights[0]), graph.array(f"{name}.bias", weights[1]), transB=1
        )
    elif kind == "Activation":
        if settings["activation"] != "softmax":
            raise ValueError(f"ONNX export knows softmax. Received: activation={settings['activation']!r}")
        graph.add("Softmax", name, axis=-1)
    elif kind != "Dropout":
        raise ValueError(f"ONNX export knows no layer of the kind {kind} ({name}).")


def _add_lrn(graph, name, settings):
    size = 2 * (settings["n"] // 2) + 1
    lrn = {"size": size, "alpha": size * settings["alpha"], "beta": settings["beta"], "bias": settings["k"]}
    groups = settings["groups"]
    if groups == 1:
        graph.add("LRN", name, **lrn)
        return
    parts = [f"{name}_{i}" for i in range(groups)]
    graph.add("Split", parts, axis=1, num_outputs=groups)
    normalized = [graph.add("LRN", f"{part}_lrn", inputs=[part], **lrn) for part in parts]
    graph.add("Concat", name, inputs=normalized, axis=1)


def _add_same_map(graph, name, settings):
    x, size = graph.value, settings["size"]
    square = graph.add("Mul", f"{name}_squares", x)
    mean = graph.add(
        "AveragePool",
        f"{name}_means",
        inputs=[square],
        kernel_shape=[size, size],
        pads=[size // 2] * 4,
        count_include_pad=1,
    )
    scaled = graph.add(
        "Mul",
        f"{name}_sums",
        inputs=[mean, graph.array(f"{name}.alpha", np.float32(settings["alpha"] * size**2))],
    )
    base = graph.add("Add", f"{name}_base", inputs=[scaled, graph.array(f"{name}.k", np.float32(settings["k"]))])
    power = graph.array(f"{name}.beta", np.float32(settings["beta"]))
    divisor = graph.add("Pow", f"{name}_divisor", inputs=[base, power])
    graph.add("Div", name, inputs=[x, divisor])


def _add_average(graph, name, matrices):
    """An average over windows of changing size, as two products with fixed matrices."""
    rows, columns = graph.array(f"{name}.rows", matrices[0].T), graph.array(f"{name}.columns", matrices[1])
    graph.add("MatMul", f"{name}_rows", inputs=[rows, graph.value])
    graph.add("MatMul", name, columns)
