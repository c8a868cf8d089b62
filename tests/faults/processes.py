"""Kills one of two processes that train together, starts them again, and compares the result with an undisturbed run.

    python tests/faults/processes.py --backends jax torch --kills 10

Each kill is SIGKILL to one of the two, chosen at random, at a random time between their start and their end. The
launcher must end the other one, and the next start must end with weights that are equal to the bit, and with the same
history. Then the processes are started without the launcher, as on two hosts, and the one that is left must end by
itself within two minutes. Takes about ten minutes a backend; prints a line a kill and writes
benchmarks/results/faults_processes.json.
"""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from harness import ROOT, largest_difference, measure, outcome, recipe_for

GROUP_SECONDS = 120  # in which the death of one process must end all
RUN_SECONDS = 300
RANK = {"jax": "KERAS_DISTRIBUTION_PROCESS_ID", "torch": "RANK"}


def train(recipe_file, backend):
    return [sys.executable, "-m", "alexnet", "train", "--params", str(recipe_file), "--backend", backend]


def launch(recipe_file, backend, log):
    """The launcher of two processes, in this folder's environment, on CPUs."""
    command = [sys.executable, "-m", "alexnet", "launch", "-n", "2", "--grace", "20", "--"]
    command += train(recipe_file, backend)[3:]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=recipe_file.parent)


def process_of(launcher, backend, rank):
    """The process of a rank; None where it has not begun or has ended."""
    for child in psutil.Process(launcher.pid).children():
        try:
            if child.environ().get(RANK[backend]) == str(rank):
                return child
        except psutil.Error:
            continue
    return None


def saved_step(run):
    """The step of the newest saved state; None if there is none."""
    from alexnet.training.state import CheckpointManager, step_of

    checkpoint = CheckpointManager(run).newest()
    return checkpoint and step_of(checkpoint.path)


def kill_one(recipe_file, backend, rng, seconds, log):
    """Start two processes and kill one of them within `seconds`; None if they had ended before."""
    launcher, rank, due = launch(recipe_file, backend, log), rng.randrange(2), rng.uniform(0, seconds)
    time.sleep(due)
    process = launcher.poll() is None and process_of(launcher, backend, rank)
    if not process:
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        return None
    process.kill()
    began = time.monotonic()
    status = launcher.wait(timeout=GROUP_SECONDS)
    if status == 0:  # it had done its work
        return None
    assert status == 128 + signal.SIGKILL, f"the launcher ended with {status}"
    return {"rank": rank, "after_seconds": round(due, 1), "group_ended_after": round(time.monotonic() - began, 1)}


def run_with_kills(backend, kills, seed, folder, data_dir, say=print, **values):
    """Kill as many runs of two processes once each, and compare them with an undisturbed one; returns the results."""
    rng = random.Random(seed)
    values = {"distribute": "data", **values}
    rows, begun = [], time.monotonic()
    with (folder / "processes.log").open("wb") as log:

        def finish(name):
            recipe_file = recipe_for(folder, data_dir, name, **values)
            launcher = launch(recipe_file, backend, log)
            assert launcher.wait(timeout=RUN_SECONDS) == 0, (folder / "processes.log").read_text()[-2000:]
            return outcome(folder / "runs" / name / backend)

        whole = finish("whole")
        seconds = time.monotonic() - begun
        while len(rows) < kills:
            recipe_file, run = recipe_for(folder, data_dir, "killed", **values), folder / "runs" / "killed" / backend
            if row := kill_one(recipe_file, backend, rng, seconds, log):
                row["saved_step"] = saved_step(run)
                apart, same_history = largest_difference(finish("killed"), whole)
                rows.append({**row, "largest_weight_difference": apart, "same_history": same_history})
                say(f"{backend}: {json.dumps(rows[-1])}")
            shutil.rmtree(run, ignore_errors=True)
        alone = [
            _without_launcher(backend, rank, recipe_for(folder, data_dir, "alone", **values), log) for rank in (0, 1)
        ]
    say(f"{backend}: without the launcher the other process ended after {alone} s")
    return {"backend": backend, "run_seconds": round(seconds, 1), "kills": rows, "without_launcher_seconds": alone}


def _without_launcher(backend, rank, recipe_file, log):
    """How many seconds after the death of `rank` the other process ends by itself."""
    from alexnet.launching import free_port, process_environment

    port = free_port()
    processes = [
        subprocess.Popen(
            train(recipe_file, backend),
            env={**os.environ, **process_environment(backend, each, 2, port), "PYTHONPATH": str(ROOT)},
            stdout=log, stderr=subprocess.STDOUT, cwd=recipe_file.parent,
        )
        for each in (0, 1)
    ]  # fmt: skip
    run = Path(json.loads(recipe_file.read_text())["run_dir"]) / "alone" / backend
    try:
        deadline = time.monotonic() + RUN_SECONDS
        while saved_step(run) is None:  # both are at work
            assert time.monotonic() < deadline and processes[0].poll() is None
            time.sleep(0.1)
        processes[rank].kill()
        began = time.monotonic()
        processes[1 - rank].wait(timeout=GROUP_SECONDS)
        return round(time.monotonic() - began, 1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(run, ignore_errors=True)


def main():
    rows = measure(__doc__, "faults_processes", list(RANK), 10, functools.partial(run_with_kills, epochs=4))
    return any(kill["largest_weight_difference"] or not kill["same_history"] for row in rows for kill in row["kills"])


if __name__ == "__main__":
    sys.exit(main())
