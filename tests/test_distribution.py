"""Training on several devices and processes: the same numbers as on one, or a sentence that says why not.

The long form, with more devices, steps and kills: `python tests/faults/group.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs_helpers import BACKEND

import alexnet
from alexnet.data import load_data
from alexnet.recipe import Recipe
from alexnet.training import DistributionError, train
from alexnet.training.distribution import Distribution, find_distribution
from alexnet.training.distribution.base import Group
from alexnet.training.stopping import RunError

PROGRAM = Path(__file__).with_name("distributed.py")


def run_jobs(folder, *recipes, devices=0):
    """What `distributed.py` finds, in a process with so many devices."""
    (folder / "jobs.json").write_text(json.dumps(recipes))
    command = [sys.executable, str(PROGRAM), str(folder / "jobs.json"), str(folder / "out.json")]
    command += ["--devices", str(devices)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


def recipe_of(tiny, **values):
    """24 steps with all that is drawn at random; 18 validation images, which the devices do not divide."""
    values = {"epochs": 4, "pca_color": 0.1, "patience": 1, **values}
    return {**tiny, **({"dropout": 0.0} if BACKEND == "tensorflow" else {}), **values}


@pytest.fixture
def alone(tiny):
    """The same run on one device."""
    losses = []

    class Losses(alexnet.import_keras().callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs["loss"]))

    run = train(Recipe(**recipe_of(tiny, name="alone")), [Losses()], verbose=0)
    return {"losses": losses, "history": run.history, "model": run.model}


def assert_same(found, alone):
    np.testing.assert_allclose(found["losses"][:20], alone["losses"][:20], rtol=1e-5)
    for ours, theirs in zip(found["history"], alone["history"], strict=True):
        assert ours["val_top1"] == theirs["val_top1"] and ours["val_top5"] == theirs["val_top5"]
        assert ours["top1"] == pytest.approx(theirs["top1"], rel=1e-6)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)
    for variable in alone["model"].weights:
        expected = float(np.abs(np.asarray(variable.numpy())).sum())
        assert found["weights"][variable.path] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="a process has one device with PyTorch")
def test_several_devices_train_as_one(tiny, tmp_path, alone):
    """Losses of 20 steps, history and weights; what JAX's devices exchange on the way."""
    if BACKEND == "tensorflow":
        (found,) = run_jobs(tmp_path, recipe_of(tiny, name="data", distribute="data"), devices=2)
        assert found["distribution"] == {"devices": 2, "processes": 1}
        assert_same(found, alone)
        return
    kinds = [
        recipe_of(tiny, name="data", distribute="data"),
        recipe_of(tiny, name="columns", distribute="two_columns"),
        recipe_of(tiny, name="collectives", distribute="data"),
        recipe_of(tiny, name="collectives", distribute="two_columns", network="krizhevsky2012"),
    ]
    data, columns, of_data, of_columns = run_jobs(tmp_path, *kinds, devices=4)
    assert data["distribution"] == columns["distribution"] == {"devices": 4, "processes": 1}
    assert_same(data, alone)
    assert_same(columns, alone)
    # Every device has its images; the gradients are summed once, at the end.
    assert {name for name, _ in of_data} == {"all-reduce"} and len(of_data) == 1
    # The columns of the paper's program meet in conv3 and in the fully connected layers, and nowhere else. Gradients
    # are summed over the two pairs of devices.
    met = {name: {origin.split("/")[1] for kind, origin in of_columns if kind == name} for name, _ in of_columns}
    assert met.keys() == {"all-gather", "all-reduce"}
    layers = {"".join(filter(str.isalnum, place.split("jvp(")[-1])) for place in met["all-gather"]}
    assert layers == {"conv3", "fc6", "fc7"}
