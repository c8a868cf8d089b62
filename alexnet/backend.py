"""The start of Keras on one of its backends, which is decided once and before the first `import keras`."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import threading

from alexnet.recipe import BACKENDS, nearest


class BackendError(ValueError):
    """A backend that cannot be had, in one sentence."""


def import_keras(backend=None):
    """Keras on `backend`, which may be `"tensorflow"`, `"jax"` or `"torch"`; None keeps what `KERAS_BACKEND` says.

    Raises:
        BackendError: an unknown backend, one that is not installed, or Keras already runs on another one; or Keras does
            not start with what its `keras.json` says.
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
            raise BackendError(f"backend: {wanted} is not installed here. Install it with: pip install {wanted}")
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


@contextlib.contextmanager
def _quiet_tensorflow():
    """Keep TensorFlow's remarks about CPU instructions and absent GPUs off the screen; they go out before any
    setting can stop them. What was written is shown after all when the import fails, unless the package is absent."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        screen = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        except ModuleNotFoundError:
            raise
        except BaseException:
            os.dup2(screen, 2)
            written.seek(0)
            os.write(2, written.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


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
