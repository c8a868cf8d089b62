"""Caffe's `.caffemodel`: a protocol buffer of layers and blobs."""

import functools

import numpy as np

from alexnet.checkpoints.checkpoint import FORMATS, CheckpointError, as_network
from alexnet.presets import LAYERS

# The fields of Caffe's messages that hold weights: name, number, type, repeated. Two generations of files: a layer's
# type was once a number. `data` holds packed floats; declared as bytes it arrives without a copy of each number.
MESSAGES = {
    "Shape": [("dim", 1, "int64", True)],
    "Blob": [
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "bytes", True),
        ("shape", 7, "Shape", False),
    ],
    "Norm": [("local_size", 1, "int32", False), ("alpha", 2, "float", False), ("beta", 3, "float", False)],
    "Layer": [
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("blobs", 7, "Blob", True),
        ("lrn_param", 118, "Norm", False),
    ],
    "OldLayer": [
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "Blob", True),
        ("lrn_param", 18, "Norm", False),
    ],
    "Net": [("name", 1, "string", False), ("layers", 2, "OldLayer", True), ("layer", 100, "Layer", True)],
}
OLD_TYPES = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU"}


def read_caffe(path):
    """A `.caffemodel` as a checkpoint; `caffe` or `caffenet` is told from the order of its layers."""
    from google.protobuf.message import DecodeError

    net = _messages()["Net"]()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError:
        raise CheckpointError(
            f"weights: {path} looks like a {FORMATS['caffe']} file, but is damaged or was cut off."
        ) from None
    blobs, kinds, norms = {}, [], []
    for layer in [*net.layers, *net.layer]:
        kind = OLD_TYPES.get(layer.type, layer.type)
        kinds.append(kind)
        if layer.HasField("lrn_param"):
            norms.append([getattr(layer.lrn_param, field) for field in ("local_size", "alpha", "beta")])
        for number, blob in enumerate(layer.blobs):
            blobs[f"{layer.name}[{number}]"] = _array(blob, kind)
    names = {layer: (f"{layer}[0]", f"{layer}[1]") for layer in LAYERS}
    for layer in LAYERS:  # a bias of the first generation is 1 x 1 x 1 x N
        if names[layer][1] in blobs:
            blobs[names[layer][1]] = blobs[names[layer][1]].reshape(-1)
    return as_network(path, "caffe", blobs, names, _preset(kinds, norms), bgr=True)


def _array(blob, kind):
    values = np.frombuffer(b"".join(blob.data), "<f4")
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    if kind == "InnerProduct" and len(shape) == 4:  # the first generation
        shape = shape[2:] if shape[:2] == (1, 1) else shape
    if np.prod(shape) != values.size:
        raise ValueError(f"a blob of shape {shape} with {values.size} values")
    return values.reshape(shape)


def _preset(kinds, norms):
    """Whether response normalization, where it is that of Caffe's own networks, comes before the pooling or after."""
    if any(not np.allclose(norm, (5, 1e-4, 0.75), rtol=1e-4) for norm in norms):
        return None
    order = [kind for kind in kinds if kind in ("LRN", "Pooling")]
    return {("LRN", "Pooling"): "caffe", ("Pooling", "LRN"): "caffenet"}.get(tuple(order[:2]))


@functools.cache
def _messages():
    """Classes for `MESSAGES`, made by the protobuf library."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="alexnet/caffe.proto", package="alexnet.caffe", syntax="proto2")
    for message, fields in MESSAGES.items():
        proto = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = proto.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".alexnet.caffe.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if kind == "int64":
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"alexnet.caffe.{name}")) for name in MESSAGES
    }
