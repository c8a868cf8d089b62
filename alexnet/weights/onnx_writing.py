"""Writes an ONNX graph node by node, the same on every backend."""

from pathlib import Path
from typing import Any

import numpy as np

from alexnet.weights.checkpoint import to_channels_first
from alexnet.weights.keras_config import from_config
from alexnet.weights.onnx_reading import ACTIVATIONS, PRODUCER
from alexnet.weights.writing import arrays_of

OPSET = 18


def write_onnx(model: Any, path: Path, network: str | None = None) -> None:
    """Write an AlexNet as one ONNX file.

    Its input `pixels` is the model's: float32 `(batch, height, width, 3)`, RGB 0-255. Its outputs are the logits, named
    like their layer, `fc8`, and `prob` if the model ends in a softmax. The graph is the same on every backend.
    """
    import onnx

    if branches := [each for each in from_config(model.get_config()).layers if each.kind.startswith("branch")]:
        raise ValueError(f"ONNX export supports only layers in sequence. Received: a {branches[0].kind}")
    graph, maps, logits = Graph("pixels"), None, None
    for layer in model.layers[1:]:
        kind, weights = type(layer).__name__, arrays_of(layer)
        if kind == "Flatten":
            maps = layer.input.shape[-1]
        elif kind == "Dense":
            weights[0], maps = to_channels_first(weights[0], maps), None
        elif kind == "AverageMaps":
            weights = layer.matrices(layer.input.shape)
        add_layer(graph, kind, layer.name, layer.get_config(), weights)
        logits = layer.name if weights and kind != "AverageMaps" else logits
    value = onnx.helper.make_tensor_value_info
    outputs = dict.fromkeys((logits, graph.value))
    classes = model.output.shape[-1]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            model.name,
            [value("pixels", onnx.TensorProto.FLOAT, ["batch", *model.input.shape[1:]])],
            [value(name, onnx.TensorProto.FLOAT, ["batch", classes]) for name in outputs],
            graph.arrays,
        ),
        producer_name=PRODUCER,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    if network:
        onnx.helper.set_model_props(made, {"network": network})
    onnx.checker.check_model(made)
    onnx.save(made, path)


class Graph:
    """An ONNX graph under construction: a chain of nodes."""

    def __init__(self, value):
        self.nodes, self.arrays, self.value = [], [], value

    def array(self, name, values):
        import onnx

        values = np.ascontiguousarray(values)
        self.arrays.append(onnx.numpy_helper.from_array(values, name))
        return name

    def add(self, kind, output, *others, inputs=None, **attributes):
        """Append a node that takes the chain's last value, or `inputs`. Its first output becomes the last value."""
        import onnx

        inputs = [self.value, *others] if inputs is None else inputs
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(onnx.helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))
        self.value = outputs[0]
        return self.value


def add_layer(graph, kind, name, settings, weights):
    """Append the nodes of one Keras layer, for images with channels first.

    Args:
        kind: The class of the layer.
        settings: Its `get_config()`.
        weights: Its arrays; for `AverageMaps`, the matrices of both axes.
    """
    if kind == "PixelNormalization":
        graph.add("Sub", f"{name}_centered", graph.array(f"{name}.mean", np.asarray(settings["mean"], "float32")))
        if settings["std"] != 1.0:
            graph.add("Div", f"{name}_scaled", graph.array(f"{name}.std", np.asarray(settings["std"], "float32")))
        graph.add("Transpose", name, perm=[0, 3, 1, 2])
    elif kind == "GroupedConv2D":
        same = settings["padding"] == "same"
        if (same and set(settings["strides"]) != {1}) or set(settings["dilation_rate"]) != {1}:
            raise ValueError(f"ONNX export supports neither dilation nor strides with padding='same' ({name}).")
        pads = [(side - 1) // 2 if same else 0 for side in settings["kernel_size"]]
        pads += [(side - 1) - (side - 1) // 2 if same else 0 for side in settings["kernel_size"]]
        kernel = graph.array(f"{name}.weight", to_channels_first(weights[0]))
        bias = [graph.array(f"{name}.bias", values) for values in weights[1:]]
        strides = list(settings["strides"])
        graph.add("Conv", name, kernel, *bias, group=settings["groups"], strides=strides, pads=pads)
        _add_activation(graph, f"{name}_activation", settings["activation"], "relu")
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = settings["padding"]
        pads = np.array([0, 0, top, left, 0, 0, bottom, right])
        graph.add("Pad", name, graph.array(f"{name}.pads", pads))
    elif kind == "ReLU":
        if any(settings.get(key) for key in ("max_value", "negative_slope", "threshold")):
            raise ValueError(f"ONNX export does not support a ReLU with a bound or a slope ({name}).")
        graph.add("Relu", name)
    elif kind == "LocalResponseNormalization":
        _add_lrn(graph, name, settings)
    elif kind == "WithinChannelLRN":
        _add_within_channel_lrn(graph, name, settings)
    elif kind == "MaxPooling2D":
        _add_pool(graph, "MaxPool", name, settings)
    elif kind == "AveragePooling2D":
        _add_pool(graph, "AveragePool", name, settings)
    elif kind == "AverageMaps":
        _add_average(graph, name, weights)
    elif kind == "Flatten":
        graph.add("Flatten", name)
    elif kind == "Dense":
        bias = [graph.array(f"{name}.bias", values) for values in weights[1:]]
        graph.add("Gemm", name, graph.array(f"{name}.weight", weights[0]), *bias, transB=1)
        _add_activation(graph, f"{name}_activation", settings["activation"], "relu")
    elif kind == "Activation":
        _add_activation(graph, name, settings["activation"], "relu", *ACTIVATIONS.values())
    elif kind != "Dropout":
        raise ValueError(f"ONNX export does not support layers of the kind {kind} ({name}).")


def _add_activation(graph, name, activation, *known):
    if activation in (None, "linear"):
        return
    if activation not in known:
        raise ValueError(f"ONNX export supports {', '.join(known)} here. Received: activation={activation!r} ({name})")
    kind = next((kind for kind, keras_name in ACTIVATIONS.items() if keras_name == activation), "Relu")
    graph.add(kind, name, **({"axis": -1} if kind.endswith("Softmax") else {}))


def _add_pool(graph, kind, name, settings):
    if settings["padding"] != "valid":
        raise ValueError(f"ONNX export does not support pooling with padding={settings['padding']!r} ({name}).")
    graph.add(
        kind,
        name,
        kernel_shape=list(settings["pool_size"]),
        strides=list(settings["strides"]),
        **({"ceil_mode": 1} if settings.get("rounding") == "ceil" else {}),
    )


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


def _add_within_channel_lrn(graph, name, settings):
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
