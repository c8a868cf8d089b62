"""Trains on several devices, for the tests: in one process, or as one of a group of processes.

    python tests/train_distributed.py JOBS.json OUT.json [--devices N] [--processes N] [--kill RANK STEP]

JOBS.json is a list of recipes. One that is named `exchanges` is not trained: what its devices exchange is listed. A
processor is divided into N devices. Of a group of processes each writes its own file, OUT.json.0, OUT.json.1 and so on;
one of them may kill itself after a step.
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

BACKEND = os.environ["KERAS_BACKEND"]


def rank():
    """The number of this process, as text; nothing where there is one only."""
    return os.environ.get({"torch": "RANK", "jax": "KERAS_DISTRIBUTION_PROCESS_ID"}.get(BACKEND, ""), "")


def train(recipe, kill=None):
    """What a run makes: the loss after each step, the history without its times, the sum of each weight."""
    import keras
    import numpy as np

    import alexnet

    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(keras.ops.convert_to_numpy(logs["loss"])))
            if kill == [rank(), str(len(losses))]:
                os.kill(os.getpid(), signal.SIGKILL)

    run = alexnet.train(recipe, [Losses()], verbose=0)
    return {
        "losses": losses,
        "history": [{name: row[name] for name in row if "seconds" not in name} for row in run.history],
        "weights": {v.path: float(np.abs(keras.ops.convert_to_numpy(v)).sum()) for v in run.model.weights},
        "distribution": run.metrics["distribution"],
    }


def exchanges(recipe, classes=3):
    """What the devices of JAX exchange in the gradient of a step: the fields of each `Exchange`."""
    from alexnet.training import build_model, compile_model
    from alexnet.training.distribution import find_distribution

    distribution = find_distribution(recipe)
    with distribution.scope():
        model = compile_model(build_model(recipe, classes), recipe)
        distribution.start(model)
    return [dataclasses.asdict(each) for each in distribution.exchanges(model, recipe.batch_size)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", type=Path)
    parser.add_argument("out")
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--kill", nargs=2)
    options = parser.parse_args()
    if options.processes:
        from alexnet.launching import launch_on_loopback

        command = [sys.executable, __file__, str(options.jobs), options.out]
        command += ["--kill", *options.kill] if options.kill else []
        return launch_on_loopback(command, BACKEND, options.processes, timeout=200, grace=10)
    import alexnet

    alexnet.import_keras()
    if options.devices:
        alexnet.divide_processor(options.devices)
    alexnet.tune_process()
    recipes = [alexnet.Recipe(**values) for values in json.loads(options.jobs.read_text())]
    found = [exchanges(each) if each.name == "exchanges" else train(each, options.kill) for each in recipes]
    Path(".".join(filter(None, [options.out, rank()]))).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
