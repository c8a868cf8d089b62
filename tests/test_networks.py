"""Networks as rows of data: the ablations of 2012, CIFAR-10's, users' rows, and what the optimizer reads from them."""

import keras
import numpy as np
import pytest
import torch_alexnet
from helpers import to_numpy

import alexnet
from alexnet.layers import AveragePooling2D, LocallyConnected2D, MaxPooling2D
from alexnet.model import AlexNet, summarize_layers, without_softmax
from alexnet.networks import NETWORKS, PUBLISHED, Network, specs
from alexnet.parity import Gradients, batch_loss, set_numpy_weights
from alexnet.recipe import Recipe, RecipeError
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.training.optimizer import SGD, update_factors
from alexnet.weights import CheckpointError

# Parameters, and the sides of the maps after each pool at the size that the network was trained with.
FULL = 60_965_224
COUNTS = {
    "net147": (FULL, (28, 13, 6)),
    "net148": (FULL, (27, 13, 6)),
    "net150": (FULL - 442_368, (27, 13, 6)),  # conv3's kernels see half of the maps
    "net145_half": (59_798_312, (27, 13, 6)),
    "cifar10_80sec": (145_578, (16, 8, 4)),
    "cifar10_18pct": (89_578, (16, 8, 4)),
    "cifar10_13pct": (1_116_490, (12, 6)),
    "cifar10_13pct_lrn": (1_116_490, (12, 6)),
    "cifar10_11pct": (2_112_970, (12, 6)),
}
TITLES = {"relu", "norm", "pool", "map_norm", "fc", "local", "conv", "drop"}


def pixels(count, side, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype="uint8")


@pytest.mark.once
def test_every_network_is_tested():
    assert set(COUNTS) | set(PUBLISHED) == set(NETWORKS)


@pytest.mark.once
@pytest.mark.parametrize("network", COUNTS)
def test_counts(network):
    classes = 10 if network.startswith("cifar10") else 1000
    model = AlexNet(network, classes=classes, initializer="zeros")
    parameters, maps = COUNTS[network]
    assert model.count_params() == parameters
    pools = [layer.output.shape[1] for layer in model.layers if "Pooling" in type(layer).__name__]
    assert tuple(pools) == maps
    assert detect_network(model) == network
    rows = {row["layer"]: row["macs"] for row in summarize_layers(model) if row["macs"]}
    assert list(rows) == [layer.name for layer in NETWORKS[network].weighted]
    if "local3" in rows:
        assert rows["local3"] == 36 * 9 * 64 * NETWORKS[network].layer("local3").filters


@pytest.mark.parametrize(
    "network",  # on every backend those that have a layer of their own
    [x if x in ("net150", "cifar10_11pct") else pytest.param(x, marks=pytest.mark.once) for x in COUNTS],
)
def test_logits_gradients_and_training_equal_pytorch(network):
    """Images of 67 pixels, or CIFAR-10's; then three steps with the network's own factors."""
    cifar = network.startswith("cifar10")
    side = NETWORKS[network].image_size if cifar else max(67, NETWORKS[network].smallest_input)
    width = 1.0 if cifar else 0.25
    model = AlexNet(network, (side, side, 3), classes=10, dropout=0.0, width=width, initializer="zeros")
    set_numpy_weights(model)
    if cifar:
        reference = torch_alexnet.TorchCifar(network, side).take(model)
    else:
        reference = torch_alexnet.TorchAlexNet(network, 10, model.get_layer("fc6").kernel.shape[0], width).take(model)
    images, labels = pixels(3, side), np.array([1, 5, 9])
    expected = torch_alexnet.logits(reference, images)
    logits = to_numpy(without_softmax(model).predict_on_batch(images))
    assert np.abs(logits - expected).max() <= 5e-5 * np.abs(expected).max()

    torch_alexnet.assert_equal_gradients(Gradients(model), reference, images, labels)

    # A decay large enough to be seen.
    update = {"learning_rate": 1e-6 if cifar else 1e-5, "momentum": 0.9, "decay": 0.5}
    factors = update_factors(NETWORKS[network])
    named = {
        f"{layer}.{part}": (rates[i], decays[i])
        for layer, (rates, decays) in factors.items()
        for i, part in enumerate(("weight", "bias"))
    }
    expected = torch_alexnet.train(reference, images, labels, 3, **update, factors=named)
    training_model = without_softmax(model)
    training_model.compile(SGD(**update, factors=factors), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = [batch_loss(training_model, images, labels) for _ in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=5e-4)
    assert losses[-1] < losses[0]


def test_factors_reach_kernels_and_biases():
    """One step with a known gradient: the loss is the sum of all weights of two layers."""
    layers = [keras.layers.Dense(2, name="a"), keras.layers.Dense(2, name="b")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = SGD(0.1, 0.9, 0.5, factors={"a": ((2.0, 3.0), (4.0, 1.0))})
    before = [to_numpy(variable) + 1 for variable in model.trainable_variables]
    model.set_weights(before)
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.ones(variable.shape) for variable in model.trainable_variables])
    rates, decays = (0.2, 0.3, 0.1, 0.1), (2.0, 0.5, 0.5, 0.0)
    for old, new, rate, decay in zip(before, model.get_weights(), rates, decays, strict=True):
        np.testing.assert_allclose(new, old - rate * (1 + decay * old), rtol=1e-5)
    again = SGD.from_config(optimizer.get_config())
    assert again.factors_of(model.trainable_variables[1]) == (3.0, 1.0)


@pytest.mark.once
def test_factors_are_those_of_the_sources():
    plain, fast, torch = ((1, 1), (1, 0)), ((1, 2), (1, 0)), ((1, 1), (1, 1))
    for name, expected in (("paper", plain), ("krizhevsky2012", fast), ("caffe", fast), ("torchvision", torch)):
        assert set(update_factors(NETWORKS[name]).values()) == {expected}
    factors = update_factors(NETWORKS["cifar10_18pct"])
    assert factors["conv1"] == fast and factors["fc4"] == ((1, 2), (250, 0))


def test_tanh_for_relu():
    model = AlexNet(activation="tanh", input_shape=(67, 67, 3), width=0.125, classes=5, classifier_activation=None)
    names = [layer.name for layer in model.layers]
    assert "tanh1" in names and not any(name.startswith("relu") for name in names)
    set_numpy_weights(model)
    images = pixels(2, 67)
    features = keras.Model(model.inputs[0], model.get_layer("drop7").output).predict_on_batch(images)
    kernel, bias = model.get_layer("fc8").get_weights()
    assert np.abs(to_numpy(features)).max() <= 1 and to_numpy(features).min() < 0
    expected = to_numpy(features) @ kernel + bias
    np.testing.assert_allclose(to_numpy(model.predict_on_batch(images)), expected, rtol=1e-3, atol=1e-3)
    assert detect_network(model) is None


@pytest.mark.once
@pytest.mark.parametrize(
    ("network", "without", "expected"),
    [
        ("paper", ("conv4",), "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv5 relu5 pool5 flatten"),
        ("paper", "norm1", "conv1 relu1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"),
        ("krizhevsky2012", ("conv5", "conv3"), "map_norm2 pool2 conv4 relu4 pool5 flatten fc6"),
        ("paper", ("fc7",), "flatten fc6 relu6 drop6 fc8"),
        ("torchvision", ("fc6",), "pool5 flatten drop6 fc7 relu7 fc8"),
        ("torchvision", ("fc7",), "flatten drop6 fc6 relu6 fc8"),
    ],
)
def test_a_layer_left_out(network, without, expected):
    model = AlexNet(network, without=without, width=0.125, initializer="zeros")
    assert f" {expected} " in f" {' '.join(layer.name for layer in model.layers)} "


@pytest.mark.once
def test_a_model_without_a_layer_is_saved_and_loaded(tmp_path):
    model = AlexNet(without=("conv4", "fc7"), input_shape=(67, 67, 3), width=0.0625, classes=3)
    save_checkpoint(model, tmp_path / "model.keras")
    loaded = load_checkpoint(tmp_path / "model.keras")
    images = pixels(2, 67)
    np.testing.assert_allclose(
        to_numpy(loaded.predict_on_batch(images)), to_numpy(model.predict_on_batch(images)), rtol=1e-5
    )
    with pytest.raises(ValueError, match="this format holds whole networks"):
        save_checkpoint(model, tmp_path / "model.weights.h5")
    with pytest.raises(CheckpointError, match="the network here has no layer called conv4"):
        AlexNet(without="conv4", input_shape=(67, 67, 3), width=0.0625, weights=_whole(tmp_path))


def _whole(folder):
    save_checkpoint(AlexNet(input_shape=(67, 67, 3), width=0.0625, initializer="zeros"), folder / "whole.keras")
    return folder / "whole.keras"


@pytest.mark.once
def test_what_a_network_cannot_do_without():
    with pytest.raises(ValueError, match="has no layer 'conv9'. It has: conv1, relu1"):
        AlexNet(without="conv9")
    with pytest.raises(ValueError, match="the last layer must be Dense with units=None"):
        AlexNet(without=("fc8",))
    with pytest.raises(ValueError, match="conv2 cannot cut 3 feature maps into 2"):
        AlexNet(without=("conv1",))
    with pytest.raises(ValueError, match="Received: activation='gelu'. Known: relu, tanh"):
        AlexNet(activation="gelu")


@pytest.fixture
def own(request):
    """A user's own row, for one test."""
    name = "of_my_own"
    row = Network(
        title="mine",
        layers=(
            specs.Conv("stem", 8, 5, stride=2, init_std=0.02, learning_rate_factors=(1.0, 2.0)),
            specs.Activation("relu_stem"),
            specs.Pool("pool_stem", kind="average"),
            specs.LocallyConnected("spots", 4, 2),
            specs.Flatten(),
            specs.Dense("head", None),
        ),
        image_size=32,
    )
    alexnet.register_network(name, row)
    yield name
    del NETWORKS[name]


def test_a_row_of_a_user(own, tmp_path):
    recipe = Recipe(
        network=own,
        data_dir="shapes",
        image_size=32,
        resize=32,
        epochs=1,
        width=1.0,
        run_dir=str(tmp_path),
    )
    model = alexnet.build_model(recipe, 3)
    assert [layer.name for layer in model.layers if layer.weights] == ["stem", "spots", "head"]
    training_model = alexnet.training.compile_model(model, recipe)
    assert training_model.optimizer.factors["stem"] == ((1.0, 2.0), (1.0, 0.0))
    images = pixels(4, 32)
    losses = [training_model.train_on_batch(images, np.array([0, 1, 2, 0]))[0] for _ in range(4)]
    assert losses[-1] < losses[0]
    save_checkpoint(model, tmp_path / "own.keras")
    loaded = load_checkpoint(tmp_path / "own.keras")
    assert detect_network(loaded) == own
    np.testing.assert_allclose(
        to_numpy(loaded.predict_on_batch(images)), to_numpy(model.predict_on_batch(images)), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(RecipeError, match="freeze: received 3; allowed: at most 2, of the 3 layers of of_my_own"):
        recipe.replace(freeze=3)
    with pytest.raises(ValueError, match="save_checkpoint|no layer like spots"):
        save_checkpoint(model, tmp_path / "own.onnx")


@pytest.mark.once
def test_rows_that_are_no_network(own):
    conv, head = specs.Conv("conv1", 8, 5), specs.Dense("fc2", None)
    for layers, message in (
        ((conv, head), "fc2 cannot come before Flatten"),
        ((conv, specs.Flatten()), "the last layer must be Dense"),
        ((conv, conv, specs.Flatten(), head), "two layers are called conv1"),
        ((conv, specs.Flatten(), specs.Pool("pool1"), head), "pool1 cannot come after Flatten"),
        ((conv, "relu", specs.Flatten(), head), "'relu' is not one of Conv"),
        ((conv, specs.Pool("pool1", 2, 3), specs.Flatten(), head), "leaves gaps between"),
    ):
        with pytest.raises(ValueError, match=message):
            Network("wrong", layers)
    with pytest.raises(ValueError, match="A different network is called 'paper'"):
        alexnet.register_network("paper", NETWORKS["caffe"])
    with pytest.raises(TypeError, match="must be an alexnet.networks.Network"):
        alexnet.register_network("mine", (conv, head))
    with pytest.raises(RecipeError, match="network: received 'papr'; allowed: paper, .* Did you mean paper"):
        Recipe(network="papr")
    with pytest.raises(RecipeError, match="without"):
        Recipe(without="conv9")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".onnx", ".safetensors", ".pth"])
def test_files_of_a_network_with_other_layers(ending, tmp_path):
    """Three convolutions and two dense layers, average pools: read back by name, or by count."""
    model = AlexNet("cifar10_80sec", classes=10, initializer="zeros")
    set_numpy_weights(model)
    save_checkpoint(model, tmp_path / f"model{ending}")
    loaded = load_checkpoint(tmp_path / f"model{ending}", None if ending in (".keras", ".onnx") else "cifar10_80sec")
    assert detect_network(loaded) == "cifar10_80sec"
    images = pixels(2, 32)
    expected = to_numpy(model.predict_on_batch(images))
    np.testing.assert_allclose(to_numpy(loaded.predict_on_batch(images)), expected, rtol=1e-4, atol=1e-6)
    if ending == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
        found = session.run(["prob"], {"pixels": images.astype("float32")})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_files_of_a_network_with_local_layers(tmp_path):
    model = AlexNet("cifar10_13pct", classes=10, initializer="zeros", width=0.25)
    set_numpy_weights(model)
    for ending in (".keras", ".weights.h5"):
        save_checkpoint(model, tmp_path / f"model{ending}")
        loaded = load_checkpoint(tmp_path / f"model{ending}", "cifar10_13pct")
        for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="no layer like local3"):
        save_checkpoint(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="does not hold the network paper|holds cifar10_13pct"):
        load_checkpoint(tmp_path / "model.keras", "paper")


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"strides": (2, 1)}])
def test_locally_connected_against_sums_written_out(settings):
    """The product of each position with its own kernel, one after the other in NumPy."""
    layer = LocallyConnected2D(5, 3, activation="relu", bias_initializer="random_normal", **settings)
    images = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    found = to_numpy(layer(images))
    assert found.shape == tuple(layer.compute_output_shape(images.shape))
    around = 1 if layer.padding == "same" else 0
    padded = np.pad(images, ((0, 0), (around, around), (around, around), (0, 0)))
    kernel, bias = layer.get_weights()
    expected = np.zeros_like(found)
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            top, left = y * layer.strides[0], x * layer.strides[1]
            window = padded[:, top : top + 3, left : left + 3].reshape(2, -1)
            expected[:, y, x] = np.maximum(window @ kernel[y, x] + bias[y, x], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    again = LocallyConnected2D.from_config(layer.get_config())
    again.build(images.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(again(images)), found)
    # Glorot's rule for one position: 36 inputs and 5 units.
    wide = LocallyConnected2D(5, 3, padding="same")
    wide.build((None, 20, 20, 4))
    assert np.std(to_numpy(wide.kernel)) == pytest.approx((2 / (36 + 5)) ** 0.5, rel=0.05)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"filters": 0}, None, "Received: filters=0"),
        ({"padding": "full"}, None, "Received: padding='full'"),
        ({"padding": "same", "strides": 2}, None, "needs strides of 1"),
        ({}, (1, 2, 8, 3), "smaller than one window"),
        ({}, (1, None, 8, 3), "all but the batch known"),
    ],
)
def test_locally_connected_refuses(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        LocallyConnected2D(**{"filters": 2, "kernel_size": 3, **arguments}).build(shape or (1, 8, 8, 3))


@pytest.mark.parametrize("side", [5, 6, 8, 11])
@pytest.mark.parametrize("layer", [MaxPooling2D, AveragePooling2D])
def test_pooling_that_rounds_up_equals_pytorch(layer, side):
    import torch

    images = -np.random.default_rng(1).random((2, side, side, 3)).astype("float32")  # below the zeros of a padding
    for size in (2, 3):
        pool = layer(size, 2, data_format="channels_last", rounding="ceil")
        function = torch.nn.functional.max_pool2d if layer is MaxPooling2D else torch.nn.functional.avg_pool2d
        settings = {} if layer is MaxPooling2D else {"count_include_pad": False}
        expected = function(torch.tensor(images).permute(0, 3, 1, 2), size, 2, ceil_mode=True, **settings)
        found = to_numpy(pool(images))
        np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-5)
        assert pool.compute_output_shape(images.shape) == found.shape
    with pytest.raises(ValueError, match="rounding must be 'floor' or 'ceil'"):
        layer(2, rounding="up")
    with pytest.raises(ValueError, match="padding='valid'"):
        layer(2, padding="same", rounding="ceil", data_format="channels_last")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of TensorFlow's")
@pytest.mark.parametrize("network", ["paper", "torchvision"])
def test_only_arrays_of_rank_2_are_multiplied(network):
    """TensorFlow 2.20 writes past its memory if it multiplies rank 4 by rank 2 and a size is 1."""
    import tensorflow as tf

    model = AlexNet(network, input_shape=(67, 67, 3), width=0.0625, classes=3, initializer="zeros")
    traced = tf.function(lambda images: model(images)).get_concrete_function(tf.TensorSpec((1, 67, 67, 3)))
    products = [each for each in traced.graph.get_operations() if "MatMul" in each.type or each.type == "Einsum"]
    assert len(products) >= 3  # fc6 to fc8
    assert all(array.shape.rank == 2 for each in products for array in each.inputs)
