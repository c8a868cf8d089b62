"""What is installed for which backends, on a CPU and on a GPU, and the two locks."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "requirements" / "install.py"
LOCK = (ROOT / "requirements.txt").read_text()
HOSTED = (ROOT / "requirements" / "hosted.txt").read_text()


@pytest.fixture
def installer():
    spec = importlib.util.spec_from_file_location("installer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dry_run(*arguments):
    """The commands that make would run, whatever the options of a make around this test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def pins(lines):
    """Versions by package, extras left on the names."""
    return dict(re.match(r"([^=\s]+)==(\S+)", line).groups() for line in lines if "==" in line)


def test_all_backends_are_the_whole_lock(installer):
    assert installer.chosen(LOCK, installer.BACKENDS) == LOCK.splitlines()
    assert installer.chosen(HOSTED, installer.BACKENDS) == HOSTED.splitlines()


def test_one_backend_brings_no_other(installer):
    everything = set(pins(LOCK.splitlines()))
    for backend, others in (("jax", {"tensorflow", "torch"}), ("torch", {"tensorflow", "jax", "optax"})):
        lines = installer.chosen(LOCK, [backend])
        assert everything - set(pins(lines)) == others and "-e ." in lines


def test_a_gpu_brings_the_extras_that_its_driver_runs(installer):
    for driver, cuda in ((535, "12"), (580, "13")):
        found = pins(installer.chosen(LOCK, installer.BACKENDS, driver))
        plain = pins(LOCK.splitlines())
        assert found.pop(f"jax[cuda{cuda}]") == plain.pop("jax")
        assert found.pop("tensorflow[and-cuda]") == plain.pop("tensorflow")
        assert found == plain


def test_an_index_that_does_not_answer_costs_little_time(installer):
    began = time.monotonic()
    assert not installer.reachable("http://127.0.0.1:9/", seconds=2)
    assert not installer.reachable("no address", seconds=2)
    assert time.monotonic() - began < 5


def test_a_gpu_that_is_not_there_is_said_before_anything_is_made(tmp_path):
    (tmp_path / "bin").mkdir()
    environment = {**os.environ, "PATH": str(tmp_path / "bin")}
    command = [sys.executable, SCRIPT, tmp_path / "venv", "--gpu"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith("GPU=1 needs an NVIDIA GPU") and len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("variables", "stamp", "backends"),
    [
        ([], "installed", "tensorflow jax torch"),
        (["BACKENDS=jax"], "installed-without-tensorflow-without-torch", "jax"),
        (["BACKENDS=torch jax tensorflow"], "installed", "tensorflow jax torch"),
        (["GPU=1", "BACKENDS=jax torch"], "installed-gpu-without-tensorflow", "jax torch"),
    ],
)
def test_make_installs_again_for_other_backends_or_a_gpu(variables, stamp, backends, tmp_path):
    installing, touching, _ = dry_run("run", f"VENV={tmp_path}/venv", *variables).splitlines()
    assert installing.partition("--backends ")[2].replace(" --gpu", "").split() == backends.split()
    assert ("--gpu" in installing) == ("GPU=1" in variables)
    assert touching == f"touch {tmp_path}/venv/{stamp}"


def test_the_tests_of_one_backend_are_given_all(tmp_path):
    """Because tests compare each backend with the others."""
    found = dry_run("test", "BACKENDS=jax", f"VENV={tmp_path}/venv")
    assert "--backends tensorflow jax torch" in found and "KERAS_BACKEND=torch" not in found


def test_the_hosted_lock_has_what_a_host_has():
    hosted, ours = pins(HOSTED.splitlines()), pins(LOCK.splitlines())
    assert set(hosted) <= set(ours) and "simplejpeg" not in hosted
    expected = {"keras": "3.13.2", "tensorflow": "2.20.0", "jax": "0.7.2", "torch": "2.10.0", "numpy": "2.0.2"}
    assert expected.items() <= hosted.items()


WITHOUT = """
import sys
for name in ('simplejpeg', 'onnx'): sys.modules[name] = None
from alexnet.cli import main
statuses = [main(line.split()) for line in sys.argv[1:]]
print(statuses)
"""


def test_without_simplejpeg_and_onnx(shapes_folder, tmp_path):
    """As on Colab. (array-record is not left out: grain needs it.)"""
    fields = "--width 0.0625 --epochs 1 --image_size 67 --resize 72"
    model = f"{tmp_path}/runs/tiny/{keras.backend.backend()}"
    commands = [
        f"train --data_dir {shapes_folder} --run_dir {tmp_path}/runs --name tiny {fields}",
        f"convert {model} {tmp_path}/model.safetensors",
        f"convert {model} {tmp_path}/out.onnx",
    ]
    command = [sys.executable, "-c", WITHOUT, *commands]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert found.stdout.splitlines()[-1:] == ["[0, 0, 1]"], found.stdout[-1500:] + found.stderr[-1500:]
    assert found.stderr.count("takes longer than simplejpeg") == 1
    assert "alexnet-keras[formats]" in found.stderr
