"""Everything that relies on private parts of other libraries, or on certain versions of them.

Each part says why it is needed and what happens when a library no longer has it. `tests/test_compat.py` tests each.
Each part imports its framework only when it is called, so that importing this file imports none.
"""

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import types

# --- Keras


def sync_variables(model):
    """Bring a model's variables up to date in the middle of an epoch.

    On JAX, Keras keeps the current values elsewhere during an epoch and writes them into the variables at its end. The
    method that its own callbacks call before they save is undocumented. A version without it needs no such call.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def variable_index(optimizer, variable):
    """The index of a variable among those that an optimizer was built with.

    Keras's own optimizers find a variable's momentum by it, and there is no public method. In a version without this
    one, training stops at its first step with a message.
    """
    try:
        return optimizer._get_variable_index(variable)
    except AttributeError as error:
        if hasattr(optimizer, "_get_variable_index"):
            raise
        raise NotImplementedError(
            "This version of Keras has no Optimizer._get_variable_index, by which alexnet finds a variable's momentum. "
            "Install one that requirements.txt names."
        ) from error


def forget_absence(package):
    """Let Keras look again for a package that was hidden from it (`alexnet.runtime.without`).

    Keras remembers in a private attribute of its lazy modules that it did not find it. A version that remembers this
    elsewhere treats the package as absent from then on, which matters to programs that use several backends' packages.
    """
    lazy = getattr(sys.modules.get("keras.src.utils.module_utils"), package, None)
    if getattr(lazy, "_available", None) is False:
        lazy._available = None


# --- TensorFlow

# How a line of TensorFlow's log begins: a letter and a time, in the two forms it has; and what absl says first.
_REMARK = re.compile(rb"[IWEF]\d{4} [\d:.]+ |\d{4}-\d\d-\d\d [\d:.]+: [IWEF] |WARNING: All log messages before absl")
_REMARK_GOES_ON = re.compile(rb"To enable the following instructions: ")


@contextlib.contextmanager
def quiet_tensorflow():
    """Hide TensorFlow's messages about CPU instructions and missing GPUs while it is imported: they are printed before
    any setting can stop them. Everything else is shown, and all of it if the import fails for any reason but absence.

    The messages are recognized by how their lines begin. If a version begins them differently, they appear again."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        yield
        return
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow keeps what it read
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        screen = os.dup(2)
        os.dup2(written.fileno(), 2)
        hidden = True
        try:
            yield
        except ModuleNotFoundError:
            raise
        except BaseException:
            hidden = False
            raise
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            if level is None:
                os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
            written.seek(0)
            for line in written:
                if not hidden or not (_REMARK.match(line) or _REMARK_GOES_ON.match(line)):
                    os.write(2, line)


def tensorflow_has_tangents():
    """A function that tells whether a `tf.autodiff.ForwardAccumulator` watches a tensor.

    `tf.custom_gradient` is wrong under one and cannot detect it. If TensorFlow no longer offers this check, the answer
    is always yes, and the plain operations are used.
    """
    try:
        from tensorflow.python.eager.forwardprop_util import pack_tangents
    except ImportError:
        return lambda tensor: True
    return lambda tensor: bool(pack_tangents([tensor]).tangents)


# --- JAX


def jax_primitives():
    """What custom primitives are made with, or None if JAX no longer has it.

    `jax.custom_vjp`, which is public, forbids forward-mode and second derivatives; a primitive has all of them. Its
    rules are registered in `jax.interpreters`, about which JAX promises nothing. Without them JAX differentiates the
    operation itself: right, and slower.
    """
    try:
        from jax.core import ShapedArray
        from jax.extend.core import Primitive
        from jax.interpreters import ad, batching, mlir

        return types.SimpleNamespace(
            Primitive=Primitive,
            ShapedArray=ShapedArray,
            Zero=ad.Zero,
            instantiate_zeros=ad.instantiate_zeros,
            is_undefined_primal=ad.is_undefined_primal,
            jvps=ad.primitive_jvps,
            transposes=ad.primitive_transposes,
            batchers=batching.primitive_batchers,
            register_lowering=mlir.register_lowering,
            lower_fun=mlir.lower_fun,
        )
    except (ImportError, AttributeError):
        return None


_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"  # the XLA flag that says what YNNPACK computes
_SLOWER = ("INDIVIDUAL_CONVOLUTION", "REDUCE")  # kinds of work that YNNPACK does more slowly than XLA


def choose_xla_fusions():
    """Start XLA with that flag, unless JAX has computed something or the user has set the flag.

    jaxlib 0.10.2 uses YNNPACK wherever it can. Convolutions: the first layer takes four times as long as with Eigen,
    the gradients of the second layer twice as long. Reductions: softmax pulls the fully connected layers and pool5
    into one fusion, with which eight images take five times as long. XLA ends a process that has an unknown flag, so
    other versions are left alone. Once XLA has read the flag, it is removed from the environment, which children
    inherit.
    """
    import jax
    import jaxlib

    given = os.environ.get("XLA_FLAGS")
    if jaxlib.__version__ != "0.10.2" or _FUSIONS in (given or ""):
        return
    without_them = ",".join(f"-LIBRARY_FUSION_TYPE_{name}" for name in _SLOWER)
    os.environ["XLA_FLAGS"] = f"{given or ''} {_FUSIONS}={without_them}".strip()
    try:
        jax.devices()  # XLA reads its flags when the first backend starts
    finally:
        if given is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = given


def uses_ynnpack(program):
    """Whether a program compiled by XLA uses YNNPACK, judged by the names in its text."""
    return "ynn_fusion" in program.as_text()


def xla_keeps_matrices(version=None):
    """Whether XLA may multiply by values that a matrix had before.

    Args:
        version: Of jaxlib; None for the one that is installed.

    On a CPU, jaxlib 0.7.1 to 0.8 give large products to XNNPACK, which packs a matrix that a program receives, and uses
    what it packed again when a matrix lies at the same address: after a step of training, the old weights. Nothing is
    said. Only matrices that the program itself computes are safe; `--xla_cpu_use_xnnpack=false` avoids it too, but
    only before JAX computes anything.
    """
    if version is None:
        import jaxlib

        version = jaxlib.__version__
    return (0, 7, 1) <= tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < (0, 9)


# --- Ray

# The environment in which a cluster that Ray starts listens on loopback alone, as it does on other systems than Linux.
# Ray reads it when it is first imported. Where the name is gone, Ray listens on all addresses; only those who know the
# token of the cluster can use it even then. tests/test_engines.py looks at the addresses.
RAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


# --- PyTorch


def torch_is_transformed():
    """A function that says whether PyTorch currently does more than compute and record first derivatives.

    An `autograd.Function` is missing or wrong in recorded graphs, under `torch.func` and in forward mode. Only
    private functions tell. If one of them is gone, the answer is always yes, and the plain operations are used.
    """
    import torch

    try:
        active, depth = torch._C._are_functorch_transforms_active, torch._C._len_torch_dispatch_stack
        is_batched = torch._C._functorch.is_legacy_batchedtensor
        forward_mode = torch.autograd.forward_ad
        forward_mode._current_level  # noqa: B018
    except AttributeError:
        return lambda tensors: True

    def is_transformed(tensors):
        return active() or depth() or forward_mode._current_level >= 0 or any(map(is_batched, tensors))

    return is_transformed


def torch_fused_sgd():
    """The fused step of `torch.optim.SGD(fused=True)`, or None if PyTorch no longer has it: then the plain step is
    used, which passes five times over the weights."""
    import torch

    return getattr(torch, "_fused_sgd_", None)


# --- glibc

# It returns large blocks to the system at once and requests them again in the next step, page by page and filled with
# zeros. On two CPU cores that took a quarter to a half of a training step. The parameters' numbers are those of
# malloc.h; for each the value that keeps freed memory, and glibc's own.
_MALLOC = {
    "M_MMAP_MAX": (-4, 0, 65536),  # large arrays get no memory mapping of their own
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1, 128 * 1024),  # and free memory at the heap's end is not returned
    "M_ARENA_MAX": (-8, 1, 0),  # one heap for all threads: memory that one frees is available to all
}
_GLIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def keep_freed_memory(keep):
    """Make malloc keep freed memory for later, or return it to the system as it does by default.

    No effect without glibc, or where the user has configured malloc in the environment.
    """
    if hasattr(_GLIBC, "mallopt") and not any(name.startswith("MALLOC_") for name in os.environ):
        for parameter, kept, usual in _MALLOC.values():
            _GLIBC.mallopt(parameter, kept if keep else usual)


def trim_memory():
    """Return free memory to the system, after a training or a large file. Only glibc needs this."""
    if hasattr(_GLIBC, "malloc_trim"):
        _GLIBC.malloc_trim(0)


# --- Pillow


def pillow_reads_avif():
    """Whether Pillow was built with AVIF. Before 11.3 `PIL.features` does not know the name; the module is private."""
    from importlib.util import find_spec

    with contextlib.suppress(ImportError):
        return find_spec("PIL._avif") is not None
    return False
