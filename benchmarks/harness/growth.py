"""How the cost of the network grows with each size, as a power of it."""

import numpy as np

from alexnet.plotting.speed import SIZES, scaling_series

COSTS = {"training": "training_seconds", "inference": "inference_seconds"}


def exponents(record, last=None):
    """The exponents p of seconds that grow as size to the power p, by least squares on the logarithms.

    Doubling a size multiplies the time by 2 to the power p: by 2 if p is 1, by 4 if it is 2.

    Args:
        record: What `benchmarks.harness.suite.run(scaling=True)` returns, or `bench.json` holds.
        last: How many of the largest sizes are fitted; None for all.

    Returns:
        A dictionary for each size and backend: `size`, `backend`, `training`, `inference`. A size with fewer than two
        values is left out.
    """
    rows = []
    for size in SIZES:
        for backend in record["settings"]["backends"]:
            points = scaling_series(record, size, backend)[-last if last else 0 :]
            if len(points) < 2:
                continue
            at = np.log([row[size] for row in points])
            fits = {name: np.polyfit(at, np.log([row[key] for row in points]), 1)[0] for name, key in COSTS.items()}
            rows.append({"size": size, "backend": backend, **{name: float(fit) for name, fit in fits.items()}})
    return rows
