"""Text, JSON and MATLAB files that list the images of a part: `train.txt`, `test_list.mat`."""

import csv
import io
import json
import os
from dataclasses import dataclass, replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers import csv_labels
from alexnet.data.readers.naming import PART_OF, is_plain_part, part_of, words
from alexnet.data.source import ENDING, NO_LIST, OTHER_SPLITS
from alexnet.packages import install, optional

ENDINGS = (".txt", ".lst", ".json", ".mat")
_MOST = 40  # files in one folder; if there are more, each is probably about one image
_LARGEST = 64 * 2**20
_SPLITS = {"train", "test"}, {"train", "val"}, {"train", "val", "test"}


@dataclass
class NameList:
    """A file that lists images.

    Attributes:
        path: The file, relative to the data set.
        images: Numbers of the listed images, sorted, int64.
    """

    path: str
    images: np.ndarray


def find_files(listing):
    """`{path: part}` of the files with names of lists of parts. The part is `"train"`, `"val"`, `"test"`, `"trainval"`,
    or `"split"` for a file about several parts."""
    folders = {}
    for reason, names in listing.passed_over:
        for name in names if reason == ENDING else ():
            if name.lower().endswith(ENDINGS) and (part := _part(name)):
                folders.setdefault(name.rpartition("/")[0], {})[name] = part
    return {name: part for files in folders.values() if len(files) <= _MOST for name, part in files.items()}


def _part(path):
    *above, stem = os.path.splitext(path)[0].split("/")
    found = {PART_OF[word] for word in words(stem.lower().replace("trainval", "train_val")) if word in PART_OF}
    if found in _SPLITS and "split" in words(stem):
        return "split"
    if found == {"train", "val"}:
        return "trainval"
    if len(found) == 1 and found != {"other"}:
        return found.pop()
    return part_of(above[-1]) if not found and above and is_plain_part(above[-1]) else None


def read_lines(view, path):
    """The rows of a text file, each a list of its fields, without lines that begin with #. An empty list if the rows
    do not all have the same number of fields."""
    text = _read(view, path).decode("utf-8", errors="replace")
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return []
    for delimiter in "\t,;":
        if all(delimiter in line for line in lines[:100]):
            rows = [
                [cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
            ]
            break
    else:
        rows = [line.split() for line in lines]
    return rows if len({len(row) for row in rows}) == 1 else []


def _read(view, path):
    *above, name = path.split("/")
    for folder in above:
        view = view.sub(folder)
    if view.path and (view.path / name).stat().st_size > _LARGEST:
        raise DataError(f"data_dir: {view.name}/{name} is too large for a list of parts.")
    return view.read(name)


def load_mat(view, name, content):
    """The variables in one of MATLAB's files.

    Raises:
        DataError: it cannot be read, or SciPy is not installed.
    """
    loader = optional("scipy.io")
    if loader is None:
        raise DataError(f"data_dir: {view.name} holds .mat files, which need SciPy. {install('scipy')}")
    try:
        return loader.loadmat(io.BytesIO(content), squeeze_me=True)
    except Exception as error:  # on damaged files SciPy raises many kinds
        raise DataError(f"data_dir: {view.name}/{name} cannot be read ({type(error).__name__}: {error}).") from None


def _columns(view, path):
    """`{any key: values}` of all columns in a file that may list images."""
    ending = os.path.splitext(path)[1].lower()
    if ending == ".mat":
        arrays = load_mat(view, path, _read(view, path)).items()
        return {key: list(map(str, np.atleast_1d(array))) for key, array in arrays
                if isinstance(array, np.ndarray) and array.dtype.kind in "OU" and array.ndim == 1}  # fmt: skip
    if ending == ".json":
        try:
            return {"names": list(_texts(json.loads(_read(view, path))))}
        except (ValueError, RecursionError):
            return {}
    rows = read_lines(view, path)
    columns = {str(number): list(values) for number, values in enumerate(zip(*rows, strict=True))}
    if len(columns) != 1:  # names may have spaces
        text = _read(view, path).decode("utf-8", errors="replace")
        columns["line"] = [line.strip() for line in text.splitlines() if line.strip()]
    return columns


def _texts(value):
    """All text in nested lists, and in the values of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _numbered(view, path):
    """`{part: names}` of a file with an image's number and a flag in each line, 1 for training. `images.txt` beside it
    has the names for the numbers."""
    rows = read_lines(view, path)
    try:
        names = dict(read_lines(view, os.path.join(os.path.dirname(path), "images.txt")))
    except (DataError, ValueError, OSError):  # it is missing, or has a different form
        return {}
    if not rows or len(rows[0]) != 2 or {flag for _, flag in rows} - {"0", "1"}:
        return {}
    return {part: [names.get(number, "") for number, flag in rows if flag == wanted] for part, wanted in _FLAGS}


_FLAGS = ("train", "1"), ("test", "0")


def read_lists(view, listing, indices):
    """`({part: [NameList]}, notes)` of the lists of a listing's images, with a note on each that names other files.

    Args:
        view, listing: Those of the data set.
        indices: Which of its images count.
    """
    columns = {}  # collected from all files, because each matching goes through all images
    found, notes = {}, []
    for path, part in find_files(listing).items():
        try:
            if part != "split":
                columns |= {(part, path, name): values for name, values in _columns(view, path).items()}
            elif path.lower().endswith(".txt"):
                columns |= {(part, path, "names"): names for part, names in _numbered(view, path).items()}
        except DataError as error:
            notes.append(f"{path} is not used ({str(error).removeprefix('data_dir: ')})")
    columns = {key: values for key, values in columns.items() if values}
    if not columns:
        return {}, notes
    matches = csv_labels.Files([listing.names[index] for index in indices.tolist()]).match(columns)
    for part, path in dict.fromkeys(key[:2] for key in columns):
        best = max((key for key in columns if key[:2] == (part, path)), key=lambda key: (matches[key][0] >= 0).mean())
        images = matches[best][0]
        named = int((images >= 0).sum())
        if 2 * named > len(images):
            found.setdefault(part, []).append(NameList(path, indices[np.unique(images[images >= 0])]))
            if left := [columns[best][row] for row in np.flatnonzero(images < 0).tolist()]:
                absent = int((csv_labels.Files(listing.names).match({"": left})[""][0] == csv_labels.NONE).sum())
                notes += [f"{path} names {absent:,} images that do not exist"] * bool(absent)
        elif (images != csv_labels.NONE).any():
            notes.append(f"{path} is not used: only {named:,} of its {len(images):,} lines name one image")
    return found, notes


def split(view, listing, source):
    """`(training, validation or None, paths of the lists)`: a source, divided by the data set's lists of parts.

    Lists that contradict each other are not used, and a note says so.
    """
    found, notes = read_lists(view, listing, source.indices)
    if {"train", "val"} <= set(found):
        found.pop("trainval", None)
    elif "trainval" in found:
        found["train"] = found.pop("trainval")
    parts = {part: own[0].images for part, own in found.items()}
    paths = [own.path for lists in found.values() for own in lists]
    source = replace(source, notes=(*source.notes, *notes))
    everything = np.concatenate([np.zeros(0, np.int64), *parts.values()])
    if len(everything) == len(source) and len(parts) == 1 or not parts:
        return source, None, ()
    differ = any(not np.array_equal(other.images, own[0].images) for own in found.values() for other in own[1:])
    if differ or len(np.unique(everything)) < len(everything):
        why = "name different images for one part" if differ else "share images"
        return replace(source, notes=(*source.notes, f"{', '.join(paths[:4])} {why} and are not used")), None, ()
    rest = np.setdiff1d(source.indices, everything)
    if "train" in parts and 2 * len(rest) > len(source):
        note = f"{', '.join(paths[:4])} name {len(everything):,} of {len(source):,} images and are not used"
        return replace(source, notes=(*source.notes, note)), None, ()
    second = next((part for part in ("val", "test") if part in parts), None)
    first = parts.get("train", rest)
    if not len(first):
        return source, None, ()
    passed_over = [(OTHER_SPLITS, images) for part, images in parts.items() if part not in ("train", second)]
    if "train" in parts:
        passed_over.append((NO_LIST if second else OTHER_SPLITS, rest))
    passed_over = [(reason, PackedStrings.of(listing.names[i] for i in images)) for reason, images in passed_over]
    training = source.take(np.flatnonzero(np.isin(source.indices, first)))
    training = replace(training, passed_over=(*source.passed_over, *(pair for pair in passed_over if len(pair[1]))))
    if second is None:
        note = f"{paths[0]} says which images are for training"
        return replace(training, notes=(*training.notes, note)), None, tuple(paths)
    validation = source.take(np.flatnonzero(np.isin(source.indices, parts[second])))
    return training, replace(validation, origin=found[second][0].path, passed_over=(), notes=()), tuple(paths)
