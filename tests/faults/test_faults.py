"""The short form of `python tests/faults/harness.py`: two kills, one of them in the middle of a save."""

import json
import signal

import keras
import pytest
from harness import Child, largest_difference, outcome, recipe_for, run_with_kills
from helpers import write_class_folders

from alexnet.recipe import Recipe
from alexnet.training import train
from alexnet.training.state import CheckpointManager

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_class_folders(tmp_path_factory.mktemp("faults") / "data", {"train": 31, "val": 6})


def train_here(folder, data_dir, name, **values):
    """An undisturbed run, in this process."""
    train(Recipe(**json.loads(recipe_for(folder, data_dir, name, **values).read_text())), verbose=0)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="tests/test_distribution.py kills one of two processes there")
def test_a_killed_run_ends_with_the_same_weights(tmp_path, data_dir):
    train_here(tmp_path, data_dir, "whole", epochs=3)
    found = run_with_kills(BACKEND, 2, seed=0, folder=tmp_path, data_dir=data_dir, epochs=3)
    assert found["kills"] == {"step": 1, "half": 1, "whole": 0}
    assert (found["largest_weight_difference"], found["same_history"], found["epochs"]) == (0.0, True, 3)


@pytest.mark.once
def test_the_comparison_sees_a_difference(tmp_path, data_dir):
    """A different seed of dropout and crops is noticed, so that equality means something."""
    for name, seed in (("one", 0), ("other", 1)):
        train_here(tmp_path, data_dir, name, epochs=1, seed=seed)
    ours, theirs = (outcome(tmp_path / "runs" / name / BACKEND) for name in ("one", "other"))
    apart, same_history = largest_difference(ours, theirs)
    assert apart > 0 and not same_history


@pytest.mark.once
@pytest.mark.slow
def test_sigterm_loses_no_step(tmp_path, data_dir):
    """Kaggle and preemptible machines end a process like this: the state is saved after the current step."""
    file = recipe_for(tmp_path, data_dir, "term", epochs=1000, save_steps=0)
    child = Child(file, BACKEND, slow=False)
    assert child.wait_for(lambda words: words == ["step", "13"])
    assert child.end(signal.SIGTERM) != 0
    folder = tmp_path / "runs" / "term" / BACKEND
    assert json.loads((folder / "metrics.json").read_text())["status"] == "interrupted"
    progress = CheckpointManager(folder).newest().progress
    assert progress["epoch"] * 9 + progress["step"] >= 13
