"""Mixed precision in training, int8 in inference."""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import gradient, to_numpy
from keras import ops
from test_layers import exact_lrn

from alexnet import training
from alexnet.layers import LocalResponseNormalization
from alexnet.model import AlexNet, without_softmax
from alexnet.parity import batch_loss, set_numpy_weights
from alexnet.recipe import Recipe
from alexnet.saving import load_checkpoint, save_checkpoint
from alexnet.training import SGD
from alexnet.training.callbacks import StepMonitor

BACKEND = keras.backend.backend()
MIXED = ("mixed_bfloat16", "mixed_float16")
EPSILON = {"mixed_bfloat16": 2**-8, "mixed_float16": 2**-11}  # of a rounding
PAPER_LRN = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}


@pytest.fixture(autouse=True)
def float32_afterwards():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    return request.param


def small():
    model = AlexNet("paper", (67, 67, 3), 10, 0.0625, dropout=0.0, initializer="zeros")
    set_numpy_weights(model)
    return model


def training_model(rate=1e-4):
    model = without_softmax(small())
    model.compile(SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batch(count=4):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, 67, 67, 3), dtype="uint8"), rng.integers(0, 10, count)


def values(model):
    return [to_numpy(variable) for variable in model.trainable_variables]


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_what_is_computed_in_which_precision(policy):
    model, low = small(), policy.removeprefix("mixed_")
    dtypes = {layer.name: keras.backend.standardize_dtype(layer.output.dtype) for layer in model.layers[1:]}
    assert {name for name, dtype in dtypes.items() if dtype == "float32"} == {"mean", "fc8", "prob"}
    assert {dtype for name, dtype in dtypes.items() if name not in ("mean", "fc8", "prob")} == {low}
    trained = training_model()
    trained.train_on_batch(*batch())
    assert {variable.dtype for variable in trained.trainable_variables} == {"float32"}
    wide = {variable.dtype for variable in trained.optimizer.variables if "int" not in variable.dtype}
    assert wide == {"float32"}


@pytest.mark.parametrize("policy", MIXED, indirect=True)
@pytest.mark.parametrize("size", [0.01, 300.0, 60000.0])
def test_normalization_sums_in_float32(policy, size):
    """Results and gradients are float64's up to the rounding of inputs and outputs; squares of 300 are too large for
    float16, and those of 0.01 keep only few digits there."""
    low = policy.removeprefix("mixed_")
    drawn = np.random.default_rng(0).uniform(-size, size, (2, 3, 3, 16)).astype("float32")
    x = to_numpy(ops.cast(ops.cast(drawn, low), "float32"))
    layer = LocalResponseNormalization(**PAPER_LRN, data_format="channels_last")
    found = layer(ops.cast(x, low))
    assert keras.backend.standardize_dtype(found.dtype) == low
    exact = np.moveaxis(exact_lrn(np.moveaxis(x, -1, 1), **PAPER_LRN), 1, -1)
    np.testing.assert_allclose(to_numpy(ops.cast(found, "float32")), exact, rtol=1.01 * EPSILON[policy], atol=1e-7)

    plain = LocalResponseNormalization(**PAPER_LRN, data_format="channels_last", dtype="float32")
    dx = gradient(lambda value: ops.cast(layer(ops.cast(value, low)), "float32"), x)
    expected = gradient(plain, x)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=2 * EPSILON[policy] * np.abs(expected).max())


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_softmax_in_float32(policy):
    """Probabilities below float16's smallest number, and a sum of one that bfloat16 cannot reach."""
    model = small()
    kernel, bias = model.get_layer("fc8").get_weights()
    model.get_layer("fc8").set_weights([0 * kernel, -3.0 * np.arange(10, dtype="float32")])
    probabilities = model.predict_on_batch(batch(1)[0])[0]
    exact = np.exp(-3.0 * np.arange(10)) / np.exp(-3.0 * np.arange(10)).sum()
    assert probabilities.dtype == "float32"
    np.testing.assert_allclose(probabilities, exact, rtol=1e-5)


@pytest.mark.slow
def test_mixed_precision_learns_as_float32_does():
    losses = {}
    for policy in ("float32", *MIXED):
        keras.config.set_dtype_policy(policy)
        model = training_model()
        found = [batch_loss(model, *batch()) for _ in range(9)]
        made = int(to_numpy(model.optimizer.iterations))  # float16 skips steps until its loss scale fits
        assert made == 9 if policy != "mixed_float16" else made >= 6
        losses[policy] = found[9 - made :][:6]
    assert losses["float32"][-1] < 0.8 * losses["float32"][0]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["mixed_float16"] == pytest.approx(losses["float32"], rel=0.005)


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_a_step_of_infinite_gradients_is_skipped(policy):
    model = training_model()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(model.optimizer.inner_optimizer, SGD)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**60)
    before = values(model)
    loss = batch_loss(model, *batch())
    assert np.isfinite(loss)  # the unscaled loss
    assert float(to_numpy(model.optimizer.dynamic_scale)) == 2.0**59
    assert int(to_numpy(model.optimizer.iterations)) == 0
    for one, other in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_scaling_saves_small_gradients(policy):
    """An fc8 with tiny kernels returns gradients below float16's smallest number."""

    def change(scale):
        model = training_model(rate=1.0)
        model.optimizer.inner_optimizer.decay = 0.0
        layer = model.get_layer("fc8")
        layer.set_weights([layer.get_weights()[0] * np.float32(1e-8), layer.get_weights()[1]])
        model.optimizer.build(model.trainable_variables)
        model.optimizer.dynamic_scale.assign(scale)
        before = to_numpy(model.get_layer("conv5").kernel)
        model.train_on_batch(*batch())
        return np.abs(to_numpy(model.get_layer("conv5").kernel) - before).max()

    assert change(1.0) == 0.0
    assert change(2.0**15) > 0.0


@pytest.mark.slow
def test_a_resumed_run_keeps_its_loss_scale(tiny, monkeypatch):
    """Equal to the bit, with a loss scale that falls before the interruption and grows after it."""
    real = keras.optimizers.LossScaleOptimizer.__init__

    def growing(self, inner, initial_scale=2.0**20, dynamic_growth_steps=3, **settings):
        real(self, inner, initial_scale, dynamic_growth_steps, **settings)

    monkeypatch.setattr(keras.optimizers.LossScaleOptimizer, "__init__", growing)
    scales, made, stop = [], StepMonitor.on_train_batch_end, []

    def on_train_batch_end(self, step, logs=None):
        if len(scales) == stop[0]:
            stop[0] = None
            raise OSError("power")
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        scales.append(float(to_numpy(self.model.optimizer.dynamic_scale)))
        made(self, step, logs)

    monkeypatch.setattr(StepMonitor, "on_train_batch_end", on_train_batch_end)
    recipe = Recipe(**{**tiny, "epochs": 4, "batch_size": 18, "save_steps": 1}, dtype_policy="mixed_float16")
    stop.append(None)
    whole = training.train(recipe.replace(name="whole"), verbose=0)
    expected, scales[:] = list(scales), []
    stop[0] = len(expected) // 2
    before, after = expected[: stop[0]], expected[stop[0] - 1 :]
    assert before[-1] < 2.0**20 and any(later > one for one, later in itertools.pairwise(after))
    with pytest.raises(OSError, match="power"):
        training.train(recipe, verbose=0)
    resumed = training.train(recipe, verbose=0)
    assert scales == expected
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


ACTIVITIES = {"rounded": "default", "kept": None}


def quantized(activities):
    model = small()
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=activities), filters="^fc")
    return model


def by_hand(model, images, activities):
    """Probabilities with fc layers rounded by hand: a scale for each unit, and one for each image's activations."""

    def rounded(x, axis):
        scale = np.abs(x).max(axis, keepdims=True) / 127
        return np.round(x / np.maximum(scale, 1e-9)) * scale

    x = keras.Model(model.input, model.get_layer("flatten").output).predict_on_batch(images).astype("float64")
    for name in ("fc6", "fc7", "fc8"):
        kernel, bias = model.get_layer(name).get_weights()
        x = (x if activities is None else rounded(x, 1)) @ rounded(kernel.astype("float64"), 0) + bias
        x = x if name == "fc8" else np.maximum(x, 0)
    x = np.exp(x - x.max(1, keepdims=True))
    return x / x.sum(1, keepdims=True)


@pytest.mark.parametrize("activities", ACTIVITIES.values(), ids=ACTIVITIES)
def test_int8(activities):
    """The fully connected layers, without a warning, as rounded by hand."""
    plain, model, (images, _) = small(), quantized(activities), batch(32)
    for name in ("fc6", "fc7", "fc8"):
        layer = model.get_layer(name)
        assert layer.kernel.dtype == "int8" and layer.kernel_scale.dtype == "float32"
        assert (layer.inputs_quantizer is None) == (activities is None)
    assert {model.get_layer(f"conv{i}").kernel.dtype for i in range(1, 6)} == {"float32"}
    found, exact = (one.predict_on_batch(images) for one in (model, plain))
    away = np.abs(found - exact).max()
    assert 1e-5 < away < 0.05
    # A sum in a different order may round one activation to its other neighbor.
    np.testing.assert_allclose(found, by_hand(plain, images, activities), atol=0.2 * away)
    assert np.mean(found.argmax(1) == exact.argmax(1)) > 0.9


def test_int8_by_its_short_name():
    """Keras warns of each layer that it does not quantize, and of no other."""
    model = small()
    with pytest.warns(UserWarning, match="does not have a `quantize` method") as warned:
        model.quantize("int8")
    assert not any("Dense" in str(warning.message) for warning in warned)
    assert model.get_layer("fc6").kernel.dtype == "int8"


@pytest.mark.slow
def test_int8_saved_and_loaded(tmp_path):
    """Here and on another backend, in a process of its own."""
    plain, (images, _), answers = small(), batch(), {}
    save_checkpoint(plain, tmp_path / "float32.keras")
    for name, activities in ACTIVITIES.items():
        model = quantized(activities)
        save_checkpoint(model, tmp_path / f"{name}.keras")
        answers[name] = model.predict_on_batch(images)
        loaded = load_checkpoint(tmp_path / f"{name}.keras")
        np.testing.assert_array_equal(loaded.predict_on_batch(images), answers[name])
        sizes = [sum(value.nbytes for value in one.get_weights()) for one in (plain, model)]
        files = [(tmp_path / f"{each}.keras").stat().st_size for each in ("float32", name)]
        assert files[0] - files[1] == pytest.approx(sizes[0] - sizes[1], rel=0.1)

    np.savez(tmp_path / "answers.npz", images=images, **answers)
    program = (
        "import alexnet, numpy; alexnet.import_keras()\n"
        "given = numpy.load('answers.npz')\n"
        "for name in ('rounded', 'kept'):\n"
        "    found = alexnet.load_checkpoint(f'{name}.keras').predict_on_batch(given['images'])\n"
        "    numpy.testing.assert_allclose(found, given[name], atol=2e-3)\n"
    )
    other = {"tensorflow": "jax", "jax": "torch", "torch": "jax"}[BACKEND]
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": other}, check=True
    )


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_int8_read_as_weights(ending, tmp_path):
    """In a different model the kernels become float32 again."""
    model, (images, _) = quantized(None), batch()
    save_checkpoint(model, tmp_path / f"int8{ending}")
    taken = AlexNet("paper", (67, 67, 3), 10, 0.0625, weights=tmp_path / f"int8{ending}")
    np.testing.assert_allclose(taken.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5)


@pytest.mark.parametrize("ending", [".onnx", ".safetensors", ".pth"])
def test_int8_is_not_written_as_float32(ending, tmp_path):
    with pytest.raises(ValueError, match="quantized"):
        save_checkpoint(quantized(None), tmp_path / f"int8{ending}")
    assert not list(tmp_path.iterdir())
