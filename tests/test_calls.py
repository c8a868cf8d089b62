"""The model in the ways a Keras model is used: called, taped, differentiated twice, exported, loaded elsewhere."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from keras import ops

import alexnet
from alexnet.kernels import reference
from alexnet.training import SGD

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def model():
    return alexnet.AlexNet("paper", (67, 67, 3), classes=4, width=1 / 16, initializer="he_normal")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 67, 67, 3)).astype("float32")


def test_a_call_is_what_predict_says(model, pixels):
    right = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(to_numpy(model(pixels)), right, atol=1e-5)
    outputs, _ = model.stateless_call(
        [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables], pixels
    )
    np.testing.assert_allclose(to_numpy(outputs), right, atol=1e-5)
    outer = keras.Sequential([keras.Input((67, 67, 3)), model])
    np.testing.assert_allclose(to_numpy(outer(pixels)), right, atol=1e-5)
    assert np.abs(gradient(lambda x: model(x)[:, 1], pixels)).max() > 0


def test_training_eagerly(model, pixels):
    network = keras.models.clone_model(model)
    network.compile(SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=BACKEND != "jax")
    before = to_numpy(network.get_layer("fc8").kernel)
    network.train_on_batch(pixels, np.array([0, 1]))
    assert np.abs(to_numpy(network.get_layer("fc8").kernel) - before).max() > 0


def test_whole_numbers_give_fractions():
    found = to_numpy(alexnet.LocalResponseNormalization()(np.array([[0, 1, 2, 3, 100, 200]])))
    squares = np.array([0, 1, 2, 3, 100, 200], float) ** 2
    sums = np.array([squares[max(0, i - 2) : i + 3].sum() for i in range(6)])
    np.testing.assert_allclose(found[0], np.array([0, 1, 2, 3, 100, 200]) / (2 + 1e-4 * sums) ** 0.75, rtol=1e-5)


def test_second_derivatives():
    """Of the layer and of its plain reference: the gradient of a penalty on the gradient."""
    norm = alexnet.LocalResponseNormalization(alpha=0.5)
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("float32") * 2

    def penalized(function):
        if BACKEND == "jax":
            import jax

            return np.asarray(jax.grad(lambda x: (jax.grad(lambda y: (function(y) ** 3).sum())(x) ** 2).sum())(x))
        if BACKEND == "torch":
            import torch

            value = torch.tensor(x, requires_grad=True)
            (first,) = torch.autograd.grad((function(value) ** 3).sum(), value, create_graph=True)
            return torch.autograd.grad((first**2).sum(), value)[0].numpy()
        import tensorflow as tf

        value = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(value)
            with tf.GradientTape() as inner:
                inner.watch(value)
                total = tf.reduce_sum(function(value) ** 3)
            squared = tf.reduce_sum(inner.gradient(total, value) ** 2)
        return outer.gradient(squared, value).numpy()

    right = penalized(lambda value: reference.local_response_normalization(value, 2, 2, 2.0, 0.5, 0.75))
    assert np.abs(right).max() > 0.01
    np.testing.assert_allclose(penalized(norm), right, rtol=2e-3, atol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's transformations")
def test_transformations_of_pytorch(model, pixels):
    import torch

    images, right = torch.tensor(pixels), to_numpy(model(pixels))
    with torch.no_grad():
        forward = torch.func.vmap(lambda image: model(image[None])[0])
        np.testing.assert_allclose(forward(images).numpy(), right, atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's transformations")
def test_transformations_of_jax(model, pixels):
    import jax

    right = to_numpy(model(pixels))
    mapped = jax.vmap(lambda image: model(image[None])[0])(pixels)
    np.testing.assert_allclose(mapped, right, atol=1e-5)
    direction = np.random.default_rng(1).normal(size=pixels.shape).astype("float32")
    _, tangent = jax.jvp(lambda x: model(x)[:, 1], (pixels,), (direction,))
    slope = (gradient(lambda x: model(x)[:, 1], pixels) * direction).sum((1, 2, 3))
    np.testing.assert_allclose(tangent, slope, rtol=1e-3, atol=1e-5)


def test_a_rule_of_steps_that_is_not_the_papers_is_refused():
    with pytest.raises(ValueError, match="nesterov"):
        SGD(nesterov=True)


@pytest.mark.parametrize("order", ["keras, alexnet", "alexnet, keras"])
def test_a_saved_model_in_a_fresh_program(model, tmp_path, order):
    alexnet.save_checkpoint(model, tmp_path / "model.keras")
    program = f"import {order}; print(keras.saving.load_model({str(tmp_path / 'model.keras')!r}).count_params())"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(found.stdout.split()[-1]) == model.count_params() == sum(int(ops.size(w)) for w in model.weights[:16])
