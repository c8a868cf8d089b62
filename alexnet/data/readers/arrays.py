"""Images in one array: an `.npz`, a data set of `keras.datasets`, and the files of MNIST, SVHN and CIFAR."""

import gzip
import hashlib
import math
import re
import zipfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data import decoding
from alexnet.data.errors import DataError
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.readers.naming import SPLITS
from alexnet.data.source import ImageReader, LabeledImages, Parts
from alexnet.data.white_level import OVERSHOOT
from alexnet.packages import install, optional
from alexnet.recipe import Recipe

KERAS_DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist")
CLASS_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": None,
    "mnist": list("0123456789"),
    "fashion_mnist": ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"],
}
# Names of images and labels in an `.npz`, combined with the names of the parts: x_train, train_images, trainLabels, ...
_IMAGES = ("x", "images", "image", "data")
_LABELS = ("y", "labels", "label", "targets", "target")
_NAMES = ("classnames", "labelnames", "targetnames", "classes")
_CHANNELS = (1, 3, 4)


class ArrayReader(ImageReader):
    """One uint8 array `(n, height, width)` or `(n, height, width, 3 or 4)`; a fourth channel is transparency."""

    has_marks = True

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def name(self, index):
        return str(index)

    def image_size(self, index):
        return self.array.shape[2], self.array.shape[1]

    def mark(self, index):
        return hashlib.sha256(self.read(index)).digest()

    def read(self, index):
        return self.array[index].tobytes()

    def image(self, index, size):
        return decoding.resize_image(decoding.to_rgb(Image.fromarray(self.array[index])), size)


def load_keras_dataset(name: str) -> tuple[LabeledImages, LabeledImages]:
    """`(training, validation)` of a data set of `keras.datasets`, which downloads it once to Keras's own cache."""
    import keras

    try:
        training, validation = getattr(keras.datasets, name).load_data()
    except Exception as error:  # urllib, ssl, tarfile and Keras all raise their own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"data_dir: {name} could not be loaded by keras.datasets ({reason}).") from None
    class_names = CLASS_NAMES[name] or [str(label) for label in range(int(training[1].max()) + 1)]
    first, second = (
        LabeledImages.whole(ArrayReader(images), labels.reshape(-1), class_names, f"keras.datasets.{name}")
        for images, labels in (training, validation)
    )
    return first, second


def detect(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """The only `.npz` in a folder, or the files of MNIST, SVHN or CIFAR; None for anything else.

    Raises:
        DataError: the files are damaged, incomplete or Python pickles.
    """
    if view.path is None:
        return None
    files = [name for name in view.files if name.lower().endswith(".npz")]
    if len(files) == 1 and (not view.folders or _knows(view.path / files[0])):
        return read(view.path / files[0], recipe.white_level)
    return next((found for find in (_find_idx, _find_svhn, _find_cifar) if (found := find(view))), None)


def _source(images, labels, class_names, layout, notes=()):
    return LabeledImages.whole(
        ArrayReader(images), labels, class_names, layout, labels_from="its labels", notes=tuple(notes)
    )


# --- An .npz


def read(path: str | PathLike, white_level: float | None = None) -> Parts:
    """`(training, validation or None)` of an `.npz` with `x_train` and `y_train`, and perhaps `x_val` or `x_test`.

    The keys may also be `train_images` and `train_labels`, or only `x` and `y`. `x_val` is preferred to `x_test`.

    Images are `(n, height, width)`, or `(n, height, width, channels)` with 1, 3 or 4 channels; a fourth is
    transparency. `(n, channels, height, width)` is accepted if it is unambiguous. Pixels are whole numbers from 0 to
    255 or to 65535, floats from 0 to 1 or from 0 to 255, or 0 and 1, the same in all parts. Labels are `(n,)`, `(n, 1)`
    or one-hot, numbers or text; `class_names` may name the numbers.

    Args:
        path: Path of the file.
        white_level: The value that means white, if the pixels leave it open. None to take it from them.

    Raises:
        DataError: the file cannot be read, or holds something different.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = file.files
            chosen, names, notes = _chosen(path, keys)
            parts = [(part, x, file[x], file[y]) for part, x, y in chosen]
            names = None if names is None else file[names]
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, MemoryError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are not unpickled, since a pickle may run any code"
        raise DataError(f"data_dir: {path} cannot be read ({reason}).") from None
    images = [_laid_out(path, x, array, notes) for _, x, array, _ in parts]
    white = _white(path, [x for _, x, _, _ in parts], images, white_level, notes)
    labels = [_labels(path, own, len(array)) for array, (_, _, _, own) in zip(images, parts, strict=True)]
    if len({own.shape[1] for _, _, _, own in parts if own.ndim == 2} - {1}) > 1:
        raise DataError(f"data_dir: {path}: one-hot labels must have the same width in every part.")
    if names is None and len(labels) == 2 and (unknown_classes := set(labels[1].tolist()) - set(labels[0].tolist())):
        shown = ", ".join(sorted(map(str, unknown_classes))[:5])
        raise DataError(f"data_dir: {path} has labels that the training images lack: {shown}.")
    class_names, labels = _named(path, labels, names)
    found: dict[str, LabeledImages] = {}
    for (part, *_), array, own in zip(parts, images, labels, strict=True):
        found[part] = _source(_bytes(array, white), own, class_names, f"the arrays in {path.name}", notes)
    return found.pop("train", None), next(iter(found.values()), None)


def _normal(key):
    return re.sub("[^a-z]", "", key.lower())


def _matching(keys, words, part_names):
    """The keys for images (or labels) of a part. `part_names` is ("",) for keys that name no part."""
    wanted = {a + b for word in words for part in part_names for a, b in ((word, part), (part, word))}
    return [key for key in keys if _normal(key) in wanted]


def _knows(path):
    """Whether the keys of an `.npz` name images and labels: an unrelated one may be beside images by chance."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return bool(_chosen(path, file.files)[0])
    except Exception:  # zipfile and NumPy raise their own kinds
        return False


def _chosen(path, keys):
    """`([(part, key of its images, key of its labels)], key of the class names or None, notes)`."""
    found, notes = {}, []
    for part, part_names in (*SPLITS.items(), ("all", ("",))):
        x, y = _matching(keys, _IMAGES, part_names), _matching(keys, _LABELS, part_names)
        if len(x) > 1 or len(y) > 1:
            raise DataError(f"data_dir: {path} holds {', '.join(x if len(x) > 1 else y)}; keep only one of them.")
        if x and y:
            found[part] = x[0], y[0]
        elif x and part != "all":
            notes.append(f"{x[0]} has no labels and is passed over")
    if "all" in found:
        if len(found) > 1:
            raise DataError(f"data_dir: {path} holds {', '.join(keys)}; keep either x and y, or those of the parts.")
        found = {"train": found["all"]}
    if not found:
        raise DataError(
            f"data_dir: {path} must hold x_train and y_train, and may hold x_test and y_test or x_val and y_val. "
            f"Received: {', '.join(keys) or 'nothing'}."
        )
    if "val" in found and "test" in found:
        notes.append(f"validation from {found['val'][0]}; {found.pop('test')[0]} is passed over")
    names = [key for key in keys if _normal(key) in _NAMES]
    if len(names) > 1:
        raise DataError(f"data_dir: {path} holds {', '.join(names)}; keep only one of them.")
    return [(part, *pair) for part, pair in found.items()], names[0] if names else None, notes


def _laid_out(path, key, array, notes):
    """Images `(n, height, width)` or `(n, height, width, channels)`."""
    if array.dtype.kind not in "uifb":
        raise DataError(f"data_dir: {path}: images must be whole numbers or floats. Received: {array.dtype}.")
    if array.ndim == 4 and array.shape[1] in _CHANNELS and array.shape[3] not in _CHANNELS:
        notes.append(f"{key} is channels first, {array.shape}")
        array = array.transpose(0, 2, 3, 1)
    unclear = array.ndim == 4 and array.shape[1] in _CHANNELS and array.shape[2] not in _CHANNELS
    if array.ndim not in (3, 4) or 0 in array.shape or unclear or (array.ndim == 4 and array.shape[3] not in _CHANNELS):
        raise DataError(
            f"data_dir: {path}: images must be (n, height, width), or (n, height, width, channels) with 1, 3 or 4 "
            f"channels. Received: {array.shape} for {key}."
        )
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def _white(path, keys, arrays, white_level, notes):
    """The value that means white, the same for all parts, so that a dark part is not mistaken for a smaller range."""
    lows, highs = zip(*((float(array.min()), float(array.max())) for array in arrays), strict=True)
    low, high = np.min(lows), np.max(highs)  # unlike Python's min and max, these keep a NaN
    kinds = {"i" if array.dtype.kind == "u" else array.dtype.kind for array in arrays}
    possible = {"b": (1,), "i": (1, 255, 65535), "f": (1, 255)}[kinds.pop()] if len(kinds) == 1 else (255,)
    slack = OVERSHOOT if any(array.dtype.kind == "f" for array in arrays) else 0
    # The brightest of all pixels is near white. If it is not, the range may be different.
    fits = [
        white
        for white in (possible if white_level is None else (white_level,))
        if -slack * white <= low and high <= white * (1 + slack) and (high >= white / 4 or white_level is not None)
    ]
    if not fits:
        raise DataError(
            f"data_dir: {path}: pixels must go from 0 to 1 or from 0 to 255, or from 0 to 65535 if they are whole "
            f"numbers, and use most of the range. Received: {low:g} to {high:g}. Set white_level to the value that is "
            "white."
        )
    white = fits[0]
    for key, own in zip(keys, highs, strict=True):
        if white_level is None and white > 1 and 0 < own <= (1 + slack if white == 255 else 255):
            raise DataError(
                f"data_dir: {path}: {key} goes only to {own:g}, and another part to {high:g}; all need the same range."
            )
    if low < 0 or high > white:
        notes.append(f"pixels from {low:g} to {high:g} are clipped to 0 and {white:g}")
    if white not in (1, 255) or (white == 1 and possible[-1] == 65535):
        notes.append(f"{white:g} is white")
    return white


def _bytes(array, white):
    """The pixels as uint8 from 0 to 255."""
    if array.dtype == np.uint8 and white == 255:
        return array
    found = np.empty(array.shape, np.uint8)
    for index, image in enumerate(array):  # one by one: all at once would need several times the memory
        found[index] = np.rint(np.clip(image.astype(np.float64) * (255 / white), 0, 255))
    return found


def _labels(path, labels, count):
    """The labels as `(n,)`, whole numbers or text."""
    received = f"Received: {labels.dtype} {labels.shape} for {count:,} images."
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "uifb":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
            raise DataError(f"data_dir: {path}: labels of two dimensions must be one-hot. {received}")
        labels = labels.argmax(1)
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if (
        labels.shape != (count,)
        or labels.dtype.kind not in "uifbUS"
        or (labels.dtype.kind == "f" and not (labels == np.rint(labels)).all())
    ):
        raise DataError(f"data_dir: {path}: labels must be (n,), (n, 1) or one-hot. {received}")
    if labels.dtype.kind not in "US":
        return labels.astype(np.int64)
    labels = _text(path, labels)
    if (labels == "").any():
        raise DataError(f"data_dir: {path}: {np.sum(labels == ''):,} labels are empty.")
    return labels


def _text(path, values):
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError:
        raise DataError(f"data_dir: {path}: labels and names must be UTF-8.") from None


def _named(path, labels, names):
    """`(class names, labels as indices into them)`."""
    text = labels[0].dtype.kind == "U"
    if names is None:
        values, places = np.unique(np.concatenate(labels), return_inverse=True)
        return [str(value) for value in values], np.split(places, np.cumsum([len(own) for own in labels])[:-1])
    if names.ndim != 1 or len(set(names.tolist())) < len(names):
        raise DataError(f"data_dir: {path}: class_names must be a list of different names.")
    names = [str(name) for name in _text(path, names)]
    if text:
        if unknown_classes := sorted(set(np.concatenate(labels).tolist()) - set(names)):
            raise DataError(f"data_dir: {path}: class_names lacks {', '.join(unknown_classes[:5])}.")
        return names, [np.array([names.index(value) for value in own.tolist()]) for own in labels]
    if any(own.min() < 0 or own.max() >= len(names) for own in labels):
        low, high = min(own.min() for own in labels), max(own.max() for own in labels)
        raise DataError(
            f"data_dir: {path}: labels must be 0 to {len(names) - 1}, one for each of class_names. "
            f"Received: {low} to {high}."
        )
    return names, labels


# --- MNIST's files, and those of sets in the same format

_IDX = re.compile(r"(?:(.+)-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(?:\.gz)?", re.IGNORECASE)


def _find_idx(view):
    found = {}
    for name in sorted(view.files, key=len, reverse=True):  # the file itself goes before its .gz
        if match := _IDX.fullmatch(name):
            set_name, part, what = (group and group.lower() for group in match.groups())
            found.setdefault(set_name or "", {})[part, what] = view.path / name
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(name or "one without a name" for name in sorted(found))
        raise DataError(f"data_dir: {view.name} holds several sets ({names}); put each into a folder of its own.")
    ((set_name, files),) = found.items()
    parts = []
    for names in (("train",), ("t10k", "test")):
        own = [name for name in names if any(part == name for part, _ in files)]
        if not own:
            parts.append(None)
            continue
        missing = [what for what in ("images", "labels") if (own[0], what) not in files]
        if missing or len(own) > 1:
            reason = f"lacks the {missing[0]} of {own[0]}" if missing else "holds both t10k and test"
            raise DataError(f"data_dir: {view.name} {reason}.")
        parts.append((_idx(files[own[0], "images"], 3), _idx(files[own[0], "labels"], 1)))
    notes = ["images transposed, since EMNIST stores them on their side"] if set_name.startswith("emnist") else []
    return _digits(view, [pair and (pair[0].swapaxes(1, 2) if notes else pair[0], pair[1]) for pair in parts],
                   "files in MNIST's format", notes)  # fmt: skip


def _idx(path, rank):
    """The array in a file in MNIST's format."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data_dir: {path} cannot be read ({error}).") from None
    shape = tuple(int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis]) for axis in range(rank))
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) != 4 + 4 * rank + math.prod(shape) or 0 in shape:
        raise DataError(f"data_dir: {path} is damaged, or not in MNIST's format.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _digits(view, parts, layout, notes):
    """A source for each part `(images, labels)`, None for None. The classes are named by their numbers."""
    present = [pair for pair in parts if pair is not None]
    for images, labels in present:
        if len(images) != len(labels):
            raise DataError(f"data_dir: {view.name} has {len(images):,} images and {len(labels):,} labels in one part.")
    values = np.unique(np.concatenate([labels for _, labels in present]))
    names = [str(value) for value in values]
    return tuple(
        pair and _source(np.ascontiguousarray(pair[0]), np.searchsorted(values, pair[1]), names, layout, notes)
        for pair in parts
    )


# --- SVHN's files of single digits


def _find_svhn(view):
    names = {name.lower(): name for name in view.files}
    if not any(f"{part}_32x32.mat" in names for part in ("train", "test")):
        return None
    loader = optional("scipy.io")
    if loader is None:
        raise DataError(f"data_dir: {view.name} holds .mat files, which need SciPy. {install('scipy')}")
    parts = []
    for part in ("train", "test"):
        if f"{part}_32x32.mat" not in names:
            parts.append(None)
            continue
        path = view.path / names[f"{part}_32x32.mat"]
        try:
            arrays = loader.loadmat(path, variable_names=("X", "y"))
            images, labels = arrays["X"].transpose(3, 0, 1, 2), arrays["y"].reshape(-1)
        except Exception as error:  # SciPy raises many kinds, and the file may hold different arrays
            raise DataError(f"data_dir: {path} is not one of SVHN's files ({type(error).__name__}: {error}).") from None
        if images.dtype != np.uint8 or images.shape[3] != 3 or not np.isin(labels, range(11)).all():
            raise DataError(f"data_dir: {path} is not one of SVHN's files ({images.dtype} {images.shape}).")
        parts.append((images, labels % 10))  # SVHN labels the digit 0 as 10
    notes = ["extra_32x32.mat is passed over"] if "extra_32x32.mat" in names else []
    return _digits(view, parts, "SVHN's files", notes)


# --- CIFAR's binary files


def _find_cifar(view):
    names = set(view.files)
    if {"data_batch_1", "test_batch"} <= names or ({"train", "test", "meta"} <= names and not view.folders):
        raise DataError(
            f"data_dir: {view.name} holds CIFAR's Python version. It consists of pickles, which may run any code and "
            "are not read. Use the binary version, or data_dir: cifar10 or cifar100."
        )
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
    if "test_batch.bin" in names and set(batches) & names:
        if missing := [name for name in batches if name not in names]:
            raise DataError(f"data_dir: {view.name} lacks {', '.join(missing)} of CIFAR-10.")
        layout, files, labels_each, text = "CIFAR-10", (batches, ["test_batch.bin"]), 1, "batches.meta.txt"
    elif {"train.bin", "test.bin", "fine_label_names.txt"} <= names:
        files, labels_each, text, layout = (
            (["train.bin"], ["test.bin"]),
            2,
            "fine_label_names.txt",
            "CIFAR-100",
        )
    else:
        return None
    parts = [_cifar(view, own, labels_each) for own in files]
    class_names = (view.path / text).read_text(encoding="utf-8").split() if text in names else CLASS_NAMES["cifar10"]
    if max(labels.max() for _, labels in parts) >= len(class_names):
        raise DataError(f"data_dir: {view.name} has more labels than names in {text}.")
    return tuple(_source(images, labels, class_names, f"{layout}'s binary files") for images, labels in parts)


def _cifar(view, files, labels_each):
    """`(images, labels)` of CIFAR's records: one byte for each label, the fine one last, then pixels by channel."""
    each = labels_each + 32 * 32 * 3
    content = []
    for name in files:
        content.append(np.fromfile(view.path / name, np.uint8))
        if not len(content[-1]) or len(content[-1]) % each:
            raise DataError(f"data_dir: {view.path / name} is damaged: {len(content[-1]):,} bytes.")
    records = np.concatenate(content).reshape(-1, each)
    images = records[:, labels_each:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, labels_each - 1].astype(np.int64)
