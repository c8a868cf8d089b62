import keras
import numpy as np
import pytest
import torch
import torch_alexnet
from helpers import set_numpy_weights, to_numpy

from alexnet.model import HE_GAIN, AlexNet, CheckpointError, layer_table, logits_model
from alexnet.training import SGD

# The paper's section 3.5, counted: output, parameters, multiply-adds at 227 and at 256 pixels.
LAYERS = {
    "conv1": (34_944, {227: ((55, 55, 96), 105_415_200), 256: ((62, 62, 96), 133_955_712)}),
    "conv2": (307_456, {227: ((27, 27, 256), 223_948_800), 256: ((30, 30, 256), 276_480_000)}),
    "conv3": (885_120, {227: ((13, 13, 384), 149_520_384), 256: ((14, 14, 384), 173_408_256)}),
    "conv4": (663_936, {227: ((13, 13, 384), 112_140_288), 256: ((14, 14, 384), 130_056_192)}),
    "conv5": (442_624, {227: ((13, 13, 256), 74_760_192), 256: ((14, 14, 256), 86_704_128)}),
    "pool5": (0, {227: ((6, 6, 256), 0), 256: ((6, 6, 256), 0)}),
    "fc6": (37_752_832, {227: ((4096,), 37_748_736), 256: ((4096,), 37_748_736)}),
    "fc7": (16_781_312, {227: ((4096,), 16_777_216), 256: ((4096,), 16_777_216)}),
    "fc8": (4_097_000, {227: ((1000,), 4_096_000), 256: ((1000,), 4_096_000)}),
}
ORDER = (
    "pixels mean conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten "
    "fc6 relu6 drop6 fc7 relu7 drop7 fc8 prob"
)
SMALL = {"input_shape": (67, 67, 3), "classes": 5, "width": 0.125}


def pixels(count, side, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype="uint8")


@pytest.mark.parametrize("side", [227, 256])
def test_every_layer_counts_as_in_the_paper(side):
    model = AlexNet(input_shape=(side, side, 3))
    assert " ".join(layer.name for layer in model.layers) == ORDER
    rows = {row["layer"]: row for row in layer_table(model)}
    for name, (parameters, sizes) in LAYERS.items():
        output, multiply_adds = sizes[side]
        assert (rows[name]["output"], rows[name]["parameters"]) == (output, parameters), name
        assert rows[name]["multiply_adds"] == multiply_adds, name
    assert model.count_params() == 60_965_224


def test_logits_and_training_equal_pytorch():
    """The full network against the same one in plain PyTorch: each backend within 5e-5, so any two within 1e-4."""
    model = AlexNet(dropout=0.0)
    set_numpy_weights(model)
    reference = torch_alexnet.TorchAlexNet().take(model)
    images, labels = pixels(4, 227), np.array([1, 10, 100, 999])

    trainee = logits_model(model)
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2)).float()).numpy()
    logits = to_numpy(trainee.predict_on_batch(images))
    assert np.abs(logits - expected).max() <= 5e-5 * np.abs(expected).max()
    probabilities = model.predict_on_batch(images)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-3)

    update = {"learning_rate": 1e-5, "momentum": 0.9, "decay": 0.5}  # a decay large enough to be seen
    expected = torch_alexnet.train(reference, images, labels, 5, **update)
    trainee.compile(SGD(**update), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [float(trainee.train_on_batch(images, labels)) for _ in range(5)]
    np.testing.assert_allclose(losses, expected, rtol=5e-4)
    assert losses[-1] < 0.9 * losses[0]


def test_one_checkpoint_serves_227_and_256(tmp_path):
    settings = {"classes": 5, "width": 0.125}
    small, large = (AlexNet(input_shape=(side, side, 3), **settings) for side in (227, 256))
    set_numpy_weights(small)
    for name in ("a.keras", "a.weights.h5"):
        small.save(tmp_path / name) if name.endswith("keras") else small.save_weights(tmp_path / name)
        large = AlexNet(input_shape=(256, 256, 3), weights=tmp_path / name, **settings)
        for ours, theirs in zip(large.get_weights(), small.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_saved_model_needs_nothing_else(tmp_path):
    model = AlexNet(**SMALL)
    set_numpy_weights(model)
    model.save(tmp_path / "model.keras")
    images = pixels(3, 67)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(images), model.predict_on_batch(images), rtol=1e-5)


def test_uint8_and_float_pixels_are_alike():
    model = AlexNet(**SMALL)
    images = pixels(2, 67)
    np.testing.assert_array_equal(model.predict_on_batch(images), model.predict_on_batch(images.astype("float32")))


@pytest.mark.parametrize("side", [67, 98, 99])
def test_smallest_inputs(side):
    model = AlexNet(input_shape=(side, side, 3), classes=3, width=0.125)
    assert model.get_layer("pool5").output.shape[1:] == ((1, 1, 32) if side < 99 else (2, 2, 32))
    assert model.predict_on_batch(pixels(2, side)).shape == (2, 3)


def test_without_top_and_without_softmax():
    features = AlexNet(include_top=False, width=0.25, input_shape=(227, 227, 3))
    assert features.output.shape == (None, 6, 6, 64)
    assert AlexNet(classifier_activation=None, **SMALL).layers[-1].name == "fc8"


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_initial_values_of_the_paper(width):
    model = AlexNet(input_shape=(67, 67, 3), width=width)
    biases = {"conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0}
    for name, bias in biases.items():
        kernel, found = model.get_layer(name).get_weights()
        assert np.std(kernel) == pytest.approx(0.01 / width**0.5, rel=0.05), name
        assert abs(np.mean(kernel)) < 0.05 * np.std(kernel) + 3 * np.std(kernel) / kernel.size**0.5
        np.testing.assert_array_equal(found, np.full_like(found, bias))


def test_initial_values_of_he():
    model = AlexNet(input_shape=(67, 67, 3), width=0.5, initializer="he_normal")
    for layer in model.layers:
        if layer.get_weights() and hasattr(layer, "kernel"):
            kernel, bias = layer.get_weights()
            expected = HE_GAIN * (2 / np.prod(kernel.shape[:-1])) ** 0.5
            assert np.std(kernel) == pytest.approx(expected, rel=0.05), layer.name
            assert not bias.any()
    # The purpose of the gain: pixels come out as logits of about one.
    natural = np.clip(np.random.default_rng(0).normal(120, 75, (16, 67, 67, 3)), 0, 255)
    assert 0.05 < np.std(logits_model(model).predict_on_batch(natural)) < 5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_ends_in_float32(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = AlexNet(**SMALL)
    finally:
        keras.config.set_dtype_policy(before)
    assert {model.get_layer(name).compute_dtype for name in ("mean", "fc8", "prob")} == {"float32"}
    assert model.get_layer("conv2").compute_dtype == policy.removeprefix("mixed_")
    exact = AlexNet(**SMALL)
    set_numpy_weights(model), set_numpy_weights(exact)
    images = pixels(4, 67)
    np.testing.assert_allclose(model.predict_on_batch(images), exact.predict_on_batch(images), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "alexnet"}, "Unknown preset. Received: preset='alexnet'. Known: paper"),
        ({"input_shape": (66, 227, 3)}, r"67 pixels or more.*Received: input_shape=\(66, 227, 3\)"),
        ({"input_shape": (227, 227, 1)}, r"RGB. Received: input_shape=\(227, 227, 1\)"),
        ({"input_shape": (None, None, 3)}, r"Received: input_shape=\(None, None, 3\)"),
        ({"classes": 0}, "Received: classes=0"),
        ({"classes": 2.0}, "Received: classes=2.0"),
        ({"width": 0}, "Received: width=0"),
        ({"width": float("nan")}, "Received: width=nan"),
        ({"dropout": 1.0}, "Received: dropout=1.0"),
        ({"initializer": "he"}, "Received: initializer='he'. Known: paper, he_normal"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AlexNet(**arguments)


def test_weights_of_another_network_are_refused(tmp_path):
    other = AlexNet(**{**SMALL, "classes": 7})
    other.save(tmp_path / "other.keras")
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(CheckpointError, match=r"another network: fc8/kernel is \(512, 7\) there and \(512, 5\) here"):
        AlexNet(**SMALL, weights=tmp_path / "other.keras")
    with pytest.raises(CheckpointError, match="does not hold this network"):
        AlexNet(**SMALL, weights=tmp_path / "other.weights.h5")


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "text.keras").write_text("not a zip")
    (tmp_path / "text.weights.h5").write_text("not HDF5")
    expected = {
        "absent.keras": "no file",
        "text.keras": "does not hold",
        "text.weights.h5": "does not hold",
        "text.txt": "must end",
    }
    for name, message in expected.items():
        if name == "text.txt":
            (tmp_path / name).touch()
        with pytest.raises(CheckpointError, match=message) as error:
            AlexNet(**SMALL, weights=tmp_path / name)
        assert "\n" not in str(error.value)
