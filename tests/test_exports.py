"""Files written for other programs: they load again, and other programs compute the same from them."""

import keras
import numpy as np
import onnxruntime
import pytest
import torch
from checkpoint_helpers import CLASSES, WIDTH, Torchvision, close, logits, pixels

from alexnet.model import AlexNet
from alexnet.networks import PUBLISHED
from alexnet.parity import set_numpy_weights
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.weights import CheckpointError

# NumPy reads and writes the files, so on each backend one network of one column and one of two are enough.
FILES = [
    name if name in ("krizhevsky2012", "torchvision") else pytest.param(name, marks=pytest.mark.once)
    for name in PUBLISHED
]


# --- Keras, and there and back again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".safetensors", ".pth", ".onnx"])
def test_there_and_back(network, ending, tmp_path):
    model = AlexNet(network, classes=CLASSES, width=WIDTH, initializer="zeros")
    set_numpy_weights(model)
    path = tmp_path / f"model{ending}"
    save_checkpoint(model, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    told = ending in (".keras", ".safetensors", ".onnx") or (ending == ".pth" and network == "torchvision")
    if not told:
        with pytest.raises(CheckpointError, match=f"does not say which network it holds.*{network}"):
            load_checkpoint(path)
    loaded = load_checkpoint(path, None if told else network)
    assert detect_network(loaded) == network and loaded.input.shape == model.input.shape
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("network", FILES)
def test_onnx_computes_the_same(network, tmp_path):
    for side in (67, 227):
        model = AlexNet(network, (side, side, 3), classes=CLASSES, width=WIDTH, initializer="zeros")
        set_numpy_weights(model)
        save_checkpoint(model, tmp_path / "model.onnx")
        images = pixels(3, side)
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        found = dict(
            zip(("fc8", "prob"), session.run(["fc8", "prob"], {"pixels": images.astype("float32")}), strict=True)
        )
        close(found["fc8"], logits(model, images))
        np.testing.assert_allclose(found["prob"].sum(1), 1, rtol=1e-5)


def test_torch_takes_what_we_write(tmp_path):
    """Loads strictly into a module with torchvision's names."""
    model = AlexNet("torchvision", classes=CLASSES, width=WIDTH, initializer="zeros")
    set_numpy_weights(model)
    module, images = Torchvision(), pixels(2, 224)
    for name in ("model.pth", "model.safetensors"):
        save_checkpoint(model, tmp_path / name)
        if name.endswith("pth"):
            state = torch.load(tmp_path / name, weights_only=True)
        else:
            from safetensors.torch import load_file

            state = load_file(tmp_path / name)
        module.load_state_dict(state, strict=True)
        close(module.logits(images), logits(model, images))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras writes them on TensorFlow and JAX")
def test_tensorflow_computes_the_same(tmp_path):
    import tensorflow as tf

    model = AlexNet("caffe", (67, 67, 3), classes=CLASSES, width=WIDTH, initializer="zeros")
    set_numpy_weights(model)
    images = pixels(2, 67)
    save_checkpoint(model, tmp_path / "saved")
    saved = tf.saved_model.load(tmp_path / "saved")
    found = saved.serve(images.astype("float32"))
    np.testing.assert_allclose(found, model.predict_on_batch(images), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras writes it on TensorFlow")
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_computes_the_same(tmp_path):
    import tensorflow as tf

    model = AlexNet("krizhevsky2012", (67, 67, 3), classes=CLASSES, width=WIDTH, initializer="zeros")
    set_numpy_weights(model)
    image = pixels(1, 67)
    save_checkpoint(model, tmp_path / "model.tflite")
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.astype("float32"))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model.predict_on_batch(image), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the others can")
def test_formats_that_torch_lacks_are_named(tmp_path):
    model = AlexNet("caffe", (67, 67, 3), classes=CLASSES, width=WIDTH)
    for name, backends in (("saved", "tensorflow and jax"), ("model.tflite", "tensorflow")):
        with pytest.raises(ValueError, match=f"on {backends}. This process runs on torch"):
            save_checkpoint(model, tmp_path / name)
    with pytest.raises(ValueError, match="the ending names the format"):
        save_checkpoint(model, tmp_path / "model.h5")
