"""Comparisons in this process, on its backend, in less than a minute."""

import keras

from benchmarks.harness.candidates import NETWORKS, NORMALIZATIONS, normalization_shape
from benchmarks.harness.comparison import ratios, run_interleaved
from benchmarks.harness.worker import Worker


def measure(batch_size=16, image_size=227, width=1.0, rounds=3, verbose=None):
    """Compare our network with the framework's plainest baseline, and LRN with the framework's own.

    This is less reliable than `benchmarks.harness.suite.run`, where each candidate has a process of its own: here they
    share threads and memory, and memory that one frees is kept for the other, too.

    Args:
        batch_size, image_size, width, rounds, verbose: As for `benchmarks.harness.suite.run`.

    Returns:
        `settings` and `comparisons` of a record as `benchmarks.harness.suite.run` returns it.
    """
    backend = keras.backend.backend()
    sizes = {"batch_size": batch_size, "image_size": image_size, "width": width}
    record = {"settings": {"backends": [backend], "rounds": rounds, **sizes}, "comparisons": []}

    def compare(group, work, candidates, **command):
        times, _ = run_interleaved(candidates, command, rounds, seconds=0.5, verbose=verbose)
        against = ratios(times) if "ours" in times else {}
        values = {"group": group, "work": work, "batch_size": batch_size, "seconds": times, "ratios": against}
        record["comparisons"].append(values)

    networks = {}
    for name in ("ours", NETWORKS[backend][2]):  # plain Keras, the second one, is left out
        networks[name] = Worker(backend, name)
        networks[name].request("network", **sizes)
    compare(backend, "training", networks, do="train")
    compare(backend, "inference", networks, do="predict", batch_size=batch_size)
    networks.clear()
    layers = {f"{backend} {name}": Worker(backend, name) for name in NORMALIZATIONS[backend]}
    for layer in layers.values():
        layer.request("normalization", shape=normalization_shape(**sizes))
    compare("all", "normalization", layers, do="normalize")
    return record
