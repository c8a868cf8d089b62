"""Reads Caffe's `.caffemodel`: a protocol buffer of layers and blobs."""

import functools
from pathlib import Path

import numpy as np

from alexnet.networks import LAYERS, names_by_counts, specs
from alexnet.networks.alexnets import CAFFE
from alexnet.weights.architecture import Architecture, Layer, activation, convolution, lrn, pool
from alexnet.weights.checkpoint import FORMATS, Checkpoint, CheckpointError, as_network

# The fields of Caffe's messages that describe a network: name, number, type, repeated, and the default value. There are
# two generations of files: in the older one a layer's type is a number. `data` holds packed numbers, but is declared as
# bytes, so that protobuf does not convert each number.
MESSAGES = {
    "Shape": [("dim", 1, "int64", True)],
    "Blob": [
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "bytes", True),
        ("shape", 7, "Shape", False),
        ("double_data", 8, "bytes", True),
    ],
    "Norm": [
        ("local_size", 1, "uint32", False, "5"),
        ("alpha", 2, "float", False, "1"),
        ("beta", 3, "float", False, "0.75"),
        ("norm_region", 4, "int32", False),
        ("k", 5, "float", False, "1"),
    ],
    "Convolution": [
        ("num_output", 1, "uint32", False),
        ("pad", 3, "uint32", True),
        ("kernel_size", 4, "uint32", True),
        ("group", 5, "uint32", False, "1"),
        ("stride", 6, "uint32", True),
        ("pad_h", 9, "uint32", False),
        ("pad_w", 10, "uint32", False),
        ("kernel_h", 11, "uint32", False),
        ("kernel_w", 12, "uint32", False),
        ("stride_h", 13, "uint32", False),
        ("stride_w", 14, "uint32", False),
        ("dilation", 18, "uint32", True),
    ],
    "Pooling": [
        ("pool", 1, "int32", False),
        ("kernel_size", 2, "uint32", False),
        ("stride", 3, "uint32", False, "1"),
        ("pad", 4, "uint32", False),
        ("kernel_h", 5, "uint32", False),
        ("kernel_w", 6, "uint32", False),
        ("stride_h", 7, "uint32", False),
        ("stride_w", 8, "uint32", False),
        ("pad_h", 9, "uint32", False),
        ("pad_w", 10, "uint32", False),
        ("global_pooling", 12, "bool", False),
        ("round_mode", 13, "int32", False),
    ],
    "Product": [("num_output", 1, "uint32", False), ("axis", 5, "int32", False, "1"), ("transpose", 6, "bool", False)],
    "Rectifier": [("negative_slope", 1, "float", False)],
    "Pixels": [
        ("scale", 1, "float", False, "1"),
        ("crop_size", 3, "uint32", False),
        ("mean_value", 5, "float", True),
    ],
    "OldData": [("scale", 2, "float", False, "1"), ("crop_size", 5, "uint32", False)],
    "Input": [("shape", 1, "Shape", True)],
    "Layer": [
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("bottom", 3, "string", True),
        ("top", 4, "string", True),
        ("blobs", 7, "Blob", True),
        ("transform_param", 100, "Pixels", False),
        ("convolution_param", 106, "Convolution", False),
        ("inner_product_param", 117, "Product", False),
        ("lrn_param", 118, "Norm", False),
        ("pooling_param", 121, "Pooling", False),
        ("relu_param", 123, "Rectifier", False),
        ("input_param", 143, "Input", False),
    ],
    "OldLayer": [
        ("oldest", 1, "bytes", False),
        ("bottom", 2, "string", True),
        ("top", 3, "string", True),
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "Blob", True),
        ("convolution_param", 10, "Convolution", False),
        ("data_param", 11, "OldData", False),
        ("inner_product_param", 17, "Product", False),
        ("lrn_param", 18, "Norm", False),
        ("pooling_param", 19, "Pooling", False),
        ("relu_param", 30, "Rectifier", False),
        ("transform_param", 36, "Pixels", False),
    ],
    "Net": [
        ("name", 1, "string", False),
        ("layers", 2, "OldLayer", True),
        ("input_dim", 4, "int32", True),
        ("input_shape", 8, "Shape", True),
        ("layer", 100, "Layer", True),
    ],
}
# The layer types of the older generation, numbered from 0.
OLD_TYPES = dict(
    enumerate(
        (
            *("None", "Accuracy", "BNLL", "Concat", "Convolution", "Data", "Dropout", "EuclideanLoss", "Flatten"),
            *("HDF5Data", "HDF5Output", "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "LRN"),
            *("MultinomialLogisticLoss", "Pooling", "ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss", "Split", "TanH"),
            *("WindowData", "Eltwise", "Power", "SigmoidCrossEntropyLoss", "HingeLoss", "MemoryData", "ArgMax"),
            *("Threshold", "DummyData", "Slice", "MVN", "AbsVal", "Silence", "ContrastiveLoss", "Exp", "Deconvolution"),
        )
    )
)
DATA = ("Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "DummyData", "Input")
WITHOUT_EFFECT = ("Dropout", "Split", "Silence", "Accuracy", "ArgMax", "Flatten")
PARAMETERS = ("convolution_param", "inner_product_param", "lrn_param", "pooling_param")


def read_caffe(path: Path) -> Checkpoint:
    """A `.caffemodel` as a `Checkpoint`. The network is identified by its layers, their order and their settings."""
    from google.protobuf.message import DecodeError

    net = _messages()["Net"]()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError:
        raise CheckpointError(
            f"weights: {path} looks like a {FORMATS['caffe']} file, but is damaged or was cut off."
        ) from None
    if any(layer.HasField("oldest") for layer in net.layers):
        raise CheckpointError(
            f"weights: {path} is in Caffe's first format, from before 2014. Convert it with Caffe's "
            "upgrade_net_proto_binary."
        )
    layers = [*net.layers, *net.layer]
    blobs: dict[str, np.ndarray] = {}
    kernels: dict[str, list[str]] = {"Convolution": [], "InnerProduct": []}
    for layer in layers:
        kind = _kind(layer)
        for number, blob in enumerate(layer.blobs):
            blobs[f"{layer.name}[{number}]"] = _array(blob, kind, number)
        if kind in kernels and layer.blobs:
            kernels[kind].append(layer.name)
    theirs = [*kernels["Convolution"], *kernels["InnerProduct"]]
    found = names_by_counts(len(kernels["Convolution"]), 0, len(kernels["InnerProduct"]))
    ours = [name for part in found for name in part] if found else LAYERS
    if not found:
        theirs = list(LAYERS)  # as_network lists those that are missing
    names = {layer: (f"{name}[0]", f"{name}[1]") for layer, name in zip(ours, theirs, strict=True)}
    checkpoint = as_network(path, "caffe", blobs, names, bgr=True, architecture=_architecture(net, layers, blobs))
    checkpoint.architecture.activation = "softmax"  # networks for training have it in their loss
    return checkpoint


def _kind(layer):
    return OLD_TYPES.get(layer.type, f"type {layer.type}") if isinstance(layer.type, int) else layer.type


def _array(blob, kind, number):
    values = np.frombuffer(b"".join(blob.data), "<f4")
    if blob.double_data:
        values = np.frombuffer(b"".join(blob.double_data), "<f8").astype("float32")
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    if len(shape) == 4 and number and shape[:3] == (1, 1, 1):  # a bias of the older generation
        shape = shape[3:]
    elif len(shape) == 4 and kind == "InnerProduct" and shape[:2] == (1, 1):
        shape = shape[2:]
    if np.prod(shape) != values.size:
        raise ValueError(f"a blob of shape {shape} with {values.size} values")
    return values.reshape(shape)


def _architecture(net, layers, blobs):
    """The `Architecture` of the layers. If no layer of a file has settings, only their order is known."""
    told = any(layer.HasField(name) for layer in layers for name in PARAMETERS if _has(layer, name))
    found = Architecture([], _input_size(net, layers), mean=CAFFE.pixel_mean)
    values, dense = None, False  # the names of the last layer's output; Split gives it several
    for layer in layers:
        kind = _kind(layer)
        if kind in DATA:
            values = set(layer.top[:1])
            pixels = layer.transform_param
            if len(pixels.mean_value) in (1, 3):
                found.mean = tuple((list(pixels.mean_value) * 3)[:3][::-1])
            scales = [pixels.scale] + ([layer.data_param.scale] if _has(layer, "data_param") else [])
            found.layers += [Layer(f"scale {scale:g}", name=layer.name) for scale in scales if scale != 1]
            continue
        if values and layer.bottom and not values & set(layer.bottom):
            if kind in ("Split", "Silence"):  # these act on the labels
                continue
            found.layers.append(Layer(f"branch from {layer.bottom[0]}", name=layer.name))
        if kind in ("Accuracy", "ArgMax", "Silence"):  # not part of the network itself
            continue
        if layer.top:
            values = set(layer.top) | (values or set() if kind == "Split" else set())
        if kind == "InnerProduct" and not dense:
            dense = True
            found.layers.append(Layer("flatten"))
        if kind not in WITHOUT_EFFECT:
            found.layers.append(_layer(layer, kind, blobs, told))
    return found


def _has(layer, name):
    return name in layer.DESCRIPTOR.fields_by_name


def _input_size(net, layers):
    """Height and width of the images; None if the file does not state them."""
    shapes = [list(shape.dim) for shape in net.input_shape] + [list(net.input_dim)[:4]]
    for layer in layers:
        if layer.transform_param.crop_size:
            return (layer.transform_param.crop_size,) * 2
        if _has(layer, "data_param") and layer.data_param.crop_size:
            return (layer.data_param.crop_size,) * 2
        if _has(layer, "input_param"):
            shapes += [list(shape.dim) for shape in layer.input_param.shape]
    return next((tuple(shape[2:]) for shape in shapes if len(shape) == 4), None)


def _layer(layer, kind, blobs, told):
    name = layer.name
    if kind == "Convolution":
        kernel = blobs[f"{name}[0]"].shape[2:] if f"{name}[0]" in blobs else ()
        if not told:
            return Layer("conv", {"kernel": kernel}, name)
        given = layer.convolution_param
        said = given.num_output, *_sides(given, "kernel", 0)
        if contradiction := _contradiction(name, said, blobs):
            return contradiction
        stride, pad = _sides(given, "stride", 1), _sides(given, "pad", 0)
        dilation = _sides(given, "dilation", 1)
        return convolution(kernel, stride, tuple((side, side) for side in pad), given.group, dilation, name)
    if kind == "InnerProduct":
        given = layer.inner_product_param
        if contradiction := _contradiction(name, (given.num_output,), blobs):
            return contradiction
        plain = given.axis == 1 and not given.transpose
        return Layer("dense" if plain else "InnerProduct with axis or transpose", name=name)
    if kind == "ReLU":
        slope = layer.relu_param.negative_slope
        return Layer(f"ReLU with a slope of {slope:g}" if slope else "relu", name=name)
    if kind == "Pooling":
        if not told:
            return Layer("pool", name=name)
        given = layer.pooling_param
        if given.pool or given.global_pooling:
            return Layer(f"{('maximum', 'average', 'stochastic')[min(given.pool, 2)]} pooling", name=name)
        size = (given.kernel_h or given.kernel_size, given.kernel_w or given.kernel_size)
        stride = (given.stride_h or given.stride, given.stride_w or given.stride)
        pad = [(given.pad_h or given.pad,) * 2, (given.pad_w or given.pad,) * 2]
        return pool(size, stride, tuple(pad), rounding="floor" if given.round_mode else "ceil", name=name)
    if kind == "LRN":
        if not told:  # then assume the settings of Caffe's own networks
            return Layer("lrn", specs.settings(CAFFE.layer("norm1")), name)
        given = layer.lrn_param
        size, alpha = given.local_size, given.alpha
        if given.norm_region:
            settings = {"size": size, "k": given.k, "alpha": alpha / max(size, 1) ** 2, "beta": given.beta}
            return Layer("within_channel_lrn", settings, name)
        return lrn(size, given.k, alpha / max(size, 1), given.beta, name=name)
    if kind in ("Softmax", "SoftmaxWithLoss"):
        return activation("softmax", name)
    return Layer(kind, name=name)


def _contradiction(name, said, blobs):
    """A `Layer` that states how its settings and its weights contradict each other; None if they agree."""
    kernel = blobs.get(f"{name}[0]")
    held = () if kernel is None else kernel.shape[:1] + kernel.shape[2:] if len(said) > 1 else kernel.shape[:1]
    if all(one in (0, other) for one, other in zip(said, held, strict=False)):
        return None
    said, held = (" x ".join(map(str, sides)) for sides in (said, held))
    return Layer(f"a layer that states {said} and holds {held}", name=name)


def _sides(given, name, default):
    """Height and width of a setting, which Caffe stores as one number, as two, or under two names."""
    apart = [getattr(given, f"{name}_{side}", 0) for side in "hw"]
    if any(apart):
        return tuple(apart)
    values = list(getattr(given, {"kernel": "kernel_size"}.get(name, name))) or [default]
    return tuple((values * 2)[:2])


@functools.cache
def _messages():
    """Classes for `MESSAGES`, made by the protobuf library."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="alexnet/caffe.proto", package="alexnet.caffe", syntax="proto2")
    for message, fields in MESSAGES.items():
        proto = file.message_type.add(name=message)
        for name, number, kind, repeated, *default in fields:
            field = proto.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".alexnet.caffe.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if kind == "int64":
                field.options.packed = True
            if default:
                field.default_value = default[0]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"alexnet.caffe.{name}")) for name in MESSAGES
    }
