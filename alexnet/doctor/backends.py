"""What each backend sees and computes, each in processes of its own, because one process has one backend."""

import math
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from alexnet.doctor.installed import installed_version
from alexnet.doctor.processes import Answer, ask
from alexnet.doctor.report import Check
from alexnet.doctor.worker import REPLICAS, STEPS, is_cpu
from alexnet.launching import count_gpus
from alexnet.packages import install
from alexnet.recipe import BACKENDS

TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
LOSS_BOUND = 1e-5  # between one device and replicas, as in the tests of `distribute: data`
ON_GPU = 10  # factor of all bounds: a GPU adds in an order of its own
GPU_BUILDS = {
    "tensorflow": "pip install 'tensorflow[and-cuda]'",
    "jax": "pip install 'jax[cuda13]', or 'jax[cuda12]' where NVIDIA's driver is older than 580",
    "torch": "pip install --force-reinstall torch, without an index of CPU builds",
}
NO_GPU = (
    "{title} sees no GPU although this machine has {gpus}: install a build for it with {how} (in a clone: make run "
    "GPU=1). To compute on the CPU on purpose, set CUDA_VISIBLE_DEVICES=''."
)
DEVICES, STEP, STEP_ON_GPU, REPLICAS_EQUAL = "devices", "training step", "step on its GPU", "replicas"


def examine_backends(asked: Sequence[str], folder: Path, timeout: float) -> Iterator[Check]:
    """For each backend its devices, a training step beside other backends', and training on several devices.

    Args:
        asked: Backends that must be there; empty for those that are installed.
        folder: For what the processes leave.
        timeout: Seconds that each process may take.
    """
    backends = [name for name in BACKENDS if name in (asked or BACKENDS)]
    if find_spec("keras") is None:
        for name in backends:
            yield Check(TITLES[name], DEVICES, "not tried", "Keras is not installed")
        return
    present = [name for name in backends if find_spec(name) is not None]
    for name in backends:
        if name not in present:
            yield _absent(name, bool(asked))
    if not present:
        sentence = f"none of {', '.join(backends)}, and Keras needs one"
        yield Check("backends", "installed", "problem", sentence, install("jax"))
    looked = {}
    for name in present:
        looked[name] = _Look(name, folder, timeout, alone=len(present) == 1)
        yield looked[name].devices_check()
    for look in looked.values():
        yield look.step_check([other for other in looked.values() if other is not look])
        if look.on_gpu:
            yield look.gpu_check()
        yield _replicas(look, folder, timeout)


def _absent(name, asked):
    if asked:
        return Check(TITLES[name], DEVICES, "problem", "not installed, and --backends asks for it", install(name))
    return Check(TITLES[name], DEVICES, "not tried", f"not installed. {install(name)}")


class _Look:
    """What a backend's own processes have found."""

    def __init__(self, name: str, folder: Path, timeout: float, alone: bool):
        self.name, self.title, self.folder, self.timeout = name, TITLES[name], folder, timeout
        self.first = self._ask(plain=alone)
        self.devices = self.first.read(f"{name}-devices")
        self.on_gpu = self.devices is not None and not is_cpu(self.devices)
        self.on_cpu = self._ask(plain=alone, on_cpu=True) if self.on_gpu else self.first

    def _ask(self, plain: bool, on_cpu: bool = False) -> Answer:
        arguments = [self.name, *(["plain"] if plain else [])]
        return ask("look", *arguments, folder=self.folder, timeout=self.timeout, backend=self.name, on_cpu=on_cpu)

    def devices_check(self) -> Check:
        if self.devices is None:
            advice = f"See the whole message: KERAS_BACKEND={self.name} python -c 'import keras'"
            return Check(self.title, DEVICES, "problem", f"its process {self.first.failure}", advice)
        values = {"version": installed_version(self.name), "devices": self.devices}
        found = f"{values['version']} computes on {', '.join(self.devices)}"
        gpus = count_gpus()
        if gpus and not self.on_gpu:
            advice = NO_GPU.format(title=self.title, gpus=f"{gpus} GPU{'s' * (gpus > 1)}", how=GPU_BUILDS[self.name])
            return Check(self.title, DEVICES, "problem", found, advice, values)
        return Check(self.title, DEVICES, "ok", found, values=values)

    def step_check(self, others: Sequence["_Look"]) -> Check:
        """Its step on a CPU beside that of the backend that it is nearest to, so that of three the odd one is named;
        of one alone beside the plain form of its operations."""
        if self.on_cpu.failure:
            return self._failed(STEP, self.on_cpu)
        pairs = [(other.title, *self._difference(other.name)) for other in others if not other.on_cpu.failure]
        if not pairs:
            if self.first.read(f"{self.name}-plain") is None:  # there were others, and they failed
                self.on_cpu = self._ask(plain=True, on_cpu=self.on_gpu)
                if self.on_cpu.failure:
                    return self._failed(STEP, self.on_cpu)
            pairs = [("the plain form of its operations", *self._difference(f"{self.name}-plain"))]
        return self._compared(STEP, *min(pairs, key=lambda pair: _excess(*pair[1:])))

    def gpu_check(self) -> Check:
        for answer in (self.first, self.on_cpu):
            if answer.failure:
                return self._failed(STEP_ON_GPU, answer)
        difference, bounds = self._difference(f"{self.name}-gpu")
        bounds = {name: ON_GPU * bound for name, bound in bounds.items()}
        return self._compared(STEP_ON_GPU, "its own on the CPU", difference, bounds)

    def _difference(self, other: str) -> tuple[dict[str, float], dict[str, float]]:
        """The difference from another measurement and its bounds, as whichever of the two came later recorded it."""
        for later, earlier in ((self.name, other), (other, self.name)):
            record = self.first.read(later) or {"differences": {}}
            if earlier in record["differences"]:
                return record["differences"][earlier], record["bounds"]
        raise LookupError(f"{self.name} was not compared with {other}")

    def _failed(self, name: str, answer: Answer) -> Check:
        if self.devices is None:
            return Check(self.title, name, "not tried", "the backend does not start")
        return Check(self.title, name, "problem", f"its process {answer.failure}", _REPORT_IT)

    def _compared(self, name: str, against: str, difference: dict[str, float], bounds: dict[str, float]) -> Check:
        shown = ", ".join(f"{_SHOWN[key]} {value:.1e}" for key, value in difference.items())
        found = f"relative difference from {against}: {shown}"
        values = {"against": against, "difference": difference, "bounds": bounds}
        if _excess(difference, bounds) <= 1:
            return Check(self.title, name, "ok", found, values=values)
        allowed = ", ".join(f"{_SHOWN[key]} {bound:.0e}" for key, bound in bounds.items())
        advice = f"{self.title} computes something else here; allowed: {allowed}. {_REPORT_IT}"
        return Check(self.title, name, "problem", found, advice, values)


_SHOWN = {"logits": "logits", "gradients": "gradients", "training": "losses of five steps"}
_REPORT_IT = (
    "Install the versions of requirements.txt; if it stays, report it with the output of `python -m alexnet doctor "
    "--json`."
)


def _excess(difference, bounds):
    """The largest part of its bound that a difference has."""
    return max(_or_infinity(value / bounds[key]) for key, value in difference.items())


def _or_infinity(value):
    return math.inf if math.isnan(value) else value


def _replicas(look: _Look, folder: Path, timeout: float) -> Check:
    """A few steps of `distribute: data` beside one device's."""
    if look.devices is None:
        return Check(look.title, REPLICAS_EQUAL, "not tried", "the backend does not start")
    on_cpu = not (look.on_gpu and len(look.devices) >= REPLICAS)
    more = {}
    if not on_cpu:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0,1"
        more["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[:REPLICAS])
    arguments = ["divided"] if on_cpu else []
    answer = ask("train_replicas", *arguments, folder=folder, timeout=timeout, backend=look.name, on_cpu=on_cpu, **more)
    found = None if answer.failure else answer.read("replicas")
    (folder / "replicas.json").unlink(missing_ok=True)
    if found is None:
        how = answer.failure or "ended without a result"
        return Check(look.title, REPLICAS_EQUAL, "problem", f"training on two devices {how}", _REPORT_IT)
    return judge_replicas(look.title, found)


def judge_replicas(title: str, found: dict) -> Check:
    """Whether replicas had the losses of one device, and are equal.

    Args:
        title: Of the backend.
        found: What `worker.train_replicas` writes.
    """
    pairs = zip(found["alone"], found["together"], strict=False)
    # NaN, and nothing to compare, is as far apart as can be.
    apart = max((_or_infinity(abs(one - other) / abs(one)) for one, other in pairs), default=math.inf)
    different = sum(digest != found["digests"][0] for digest in found["digests"])
    bound = LOSS_BOUND * (1 if found["on_cpu"] else ON_GPU)
    where = "on the CPU" if found["on_cpu"] else "on GPUs"
    what = f"{found['devices']} replicas {where}, {STEPS} steps: losses differ from one device's by {apart:.1e}, "
    what += f"{different} of {len(found['digests'])} differ from the first" if different else "weights are equal"
    complete = len(found["alone"]) == len(found["together"]) == STEPS
    complete = complete and len(found["digests"]) == found["devices"] >= REPLICAS
    values = {**found, "difference": apart, "bound": bound}
    if complete and not different and apart <= bound:
        return Check(title, REPLICAS_EQUAL, "ok", what, values=values)
    advice = f"Do not train with distribute: data here; losses may differ by {bound:.0e}. {_REPORT_IT}"
    return Check(title, REPLICAS_EQUAL, "problem", what, advice, values)
