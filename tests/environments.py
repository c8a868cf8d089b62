"""The package as others install it: its wheel in an empty environment, with only one backend and its dependencies.

    python tests/environments.py wheel --backend torch     # the newest versions that pip finds
    python tests/environments.py lowest --backend jax      # the lowest that pyproject.toml allows

Each makes an environment in a temporary folder, uses the package there from an empty folder with an empty home, and
prints what was run and how it ended. The status is 1 if anything failed. It takes a few minutes and gigabytes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BUILDING = """
import alexnet
model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=0.0625)
print([row['layer'] for row in alexnet.summarize_layers(model)], model.count_params())
"""
SAVING = """
import numpy as np, alexnet
model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=3, width=0.0625)
images = np.random.default_rng(0).integers(0, 256, (2, 67, 67, 3), np.uint8)
for name in ('model.keras', 'model.weights.h5'):
    alexnet.save_checkpoint(model, name)
    again = alexnet.load_checkpoint(name, 'paper')
    assert abs(again.predict(images, verbose=0) - model.predict(images, verbose=0)).max() == 0
print(alexnet.evaluate(model, (images, np.array([0, 1]))))
"""
FIELDS = ["--width", "0.0625", "--epochs", "2", "--name", "tried", "--seed", "1"]


def build_wheel(folder):
    """The wheel, built in `folder` from a copy of the sources, because building leaves files among them."""
    source = Path(folder) / "source"
    shutil.copytree(ROOT / "alexnet", source / "alexnet", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True, timeout=300)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


class Environment:
    """A virtual environment with the wheel, and an empty folder to work in."""

    def __init__(self, folder, backend, lowest):
        self.folder, self.work = Path(folder), Path(folder) / "work"
        self.work.mkdir()
        self.bin = self.folder / "venv" / "bin"
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PYTHONPATH", "VIRTUAL_ENV", "KERAS_HOME") and not name.startswith("ALEXNET")
        }
        self.variables |= {"HOME": str(self.folder / "home"), "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.install(backend, lowest)

    def install(self, backend, lowest):
        subprocess.run([sys.executable, "-m", "venv", self.folder / "venv"], check=True)
        pip = [self.bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheel = build_wheel(self.folder)
        wanted = f"alexnet-keras[{backend}] @ {wheel.as_uri()}"
        if lowest:
            subprocess.run([*pip, "install", "uv"], check=True)
            # The lowest versions of pyproject.toml's own requirements; their dependencies are as new as they allow.
            uv = [self.bin / "uv", "pip", "install", "--quiet", "--python", self.bin / "python"]
            ranges = ["-r", ROOT / "pyproject.toml", "--extra", backend, "--resolution", "lowest-direct"]
            subprocess.run([*uv, *ranges], check=True)
            subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
        else:
            subprocess.run([*pip, "install", wanted], check=True)
        subprocess.run([*pip, "check"], check=True)

    def run(self, *command):
        """`(status, all output, seconds)` of a command in this environment."""
        began = time.perf_counter()
        found = subprocess.run(
            [self.bin / command[0], *map(str, command[1:])],
            cwd=self.work,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return found.returncode, found.stdout, time.perf_counter() - began


def checks(backend):
    """The commands in order: a name, the command, the expected status and words."""
    model = f"runs/tried/{backend}"
    yield "the command's help", ["alexnet", "--help"], 0, "usage: alexnet"
    yield "import", ["python", "-c", "import alexnet; print(alexnet.__version__)"], 0, "0."
    yield "building", ["python", "-c", BUILDING], 0, "conv1"
    yield "saving and loading", ["python", "-c", SAVING], 0, "top1"
    yield "a training on shapes", ["alexnet", "train", *FIELDS], 0, ("val_top1", "alexnet-keras[plots]")
    yield "inspect", ["alexnet", "inspect", "data/shapes"], 0, "circle"
    yield "evaluate", ["alexnet", "evaluate", "--weights", model], 0, "top"
    yield "predict", ["alexnet", "predict", "--weights", model, "data/shapes/val/star/0000.jpg"], 0, "%"
    yield "ONNX without its extra", ["alexnet", "convert", model, "model.onnx"], 1, "alexnet-keras[formats]"
    yield "pack", ["alexnet", "pack", "data/shapes", "packed"], 0, "packed: 2,500 images"  # grain brings array-record
    yield "batch without its extra", ["alexnet", "batch", "a.ipynb"], 1, "alexnet-keras[studies]"
    other = "jax" if backend != "jax" else "torch"
    yield "another backend", ["alexnet", "train", "--backend", other], 2, f"alexnet-keras[{other}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["wheel", "lowest"])
    parser.add_argument("--backend", choices=["tensorflow", "jax", "torch"], default="jax")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(folder, options.backend, options.which == "lowest")
        print(environment.run("python", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check")[1])
        for name, command, status, words in checks(options.backend):
            found, output, seconds = environment.run(*command)
            well = found == status and all(text in output for text in ([words] if isinstance(words, str) else words))
            failed += not well
            print(f"{'ok' if well else 'FAILED':6} {seconds:5.1f} s  {name}", flush=True)
            if not well:
                print(f"status {found}, expected {status} and {words!r}:\n{output[-3000:]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
