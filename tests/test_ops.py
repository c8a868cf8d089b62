"""Each fast form agrees with its reference: results and gradients, in full size and in corner cases."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import alexnet.layers
from alexnet import ops as fast_ops
from alexnet.ops import reference
from alexnet.training.optimizer import SGD

BACKEND = keras.backend.backend()


def results(function, *arrays):
    """The result of a function, and the gradients of a weighted sum of it by each array, as NumPy."""
    arrays = [np.asarray(array, "float32") for array in arrays]
    weights = np.random.default_rng(9).normal(size=np.shape(ops.convert_to_numpy(function(*map(tensor, arrays)))))
    weights = weights.astype("float32")
    if BACKEND == "jax":
        import jax

        value, back = jax.vjp(jax.jit(function), *arrays)
        return [value, *back(weights)]
    if BACKEND == "torch":
        import torch

        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        value = function(*tensors)
        value.backward(torch.from_numpy(weights))
        return [ops.convert_to_numpy(value), *(each.grad.numpy() for each in tensors)]
    import tensorflow as tf

    @tf.function
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, *tape.gradient(value, tensors, weights)

    return [each.numpy() for each in run(*map(tf.constant, arrays))]


def tensor(array):
    return ops.convert_to_tensor(array)


def assert_same(name, arrays, atol=1e-6, **settings):
    fast = results(functools.partial(getattr(fast_ops, name), **settings), *arrays)
    plain = results(functools.partial(getattr(reference, name), **settings), *arrays)
    for one, other in zip(fast, plain, strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(one / scale, other / scale, atol=atol)


def draw(*shape, scale=1.0):
    return np.random.default_rng(3).normal(0, scale, shape).astype("float32")


def test_every_backend_has_forms_of_its_own():
    names = {"tensorflow": {"dense"}, "jax": {"convolution", "max_pooling"}, "torch": {"convolution", "dense"}}[BACKEND]
    for name in names | {"local_response_normalization"}:
        assert getattr(fast_ops.backend_ops, name) is not getattr(reference, name)
    assert fast_ops.backend_ops.is_measured(tensor(draw(2)))


PAPER = {"axis": -1, "radius": 2, "k": 2.0, "alpha": 1e-4, "beta": 0.75}


@pytest.mark.parametrize(
    "shape, settings",
    [
        ((2, 5, 7, 96), {}),
        ((2, 5, 7, 96), {"groups": 2, "alpha": 0.01}),
        ((3, 10), {"alpha": 0.1}),
        ((3, 4, 10), {"axis": 2, "beta": 0.6, "radius": 1, "alpha": 0.1}),
        ((2, 3, 3, 8), {"radius": 9, "alpha": 0.05}),  # a window wider than the channels
        ((2, 8, 3, 5), {"axis": 1, "alpha": 0.05}),
        ((2, 3, 3, 1), {"radius": 0, "alpha": 0.05}),
        ((64, 40, 40, 96), {"alpha": 0.01}),  # several parts on PyTorch, the last one smaller
    ],
)
def test_response_normalization(shape, settings):
    assert_same("local_response_normalization", [draw(*shape, scale=10)], **{**PAPER, **settings})


@pytest.mark.parametrize("shape", [(2, 55, 55, 8), (1, 13, 13, 3), (3, 14, 9, 2), (2, 3, 3, 4)])
def test_max_pooling(shape):
    assert_same("max_pooling", [draw(*shape)], size=3, stride=2)


def test_of_equal_values_pooling_chooses_one():
    x = np.zeros((1, 5, 5, 2), "float32")
    _, below = results(functools.partial(fast_ops.max_pooling, size=3, stride=2), x)
    weights = np.random.default_rng(9).normal(size=(1, 2, 2, 2))
    np.testing.assert_allclose(below.sum((1, 2)), weights.sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    "pixels, kernel, settings",
    [
        *(((2, side, side + 5, 3), (11, 11, 3, 8), {"strides": (4, 4)}) for side in (67, 68, 70, 227)),
        ((4, 70, 63, 3), (11, 11, 3, 8), {"strides": (4, 4)}),  # pixels at the edge that no kernel reaches
        ((2, 31, 17, 2), (5, 3, 2, 4), {"strides": (3, 2)}),
        ((2, 27, 27, 6), (5, 5, 3, 8), {"padding": "same", "groups": 2}),
        ((2, 13, 13, 8), (3, 3, 8, 4), {"padding": "same"}),
        ((2, 12, 13, 4), (4, 4, 2, 4), {"padding": "same", "groups": 2}),
        ((2, 12, 13, 4), (3, 3, 4, 4), {"padding": "same", "strides": (2, 2)}),
    ],
)
def test_convolution(pixels, kernel, settings):
    arrays = [draw(*pixels), draw(*kernel), draw(kernel[-1])]
    # XLA sums the reference's bias gradient one by one; the other sums are closer to the exact value.
    assert_same("convolution", arrays, atol=1e-5 if BACKEND == "jax" else 5e-6, **settings)
    for one, other in zip(
        results(functools.partial(fast_ops.convolution, **settings), *arrays[:2]),
        results(functools.partial(reference.convolution, **settings), *arrays[:2]),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=5e-6 * np.abs(other).max())


def test_dense():
    assert_same("dense", [draw(5, 33), draw(33, 17), draw(17)], atol=2e-6)
    assert_same("dense", [draw(1, 33), draw(33, 17)], atol=2e-6)


@pytest.mark.parametrize("shape", [(3, 33), (2, 3, 33), (2, 1, 5, 33), (1, 1, 1, 33), (2, 5, 1, 33)])
def test_dense_multiplies_arrays_of_rank_2_only(shape, monkeypatch):
    """TensorFlow 2.20 multiplies other ranks wrongly if a size is 1."""
    seen = []
    form = fast_ops._dense
    monkeypatch.setattr(fast_ops, "_dense", lambda *arrays: seen.append(len(arrays[0].shape)) or form(*arrays))
    inputs, kernel, bias = draw(*shape), draw(33, 1), draw(1)
    layer = alexnet.layers.Dense(1)
    outer = keras.Input(shape[1:])
    model = keras.Model(outer, layer(outer))
    layer.set_weights([kernel, bias])
    for found in (layer(inputs), model.predict_on_batch(inputs)):
        assert tuple(found.shape) == (*shape[:-1], 1) == layer.compute_output_shape(shape)
        np.testing.assert_allclose(ops.convert_to_numpy(found), np.dot(inputs, kernel) + bias, atol=1e-5)
    assert set(seen) == {2}


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's memory")
def test_dense_multiplies_by_the_kernel_as_it_is_now():
    """XLA of jaxlib 0.7.1 to 0.8 multiplies by an earlier kernel that lay at the same address."""
    import jax

    multiply = jax.jit(fast_ops.dense)
    change = jax.jit(lambda kernel: kernel + 1, donate_argnums=0)  # where it lies
    inputs, kernel = np.ones((64, 1024), "float32"), ops.zeros((1024, 1024))
    for step in range(4):
        assert (np.asarray(multiply(inputs, kernel)) == 1024 * step).all()
        kernel = change(kernel)


@pytest.mark.skipif(BACKEND != "jax", reason="XLA's own ways")
def test_xla_computes_the_gradient_of_pooling_from_what_was_kept():
    """A branch into which XLA does not fuse, on each way; without it the gradient takes ten times as long."""
    import jax

    program = jax.jit(jax.grad(lambda maps: ops.sum(ops.square(fast_ops.max_pooling(maps, 3, 2)))))
    assert program.lower(draw(2, 13, 13, 8)).compile().as_text().count(" conditional(") == 2


@pytest.mark.skipif(
    BACKEND != "jax" or fast_ops.backend_ops.jax.__version_info__ < (0, 10), reason="a flag that an older XLA lacks"
)
@pytest.mark.parametrize("given", ["", "--xla_cpu_experimental_ynn_fusion_type="])
def test_slow_fusions_of_xla_are_left_out_unless_the_user_decides(given):
    """In a process of its own, since XLA reads its flags once. A user's own flag leaves everything as it is."""
    program = (
        "import alexnet, os; keras = alexnet.import_keras('jax'); alexnet.tune_process(); import jax\n"
        "lower = jax.jit(lambda x, w: keras.ops.softmax(keras.ops.conv(x, w, padding='same'))).lower\n"
        "text = lower(jax.numpy.ones((8, 13, 13, 64)), jax.numpy.ones((3, 3, 64, 64))).compile().as_text()\n"
        "print('ynn_fusion' in text, repr(os.environ['XLA_FLAGS']))"
    )
    command, environment = [sys.executable, "-c", program], {**os.environ, "XLA_FLAGS": given}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    assert found == ["False", repr(given)]  # a child process does not inherit our flag


def test_a_rule_of_steps_that_is_not_the_papers_is_refused():
    with pytest.raises(ValueError, match="nesterov"):
        SGD(nesterov=True)


@pytest.mark.parametrize("shape", [(9, 5), (7,)])
def test_momentum_step(shape):
    """Compared with the paper's two lines in float64, with a changing learning rate; in a graph on TensorFlow."""
    optimizer = SGD(0.1, momentum=0.9, decay=0.01)
    variable = keras.Variable(draw(*shape))
    optimizer.build([variable])
    apply = optimizer.apply
    if BACKEND == "tensorflow":
        import tensorflow as tf

        apply = tf.function(lambda gradients, _: optimizer.apply(gradients, [variable]))
    w, v = draw(*shape).astype("float64"), 0.0
    for step, rate in enumerate((0.1, 0.1, 0.01, 0.0)):
        optimizer.learning_rate = rate
        gradient = np.random.default_rng(step).normal(size=shape).astype("float32")
        apply([tensor(gradient)], [variable])
        v = 0.9 * v - rate * (gradient + (0.01 if len(shape) > 1 else 0) * w)
        w = w + v
        np.testing.assert_allclose(ops.convert_to_numpy(variable), w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(optimizer.momentums[0]), v, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's compiler")
def test_without_a_compiler_for_a_gpu_normalization_is_the_reference(monkeypatch, caplog):
    import torch

    def broken(function):
        raise RuntimeError("no compiler\nand a long report")

    monkeypatch.setattr(torch, "compile", broken)
    for cached in (fast_ops.backend_ops._compiles, fast_ops.backend_ops._compiled):
        cached.cache_clear()
    for name in ("local_response_normalization", "normalization_gradient"):
        assert fast_ops.backend_ops._compiled(name) is getattr(reference, name)
    (record,) = caplog.records  # said once
    assert record.getMessage().endswith("response normalization is slower: no compiler")
    for cached in (fast_ops.backend_ops._compiles, fast_ops.backend_ops._compiled):
        cached.cache_clear()
