"""Models that are saved and loaded again, and what a format cannot keep."""

import errno
import sys

import keras
import numpy as np
import pytest
import torch
from strange_helpers import CLASSES, SIDE, SMALL, WIDTH, arrays, caffe
from test_checkpoints import pixels

from alexnet.model import AlexNet
from alexnet.parity import set_numpy_weights
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.weights import CheckpointError, read_checkpoint
from alexnet.weights.checkpoint import URLS

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
        AlexNet("torchvision", **SMALL, weights=tmp_path / "short.pth")  # even though a different fc8 would be replaced
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


@pytest.mark.once
def test_imagenet_is_answered_with_where_to_get_it():
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    with pytest.raises(CheckpointError) as error:
        AlexNet(weights="imagenet")
    for urls in URLS.values():
        assert all(url in str(error.value) and f"({url})" in page for url in urls)


@pytest.mark.once
@pytest.mark.parametrize(
    "module, name", [("onnx", "net.onnx"), ("safetensors", "net.safetensors"), ("google", "net.caffemodel")]
)
def test_a_missing_package_is_named(module, name, tmp_path, monkeypatch):
    """Colab has no onnx: reading and writing say what to install, and leave nothing behind."""
    model = AlexNet("caffe", **SMALL)
    if name.endswith(".caffemodel"):
        caffe(tmp_path / name)
    else:
        save_checkpoint(model, tmp_path / name)
    for loaded in [each for each in sys.modules if each.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    package = {"google": "protobuf"}.get(module, module)
    message = rf"^The package {package} is not installed here. Install it with: pip install {package}, or its extra: "
    with pytest.raises(ModuleNotFoundError, match=rf"{message}pip install 'alexnet-keras\[formats\]'$"):
        load_checkpoint(tmp_path / name, "caffe")
    if not name.endswith(".caffemodel"):
        with pytest.raises(ModuleNotFoundError, match=message):
            save_checkpoint(model, tmp_path / f"new-{name}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


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
    """A different output, no top, its own mean: the same after loading, or refused without leaving a file."""
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
    """The limit on this process's files is too small for the network."""
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
