"""What a run ran on: libraries, hardware, memory."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import keras
import psutil

LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "grain", "pillow", "simplejpeg")
LIBRARIES += ("opencv-python-headless", "array-record")


def versions():
    """Of Python and the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def hardware():
    """What the run ran on: processor, cores, memory in bytes, Keras's devices."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "devices": _devices(),
    }


def _devices():
    """What the backend computes on. Keras lists devices for JAX and TensorFlow only."""
    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu:0"]
    return list(keras.distribution.list_devices())


def peak_memory():
    """The most memory that this process has held so far, in bytes."""
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):  # Windows
        return usage.peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
