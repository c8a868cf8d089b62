"""The environment of a run: libraries, hardware, memory."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import keras

import alexnet
from alexnet.ops import convolution_library
from alexnet.runtime import cores

LIBRARIES: tuple[str, ...] = ("keras", "tensorflow", "jax", "torch", "numpy", "grain", "pillow", "simplejpeg")
LIBRARIES += ("opencv-python-headless", "array-record")


def versions() -> dict[str, str]:
    """Versions of Python and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def print_versions() -> None:
    """Print the versions of alexnet, Keras, its backend, NumPy and Python, and which cores and devices compute.

    A notebook prints them first: whoever gets other numbers looks here.

    Examples:
        >>> alexnet.print_versions()
        alexnet ..., Keras ... on ..., NumPy ..., Python ...; ... cores, ...
    """
    backend = keras.backend.backend()
    found = versions()
    computes = f"{cores()} cores, {', '.join(_devices())}"
    # The package of a backend may bear another name than its module: tensorflow-cpu.
    print(
        f"alexnet {alexnet.__version__}, Keras {found['keras']} on {backend} {sys.modules[backend].__version__}, "
        f"NumPy {found['numpy']}, Python {found['python']}; {computes}"
    )


def hardware() -> dict[str, Any]:
    """The machine of a run: processor, cores, threads, memory in bytes, Keras's devices."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "threads": threads(),
        "convolution_library": convolution_library(),
        "memory_bytes": _memory(),
        "devices": _devices(),
    }


def computed_by(processes: int = 1) -> dict[str, Any]:
    """What the last digits depend on beside the versions: runs that agree in it are equal bit for bit."""
    return {
        "processes": processes,
        "processor": processor(),
        "threads": threads(),
        "devices": _devices(),
        "convolution_library": convolution_library(),
    }


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if "model name" in line:
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _devices():
    """The backend's devices. Keras lists them for JAX and TensorFlow only."""
    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu:0"]
    return list(keras.distribution.list_devices())


def threads() -> int:
    """The number of threads that share the backend's sums on a CPU. With a different number the last digits differ, and
    after some epochs more than those."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.get_num_threads()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.threading.get_intra_op_parallelism_threads() or cores()
    return cores()


def _memory():
    """Memory of the machine in bytes; None if only psutil could tell and it is not installed."""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    psutil = _psutil()
    return psutil and psutil.virtual_memory().total


def memory_in_use() -> int | None:
    """Memory of this process now, in bytes; None if only psutil could tell and it is not installed."""
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    psutil = _psutil()
    return psutil and psutil.Process().memory_info().rss


def peak_memory() -> int | None:
    """Peak memory of this process so far, in bytes; None as for `memory_in_use`."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        psutil = _psutil()
        return psutil and psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _psutil():
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return psutil
