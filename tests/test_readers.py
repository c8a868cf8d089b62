"""Every layout that data_dir may have, and the errors for those that cannot be used."""

import importlib
import inspect
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import recipe, refused, write_class_folders
from readers_helpers import WNIDS, fill, kaggle, named

from alexnet import mounts
from alexnet.data import DataError, ImageError, imagenet, load_data, load_test_data, readers
from alexnet.data import listing as listings
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers import filesystem, packed, tars
from alexnet.data.readers import imagenet as ilsvrc
from alexnet.recipe import PROJECT, Recipe

pytestmark = pytest.mark.once


# --- Folders


def test_train_and_val_folders(shapes_folder):
    training, validation = load_data(recipe(shapes_folder))
    assert (len(training), len(validation)) == (72, 18)
    assert training.class_names == validation.class_names == ["cross", "ring", "triangle"]
    assert (training.steps_per_epoch, validation.steps_per_epoch) == (9, 3)


@pytest.mark.parametrize("second", ["test", "valid", "validation"])
def test_other_names_of_the_second_folder(tmp_path, second):
    write_class_folders(tmp_path, {"train": 3, second: 2})
    assert [len(images) for images in load_data(recipe(tmp_path))] == [9, 6]


@pytest.mark.parametrize("split", ["", "train"])
def test_without_a_second_folder_some_are_held_out(tmp_path, split):
    write_class_folders(tmp_path / "d", {split: 20})
    training, validation = load_data(recipe(tmp_path / "d", validation_split=0.2))
    assert len(training) + len(validation) == 60 and 6 <= len(validation) <= 20
    assert set(training.labels) == set(validation.labels) == {0, 1, 2}
    assert not set(training.paths) & set(validation.paths)
    again = load_data(recipe(tmp_path / "d", validation_split=0.2))[1]
    other = load_data(recipe(tmp_path / "d", validation_split=0.2, seed=1))[1]
    assert again.paths == validation.paths != other.paths


@pytest.mark.parametrize("splits", [{"train": 12, "val": 3}, {"": 20}], ids=["split", "held-out"])
def test_a_few_images_of_each_class(tmp_path, splits):
    folder = write_class_folders(tmp_path / "d", splits)
    shutil.rmtree(folder / "train" / "cross", ignore_errors=True)
    if "train" in splits:
        write_class_folders(folder, {"train": 2}, classes=["cross"])

    def load(count=None, **values):
        return load_data(recipe(folder, images_per_class=count, validation_split=0.2, **values))

    training, validation = load(5)
    there = np.bincount(load()[0].labels)
    np.testing.assert_array_equal(np.bincount(training.labels), np.minimum(there, 5))
    assert validation.paths == load()[1].paths  # the validation images stay the same
    assert set(training.paths) < set(load(9)[0].paths) < set(load()[0].paths)
    assert load(5)[0].paths == training.paths != load(5, seed=1)[0].paths
    assert str(training.summary).endswith(f"; images_per_class 5: {len(training)} of {there.sum()} to train on")
    assert load(99)[0].paths == load()[0].paths
    assert len(load_test_data(recipe(folder, images_per_class=5), part="training")) >= there.sum()


def test_other_files_are_passed_over(tmp_path):
    write_class_folders(tmp_path / "d", {"train": 2, "val": 1})
    (tmp_path / "d" / "train" / "cross" / "notes.txt").touch()
    (tmp_path / "d" / "train" / "cross" / ".hidden.jpg").touch()
    (tmp_path / "d" / "train" / "empty").mkdir()
    assert len(load_data(recipe(tmp_path / "d"))[0]) == 6


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    write_class_folders(tmp_path / "one", {"": 3}, classes=["ring"])
    write_class_folders(tmp_path / "lonely", {"": 1})
    write_class_folders(tmp_path / "strange", {"train": 2, "val": 1})
    write_class_folders(tmp_path / "strange", {"val": 1}, classes=["star"])
    for name, message in {
        "absent": "there is no folder",
        "empty": "holds no images",
        "file": "is a file",
        "one": r"holds only one class \(ring\)",
        "lonely": "class cross has only one image",
        "strange": "classes that the training images lack: star",
    }.items():
        with pytest.raises(DataError, match=message) as error:
            load_data(recipe(tmp_path / name))
        assert str(error.value).startswith("data_dir: ") and "\n" not in str(error.value)
    with pytest.raises(DataError, match="Did you mean cifar10?"):
        load_data(recipe("cifar"))


# --- Trees of folders


def test_one_wrapper_folder_is_opened(tmp_path):
    write_class_folders(tmp_path / "a" / "archive" / "shapes", {"train": 2, "val": 1})
    (tmp_path / "a" / "README.md").touch()
    assert [len(images) for images in load_data(recipe(tmp_path / "a"))] == [6, 3]
    write_class_folders(tmp_path / "b" / "shapes", {"": 4})
    assert [len(images) for images in load_data(recipe(tmp_path / "b"))] == [9, 3]


def test_wrappers_without_end(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path)
    refused(tmp_path, "holds no images")


def test_a_pipe_is_no_table(tmp_path):
    write_class_folders(tmp_path, {"": 2})
    os.mkfifo(tmp_path / "labels.csv")  # reading it would wait forever
    assert len(load_data(recipe(tmp_path))[0]) == 3


@pytest.mark.parametrize(("first", "second"), [("Train", "Test"), ("training_set", "test_set"), ("TRAINING", "Val")])
def test_parts_are_called_many_things(tmp_path, first, second):
    write_class_folders(tmp_path, {f"{first}/{first}": 2, f"{second}": 1})
    fill(tmp_path, "pred/1.jpg")
    assert [len(images) for images in load_data(recipe(tmp_path))] == [6, 3]


def test_a_part_without_classes_is_left_out(tmp_path):
    write_class_folders(tmp_path, {"train": 3, "test": 2})
    fill(tmp_path, "val/1.jpg", "val/2.jpg")
    assert [len(images) for images in load_data(recipe(tmp_path))] == [9, 6]


def test_a_train_may_be_a_class(tmp_path):
    fill(tmp_path, *(f"{name}/{i}.jpg" for name in ("aeroplane", "bus", "train") for i in range(3)))
    assert load_data(recipe(tmp_path))[0].class_names == ["aeroplane", "bus", "train"]


def test_a_class_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    write_class_folders(tmp_path, {"train": 9, "val": 1})
    entries = listings._entries
    closed = [b"train/ring"]

    def guarded(path):
        if any(path.endswith(name) for name in closed):
            raise PermissionError(13, "Permission denied", path)
        return entries(path)

    monkeypatch.setattr(listings, "_entries", guarded)  # root, who runs tests in containers, may list everything
    training = load_test_data(recipe(tmp_path, max_skipped=0.5), part="training")
    assert training.class_names == ["cross", "triangle"] and len(training) == 18
    assert training.source.unreadable == ((f"{tmp_path}/train/ring", "cannot be listed (Permission denied)"),)
    assert dict(training.skipped.reasons) == dict(training.source.unreadable)
    closed += [b"train/cross", b"train/triangle"]
    refused(tmp_path, r"no training images \(.*cross cannot be listed")
    closed.append(b"train")
    refused(tmp_path, r"no training images \(.*train cannot be listed \(Permission denied\)")


def test_links_that_lead_back_or_nowhere(tmp_path):
    write_class_folders(tmp_path, {"": 2})
    (tmp_path / "ring" / "again").symlink_to(tmp_path)
    (tmp_path / "ring" / "self").symlink_to("self")
    (tmp_path / "ring" / "gone.jpg").symlink_to("nowhere")
    listing = listings.list_images(tmp_path)
    assert len(listing.names) == 7 and "ring/gone.jpg" in listing.names


def test_listings_are_remembered(tmp_path, monkeypatch):
    folder, cache = tmp_path / "d", tmp_path / "cache"
    names = [f"{name}/{i}.jpg" for name in ("a", "b/c", "\udcff") for i in range(3)]
    for name in names:
        fill(folder, name, content=b"")
    monkeypatch.setattr(listings, "REMEMBERED", 5)
    walks = []
    walk = listings._walk
    monkeypatch.setattr(listings, "_walk", lambda path: walks.append(path) or walk(path))

    def listed():
        found = listings.list_images(folder, cache)
        return list(found.names), found.directories, found.counts.tolist()

    def age():
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                os.utime(path, ns=(10**18, time.time_ns() - 10**10))

    first = listed()
    assert first == (sorted(names), ["", "a", "b", "b/c", "\udcff"], [0, 3, 0, 3, 3])
    assert not cache.exists()  # it has just changed, and may change again within the same time stamp
    age()
    assert [listed(), listed()] == [first, first] and len(walks) == 2
    (remembered,) = cache.iterdir()
    fill(folder, "b/c/more.jpg", content=b"")
    assert "b/c/more.jpg" in listed()[0] and len(walks) == 3
    age()
    assert len(listed()[0]) == 10 and len(walks) == 4
    for damage in (b"", b"PK\3\4", remembered.read_bytes()[:-400], remembered.read_bytes().replace(b"jpg", b"gif", 1)):
        remembered.write_bytes(damage)
        assert len(listed()[0]) == 10
    assert len(walks) == 8
    with open(remembered, "wb") as file:
        np.savez(file, text=np.array([object()], dtype=object), allow_pickle=True)
    assert len(listed()[0]) == 10 and len(walks) == 9 and len(list(cache.iterdir())) == 1
    remembered.unlink()
    cache.rmdir()
    cache.touch()  # not a folder: nothing can be written
    assert len(listed()[0]) == 10


def test_imagenet_as_kaggle_ships_it(tmp_path):
    folder = kaggle(tmp_path / "imagenet")
    images = load_test_data(recipe(folder), list(imagenet.names()))
    assert [list(imagenet.names())[label] for label in images.labels] == [WNIDS[i] for i in (2, 0, 0, 1, 2)]
    assert images.path(0).endswith("ILSVRC2012_val_00000000.JPEG")
    training, validation = load_data(recipe(folder))
    assert (len(training), len(validation), training.class_names) == (6, 5, WNIDS)
    only = kaggle(tmp_path / "validation", training=False)
    assert len(load_test_data(recipe(only))) == 5
    with pytest.raises(DataError, match="has no training images"):
        load_data(recipe(only))


def test_imagenet_with_broken_tables(tmp_path):
    for number, (table, text, message) in enumerate(
        [
            (ilsvrc.SOLUTION, "ImageId,PredictionString\n../../etc/passwd,n01440764 1 2 3 4\n", "none of the images"),
            (ilsvrc.SOLUTION, "a,b\n1,2\n", "cannot be used"),
            (ilsvrc.SOLUTION, "ImageId,PredictionString\nILSVRC2012_val_00000000,n99999999 1\n", "n99999999"),
            (ilsvrc.SOLUTION, "ImageId,PredictionString\nother,n01440764 1\n", "none of the images"),
        ]
    ):
        folder = kaggle(tmp_path / str(number))
        (folder / table).write_text(text)
        with pytest.raises(DataError, match=message):
            load_test_data(recipe(folder))
    (tmp_path / "0" / ilsvrc.SOLUTION).unlink()
    with pytest.raises(DataError, match=r"LOC_val_solution.csv cannot be read"):
        load_test_data(recipe(tmp_path / "0"))


# --- Tables


def test_cassava(tmp_path):
    """train.csv and train_images/, labels as numbers; test_images/ has none."""
    fill(tmp_path, *(f"train_images/{i}.jpg" for i in range(12)), *(f"test_images/{i}.jpg" for i in range(12)))
    rows = "\n".join(f"{i}.jpg,{(10, 9, 2)[i % 3]}" for i in range(12))
    (tmp_path / "train.csv").write_text(f"\ufeffimage_id,label\r\n{rows}\n", encoding="utf-8")
    (tmp_path / "sample_submission.csv").write_text("image_id,label\n0.jpg,4\n")
    training, validation = load_data(recipe(tmp_path, validation_split=0.25))
    assert len(training) + len(validation) == 12 and training.class_names == ["2", "9", "10"]
    assert training.source.layout == "images beside train.csv" and "/train_images/" in training.path(0)
    found = named(training) | named(validation)
    assert found == {f"{i}.jpg": ("10", "9", "2")[i % 3] for i in range(12)}


def test_dog_breeds(tmp_path):
    """labels.csv with ids without extensions, train/ flat, test/ without labels."""
    fill(tmp_path, *(f"train/{i:02d}ab.jpg" for i in range(8)), *(f"test/{i:02d}ab.jpg" for i in range(9)))
    rows = "\n".join(f"{i:02d}ab,{'beagle' if i % 2 else 'pug'}" for i in range(8))
    (tmp_path / "labels.csv").write_text(f"id,breed\n{rows}\n")
    training, validation = load_data(recipe(tmp_path))
    assert (len(training), len(validation), training.class_names) == (6, 2, ["beagle", "pug"])
    assert all("/train/" in path for path in training.paths + validation.paths)


def test_tables_with_a_validation_part_and_folders_in_the_ids(tmp_path):
    fill(tmp_path, *(f"images/{part}/{i}.png" for part in "ab" for i in range(2)))
    (tmp_path / "train.csv").write_text("File Path;Class Name\n./images/a/0.png;x\nb\\1.png;y\n")
    (tmp_path / "val.csv").write_text("filename\tlabel\na/1\ty\n")
    training, validation = load_data(recipe(tmp_path))
    assert named(training) == {"0.png": "x", "1.png": "y"} and named(validation) == {"1.png": "y"}


def test_names_that_stand_twice_in_a_table_of_two_parts(tmp_path):
    """Both rows have the same label, so nothing else reveals that they are about two files."""
    for table in ("train.csv", "labels.csv"):
        fill(tmp_path / table, *(f"{part}/{i}.png" for part in ("train", "test") for i in range(4)))
        (tmp_path / table / table).write_text("id,label\n" + "0,x\n1,y\n2,x\n3,y\n" * 2)
        refused(tmp_path / table, f"{table} has 0 more than once, and files of several parts have this name")


def test_rows_that_cannot_be_used(tmp_path):
    fill(tmp_path, *(f"train/{i}.jpg" for i in range(9)), "train/deep/8.jpg")
    fill(tmp_path, "train/10.jpg", "train/11.jpg")
    table = "id,label\n10,b\n11,b\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(6))
    table += "0,a\n1,a\n6,\n../../etc/passwd,a\n/etc/passwd,b\n8,b\nshort\n"
    (tmp_path / "labels.csv").write_text(table)
    images = load_test_data(recipe(tmp_path, max_skipped=1), part="training")
    assert named(images) == {"0.jpg": "a", "2.jpg": "a", "3.jpg": "b", "4.jpg": "a", "5.jpg": "b"} | {
        "10.jpg": "b",
        "11.jpg": "b",
    }
    assert images.skipped.reasons == {
        "1": "has two labels in labels.csv, b and a",
        "../../etc/passwd": "is in labels.csv, but there is no such file",
        "/etc/passwd": "is in labels.csv, but there is no such file",
        "8": "is in labels.csv, but several files have this name",
    }
    passed_over = {reason: list(names) for reason, names in images.source.passed_over}
    assert passed_over["no label"] == ["6", "short"] and passed_over["no row in the table"]
    (tmp_path / "labels.csv").write_text("id,label\n0,\n1,\n")
    refused(tmp_path, "labels.csv gives no image a label")


def test_tables_that_are_about_something_else(tmp_path):
    write_class_folders(tmp_path / "split", {"train": 2, "val": 1})
    (tmp_path / "split" / "birds.csv").write_text("filepaths,labels\ntrain/ring/0000.jpg,other\n")
    assert load_data(recipe(tmp_path / "split"))[0].class_names == ["cross", "ring", "triangle"]
    write_class_folders(tmp_path / "whole", {"": 2})
    (tmp_path / "whole" / "classes.csv").write_text("id,label\n7,ring\n")
    (tmp_path / "whole" / "notes.csv").write_text("a,b\n1,2\n")
    assert load_data(recipe(tmp_path / "whole"))[0].source.layout == "class folders"
    (tmp_path / "whole" / "names.csv").write_text("id,label\n0000,ring\n0001,cross\n")  # each class has such files
    assert load_data(recipe(tmp_path / "whole"))[0].source.layout == "class folders"
    fill(tmp_path / "none", "train/cover.jpg", "train/back.jpg")
    (tmp_path / "none" / "labels.csv").write_text("id,label\nother,x\n")
    refused(tmp_path / "none", "nothing that tells their classes. Supported layouts: class folders")


# --- File names and zips


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ([f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(3)], ["cat", "dog"]),
        ([f"{name}_{i}.jpg" for name in ("Abyssinian", "saint_bernard") for i in range(3)], None),
        ([f"{name} ({i}).png" for name in ("cup", "pan") for i in range(3)], ["cup", "pan"]),
    ],
)
def test_classes_in_the_file_names(tmp_path, names, classes):
    fill(tmp_path / "d", *names)
    training, validation = load_data(recipe(tmp_path / "d"))
    assert training.class_names == (classes or ["Abyssinian", "saint_bernard"])
    assert (len(training), len(validation), training.source.layout) == (4, 2, "classes in the file names")
    assert all(name.startswith(kind) for name, kind in named(training).items())


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], ["IMG_1.jpg", "IMG_2.jpg"], ["a1.jpg", "b1.jpg"], ["x.jpg"]])
def test_file_names_that_say_nothing(tmp_path, names):
    fill(tmp_path / "d", *names)
    refused(tmp_path / "d", "nothing that tells their classes")


# --- Kaggle


@pytest.mark.parametrize(
    ("place", "data_dir"),
    [
        ("pets", "pets"),
        ("competitions/pets", "pets"),
        ("datasets/somebody/pets", "pets"),
        ("datasets/somebody/pets", "somebody/pets"),
        ("pets", "somebody/pets"),
    ],
)
def test_a_slug_on_kaggle(tmp_path, monkeypatch, place, data_dir):
    monkeypatch.setattr(mounts, "INPUT", tmp_path)
    write_class_folders(tmp_path / place, {"": 2})
    assert load_test_data(recipe(data_dir)).path(0).startswith(f"{tmp_path / place}/cross/")
    for absent in ("../pets", "~nobody/pets", "a\0b", "x" * 5000):
        refused(absent, "there is no folder")
    refused("petz", "there is no folder petz")


def test_runs_on_kaggle_lie_where_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "WORKING", tmp_path)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert Recipe().run_folder == PROJECT / "runs" / "default"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert Recipe().run_folder == tmp_path / "runs" / "default"
    assert Recipe(run_dir="/elsewhere").run_folder == Path("/elsewhere/default")
    monkeypatch.setattr(mounts, "WORKING", tmp_path / "absent")
    assert Recipe().run_folder == PROJECT / "runs" / "default"


# --- Detectors


def test_detectors_are_called_alike():
    """So that one list can try them all, and the signature is known to anyone who adds one."""
    found = []
    for path in Path(readers.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"alexnet.data.readers.{path.stem}".removesuffix(".__init__"))
        functions = [each for name, each in inspect.getmembers(module, inspect.isfunction) if "detect" in name]
        found += [function for function in functions if function.__module__ == module.__name__]
    for function in (*found, *readers.DETECTORS):
        if function.__name__ != "_inside":
            parameters = inspect.signature(function).parameters.values()
            assert [each.name for each in parameters] == ["view", "recipe", "test_only"], function
            assert [each.default for each in parameters][2] is False
    assert len(found) >= 9


# --- Packed


def test_a_packed_set_is_found(tmp_path, monkeypatch):
    """It is recognized first; tests/test_packed.py tests the rest."""
    write_class_folders(tmp_path / "d", {"": 2})
    source = load_test_data(recipe(tmp_path / "d")).source
    monkeypatch.setattr(packed, "is_packed", lambda folder: folder == tmp_path / "d")
    monkeypatch.setattr(packed, "load_packed", lambda folder: (None, source))
    assert load_test_data(recipe(tmp_path / "d")).source is source


# --- Parts of files


def test_nothing_is_read_beyond_its_limits(tmp_path):
    fill(tmp_path, "short", content=b"12345")
    with open(tmp_path / "short", "rb", buffering=0) as file:
        assert filesystem.read_at(file, 2, 3) == b"345"
        for offset, size, message in ((2, 4, "ends too early"), (0, 2**30, "claims"), (0, -1, "claims")):
            with pytest.raises(OSError, match=message):
                filesystem.read_at(file, offset, size)
    reader = tars.TarReader(tmp_path / "short", PackedStrings.of(["a"]), np.array([3]), np.array([9]))
    with pytest.raises(ImageError, match="short/a cannot be read"):
        reader.image(0, 8)
