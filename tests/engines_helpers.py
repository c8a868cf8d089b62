"""Helpers for the tests of batches on a cluster: a notebook that needs no Keras, and a look at who runs it."""

import json
import time
from pathlib import Path

import nbformat
import psutil

PARAMETERS = 'backend = None  # backend\nrun_dir = "runs"  # where\nname = "default"  # what\nwidth = 0.25  # width\n'
PARAMETERS += "resume = True  # go on\n"
# Writes a line when it begins and when it ends, and goes on from what it has saved.
WORK = """
import json, os, pathlib, time
folder = pathlib.Path(run_dir) / name / backend
(folder / "checkpoints").mkdir(exist_ok=True)
state, lines = folder / "checkpoints" / "step.npz", pathlib.Path(LINES)
def say(word):
    with lines.open("a") as file: file.write(f"{word} {width} {os.getpid()}\\n")
def record(status):
    metrics = {"status": status, "started": str(time.time()), "results": {"epoch": 1}, "parameters": {"width": width}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
record("running")
say("resume" if state.exists() else "begin")
try:
    if not state.exists():
        state.write_text("half")
        time.sleep(SECONDS)
    say("end")
    record("finished")
    state.unlink()
except KeyboardInterrupt:
    say("saved")
    record("interrupted")
    raise
"""


def write_notebook(folder, seconds=0.3):
    """The notebook, which writes its lines into `folder/lines`."""
    work = WORK.replace("LINES", repr(str(folder / "lines"))).replace("SECONDS", str(seconds))
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, work)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "work.ipynb")
    return folder / "work.ipynb"


def read_lines(folder):
    """`(word, width, process)` of each line that runs have written."""
    try:
        return [tuple(line.split()) for line in (folder / "lines").read_text().splitlines()]
    except FileNotFoundError:
        return []


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def worker_of(kernel):
    """The worker that runs a kernel: the parent of its papermill."""
    return psutil.Process(kernel).parent().parent()


def notebooks_that_run(folder):
    """Processes of papermill and kernels that work in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        named = any(str(folder) in word for word in words) and "papermill" in " ".join(words)
        kernel = "ipykernel_launcher" in " ".join(words) and str(folder) in (process.info["environ"] or {}).get(
            "HERE", ""
        )
        if (named or kernel) and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def listening_addresses(folder):
    """The addresses at which processes listen that a batch in a folder has started, by their environment."""
    found = set()
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("HERE") == str(folder):
            sockets = process.net_connections(kind="inet")
            # Some listen at the IPv6 form of an address of IPv4.
            found |= {each.laddr.ip.removeprefix("::ffff:") for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def metrics(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())
