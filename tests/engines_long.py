"""The long form of tests/test_engines.py: twelve trainings of notebooks/02_train.ipynb while a worker is killed.

    python tests/engines_long.py dask ray

Each engine has two workers on this machine. The worker that makes the first run is killed with SIGKILL when that run
has saved a state. All twelve must finish, none twice, and the killed one must resume. It takes about
eight minutes an engine on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil

ROOT = Path(__file__).resolve().parents[1]
RATES = [round(0.001 * i, 3) for i in range(1, 13)]
FIELDS = {
    "width": 0.0625,
    "image_size": 67,
    "resize": 72,
    "images_per_class": 100,
    "epochs": 2,
    "save_steps": 3,
    "seed": 1,
}


def kill_a_worker(driver, runs):
    """Kill the worker of the first run that has saved a state; the run's folder and the seconds until then."""
    began = time.monotonic()
    while driver.poll() is None:
        for state in runs.glob("*/torch/checkpoints/*.npz"):
            folder = str(state.parents[1])
            for process in psutil.process_iter(["cmdline"]):
                if "papermill" in (words := process.info["cmdline"] or []) and any(folder in word for word in words):
                    process.parent().kill()
                    return Path(folder), time.monotonic() - began
        time.sleep(0.05)
    raise SystemExit("the batch has ended before a worker was killed")


def try_engine(engine, folder):
    runs, began = folder / "runs", time.monotonic()
    command = [sys.executable, "-m", "alexnet", "batch", str(ROOT / "notebooks" / "02_train.ipynb")]
    command += ["--backends", "torch", "--engine", engine, "--jobs", "2"]
    command += ["--grid", "learning_rate=" + ",".join(map(str, RATES)), "--set", "run_dir", str(runs)]
    for name, value in FIELDS.items():
        command += ["--set", name, str(value)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        killed, seconds = kill_a_worker(driver, runs)
        _, said = driver.communicate(timeout=1800)
    finally:
        driver.terminate()  # it saves its runs and ends its workers
        driver.wait(timeout=120)
    assert driver.returncode == 0 and said.count("finished: 02_train") == 12, said
    for rate in RATES:
        run = runs / f"default,learning_rate={rate}" / "torch"
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["status"] == "finished" and metrics["results"]["epoch"] == FIELDS["epochs"], run
        text = json.dumps(nbformat.read(run / "02_train.ipynb", 4))
        assert ("Resuming " in text) == (run == killed), run
    left = [each for each in psutil.process_iter(["cmdline"]) if str(runs) in " ".join(each.info["cmdline"] or [])]
    assert not left, left
    print(
        f"{engine}: 12 runs finished in {time.monotonic() - began:.0f} s; a worker was killed after {seconds:.0f} s, "
        f"and its run resumed",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="+", choices=["dask", "ray"])
    for engine in parser.parse_args().engines:
        with tempfile.TemporaryDirectory(prefix="alexnet-") as folder:
            try_engine(engine, Path(folder))


if __name__ == "__main__":
    main()
