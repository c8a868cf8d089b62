"""Data sets in one file: tars, zips, arrays."""

import gzip
import io
import os
import struct
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from helpers import jpeg, recipe, refused, write_class_folders
from readers_helpers import JPEG, WNIDS, fill, kaggle, named

from alexnet.data import listing as listings
from alexnet.data import load_data, load_test_data
from alexnet.data.decoding import decode_image
from alexnet.data.readers import imagenet as ilsvrc
from alexnet.data.readers import tars

pytestmark = pytest.mark.once


DEFLATED = {"compression": zipfile.ZIP_DEFLATED}


def zipped(path, members, **options):
    """A zip of `{name: content}`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def ilsvrc_tars(folder, kit=".tar.gz"):
    """A small ImageNet in ILSVRC's own files; the kit's numbers are not in the order of the ids."""
    from scipy.io import savemat

    classes = {}
    for number, wnid in enumerate(WNIDS):
        classes[f"{wnid}.tar"] = tar(
            folder / "one.tar", {f"{wnid}_{i}.JPEG": jpeg(seed=3 * number + i) for i in range(3)}
        ).read_bytes()
    (folder / "one.tar").unlink()
    tar(folder / ilsvrc.TRAINING_TAR, classes)
    tar(
        folder / ilsvrc.VALIDATION_TAR,
        {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(seed=50 + number) for number in (3, 1, 2, 4)},
    )
    kind = np.dtype([("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)])
    rows = [(1, WNIDS[2], 0), (2, WNIDS[0], 0), (3, WNIDS[1], 0), (1001, "n00001740", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, kind)})
    files = {f"{ilsvrc.DEVKIT}/data/{ilsvrc.META}": meta.getvalue()}
    files[f"{ilsvrc.DEVKIT}/data/{ilsvrc.TRUTH}"] = b"1\n2\n3\n1\n"
    if kit == ".tar.gz":
        tar(folder / f"{ilsvrc.DEVKIT}.tar.gz", files)
    else:
        for name, content in files.items():
            fill(folder, name, content=content)
    return folder


@pytest.mark.parametrize("kit", [".tar.gz", "folder"])
def test_imagenet_in_its_tars(tmp_path, kit, monkeypatch):
    folder = ilsvrc_tars(tmp_path / "d", kit)
    training, validation = load_data(recipe(folder))
    assert training.class_names == validation.class_names == WNIDS
    assert np.bincount(training.labels).tolist() == [3, 3, 3] and validation.labels.tolist() == [2, 0, 1, 2]
    assert training.source.layout == validation.source.layout == "ImageNet in ILSVRC's tar files"
    assert training.path(0) == f"{folder}/{ilsvrc.TRAINING_TAR}/{WNIDS[0]}.tar/{WNIDS[0]}_0.JPEG"
    np.testing.assert_array_equal(training.get_images([4])[0], decode_image(jpeg(seed=4), 72, ""))
    np.testing.assert_array_equal(validation.get_images([2])[0], decode_image(jpeg(seed=53), 72, ""))
    # If only the validation images are needed, only they are listed.
    monkeypatch.setattr(ilsvrc, "TRAINING_TAR", "absent")
    assert len(load_test_data(recipe(folder))) == 4


def test_imagenets_training_tar_alone(tmp_path):
    folder = ilsvrc_tars(tmp_path)
    (folder / f"{ilsvrc.DEVKIT}.tar.gz").unlink()
    training, validation = load_data(recipe(folder, validation_split=0.3))
    assert (len(training), len(validation), training.class_names) == (6, 3, WNIDS)
    (folder / ilsvrc.TRAINING_TAR).unlink()
    refused(folder, "not ILSVRC2012_devkit_t12, which has its classes")


def test_imagenets_tars_damaged(tmp_path):
    folder = ilsvrc_tars(tmp_path, "folder")
    data = folder / ilsvrc.DEVKIT / "data"
    (data / ilsvrc.TRUTH).write_text("1\n2\n")
    refused(folder, "has 4 images, but ILSVRC2012_validation_ground_truth.txt has 2 lines")
    (data / ilsvrc.TRUTH).write_text("1\n2\n3\n9\n")
    refused(folder, "cannot be used")
    (data / ilsvrc.META).write_bytes(b"no mat")
    refused(folder, "cannot be used")
    for damaged in (b"\x1f\x8bxx", b"", b"text" * 99, gzip.compress(b"text" * 999)[:-9], gzip.compress(b"")):
        fill(tmp_path / "kit", f"{ilsvrc.DEVKIT}.tar.gz", content=damaged)
        fill(tmp_path / "kit", ilsvrc.VALIDATION_TAR, content=(folder / ilsvrc.VALIDATION_TAR).read_bytes())
        refused(tmp_path / "kit", "a tar is damaged or incomplete|lacks meta.mat")
    (data / ilsvrc.META).unlink()
    refused(folder, "meta.mat cannot be read")
    whole = (folder / ilsvrc.TRAINING_TAR).read_bytes()
    for name in (data / ilsvrc.TRUTH, folder / ilsvrc.VALIDATION_TAR):
        name.unlink()
    data.rmdir()
    (folder / ilsvrc.DEVKIT).rmdir()
    for damaged in (whole[: len(whole) // 2], b"", b"no tar at all" * 100):
        (folder / ilsvrc.TRAINING_TAR).write_bytes(damaged)
        refused(folder, "a tar is damaged or incomplete|holds no tar for each class")


def test_the_index_of_a_tar_is_remembered(tmp_path, monkeypatch):
    folder = ilsvrc_tars(tmp_path / "d")
    path = folder / ilsvrc.TRAINING_TAR
    os.utime(path, ns=(10**18, 10**18))
    monkeypatch.setattr(listings, "REMEMBERED", 5)
    first = tars.list_tar(path, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        again = tars.list_tar(path, tmp_path / "cache")
    assert list(first[0].names) == list(again[0].names) and first[2] == again[2]
    assert again[0].read(3) == first[0].read(3) == jpeg(seed=3)
    os.utime(path)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(tarfile, "open", None)
        tars.list_tar(path, tmp_path / "cache")


CATS = [f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(4)]


def test_dogs_against_cats(tmp_path):
    fill(tmp_path / "open", *(f"train/{name}" for name in CATS), *(f"test/{i}.jpg" for i in range(9)))
    members = {f"train/{name}": JPEG for name in CATS} | {"__MACOSX/train/._cat.0.jpg": b"", "train/.DS_Store": b""}
    zipped(tmp_path / "closed" / "train.zip", members)
    zipped(tmp_path / "closed" / "test1.zip", {f"test1/{i}.jpg": JPEG for i in range(9)})
    (tmp_path / "closed" / "sampleSubmission.csv").write_text("id,label\n1,0\n")
    for name in ("open", "closed"):
        training, validation = load_data(recipe(tmp_path / name))
        assert (len(training), len(validation), training.class_names) == (6, 2, ["cat", "dog"])
    assert training.path(0).startswith(f"{tmp_path}/closed/train.zip/train/cat.")
    np.testing.assert_array_equal(training.get_images([5])[0], decode_image(JPEG, 72, ""))
    zipped(tmp_path / "closed" / "val.zip", {name: JPEG for name in CATS})
    assert [len(images) for images in load_data(recipe(tmp_path / "closed"))] == [8, 8]


@pytest.mark.parametrize("layout", ["classes", "split", "kaggle", "table", "names"])
def test_a_zip_is_read_as_a_folder_is(tmp_path, layout):
    folder = tmp_path / "d" / "wrapper"
    if layout == "classes":
        write_class_folders(folder, {"": 3})
    elif layout == "split":
        write_class_folders(folder, {"train": 3, "val": 1})
    elif layout == "kaggle":
        kaggle(folder)
    elif layout == "table":
        fill(folder, *(f"train/{i}.jpg" for i in range(4)))
        (folder / "labels.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    else:
        fill(folder, *CATS)
        folder = folder.parent
    files = {str(path.relative_to(tmp_path / "d")): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    archive = zipped(tmp_path / "data.zip", files, **DEFLATED)
    zipped(tmp_path / "beside" / "only.zip", files)
    for inside in (load_data(recipe(archive)), load_data(recipe(tmp_path / "beside"))):
        for open_, closed in zip(load_data(recipe(folder)), inside, strict=True):
            assert named(open_) == named(closed) and open_.class_names == closed.class_names
            assert open_.source.layout == closed.source.layout
            np.testing.assert_array_equal(open_.get_images(range(2)), closed.get_images(range(2)))


def test_damaged_members_of_a_zip(tmp_path):
    """Each affects one image: wrong bytes, encryption, an unknown method, too large, truncated."""
    path = zipped(tmp_path / "d.zip", {f"{'ab'[i % 2]}/{i}.jpg": JPEG for i in range(12)}, **DEFLATED)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    directory = content.index(b"PK\1\2")

    def central(name):  # where the member's entry in the directory begins
        return content.index(name.encode(), directory) - 46

    begin = members["a/0.jpg"].header_offset
    content[begin + 60 : begin + 600] = os.urandom(540)
    content[central("b/1.jpg") + 8] |= 1
    content[central("a/2.jpg") + 10] = 14  # LZMA
    struct.pack_into("<L", content, central("b/3.jpg") + 24, 2**30)
    content[members["a/4.jpg"].header_offset] = 0
    content[central("b/5.jpg") + 16] ^= 1
    path.write_bytes(content)
    images = load_test_data(recipe(path, max_skipped=1))
    squares = list(images.images())
    assert sum((labels >= 0).sum() for _, labels in squares) == 6
    reasons = {name.rpartition("/")[2]: reason for name, reason in images.skipped.reasons.items()}
    for name, reason in {
        "0.jpg": "the zip is damaged at this file",
        "1.jpg": "it is encrypted",
        "2.jpg": "its compression method, 14, is not supported",
        "3.jpg": "it claims 1,073,741,824 bytes",
        "4.jpg": "the zip is damaged at this file",
        "5.jpg": "wrong checksum",
    }.items():
        assert reason in reasons[name] and reasons[name].startswith("cannot be read (")


def test_many_threads_read_a_zip(tmp_path):
    contents = {f"{'ab'[i % 2]}/{i}.jpg": os.urandom(5000 + i) for i in range(40)}
    path = zipped(tmp_path / "d.zip", contents, **DEFLATED)
    reader = load_test_data(recipe(path)).source.reader
    wrong = []

    def read():
        for index in np.random.default_rng(0).integers(0, 40, 200):
            if reader.read(index) != contents[reader.name(index).removeprefix(f"{path}/")]:
                wrong.append(index)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_zips_that_cannot_be_used(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path / "text.zip", "cannot be read as a zip")
    refused(zipped(tmp_path / "empty.zip", {}), "holds no images")
    refused(zipped(tmp_path / "outer.zip", {"train.zip": b"", "test1.zip": b""}), "holds zips .*unzip the outer one")
    wicked = {f"../{name}/{i}.jpg": JPEG for name in "ab" for i in range(2)} | {"/etc/a.jpg": JPEG}
    refused(zipped(tmp_path / "wicked.zip", wicked), "holds no images")


# --- Arrays


def npz(path, count=12, shape=(20, 24, 3), kind=np.uint8, labels=None, parts=("train", "test"), **more):
    rng = np.random.default_rng(0)
    values = {}
    for part in parts:
        images = rng.integers(0, 256, (count, *shape))
        values[f"x_{part}"] = images / 255 if kind == "unit" else images.astype(kind)
        values[f"y_{part}"] = np.arange(count) % 3 if labels is None else labels
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**values, **more})
    return path


@pytest.mark.parametrize("shape", [(20, 24, 3), (20, 24, 1), (20, 24)])
@pytest.mark.parametrize("kind", [np.uint8, "unit", np.float32, np.int64])
def test_an_npz(tmp_path, shape, kind):
    path = npz(tmp_path / "d" / "data.npz", shape=shape, kind=kind)
    reference = load_data(recipe(npz(tmp_path / "reference.npz", shape=shape)))[1].get_images([4])
    for data_dir in (path, path.parent):
        training, validation = load_data(recipe(data_dir))
        assert (len(training), len(validation), training.class_names) == (12, 12, ["0", "1", "2"])
        np.testing.assert_array_equal(validation.get_images([4]), reference)
        assert training.source.layout == "the arrays in data.npz"


@pytest.mark.parametrize(
    "labels",
    [np.arange(12)[:, None] % 3, np.eye(3)[np.arange(12) % 3], np.arange(12) % 3 * 1.0, np.array(list("uvw") * 4)],
)
def test_labels_of_an_npz(tmp_path, labels):
    images = load_data(recipe(npz(tmp_path / "d.npz", labels=labels, class_names=np.array(["u", "v", "w"]))))[0]
    assert images.labels.tolist() == [0, 1, 2] * 4 and images.class_names == ["u", "v", "w"]


def test_pixels_of_an_npz(tmp_path):
    """Floats slightly outside of 0 to 1, whole numbers 0 and 1, 16 bits, channels first: white becomes 255 in each."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3))
    pixels[0, 0, 0] = 255
    exact = load_data(recipe(npz(tmp_path / "a.npz", parts=("train",), x_train=pixels.astype("u1"))))[0].get_images([3])
    for name, images in {
        "floats": np.where(pixels == 255, 1.0001, pixels / 255).astype("f4"),
        "sixteen": (pixels * 257).astype("u2"),
        "first": pixels.transpose(0, 3, 1, 2).astype("u1"),
    }.items():
        found = load_data(recipe(npz(tmp_path / f"{name}.npz", parts=("train",), x_train=images)))[0]
        np.testing.assert_allclose(found.get_images([3]).astype(int), exact.astype(int), atol=1)
    binary = load_data(recipe(npz(tmp_path / "b.npz", parts=("train",), x_train=(pixels > 99).astype("u1"))))[0]
    assert binary.get_images(range(9)).max() == 255 and binary.source.notes == ("1 is white",)
    refused(npz(tmp_path / "c.npz", parts=("train",), x_train=(pixels * 16).astype("u2")), "white_level")
    twelve = recipe(tmp_path / "c.npz", white_level=4080)
    np.testing.assert_array_equal(load_data(twelve)[0].get_images([3]), exact)


def test_an_npz_without_a_second_part(tmp_path):
    assert [len(images) for images in load_data(recipe(npz(tmp_path / "d.npz", parts=("train",))))] == [9, 3]
    assert len(load_data(recipe(npz(tmp_path / "e.npz", parts=("train", "val"))))[1]) == 12


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("pixels must go from 0 to 1 or .* Received: -1 to 1", {"x_train": np.array([-1.0, 1.0] * 6)}),
        ("Received: 0 to 70000", {"x_train": np.array([0, 70000] * 6)}),
        ("Received: nan to nan", {"x_train": np.array([np.nan, 1] * 6)}),
        ("whole numbers or floats. Received: complex128", {"x_train": np.array([1j] * 12)}),
        (r"images must be \(n, height, width\).*Received: \(12, 2, 8, 8\)", {"x_train": np.zeros((12, 2, 8, 8))}),
        (r"Received: \(0, 8, 8\)", {"x_train": np.zeros((0, 8, 8))}),
        (r"labels must be \(n,\).*Received: int64 \(5,\) for 12 images", {"y_train": np.arange(5)}),
        ("one-hot", {"y_train": np.ones((12, 3))}),
        ("labels must be", {"y_train": np.arange(12) / 2}),
        ("labels must be 0 to 1, one for each of class_names", {"class_names": np.array(["a", "b"])}),
        ("the training images lack: 7", {"x_test": np.zeros((2, 9, 9), np.uint8), "y_test": np.array([7, 0])}),
        ("different names", {"class_names": np.array(["a", "a", "b"])}),
        ("cannot be read", {"x_train": np.array([object()] * 12)}),
    ],
)  # fmt: skip
def test_an_npz_that_cannot_be_used(tmp_path, message, values):
    if "x_train" in values and values["x_train"].ndim == 1 and values["x_train"].dtype != object:
        values = {"x_train": np.tile(values["x_train"][:, None, None], (1, 8, 8))}
    refused(npz(tmp_path / "d.npz", parts=("train",), **values), message)


def test_files_that_are_no_npz(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    refused(tmp_path / "other.npz", "must hold x_train and y_train.*Received: images")
    (tmp_path / "text.npz").write_text("text")
    refused(tmp_path / "text.npz", "text.npz cannot be read")
    whole = npz(tmp_path / "half.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[:9000])
    refused(tmp_path / "half.npz", "half.npz cannot be read")
