"""A Keras model to the formats of others."""

import os

import numpy as np

from alexnet.checkpoints.checkpoint import to_channels_first
from alexnet.checkpoints.onnx_graph import PRODUCER, Graph, add_layer
from alexnet.checkpoints.reading import TORCHVISION
from alexnet.presets import LAYERS

OPSET = 18


def write_onnx(model, path, preset=None):
    """An AlexNet as one ONNX file.

    Its input `pixels` is the model's own: float32 `(batch, height, width, 3)`, RGB 0-255. Its outputs are `fc8`, the
    logits, and `prob` where the model ends in a softmax. The graph is written node by node, the same on every backend.
    """
    import onnx

    graph = Graph("pixels")
    for layer in model.layers[1:]:
        kind, weights = type(layer).__name__, layer.get_weights()
        if kind == "Flatten":
            maps = layer.input.shape[-1]
        elif kind == "Dense":
            weights[0] = to_channels_first(weights[0], maps if layer.name == "fc6" else None)
        elif kind == "AverageMaps":
            weights = layer.matrices(layer.input.shape)
        add_layer(graph, kind, layer.name, layer.get_config(), weights)
    value = onnx.helper.make_tensor_value_info
    outputs = dict.fromkeys(("fc8", graph.value))
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
    if preset:
        onnx.helper.set_model_props(made, {"preset": preset})
    onnx.checker.check_model(made)
    _replace(path, lambda unfinished: onnx.save(made, unfinished))


def write_state_dict(model, path, preset=None):
    """The weights in PyTorch's layout, as `.safetensors` or `.pth`.

    The preset `torchvision` gets torchvision's names and can be loaded into its model; others get `conv1.weight` to
    `fc8.bias`. Those networks see RGB 0-255 minus the preset's mean.
    """
    names = TORCHVISION if preset == "torchvision" else {layer: layer for layer in LAYERS}
    maps = model.get_layer("conv5").filters
    arrays = {}
    for layer, name in names.items():
        kernel, bias = model.get_layer(layer).get_weights()
        arrays[f"{name}.weight"] = np.ascontiguousarray(to_channels_first(kernel, maps if layer == "fc6" else None))
        arrays[f"{name}.bias"] = bias
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        metadata = {"format": "pt", **({"preset": preset} if preset else {})}
        _replace(path, lambda unfinished: save_file(arrays, unfinished, metadata))
    else:
        import torch

        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        _replace(path, lambda unfinished: torch.save(tensors, unfinished))


def _replace(path, write):
    """Write beside the file and move it there, so that it is never half a file."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
