"""Files of other networks, and files that only look like checkpoints: taken as what they are, or refused by name."""

import errno
import pickle
import tarfile
import zipfile

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_checkpoints import CAFFE_BGR, field, number_field, pixels, varint

from alexnet.evaluation import evaluate
from alexnet.model import AlexNet, summarize_layers, without_softmax
from alexnet.parity import set_numpy_weights
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.weights import CheckpointError, read_checkpoint
from alexnet.weights.checkpoint import URLS

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
    """Kernels and biases in Caffe's layout, a sixteenth as wide, for maps of `side` x `side`."""
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


# --- ONNX ------------------------------------------------------------------------------------------------------------


def graph(change=None, side=SIDE, weights=None):
    """Caffe's network as nodes, and what `change` makes of the list of nodes and of the arrays."""
    weights = {f"{n}.{k}": v for n, pair in (weights or arrays()).items() for k, v in zip("wb", pair, strict=True)}
    make, nodes, below = onnx.helper.make_node, [], "data"

    def add(kind, name, *others, **attributes):
        nonlocal below
        nodes.append(make(kind, [below, *others], [name], name, **attributes))
        below = name

    for i in range(1, 6):
        stride, pad = (4, 0) if i == 1 else (1, 2 if i == 2 else 1)
        add("Conv", f"conv{i}", f"conv{i}.w", f"conv{i}.b", strides=[stride] * 2, pads=[pad] * 4, group=COLUMNS[i - 1])
        add("Relu", f"relu{i}")
        if i < 3:
            add("LRN", f"norm{i}", size=5, alpha=1e-4, beta=0.75, bias=1.0)
        if i in (1, 2, 5):
            add("MaxPool", f"pool{i}", kernel_shape=[3, 3], strides=[2, 2])
    add("Flatten", "flat")
    for i in range(6, 9):
        add("Gemm", f"fc{i}", f"fc{i}.w", f"fc{i}.b", transB=1)
        if i < 8:
            add("Relu", f"relu{i}")
    if change:
        change(nodes, weights)
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in weights.items()]
    value = onnx.helper.make_tensor_value_info
    last = nodes[-1].output[0]
    made = onnx.helper.make_graph(
        nodes, "graph", [value("data", 1, [None, 3, side, side])], [value(last, 1, [None, CLASSES])], tensors
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)


def put(nodes, name, kind, *others, **attributes):
    """A node after the one called `name`, of which those that follow it now take their input."""
    place = next(i for i, node in enumerate(nodes) if node.name == name)
    for node in nodes[place + 1 :]:
        node.input[:] = [f"{name}_then" if each == name else each for each in node.input]
    nodes.insert(place + 1, onnx.helper.make_node(kind, [name, *others], [f"{name}_then"], f"the_{kind}", **attributes))


def attribute(nodes, name, key, value):
    node = next(node for node in nodes if node.name == name)
    kept = [each for each in node.attribute if each.name != key]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(key, value)])


def renamed(nodes, name, kind):
    node = next(node for node in nodes if node.name == name)
    node.op_type = kind


OTHER_NETWORKS = {
    "tanh": (lambda n, w: renamed(n, "relu6", "Tanh"), r"found .* fc6 tanh6 \(relu6\)"),
    "sigmoid": (lambda n, w: renamed(n, "relu3", "Sigmoid"), r"sigmoid \(relu3\)"),
    "leaky": (lambda n, w: renamed(n, "relu1", "LeakyRelu"), "LeakyRelu .relu1."),
    "no activation": (lambda n, w: renamed(n, "relu7", "Identity"), "expected the order"),
    "one more": (lambda n, w: put(n, "pool2", "Elu"), "Elu .the_Elu."),
    "scaled": (lambda n, w: (w.update(s=np.float32([2])), put(n, "norm1", "Mul", "s")), "Mul .the_Mul."),
    "average": (lambda n, w: renamed(n, "pool1", "AveragePool"), r"average_pool1 \(pool1\)"),
    "clip": (lambda n, w: renamed(n, "relu2", "Clip"), "Clip .relu2."),
    "n": (lambda n, w: attribute(n, "norm2", "size", 3), "norm2: expected n=5, found 3"),
    "beta": (lambda n, w: attribute(n, "norm2", "beta", 0.5), "norm2: expected beta=0.75, found 0.5"),
    "stride": (lambda n, w: attribute(n, "conv3", "dilations", [2, 2]), "conv3: expected dilation|contradicts itself"),
    "window": (lambda n, w: attribute(n, "pool2", "kernel_shape", [2, 2]), r"pool2: expected size=\(3, 3\), found \(2"),
    "alpha": (lambda n, w: attribute(n, "fc7", "alpha", 2.0), "expected 5 Conv and 3 Gemm, found 5 and 2"),
    "circle": (lambda n, w: n[6].input.__setitem__(0, n[8].output[0]), "found 3 and 3"),
    "domain": (lambda n, w: setattr(n[1], "domain", "com.some"), "com.some.Relu .relu1."),
    "pixels": (
        lambda n, w: (w.update(m=np.float32([10, 20, 30]).reshape(1, 3, 1, 1)), _first(n, "Sub", "m")),
        r"normalizes its pixels itself, by mean \[10.0, 20.0, 30.0\]",
    ),
}


def _first(nodes, kind, other):
    """A node before all others."""
    nodes[0].input[0] = f"the_{kind}"
    nodes.insert(0, onnx.helper.make_node(kind, ["data", other], [f"the_{kind}"], f"the_{kind}"))


@pytest.mark.once
@pytest.mark.parametrize("kind", OTHER_NETWORKS)
def test_an_onnx_graph_of_another_network_is_refused(kind, tmp_path):
    change, message = OTHER_NETWORKS[kind]
    onnx.save(graph(change), tmp_path / "a.onnx")
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        load_checkpoint(tmp_path / "a.onnx")
    with pytest.raises(CheckpointError):  # naming the network does not help
        AlexNet("caffe", **SMALL, weights=tmp_path / "a.onnx")


def _transposed(nodes, weights):
    attribute(nodes, "fc6", "transB", 0)
    weights["fc6.w"] = weights["fc6.w"].T


def _as_product_and_sum(nodes, weights):
    place = next(i for i, node in enumerate(nodes) if node.name == "fc7")
    weights["fc7.w"] = weights["fc7.w"].T
    nodes[place : place + 1] = [
        onnx.helper.make_node("MatMul", ["relu6", "fc7.w"], ["product"], "product"),
        onnx.helper.make_node("Add", ["product", "fc7.b"], ["fc7"], "sum"),
    ]


def _constants(nodes, weights):
    for name in ("conv2.w", "fc8.b"):
        tensor = onnx.numpy_helper.from_array(weights.pop(name), name)
        nodes.insert(0, onnx.helper.make_node("Constant", [], [name], name, value=tensor))


def _bgr_mean(nodes, weights):
    weights["mean"] = np.float32(CAFFE_BGR).reshape(1, 3, 1, 1)
    _first(nodes, "Sub", "mean")


def _rgb_mean(nodes, weights):
    weights["mean"] = np.float32(CAFFE_BGR[::-1]).reshape(1, 3, 1, 1)
    _first(nodes, "Sub", "mean")


def _softmax(nodes, weights):
    put(nodes, "fc8", "Softmax", axis=-1)


def _sigmoid(nodes, weights):
    put(nodes, "fc8", "Sigmoid")


SAME_NETWORK = {
    "transposed": _transposed,
    "product and sum": _as_product_and_sum,
    "constants": _constants,
    "blue first": _bgr_mean,
    "red first": _rgb_mean,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "padding": lambda nodes, weights: attribute(nodes, "conv2", "auto_pad", "SAME_UPPER"),
    "rounding": lambda nodes, weights: attribute(nodes, "pool1", "ceil_mode", 1),
}


@pytest.mark.once
@pytest.mark.parametrize("kind", SAME_NETWORK)
def test_an_onnx_graph_written_otherwise_computes_the_same(kind, tmp_path):
    made = graph(SAME_NETWORK[kind])
    if kind == "padding":
        node = next(node for node in made.graph.node if node.name == "conv2")
        node.attribute.remove(next(each for each in node.attribute if each.name == "pads"))
    onnx.save(made, tmp_path / "a.onnx")
    images = pixels(2, SIDE)
    fed = images.astype("float32") if kind == "red first" else images[..., ::-1].astype("float32")
    if kind not in ("blue first", "red first"):
        fed = fed - np.float32(CAFFE_BGR)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    expected = session.run(None, {"data": np.ascontiguousarray(fed.transpose(0, 3, 1, 2))})[0]
    model = load_checkpoint(tmp_path / "a.onnx")
    assert detect_network(model) == "caffe" and model.input.shape[1:] == (SIDE, SIDE, 3)
    found = (model if kind in ("softmax", "sigmoid") else without_softmax(model)).predict_on_batch(images)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4 * np.abs(expected).max())


def published_graph(path):
    """The graph of `bvlc_alexnet` that the onnx package brings, with small arrays put in."""
    folder = onnx.__path__[0]
    source = f"{folder}/backend/test/data/light/light_bvlc_alexnet.onnx"
    try:
        made = onnx.load(source)
    except FileNotFoundError:
        pytest.skip("this release of onnx does not bring the graph")
    shape = made.graph.node[16:]
    assert shape[0].op_type == "Conv"
    nodes = [node for node in made.graph.node if node.op_type != "ConstantOfShape"]
    tensors = [
        onnx.numpy_helper.from_array(values, f"{name}_{kind}_0")
        for name, pair in arrays(6).items()
        for kind, values in zip("wb", pair, strict=True)
    ]
    reshape = next(node for node in nodes if node.op_type == "Reshape")
    tensors.append(onnx.numpy_helper.from_array(np.array([1, 36 * MAPS[-1]]), reshape.input[1]))
    value = onnx.helper.make_tensor_value_info
    last = nodes[-1].output[0]
    small = onnx.helper.make_graph(
        nodes, "light", [value("data_0", 1, [1, 3, 224, 224])], [value(last, 1, [1, CLASSES])], tensors
    )
    made.graph.CopyFrom(small)
    made.ir_version = 4
    onnx.save(made, path)
    return path


def test_the_published_graph_of_224_pixels(tmp_path):
    """It pads pool5, where Caffe itself rounds pool1 up: taken as it is."""
    path = published_graph(tmp_path / "light.onnx")
    image = pixels(1, 224)
    fed = np.ascontiguousarray((image[..., ::-1].astype("float32") - np.float32(CAFFE_BGR)).transpose(0, 3, 1, 2))
    expected = onnxruntime.InferenceSession(path).run(None, {"data_0": fed})[0]
    model = load_checkpoint(path)
    assert detect_network(model) == "caffe" and model.input.shape[1:] == (224, 224, 3)
    np.testing.assert_allclose(model.predict_on_batch(image), expected, atol=1e-5)
    save_checkpoint(model, tmp_path / "again.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "again.onnx")
    np.testing.assert_allclose(session.run(["prob"], {"pixels": image.astype("float32")})[0], expected, atol=1e-5)
    again = AlexNet("caffe", (224, 224, 3), CLASSES, WIDTH, weights=tmp_path / "again.onnx")
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


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


def setting(name, **values):
    return lambda layers: next(layer for layer in layers if layer[0] == name)[2].update(values)


def in_place_of(name, kind):
    def change(layers):
        next(layer for layer in layers if layer[0] == name)[1] = kind

    return change


OTHER_CAFFE = {
    "k": (setting("norm1", k=2.0), "norm1: expected k=1.0, found 2.0"),
    "region": (setting("norm2", region=1), "expected the order .* found .* map_norm2"),
    "alpha": (lambda layers: layers[3][2].clear(), "norm1: expected alpha=2e-05, found 0.2"),
    "average": (setting("pool5", method=1), r"average pooling \(pool5\)"),
    "pool": (setting("pool1", kernel=2), r"pool1: expected size=\(3, 3\), found \(2, 2\)|contradicts"),
    "group": (setting("conv2", group=1), "conv2: expected groups=2, found 1"),
    "window": (setting("conv4", kernel=5), r"a layer that says 0 x 5 x 5 and holds 24 x 3 x 3 \(conv4\)"),
    "dilation": (setting("conv4", dilation=2, pad=2), r"conv4: expected padding=1, found 2"),
    "slope": (setting("relu3", slope=0.1), r"ReLU with a slope of 0.1 \(relu3\)"),
    "layer": (in_place_of("relu6", "TanH"), r"TanH \(relu6\)"),
    "more": (lambda layers: layers.insert(4, ["bn", "BatchNorm", {}]), r"BatchNorm \(bn\)"),
    "branch": (setting("pool1", **{"from": "elsewhere"}), r"branch from elsewhere \(conv2\)"),
}


@pytest.mark.once
@pytest.mark.parametrize("kind", OTHER_CAFFE)
def test_a_caffe_model_of_another_network_is_refused(kind, tmp_path):
    change, message = OTHER_CAFFE[kind]
    path = caffe(tmp_path / "a.caffemodel", change)
    for load in (
        load_checkpoint,
        lambda p: load_checkpoint(p, "caffe"),
        lambda p: AlexNet("caffe", **SMALL, weights=p),
    ):
        with pytest.raises(CheckpointError, match=f"(?s){message}" if load is load_checkpoint else None):
            load(path)


@pytest.mark.once
def test_a_caffe_model_tells_its_size_its_mean_and_its_network(tmp_path):
    path = caffe(tmp_path / "a.caffemodel", double=True, mean=[104.0, 117.0, 123.0])
    checkpoint = read_checkpoint(path)
    found = checkpoint.network, checkpoint.input_size, checkpoint.mean
    assert found == ("caffe", (SIDE, SIDE), (123.0, 117.0, 104.0))
    np.testing.assert_array_equal(checkpoint.layers["fc7"][0], arrays()["fc7"][0].T)  # kept as doubles there
    model = load_checkpoint(path)
    assert model.input.shape[1:] == (SIDE, SIDE, 3) and model.get_layer("mean").mean == (123.0, 117.0, 104.0)

    def caffenet(layers):
        for i in (1, 2):
            place = next(n for n, layer in enumerate(layers) if layer[0] == f"norm{i}")
            layers[place : place + 2] = layers[place : place + 2][::-1]

    assert read_checkpoint(caffe(tmp_path / "b.caffemodel", caffenet)).network == "caffenet"
    with pytest.raises(CheckpointError, match="scale 0.00390625"):
        load_checkpoint(caffe(tmp_path / "c.caffemodel", scale=1 / 256))

    def renamed(layers):
        next(layer for layer in layers if layer[0] == "fc8")[0] = "fc8_new"

    assert read_checkpoint(caffe(tmp_path / "d.caffemodel", renamed)).blobs["fc8"] == ("fc8_new[0]", "fc8_new[1]")


# --- Keras -----------------------------------------------------------------------------------------------------------


def layers_by_hand(activation="relu", mean=True, extra=None, data_format="channels_last"):
    """The small network of Caffe, in Keras's own layers and ours, changed in one place."""
    import alexnet.layers as own

    x = inputs = keras.Input((SIDE, SIDE, 3))
    if mean:
        x = own.PixelNormalization((122.679, 116.669, 104.007), name="mean")(x)
    for i, (maps, columns) in enumerate(zip(MAPS, COLUMNS, strict=True), 1):
        window, stride = ((11, 4), (5, 1), (3, 1), (3, 1), (3, 1))[i - 1]
        padding = "valid" if i == 1 else "same"
        x = keras.layers.Conv2D(maps, window, stride, padding, groups=columns, activation="relu", name=f"conv{i}")(x)
        if i < 3:
            x = own.LocalResponseNormalization(5, 1.0, 2e-5, 0.75, "channels_last", name=f"norm{i}")(x)
        if i in (1, 2, 5):
            x = keras.layers.MaxPooling2D(3, 2, name=f"pool{i}")(x)
    if extra is not None:
        x = extra(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(256, activation, name="fc6")(x)
    x = keras.layers.Dense(256, "relu", name="fc7")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax", name="fc8")(x))


@pytest.mark.once
def test_keras_layers_with_other_settings_are_refused(tmp_path):
    refused = {
        "tanh": (layers_by_hand("tanh"), r"tanh6 \(fc6\)"),
        "extra": (
            layers_by_hand(extra=keras.layers.BatchNormalization(name="bn")),
            "no layer of AlexNet has layers/batch_normalization/",
        ),
        "mean": (layers_by_hand(mean=False), "no PixelNormalization"),
    }
    for name, (model, message) in refused.items():
        model.save(tmp_path / f"{name}.keras")
        assert detect_network(model) is None
        with pytest.raises(CheckpointError, match=message):
            AlexNet("caffe", **SMALL, weights=tmp_path / f"{name}.keras")
        with pytest.raises(ValueError, match="no place for the layers of a network of its own"):
            save_checkpoint(model, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="does not normalize its pixels itself"):
        load_checkpoint(tmp_path / "mean.keras")
    with pytest.raises(CheckpointError, match="tanh"):
        load_checkpoint(tmp_path / "tanh.keras", "caffe")
    assert load_checkpoint(tmp_path / "tanh.keras").get_layer("fc6").activation is keras.activations.tanh


@pytest.mark.once
def test_a_sequential_with_our_names(tmp_path):
    """Saved, loaded, counted and evaluated as the functional model; what it does not have is said."""
    model = layers_by_hand()
    layers = [type(layer).from_config(layer.get_config()) for layer in model.layers[1:]]
    sequential = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    sequential.set_weights(model.get_weights())
    images, labels = pixels(2, SIDE), np.array([0, 1])
    expected = model.predict_on_batch(images)
    assert detect_network(sequential) == "caffe"
    assert summarize_layers(sequential) == summarize_layers(model)
    assert evaluate(sequential, (images, labels), verbose=0) == evaluate(model, (images, labels), verbose=0)
    for ending in (".keras", ".weights.h5", ".pth", ".safetensors"):
        save_checkpoint(sequential, tmp_path / f"a{ending}")
        loaded = load_checkpoint(tmp_path / f"a{ending}", "caffe")
        np.testing.assert_allclose(loaded.predict_on_batch(images), expected, atol=1e-5)
    with pytest.raises(ValueError, match="fc8 of .* ends in softmax"):
        without_softmax(sequential)
    with pytest.raises(ValueError, match="does not say which images it takes"):
        save_checkpoint(keras.Sequential(layers), tmp_path / "b.pth")


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_keras_files_of_before(tmp_path):
    """Other classes of layers with the same meaning, and HDF5 with or without the configuration."""
    model = layers_by_hand()
    images = pixels(2, SIDE)
    model.save(tmp_path / "whole.h5")
    model.save(tmp_path / "whole.keras")
    for name in ("whole.h5", "whole.keras"):
        taken = AlexNet("caffe", **SMALL, weights=tmp_path / name)
        np.testing.assert_allclose(taken.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5)
    assert detect_network(load_checkpoint(tmp_path / "whole.h5")) == "caffe"
    layers_by_hand("tanh").save(tmp_path / "other.h5")
    with pytest.raises(CheckpointError, match=r"none of the networks known here. Nearest is .*\n.*tanh6 \(fc6\)"):
        load_checkpoint(tmp_path / "other.h5")


# --- PyTorch, safetensors, NumPy -------------------------------------------------------------------------------------


def state(prefix="", dtype=torch.float32):
    places = [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))]
    shapes = [(4, 3, 11, 11), (12, 4, 5, 5), (24, 12, 3, 3), (16, 24, 3, 3), (16, 16, 3, 3)]
    shapes += [(256, 576), (256, 256), (CLASSES, 256)]
    torch.manual_seed(0)
    tensors = {}
    for place, shape in zip(places, shapes, strict=True):
        tensors[f"{prefix}{place}.weight"] = (torch.randn(shape) * 0.1).to(dtype)
        tensors[f"{prefix}{place}.bias"] = (torch.randn(shape[0]) * 0.1).to(dtype)
    return tensors


@pytest.mark.once
@pytest.mark.parametrize("format", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "state_dict.", "module.model._orig_mod.", "a.b."]
)
def test_what_stands_before_the_names(prefix, format, tmp_path):
    from safetensors.torch import save_file

    (torch.save if format == "pth" else save_file)(state(prefix), tmp_path / "a")
    found = read_checkpoint(tmp_path / "a").layers["fc8"][1]
    np.testing.assert_array_equal(found, state()["classifier.6.bias"].numpy())


@pytest.mark.once
def test_arrays_of_other_kinds(tmp_path):
    from safetensors.torch import save_file

    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        save_file(state(dtype=dtype), tmp_path / "a.safetensors")
        torch.save({"epoch": 1, "net": state(dtype=dtype)}, tmp_path / "a.pth")
        for name in ("a.safetensors", "a.pth"):
            kernel = read_checkpoint(tmp_path / name).layers["fc7"][0]
            assert kernel.dtype == np.float32
            np.testing.assert_array_equal(kernel, state(dtype=dtype)["classifier.4.weight"].float().numpy().T)
    two = {**state("student."), **state("teacher.")}
    torch.save(two, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match="several networks, whose names begin with 'student.', 'teacher.'"):
        read_checkpoint(tmp_path / "two.pth")
    torch.save({**state(), "features.1.running_mean": torch.zeros(4)}, tmp_path / "more.pth")
    with pytest.raises(CheckpointError, match="no layer of AlexNet has features.1.running_mean"):
        read_checkpoint(tmp_path / "more.pth")
    torch.save({**state(), "classifier.6.bias": torch.zeros(CLASSES - 1)}, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match="classifier.6.bias: expected 4 values, as the kernel has, found 3"):
        AlexNet("torchvision", **SMALL, weights=tmp_path / "short.pth")  # where another fc8 would be a new one
    eight = {**state(), "classifier.4.weight": torch.zeros(256, 256, dtype=torch.int8)}
    save_file(eight, tmp_path / "eight.safetensors")
    with pytest.raises(CheckpointError, match="classifier.4.weight: expected floats, found int8 .quantized."):
        read_checkpoint(tmp_path / "eight.safetensors")


@pytest.mark.once
def test_a_numpy_dictionary_is_what_the_user_says(tmp_path):
    content = {}
    for name, (kernel, bias) in arrays().items():
        content[name] = {"weights": kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T, "biases": bias}
    np.save(tmp_path / "net.npy", np.array(content, object), allow_pickle=True)
    np.save(tmp_path / "caffenet.npy", np.array(content, object), allow_pickle=True)
    assert detect_network(load_checkpoint(tmp_path / "net.npy")) == "caffe"
    assert detect_network(load_checkpoint(tmp_path / "net.npy", "caffenet")) == "caffenet"
    assert detect_network(AlexNet("caffenet", **SMALL, weights=tmp_path / "net.npy")) == "caffenet"
    with pytest.raises(CheckpointError, match="give one as network: caffe, caffenet"):
        load_checkpoint(tmp_path / "caffenet.npy")
    with pytest.raises(CheckpointError, match="expected the network paper, found caffe or caffenet"):
        load_checkpoint(tmp_path / "net.npy", "paper")


# --- What is no checkpoint -------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
def test_strangers_are_called_what_they_are(tmp_path):
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html><body>Not Found</body></html>")
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "lite.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    (tmp_path / "net.prototxt").write_text('name: "AlexNet"\nlayer { name: "data" type: "Input" }\n')
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"conv1": 1}))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    np.savez(tmp_path / "arrays.npz", conv1=np.zeros(2))
    with zipfile.ZipFile(tmp_path / "around.zip", "w") as archive:
        archive.writestr("folder/alexnet.pth", b"x")
    with tarfile.open(tmp_path / "around.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "net.prototxt", "net.prototxt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    expected = {
        "page.pth": "web page",
        "pointer.onnx": "Git LFS",
        "empty.pth": "is empty",
        "lite.tflite": "LiteRT",
        "net.prototxt": "give the .caffemodel",
        "plain.pkl": "Python pickle",
        "saved": "TensorFlow SavedModel",
        "arrays.npz": "NumPy archive",
        "around.zip": "zip archive around folder/alexnet.pth",
        "around.tar.gz": "packed: unpack it",
        "script.pt": r"TorchScript archive.*state_dict\(\)",
    }
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=message) as error:
            load_checkpoint(tmp_path / name)
        assert "damaged" not in str(error.value), name
    for path, message in ((True, "path of a file"), ("https://a.b/c", "Fetch the file")):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)


@pytest.mark.once
def test_imagenet_is_answered_with_where_to_get_it():
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    with pytest.raises(CheckpointError) as error:
        AlexNet(weights="imagenet")
    for urls in URLS.values():
        assert all(url in str(error.value) and f"({url})" in page for url in urls)


# --- Saving ----------------------------------------------------------------------------------------------------------

ENDINGS = (".keras", ".weights.h5", ".onnx", ".safetensors", ".pth")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_lora_has_learned_is_saved(ending, tmp_path):
    model = AlexNet("paper", **SMALL)
    set_numpy_weights(model)
    images = pixels(2, SIDE)
    for name in ("conv3", "fc7"):
        layer = model.get_layer(name)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.random.default_rng(1).normal(0, 0.1, layer.lora_kernel_b.shape))
    expected = model.predict_on_batch(images)
    save_checkpoint(model, tmp_path / f"a{ending}")
    loaded = load_checkpoint(tmp_path / f"a{ending}", "paper")
    np.testing.assert_allclose(loaded.predict_on_batch(images), expected, atol=1e-5)
    assert model.get_layer("fc7").lora_enabled
    np.testing.assert_array_equal(model.predict_on_batch(images), expected)


@pytest.mark.once
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_format_cannot_keep_is_refused(ending, tmp_path):
    """An end of its own, no top, a mean of its own: the same after loading, or refused and nothing there."""
    models = {
        "logits": AlexNet("paper", **SMALL, classifier_activation=None),
        "sigmoid": AlexNet("paper", **SMALL, classifier_activation="sigmoid"),
        "mean": AlexNet("paper", **SMALL, mean=(1.0, 2.0, 3.0)),
        "headless": AlexNet("paper", **SMALL, include_top=False),
    }
    whole = ending in (".keras", ".onnx")
    for name, model in models.items():
        path = tmp_path / "new" / f"{name}{ending}"
        kept = whole and (name != "headless" or ending == ".keras")
        if not kept:
            with pytest.raises(ValueError, match="this format "):
                save_checkpoint(model, path)
            assert not path.parent.exists() or path.name not in [file.name for file in path.parent.iterdir()]
            continue
        save_checkpoint(model, path)
        loaded = keras.saving.load_model(path) if name == "headless" else load_checkpoint(path)
        images = pixels(2, SIDE)
        np.testing.assert_allclose(loaded.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5)
    if not whole:
        assert not list(tmp_path.iterdir())


@pytest.mark.once
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_one_sentence(ending, tmp_path):
    """The largest file that this process may write is made too small for the network."""
    import resource

    model = AlexNet("paper", **SMALL)
    path = tmp_path / f"a{ending}"
    save_checkpoint(model, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written: the disk is full\.$") as error:
            save_checkpoint(model, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.ENOSPC and error.value.strerror == str(error.value)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.once
def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = AlexNet("paper", **SMALL)
    save_checkpoint(model, "~/a.safetensors")
    assert (tmp_path / "a.safetensors").is_file() and not (tmp_path / "~").exists()
    load_checkpoint("~/a.safetensors")
    AlexNet("paper", **SMALL, weights="~/a.safetensors")


# --- 224 pixels ------------------------------------------------------------------------------------------------------


def by_hand(model, images, network):
    """The maps after pool1, or conv1's for the networks of 2012, computed window by window in NumPy."""
    kernel, bias = model.get_layer("conv1").get_weights()
    x = images.astype("float64") - np.array(model.get_layer("mean").mean)
    if network != "caffe":  # the last window begins at 216 and has three rows more than the image
        x = np.pad(x, ((0, 0), (0, 3), (0, 3), (0, 0)))
    places = (x.shape[1] - 11) // 4 + 1
    maps = np.zeros((len(x), places, places, kernel.shape[-1]))
    for i in range(places):
        for j in range(places):
            window = x[:, 4 * i : 4 * i + 11, 4 * j : 4 * j + 11]
            maps[:, i, j] = np.tensordot(window, kernel.astype("float64"), 3) + bias
    return maps


@pytest.mark.parametrize("network", ["paper", "krizhevsky2012", "one_tower", "caffe", "caffenet"])
def test_the_checkpoint_of_227_serves_224(network, tmp_path):
    model = AlexNet(network, (224, 224, 3), CLASSES, WIDTH, initializer="zeros")
    other = AlexNet(network, (227, 227, 3), CLASSES, WIDTH, initializer="zeros")
    assert [values.shape for values in model.get_weights()] == [values.shape for values in other.get_weights()]
    assert detect_network(model) == network
    sizes = {name: model.get_layer(name).output.shape[1] for name in ("conv1", "pool1", "pool2", "pool5")}
    caffe = network.startswith("caffe")
    assert sizes == {"conv1": 54 if caffe else 55, "pool1": 27, "pool2": 13, "pool5": 6}
    # Zeros after the mean are pixels of the mean: the network of 227 sees them where the image has none.
    set_numpy_weights(model), set_numpy_weights(other)
    if not caffe:
        image = pixels(1, 224)
        padded = np.pad(image.astype("float32"), ((0, 0), (0, 3), (0, 3), (0, 0)))
        padded[:, 224:], padded[:, :, 224:] = (np.float32(model.get_layer("mean").mean),) * 2
        np.testing.assert_allclose(model.predict_on_batch(image), other.predict_on_batch(padded), atol=1e-5)


@pytest.mark.parametrize("network", ["paper", "caffe"])
def test_224_pixels_window_by_window(network):
    model = AlexNet(network, (224, 224, 3), CLASSES, WIDTH, initializer="zeros")
    set_numpy_weights(model)
    images = pixels(1, 224)
    maps = by_hand(model, images, network)
    first = keras.Model(model.input, model.get_layer("conv1").output)
    np.testing.assert_allclose(first.predict_on_batch(images), maps, rtol=1e-4, atol=1e-3 * np.abs(maps).max())
    if network == "caffe":  # 54 rows: the last window of pool1 begins at 52 and finds two
        norm = keras.Model(model.input, model.get_layer("norm1").output).predict_on_batch(images)
        pooled = [[norm[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(27)] for i in range(27)]
        found = keras.Model(model.input, model.get_layer("pool1").output).predict_on_batch(images)
        np.testing.assert_array_equal(found, np.array(pooled).transpose(2, 0, 1, 3))


@pytest.mark.once
def test_a_size_that_changes_fc6_is_named(tmp_path):
    save_checkpoint(AlexNet("paper", (227, 227, 3), CLASSES, WIDTH), tmp_path / "a.safetensors")
    for side in (224, 225, 258):
        AlexNet("paper", (side, side, 3), CLASSES, WIDTH, weights=tmp_path / "a.safetensors")
    with pytest.raises(
        CheckpointError, match=r"does not fit images of 300 x 300 pixels: .* of 224 to 258 pixels a side"
    ):
        AlexNet("paper", (300, 300, 3), CLASSES, WIDTH, weights=tmp_path / "a.safetensors")
