"""Kills a training run again and again, and compares the result with that of an undisturbed run.

    python tests/faults/harness.py --backends tensorflow jax torch --kills 20

Each life of the run ends by SIGKILL: at a random time after a random step, or in the middle of a save, when half of
the state is written or all of it but its name. The last life ends by itself. Then every weight must be equal to the
bit, and the history as well. Takes about four minutes a backend; prints a line a kill and writes
benchmarks/results/faults.json.
"""

import argparse
import csv
import io
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child.py")
LIMIT = 180  # seconds without output, after which the child counts as hanging


class Child:
    """A process that trains, and the words that it has printed."""

    def __init__(self, recipe_file, backend, slow):
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(CHILD), str(recipe_file), *(["--slow"] if slow else [])]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.words, self.errors, self.first_step = queue.Queue(), [], None
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.words.put(line.split())
        self.words.put(None)

    def wait_for(self, reached):
        """Read until `reached(words)` is true; returns whether that was before the end."""
        while True:
            try:
                words = self.words.get(timeout=LIMIT)
            except queue.Empty:
                self.process.kill()
                raise AssertionError(f"the run has printed nothing for {LIMIT} s") from None
            if words is None:
                self.process.wait()
                return False
            if words[0] == "step" and self.first_step is None:
                self.first_step = int(words[1])
            if reached(words):
                return True

    def end(self, number):
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=LIMIT)

    def finish(self):
        """Wait for it to end by itself."""
        self.wait_for(lambda words: False)
        assert self.process.returncode == 0, "".join(self.errors)


def recipe_for(folder, data_dir, name, **values):
    """A recipe with everything that could be lost: dropout, crops, mirror images, color noise, a divided rate."""
    recipe = {
        "data_dir": str(data_dir), "run_dir": str(folder / "runs"), "name": name, "resize": 72, "width": 0.0625,
        "batch_size": 10, "epochs": 5, "pca_color": 0.1, "patience": 1, "learning_rate": 0.01, "save_steps": 4,
        **values,
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(recipe))
    return path


def outcome(folder):
    """`(weights by name, history without times)` of a run's folder."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    weights = {}
    with h5py.File(content) as file:
        file.visititems(lambda name, x: weights.update({name: x[()]}) if isinstance(x, h5py.Dataset) else None)
    with (folder / "history.csv").open(newline="") as file:
        history = [{key: row[key] for key in row if "seconds" not in key} for row in csv.DictReader(file)]
    return weights, history


def largest_difference(ours, theirs):
    """The largest difference of weights between two `outcome`s, and whether their histories are equal."""
    assert ours[0].keys() == theirs[0].keys() and len(ours[0]) >= 16
    if all(value.tobytes() == theirs[0][name].tobytes() for name, value in ours[0].items()):
        return 0.0, ours[1] == theirs[1]
    apart = max(float(np.max(np.abs(value - theirs[0][name]), initial=0)) for name, value in ours[0].items())
    return apart or float("nan"), ours[1] == theirs[1]


def next_step(run):
    """The step with which a run in this folder must resume, by its newest whole state."""
    from alexnet.training.state import CheckpointManager, step_of

    checkpoint = CheckpointManager(run).newest()
    return 1 if checkpoint is None else step_of(checkpoint.path) + 1


def run_with_kills(backend, kills, seed, folder, data_dir, say=print, **values):
    """Kill one run `kills` times, and compare it with an undisturbed one; returns the results."""
    rng = random.Random(seed)
    whole = recipe_for(folder, data_dir, "whole", **values)
    if not (folder / "runs" / "whole" / backend / "model.keras").exists():
        Child(whole, backend, slow=False).finish()
    broken = recipe_for(folder, data_dir, "broken", **values)
    run = folder / "runs" / "broken" / backend
    deaths, begun = [], time.monotonic()
    while len(deaths) < kills:
        # The first two deaths are of different kinds, so that the short test has both.
        kind = ("half", "step", "whole")[len(deaths) if len(deaths) < 2 else rng.randrange(3)]
        due = next_step(run)
        child = Child(broken, backend, slow=True)
        count = rng.randint(1, 8) if kind == "step" else rng.randint(1, 2)
        for _ in range(count):
            if not child.wait_for(lambda words, kind=kind: words[0] == kind):
                why = "".join(child.errors) or "give it more epochs"
                raise AssertionError(f"the run ended before kill {len(deaths) + 1}: {why}")
        assert child.first_step in (due, None), f"went on with step {child.first_step}, not {due}"
        time.sleep(rng.uniform(0, 0.25))
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
        left = sorted(path.name for path in (run / "checkpoints").glob("*"))
        deaths.append({"kind": kind, "left": left})
        say(f"{backend}: kill {len(deaths)} of {kills}, {kind}; left: {', '.join(left) or 'nothing'}")
    due, last = next_step(run), Child(broken, backend, slow=False)
    last.finish()
    assert last.first_step == due, f"went on with step {last.first_step}, not {due}"
    apart, same_history = largest_difference(outcome(run), outcome(folder / "runs" / "whole" / backend))
    return {
        "backend": backend,
        "kills": {kind: sum(death["kind"] == kind for death in deaths) for kind in ("step", "half", "whole")},
        "largest_weight_difference": apart,
        "same_history": same_history,
        "epochs": len(outcome(run)[1]),
        "last_life_began_with_step": last.first_step,
        "seconds": round(time.monotonic() - begun),
    }


def measure(description, name, backends, kills, run):
    """What the long forms share: their flags, images to train on, and a record in benchmarks/results.

    Args:
        description: For `--help`.
        name: Of the record, without its ending; of the backends that are not asked for, it keeps what it has.
        backends, kills: Unless the flags say otherwise.
        run: A function of a backend, the kills, the seed, a folder and the folder of images, which returns a row.

    Returns:
        The rows.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=backends)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    os.environ["KERAS_BACKEND"] = "torch"
    from helpers import write_class_folders

    from alexnet.training import hardware, versions

    rows = []
    for backend in options.backends:
        with tempfile.TemporaryDirectory() as folder:
            data_dir = write_class_folders(Path(folder) / "data", {"train": 101, "val": 10})
            rows.append(run(backend, options.kills, options.seed, Path(folder), data_dir))
            print(json.dumps(rows[-1]), flush=True)
    file = ROOT / "benchmarks" / "results" / f"{name}.json"
    others = json.loads(file.read_text())["rows"] if file.exists() else []
    kept = [row for row in others if row["backend"] not in options.backends]
    command = f"python tests/faults/{Path(sys.argv[0]).name} --kills {options.kills} --seed {options.seed}"
    record = {"command": command, "rows": kept + rows, "versions": versions(), "hardware": hardware()}
    file.write_text(json.dumps(record, indent=2) + "\n")
    return rows


def main():
    def run(backend, kills, *others):
        return run_with_kills(backend, kills, *others, epochs=4 + kills // 3)

    rows = measure(__doc__, "faults", ["tensorflow", "jax", "torch"], 20, run)
    return any(row["largest_weight_difference"] or not row["same_history"] for row in rows)


if __name__ == "__main__":
    sys.exit(main())
