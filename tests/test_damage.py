"""Damaged data: only the bad file is lost, and nothing hangs."""

import csv
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from helpers import write_class_folders
from PIL import Image

from alexnet.cli import main
from alexnet.data import DataError, ImageError, TooManyBadImagesError, WorkerError, load_data, load_test_data
from alexnet.data.readers.filesystem import FolderReader
from alexnet.recipe import Recipe

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("error")]

COUNT = 20  # images of each of three classes


@pytest.fixture
def folder(tmp_path):
    return write_class_folders(tmp_path / "images", {"train": COUNT, "val": 5})


def load(folder, **values):
    return load_data(Recipe(**{"data_dir": str(folder), "resize": 72, "batch_size": 8, "max_skipped": 0.05, **values}))


def epochs(images, count):
    """Several passes over training images, as pixels and labels."""
    stream = iter(images.batches())
    batches = [next(stream) for _ in range(count * images.steps_per_epoch)]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def bomb(path):
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 not found</html>"),
    "bomb": bomb,
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a broken link": lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_one_bad_file_is_replaced_in_training_and_left_out_in_validation(folder, kind, capfd):
    whole = [set(images.paths) for images in load(folder)]
    training, validation = load(folder, cache_gb=0)  # the listing is made; only then the file goes bad
    bad = [folder / "train" / "ring" / "0007.jpg", folder / "val" / "cross" / "0002.jpg"]
    for path in bad:
        DAMAGE[kind](path)
    pixels, labels = epochs(training, 3)
    assert len(labels) == 3 * 7 * 8  # every batch is full
    assert 3 * COUNT - 10 <= np.sum(labels == 1) <= 3 * COUNT
    assert pixels.max(axis=(1, 2, 3)).min() > 0  # and no image is a black one
    seen = np.concatenate([y for _, y in validation.batches()])
    assert np.bincount(seen).tolist() == [4, 5, 5]
    squares = [np.concatenate(part) for part in zip(*validation.images(), strict=True)]
    assert squares[1].tolist() == [0, 0, -1, 0, 0] + [1] * 5 + [2] * 5 and not squares[0][2].any()
    assert set(training.skipped.reasons) == set(map(str, bad))
    assert [set(images.paths) for images in (training, validation)] == whole
    assert capfd.readouterr().err == ""


def test_a_bad_training_image_takes_no_validation_image_along(folder, tmp_path):
    """In an array, both parts have images with the names 0, 1, 2."""
    images = np.random.default_rng(0).integers(0, 255, (40, 72, 72, 3), np.uint8)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "x.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    training, validation = load(tmp_path / "x.npz", cache_gb=0)
    real = training.source.reader.image

    def square(index, size):
        if index == 3:
            raise ImageError("3", "is damaged")
        return real(index, size)

    training.source.reader.image = square
    epochs(training, 2)
    assert "3" in training.skipped.reasons
    assert sum(len(y) for _, y in validation.batches()) == 10


def test_the_substitute_is_the_same_each_time(folder):
    (folder / "train" / "ring" / "0007.jpg").write_bytes(b"no")
    first, second = (epochs(load(folder)[0], 2)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    late = load(folder)[0]
    np.testing.assert_array_equal(next(iter(late.batches(first=9)))[0], first[72:80])


def test_images_that_only_look_odd_are_read(folder):
    """A PNG with the extension .JPEG, CMYK, 16 bits, a palette, gray, transparency: none of them is damage."""
    place = folder / "train" / "odd"
    place.mkdir()
    red = Image.new("RGB", (90, 80), (255, 0, 0))
    red.save(place / "really.JPEG", format="PNG")
    red.convert("CMYK").save(place / "cmyk.jpg")
    red.convert("P").save(place / "palette.png")
    red.convert("L").save(place / "gray.jpg")
    red.convert("RGBA").save(place / "alpha.png")
    Image.fromarray(np.full((80, 90), 40000, np.uint16)).save(place / "deep.png")
    (folder / "val" / "odd").mkdir()
    red.save(folder / "val" / "odd" / "a.jpg")
    training, _ = load(folder)
    squares = training.get_images(np.flatnonzero(training.labels == training.class_names.index("odd")))
    assert len(squares) == 6 and squares.max(axis=(1, 2, 3)).min() > 60
    assert len(training.skipped) == 0


def test_too_much_damage_stops_and_says_how_much(folder):
    for path in sorted((folder / "train" / "ring").iterdir())[:3]:
        path.write_bytes(b"no")
    training, _ = load(folder, max_skipped=0.03)
    with pytest.raises(
        TooManyBadImagesError, match="in all, 3 of 75 images cannot be read, more than max_skipped .0.03. allows"
    ):
        epochs(training, 2)
    assert isinstance(training.failure, TooManyBadImagesError)  # TensorFlow wraps it
    assert len(epochs(load(folder, max_skipped=0.05)[0], 1)[1]) == 56


def test_nothing_that_can_be_read(folder):
    for path in (folder / "train").rglob("*.jpg"):
        path.write_bytes(b"no")
    with pytest.raises(TooManyBadImagesError, match="cannot be read"):
        epochs(load(folder, max_skipped=1.0)[0], 1)


def test_a_folder_that_may_not_be_listed(folder, monkeypatch):
    """Its images are missing, and it counts as one. (Root may list everything, so the refusal is simulated.)"""
    closed, real = folder / "train" / "triangle", os.scandir

    def scandir(path):
        if os.fsdecode(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(closed))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (folder / "val" / "triangle").rename(folder / "val" / ".hidden")
    training, _ = load(folder)
    assert training.class_names == ["cross", "ring"]
    assert training.skipped.reasons == {str(closed): "cannot be listed (Permission denied)"}


def test_the_list_of_what_was_left_out(folder, tmp_path):
    (folder / "val" / "ring" / "0001.jpg").write_bytes(b"")
    (folder / "val" / "ring" / "0000.jpg").write_bytes(b"text")
    images = load_test_data(Recipe(data_dir=str(folder), resize=72, max_skipped=0.2))
    list(images.batches())
    images.skipped.write(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"][-13:] for row in rows] == ["ring/0000.jpg", "ring/0001.jpg"]
    assert rows[0]["reason"].startswith("is not an image") and rows[1]["reason"] == "is empty"
    images.skipped.reasons.clear()
    images.skipped.write(tmp_path / "skipped.csv")
    assert not (tmp_path / "skipped.csv").exists()  # no list from an earlier time


def test_a_thread_that_fails_is_named_and_nothing_hangs(folder, monkeypatch):
    def broken(self, index):
        raise ZeroDivisionError("no bytes a second")

    monkeypatch.setattr(FolderReader, "read", broken)
    training, _ = load(folder)
    found = []

    def read():
        try:
            epochs(training, 1)
        except WorkerError as error:
            found.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive()
    assert "which prepares batches, failed at" in found[0] and "ZeroDivisionError: no bytes a second" in found[0]


def test_training_meets_damage_on_the_command_line(folder, tmp_path, capfd):
    """The run succeeds, with one line about what it left out; with too much damage it ends with status 1."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries that a training calls
    (folder / "train" / "ring" / "0007.jpg").write_bytes(b"no")
    command = ["train", "--data_dir", str(folder), "--run_dir", str(tmp_path / "runs")]
    command += ["--resize", "72", "--width", "0.0625", "--epochs", "1", "--batch_size", "12"]
    assert main([*command, "--max_skipped", "0.02"]) == 0
    said = capfd.readouterr()
    assert said.err == "" and "1 of 75 images could not be read and were left out" in said.out
    assert main([*command, "--name", "strict"]) == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said and "0007.jpg is not an image" in said and "max_skipped (0.01)" in said


def test_a_data_dir_without_any_image_is_still_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        load(tmp_path / "empty")
