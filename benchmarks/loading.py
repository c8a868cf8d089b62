"""How long a full-size checkpoint takes to load in each format, and how much memory it needs beyond the model's.

KERAS_BACKEND=jax python benchmarks/loading.py

Writes a checkpoint of random weights, about 244 MB, in each format that can be written. Loads each in a process of its
own, which has already built and dropped such a model. Prints the seconds, and by how much the peak of memory grew.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import alexnet

keras = alexnet.import_keras()

LOAD = """
import sys, time, alexnet
alexnet.import_keras()
import torch
from alexnet.training import peak_memory
alexnet.AlexNet("torchvision")
before, began = peak_memory(), time.perf_counter()
alexnet.load_checkpoint(sys.argv[1], "torchvision")
print(f"{time.perf_counter() - began:.1f} s, {(peak_memory() - before) / 1e6:.0f} MB")
"""


def main():
    model = alexnet.AlexNet("torchvision")
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".keras", ".weights.h5", ".pth", ".safetensors", ".onnx"):
            path = Path(folder) / f"model{ending}"
            alexnet.save_checkpoint(model, path)
            found = subprocess.run([sys.executable, "-c", LOAD, path], check=True, capture_output=True, text=True)
            print(f"{keras.backend.backend()} {ending}: {found.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
