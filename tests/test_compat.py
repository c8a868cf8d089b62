"""Private parts of other libraries: they exist and do what we expect, and there is a fallback if they are gone."""

import ast
import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import alexnet.ops
from alexnet import _compat
from alexnet.ops import reference
from alexnet.training import SGD

ROOT = Path(__file__).resolve().parents[1]
BACKEND = keras.backend.backend()
only = {name: pytest.mark.skipif(name != BACKEND, reason=f"of {name}") for name in ("tensorflow", "jax", "torch")}
to_numpy = ops.convert_to_numpy


# --- Keras


def test_variables_are_up_to_date_in_the_midst_of_an_epoch():
    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model = self._model  # `self.model` would do on JAX what is tested here
            _compat.sync_variables(model)
            seen.append(float(to_numpy(model.trainable_variables[0])[0, 0]))

    seen, pixels = [], keras.Input((1,))
    model = keras.Model(pixels, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(pixels))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, shuffle=False, callbacks=[Watch()], verbose=0)
    np.testing.assert_allclose(seen, [1, 1, 1])
    _compat.sync_variables(types.SimpleNamespace())  # where there is no such method


def test_the_place_of_a_variable():
    variables = [keras.Variable(np.zeros(n)) for n in (1, 2, 3)]
    optimizer = SGD()
    optimizer.build(variables)
    assert [_compat.variable_index(optimizer, each) for each in variables] == [0, 1, 2]
    with pytest.raises(NotImplementedError, match="This version of Keras has no Optimizer._get_variable_index"):
        _compat.variable_index(object(), variables[0])


@pytest.mark.once
def test_keras_looks_again_for_a_package(monkeypatch):
    from keras.src.utils import module_utils

    lazy = module_utils.LazyModule("colorsys")
    monkeypatch.setattr(module_utils, "colorsys", lazy, raising=False)
    lazy._available = False
    _compat.forget_absence("colorsys")
    assert lazy._available is None and lazy.available
    _compat.forget_absence("colorsys")
    assert lazy._available is True  # a module that was found stays available
    _compat.forget_absence("no_such_package")


# --- TensorFlow


@only["tensorflow"]
def test_tensorflow_says_whether_a_tensor_has_tangents(monkeypatch):
    import tensorflow as tf

    has_tangents, x = _compat.tensorflow_has_tangents(), tf.ones(3)
    assert not has_tangents(x)
    with tf.autodiff.ForwardAccumulator(x, x):
        assert has_tangents(x) and not has_tangents(tf.ones(3))
    monkeypatch.setitem(sys.modules, "tensorflow.python.eager.forwardprop_util", None)
    assert _compat.tensorflow_has_tangents()(x)


# --- JAX


@only["jax"]
def test_without_primitives_the_gradients_are_the_same(monkeypatch):
    import jax
    import jax.numpy as jnp

    from alexnet.ops import jax_ops

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, 30, (2, 7, 7, 8)).astype("float32"))
    kernel = jnp.asarray(rng.normal(0, 1, (8, 3)).astype("float32"))
    functions = [
        lambda x: jax_ops.local_response_normalization(x, -1, 2, 2.0, 1e-4, 0.75),
        lambda x: jax_ops.max_pooling(x, 3, 2),
        lambda x: jax_ops.dense(x.reshape(-1, 8), kernel, jnp.ones(3)),
    ]

    def measure():
        return [jax.value_and_grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in functions]

    expected = measure()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jax.extend.core", None)
        assert _compat.jax_primitives() is None
    assert _compat.jax_primitives() is not None
    monkeypatch.setattr(jax_ops, "_JAX", None)
    for ours, theirs in zip(measure(), expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@only["jax"]
def test_flags_of_xla_are_left_alone_in_other_versions(monkeypatch):
    import jax
    import jaxlib

    def devices():
        seen.append(os.environ.get("XLA_FLAGS"))

    seen, flag = [], "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    monkeypatch.setattr(jax, "devices", devices)
    for version, given, expected in (
        ("0.10.2", None, flag),
        ("0.10.2", "--xla_a=1", f"--xla_a=1 {flag}"),
        ("0.10.2", flag, None),
        ("0.11.0", None, None),
    ):
        monkeypatch.setattr(jaxlib, "__version__", version)
        monkeypatch.delenv("XLA_FLAGS", raising=False)
        if given is not None:
            monkeypatch.setenv("XLA_FLAGS", given)
        seen.clear()
        _compat.choose_xla_fusions()
        assert os.environ.get("XLA_FLAGS") == given
        assert seen == [] if expected is None else seen[0].startswith(expected)


@only["jax"]
def test_which_versions_of_xla_multiply_by_old_values(monkeypatch):
    import jaxlib

    versions = ["0.6.0", "0.7.0", "0.7.1", "0.7.2", "0.8.0", "0.8.1", "0.9.0", "0.10.2", "0.11.0.dev20260901"]
    found = []
    for version in versions:
        monkeypatch.setattr(jaxlib, "__version__", version)
        found += [version] * _compat.xla_keeps_matrices()
    assert found == ["0.7.1", "0.7.2", "0.8.0", "0.8.1"]


@only["jax"]
def test_which_library_computes_convolutions():
    program = types.SimpleNamespace(as_text=lambda: "fusion(), kind=kCustom, ynn_fusion")
    assert _compat.uses_ynnpack(program) and not _compat.uses_ynnpack(types.SimpleNamespace(as_text=lambda: "dot()"))
    assert alexnet.ops.convolution_library() in ("YNNPACK", "Eigen")


# --- PyTorch


@only["torch"]
def test_torch_says_that_it_transforms(monkeypatch):
    import torch

    found, x = [], torch.ones(3)
    is_transformed = _compat.torch_is_transformed()

    def f(x):
        found.append(is_transformed([x]))
        return (x * x).sum()

    f(x.clone().requires_grad_()).backward()
    with torch.no_grad():
        f(x)
    assert found == [False, False]
    torch.func.grad(f)(x)
    torch.func.vmap(f)(x[None])
    with torch.autograd.forward_ad.dual_level():
        f(torch.autograd.forward_ad.make_dual(x, x))
    torch.autograd.functional.jacobian(f, x, vectorize=True, strategy="forward-mode")
    assert all(found[2:]) and len(found) == 6
    for name in ("_are_functorch_transforms_active", "_len_torch_dispatch_stack"):
        with monkeypatch.context() as patch:
            patch.delattr(torch._C, name)
            assert _compat.torch_is_transformed()([x])


@only["torch"]
def test_without_private_functions_torch_computes_the_same(monkeypatch):
    import torch

    from alexnet.ops import torch_ops

    def measure():
        torch.manual_seed(0)
        x, kernel = torch.randn(4, 8, requires_grad=True), torch.randn(8, 8)
        y = torch_ops.local_response_normalization(torch_ops.dense(x, kernel), -1, 2, 2.0, 1e-4, 0.75)
        y.square().sum().backward()
        variable, velocity = (keras.Variable(np.full(3, n), dtype="float32") for n in (1, 0.5))
        torch_ops.momentum_step(variable, velocity, torch.ones(3), torch.tensor(0.1), 0.9, 0.1)
        return [each.detach().numpy() for each in (y, x.grad, variable.value, velocity.value)]

    expected = measure()
    with monkeypatch.context() as patch:
        patch.delattr(torch, "_fused_sgd_")
        assert _compat.torch_fused_sgd() is None
    monkeypatch.setattr(torch_ops, "_is_transformed", lambda tensors: True)
    monkeypatch.setattr(torch_ops, "_fused_sgd", None)
    called = []
    monkeypatch.setattr(reference, "momentum_step", lambda *a, f=reference.momentum_step: (called.append(1), f(*a)))
    for ours, theirs in zip(measure(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert called


# --- glibc and Pillow


@pytest.mark.once
def test_malloc_is_set_where_it_can_be(monkeypatch):
    calls = []
    glibc = types.SimpleNamespace(mallopt=lambda *values: calls.append(values), malloc_trim=calls.append)
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(_compat, "_GLIBC", glibc)
    _compat.keep_freed_memory(True)
    assert calls == [(-4, 0), (-1, 2**31 - 1), (-8, 1)]  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
    calls.clear()
    _compat.keep_freed_memory(False)
    assert calls == [(-4, 65536), (-1, 131072), (-8, 0)]
    calls.clear()
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    _compat.keep_freed_memory(True)
    assert calls == []
    _compat.trim_memory()
    assert calls == [0]
    monkeypatch.setattr(_compat, "_GLIBC", None)
    _compat.keep_freed_memory(True)
    _compat.trim_memory()


@pytest.mark.once
def test_pillow_tells_of_avif(monkeypatch):
    from PIL import features

    assert _compat.pillow_reads_avif() == features.check("avif")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL._avif", raising=False)
    assert not _compat.pillow_reads_avif()


# --- The house


def foreign_privates(path):
    """Private names and modules of other libraries that a file uses."""
    tree, foreign = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}".strip(".")
                if whole.startswith(("alexnet", "benchmarks")):
                    continue
                foreign.add(alias.asname or alias.name.partition(".")[0])
                private = any(part.startswith("_") for part in whole.split(".") if not part.startswith("__"))
                if private or whole.startswith(("keras.src", "tensorflow.python", "jax.interpreters", "jax.extend")):
                    yield whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in foreign:
                yield ast.unparse(node)


@pytest.mark.once
def test_nothing_private_of_others_stands_elsewhere(tmp_path):
    files = [path for path in (ROOT / "alexnet").rglob("*.py") if path.name != "_compat.py"]
    assert not {path.name: found for path in files if (found := list(foreign_privates(path)))}
    for path in files:
        text = path.read_text()
        words = ("mallopt", "malloc_trim", 'XLA_FLAGS"]', "_get_variable_index", "_jax_state", "PIL._")
        assert not any(word in text for word in words), path
    example = tmp_path / "x.py"
    example.write_text("import torch\nfrom keras.src import ops\nimport os._exit\ntorch._C._x()\nself._own\n")
    assert list(foreign_privates(example)) == ["keras.src.ops", "os._exit", "torch._C._x", "torch._C"]


@pytest.mark.once
def test_it_imports_nothing_heavy():
    program = "import sys, alexnet._compat; assert not {'numpy', 'keras', 'jax', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)
