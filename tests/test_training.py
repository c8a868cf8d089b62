import csv
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import to_numpy, write_class_folders
from runs_helpers import BACKEND, Told, metrics, stop_after

from alexnet import training
from alexnet.data import DataError, TooManyBadImagesError
from alexnet.evaluation import label_rank
from alexnet.locking import FolderLock
from alexnet.recipe import Recipe, RecipeError
from alexnet.saving import detect_network, load_checkpoint, save_checkpoint
from alexnet.training import SGD, ReduceLROnPlateau, RunError, train
from alexnet.training.callbacks import TrimMemory
from alexnet.training.metrics import in_top_k


def test_a_run_and_its_folder(tiny):
    run = train(Recipe(**tiny), verbose=0)
    assert run.folder.parts[-3:] == ("runs", "tiny", BACKEND)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "README.md",
        "history.csv",
        "metrics.json",
        "model.keras",
        "params.yaml",
    ]

    assert Recipe.read(run.folder / "params.yaml") == Recipe(**tiny)
    found = metrics(run)
    assert (found["status"], found["backend"], found["name"]) == ("finished", BACKEND, "tiny")
    assert found["parameters"] == Recipe(**tiny).model_dump()
    assert found["data"]["class_names"] == ["cross", "ring", "triangle"]
    assert found["versions"]["keras"] == keras.__version__
    assert found["hardware"]["cores"] >= 1 and found["peak_memory_bytes"] > 1e8
    assert 0 < found["times"]["median_epoch_seconds"] <= found["times"]["seconds"]
    assert found["times"]["images_per_second"] > 0

    with (run.folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    for name in ("val_loss", "val_top1", "val_top5", "loss", "top1"):
        assert float(history[-1][name]) == pytest.approx(found["results"][name], rel=1e-5)
    assert found["results"]["val_top5"] == 1.0  # of three classes

    images = run.validation.center_crops(np.arange(6))
    loaded = keras.saving.load_model(run.folder / "model.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(images), run.model.predict_on_batch(images), rtol=1e-5)


@pytest.mark.slow
def test_it_learns(tiny, tmp_path):
    """Two shapes are learned in a few seconds, far above chance on unseen images."""
    folder = write_class_folders(tmp_path / "two", {"train": 120, "val": 30}, classes=["ring", "square"])
    run = train(
        Recipe(**{**tiny, "data_dir": str(folder), "epochs": 16, "width": 0.125, "learning_rate": 0.005}), verbose=0
    )
    assert metrics(run)["results"]["val_top1"] >= 0.8


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(tiny, policy):
    run = train(Recipe(**tiny, dtype_policy=policy), verbose=0)
    assert run.model.get_layer("conv2").compute_dtype == policy.removeprefix("mixed_")
    assert np.isfinite(run.history[-1]["loss"])
    train(Recipe(**{**tiny, "name": "after"}), verbose=0)
    assert keras.config.dtype_policy().name == "float32"


def process_settings():
    config = keras.config
    return config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy().name, random.getstate()


def test_a_run_leaves_the_process_as_it_was(tiny, monkeypatch):
    before = process_settings()
    recipe = Recipe(**{**tiny, "epochs": 1, "dtype_policy": "mixed_bfloat16"})
    run = train(recipe, verbose=0)
    assert process_settings() == before
    assert training.build_model(recipe, 3).get_layer("conv2").compute_dtype == "bfloat16"  # also outside of a run
    assert run.model.get_layer("conv2").compute_dtype == "bfloat16" and process_settings() == before
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 1, OSError("power"))
        train(recipe, verbose=0)
    with pytest.raises(DataError):
        train(recipe.replace(data_dir=tiny["run_dir"] + "/none"), verbose=0)
    assert process_settings() == before


def digest(model):
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(weight).tobytes() for weight in model.get_weights())
    ).hexdigest()


@pytest.mark.slow
def test_a_users_keras_json_does_not_reach_into_a_run(tiny, tmp_path):
    """In a process of its own, with a configuration file that changes everything: the same weights, to the bit."""
    recipe = Recipe(**{**tiny, "epochs": 1})
    expected = train(recipe, verbose=0)
    settings = {"floatx": "float16", "epsilon": 0.01, "image_data_format": "channels_first", "backend": "torch"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    (tmp_path / "x.yaml").write_text(recipe.replace(name="theirs").to_yaml())
    program = (
        "import sys, alexnet, torch; keras = alexnet.import_keras(); sys.path.insert(0, sys.argv[1])\n"
        "from test_training import digest\n"
        "assert keras.config.floatx() == 'float16'\n"
        "print(digest(alexnet.train(alexnet.Recipe.read(sys.argv[2]), verbose=0).model))\n"
        "assert keras.config.floatx() == 'float16' and keras.config.image_data_format() == 'channels_first'"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, os.path.dirname(__file__), str(tmp_path / "x.yaml")],
        env={**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.split()[-1] == digest(expected.model)
    times = {"seconds", "training_seconds"}
    theirs = training.read_history(recipe.run_folder.with_name("theirs") / BACKEND)
    for one, other in zip(theirs, training.read_history(expected.folder), strict=True):
        assert {k: v for k, v in one.items() if k not in times} == {k: v for k, v in other.items() if k not in times}


@pytest.mark.parametrize("setting", ["max_epochs", "max_steps_per_epoch"])
def test_a_training_that_keras_would_cut_short_is_refused(tiny, setting):
    limit = getattr(keras.config, f"set_{setting}")
    limit(1)
    try:
        with pytest.raises(RunError, match=f"cut the training short: .*KERAS_{setting.upper()}"):
            train(Recipe(**tiny), verbose=0)
    finally:
        limit(None)
    assert not Recipe(**tiny).run_folder.exists()


def test_training_counts_as_evaluation_does():
    """Equal scores, infinite ones and NaN, for every number of best classes."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (200, 6)).astype("float32")
    scores[rng.random(scores.shape) < 0.05] = np.nan
    scores[rng.random(scores.shape) < 0.05] = np.inf
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    labels = rng.integers(0, 6, 200).astype("int32")
    expected = label_rank(scores, labels)
    assert set(expected.tolist()) == set(range(7))
    for k in (1, 2, 5):
        np.testing.assert_array_equal(to_numpy(in_top_k(labels, scores, k)), expected < k)
        metric = training.TopK(k)
        metric.update_state(labels[:150], scores[:150])
        metric.update_state(labels[150:], scores[150:])
        assert float(metric.result()) == pytest.approx(np.mean(expected < k)) and metric.dtype == "float32"
    assert training.TopK.from_config(metric.get_config()).k == 5


def test_a_second_run_in_the_same_folder_is_refused(tiny, monkeypatch):
    """While the first one is running; what it has written stays as it is."""
    recipe, found = Recipe(**tiny), []
    real = training.callbacks.HistoryLogger.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        real(self, epoch, logs)
        with pytest.raises(RunError, match="in use by another process .*a different name"):
            train(recipe.replace(seed=5, resume=False), verbose=0)
        found.append(epoch)

    monkeypatch.setattr(training.callbacks.HistoryLogger, "on_epoch_end", on_epoch_end)
    run = train(recipe, verbose=0)
    assert found == [0, 1]
    assert Recipe.read(run.folder / "params.yaml").seed == metrics(run)["parameters"]["seed"] == 0
    assert not list(run.folder.glob(".*"))


def test_a_folder_that_another_run_has_taken(tiny, monkeypatch):
    """Someone removes the folder of a running run and starts another one there: the first does not write into it."""
    recipe, real = Recipe(**tiny), training.callbacks.HistoryLogger.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        folder = recipe.run_folder / BACKEND
        (folder / ".lock").unlink()
        with FolderLock(folder):
            before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
            try:
                real(self, epoch, logs)
            finally:
                assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before

    monkeypatch.setattr(training.callbacks.HistoryLogger, "on_epoch_end", on_epoch_end)
    with pytest.raises(RunError, match="was removed, and another run has started there"):
        train(recipe, verbose=0)


def test_another_number_of_threads_is_said(tiny, monkeypatch, caplog):
    recipe = Recipe(**tiny)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        stop_after(patch, 7, OSError("power"))
        train(recipe, verbose=0)
    threads = training.system_info.threads()
    monkeypatch.setattr(training.system_info, "threads", lambda: 99)
    assert metrics(train(recipe, verbose=0))["hardware"]["threads"] == 99
    assert f"The run was started with threads {threads}, now 99. It will not" in caplog.text


@pytest.mark.once
def test_interrupted_in_a_notebook(tiny, monkeypatch):
    """The kernel survives, with its own signal handlers again; one line says that the run is saved, and it resumes."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("JPY_SESSION_NAME", "open.ipynb")  # somebody is watching
    recipe = Recipe(**{**tiny, "epochs": 1000})
    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def execute(code):
            message = client.execute(code)
            while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != message:
                pass
            return reply["content"]

        start = (
            "import signal, alexnet; keras = alexnet.import_keras()\n"
            "handlers = lambda: [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]\n"
            f"before, recipe = handlers(), alexnet.Recipe(**{recipe.model_dump()!r})"
        )
        assert execute(start)["status"] == "ok"
        message = client.execute("alexnet.train(recipe)")
        folder, deadline = recipe.run_folder / BACKEND, time.monotonic() + 120
        while not list(folder.glob("checkpoints/*.npz")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != message:
            pass
        assert reply["content"]["ename"] == "Interrupted"
        (line,) = reply["content"]["traceback"]
        assert re.match(
            r"Interrupted (in|after) epoch \d+ of 1000.* is saved.*: run this cell again to resume\.$", line
        )
        shown = []
        while client.iopub_channel.msg_ready():
            shown.append(client.get_iopub_msg(timeout=10))
        assert "".join(each["content"].get("text", "") for each in shown).count("val top-1") == 1
        pages = [each["content"]["data"]["text/html"] for each in shown if each["msg_type"] == "update_display_data"]
        assert any("<progress" in page for page in pages)
        assert json.loads((folder / "metrics.json").read_text())["status"] == "interrupted"
        assert execute("assert handlers() == before")["status"] == "ok"
        done = len(training.read_history(folder))
        again = execute(f"alexnet.train(recipe.replace(epochs={done + 1}), verbose=0)")
        assert "epochs: 1000 there" in again["evalue"]  # it found the saved state
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_same_seed_gives_the_same_run(tiny):
    first, second = (train(Recipe(**{**tiny, "name": name}), verbose=0) for name in "ab")
    other = train(Recipe(**{**tiny, "seed": 1}), verbose=0)
    losses = [[epoch["loss"] for epoch in run.history] for run in (first, second, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_the_paper_s_update_rule():
    """Two steps by hand: decay inside the momentum, for kernels and not for biases."""
    kernel, bias = keras.Variable([[1.0, -2.0]]), keras.Variable([1.0])
    optimizer = SGD(learning_rate=0.1, momentum=0.9, decay=0.5)
    w, v, b, u = np.array([[1.0, -2.0]]), 0.0, 1.0, 0.0
    for _ in range(3):
        gradients = [keras.ops.convert_to_tensor([[0.2, 0.4]]), keras.ops.convert_to_tensor([0.3])]
        optimizer.apply(gradients, [kernel, bias])
        v = 0.9 * v - 0.5 * 0.1 * w - 0.1 * np.array([[0.2, 0.4]])
        w = w + v
        u = 0.9 * u - 0.1 * 0.3
        b = b + u
    np.testing.assert_allclose(to_numpy(kernel), w, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(bias), [b], rtol=1e-6)
    assert SGD.from_config(optimizer.get_config()).decay == 0.5


@pytest.mark.once
def test_the_schedule_is_the_rule_written_out():
    """Compared with the rule in plain Python on random validations; half-way the state moves to a new schedule."""

    class Model:
        optimizer = None

    rng = np.random.default_rng(0)
    for trial in range(20):
        patience, images = int(rng.integers(1, 4)), int(rng.integers(10, 200))
        Model.optimizer, rate = SGD(learning_rate=0.01), np.float32(0.01)
        best, waited, left = 0.0, 0, 3
        schedule = ReduceLROnPlateau(patience, images)
        for epoch, top1 in enumerate(np.cumsum(rng.normal(0.01, 0.03, 25)).clip(0, 1).tolist()):
            if top1 > best + (best * (1 - best) / images) ** 0.5:
                best, waited = top1, 0
            else:
                waited += 1
                if waited >= patience and left > 0:
                    rate, waited, left = np.float32(float(rate) / 10), 0, left - 1
            if epoch == 12:
                state, schedule = schedule.state, ReduceLROnPlateau(patience, images)
                schedule.state = json.loads(json.dumps(state))
            schedule.set_model(Model)
            schedule.on_train_begin()
            schedule.on_epoch_end(epoch, {"val_top1": top1})
            assert to_numpy(Model.optimizer.learning_rate) == rate, (trial, epoch)


def test_the_rate_is_divided_when_validation_stalls_at_most_three_times():
    class Model:
        optimizer = SGD(learning_rate=1.0)

    # Among 100 images the standard error of an accuracy of 0.2 is 0.04: 0.23 is no rise, 0.3 is one.
    schedule, rates = ReduceLROnPlateau(patience=2, images=100), []
    schedule.set_model(Model)
    for top1 in [0.1, 0.2, 0.23, 0.15, 0.3, 0.33, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]:
        schedule.on_epoch_end(0, {"val_top1": top1})
        rates.append(float(to_numpy(Model.optimizer.learning_rate)))
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001, 0.001])


def test_callbacks_of_the_user(tiny):
    told = Told(stop_after=2)
    run = train(Recipe(**{**tiny, "epochs": 5}), [told], verbose=0)
    steps = ["step"] * run.training.steps_per_epoch
    assert told.calls == ["begin", *steps, 0, *steps, 1, "end"]
    names = {"loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate"}
    assert all(set(logs) == names for logs in told.logs)
    assert [logs["val_loss"] for logs in told.logs] == [epoch["val_loss"] for epoch in run.history]
    found = metrics(run)
    assert (found["status"], found["results"]["epoch"], len(run.history)) == ("finished", 2, 2)
    assert (run.folder / "model.keras").is_file()

    plain = train(Recipe(**tiny).replace(name="plain"), verbose=0)  # the training does not depend on them
    for ours, theirs in zip(run.model.get_weights(), plain.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(RuntimeError, match="of the user's"):
        train(Recipe(**tiny).replace(name="failed"), [Told(error=RuntimeError("of the user's"))], verbose=0)
    assert json.loads((run.folder.parents[1] / "failed" / BACKEND / "metrics.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("callbacks", [Told(), [Told], "tensorboard", [0], 0])
def test_what_is_no_callback_is_refused(tiny, callbacks):
    with pytest.raises(TypeError, match="callbacks: expected a list of keras.callbacks.Callback"):
        train(Recipe(**tiny), callbacks, verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras writes for TensorBoard with TensorFlow")
def test_tensorboard(tiny, tmp_path):
    """TensorFlow does not include TensorBoard."""
    train(Recipe(**tiny), [keras.callbacks.TensorBoard(tmp_path / "board", write_graph=False)], verbose=0)
    events = b"".join(path.read_bytes() for path in (tmp_path / "board").rglob("events*"))
    assert b"epoch_top1" in events and b"epoch_loss" in events


def test_fine_tuning(tiny, tmp_path):
    """Frozen layers stay equal to the bit, others change, and a different number of classes gets a new classifier."""
    teacher = train(Recipe(**{**tiny, "name": "teacher"}), verbose=0)
    folder = write_class_folders(tmp_path / "two", {"train": 24, "val": 4}, classes=("heart", "square"))
    recipe = Recipe(**tiny).replace(data_dir=str(folder), weights=str(teacher.folder), freeze=5)
    before = training.build_model(recipe, 2)
    run = train(recipe, verbose=0)
    assert run.class_names == ["heart", "square"] and run.model.output.shape == (None, 2)
    for name in ("conv1", "conv5", "fc6", "fc7", "fc8"):
        after, start = run.model.get_layer(name).get_weights(), before.get_layer(name).get_weights()
        same = [np.array_equal(a, b) for a, b in zip(after, start, strict=True)]
        assert same == [name.startswith("conv")] * 2, name
    np.testing.assert_array_equal(
        before.get_layer("fc7").get_weights()[0], teacher.model.get_layer("fc7").get_weights()[0]
    )
    assert all(layer.trainable for layer in keras.saving.load_model(run.folder / "model.keras").layers)
    assert metrics(run)["parameters"]["freeze"] == 5


def test_nothing_can_be_frozen_without_weights(tiny):
    with pytest.raises(
        RecipeError, match="freeze: 2 layers cannot keep the checkpoint's values, because weights is None"
    ):
        train(Recipe(**tiny, freeze=2))


def test_a_finished_run_is_found_or_made(tiny):
    recipe = Recipe(**tiny)
    folder = training.load_or_train(recipe, verbose=0)
    stamp = (folder / "model.keras").stat().st_mtime_ns
    assert training.load_or_train(recipe.replace(epochs=1), verbose=0) == folder  # whatever its parameters
    assert (folder / "model.keras").stat().st_mtime_ns == stamp
    with pytest.raises(
        RunError, match="a run with a different width: 0.0625 there, 0.125 here. Give this run a different name"
    ):
        training.load_or_train(recipe.replace(width=0.125), matching=("network", "width"))
    assert [epoch["epoch"] for epoch in training.read_history(folder)] == [1, 2]


def test_ten_views_are_recorded(tiny):
    run = train(Recipe(**{**tiny, "views": 10, "epochs": 1}), verbose=0)
    found = metrics(run)
    assert set(found["ten_views"]) == {"top1", "top5", "loss"}
    assert found["ten_views"]["loss"] != found["results"]["val_loss"]
    assert training.evaluate(run.model, run.validation, views=10) == pytest.approx(found["ten_views"])


def test_a_finished_run_is_made_anew(tiny):
    for _ in range(2):
        run = train(Recipe(**tiny), verbose=0)
        assert [epoch["epoch"] for epoch in run.history] == [1, 2]


def test_what_cannot_be_read_is_left_out_and_listed(tiny, tmp_path, capsys):
    folder = write_class_folders(tmp_path / "data", {"train": 40, "val": 10})
    damaged = [folder / "train" / "ring" / "0003.jpg", folder / "val" / "cross" / "0001.jpg"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:400])
    recipe = Recipe(**{**tiny, "data_dir": str(folder), "max_skipped": 0.02})
    run = train(recipe, verbose=2)
    assert "2 of 150 images could not be read and were left out" in capsys.readouterr().out.splitlines()[-1]
    with (run.folder / "skipped.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == sorted(map(str, damaged))
    assert metrics(run)["skipped_images"] == 2
    with pytest.raises(TooManyBadImagesError, match="2 of 150 images cannot be read, more than max_skipped"):
        train(recipe.replace(max_skipped=0.01, resume=False), verbose=0)


def test_the_mean_of_the_training_images(tiny, tmp_path):
    recipe = Recipe(**{**tiny, "color_statistics": "training", "pca_color": 0.1, "epochs": 1})
    run = train(recipe, verbose=0)
    pixels = run.training.get_images(np.arange(len(run.training))).reshape(-1, 3)
    np.testing.assert_allclose(run.model.get_layer("mean").mean, pixels.mean(0), rtol=1e-9)
    components = run.training.pixel_stats.pca_components
    np.testing.assert_allclose(components @ components.T, np.cov(pixels.T, bias=True), rtol=1e-3)
    # The mean stays with the weights, however they are loaded, and is not replaced by that of other images.
    loaded = load_checkpoint(run.folder / "model.keras")
    assert detect_network(loaded) == "paper" and loaded.get_layer("mean").mean == pytest.approx(pixels.mean(0))
    save_checkpoint(loaded, tmp_path / "x.onnx")
    assert load_checkpoint(tmp_path / "x.onnx").get_layer("mean").mean == pytest.approx(pixels.mean(0), rel=1e-6)
    with pytest.raises(ValueError, match="cannot hold the mean of the training images"):
        save_checkpoint(loaded, tmp_path / "x.pth")
    again = training.build_model(recipe.replace(weights=str(run.folder)), 3)
    assert again.get_layer("mean").mean == pytest.approx(pixels.mean(0))


def test_nothing_is_written_when_the_data_cannot_be_used(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        train(Recipe(**{**tiny, "data_dir": str(tmp_path / "empty")}))
    assert not (tmp_path / "runs").exists()


def test_an_unwritable_folder_is_one_sentence(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="The run cannot be written to"):
        train(Recipe(**{**tiny, "run_dir": str(tmp_path / "file" / "runs")}))


def test_another_backend_is_refused(tiny):
    other = "jax" if BACKEND != "jax" else "torch"
    with pytest.raises(RunError, match=f"asks for {other}, but Keras runs on {BACKEND}"):
        train(Recipe(**tiny, backend=other))


def test_training_starts_from_given_weights(tiny):
    first = train(Recipe(**tiny), verbose=0)
    second = train(
        Recipe(
            **{
                **tiny,
                "name": "second",
                "weights": str(first.folder / "model.keras"),
                "learning_rate": 1e-12,
                "epochs": 1,
            }
        ),
        verbose=0,
    )
    for ours, theirs in zip(second.model.get_weights()[:16], first.model.get_weights()[:16], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_kept_memory_is_given_back_when_it_is_not_needed(monkeypatch):
    """After the first step of a run, and after an epoch that has left more memory than ever."""
    released, held = [], iter([100, 120, 126, 110, 157, 158])
    monkeypatch.setattr(training.callbacks, "trim_memory", lambda: released.append((epoch, step)))
    monkeypatch.setattr(training.callbacks, "memory_in_use", lambda: next(held))
    release = TrimMemory()
    for epoch in range(6):
        for step in range(2):
            release.on_train_batch_end(step)
        step = "end"
        release.on_epoch_end(epoch)
    assert released == [(0, 0), (2, "end"), (5, "end")]  # a quarter more than at the start, and than the last time
