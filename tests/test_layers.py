import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import gradient, to_numpy
from keras import ops

from alexnet.layers import (
    AverageMaps,
    GroupedConv2D,
    LocalResponseNormalization,
    PixelNormalization,
    WithinChannelLRN,
)

# Parameters with which the divisor matters, among them the paper's.
SETTINGS = [
    {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75},
    {"n": 3, "k": 1.0, "alpha": 0.01, "beta": 0.5},
    {"n": 1, "k": 1.5, "alpha": 0.1, "beta": 1.0},
    {"n": 4, "k": 2.0, "alpha": 0.02, "beta": 0.75},
    {"n": 99, "k": 2.0, "alpha": 0.003, "beta": 0.6},
]
SHAPES = {2: (3, 16), 3: (2, 5, 16), 4: (2, 4, 3, 16), 5: (2, 3, 2, 2, 16)}


def activities(shape, scale=30.0):
    return np.random.default_rng(7).normal(0, scale, shape).astype("float32")


def tensorflow_lrn(x, n, k, alpha, beta):
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.nn.local_response_normalization(x, n // 2, k, alpha, beta)
        total = tf.reduce_sum(y)
    return y.numpy(), tape.gradient(total, x).numpy()


def torch_lrn(x, n, k, alpha, beta):
    """Channels-first input, as in PyTorch; an even n means the window of n + 1 in the paper's formula."""
    width = 2 * (n // 2) + 1
    x = torch.tensor(x, requires_grad=True)
    y = torch.nn.LocalResponseNorm(width, alpha=width * alpha, beta=beta, k=k)(x)
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy()


def onnx_lrn(x, n, k, alpha, beta):
    width = 2 * (n // 2) + 1
    node = onnx.helper.make_node("LRN", ["x"], ["y"], size=width, bias=k, alpha=width * alpha, beta=beta)
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = onnx.helper.make_graph([node], "lrn", tensors[:1], tensors[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"n{s['n']}")
def test_equals_tensorflow(setting):
    x = activities((2, 4, 3, 16))
    layer = LocalResponseNormalization(**setting, data_format="channels_last")
    y, dx = tensorflow_lrn(x, **setting)
    np.testing.assert_allclose(to_numpy(layer(x)), y, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient(layer, x), dx, rtol=1e-5, atol=1e-5 * np.abs(dx).max())


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"n{s['n']}")
def test_equals_torch_in_both_formats(setting, rank):
    first = np.ascontiguousarray(np.moveaxis(activities(SHAPES[rank]), -1, 1))
    y, dx = torch_lrn(first, **setting)
    layer = LocalResponseNormalization(**setting, data_format="channels_first")
    np.testing.assert_allclose(to_numpy(layer(first)), y, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient(layer, first), dx, rtol=1e-5, atol=1e-5 * np.abs(dx).max())

    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))
    layer = LocalResponseNormalization(**setting, data_format="channels_last")
    np.testing.assert_allclose(np.moveaxis(to_numpy(layer(last)), -1, 1), y, rtol=1e-6, atol=1e-12)


def exact_lrn(x, n, k, alpha, beta):
    """The paper's formula, channel by channel in float64, channels first."""
    x = x.astype("float64")
    y = np.empty_like(x)
    for i in range(x.shape[1]):
        neighbors = x[:, max(0, i - n // 2) : min(x.shape[1] - 1, i + n // 2) + 1]
        y[:, i] = x[:, i] / (k + alpha * np.sum(neighbors**2, axis=1)) ** beta
    return y


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"n{s['n']}")
def test_equals_onnx(setting):
    x = np.ascontiguousarray(np.moveaxis(activities((2, 4, 3, 16)), -1, 1))
    y = to_numpy(LocalResponseNormalization(**setting, data_format="channels_first")(x))
    exact, reference = exact_lrn(x, **setting), onnx_lrn(x, **setting)
    np.testing.assert_allclose(y, exact, rtol=1e-6)
    # onnxruntime's own rounding is up to 2.4e-5 from the exact value, so 1e-6 is not possible.
    np.testing.assert_allclose(y, reference, rtol=3e-5)


def test_rank_two_by_hand():
    # 3 / (2 + 1 * (0 + 9 + 16)) and 4 / (2 + 1 * (9 + 16 + 144)): the window ends at the edges.
    layer = LocalResponseNormalization(n=3, k=2.0, alpha=1.0, beta=1.0, data_format="channels_last")
    y = to_numpy(layer(np.array([[3.0, 4.0, 12.0]], "float32")))
    np.testing.assert_allclose(y, [[3 / 27, 4 / 171, 12 / 162]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_does_not_overflow(dtype):
    x = np.full((1, 2, 2, 8), 1000.0, "float32")
    exact = to_numpy(LocalResponseNormalization(data_format="channels_last")(x))
    y = LocalResponseNormalization(data_format="channels_last", dtype=dtype)(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    np.testing.assert_allclose(to_numpy(ops.cast(y, "float32")), exact, rtol=0.01)


def test_symbolic_sizes():
    pixels = keras.Input((None, None, 8))
    model = keras.Model(pixels, LocalResponseNormalization(data_format="channels_last")(pixels))
    assert model.output.shape == (None, None, None, 8)
    for side in (3, 5):
        assert model.predict(activities((2, side, side + 1, 8)), verbose=0).shape == (2, side, side + 1, 8)


def test_saved_and_loaded(tmp_path):
    layer = LocalResponseNormalization(3, 1.0, 0.02, 0.5, data_format="channels_last", name="norm")
    model = keras.Sequential([keras.Input((4, 4, 8)), layer])
    model.save(tmp_path / "lrn.keras")
    loaded = keras.saving.load_model(tmp_path / "lrn.keras")
    x = activities((2, 4, 4, 8))
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.get_layer("norm").get_config() == layer.get_config()


def test_config_does_not_change_when_built():
    layer = LocalResponseNormalization(n=7, k=1.0, alpha=1, beta=2)
    before = layer.get_config()
    layer(activities((1, 4, 4, 8)))
    assert layer.get_config() == before
    assert LocalResponseNormalization.from_config(before).get_config() == before


@pytest.mark.parametrize(
    "arguments",
    [{"n": 0}, {"n": -3}, {"n": 2.5}, {"n": True}, {"n": "5"}, {"k": 0}, {"k": -1.0}, {"k": float("nan")},
     {"alpha": -1e-4}, {"alpha": float("inf")}, {"beta": float("nan")}, {"beta": float("inf")}, {"beta": "x"},
     {"data_format": "nhwc"}],
    ids=str,
)  # fmt: skip
def test_bad_arguments_say_what_was_received(arguments):
    (name, value), = arguments.items()  # fmt: skip
    with pytest.raises(ValueError, match=f"Received: {name}=") as error:
        LocalResponseNormalization(**arguments)
    assert repr(value) in str(error.value)


def test_unknown_channels_and_low_rank_are_refused():
    with pytest.raises(ValueError, match="number of channels.*Received"):
        LocalResponseNormalization(data_format="channels_last")(keras.Input((4, 4, None)))
    with pytest.raises(ValueError, match="rank of 2 or more. Received"):
        LocalResponseNormalization().build((8,))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_convolution_equals_torch(groups):
    x = activities((2, 9, 9, 8), 1.0)
    layer = GroupedConv2D(12, 3, padding="same", groups=groups, data_format="channels_last")
    layer.build(x.shape)
    kernel, bias = activities(layer.kernel.shape, 0.2), activities((12,), 0.1)
    layer.set_weights([kernel, bias])
    reference = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        torch.tensor(bias),
        padding=1,
        groups=groups,
    )
    np.testing.assert_allclose(to_numpy(layer(x)), reference.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_pixels_lose_their_mean_in_float32():
    layer = PixelNormalization((100.0, 50.0, 25.0), dtype="mixed_bfloat16")
    y = layer(np.array([[[[101, 52, 20]]]], "uint8"))
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    np.testing.assert_array_equal(to_numpy(y), [[[[1.0, 2.0, -5.0]]]])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("groups", [2, 4])
def test_windows_stay_in_their_group(groups, data_format):
    """Like PyTorch's layer on each part alone; in one group the result is different."""
    x = activities((2, 16, 4, 3))
    setting = {"n": 5, "k": 1.0, "alpha": 0.01, "beta": 0.75}
    parts = [torch_lrn(part, **setting) for part in np.split(x, groups, 1)]
    y, dx = (np.concatenate(values, 1) for values in zip(*parts, strict=True))
    layer = LocalResponseNormalization(**setting, data_format=data_format, groups=groups)
    to, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if data_format == "channels_last" else ((0, 1, 2, 3), (0, 1, 2, 3))
    inputs = np.ascontiguousarray(x.transpose(to))
    np.testing.assert_allclose(to_numpy(layer(inputs)).transpose(back), y, rtol=1e-6)
    np.testing.assert_allclose(gradient(layer, inputs).transpose(back), dx, rtol=1e-5, atol=1e-5 * np.abs(dx).max())
    assert np.abs(torch_lrn(x, **setting)[0] - y).max() > 0.01
    assert layer.get_config()["groups"] == groups
    with pytest.raises(ValueError, match="cannot be cut into 3 equal groups"):
        LocalResponseNormalization(groups=3, data_format=data_format)(inputs)


@pytest.mark.parametrize("size", [1, 3, 5, 21])
def test_within_channel_lrn(size):
    """Compared with PyTorch's average over a window that counts zeros: the same sum divided by the window's size."""
    setting = {"size": size, "k": 1.0, "alpha": 0.002, "beta": 0.75}
    x = activities((2, 9, 8, 4))
    layer = WithinChannelLRN(**setting)
    value = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    windows = torch.nn.functional.pad(value**2, [size // 2] * 4)
    sums = torch.nn.functional.avg_pool2d(windows, size, 1) * size**2
    expected = value * (1.0 + 0.002 * sums) ** -0.75
    expected.sum().backward()
    np.testing.assert_allclose(to_numpy(layer(x)), expected.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5)
    dx = value.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient(layer, x), dx, rtol=1e-5, atol=1e-5 * np.abs(dx).max())
    assert {key: WithinChannelLRN.from_config(layer.get_config()).get_config()[key] for key in setting} == setting


def test_within_channel_lrn_refuses():
    for arguments in ({"size": 4}, {"size": 0}, {"k": 0}, {"alpha": -1}, {"beta": float("inf")}):
        with pytest.raises(ValueError, match=f"Received: {next(iter(arguments))}="):
            WithinChannelLRN(**arguments)
    with pytest.raises(ValueError, match="height and width known"):
        WithinChannelLRN()(np.ones((2, 3, 4), "float32"))


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (4, 6), (6, 6), (7, 13)])
def test_average_maps(sides):
    x = activities((2, *sides, 3))
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), 6)
    layer = AverageMaps(6)
    np.testing.assert_allclose(to_numpy(layer(x)), expected.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == (2, 6, 6, 3)
