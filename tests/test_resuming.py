"""Runs that stop for any reason: what is kept, and how they resume."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import yaml
from helpers import write_class_folders
from runs_helpers import BACKEND, Told, metrics, stop_after

from alexnet import training
from alexnet._compat import sync_variables
from alexnet.recipe import Recipe
from alexnet.training import ReduceLROnPlateau, RunError, train
from alexnet.training.callbacks import StepMonitor
from alexnet.training.state import CheckpointManager


def count_steps(patch):
    """A list that grows with each step."""
    real, made = StepMonitor.on_train_batch_end, []
    patch.setattr(
        StepMonitor, "on_train_batch_end", lambda self, batch, logs=None: (real(self, batch, logs), made.append(1))
    )
    return made


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tiny, monkeypatch):
    """Killed in the middle of an epoch, with everything that could be lost: the same weights, to the bit."""
    recipe = Recipe(**{**tiny, "epochs": 4, "patience": 1, "pca_color": 0.1, "batch_size": 10, "save_steps": 2})
    whole = train(recipe.replace(name="whole"), verbose=0)
    steps = whole.training.steps_per_epoch
    assert steps == 7
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 2 * steps + 5, OSError("power"))  # saved at step 4 of the third epoch, lost after 5
        train(recipe, verbose=0)
    folder = recipe.run_folder / BACKEND
    found = json.loads((folder / "metrics.json").read_text())
    assert (found["status"], found["error"], found["results"]["epoch"]) == ("failed", "OSError: power", 2)
    assert not (folder / "model.keras").exists()
    states = folder / "checkpoints"
    assert sorted(path.name for path in states.iterdir()) == ["step-000000016.npz", "step-000000018.npz"]

    with monkeypatch.context() as patch:
        made = count_steps(patch)
        resumed = train(recipe, verbose=0)
    assert len(made) == 4 * steps - 18  # it resumed, and did not start over
    assert metrics(resumed)["status"] == "finished" and not states.exists()
    times = {"seconds", "training_seconds"}
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in ours.items() if k not in times} == {k: v for k, v in theirs.items() if k not in times}
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_stopped_while_it_validates(tiny, monkeypatch):
    """All steps of the epoch were made, so after a signal the run resumes with the validation."""
    recipe = Recipe(**tiny)
    whole = train(recipe.replace(name="whole"), verbose=0)
    real, count = training.distribution.base.evaluate, []

    def evaluate(*arguments, **options):
        count.append(1)
        if len(count) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(training.Interrupted) as stopped:
        patch.setattr(training.distribution.base, "evaluate", evaluate)
        train(recipe, verbose=0)
    assert stopped.value.status == 143
    save = CheckpointManager(recipe.run_folder / BACKEND).newest()
    assert (save.progress["epoch"], save.progress["step"]) == (1, whole.training.steps_per_epoch)
    with monkeypatch.context() as patch:
        made, told = count_steps(patch), Told()
        resumed = train(recipe, [told], verbose=0)
    assert made == [] and told.calls == ["begin", 1, "end"]  # only the validation was left
    assert 0 < resumed.history[1]["training_seconds"] < resumed.history[1]["seconds"]
    assert [epoch["val_loss"] for epoch in resumed.history] == [epoch["val_loss"] for epoch in whole.history]
    assert [epoch["loss"] for epoch in resumed.history] == [epoch["loss"] for epoch in whole.history]


def test_a_run_of_before_goes_on(tiny, monkeypatch):
    """Its states are in `saves/`, with leftovers of a kill; they are removed when the run has finished."""
    recipe = Recipe(**{**tiny, "save_steps": 2})
    whole = train(recipe.replace(name="whole"), verbose=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 5, OSError("power"))
        train(recipe, verbose=0)
    folder = recipe.run_folder / BACKEND
    (folder / "checkpoints").rename(folder / "saves")
    (folder / "saves" / "step-000000006.tmp").write_bytes(b"half")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 3, OSError("power"))
        train(recipe, verbose=0)
    states = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.npz"))
    assert states == ["checkpoints/step-000000006.npz", "saves/step-000000004.npz"]
    with monkeypatch.context() as patch:
        made = count_steps(patch)
        resumed = train(recipe, verbose=0)
    assert len(made) == whole.training.steps_per_epoch * 2 - 6
    assert [epoch["loss"] for epoch in resumed.history] == [epoch["loss"] for epoch in whole.history]
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (folder / "saves").exists() and not (folder / "checkpoints").exists()


def test_a_damaged_state_is_passed_over(tiny, monkeypatch, caplog):
    recipe = Recipe(**{**tiny, "save_steps": 2})
    whole = train(recipe.replace(name="whole"), verbose=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 5, OSError("power"))
        train(recipe, verbose=0)
    newest = recipe.run_folder / BACKEND / "checkpoints" / "step-000000004.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    newest.write_bytes(content)
    resumed = train(recipe, verbose=0)
    assert "step-000000004.npz is damaged." in caplog.text
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_states_that_cannot_be_used_are_not_thrown_away(tiny, monkeypatch):
    recipe = Recipe(**tiny)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 7, OSError("power"))
        train(recipe, verbose=0)
    state = recipe.run_folder / BACKEND / "checkpoints" / "step-000000006.npz"
    content = state.read_bytes()
    state.write_bytes(content[:-100])
    with pytest.raises(RunError, match="No state in .* is whole. Set resume to false"):
        train(recipe, verbose=0)
    assert state.exists()
    state.write_bytes(content)
    with monkeypatch.context() as patch, pytest.raises(RunError, match="cannot be read .Input/output error."):
        patch.setattr(np, "load", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, os.strerror(errno.EIO))))
        train(recipe, verbose=0)
    assert len(train(recipe, verbose=0).history) == 2


def test_a_second_signal_does_not_spoil_the_save(tiny, monkeypatch):
    """The first signal waits for the step; the second one comes while the state is written."""
    recipe, real = Recipe(**tiny), CheckpointManager.write

    def write(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        real(self, *arguments)

    def step(self, batch, logs=None):
        signal.raise_signal(signal.SIGINT)
        on_train_batch_end(self, batch, logs)

    on_train_batch_end = StepMonitor.on_train_batch_end
    with (
        monkeypatch.context() as patch,
        pytest.raises(training.Interrupted, match="Interrupted in epoch 1 of 2, after step 1 of") as stopped,
    ):
        patch.setattr(CheckpointManager, "write", write)
        patch.setattr(StepMonitor, "on_train_batch_end", step)
        train(recipe, verbose=0)
    assert stopped.value.status == 130
    assert CheckpointManager(recipe.run_folder / BACKEND).newest().progress["step"] == 1
    assert len(train(recipe, verbose=0).history) == 2


def test_broken_weights_are_never_saved(tiny):
    """If every step is saved, the state after the step that broke the weights must not replace a good one."""
    with pytest.raises(RunError, match="infinite or NaN by step|The loss became") as error:
        train(Recipe(**{**tiny, "learning_rate": 1e30, "save_steps": 1}), verbose=0)
    saves = CheckpointManager(Recipe(**tiny).run_folder / BACKEND)
    assert all(np.isfinite(array).all() for array in saves.newest().arrays().values())
    assert "last good" not in str(error.value)  # there was none: the first step broke the weights


def test_states_are_saved_after_so_many_seconds(tiny, monkeypatch):
    written = []
    monkeypatch.setattr(CheckpointManager, "write", lambda self, step, progress, arrays: written.append(step))
    train(Recipe(**{**tiny, "save_seconds": 1e-9}), verbose=0)
    assert written == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]  # after each step, and after each epoch
    del written[:]
    train(Recipe(**{**tiny, "save_seconds": 0}), verbose=0)
    assert written == [6, 12]


def test_other_parameters_do_not_go_on(tiny, monkeypatch):
    recipe = Recipe(**tiny)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        stop_after(patch, 7, OSError("disk"))
        train(recipe, verbose=0)
    found = json.loads((recipe.run_folder / BACKEND / "metrics.json").read_text())
    assert (found["status"], found["error"]) == ("failed", "OSError: disk")
    with pytest.raises(RunError, match="momentum: 0.9 there, 0.8 here.*resume"):
        train(recipe.replace(momentum=0.8), verbose=0)
    assert len(train(recipe.replace(momentum=0.8, resume=False), verbose=0).history) == 2


def test_other_images_do_not_go_on(tiny, tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "data", {"train": 12, "val": 2})
    recipe = Recipe(**{**tiny, "data_dir": str(folder)})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        stop_after(patch, 4, OSError("disk"))
        train(recipe, verbose=0)
    write_class_folders(folder, {"train": 12}, classes=["star"])
    with pytest.raises(RunError, match="unfinished run on other images"):
        train(recipe, verbose=0)


def test_a_loss_that_is_no_number_stops_the_run(tiny):
    words = r"The loss became (nan|inf) in step [23] of epoch 1 at a learning rate of 1e\+30\.$"
    with pytest.raises(RunError, match=words):
        train(Recipe(**{**tiny, "learning_rate": 1e30}), verbose=0)
    assert not list((Recipe(**tiny).run_folder / BACKEND).glob("*.keras"))


def test_the_last_good_weights_are_kept(tiny, monkeypatch):
    """The learning rate explodes in the second epoch; the weights saved after the first one are kept as a model."""
    recipe = Recipe(**tiny)
    kept = []

    def explode(self, epoch, logs=None):
        kept[:] = self.model.get_weights()
        self.model.optimizer.learning_rate = 1e30

    with monkeypatch.context() as patch:
        patch.setattr(ReduceLROnPlateau, "on_epoch_end", explode)
        with pytest.raises(
            RunError, match=r"in step [23] of epoch 2 at a learning rate of 1e\+30. The last good"
        ) as error:
            train(recipe, verbose=0)
    path = recipe.run_folder / BACKEND / "last_good.keras"
    assert str(path) in str(error.value)
    for ours, theirs in zip(keras.saving.load_model(path).get_weights(), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class ExplodeIn(keras.callbacks.Callback):
    """Makes one step of the first epoch so large that the loss of the next one is NaN: all weights are large and
    positive, so that no activation is cut off, and their products are infinite."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        self.states = {}

    def on_train_batch_begin(self, batch, logs=None):
        sync_variables(self.model)
        self.states[batch] = self.model.get_weights()
        if batch == self.step - 1:
            for momentum in self.model.optimizer.momentums:
                momentum.assign(keras.ops.full(momentum.shape, 1e30, momentum.dtype))


def test_a_state_that_led_to_no_number_is_not_the_last_good_one(tiny):
    """The loss of a step is checked in the next step, and the state between them may have been saved."""
    recipe, explode = Recipe(**{**tiny, "save_steps": 2, "batch_size": 4}), ExplodeIn(4)
    with pytest.raises(RunError, match="in step 5 of epoch 1"):
        train(recipe, callbacks=[explode], verbose=0)
    kept = keras.saving.load_model(recipe.run_folder / BACKEND / "last_good.keras").get_weights()
    for ours, theirs in zip(kept, explode.states[2], strict=False):  # the weights after steps 1 and 2
        np.testing.assert_array_equal(ours, theirs)


def test_a_full_disk_does_not_end_a_run_that_can_still_train(tiny, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "write", full)
        patch.setattr(training.run_dir, "write_csv", full)  # neither the state nor the results
        finish = training.RunDir.finish
        patch.setattr(training.RunDir, "finish", lambda self: (patch.undo(), finish(self)))  # now there is room again
        run = train(Recipe(**tiny), verbose=0)
    said = caplog.text
    assert said.count("could not be saved (No space left on device)") == 2
    assert said.count("could not be written (No space left on device)") == 2
    assert metrics(run)["status"] == "finished"
    with monkeypatch.context() as patch, pytest.raises(RunError, match="cannot be written .*No space left.*Make room"):
        patch.setattr(keras.Model, "save", full)
        train(Recipe(**tiny), verbose=0)
    assert len(train(Recipe(**tiny), verbose=0).history) == 2  # from the state after the last epoch


def test_a_disk_that_is_full_in_the_middle_of_a_file(tiny, tmp_path):
    """With a real limit on the size of files: the earlier state stays, and no incomplete file is left."""
    folder = tmp_path / "run"
    saves = CheckpointManager(folder)
    saves.write(1, {"epoch": 0}, {"m0": np.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            saves.write(2, {"epoch": 1}, {"m0": np.zeros(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000001.npz"]
    assert saves.newest().progress == {"epoch": 0}


def test_too_little_memory_for_images_names_a_batch_size(tiny, monkeypatch):
    """A thread that reads them meets it, and the frameworks pass it on in errors of their own."""

    def no_room(self, indices):
        raise MemoryError

    monkeypatch.setattr("alexnet.data.dataset.ImageCache.__getitem__", no_room)
    with pytest.raises(RunError, match=r"^Out of memory with batch_size 12\. Try batch_size 6\.$"):
        train(Recipe(**tiny), verbose=0)


@pytest.mark.once
@pytest.mark.slow
def test_too_little_memory_names_a_batch_size(tiny, tmp_path):
    """With a real limit on memory: a process with little room, and a batch that cannot fit."""
    recipe = {**tiny, "batch_size": 4096, "width": 8.0}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(recipe))
    program = (
        "import resource, sys, alexnet, alexnet.cli; keras = alexnet.import_keras()\n"
        "from alexnet import training; import psutil\n"
        "limit = psutil.Process().memory_info().vms + 3 * 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.exit(alexnet.cli.main(['train', '--params', sys.argv[1]]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.yaml")], capture_output=True, text=True, timeout=240
    )
    assert found.returncode == 1, found.stderr[-2000:]
    assert "Out of memory with batch_size 4096. Try batch_size 2048." in found.stderr


@pytest.mark.slow
def test_a_signal_from_the_terminal(tiny, tmp_path):
    """A real Ctrl-C: a process of its own gets SIGINT in the middle of its training."""
    recipe = {**tiny, "epochs": 1000}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "alexnet", "train", "--params", str(tmp_path / "x.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = Recipe(**recipe).run_folder / BACKEND
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*.npz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (line,) = errors.splitlines()
    assert re.match(r"Interrupted (in|after) epoch \d+ of 1000.*The run is saved, in .*checkpoints: run the same", line)
    assert json.loads((folder / "metrics.json").read_text())["status"] == "interrupted"
    assert os.listdir(folder).count("model.keras") == 0
