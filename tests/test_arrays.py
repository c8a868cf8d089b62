"""Images in one array: what is white, which keys and labels, and the files of MNIST, SVHN and CIFAR."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from alexnet.data import DataError, load_data
from alexnet.data.readers import arrays
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 20, 24, 3), np.uint8)
PIXELS[:, 0, 0], PIXELS[:, 0, 1] = 0, 255
LABELS = np.arange(12) % 3


def read(tmp_path, **values):
    np.savez(tmp_path / "d.npz", **{"x_train": PIXELS, "y_train": LABELS, **values})
    return arrays.read(tmp_path / "d.npz")


def refused(tmp_path, message, **values):
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, **values)
    assert "\n" not in str(error.value)


# --- What is white


def overshooting(low, high):
    found = PIXELS / np.float32(255)
    found[0, 0, 0], found[0, 0, 1] = low, high
    return found


@pytest.mark.parametrize(
    "pixels",
    [PIXELS.astype(np.int64), PIXELS.astype(np.float16), PIXELS / 255, (PIXELS / 255).astype(np.float32),
     overshooting(0, 1.0000002), overshooting(-0.04, 1.06), PIXELS.astype(np.uint16) * 257,
     np.where(PIXELS == 255, 257.5, np.where(PIXELS == 0, -3.0, PIXELS)), PIXELS.astype(">u2")],
)  # fmt: skip
def test_ranges(tmp_path, pixels):
    found = read(tmp_path, x_train=pixels)[0].reader.array
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - PIXELS).max() <= 1


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int32, np.float32])
def test_zero_and_one(tmp_path, kind):
    mask = PIXELS[..., 0] > 100
    source = read(tmp_path, x_train=mask.astype(kind))[0]
    np.testing.assert_array_equal(source.reader.array, mask * 255)
    assert ("1 is white" in source.notes) == (kind in (np.uint8, np.int32))


@pytest.mark.parametrize(
    "pixels",
    [PIXELS / 127.5 - 1, PIXELS.astype(np.int16) - 128, PIXELS / 16, (PIXELS // 16).astype(np.uint8),
     PIXELS.astype(np.uint16) * 16, PIXELS * 2.0, PIXELS / 2550, np.full_like(PIXELS, np.nan, float), PIXELS * 0],
)  # fmt: skip
def test_ranges_that_do_not_tell_what_is_white(tmp_path, pixels):
    refused(tmp_path, "Set white_level to the value that is white", x_train=pixels)


def test_white_level(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=PIXELS.astype(np.uint16) * 16, y_train=LABELS)
    found = arrays.read(tmp_path / "d.npz", white_level=4080)[0].reader.array
    np.testing.assert_array_equal(found, PIXELS)
    with pytest.raises(DataError, match="Received: 0 to 4080"):
        arrays.read(tmp_path / "d.npz", white_level=255)


def test_parts_of_different_ranges(tmp_path):
    refused(tmp_path, "x_test goes only to 1, and another part to 255", x_test=PIXELS / 255, y_test=LABELS)
    # A dark part is still accepted.
    assert read(tmp_path, x_test=PIXELS // 5, y_test=LABELS)[1].reader.array.max() == 51


# --- Shapes


def test_channels(tmp_path):
    source = read(tmp_path, x_train=PIXELS.transpose(0, 3, 1, 2))[0]
    np.testing.assert_array_equal(source.reader.array, PIXELS)
    assert "x_train is channels first, (12, 3, 20, 24)" in source.notes
    clear = np.concatenate([PIXELS, np.zeros_like(PIXELS[..., :1])], -1)
    np.testing.assert_array_equal(read(tmp_path, x_train=clear)[0].reader.image(3, 20), 255)
    for shape in ((12, 480), (12, 3, 8, 3), (12, 8, 8, 2), (32, 32, 3, 12), (12, 8, 8, 3, 1)):
        refused(tmp_path, "images must be .*Received", x_train=RNG.integers(0, 256, shape, np.uint8))


# --- Keys and labels


@pytest.mark.parametrize(
    "keys",
    [("X_train", "Y_train"), ("train_images", "train_labels"), ("trainX", "trainY"), ("x", "y"), ("images", "labels"),
     ("data", "targets")],
)  # fmt: skip
def test_keys(tmp_path, keys):
    np.savez(tmp_path / "d.npz", **{keys[0]: PIXELS, keys[1]: LABELS})
    training, validation = arrays.read(tmp_path / "d.npz")
    assert len(training) == 12 and validation is None


def test_keys_with_two_readings(tmp_path):
    refused(tmp_path, "holds x_train, X_train; keep only one", X_train=PIXELS)
    refused(tmp_path, "keep either x and y, or those of the parts", images=PIXELS, labels=LABELS)
    both = {"x_val": PIXELS[:6], "y_val": LABELS[:6], "x_test": PIXELS, "y_test": LABELS}
    validation = read(tmp_path, **both)[1]
    assert len(validation) == 6 and "validation from x_val; x_test is passed over" in validation.notes
    training, validation = read(tmp_path, x_test=PIXELS)
    assert validation is None and "x_test has no labels and is passed over" in training.notes


@pytest.mark.parametrize(
    ("labels", "names"),
    [(LABELS + 1, "123"), (LABELS > 0, "01"), (LABELS.astype(float), "012"), (np.array([b"u", b"v", b"w"] * 4), "uvw"),
     (np.eye(3, dtype=bool)[LABELS], "012"), (LABELS.astype(np.uint8)[:, None], "012")],
)  # fmt: skip
def test_labels(tmp_path, labels, names):
    source = read(tmp_path, y_train=labels)[0]
    assert source.class_names == list(names)
    assert source.labels.tolist() == (np.minimum(LABELS, len(names) - 1)).tolist()


def test_labels_that_cannot_be_used(tmp_path):
    refused(tmp_path, "labels must be", y_train=np.where(LABELS == 2, np.nan, LABELS))
    refused(tmp_path, "labels must be", y_train=LABELS[:11])
    refused(tmp_path, "one-hot", y_train=np.eye(3)[LABELS] * 0.9)
    refused(tmp_path, "same width in every part", y_train=np.eye(3)[LABELS], x_test=PIXELS, y_test=np.eye(4)[LABELS])
    refused(tmp_path, "Python objects.*not unpickled", y_train=np.array(["u", None, "w"] * 4, object))
    refused(tmp_path, "4 labels are empty", y_train=np.array(["u", "", "w"] * 4))
    names = np.array(["u", "v", "w"])
    refused(tmp_path, "0 to 2, one for each of class_names. Received: 1 to 3", y_train=LABELS + 1, class_names=names)
    refused(tmp_path, "class_names lacks x", y_train=np.array(["u", "x", "w"] * 4), class_names=names)


def test_class_names_give_the_order(tmp_path):
    source = read(tmp_path, y_train=np.array(["w", "u", "w"] * 4), class_names=np.array([b"w", b"v", b"u"]))[0]
    assert source.class_names == ["w", "v", "u"] and source.labels.tolist() == [0, 2, 0] * 4


def test_an_npz_beside_class_folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (80, 80)).save(tmp_path / name / f"{number}.png")
    np.savez(tmp_path / "features.npz", features=np.zeros((4, 9)))
    assert load_data(Recipe(data_dir=str(tmp_path), resize=72))[0].class_names == ["a", "b"]


# --- Known files


def load(folder):
    training, validation = load_data(Recipe(data_dir=str(folder), resize=72, batch_size=8))
    return training.source, validation.source


def refused_folder(folder, message):
    with pytest.raises(DataError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("names", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte", "{}-{}-idx{}-ubyte.gz"])
def test_mnist(tmp_path, names):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 12), ("t10k", 6)):
        for what, array in (("images", PIXELS[:count, :20, :20, 0]), ("labels", LABELS[:count])):
            path = folder / names.format(part, what, array.ndim)
            path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    for data_dir in (folder, tmp_path):
        training, validation = load(data_dir)
        np.testing.assert_array_equal(training.reader.array, PIXELS[:, :20, :20, 0])
        assert (training.labels.tolist(), validation.labels.tolist()) == (LABELS.tolist(), LABELS[:6].tolist())
        assert training.class_names == ["0", "1", "2"] and "MNIST" in training.layout
    path = folder / names.format("train", "labels", 1)
    path.write_bytes(path.read_bytes()[:-3])
    refused_folder(folder, "train-labels.* (is damaged|cannot be read)")
    path.unlink()
    refused_folder(folder, "lacks the labels of train")


def test_emnist_is_turned_transposed_and_alone(tmp_path):
    for part in ("train", "test"):
        (tmp_path / f"emnist-digits-{part}-images-idx3-ubyte").write_bytes(idx(PIXELS[..., 0]))
        (tmp_path / f"emnist-digits-{part}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    training, _ = load(tmp_path)
    np.testing.assert_array_equal(training.reader.array, PIXELS[..., 0].swapaxes(1, 2))
    assert "transposed" in training.notes[0]
    (tmp_path / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"")
    refused_folder(tmp_path, "several sets .emnist-digits, emnist-letters.")


def test_svhn(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    pixels = RNG.integers(0, 256, (32, 32, 3, 12), np.uint8)
    for part, count in (("train", 12), ("test", 6)):
        values = {"X": pixels[..., :count], "y": np.where(LABELS == 0, 10, LABELS)[:count, None].astype(np.uint8)}
        scipy_io.savemat(tmp_path / f"{part}_32x32.mat", values)
    (tmp_path / "extra_32x32.mat").touch()
    training, validation = load(tmp_path)
    np.testing.assert_array_equal(training.reader.array[7], pixels[..., 7])
    assert training.class_names == ["0", "1", "2"] and validation.labels.tolist() == LABELS[:6].tolist()
    assert training.notes == ("extra_32x32.mat is passed over",)
    (tmp_path / "test_32x32.mat").write_bytes(b"no")
    refused_folder(tmp_path, "test_32x32.mat is not one of SVHN's files")


def records(labels, each=1):
    rows = [bytes([7] * (each - 1) + [label]) + PIXELS[i].tobytes()[:3] * 1024 for i, label in enumerate(labels)]
    return b"".join(rows)


def test_cifars_binary_files(tmp_path):
    ten, hundred = tmp_path / "ten", tmp_path / "hundred"
    ten.mkdir(), hundred.mkdir()
    for number in range(1, 6):
        (ten / f"data_batch_{number}.bin").write_bytes(records(LABELS))
    (ten / "test_batch.bin").write_bytes(records(LABELS[:6]))
    (ten / "batches.meta.txt").write_text("plane\ncar\nbird\n\n")
    training, validation = load(ten)
    assert (len(training), len(validation), training.class_names) == (60, 6, ["plane", "car", "bird"])
    flat = np.frombuffer(records(LABELS), np.uint8).reshape(12, -1)[5, 1:].reshape(3, 32, 32)
    np.testing.assert_array_equal(training.reader.array[5], flat.transpose(1, 2, 0))
    (ten / "data_batch_3.bin").write_bytes(b"short")
    refused_folder(ten, "data_batch_3.bin is damaged")
    (ten / "data_batch_3.bin").unlink()
    refused_folder(ten, "lacks data_batch_3.bin")
    for part in ("train", "test"):
        (hundred / f"{part}.bin").write_bytes(records(LABELS, 2))
    (hundred / "fine_label_names.txt").write_text("apple\nbee\ncloud\n")
    training, _ = load(hundred)
    assert training.class_names == ["apple", "bee", "cloud"] and training.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("names", [("data_batch_1", "test_batch", "batches.meta"), ("train", "test", "meta")])
def test_cifars_pickles_are_not_read(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"\x80\x02}.")
    refused_folder(tmp_path, "pickles, which may run any code and")
