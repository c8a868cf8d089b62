"""Whether a run on several devices or processes is the run of one device: the losses of its first 20 steps.

python benchmarks/distribution.py [--backends tensorflow jax torch]

Every arrangement trains the default network on `shapes` in batches of 48, with and without dropout, at a small and at a
large learning rate. For each the largest relative difference from the losses of one device is printed, and written to
benchmarks/results/distribution.json. For comparison one device also computes on a single core, which adds numbers in a
different order: so much do rounding errors alone change. Takes about six minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "train_distributed.py"
STEPS = 20
RATES = (0.001, 0.01)
DROPOUTS = (0.0, 0.5)
# What the parameter `distribute` is, and the devices, processes or cores.
ARRANGEMENTS = {
    "tensorflow": [("none", {"cores": 1}), ("data", {"devices": 2})],
    "jax": [
        ("none", {"cores": 1}),
        *[("data", {"devices": devices}) for devices in (2, 4, 8)],
        *[("two_columns", {"devices": devices}) for devices in (2, 4)],
        ("data", {"processes": 2}),
    ],
    "torch": [("none", {"cores": 1}), ("data", {"processes": 2}), ("data", {"processes": 3})],
}


def losses(backend, folder, distribute, cores=None, **arrangement):
    """The losses of every run, `(runs, steps)`, in the order of `DROPOUTS` and `RATES`."""
    recipes = [
        {
            "data_dir": "shapes", "run_dir": str(folder / "runs"), "name": f"{dropout}-{rate}",
            "distribute": distribute, "dropout": dropout, "learning_rate": rate, "batch_size": 48, "epochs": 1,
            "images_per_class": 120, "resume": False,
        }
        for dropout in DROPOUTS for rate in RATES
    ]  # fmt: skip
    jobs, out = folder / "jobs.json", folder / "out.json"
    jobs.write_text(json.dumps(recipes))
    flags = [word for name, count in arrangement.items() for word in (f"--{name}", str(count))]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(PROGRAM), str(jobs), str(out), *flags]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])  # the process that is started inherits it
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    finally:
        os.sched_setaffinity(0, before)
    if found.returncode:
        raise SystemExit(found.stdout[-2000:] + found.stderr[-2000:])
    files = [out.with_name(f"out.json.{rank}") for rank in range(arrangement.get("processes", 0))] or [out]
    # With PyTorch each process knows the loss of its own part of the batch, and the parts are equal.
    return np.mean([[run["losses"] for run in json.loads(file.read_text())] for file in files], axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=list(ARRANGEMENTS))
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "torch"
    from alexnet.training import hardware, versions

    rows = []
    for backend in options.backends:
        with tempfile.TemporaryDirectory() as folder:
            alone = losses(backend, Path(folder), "none")
        for distribute, arrangement in ARRANGEMENTS[backend]:
            with tempfile.TemporaryDirectory() as folder:
                found = losses(backend, Path(folder), distribute, **arrangement)
            assert found.shape == alone.shape and found.shape[1] >= STEPS, (found.shape, alone.shape)
            apart = np.max(np.abs(found - alone)[:, :STEPS] / np.abs(alone[:, :STEPS]), axis=1)
            row = {"backend": backend, "distribute": distribute, **arrangement, "largest_differences": []}
            for (dropout, rate), difference in zip([(d, r) for d in DROPOUTS for r in RATES], apart, strict=True):
                row["largest_differences"].append(
                    {"dropout": dropout, "learning_rate": rate, "relative": float(f"{difference:.2g}")}
                )
            rows.append(row)
            print(json.dumps(row), flush=True)
    command = "python benchmarks/distribution.py"
    record = {"command": command, "rows": rows, "versions": versions(), "hardware": hardware()}
    (ROOT / "benchmarks" / "results" / "distribution.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
