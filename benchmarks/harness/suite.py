"""Our network beside hand-written ones in each framework: speed, memory, and the time until the first step.

Keras does not run in this process until everything is measured.
"""

import contextlib
import importlib.metadata
import math
import statistics

from alexnet.progress import progress
from alexnet.recipe import BACKENDS
from benchmarks.harness.candidates import (
    NETWORKS,
    NORMALIZATIONS,
    BenchmarkError,
    Candidate,
    normalization_shape,
    require_backends,
)
from benchmarks.harness.comparison import ratios, run_interleaved
from benchmarks.harness.targets import check_targets

SMALL_BATCH = 1
TRAINING_SECONDS = 3.0  # the length of a turn
# One size is varied at a time; the other two are those of the comparisons.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
IMAGE_SIZES = (67, 99, 131, 163, 195, 227, 256)
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.5)
LONGEST_STEP = 20.0  # seconds; a series of sizes ends there
REPETITIONS = 3


def run(
    backends=BACKENDS, rounds=10, batch_size=32, image_size=227, width=1.0, scaling=False, report=None, verbose=None
):
    """Measure everything.

    The candidates of one framework take turns in one comparison, and our networks on all backends in another. All
    candidates at once would need some thirty gigabytes.

    Args:
        backends: The frameworks to measure.
        rounds: Turns of each candidate.
        batch_size: Images in a training step, and in the larger batch of inference.
        image_size: Pixels a side.
        width: Factor of the number of filters and hidden units.
        scaling: Whether to measure how the cost grows with each of these sizes, too.
        report: Called with the name and the value of each part of the record as soon as it is measured: `"left_out"`,
            `"comparison"`, `"startup"`, `"scaling"`.
        verbose: See `alexnet.progress.progress`.

    Returns:
        What `bench.json` holds: `settings`, `startup`, `comparisons`, `left_out`, `scaling`, `targets`, `hardware`,
        `versions`. All times are in seconds, memory in bytes.

    Raises:
        BenchmarkError: a backend is missing, or our own network failed.
    """
    require_backends(backends)
    settings = {"rounds": rounds, "batch_size": batch_size, "image_size": image_size, "width": width}
    record = {"settings": {"backends": list(backends), **settings}, "startup": [], "comparisons": [], "left_out": {}}
    sizes = {"batch_size": batch_size, "image_size": image_size, "width": width}
    suite = Suite(record, rounds, sizes, report or (lambda part, value: None), verbose)
    for backend in backends:
        suite.networks(backend, {name: (backend, name) for name in NETWORKS[backend]})
    if len(backends) > 1:
        suite.networks("backends", {backend: (backend, "ours") for backend in backends})
    suite.normalization(backends)
    if scaling:
        record["scaling"] = suite.scaling(backends)
    record["targets"] = check_targets(record)

    from alexnet.runtime import import_keras

    import_keras(backends[0])
    from alexnet.training import hardware, versions

    record["versions"] = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record["versions"]["optax"] = importlib.metadata.version("optax")
    record["hardware"] = hardware()
    return record


class Suite:
    """The parts of one measurement, and what they share."""

    def __init__(self, record, rounds, sizes, report, verbose):
        self.record = record
        self.rounds = rounds
        self.sizes = sizes
        self.report = report
        self.verbose = verbose

    def networks(self, group, wanted):
        """Measure training, and inference with one image and with a batch. `wanted` is `{title: (backend, name)}`."""
        with contextlib.ExitStack() as stack:
            candidates, startup = {}, {}
            for name, which in progress(wanted.items(), len(wanted), f"starting {', '.join(wanted)}", self.verbose):
                found = self._start(stack, name, *which, "network", **self.sizes)
                if found is not None:
                    candidates[name], startup[name] = found
            batch_size = self.sizes["batch_size"]
            last = self._comparison(group, "training", batch_size, candidates, {"do": "train"}, TRAINING_SECONDS)
            for name, answer in last.items() if group != "backends" else ():
                if not math.isfinite(answer["loss"]):
                    raise BenchmarkError(f"{group} {name} diverged to a loss of {answer['loss']}.")
                # The peak memory of training, since there was no inference yet.
                peak = {"memory_bytes": answer["memory"], "loss": answer["loss"]}
                row = {"backend": group, "candidate": name, **startup[name], **peak}
                self.record["startup"].append(row)
            if group != "backends":
                self.report("startup", [row for row in self.record["startup"] if row["backend"] == group])
            for count in sorted({SMALL_BATCH, batch_size}):
                self._comparison(group, "inference", count, candidates, {"do": "predict", "batch_size": count})

    def normalization(self, backends):
        """Measure LRN alone, after the first layer: the normalized activations and the gradient."""
        shape = normalization_shape(**self.sizes)
        with contextlib.ExitStack() as stack:
            candidates = {}
            for backend in backends:
                for own_name in NORMALIZATIONS[backend]:
                    name = f"{backend} {own_name}"
                    found = self._start(stack, name, backend, own_name, "normalization", shape=shape)
                    if found is not None:
                        candidates[name], _ = found
            self._comparison("all", "normalization", shape[0], candidates, {"do": "normalize"})

    def _start(self, stack, name, backend, own_name, do, **arguments):
        """`(candidate, seconds)` after its first step; None for a baseline that cannot run here."""
        try:
            candidate = stack.enter_context(contextlib.closing(Candidate(backend, own_name)))
            found = candidate.request(do, **arguments)
        except BenchmarkError as error:
            if own_name.startswith("ours"):
                raise
            self.record["left_out"][f"{backend} {own_name}"] = str(error)
            self.report("left_out", str(error))
            return None
        seconds = {key: found[key] for key in ("build_seconds", "first_step_seconds") if key in found}
        return candidate, {"import_seconds": candidate.import_seconds, **seconds}

    def _comparison(self, group, work, batch_size, candidates, command, seconds=1.0):
        """Make a comparison and record it; returns the last answer of each candidate."""
        times, last = run_interleaved(candidates, command, self.rounds, seconds, self.verbose)
        against = ratios(times) if "ours" in times else {}
        comparison = {"group": group, "work": work, "batch_size": batch_size, "seconds": times, "ratios": against}
        self.record["comparisons"].append(comparison)
        self.report("comparison", comparison)
        return last

    def scaling(self, backends):
        """Measure our network in other sizes, each in a fresh process: a dictionary of medians for each size."""
        rows = []
        for backend in backends:
            measured = {}
            for size, values in (("batch_size", BATCH_SIZES), ("image_size", IMAGE_SIZES), ("width", WIDTHS)):
                for value in values:
                    sizes = {**self.sizes, size: value}
                    key = tuple(sizes.values())
                    if key not in measured:
                        measured[key] = {"backend": backend, **sizes, **_cost(backend, sizes)}
                        self.report("scaling", measured[key])
                    if measured[key]["training_seconds"] > LONGEST_STEP:
                        break
            rows += measured.values()
        return rows


def _cost(backend, sizes):
    """The cost of one size: seconds of a training step, of inference and of the first step; peak memory in bytes."""
    with contextlib.closing(Candidate(backend, "ours")) as candidate:
        first = candidate.request("network", **sizes)["first_step_seconds"]
        candidate.request("train", count=1)  # JAX may compile a second time
        found = [candidate.request("train", count=1) for _ in range(REPETITIONS)]
        training, memory = statistics.median(answer["seconds"] for answer in found), found[-1]["memory"]
        work = {"batch_size": sizes["batch_size"], "count": 1}
        candidate.request("predict", **work)
        inference = statistics.median(candidate.request("predict", **work)["seconds"] for _ in range(REPETITIONS))
    return {
        "training_seconds": training,
        "inference_seconds": inference,
        "first_step_seconds": first,
        "memory_bytes": memory,
    }
