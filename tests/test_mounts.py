"""Attachments of a notebook on Kaggle are found by their names, in both layouts, for data, weights and runs."""

import errno
import json
import os
import re
import shutil
import stat

import pytest
from helpers import recipe, refused, write_class_folders
from runs_helpers import BACKEND, stop_after

import alexnet
from alexnet import mounts
from alexnet.data import load_data, readers
from alexnet.locking import FolderLock
from alexnet.recipe import Recipe, RecipeError, resolve
from alexnet.training import RunError, load_or_train, train
from alexnet.training.attached import fetch_attached
from alexnet.weights import CheckpointError, find_weights

pytestmark = pytest.mark.once


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """The folders of a session, and the variable that identifies it."""
    for name in ("input", "working"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(mounts, name.upper(), tmp_path / name)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    return tmp_path


def attach(kaggle, place):
    (folder := kaggle / "input" / place).mkdir(parents=True)
    return folder


PLACES = {
    "datasets/me/pets": ["me/pets", "pets", "datasets/me/pets"],
    "competitions/pets": ["pets", "competitions/pets"],
    "notebooks/me/pets": ["me/pets", "pets", "notebooks/me/pets"],
    "models/me/pets/pytorch/large/2": ["me/pets/PyTorch/large/2", "me/pets/pytorch/large/2", "pets/pytorch/large/2"],
    "pets": ["me/pets", "pets"],
    "pets/pytorch/large/2": ["me/pets/PyTorch/large/2", "pets/PyTorch/large/2"],
}


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in PLACES.items() for name in names])
def test_each_kind_is_found_by_its_names(kaggle, place, name):
    folder = attach(kaggle, place)
    assert mounts.find_mount(name) == folder
    (folder / "in it.txt").touch()
    assert mounts.find_mount(f"{name}/in it.txt") == folder / "in it.txt"
    assert resolve(name) == folder
    for absent in (f"{name}s", f"{name}/../pets", f"{name}/none", "", "/", "../pets", "a\0b", "x" * 5000, "datasets"):
        assert mounts.find_mount(absent) is None


def test_a_name_of_several_things_is_refused_with_all_of_them(kaggle):
    first, second = attach(kaggle, "datasets/you/pets"), attach(kaggle, "notebooks/me/pets")
    assert mounts.find_mount("me/pets") == second and mounts.find_mount("you/pets") == first
    said = f"pets is the name of 2 attached things. Give the path of one: {first}, {second}."
    with pytest.raises(mounts.MountError) as error:
        mounts.find_mount("pets")
    assert str(error.value) == said
    refused("pets", said)
    with pytest.raises(CheckpointError, match="^weights: pets is the name of 2"):
        find_weights("pets")
    with pytest.raises(RecipeError, match="^pets is the name of 2"):
        resolve("pets")


def test_the_layout_that_tells_owners_goes_first(kaggle):
    """The other layout may hold somebody else's data set, or a link to the same one."""
    new = attach(kaggle, "datasets/me/pets")
    old = attach(kaggle, "pets")
    assert mounts.find_mount("me/pets") == new
    with pytest.raises(mounts.MountError):
        mounts.find_mount("pets")
    old.rmdir()
    old.symlink_to(new)
    assert mounts.find_mount("pets").samefile(new)


def test_data_and_weights_by_slug(kaggle, tiny, tmp_path):
    """A data set of images, and a model in another notebook's output, whose folder one need not know."""
    write_class_folders(attach(kaggle, "datasets/me") / "shapes3", {"train": 12, "val": 4})
    values = {**tiny, "data_dir": "me/shapes3", "run_dir": "runs", "epochs": 1, "name": "first"}
    first = train(Recipe(**values), verbose=0)
    assert first.folder == kaggle / "working" / "runs" / "first" / BACKEND
    shutil.move(kaggle / "working" / "runs", attach(kaggle, "notebooks/me/trained") / "runs")
    folder = kaggle / "input/notebooks/me/trained/runs/first" / BACKEND
    assert find_weights("me/trained") == find_weights(folder) == find_weights(folder / "model.keras") == folder
    second = train(Recipe(**{**values, "name": "second", "weights": "me/trained", "freeze": 1}), verbose=0)
    kernels = [run.model.get_layer("conv1").kernel for run in (first, second)]
    assert (kernels[0] == kernels[1]).all()
    assert alexnet.load_checkpoint("me/trained").count_params() == first.model.count_params()
    (folder / "other.keras").write_bytes((folder / "model.keras").read_bytes())
    assert find_weights(folder) == folder
    with pytest.raises(CheckpointError, match=f"2 other checkpoints. Give the path of one: {folder}/model.keras, "):
        find_weights("me/trained")
    with pytest.raises(CheckpointError, match="without a model.keras or any other checkpoint"):
        find_weights("me/shapes3")


def test_drawn_data_go_where_they_may(tmp_path, monkeypatch):
    """The project's folder may be an attached data set, which is read-only."""
    from alexnet.data import shapes

    monkeypatch.setitem(shapes.SPLITS, "signs", {"train": 2, "val": 1})
    places = [tmp_path / name / "data" for name in ("project", "cache", "shell")]
    monkeypatch.setattr(readers, "drawing_places", lambda: places)
    for place in places[:2]:
        place.parent.write_text("a file, so that even root cannot write below it")
    training, _ = load_data(recipe("signs", batch_size=4))
    assert training.path(0).startswith(f"{tmp_path}/shell/data/signs/")
    places[0].parent.unlink()
    assert readers._drawn("signs") == places[2] / "signs"  # existing images are not drawn again
    shutil.rmtree(places[2])
    assert readers._drawn("signs") == places[0] / "signs"
    shutil.rmtree(places[0])
    for place in (places[0].parent, places[2].parent):
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("")
    refused("signs", f"signs cannot be drawn into any of {places[0]}, {places[1]}, {places[2]} .Not a directory")


def test_where_drawn_data_may_go(kaggle, monkeypatch):
    from alexnet import recipe as recipes

    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert [str(place) for place in readers.drawing_places()] == [
        *(f"{recipes.PROJECT}/data", "/cache/alexnet/data"),
        f"{kaggle}/working/data",
    ]


# --- Sessions that resume


@pytest.mark.slow
def test_a_session_goes_on_from_the_output_of_the_last(kaggle, tiny, monkeypatch, capsys):
    """The output is attached read-only, and nobody copies anything; the result is that of a single session."""
    values = Recipe(**{**tiny, "run_dir": "runs", "name": "long", "save_steps": 2})
    whole = train(values.replace(name="whole"), verbose=0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="session"):
        stop_after(patch, whole.training.steps_per_epoch + 3, OSError("end of session"))
        train(values, verbose=0)
    output = attach(kaggle, "notebooks/me/trained") / "runs"
    shutil.move(kaggle / "working" / "runs", output)
    there = output / "long" / BACKEND
    for path in output.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    capsys.readouterr()
    resumed = train(values)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"The run of an earlier session, {there}, is copied to {resumed.folder}"
    assert any(re.match(r"Resuming in epoch 2 of \d+, after step \d of", line) for line in said)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert resumed.metrics["status"] == "finished" and any(there.glob("checkpoints/*.npz"))

    shutil.rmtree(kaggle / "working" / "runs")
    with pytest.raises(RunError, match="other parameters .width"):
        train(values.replace(width=0.125), verbose=0)
    assert (resumed.folder / "params.yaml").is_file()


def test_which_attached_run_is_copied(kaggle, tiny, capsys):
    """The unfinished run of this name in either layout, if there is none here; none if there are several."""
    values, here = Recipe(**{**tiny, "run_dir": "runs", "name": "long"}), kaggle / "working/runs/long/torch"

    def put(place, *names):
        for name in names:
            (path := kaggle / "input" / place / "runs/long/torch" / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_text(place)

    def copied(recipe=values, **options):
        shutil.rmtree(here, ignore_errors=True)
        fetch_attached(recipe, here, **options)
        return sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())

    files = ["checkpoints/step-000000016.npz", "figures/curves.png", "params.yaml"]
    put("trained", *files, ".lock", ".unfinished-x.tmp/new.npz")
    assert copied() == files and "is copied to" in capsys.readouterr().out
    assert copied(values.replace(resume=False)) == []
    (here / "params.yaml").parent.mkdir(parents=True)
    (here / "params.yaml").write_text("here")
    fetch_attached(values, here)
    assert (here / "params.yaml").read_text() == "here"
    put("datasets/me/copied", "params.yaml", "model.keras")
    assert copied(verbose=0) == files
    with pytest.raises(RunError, match="Several attached outputs hold a run called long: .*/trained/.*, .*/me/copied/"):
        copied(finished=True)
    shutil.rmtree(kaggle / "input" / "trained")
    assert copied() == [] and copied(finished=True, verbose=0) == ["model.keras", "params.yaml"]
    assert "copied" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_run_is_taken_from_an_attached_output(kaggle, tiny, monkeypatch):
    """03_evaluate finds the run of 02_train; training under its name again starts over, as it does elsewhere."""
    values = Recipe(**{**tiny, "run_dir": "runs", "epochs": 1})
    made = train(values, verbose=0)
    shutil.move(kaggle / "working" / "runs", attach(kaggle, "notebooks/me/trained") / "runs")
    with monkeypatch.context() as patch:
        patch.setattr("alexnet.training.train", None)
        folder = load_or_train(values, verbose=0)
    assert folder == made.folder and json.loads((folder / "metrics.json").read_text()) == made.metrics
    shutil.rmtree(folder)
    assert train(values, verbose=0).metrics["started"] >= made.metrics["started"]


# --- Colab


@pytest.mark.slow
def test_a_run_on_a_drive_that_cannot_do_everything(tiny, tmp_path, monkeypatch, caplog):
    """Like Drive in Colab, or worse: no locks, no modes, no links, folders that cannot be flushed, and files whose
    inode numbers change at each look. The run is still saved, resumed and finished."""
    real_fsync, real_fstat = os.fsync, os.fstat

    def unsupported(*_, **__):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    def fsync(descriptor):
        if stat.S_ISDIR(real_fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real_fsync(descriptor)

    for name in ("link", "symlink", "chmod", "mkfifo", "setxattr"):
        monkeypatch.setattr(os, name, unsupported)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(FolderLock, "_is_there", lambda self: not self._recognizable)
    values = Recipe(**{**tiny, "save_steps": 2})
    whole = train(values.replace(name="whole"), verbose=0)
    assert "cannot be locked (it does not recognize its own files)" in caplog.text
    monkeypatch.setattr("fcntl.flock", unsupported)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="session"):
        stop_after(patch, 5, OSError("end of session"))
        train(values, verbose=0)
    resumed = train(values, verbose=0)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert resumed.metrics["status"] == "finished" and not list(resumed.folder.glob(".*"))
    assert caplog.text.count("cannot be locked") == 3  # once per run
    assert "could not be saved" not in caplog.text and "Operation not supported" in caplog.text
