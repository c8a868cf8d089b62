"""Training on several devices and processes: the same numbers as on one, or a sentence that says why not."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs_helpers import BACKEND

import alexnet
from alexnet.data import load_data
from alexnet.locking import FolderLock
from alexnet.recipe import Recipe, RecipeError
from alexnet.scaling import transfers
from alexnet.training import DistributionError, train
from alexnet.training.distribution import Distribution, find_distribution
from alexnet.training.distribution.base import Group
from alexnet.training.stopping import RunError
from tests.faults.harness import largest_difference, outcome

PROGRAM = Path(__file__).with_name("train_distributed.py")


def run_jobs(folder, *recipes, devices=0, processes=0, kill=None):
    """What `train_distributed.py` finds, in a process with so many devices, or in several processes; the exit status if
    one is killed."""
    (folder / "jobs.json").write_text(json.dumps(recipes))
    command = [sys.executable, str(PROGRAM), str(folder / "jobs.json"), str(folder / "out.json")]
    command += [
        "--devices",
        str(devices),
        "--processes",
        str(processes),
        *(["--kill", *map(str, kill)] if kill else []),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if kill:
        return found.returncode
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    if not processes:
        return json.loads((folder / "out.json").read_text())
    of_ranks = [json.loads((folder / f"out.json.{rank}").read_text()) for rank in range(processes)]
    for job, *others in zip(*of_ranks, strict=True):  # with PyTorch each knows the loss of its own images
        job["losses"] = np.mean([each["losses"] for each in (job, *others)], axis=0).tolist()
        assert all(other["weights"] == job["weights"] and other["history"] == job["history"] for other in others)
    return of_ranks[0]


def recipe_of(tiny, **values):
    """24 steps with all that is drawn at random; 18 validation images, which the devices do not divide."""
    # A larger rate multiplies the rounding errors of the last digit: after twenty steps to some 1e-4.
    values = {"epochs": 4, "pca_color": 0.1, "patience": 1, "learning_rate": 1e-3, **values}
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
        recipe_of(tiny, name="exchanges", distribute="data"),
        recipe_of(tiny, name="exchanges", distribute="two_columns", network="krizhevsky2012"),
    ]
    data, columns, of_data, of_columns = run_jobs(tmp_path, *kinds, devices=4)
    assert data["distribution"] == columns["distribution"] == {"devices": 4, "processes": 1}
    assert_same(data, alone)
    assert_same(columns, alone)
    # Every device has its images; the gradients are summed once, at the end.
    (summed,) = of_data
    assert summed["operation"] == "all-reduce" and summed["backward"]
    # The columns of the paper's program meet in conv3 and in the fully connected layers, and nowhere else. Gradients
    # are summed over the two pairs of devices.
    assert {each["operation"] for each in of_columns} == {"all-gather", "all-reduce"}
    met = [each for each in of_columns if each["operation"] == "all-gather"]
    assert {layer for each in met for layer in each["layers"]} == {"conv3", "fc6", "fc7"}
    # And as much as alexnet.scaling counts on paper.
    recipe = Recipe(**kinds[-1])
    sizes = {"image_size": recipe.image_size, "width": recipe.width, "classes": 3}
    expected = transfers(recipe.row, "two_columns", 4, recipe.batch_size, **sizes)
    gathered = {(each.layer, each.bytes) for each in expected if each.what == "activations" and each.passes == 1}
    assert {(layer, each["bytes"]) for each in met for layer in each["layers"]} == gathered


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "tensorflow", reason="one process has all devices of a host")
def test_two_processes_train_as_one_and_outlive_a_kill(tiny, tmp_path, alone):
    """One of two processes is killed; the next start resumes from the last state, with two processes or one."""
    (whole,) = run_jobs(tmp_path, recipe_of(tiny, name="whole", distribute="data"), processes=2)
    assert whole["distribution"] == {"devices": 2, "processes": 2}
    assert_same(whole, alone)

    killed = recipe_of(tiny, name="killed", distribute="data", save_steps=4)
    assert run_jobs(tmp_path, killed, processes=2, kill=(1, 9)) == 128 + 9
    runs = Path(tiny["run_dir"])
    assert list((runs / "killed" / BACKEND / "checkpoints").iterdir()) and not list(runs.glob("killed/*/model.keras"))
    shutil.copytree(runs / "killed", runs / "on_one")
    (resumed,) = run_jobs(tmp_path, killed, processes=2)
    assert len(resumed["losses"]) < len(whole["losses"])
    apart, same_history = largest_difference(*(outcome(runs / name / BACKEND) for name in ("killed", "whole")))
    assert (apart, same_history) == (0.0, True)

    run = train(Recipe(**{**killed, "name": "on_one", "distribute": "none"}), verbose=0)
    assert len(run.history) == 4 and run.history[-1]["val_loss"] == pytest.approx(
        whole["history"][-1]["val_loss"], 1e-4
    )


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="the same on JAX, which starts more slowly")
def test_a_second_start_in_the_same_folder_is_refused(tiny, tmp_path):
    """By all processes; the first run's folder stays as it is."""
    recipe = Recipe(**{**tiny, "distribute": "data"})
    (tmp_path / "params.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "alexnet", "launch", "-n", "2", "--", "train", "--backend", BACKEND]
    command += ["--params", str(tmp_path / "params.yaml")]
    with FolderLock(recipe.run_folder / BACKEND):
        found = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert [path.name for path in (recipe.run_folder / BACKEND).iterdir()] == [".lock"]
    assert found.returncode == 1 and "Traceback" not in found.stdout + found.stderr
    assert f"in use by another process (process {os.getpid()}" in found.stdout
    assert "Wait for the end of that run, or give this one a different name." in found.stdout


def test_what_cannot_be_is_refused(tiny, monkeypatch):
    """At once, in a sentence that says what can be."""
    messages = {
        "tensorflow": {"data": "TensorFlow has one here", "two_columns": "is for jax; tensorflow has data"},
        "jax": {"data": "JAX has one here", "two_columns": "JAX has one here"},
        "torch": {"data": "a process for each device", "two_columns": "is for jax; torch has data"},
    }[BACKEND]
    for distribute, message in messages.items():
        with pytest.raises(DistributionError, match=message) as error:
            train(Recipe(**{**tiny, "distribute": distribute}), verbose=0)
        assert "\n" not in str(error.value)
    assert not Path(tiny["run_dir"]).exists()
    with pytest.raises(RecipeError, match="distribute: received 'both'"):
        Recipe(distribute="both")
    if BACKEND != "tensorflow":
        monkeypatch.setenv("WORLD_SIZE" if BACKEND == "torch" else "KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
        with pytest.raises(DistributionError, match="one of 2 processes, and distribute is none"):
            find_distribution(Recipe(**tiny))


def test_the_processor_is_divided_before_anything_is_computed():
    alexnet.AlexNet(width=1 / 16)
    with pytest.raises(alexnet.BackendError, match="several processes" if BACKEND == "torch" else "before anything"):
        alexnet.divide_processor(3)


def test_the_batch_is_shared_in_equal_parts(tiny, monkeypatch):
    class Five(Distribution):
        replicas = 5

    module = importlib.import_module(f"alexnet.training.distribution.on_{BACKEND}")
    monkeypatch.setattr(module, "find", lambda recipe, processes: Five())
    with pytest.raises(DistributionError, match="batch_size: received 12; allowed: a multiple of 5"):
        find_distribution(Recipe(**{**tiny, "distribute": "data"}))


@pytest.mark.once
@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_reads_its_share(tiny, processes):
    """Together the batches of one process, and each validation image once."""
    recipe = Recipe(**{**tiny, "pca_color": 0.1})
    training, validation = load_data(recipe)
    whole = [next(iter(training.batches(4))), [np.concatenate(each) for each in zip(*validation.images(), strict=True)]]
    parts, seen = [], []
    for rank in range(processes):
        training.share = validation.share = (rank, processes)
        parts.append(next(iter(training.batches(4))))
        seen.append([np.concatenate(each) for each in zip(*validation.images(), strict=True)])
    for expected, found in zip(whole[0], zip(*parts, strict=True), strict=True):
        assert all(len(each) == 12 // processes for each in found)
        np.testing.assert_array_equal(np.concatenate(found), expected)
    for rank in range(processes):
        for expected, found in zip(whole[1], seen[rank], strict=True):
            np.testing.assert_array_equal(found, expected[rank::processes])


class Answers(Group):
    """A group whose other process gives the same arrays."""

    processes, rank = 2, 1

    def _all_gather(self, array):
        return np.stack([array, array])


@pytest.mark.once
def test_networks_that_drift_apart_are_not_saved():
    arrays = {"m0": np.ones((2, 3), np.float32), "o0": np.float32(3)}
    Answers().check_replicas(arrays)
    digests = []

    class Other(Answers):
        """Its first process has the arrays whose digest was noted first."""

        def gather(self, value):
            digests.append(value)
            return [digests[0], value]

    Other().check_replicas(arrays)
    Other().check_replicas({name: array.copy() for name, array in arrays.items()})
    last_digit = {**arrays, "m0": np.nextafter(arrays["m0"], 2, dtype=np.float32)}
    for different in (last_digit, {**arrays, "o0": np.float32(4)}):
        with pytest.raises(RunError, match="process 1 of 2 has different weights from process 0"):
            Other().check_replicas(different)


@pytest.mark.once
def test_what_the_chief_cannot_do_is_an_error_everywhere():
    group = Answers()
    group.gather = lambda value: [{"error": "No room."}, value]
    with pytest.raises(RunError, match="Process 0 says: No room."):
        group.on_chief(lambda: None)
    group.gather = lambda value: [{"value": [1, "x"]}, value]
    assert group.on_chief(lambda: pytest.fail("not the chief")) == [1, "x"]
    assert Answers().gather({"a": [1, None]}) == [{"a": [1, None]}] * 2


@pytest.mark.skipif(BACKEND != "torch", reason="its gradients are exchanged by us")
def test_gradients_travel_in_buckets():
    """The last layers first, in groups of about 25 MB; fc6 of the paper alone."""
    from alexnet.training.distribution.on_torch import BUCKET_BYTES, _buckets

    model = alexnet.AlexNet(initializer="zeros")
    sizes = [variable.value.nbytes for variable in model.trainable_variables]
    groups = _buckets(sizes)
    assert [place for group in groups for place in group] == list(reversed(range(16)))
    assert max(sizes) > 5 * BUCKET_BYTES and [sizes.index(max(sizes))] in groups
    assert all(sum(sizes[place] for place in group[:-1]) < BUCKET_BYTES for group in groups)
    assert _buckets([1, 2, 3]) == [[2, 1, 0]]
