"""Our layers and the network in every way that a Keras model is used, beside the plain operations: called, taped,
transformed, traced, exported, differentiated twice, loaded elsewhere."""

import functools
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from keras import ops

from alexnet import ops as fast_ops
from alexnet.layers import (
    AverageMaps,
    Dense,
    GroupedConv2D,
    LocalResponseNormalization,
    MaxPooling2D,
    PixelNormalization,
    WithinChannelLRN,
)
from alexnet.model import AlexNet
from alexnet.ops import reference
from alexnet.parity import set_numpy_weights
from alexnet.saving import save_checkpoint
from alexnet.training import SGD

BACKEND = keras.backend.backend()
SHAPE = (2, 5, 5, 6)


def draw(*shape, seed=0):
    return ops.convert_to_tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def operations(form):
    """Functions of one array of `SHAPE`, computed by the fast or by the plain operations."""
    kernel, weights, bias = draw(3, 3, 3, 4), draw(6, 4), draw(4)
    rows = {"dense": lambda x: (x, weights), "both": lambda x: (x, ops.reshape(x, (6, -1))[:, :4])}
    return {
        "across channels": lambda x: form.local_response_normalization(x, -1, 2, 2.0, 0.5, 0.75, 2),
        "over the map": lambda x: form.local_response_normalization(x, (1, 2), 1, 2.0, 0.5, 0.75),
        "pooling": lambda x: form.max_pooling(x, 3, 2),
        "convolution": lambda x: form.convolution(x, kernel, bias, groups=2) ** 2,
        "dense": lambda x: form.dense(ops.reshape(rows["dense"](x)[0], (-1, 6)), weights, bias) ** 2,
        "a kernel that depends": lambda x: form.dense(ops.reshape(x, (-1, 6)), rows["both"](x)[1], bias) ** 2,
    }


def jax_uses(function, x, v):
    import jax

    def loss(x):
        return (function(x) ** 2).sum()

    yield "forward", lambda: jax.jit(lambda x: jax.jvp(function, (x,), (v,))[1])(x)
    yield "forward over reverse", lambda: jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (v,))[1])(x)
    yield "reverse over reverse", lambda: jax.jit(jax.grad(lambda x: (jax.grad(loss)(x) * v).sum()))(x)
    yield "vmap of grad", lambda: jax.jit(jax.vmap(jax.grad(loss)))(ops.stack([x, v]))
    yield "checkpoint", lambda: jax.jit(jax.grad(jax.checkpoint(loss)))(x)


def torch_uses(function, x, v):
    import torch

    def loss(x):
        return (function(x) ** 2).sum()

    def penalty():
        y = x.clone().requires_grad_()
        (torch.autograd.grad(loss(y), y, create_graph=True)[0] ** 2).sum().backward()
        return y.grad

    def batched():
        y = x.clone().requires_grad_()
        found = function(y)
        upstream = torch.stack([torch.ones_like(found), found.detach()])
        return torch.autograd.grad(found, y, upstream, is_grads_batched=True)[0]

    yield "gradient penalty", penalty
    yield "functional.hvp", lambda: torch.autograd.functional.hvp(loss, x, v)[1]
    yield "functional.jvp", lambda: torch.autograd.functional.jvp(function, x, v)[1]
    yield "batched gradients", batched
    yield "func.grad", lambda: torch.func.grad(loss)(x)
    yield "func.jvp", lambda: torch.func.jvp(function, (x,), (v,))[1]
    yield "func.hessian", lambda: torch.func.jvp(torch.func.grad(loss), (x,), (v,))[1]
    yield "func.vmap", lambda: torch.func.vmap(function)(torch.stack([x, v]))
    yield "jit.trace", lambda: torch.jit.trace(function, x, check_trace=False)(v)
    yield "not contiguous", lambda: function(x.permute(0, 2, 1, 3))


def tensorflow_uses(function, x, v):
    import tensorflow as tf

    def loss(x):
        return tf.reduce_sum(function(x) ** 2)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return tape.gradient(value, x)

    def twice(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(gradient(x) * v)
        return tape.gradient(value, x)

    def forward(function):
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            value = function(x)
        return accumulator.jvp(value)

    def of_a_variable():
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            value = loss(variable)
        return tape.gradient(value, variable)

    yield "variable", of_a_variable
    yield "tape over tape", lambda: twice(x)
    yield "in a graph", lambda: tf.function(twice)(x)
    yield "forward mode", lambda: forward(function)
    yield "forward over reverse", lambda: forward(gradient)
    yield "vectorized_map", lambda: tf.vectorized_map(gradient, tf.stack([x, v]))


USES = {"jax": jax_uses, "torch": torch_uses, "tensorflow": tensorflow_uses}[BACKEND]


@pytest.mark.filterwarnings("ignore")  # warnings of PyTorch's tracer, which the plain operations get as well
@pytest.mark.parametrize("name", operations(reference))
def test_every_derivative(name):
    x, v = draw(*SHAPE), draw(*SHAPE, seed=1)
    for (use, fast), (_, plain) in zip(
        USES(operations(fast_ops)[name], x, v), USES(operations(reference)[name], x, v), strict=True
    ):
        if BACKEND == "torch" and name == "convolution" and use == "func.vmap":
            continue  # Keras's own convolution does not vmap there
        one, other = (to_numpy(made()) for made in (fast, plain))
        scale = np.abs(other).max()
        assert scale > 0, use
        np.testing.assert_allclose(one / scale, other / scale, atol=2e-5, err_msg=use)


LAYERS = {
    "mean": lambda: PixelNormalization((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 2.0),
    "norm": lambda: LocalResponseNormalization(alpha=0.5, data_format="channels_last"),
    "norm of channels first": lambda: LocalResponseNormalization(alpha=0.5, data_format="channels_first"),
    "map_norm": lambda: WithinChannelLRN(3, alpha=0.5),
    "average": lambda: AverageMaps(3),
    "conv": lambda: GroupedConv2D(4, 3, groups=2, data_format="channels_last"),
    "pool": lambda: MaxPooling2D(3, 2, data_format="channels_last"),
    "dense": lambda: keras.Sequential([keras.layers.Flatten(), Dense(4)]),
}


def called_everywhere(model, x):
    """A model's results in each way of calling it."""
    yield model(x)
    yield model.predict_on_batch(x)
    yield model(x, training=False)
    variables = ([each.value for each in kind] for kind in (model.trainable_variables, model.non_trainable_variables))
    yield model.stateless_call(*variables, x)[0]
    yield pickle.loads(pickle.dumps(model))(x)
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    yield copied(x)
    outer = keras.Input(model.input.shape[1:])
    yield keras.Model(outer, model(outer))(x)
    model.compile(run_eagerly=True)
    yield model.predict_on_batch(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_called_in_every_way(name):
    pixels = keras.Input(SHAPE[1:])
    model = keras.Model(pixels, LAYERS[name]()(pixels))
    x = draw(*SHAPE)
    found = [to_numpy(value) for value in called_everywhere(model, x)]
    assert np.abs(found[0]).max() > 0
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-5)


@functools.cache
def network(network="krizhevsky2012"):
    model = AlexNet(network, (67, 67, 3), 4, 1 / 16, initializer="zeros")
    set_numpy_weights(model)
    return model


def pixels(count=2):
    return np.random.default_rng(2).integers(0, 256, (count, 67, 67, 3)).astype("float32")


def test_the_network_called_in_every_way():
    found = [to_numpy(value) for value in called_everywhere(network(), pixels())]
    assert np.ptp(found[0]) > 0.01
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4)


def test_the_gradient_of_a_class():
    """The gradient by the pixels, through the whole network, and the slope in a direction that JAX computes forward."""
    images = pixels()
    slopes = gradient(lambda x: network()(x)[:, 1], images)
    assert np.abs(slopes).max() > 0
    if BACKEND == "jax":
        import jax

        direction = np.random.default_rng(1).normal(size=images.shape).astype("float32")
        _, tangent = jax.jvp(lambda x: network()(x)[:, 1], (images,), (direction,))
        np.testing.assert_allclose(tangent, (slopes * direction).sum((1, 2, 3)), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has no transformation of one image")
def test_the_network_mapped_over_images():
    if BACKEND == "jax":
        import jax

        found = jax.vmap(lambda image: network()(image[None])[0])(pixels())
    else:
        import torch

        with torch.no_grad():
            found = torch.func.vmap(lambda image: network()(image[None])[0])(torch.tensor(pixels()))
    np.testing.assert_allclose(found, to_numpy(network()(pixels())), atol=1e-5)


def test_trained_eagerly():
    trained = AlexNet("paper", (67, 67, 3), 4, 1 / 16, initializer="zeros")
    set_numpy_weights(trained)
    trained.compile(SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=BACKEND != "jax")
    before = to_numpy(trained.get_layer("fc8").kernel)
    trained.train_on_batch(pixels(), np.array([0, 1]))
    assert np.abs(to_numpy(trained.get_layer("fc8").kernel) - before).max() > 0


@pytest.mark.once
@pytest.mark.parametrize("order", ["keras, alexnet", "alexnet, keras"])
def test_a_saved_model_in_a_fresh_program(tmp_path, order):
    save_checkpoint(network(), tmp_path / "model.keras")
    program = f"import {order}; print(keras.saving.load_model({str(tmp_path / 'model.keras')!r}).count_params())"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(found.stdout.split()[-1]) == network().count_params()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_whole_numbers_become_floats(dtype):
    whole = np.arange(2 * 4 * 4 * 6).reshape(2, 4, 4, 6).astype(dtype)
    for name in ("norm", "norm of channels first", "map_norm", "average"):
        layer = LAYERS[name]()
        found = to_numpy(layer(whole))
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, to_numpy(layer(whole.astype("float32"))), rtol=1e-6)


@pytest.mark.parametrize("name", ["norm", "map_norm", "average", "pool"])
def test_a_size_of_one(name):
    """Cases in which products of rank 4 wrote past their memory."""
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 1)).astype("float32")
    wide = np.concatenate([x] + 5 * [np.zeros_like(x)], -1)
    layer = LAYERS[name]()
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(layer(wide))[..., :1], rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_other_devices_sum_without_a_product(axis, monkeypatch):
    """A product would be TF32 on a GPU. An infinity stays among its neighbors, which no band matrix can do."""
    for name in ("matmul", "dot", "tensordot", "einsum"):
        monkeypatch.setattr(ops, name, None)
    x = np.ones((2, 9, 9, 9), "float32")
    x[0, 0, 0, 0] = 1e30
    found = to_numpy(reference.local_response_normalization(ops.convert_to_tensor(x), axis, 1, 2.0, 0.5, 0.75))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[1], found[1, ::-1, ::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(found[0, 3:, 3:, 3:], found[1, 3:, 3:, 3:], rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5, 5, 6), (1, 5, 5, 6)])
def test_batches_of_none_and_one(shape):
    x = np.ones(shape, "float32")
    for name, make in LAYERS.items():
        if name not in ("conv", "dense") or shape[0]:
            assert to_numpy(make()(x)).shape[0] == shape[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own exporters")
def test_exported_by_pytorch(tmp_path):
    """By `torch.export` and to ONNX: the model's numbers, not the empty arrays that out= left behind."""
    import onnxruntime
    import torch

    x = torch.randn(*SHAPE)
    model = keras.Sequential([keras.Input(SHAPE[1:]), LAYERS["norm"](), LAYERS["map_norm"](), Dense(3)])
    expected = model(x).detach()
    assert torch.allclose(torch.export.export(model, (x,), strict=False).module()(x), expected, atol=1e-5)
    model.export(tmp_path / "norm.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "norm.onnx")
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own compiler")
def test_compiled_by_pytorch():
    """`eager` is the backend that traces and does not call a C++ compiler."""
    import torch

    x = torch.randn(*SHAPE, requires_grad=True)
    function, plain = (operations(form)["across channels"] for form in (fast_ops, reference))
    found, expected = (
        torch.autograd.grad((each(x) ** 2).sum(), x)[0]
        for each in (torch.compile(function, backend="aot_eager"), plain)
    )
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(BACKEND == "torch", reason="a format of TensorFlow's")
def test_a_saved_model(tmp_path):
    import tensorflow as tf

    network().export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    found = loaded.serve(pixels()).numpy()
    np.testing.assert_allclose(found, network().predict_on_batch(pixels()), rtol=1e-4)
