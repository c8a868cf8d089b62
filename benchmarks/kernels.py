"""Draw the kernels that conv1 has learned from photographs, and record the training.

    python benchmarks/kernels.py cifar10
    python benchmarks/kernels.py cifar10 --stop_after 12

Trains params/cifar10.yaml in smaller batches and with four times the weight decay, which removes more of the random
initial values in a short training. An interrupted run resumes when it is started again. Writes `docs/kernels.png` and
`benchmarks/results/kernels.json`, whose `command` is what was typed, except that the data have only the last part of
their path.
"""

import argparse
import json
import sys
from pathlib import Path

import alexnet

ROOT = Path(__file__).resolve().parents[1]
CHANGED = {"batch_size": 64, "weight_decay": 0.002, "epochs": 12, "patience": 4, "name": "kernels"}
KEPT = ("backend", "hardware", "versions", "data", "results", "parameters")


def train(recipe, epochs):
    """Train, and stop after `epochs` epochs; returns the run."""
    import keras

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 >= epochs

    return alexnet.train(recipe, [Stop()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", help="CIFAR-10: cifar10, or a folder or zip of it")
    parser.add_argument("--stop_after", type=int, default=3, metavar="EPOCHS", help="default 3")
    parser.add_argument("--run_dir", default="runs", help="where the run is kept")
    options = parser.parse_args()
    alexnet.import_keras()
    from alexnet import plotting

    where = {"data_dir": options.data_dir, "run_dir": options.run_dir}
    run = train(alexnet.Recipe.read(ROOT / "params" / "cifar10.yaml", **CHANGED, **where), options.stop_after)
    name = Path(options.data_dir).name  # without folders of this machine
    typed = [name if each == options.data_dir else each for each in sys.argv[1:]]
    record = {"command": " ".join(["python benchmarks/kernels.py", *typed])}
    record |= {name: run.metrics[name] for name in KEPT}
    record["parameters"] = {**record["parameters"], "data_dir": name, "run_dir": "runs"}
    plotting.filters(run.model).savefig(ROOT / "docs" / "kernels.png", dpi=120)
    (ROOT / "benchmarks" / "results" / "kernels.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
