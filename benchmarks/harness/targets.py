"""The package's targets, compared with what was measured."""

from benchmarks.harness.comparison import compare_backends, fastest, ratio

FIRST_STEP_SECONDS = 10.0
NORMALIZATION = [  # ours, the other, how many times as fast ours should be
    ("tensorflow ours", "tensorflow tf.nn.lrn eager", 2.5),
    ("tensorflow ours XLA", "tensorflow tf.nn.lrn XLA", 1.3),
    ("torch ours", "torch LocalResponseNorm", 3.0),
    ("jax ours", "jax shifted sum", 2.0),
]
TRAINING, KERAS_TRAINING, INFERENCE, COMPARE_BACKENDS = 1.15, {"tensorflow": 2.0, "jax": 4.0}, 1.0, 0.85


def check_targets(record):
    """The targets that a record can decide.

    Args:
        record: What `benchmarks.harness.suite.run` returns.

    Returns:
        A dictionary for each: `target` in words, `wanted`, `measured`, `range` over the rounds (or None), `unit`,
        and whether it is `met`.
    """
    rows = []
    batch_size = record["settings"]["batch_size"]
    for comparison in record["comparisons"]:
        times, group, work = comparison["seconds"], comparison["group"], comparison["work"]
        if work == "normalization":
            for ours, other, wanted in NORMALIZATION:
                if ours in times and other in times:
                    rows.append(_at_least(f"LRN: {ours} against {other}", wanted, ratio(times[ours], times[other])))
        elif group == "backends":
            if work == "training" and len(times) > 1:
                found = compare_backends(times)
                names = f"{found['slowest']}, the slowest backend, against {found['fastest']}, the fastest"
                rows.append(_at_least(f"training: {names}", COMPARE_BACKENDS, found))
        elif comparison["batch_size"] == batch_size:
            others = {name: theirs for name, theirs in times.items() if name != "ours"}
            if not others:
                continue
            best = fastest(others)
            wanted = TRAINING if work == "training" else INFERENCE
            name = f"{work}: {group} ours against {best}, the best baseline"
            rows.append(_at_least(name, wanted, ratio(times["ours"], times[best])))
            if work == "training":
                if group in KERAS_TRAINING and "keras" in others:
                    found = ratio(times["ours"], times["keras"])
                    name = f"training: {group} ours against Keras's Conv2D(groups=2)"
                    rows.append(_at_least(name, KERAS_TRAINING[group], found))
                rows += _startup(record["startup"], group, best)
    order = ["LRN", "training", "inference", "peak memory", "first step"]
    return sorted(rows, key=lambda row: order.index(row["target"].partition(":")[0]))


def _startup(rows, backend, best):
    """The targets for memory and first step of our network on a backend."""
    found = {row["candidate"]: row for row in rows if row["backend"] == backend}
    ours, theirs = found["ours"]["memory_bytes"], found[best]["memory_bytes"]
    name = f"peak memory: {backend} ours against {best}, the best baseline"
    yield _at_most(name, theirs / 1e9, ours / 1e9, "GB")
    yield _at_most(f"first step: {backend} ours", FIRST_STEP_SECONDS, found["ours"]["first_step_seconds"], "s")


def _at_least(target, wanted, found):
    return {
        "target": target,
        "wanted": wanted,
        "measured": found["median"],
        "range": [found["min"], found["max"]],
        "unit": "times as fast",
        "met": found["median"] >= wanted,
    }


def _at_most(target, wanted, measured, unit):
    return {
        "target": target,
        "wanted": wanted,
        "measured": measured,
        "range": None,
        "unit": unit,
        "met": measured <= wanted,
    }
