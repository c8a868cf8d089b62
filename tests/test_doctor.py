"""`python -m alexnet doctor`: what is well is ok, and what is broken is a finding with its reason."""

import importlib.metadata
import json
import math
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest

from alexnet import doctor
from alexnet.cli import main
from alexnet.doctor import backends, installed, machine, processes
from alexnet.doctor.backends import examine_backends, judge_replicas
from alexnet.doctor.installed import Package, examine_installed, release
from alexnet.doctor.processes import Answer
from alexnet.doctor.report import Check, Report
from alexnet.parity import BOUNDS
from alexnet.training.distribution import Distribution

BACKEND = keras.backend.backend()
ROOT = Path(__file__).resolve().parents[1]
KEYS = ["alexnet", "system", "summary", "problems", "notes", "not_tried", "seconds", "checks"]
CHECK_KEYS = ["group", "name", "status", "found", "advice", "values"]
GOOD = {"logits": 1e-6, "gradients": 1e-5, "training": 1e-6}
REPLICAS = {"devices": 2, "on_cpu": True, "alone": [3, 2, 1.0], "together": [3, 2, 1 + 1e-7], "digests": ["a", "a"]}


def by_name(checks):
    checks = list(checks)
    found = {(check.group, check.name): check for check in checks}
    assert len(found) == len(checks)
    return found


@pytest.mark.slow
def test_a_healthy_backend(tmp_path):
    """Devices, a step beside the plain operations and training on two devices; one JSON object and nothing left."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-m", "alexnet", "doctor", "--json", "--backends", BACKEND, "--timeout", "200"]
    found = subprocess.run(
        [*command, "--run_dir", str(tmp_path / "runs")],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name != "KERAS_HOME"},
            **{"TMPDIR": str(tmp_path / "temporary"), "HOME": str(tmp_path / "home"), "WORLD_SIZE": "3"},
            "MPLCONFIGDIR": matplotlib.get_cachedir(),  # its list of fonts takes long to make
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert found.stderr == "", found.stderr
    report = json.loads(found.stdout)
    checks = {(each["group"], each["name"]): each for each in report["checks"]}
    assert list(report) == KEYS and all(list(each) == CHECK_KEYS for each in report["checks"])
    title = backends.TITLES[BACKEND]
    ours = {name: checks[title, name] for name in ("devices", "training step", "replicas")}
    assert {name: each["status"] for name, each in ours.items()} == dict.fromkeys(ours, "ok"), ours
    # The fast operations are not compared with themselves, and the bounds are those of the other tests.
    difference = ours["training step"]["values"]["difference"]
    assert max(difference.values()) > 0 and ours["training step"]["values"]["bounds"] == BOUNDS
    replicas = ours["replicas"]["values"]
    assert replicas["devices"] == len(replicas["digests"]) == 2 and len(set(replicas["alone"])) == 3
    assert found.returncode == (report["problems"] > 0)
    assert not [*(tmp_path / "temporary").iterdir(), *(tmp_path / "home").iterdir()]
    assert not (tmp_path / "runs").exists()


@pytest.mark.once
def test_replicas_that_differ_have_other_digests():
    class Two(Distribution):
        """Two devices, whose last variable may differ in its last digit."""

        last = np.float32(1)

        def copies(self, variable):
            return [np.ones(3, np.float32), np.full(3, self.last if variable == "last" else 1, np.float32)]

    two = Two()
    assert len(set(two.replica_digests(["first", "last"]))) == 1 and len(two.replica_digests(["first"])) == 2
    two.last = np.nextafter(np.float32(1), np.float32(2))
    assert len(set(two.replica_digests(["first", "last"]))) == 2


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digests": ["a", "b"]}, "1 of 2 differ from the first"),
        ({"together": [3, 2, 1.001]}, "by 1.0e-03"),
        ({"together": [3, 2, math.nan]}, "by inf"),
        ({"together": [3, 2]}, ""),
        ({"alone": [], "together": []}, "by inf"),
        ({"devices": 1, "digests": ["a"]}, "1 replicas"),
    ],
)
def test_replicas_that_differ_are_a_problem(change, words):
    assert judge_replicas("JAX", REPLICAS).status == "ok"
    check = judge_replicas("JAX", {**REPLICAS, **change})
    assert check.status == "problem" and words in check.found and "distribute: data" in check.advice


# --- Backends whose processes are only said to have run


@pytest.fixture
def stand_in(monkeypatch):
    """Sets what each backend's processes find: its devices, differences from others, how it fails."""

    def stand_in(differences, devices=(), failures=(), gpus=0, present=("keras", "tensorflow", "jax", "torch")):
        devices, failures, asked = dict(devices), dict(failures), []

        def ask(task, *arguments, folder, timeout, backend="", on_cpu=False, **more):
            asked.append((task, backend, *arguments[1:], *(["cpu"] if on_cpu else [])))
            record = {"differences": differences.get(backend, {}), "bounds": BOUNDS}
            if task == "import_modules":
                written = {"imports": {}}
            elif task == "train_replicas":
                written = {"replicas": REPLICAS}
            else:
                written = {f"{backend}-devices": devices.get(backend, ["cpu:0"]), backend: record}
                plain = {"differences": {backend: GOOD}, "bounds": BOUNDS}
                written |= {f"{backend}-plain": plain} if arguments[1:] else {}
            for name, value in written.items() if backend not in failures else ():
                (folder / f"{name}.json").write_text(json.dumps(value))
            return Answer(failures.get(backend), folder)

        monkeypatch.setattr(backends, "ask", ask)
        monkeypatch.setattr(installed, "ask", ask)
        monkeypatch.setattr(backends, "count_gpus", lambda: gpus)
        monkeypatch.setattr(backends, "find_spec", lambda name: name if name in present else None)
        return asked

    return stand_in


@pytest.mark.once
@pytest.mark.parametrize("bad", [2e-3, math.nan])
def test_of_three_backends_the_odd_one_is_named(stand_in, tmp_path, bad, capsys):
    odd = {**GOOD, "gradients": bad}
    stand_in({"jax": {"tensorflow": odd}, "torch": {"tensorflow": GOOD, "jax": odd}})
    found = by_name(examine_backends((), tmp_path, 9))
    statuses = [found[title, "training step"].status for title in ("TensorFlow", "JAX", "PyTorch")]
    assert statuses == ["ok", "problem", "ok"]
    assert "gradients 1e-03" in found["JAX", "training step"].advice

    status = main(["doctor", "--json", "--run_dir", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert status == 1 and report["problems"] >= 1 and "1 problem" in report["summary"]
    assert main(["doctor", "--run_dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "1 problem" in said[-1] and any(line.startswith("JAX, training step: JAX computes") for line in said)


@pytest.mark.once
def test_one_backend_is_compared_with_its_plain_operations(stand_in, tmp_path):
    asked = stand_in({}, present=("keras", "torch"))
    found = by_name(examine_backends((), tmp_path, 9))
    assert asked == [("look", "torch", "plain"), ("train_replicas", "torch", "cpu")]
    assert "plain form" in found["PyTorch", "training step"].found
    assert {check.status for (title, _), check in found.items() if title == "PyTorch"} == {"ok"}
    assert found["JAX", "devices"].status == "not tried" and "alexnet-keras[jax]" in found["JAX", "devices"].found
    # Two, of which one fails: the other one is looked at again.
    (tmp_path / "two").mkdir()
    asked = stand_in({}, failures={"jax": "ended with exit status 1"}, present=("keras", "jax", "torch"))
    found = by_name(examine_backends((), tmp_path / "two", 9))
    assert ("look", "torch", "plain") in asked and found["PyTorch", "training step"].status == "ok"
    assert found["JAX", "devices"].status == "problem" and found["JAX", "replicas"].status == "not tried"


@pytest.mark.once
def test_gpus(stand_in, tmp_path):
    """A GPU that a backend does not see is a problem; one that it sees computes what its CPU does."""
    wrong = {**GOOD, "logits": 2e-3}
    of_jax = {"tensorflow": GOOD, "jax-gpu": {**GOOD, "logits": 5e-4}}
    of_torch = {"tensorflow": GOOD, "jax": GOOD, "torch-gpu": wrong}
    seen = {"jax": ["gpu:0", "gpu:1"], "torch": ["NVIDIA H100"]}
    asked = stand_in({"jax": of_jax, "torch": of_torch}, devices=seen, gpus=2)
    found = by_name(examine_backends((), tmp_path, 9))
    unseen = found["TensorFlow", "devices"]
    assert unseen.status == "problem" and "TensorFlow sees no GPU although this machine has 2 GPUs" in unseen.advice
    assert found["JAX", "devices"].status == found["JAX", "training step"].status == "ok"
    assert found["JAX", "step on its GPU"].status == "ok" and found["PyTorch", "step on its GPU"].status == "problem"
    assert ("TensorFlow", "step on its GPU") not in found
    replicas = [each for each in asked if each[0] == "train_replicas"]
    assert replicas == [("train_replicas", "tensorflow", "cpu"), ("train_replicas", "jax"), (*replicas[2][:2], "cpu")]


@pytest.mark.once
def test_no_backend_and_no_keras(stand_in, tmp_path, capsys):
    stand_in({}, present=("keras",))
    assert by_name(examine_backends((), tmp_path, 9))["backends", "installed"].status == "problem"
    assert main(["doctor", "--run_dir", str(tmp_path)]) == 1
    assert "none of tensorflow, jax, torch, and Keras needs one" in " ".join(capsys.readouterr().out.split())
    asked = by_name(examine_backends(["jax"], tmp_path, 9))["JAX", "devices"]
    assert asked.status == "problem" and "alexnet-keras[jax]" in asked.advice
    stand_in({}, present=())
    assert {check.status for check in examine_backends((), tmp_path, 9)} == {"not tried"}


# --- Packages that are really broken


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Puts a module before the installed ones, for processes that are started."""

    def broken(name, code):
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), str(ROOT)]))
        (tmp_path / "out").mkdir()
        return tmp_path / "out"

    return broken


@pytest.mark.once
@pytest.mark.parametrize(
    ("code", "timeout", "words"),
    [
        ("raise RuntimeError('broken\\nin two lines')", 60, "in two lines"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, "was killed by SIGSEGV"),
        ("import time; print('starting', flush=True); time.sleep(600)", 3, "did not end within 3 s"),
    ],
)
def test_a_backend_that_fails_or_hangs_is_a_finding(broken, code, timeout, words, capfd):
    folder = broken("jax", code)
    found = by_name(examine_backends(["jax"], folder, timeout))
    assert found["JAX", "devices"].status == "problem" and words in found["JAX", "devices"].found
    assert found["JAX", "training step"].status == found["JAX", "replicas"].status == "not tried"
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.once
def test_packages(broken, tmp_path, monkeypatch):
    """Too old, newer than tested, missing, and one that cannot be imported."""
    folder = broken("simplejpeg", "raise ImportError('libjpeg.so: no such file')")
    for name, version in (("keras", "3.1.0"), ("grain", "99.1"), ("jaxlib", "0.7.2"), ("tensorflow", "2.20.0")):
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = [
        *(Package("python", "", "99.0", "", ""), Package("keras", "", "3.12", "3.15.1", "the network")),
        *(Package("grain", "", "0.2", "0.3", "batches"), Package("simplejpeg", "", "1.8", "99.0", "JPEG")),
        *(
            Package("needed-one", "", "1.0", "2.0", "x"),
            Package("array-records", "pack", "1.0", "2.0", "packed images"),
        ),
    ]
    monkeypatch.setattr(installed, "packages", lambda: rows)
    found = {name: check for (_, name), check in by_name(examine_installed(folder, 60)).items()}
    assert found["Python"].status == "problem" and "99.0 or newer" in found["Python"].advice
    assert found["keras"].status == "problem" and "pip install 'keras>=3.12'" in found["keras"].advice
    assert found["grain"].status == "note" and "newer than what was tested" in found["grain"].found
    assert found["simplejpeg"].status == "problem" and "libjpeg.so: no such file" in found["simplejpeg"].found
    assert found["needed-one"].status == "problem" and "pip install needed-one" in found["needed-one"].advice
    assert found["extra pack"].status == "not tried"
    assert "(packed images)" in found["extra pack"].found and "'alexnet-keras[pack]'" in found["extra pack"].found
    assert found["jaxlib 0.7.2"].status == "note" and "weights of an earlier step" in found["jaxlib 0.7.2"].found
    assert found["tensorflow 2.20.0"].status == "note"


@pytest.mark.once
def test_a_module_that_ends_its_process_is_named(broken, monkeypatch):
    folder = broken("h5py", "import os; os._exit(3)")
    found = by_name(examine_installed(folder, 60))["installed", "h5py"]
    assert found.status == "problem" and "exit status 3" in found.found


@pytest.mark.once
def test_versions_are_compared_by_their_numbers():
    assert release("2.13.0+cpu") == release("2.13") < release("2.13.1") < release("3.16.0.dev202611")
    assert release("4.9") < release("4.14.0.94")


@pytest.mark.once
def test_the_table_of_packages_is_made_of_the_project_and_its_lock():
    """That the file is up to date is tested with the descriptions of parameters."""
    write = runpy.run_path(str(ROOT / "docs" / "write_parameters.py"))["packages"]
    project, lock = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "requirements.txt"))
    assert write(project, lock) == installed.TABLE.read_text(encoding="utf-8")
    (keras_row,) = (row for row in installed.packages() if row.name == "keras")
    changed = write(project.replace('"keras>=3.12"', '"keras>=3.99"'), lock.replace("keras==", "keras==9"))
    assert f"\nkeras,,3.99,9{keras_row.tested}," in changed
    declared = {re.match(r"[\w-]+", text)[0] for text in importlib.metadata.requires("alexnet-keras") or ()}
    assert {row.name for row in installed.packages()} <= declared | {"python"}


# --- The rest


@pytest.mark.once
def test_disk_and_memory(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert by_name(machine.examine_machine(tmp_path / "a" / "b"))["machine", "disk"].status == "ok"
    assert not (tmp_path / "a").exists()
    found = by_name(machine.examine_machine(tmp_path / "file" / "runs"))["machine", "disk"]
    assert found.status == "problem" and "Nothing can be written" in found.advice
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**6))
    monkeypatch.setattr(machine, "_limits", lambda: [10**8])
    monkeypatch.setattr(machine, "count_gpus", lambda: 2)
    found = by_name(machine.examine_machine(tmp_path))
    assert found["machine", "disk"].status == found["machine", "memory"].status == "problem"
    assert found["machine", "/dev/shm"].status == "note" and "--shm-size=1g" in found["machine", "/dev/shm"].advice


@pytest.mark.once
def test_the_last_line():
    def summary(*statuses):
        return Report([Check("machine", str(i), status, "x") for i, status in enumerate(statuses)], 1).summary

    assert summary("ok", "ok") == "All is well."
    assert summary("ok", "not tried") == "All is well. 1 not tried."
    assert summary("problem", "note", "problem", "not tried") == "2 problems, 1 note. 1 not tried."
    with pytest.raises(ValueError, match="status: received 'fine'"):
        Check("machine", "a", "fine", "x")
    assert json.loads(json.dumps(Report([Check("a", "b", "ok", "x", values={"y": [math.nan]})], 1).to_json()))


@pytest.mark.once
def test_bad_usage(capsys):
    for arguments, words in ((["--backends", "jaxx"], "Did you mean jax?"), (["--timeout", "0"], "above 0")):
        try:
            status = main(["doctor", *arguments])
        except SystemExit as stop:
            status = stop.code
        assert status == 2 and words in capsys.readouterr().err


@pytest.mark.once
def test_ctrl_c_ends_the_processes_and_leaves_nothing(broken, tmp_path):
    broken("jax", "import time; time.sleep(600)")
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "alexnet", "doctor", "--backends", "jax"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 30
        while not list((tmp_path / "temporary").glob("alexnet-doctor-*/imports.json")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, said.strip()) == (130, "Interrupted.")
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.once
def test_settings_of_others_stay_where_they_are(tmp_path, monkeypatch):
    """Keras's file and matplotlib's are written beside the findings, unless the user has some."""
    for name in ("KERAS_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dict(processes._kept_out_of_home(tmp_path / "x")) == dict.fromkeys(
        ["KERAS_HOME", "MPLCONFIGDIR"], str(tmp_path / "x")
    )
    (tmp_path / ".cache" / "matplotlib").mkdir(parents=True)
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").touch()
    assert not dict(processes._kept_out_of_home(tmp_path / "x"))


@pytest.mark.once
def test_it_imports_no_backend():
    program = (
        "import sys, alexnet.doctor; assert not {'keras', 'numpy', 'jax', 'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert doctor.TIMEOUT >= 60
