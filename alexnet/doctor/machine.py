"""What this machine has, beside what a run needs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import alexnet.mounts as mounts
from alexnet.doctor.report import Check
from alexnet.launching import count_gpus
from alexnet.runtime import cores
from alexnet.units import format_size

GROUP = "machine"
# Bytes that the default run and the paper's run (params/paper.yaml) need.
# Memory: the most that any backend took; docs/measurements.md, "Training", and benchmarks/results/bench.json, the full
# network in batches of 128.
MEMORY = {"default": 1_140_000_000, "paper": 2_889_000_000}
# Disk: two saved states and a third while it is written, each with weights and momentum, and the model; four bytes for
# each of 1,279,082 and 60,965,224 parameters.
DISK = {"default": 4 * 7 * 1_279_082, "paper": 4 * 7 * 60_965_224}
SHAPES = 22_000_000  # the built-in images, beside the runs
IMAGENET = 262_000_000_000  # packed; docs/training.md
SHARED_MEMORY = 1_000_000_000  # what NCCL is commonly given in a container; Docker's own default is 64 MB


def examine_machine(run_dir: Path) -> Iterator[Check]:
    """Disk, memory, cores and shared memory; on Kaggle what is attached."""
    yield _disk(run_dir)
    yield _memory()
    count = cores()
    yield Check(GROUP, "cores", "ok", f"{count}; a run uses all of them", values={"cores": count})
    yield _shared_memory(Path("/dev/shm"))
    if mounts.on_kaggle():
        attached = sorted(map(str, mounts.mounts()))
        found = f"attached: {', '.join(attached) or 'nothing'}"
        yield Check(GROUP, "Kaggle", "ok", found, values={"attached": attached})
    elif "COLAB_RELEASE_TAG" in os.environ:
        yield Check(GROUP, "Colab", "ok", "a session of Colab: what is not on a drive ends with it")


def _disk(run_dir):
    there = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(GROUP, "disk", "problem", f"{run_dir} cannot be read ({error.strerror}).")
    need = DISK["default"] + SHAPES
    found = f"{format_size(free)} free for {run_dir}; the default run needs {format_size(need)} with its images, "
    found += f"the paper's {format_size(DISK['paper'])} and, packed, {format_size(IMAGENET)} for ImageNet"
    values = {"free": free, "default": need, "paper": DISK["paper"], "imagenet": IMAGENET, "run_dir": str(run_dir)}
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = f"Nothing can be written into {there}; name another folder with --run_dir."
        return Check(GROUP, "disk", "problem", found, advice, values)
    if free < need:
        advice = "There is no room for a run. Free some, or name a folder on another disk with --run_dir."
        return Check(GROUP, "disk", "problem", found, advice, values)
    return Check(GROUP, "disk", "ok", found, values=values)


def _memory():
    try:
        import psutil
    except ModuleNotFoundError:
        return Check(GROUP, "memory", "not tried", "psutil is not installed")
    available = min(psutil.virtual_memory().available, *_limits())
    found = f"{format_size(available)} available; the default run takes {format_size(MEMORY['default'])} on a CPU, the "
    found += f"paper's {format_size(MEMORY['paper'])}"
    values = {"available": available, **MEMORY}
    if available < MEMORY["default"]:
        advice = "There is too little memory for a run. End other programs, or lower batch_size and width."
        return Check(GROUP, "memory", "problem", found, advice, values)
    return Check(GROUP, "memory", "ok", found, values=values)


def _limits():
    """What a container's limit leaves, if there is one."""
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            yield int((group / limit).read_text()) - int((group / used).read_text())
        except (OSError, ValueError):  # not there, or `max`
            continue


def _shared_memory(folder):
    gpus = count_gpus()
    why = "only several GPUs need it, by NCCL; images are read by threads"
    if not folder.is_dir():
        return Check(GROUP, str(folder), "not tried", f"there is none; {why}")
    free = shutil.disk_usage(folder).free
    found, values = f"{format_size(free)} free; {why}", {"free": free, "gpus": gpus}
    if gpus > 1 and free < SHARED_MEMORY:
        advice = f"NCCL may fail with {gpus} GPUs. Give a container {format_size(SHARED_MEMORY)}: --shm-size=1g"
        return Check(GROUP, str(folder), "note", found, advice, values)
    return Check(GROUP, str(folder), "ok", found, values=values)
