"""Our network beside hand-written ones in each framework alone: speed, memory, and the time until the first step.

The peers are in `benchmarks/peers` of the project's folder. Keras does not run in this process until all is measured.
"""

import contextlib
import importlib.metadata
import math
import statistics

from alexnet.benchmark.contenders import (
    NETWORKS,
    NORMALIZATIONS,
    BenchmarkError,
    Contender,
    normalization_shape,
    require_peers,
)
from alexnet.benchmark.contest import hold, ratios
from alexnet.benchmark.targets import judge
from alexnet.progress import progress
from alexnet.recipe import BACKENDS

__all__ = ["BenchmarkError", "Contender", "judge", "require_peers", "run"]

SMALL_BATCH = 1
TRAINING_SECONDS = 3.0  # a turn's
# Of the growth with one size, the other two as in the contests.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
IMAGE_SIZES = (67, 99, 131, 163, 195, 227, 256)
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.5)
LONGEST_STEP = 20.0  # seconds; a series of growing sizes ends there
REPETITIONS = 3


def run(
    backends=BACKENDS, rounds=10, batch_size=32, image_size=227, width=1.0, growth=False, report=None, verbose=None
):
    """Measure everything.

    The contenders of one framework alternate in one contest, and so do our networks on all backends: all contenders
    at once would need some thirty gigabytes.

    Args:
        backends: Which frameworks.
        rounds: Turns of each contender.
        batch_size: Images in a training step, and in the larger batch of inference.
        image_size: Pixels a side.
        width: Factor of the number of filters and hidden units.
        growth: Whether to measure how the cost grows with each of these sizes, too.
        report: Called with the name and the value of each part of the record when it is measured: `"left_out"`,
            `"contest"`, `"starts"`, `"growth"`.
        verbose: As for `alexnet.progress.track`.

    Returns:
        What `bench.json` holds: `settings`, `starts`, `contests`, `left_out`, `growth`, `targets`, `hardware`,
        `versions`. All times are in seconds, memory in bytes.

    Raises:
        BenchmarkError: no peers here, a missing backend, or our own network failed.
    """
    require_peers(backends)
    settings = {"rounds": rounds, "batch_size": batch_size, "image_size": image_size, "width": width}
    record = {"settings": {"backends": list(backends), **settings}, "starts": [], "contests": [], "left_out": {}}
    sizes = {"batch_size": batch_size, "image_size": image_size, "width": width}
    bench = _Bench(record, rounds, sizes, report or (lambda part, value: None), verbose)
    for backend in backends:
        bench.networks(backend, {name: (backend, name) for name in NETWORKS[backend]})
    if len(backends) > 1:
        bench.networks("backends", {backend: (backend, "ours") for backend in backends})
    bench.normalization(backends)
    if growth:
        record["growth"] = bench.growth(backends)
    record["targets"] = judge(record)

    from alexnet.runtime import import_keras

    import_keras(backends[0])
    from alexnet.training import hardware, versions

    record["versions"] = versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record["versions"]["optax"] = importlib.metadata.version("optax")
    record["hardware"] = hardware()
    return record


class _Bench:
    """What the parts of one measurement share."""

    def __init__(self, record, rounds, sizes, report, verbose):
        self.record = record
        self.rounds = rounds
        self.sizes = sizes
        self.report = report
        self.verbose = verbose

    def networks(self, group, wanted):
        """Training, and inference with one image and a whole batch, of `(backend, name)` by contender."""
        with contextlib.ExitStack() as stack:
            contenders, starts = {}, {}
            for name, which in progress(wanted.items(), len(wanted), f"starting {', '.join(wanted)}", self.verbose):
                found = self._start(stack, name, *which, "network", **self.sizes)
                if found is not None:
                    contenders[name], starts[name] = found
            batch_size = self.sizes["batch_size"]
            last = self._contest(group, "training", batch_size, contenders, {"do": "train"}, TRAINING_SECONDS)
            for name, answer in last.items() if group != "backends" else ():
                if not math.isfinite(answer["loss"]):
                    raise BenchmarkError(f"{group} {name} came to a loss of {answer['loss']}: it does not compute.")
                # The most memory in training: no inference was asked for yet.
                peak = {"memory_bytes": answer["memory"], "loss": answer["loss"]}
                row = {"backend": group, "contender": name, **starts[name], **peak}
                self.record["starts"].append(row)
            if group != "backends":
                self.report("starts", [row for row in self.record["starts"] if row["backend"] == group])
            for count in sorted({SMALL_BATCH, batch_size}):
                self._contest(group, "inference", count, contenders, {"do": "predict", "batch_size": count})

    def normalization(self, backends):
        """LRN alone, after the first layer: the normalized activities and the gradient."""
        shape = normalization_shape(**self.sizes)
        with contextlib.ExitStack() as stack:
            contenders = {}
            for backend in backends:
                for own_name in NORMALIZATIONS[backend]:
                    name = f"{backend} {own_name}"
                    found = self._start(stack, name, backend, own_name, "normalization", shape=shape)
                    if found is not None:
                        contenders[name], _ = found
            self._contest("all", "normalization", shape[0], contenders, {"do": "normalize"})

    def _start(self, stack, name, backend, own_name, do, **arguments):
        """A contender after its first step, and what that took; None for a peer that cannot be had here."""
        try:
            contender = stack.enter_context(contextlib.closing(Contender(backend, own_name)))
            found = contender.ask(do, **arguments)
        except BenchmarkError as error:
            if own_name.startswith("ours"):
                raise
            self.record["left_out"][f"{backend} {own_name}"] = str(error)
            self.report("left_out", str(error))
            return None
        seconds = {key: found[key] for key in ("build_seconds", "first_step_seconds") if key in found}
        return contender, {"import_seconds": contender.import_seconds, **seconds}

    def _contest(self, group, work, batch_size, contenders, command, seconds=1.0):
        """Hold a contest and record it; returns the last answer of each contender."""
        times, last = hold(contenders, command, self.rounds, seconds, self.verbose)
        against = ratios(times) if "ours" in times else {}
        contest = {"group": group, "work": work, "batch_size": batch_size, "seconds": times, "ratios": against}
        self.record["contests"].append(contest)
        self.report("contest", contest)
        return last

    def growth(self, backends):
        """Our network alone in other sizes, each in a fresh process: a dictionary for each, medians of a few."""
        rows = []
        for backend in backends:
            measured = {}
            for size, values in (("batch_size", BATCH_SIZES), ("image_size", IMAGE_SIZES), ("width", WIDTHS)):
                for value in values:
                    sizes = {**self.sizes, size: value}
                    key = tuple(sizes.values())
                    if key not in measured:
                        measured[key] = {"backend": backend, **sizes, **_cost(backend, sizes)}
                        self.report("growth", measured[key])
                    if measured[key]["training_seconds"] > LONGEST_STEP:
                        break
            rows += measured.values()
        return rows


def _cost(backend, sizes):
    """Of one size: seconds of a training step, of inference and of the first step, and the most memory in bytes."""
    with contextlib.closing(Contender(backend, "ours")) as contender:
        first = contender.ask("network", **sizes)["first_step_seconds"]
        contender.ask("train", count=1)  # JAX may compile a second time
        found = [contender.ask("train", count=1) for _ in range(REPETITIONS)]
        training, memory = statistics.median(answer["seconds"] for answer in found), found[-1]["memory"]
        work = {"batch_size": sizes["batch_size"], "count": 1}
        contender.ask("predict", **work)
        inference = statistics.median(contender.ask("predict", **work)["seconds"] for _ in range(REPETITIONS))
    return {
        "training_seconds": training,
        "inference_seconds": inference,
        "first_step_seconds": first,
        "memory_bytes": memory,
    }
