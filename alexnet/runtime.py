"""What is decided for a whole process: the backend that Keras starts on, and settings that make training faster.

Importing the package changes nothing; what is here does, when it is called.
"""

import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import tempfile
import threading

from alexnet.packages import install
from alexnet.recipe import BACKENDS, nearest


class BackendError(ValueError):
    """A backend that cannot be had, in one sentence."""


def import_keras(backend=None):
    """Keras on `backend`, which may be `"tensorflow"`, `"jax"` or `"torch"`; None keeps what `KERAS_BACKEND` says.

    Keras takes its backend from the environment, so that `KERAS_BACKEND` is set, for child processes too. While
    TensorFlow starts, its remarks about the machine are kept off the screen; nothing else changes.

    Raises:
        BackendError: an unknown backend, one that is not installed, or Keras already runs on another one; or Keras does
            not start with what its `keras.json` says.

    Examples:
        >>> keras = alexnet.import_keras()  # or "torch", "jax", "tensorflow"
        >>> keras.backend.backend() in ("tensorflow", "jax", "torch")
        True
    """
    wanted = backend or os.environ.get("KERAS_BACKEND") or None
    if wanted is not None and wanted not in BACKENDS:
        raise BackendError(f"backend: received {wanted!r}; allowed: {', '.join(BACKENDS)}.{nearest(wanted, BACKENDS)}")
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        if backend and keras.backend.backend() != backend:
            raise BackendError(
                f"backend: Keras already runs on {keras.backend.backend()} in this process and cannot change to "
                f"{backend}. Restart the notebook's kernel, or start a new process."
            )
        return keras
    if wanted is not None:
        if importlib.util.find_spec(wanted) is None:
            raise BackendError(f"backend: {wanted} is not installed here. {install(wanted)}")
        os.environ["KERAS_BACKEND"] = wanted
    try:
        with _quiet_tensorflow(), contextlib.nullcontext() if wanted in (None, "jax") else without("jax"):
            return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in BACKENDS:
            raise
        raise BackendError(
            f"backend: Keras would run on {missing}, which is not installed here. Choose another one "
            f"({', '.join(BACKENDS)}), or set KERAS_BACKEND."
        ) from None
    except Exception as error:
        settings = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
        if not os.path.exists(settings):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendError(f"backend: Keras does not start. {reason} Its settings are those of {settings}.") from error


# How a line of TensorFlow's log begins: a letter and a time, in the two forms it has; and what absl says first.
_REMARK = re.compile(rb"[IWEF]\d{4} [\d:.]+ |\d{4}-\d\d-\d\d [\d:.]+: [IWEF] |WARNING: All log messages before absl")
_REMARK_GOES_ON = re.compile(rb"To enable the following instructions: ")


@contextlib.contextmanager
def _quiet_tensorflow():
    """Keep TensorFlow's remarks about CPU instructions and absent GPUs off the screen while it is imported; they go
    out before any setting can stop them. What else was written is shown, and all of it when the import fails, unless
    the package is absent."""
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


@contextlib.contextmanager
def without(package):
    """Within it this thread takes `package` for absent, unless it is in use; other threads may import it meanwhile.

    Keras imports what it can find, whether it is needed or not: JAX on every backend, for the sake of an older JAX,
    which takes half a second and 130 MB; and TensorFlow when it saves a model, seconds and hundreds of megabytes, to
    compare a few types.
    """
    if package in sys.modules:
        yield
        return
    absent = _Absent(package)
    sys.meta_path.insert(0, absent)
    try:
        yield
    finally:
        sys.meta_path.remove(absent)
        # Keras remembers what it did not find.
        lazy = getattr(sys.modules.get("keras.src.utils.module_utils"), package, None)
        if getattr(lazy, "_available", None) is False:
            lazy._available = None


class _Absent:
    """Finds a package for one thread, and cannot import it."""

    def __init__(self, package):
        self.package = package
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        here = name == self.package and threading.get_ident() == self.thread
        return importlib.machinery.ModuleSpec(name, self) if here else None

    def create_module(self, spec):
        raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name)

    def exec_module(self, module):
        pass


# --- The process

# glibc gives large blocks back to the system at once and gets them anew in the next step, page by page and filled
# with zeros. On two CPU cores that took a quarter to a half of a training step. The parameters' numbers are those of
# malloc.h; for each the value that keeps freed memory, and glibc's own.
_MALLOC = {
    "M_MMAP_MAX": (-4, 0, 65536),  # no block of its own for large arrays
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1, 128 * 1024),  # and no return of free memory at the heap's end
    "M_ARENA_MAX": (-8, 1, 0),  # one heap for all threads: what one frees another can use
}
_GLIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
_tuned = False


def tune_process():
    """Set this process up for training on a CPU. The command line and the notebooks call it, and `alexnet.train` while
    it trains; importing the package does not.

    - glibc keeps freed memory for the next step, until `restore_process` (on Linux; a user's own `MALLOC_...` in the
      environment wins).
    - On JAX, if it has computed nothing yet, XLA leaves convolutions to Eigen. That cannot be taken back; the flag
      that says so is in the environment only until XLA has read it.

    Examples:
        >>> alexnet.tune_process()
    """
    global _tuned
    _tuned = True
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() == "jax":
        _choose_fusions()
    _set_malloc(1)


def restore_process():
    """Take back what `tune_process` has changed: glibc gives freed memory back to the system again, what it has kept
    and what comes. Threads that have begun to share one heap go on doing so.

    Examples:
        >>> alexnet.tune_process()
        >>> alexnet.restore_process()
    """
    global _tuned
    _tuned = False
    _set_malloc(2)
    trim_memory()


def _set_malloc(column):
    """Give malloc the values in a column of `_MALLOC`, unless the user has set his own."""
    if not hasattr(_GLIBC, "mallopt") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    for setting in _MALLOC.values():
        _GLIBC.mallopt(setting[0], setting[column])


@contextlib.contextmanager
def tuned_process():
    """`tune_process` for a while, such as one training; nothing in a process that is already so."""
    if _tuned:
        yield
        return
    tune_process()
    try:
        yield
    finally:
        restore_process()


_FUSIONS = "--xla_cpu_experimental_ynn_fusion_type"
_SLOWER = ("INDIVIDUAL_CONVOLUTION", "REDUCE")  # of its values, than XLA without them


def _choose_fusions():
    """Start XLA with the flag for it, as long as JAX has computed nothing and the user has not set it himself.

    This jaxlib computes with YNNPACK what it can. Convolutions: the first layer takes four times as long as with
    Eigen, the gradients of the second one twice. Reductions: softmax draws the fully connected layers and
    pool5 into one fusion, with which eight images take five times as long. XLA ends a process whose flags it does not
    know, and so other versions are left alone; and the flag is taken out of the environment, which children inherit,
    once XLA has read it.
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


def trim_memory():
    """Give free memory back to the system: after a training, or after a large file."""
    if hasattr(_GLIBC, "malloc_trim"):
        _GLIBC.malloc_trim(0)
