"""Files of other networks, and files that only look like checkpoints, are read correctly or refused by name."""

import pickle
import tarfile
import zipfile

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from strange_helpers import CLASSES, COLUMNS, MAPS, SIDE, SMALL, WIDTH, arrays, caffe
from test_checkpoints import CAFFE_BGR, pixels

from alexnet.evaluation import evaluate
from alexnet.model import AlexNet, summarize_layers, without_softmax
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.weights import CheckpointError, read_checkpoint

# --- ONNX ------------------------------------------------------------------------------------------------------------


def graph(change=None, side=SIDE, weights=None):
    """Caffe's network as nodes, after `change` has altered the list of nodes and the arrays."""
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
    """Insert a node after the one called `name`; the following nodes take its output."""
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
    """Insert a node before all others."""
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
    """The graph of `bvlc_alexnet` from the onnx package, with small arrays."""
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
    """It pads pool5, where Caffe itself rounds pool1 up. It is read as it is."""
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
    "window": (setting("conv4", kernel=5), r"a layer that states 0 x 5 x 5 and holds 24 x 3 x 3 \(conv4\)"),
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
    np.testing.assert_array_equal(checkpoint.layers["fc7"][0], arrays()["fc7"][0].T)  # stored as doubles in the file
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
        with pytest.raises(ValueError, match="cannot hold the layers of a custom network"):
            save_checkpoint(model, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="does not normalize its pixels itself"):
        load_checkpoint(tmp_path / "mean.keras")
    with pytest.raises(CheckpointError, match="tanh"):
        load_checkpoint(tmp_path / "tanh.keras", "caffe")
    assert load_checkpoint(tmp_path / "tanh.keras").get_layer("fc6").activation is keras.activations.tanh


@pytest.mark.once
def test_a_sequential_with_our_names(tmp_path):
    """It is saved, loaded, counted and evaluated like the functional model; errors say what it lacks."""
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
    with pytest.raises(ValueError, match="does not say what size of images it takes"):
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
    with pytest.raises(CheckpointError, match=r"none of the networks known here. The nearest is .*\n.*tanh6 \(fc6\)"):
        load_checkpoint(tmp_path / "other.h5")


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
        "around.tar.gz": "compressed: unpack it",
        "script.pt": r"TorchScript archive.*state_dict\(\)",
    }
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=message) as error:
            load_checkpoint(tmp_path / name)
        assert "damaged" not in str(error.value), name
    for path, message in ((True, "path of a file"), ("https://a.b/c", "Fetch the file")):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)
