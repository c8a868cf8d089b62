"""Checkpoints in every format, written here by other libraries, compared with an independent run of the same file."""

import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict

import cv2
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch_alexnet
from checkpoint_helpers import CLASSES, WIDTH, Torchvision, close, logits, pixels
from torch import nn

from alexnet.model import AlexNet
from alexnet.networks import NETWORKS
from alexnet.parity import set_numpy_weights
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.weights import CheckpointError, recognize

TWO_COLUMNS = [(96, 3), (256, 48), (384, 256), (384, 192), (256, 192)]  # filters and channels seen


CAFFE_BGR = (104.007, 116.669, 122.679)


@pytest.fixture(scope="module")
def torchvision():
    torch.manual_seed(1)
    module = Torchvision()
    for values in module.parameters():
        nn.init.normal_(values, std=values[0].numel() ** -0.5)
    return module


@pytest.mark.parametrize("form", ["plain", "legacy", "training", "parallel", "safetensors"])
def test_torchvision(torchvision, form, tmp_path):
    path, state = tmp_path / "alexnet.bin", torchvision.state_dict()  # the name says nothing
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif form == "training":
        torch.save({"epoch": 3, "state_dict": state, "optimizer": {"param_groups": []}}, path)
    elif form == "parallel":  # as ImageNet's example script of PyTorch wraps the features
        torch.save(OrderedDict((k.replace("features.", "features.module."), v) for k, v in state.items()), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "plain")
    model = load_checkpoint(path)
    assert detect_network(model) == "torchvision" and model.input.shape[1:] == (224, 224, 3)
    images = pixels(2, 224)
    close(logits(model, images), torchvision.logits(images))


def test_pickled_modules_are_refused(torchvision, tmp_path):
    torch.save(torchvision, tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"could run any code. Save the model's state_dict\(\) instead"):
        load_checkpoint(tmp_path / "module.pth")


# --- Caffe -----------------------------------------------------------------------------------------------------------


def varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number_field(number, value):
    return varint(number << 3) + varint(value)


def caffe_blob(values, old):
    values = values.astype("<f4")
    if old:
        shape = (1,) * (4 - values.ndim) + values.shape
        head = b"".join(number_field(i + 1, side) for i, side in enumerate(shape))
    else:
        head = field(7, field(1, b"".join(map(varint, values.shape))))
    return head + field(5, values.tobytes())


OLD_TYPES = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17, "ReLU": 18, "Softmax": 20}


def caffe_layers(network):
    """Names, types and prototxt parameters of the layers, in order."""
    norm = ("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
    pool = ("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    after = (norm, pool) if network == "caffe" else (pool, norm)
    geometry = ["kernel_size: 11 stride: 4", "kernel_size: 5 pad: 2 group: 2", "kernel_size: 3 pad: 1"]
    geometry += ["kernel_size: 3 pad: 1 group: 2"] * 2
    for i, ((filters, _), shape) in enumerate(zip(TWO_COLUMNS, geometry, strict=True), 1):
        yield f"conv{i}", "Convolution", f"convolution_param {{ num_output: {int(filters * WIDTH)} {shape} }}"
        yield f"relu{i}", "ReLU", ""
        for kind, parameters in after if i < 3 else (pool,) if i == 5 else ():
            yield f"{kind.lower()}{i}", kind, parameters
    for i, units in ((6, 512), (7, 512), (8, CLASSES)):
        yield f"fc{i}", "InnerProduct", f"inner_product_param {{ num_output: {units} }}"
        if i < 8:
            yield f"relu{i}", "ReLU", ""


def caffe_arrays(width=WIDTH, classes=CLASSES):
    """Kernels and biases in Caffe's layout."""
    rng = np.random.default_rng(0)
    shapes = {}
    for i, ((filters, seen), side) in enumerate(zip(TWO_COLUMNS, (11, 5, 3, 3, 3), strict=True), 1):
        shapes[f"conv{i}"] = (int(filters * width), 3 if i == 1 else int(seen * width), side, side)
    units = int(4096 * width)
    shapes |= {"fc6": (units, int(9216 * width)), "fc7": (units, units), "fc8": (classes, units)}
    return {
        name: (
            rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype("float32"),
            rng.normal(0, 0.1, shape[0]).astype("float32"),
        )
        for name, shape in shapes.items()
    }


def write_caffe(folder, network, old, arrays=None):
    arrays, model = arrays or caffe_arrays(), field(1, b"AlexNet")
    text = 'name: "AlexNet"\ninput: "data"\ninput_dim: 1 input_dim: 3 input_dim: 227 input_dim: 227\n'
    below = "data"
    for name, kind, parameters in caffe_layers(network):
        top = below if kind == "ReLU" else name
        text += f'layer {{ name: "{name}" type: "{kind}" bottom: "{below}" top: "{top}" {parameters} }}\n'
        below = top
        blobs = [caffe_blob(values, old) for values in arrays.get(name, ())]
        if old:
            layer = field(4, name.encode()) + number_field(5, OLD_TYPES[kind]) + b"".join(field(6, b) for b in blobs)
        else:
            layer = field(1, name.encode()) + field(2, kind.encode()) + b"".join(field(7, b) for b in blobs)
        model += field(2 if old else 100, layer)
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(model)
    return folder / "net.caffemodel"


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize("network", ["caffe", "caffenet"])
def test_caffe(network, old, tmp_path):
    path = write_caffe(tmp_path, network, old)
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(path))
    images = pixels(2, 227)
    blue_first = images[..., ::-1].astype("float32") - np.array(CAFFE_BGR, "float32")
    expected = []
    for image in blue_first:
        net.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
        expected.append(net.forward("fc8")[0])
    model = load_checkpoint(path)
    assert detect_network(model) == network and model.input.shape[1:] == (227, 227, 3)
    close(logits(model, images), np.array(expected))


# --- ONNX and NumPy --------------------------------------------------------------------------------------------------


def write_onnx(path, arrays, alpha=1e-4, k=1.0):
    """Like the zoo's bvlcalexnet: Caffe's shapes under names like conv1_w_0, Reshape, Gemm with transB, Dropout."""
    make, nodes, below = onnx.helper.make_node, [], "data_0"

    def add(kind, output, *others, **attributes):
        nonlocal below
        nodes.append(make(kind, [below, *others], [output], **attributes))
        below = output

    for i in range(1, 6):
        stride, pad = (4, 0) if i == 1 else (1, 2 if i == 2 else 1)
        group = 2 if i in (2, 4, 5) else 1
        add("Conv", f"conv{i}", f"conv{i}_w_0", f"conv{i}_b_0", strides=[stride] * 2, pads=[pad] * 4, group=group)
        add("Relu", f"relu{i}")
        if i < 3:
            add("LRN", f"norm{i}", size=5, alpha=alpha, beta=0.75, bias=k)
        if i in (1, 2, 5):
            add("MaxPool", f"pool{i}", kernel_shape=[3, 3], strides=[2, 2])
    add("Reshape", "flat", "shape")
    for i in range(6, 9):
        add("Gemm", f"fc{i}", f"fc{i}_w_0", f"fc{i}_b_0", transB=1)
        if i < 8:
            add("Relu", f"relu{i}")
            nodes.append(make("Dropout", [below], [f"drop{i}", f"mask{i}"]))
            below = f"drop{i}"
    tensors = [onnx.numpy_helper.from_array(np.array([-1, arrays["fc6"][0].shape[1]]), "shape")]
    tensors += [
        onnx.numpy_helper.from_array(values, f"{name}_{kind}_0")
        for name, pair in arrays.items()
        for kind, values in zip("wb", pair, strict=True)
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "bvlcalexnet", [value("data_0", 1, [None, 3, 227, 227])], [value("fc8", 1, [None, CLASSES])], tensors
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 12)], ir_version=7), path)


def test_onnx(tmp_path):
    path = tmp_path / "bvlcalexnet-12.onnx"
    write_onnx(path, caffe_arrays())
    images = pixels(2, 227)
    blue_first = images[..., ::-1].astype("float32") - np.array(CAFFE_BGR, "float32")
    session = onnxruntime.InferenceSession(path)
    expected = session.run(None, {"data_0": np.ascontiguousarray(blue_first.transpose(0, 3, 1, 2))})[0]
    model = load_checkpoint(path)
    assert detect_network(model) == "caffe"
    close(logits(model, images), expected)


def write_npy(path, network, protocol=4):
    """A PyTorch network as the dictionary that circulates: kernels in TensorFlow's layout, blue first."""
    content = {}
    for name, module in network.named_children():
        kernel = module.weight.detach().numpy()
        kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        kernel = np.ascontiguousarray(kernel[:, :, ::-1] if name == "conv1" else kernel)
        content[name] = [kernel, module.bias.data.numpy()]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(content, object), file, protocol=protocol)
    return path


@pytest.mark.parametrize(
    "protocol", [2, pytest.param(4, marks=pytest.mark.once), pytest.param(5, marks=pytest.mark.once)]
)
def test_npy(protocol, tmp_path):
    """Written by Python 2 (protocol 2) or by a newer Python."""
    source = AlexNet("caffe", (67, 67, 3), classes=CLASSES, initializer="zeros")
    set_numpy_weights(source)
    reference = torch_alexnet.TorchAlexNet("caffe", CLASSES, 256).take(source)
    path = write_npy(tmp_path / "bvlc_alexnet.npy", reference, protocol)
    assert np.load(path, allow_pickle=True, encoding="latin1").item()["fc8"][1].shape == (CLASSES,)
    images = pixels(2, 67)
    model = load_checkpoint(path)
    assert detect_network(model) == "caffe" and model.input.shape[1:] == (67, 67, 3)
    close(logits(model, images), torch_alexnet.logits(reference, images))


def test_an_lrn_of_nobodys_is_not_mistaken(tmp_path):
    """PyTorch's alpha is divided by n. With the paper's number there, the file matches none of the networks."""
    write_onnx(tmp_path / "a.onnx", caffe_arrays(), alpha=1e-4, k=2.0)
    with pytest.raises(CheckpointError, match=r"none of the networks .*\n  norm1: expected alpha=0.0001, found 2e-05"):
        load_checkpoint(tmp_path / "a.onnx")
    write_onnx(tmp_path / "b.onnx", caffe_arrays(), alpha=5e-4, k=2.0)
    assert detect_network(load_checkpoint(tmp_path / "b.onnx")) == "paper"


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_networks_are_not_confused(torchvision, tmp_path):
    torch.save(torchvision.state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as error:
        AlexNet("paper", classes=CLASSES, width=WIDTH, weights=tmp_path / "a.pth")
    text = str(error.value)
    assert (
        "does not hold the network paper as it is here" in text
        and "expected the network paper, found torchvision" in text
    )
    assert "conv1 kernel: expected (11, 11, 3, 12), found (11, 11, 3, 8) in features.0.weight" in text

    path = write_caffe(tmp_path, "caffe", old=False)  # the same shapes as the paper's, but a different function
    with pytest.raises(CheckpointError, match="expected the network paper, found caffe"):
        AlexNet("paper", classes=CLASSES, width=WIDTH, weights=path)
    with pytest.raises(CheckpointError, match="expected the network caffenet, found caffe"):
        load_checkpoint(path, "caffenet")
    save_checkpoint(AlexNet("caffe", classes=CLASSES, width=WIDTH, name="mine"), tmp_path / "a.keras")
    with pytest.raises(CheckpointError, match=r"norm1: expected k=2.0, found 1.0"):
        AlexNet("paper", classes=CLASSES, width=WIDTH, weights=tmp_path / "a.keras")
    with pytest.raises(CheckpointError, match="expected the order .* norm1 pool1 .*, found .* pool1 norm1 "):
        save_checkpoint(AlexNet("caffenet", classes=CLASSES, width=WIDTH), tmp_path / "b.keras")
        AlexNet("caffe", classes=CLASSES, width=WIDTH, weights=tmp_path / "b.keras")
    with pytest.raises(CheckpointError, match="holds caffe. Received: network='paper'"):
        load_checkpoint(tmp_path / "a.keras", "paper")


@pytest.mark.once
def test_another_number_of_classes_gives_a_new_classifier(torchvision, tmp_path):
    torch.save(torchvision.state_dict(), tmp_path / "a.pth")
    fresh = AlexNet("torchvision", classes=3, width=WIDTH)
    model = AlexNet("torchvision", classes=3, width=WIDTH, weights=tmp_path / "a.pth")
    assert model.get_layer("fc8").units == 3
    np.testing.assert_array_equal(
        model.get_layer("fc7").get_weights()[0], torchvision.classifier[4].weight.detach().numpy().T
    )
    reach = 512**-0.5
    assert np.abs(model.get_layer("fc8").get_weights()[0]).max() == pytest.approx(reach, rel=0.05)
    assert fresh.count_params() == model.count_params()
    features = AlexNet("torchvision", width=WIDTH, include_top=False, weights=tmp_path / "a.pth")
    np.testing.assert_array_equal(features.get_weights()[1], torchvision.features[0].bias.detach().numpy())


def test_missing_and_misshapen_blobs_are_listed(torchvision, tmp_path):
    state = torchvision.state_dict()
    del state["features.3.bias"]
    state["classifier.4.weight"] = state["classifier.4.weight"][None]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "a.pth")
    text = str(error.value)
    assert "features.3.bias: expected an array of 1 axes, found none" in text
    assert "classifier.4.weight: expected an array of 2 axes, found one of shape (1, 512, 512)" in text
    assert "the file has: features.0.weight (8, 3, 11, 11)" in text


def good_files(folder, torchvision):
    """A complete file of each format, by format."""
    torch.save(torchvision.state_dict(), folder / "a.pth")
    write_caffe(folder, "caffe", old=False).rename(folder / "a.caffemodel")
    write_onnx(folder / "a.onnx", caffe_arrays())
    write_npy(folder / "a.npy", torch_alexnet.TorchAlexNet("caffe", CLASSES, 256))
    model = AlexNet("torchvision", classes=CLASSES, width=WIDTH)
    for ending in ("keras", "weights.h5", "safetensors"):
        save_checkpoint(model, folder / f"a.{ending}")
    endings = ("caffemodel", "keras", "npy", "onnx", "pth", "safetensors", "weights.h5")
    formats = ("caffe", "keras", "npy", "onnx", "torch", "safetensors", "keras_weights")
    return {format: folder / f"a.{ending}" for format, ending in zip(formats, endings, strict=True)}


@pytest.mark.once
def test_damaged_files_are_refused(torchvision, tmp_path):
    """A complete file of each format is recognized and fits; truncated at half or after 20 bytes, it is refused."""
    for format, path in good_files(tmp_path, torchvision).items():
        assert recognize(path) == (path, format)
        network = "caffe" if format in ("caffe", "onnx", "npy") else "torchvision"
        side = 67 if format == "npy" else NETWORKS[network].image_size

        def into_a_model(path, network=network, side=side):
            width = 1.0 if path.suffix == ".npy" else WIDTH
            return AlexNet(network, (side, side, 3), CLASSES, width, weights=path)

        load_checkpoint(path, network), into_a_model(path)
        whole = path.read_bytes()
        for length in (len(whole) // 2, 20):
            path.write_bytes(whole[:length])
            for load in (lambda p, network=network: load_checkpoint(p, network), into_a_model):
                with pytest.raises(CheckpointError, match=r"damaged|cut off|not in a supported format"):
                    load(path)


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "empty.keras").touch()
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "image.npy").write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    np.save(tmp_path / "array.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")]).save(tmp_path / "other.keras")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), tmp_path / "other.onnx")
    expected = {
        "absent.pth": "there is no file",
        ".": "is a folder without a model.keras",
        "empty.keras": "not in a supported format. Expected: .*Found: 0 bytes",
        "text.pth": "not in a supported format",
        "image.npy": "not in a supported format",
        "some.zip": "not in a supported format",
        "array.npy": "expected a dictionary layer -> .*, found float64",
        "other.keras": "does not hold an AlexNet",
        "other.onnx": "expected 5 Conv and 3 Gemm, found 0 and 0",
    }
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="allowed: paper, krizhevsky2012"):
        load_checkpoint(tmp_path / "other.onnx", "alexnet")


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch pwned",)


@pytest.mark.once
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "evil.npy", np.array({"conv1": Evil()}, object), allow_pickle=True)
    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="asks for posix.system, which is not part of an array"):
        load_checkpoint(tmp_path / "evil.npy")
    with pytest.raises(CheckpointError, match="could run any code"):
        load_checkpoint(tmp_path / "evil.pth")
    # An attack with arrays alone: objects at forged addresses.
    for trick in (
        b"\x80\x02cnumpy\nndarray\n(K\x01\x85cnumpy\ndtype\nX\x01\x00\x00\x00O\x85RC\x08AAAAAAAAtR.",
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R.",
    ):
        with (tmp_path / "trick.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            file.write(trick)
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / "trick.npy")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "evil.keras")
    with pytest.raises(CheckpointError, match="damaged or not safe to load"):
        load_checkpoint(tmp_path / "evil.keras")
    assert not (tmp_path / "pwned").exists()


# --- Time and memory -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", pytest.param("caffe", marks=pytest.mark.once)])
def test_a_large_checkpoint_loads_fast_and_lean(format, tmp_path):
    """244 MB: under 10 s of a processor, and under 1 GB more than the model itself takes."""
    path = tmp_path / "alexnet"
    if format == "torch":
        torch.save(Torchvision(1000, 1).state_dict(), path)
    else:
        path = write_caffe(tmp_path, "caffe", old=False, arrays=caffe_arrays(1, 1000))
    assert path.stat().st_size > 240e6
    program = (
        "import sys, time, alexnet; alexnet.import_keras(); from alexnet.training import peak_memory; import torch\n"
        "alexnet.AlexNet('torchvision'); before, began = peak_memory(), time.process_time()\n"
        "alexnet.load_checkpoint(sys.argv[1]); print(time.process_time() - began, peak_memory() - before)"
    )
    command = [sys.executable, "-c", program, str(path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    seconds, memory = map(float, found.stdout.split())
    assert seconds < 10 and memory < 1e9, (seconds, memory)
