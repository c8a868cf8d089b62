"""What is decided for a whole process: the backend that Keras starts on, and settings that make training faster.

Importing the package changes no settings; the functions here do, when they are called.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading

from alexnet._compat import choose_xla_fusions, forget_absence, keep_freed_memory, quiet_tensorflow, trim_memory
from alexnet.packages import install
from alexnet.recipe import BACKENDS, nearest


class BackendError(ValueError):
    """A backend that is not available; the message is one sentence."""


def import_keras(backend=None):
    """Keras on `backend`, which may be `"tensorflow"`, `"jax"` or `"torch"`; None keeps what `KERAS_BACKEND` says.

    Keras reads its backend from the environment, so this sets `KERAS_BACKEND`, for child processes too. While
    TensorFlow starts, its messages about the machine are hidden; nothing else changes.

    Raises:
        BackendError: an unknown backend, one that is not installed, or Keras already runs on a different one; or Keras
            does not start with the settings in its `keras.json`.

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
        with quiet_tensorflow(), contextlib.nullcontext() if wanted in (None, "jax") else without("jax"):
            return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in BACKENDS:
            raise
        raise BackendError(
            f"backend: Keras would run on {missing}, which is not installed here. Choose a different one "
            f"({', '.join(BACKENDS)}), or set KERAS_BACKEND."
        ) from None
    except Exception as error:
        settings = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
        if not os.path.exists(settings):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BackendError(f"backend: Keras does not start. {reason} Its settings are those of {settings}.") from error


@contextlib.contextmanager
def without(package):
    """Hides `package` from this thread's imports unless it is already imported; other threads may import it meanwhile.

    Keras imports packages that it does not need. It imports JAX on every backend, for compatibility with an older JAX:
    half a second and 130 MB. It imports TensorFlow when it saves a model, to compare a few types: seconds and hundreds
    of megabytes.
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
        forget_absence(package)


class _Absent:
    """An import finder that makes a package absent for one thread."""

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


def cores():
    """How many processor cores this process may use.

    Examples:
        >>> from alexnet.runtime import cores
        >>> cores() > 0
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def group_of_processes(backend):
    """How many processes the environment says that this one works with, in the variables that `torchrun` sets, or those
    that Keras reads for JAX; 1 where it says nothing.

    Examples:
        >>> from alexnet.runtime import group_of_processes
        >>> group_of_processes("torch")
        1
    """
    name = {"torch": "WORLD_SIZE", "jax": "KERAS_DISTRIBUTION_NUM_PROCESSES"}.get(backend, "")
    return int(os.environ.get(name) or 1)


def _join_processes():
    """On JAX processes must meet before anything is computed."""
    import jax

    if group_of_processes("jax") > 1 and not jax.distributed.is_initialized():
        with without("tensorflow"):  # which Keras would import to seed it
            sys.modules["keras"].distribution.initialize()


def divide_processor(devices):
    """Let this process compute on its processor alone, divided into so many virtual devices: to try out what runs on
    several. They share its cores, so nothing gets faster.

    Call it after `import_keras` and before anything is computed. PyTorch has no such devices.

    Raises:
        BackendError: PyTorch; or the backend has computed something already.

    Examples:
        In a new process:

        >>> keras = alexnet.import_keras("jax")  # doctest: +SKIP
        >>> alexnet.divide_processor(2)  # doctest: +SKIP
    """
    backend = import_keras().backend.backend()
    if backend == "torch":
        raise BackendError(
            "PyTorch has one device for the whole processor. Start several processes instead: "
            "python -m alexnet launch -n 2 -- train --backend torch --distribute data"
        )
    try:
        if backend == "jax":
            import jax

            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_num_cpu_devices", devices)
        else:
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")
            (processor,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
    except RuntimeError as error:
        raise BackendError(
            f"{backend} has computed something already, and its devices are chosen: call divide_processor before "
            "anything is built, in a new process or a restarted notebook."
        ) from error


_tuned = False


def tune_process():
    """Set this process up for training on a CPU. The command line and the notebooks call it, and `alexnet.train` while
    it trains; importing the package does not.

    - glibc keeps freed memory for the next step, until `restore_process` (on Linux; a user's own `MALLOC_...` in the
      environment wins).
    - On JAX, if it has computed nothing yet, XLA keeps convolutions and reductions from YNNPACK. That
      cannot be undone; the flag that says so is in the environment only until XLA has read it.

    Examples:
        >>> alexnet.tune_process()
    """
    global _tuned
    _tuned = True
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() == "jax":
        _join_processes()
        choose_xla_fusions()
    keep_freed_memory(True)


def restore_process():
    """Undo what `tune_process` changed: glibc returns freed memory to the system again, including what it has kept.
    Threads that share one heap continue to do so.

    Examples:
        >>> alexnet.tune_process()
        >>> alexnet.restore_process()
    """
    global _tuned
    _tuned = False
    keep_freed_memory(False)
    trim_memory()


@contextlib.contextmanager
def tuned_process():
    """`tune_process` for the duration of the context; no effect in a process that is already tuned."""
    if _tuned:
        yield
        return
    tune_process()
    try:
        yield
    finally:
        restore_process()
