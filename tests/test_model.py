import keras
import numpy as np
import pytest
import torch_alexnet
from helpers import to_numpy

from alexnet.model import AlexNet, init_gain, summarize_layers, without_softmax
from alexnet.networks import NETWORKS, PUBLISHED
from alexnet.parity import Gradients, batch_loss, set_numpy_weights
from alexnet.saving import detect_network
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
SMALL = {"input_shape": (67, 67, 3), "classes": 5, "width": 0.125, "initializer": "zeros"}


def pixels(count, side, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype="uint8")


@pytest.mark.parametrize("side", [227, 256])
def test_every_layer_counts_as_in_the_paper(side):
    model = AlexNet(input_shape=(side, side, 3), initializer="zeros")
    assert " ".join(layer.name for layer in model.layers) == ORDER
    rows = {row["layer"]: row for row in summarize_layers(model)}
    for name, (parameters, sizes) in LAYERS.items():
        output, macs = sizes[side]
        assert (rows[name]["output"], rows[name]["parameters"]) == (output, parameters), name
        assert rows[name]["macs"] == macs, name
    assert model.count_params() == 60_965_224


# Section 3.5 counted for the others: parameters of each layer, and maps after conv1, conv2 and pool5.
ONE_COLUMN = (307_392, 663_936, 884_992, 590_080, 37_752_832, 16_781_312, 4_097_000)
TWO_COLUMNS = (34_944, *[LAYERS[name][0] for name in ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")])
COUNTS = {
    "paper": (60_965_224, TWO_COLUMNS, 227),
    "krizhevsky2012": (60_965_224, TWO_COLUMNS, 227),
    "caffe": (60_965_224, TWO_COLUMNS, 227),
    "caffenet": (60_965_224, TWO_COLUMNS, 227),
    "one_tower": (61_100_840, (23_296, *ONE_COLUMN), 227),
    "torchvision": (61_100_840, (23_296, *ONE_COLUMN), 224),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_every_network_counts(network):
    total, parameters, side = COUNTS[network]
    model = AlexNet(network, initializer="zeros")
    assert model.count_params() == total
    assert model.input.shape == (None, side, side, 3)
    rows = {row["layer"]: row for row in summarize_layers(model)}
    assert tuple(row["parameters"] for row in rows.values() if row["parameters"]) == parameters
    assert [rows[name]["output"][0] for name in ("conv1", "conv2", "conv3", "pool5")] == [55, 27, 13, 6]
    assert detect_network(model) == network
    assert f"| `{network}` |" in AlexNet.__doc__ and f"| {total:,} |" in AlexNet.__doc__


@pytest.mark.parametrize("network", PUBLISHED)
def test_logits_equal_pytorch(network):
    """Each full network agrees with the same one in plain PyTorch to 5e-5, so any two backends agree to 1e-4."""
    model = AlexNet(network, initializer="zeros")
    set_numpy_weights(model)
    reference = torch_alexnet.TorchAlexNet(network).take(model)
    images = pixels(2, model.input.shape[1])
    expected = torch_alexnet.logits(reference, images)
    logits = to_numpy(without_softmax(model).predict_on_batch(images))
    assert np.abs(logits - expected).max() <= 5e-5 * np.abs(expected).max()
    probabilities = model.predict_on_batch(images)
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",  # on every backend one of each kind: across channels with and without two groups, and without norms
    [
        x if x in ("paper", "krizhevsky2012", "torchvision") else pytest.param(x, marks=pytest.mark.once)
        for x in PUBLISHED
    ],
)
def test_gradients_and_training_equal_pytorch(network):
    """A quarter of the width, images of 67 pixels: the gradients of three images, then five steps."""
    model = AlexNet(network, (67, 67, 3), classes=10, dropout=0.0, width=0.25, initializer="zeros")
    set_numpy_weights(model)
    reference = torch_alexnet.TorchAlexNet(network, 10, model.get_layer("fc6").kernel.shape[0], 0.25).take(model)
    images, labels = pixels(3, 67), np.array([1, 5, 9])
    torch_alexnet.assert_equal_gradients(Gradients(model), reference, images, labels)

    # A decay large enough to be seen.
    update = {"learning_rate": 3e-3 if network == "torchvision" else 1e-5, "momentum": 0.9, "decay": 0.5}
    expected = torch_alexnet.train(reference, images, labels, 5, **update)
    training_model = without_softmax(model)
    training_model.compile(SGD(**update), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [batch_loss(training_model, images, labels) for _ in range(5)]
    np.testing.assert_allclose(losses, expected, rtol=5e-4)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("side", [67, 227, 256])
def test_torchvision_averages_to_six_by_six(side):
    """Its adaptive pooling for sizes other than 224, with maps larger and smaller than 6 x 6."""
    model = AlexNet("torchvision", (side, side, 3), classes=5, classifier_activation=None, initializer="zeros")
    set_numpy_weights(model)
    reference = torch_alexnet.TorchAlexNet("torchvision", classes=5).take(model)
    images = pixels(2, side)
    expected = torch_alexnet.logits(reference, images)
    assert np.abs(model.predict_on_batch(images) - expected).max() <= 5e-5 * np.abs(expected).max()


def test_one_checkpoint_serves_227_and_256(tmp_path):
    settings = {"classes": 5, "width": 0.125, "initializer": "zeros"}
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
    set_numpy_weights(model)
    images = pixels(2, 67)
    np.testing.assert_array_equal(model.predict_on_batch(images), model.predict_on_batch(images.astype("float32")))


@pytest.mark.parametrize("side", [67, 98, 99])
def test_smallest_inputs(side):
    model = AlexNet(input_shape=(side, side, 3), classes=3, width=0.125, initializer="zeros")
    assert model.get_layer("pool5").output.shape[1:] == ((1, 1, 32) if side < 99 else (2, 2, 32))
    assert model.predict_on_batch(pixels(2, side)).shape == (2, 3)


def test_without_top_and_without_softmax():
    features = AlexNet(include_top=False, width=0.25, input_shape=(227, 227, 3), initializer="zeros")
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


@pytest.mark.parametrize("network", ["paper", "torchvision"])
def test_initial_values_of_he(network):
    model = AlexNet(network, input_shape=(67, 67, 3), width=0.5, initializer="he_normal")
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel, bias = layer.get_weights()
            expected = init_gain(NETWORKS[network]) * (2 / np.prod(kernel.shape[:-1])) ** 0.5
            assert np.std(kernel) == pytest.approx(expected, rel=0.05), layer.name
            assert not bias.any()
    # The purpose of the gain: logits are about one, by chance .5 to 6. With the paper's initial values they are 25.
    natural = np.clip(np.random.default_rng(0).normal(120, 75, (16, 67, 67, 3)), 0, 255)
    assert 0.05 < np.std(without_softmax(model).predict_on_batch(natural)) < 10


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
        ({"network": "alexnet"}, "Unknown network. Received: network='alexnet'. Known: paper"),
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
