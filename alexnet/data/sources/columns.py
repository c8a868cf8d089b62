"""Data sets of Hugging Face: Arrow files as `save_to_disk` writes them, and Parquet files. Needs pyarrow."""

import json
import posixpath
import re
import threading
from collections import OrderedDict

import numpy as np

from alexnet.data.source import DataError, Source
from alexnet.data.stores import LARGEST, Encoded

_PARTS = {"train": "train"} | dict.fromkeys(("val", "valid", "validation", "test"), "validation")
_SHARD = re.compile(r"(?:.*/)?(train|validation|valid|val|test)(?:[-_./].*)?\.parquet", re.IGNORECASE)


class Rows(Encoded):
    """A column of images in several pieces, each with as many rows as `lengths` says.

    Args:
        name: What images are called in messages, with their number.
        lengths: Rows of each piece.
    """

    def __init__(self, name, lengths):
        self._name = name
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index):
        return f"{self._name} row {index}"

    def pieces(self, indices):
        """In which piece each row lies."""
        return np.searchsorted(self._ends, indices, side="right")

    def piece(self, number):
        """The column's part `number`, an Arrow array."""
        raise NotImplementedError

    def read(self, index):
        number = int(self.pieces(index))
        row = int(index) - (int(self._ends[number - 1]) if number else 0)
        value = self.piece(number)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:  # perhaps with a path to the file; whatever lies there is not the data set's
            raise OSError("it holds no bytes")
        if len(content) > LARGEST:
            raise OSError(f"it has {len(content):,} bytes")
        return content


class ArrowRows(Rows):
    """Memory-mapped Arrow arrays: reading copies the image and nothing else."""

    def __init__(self, name, chunks):
        super().__init__(name, [len(chunk) for chunk in chunks])
        self._chunks = chunks

    def piece(self, number):
        return self._chunks[number]


class ParquetRows(Rows):
    """Row groups of Parquet files. One can only be read whole, so the last few are kept."""

    KEPT = 4

    def __init__(self, name, files, column):
        groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        super().__init__(name, [file.metadata.row_group(group).num_rows for file, group in groups])
        self._groups = groups
        self._column = column
        self._kept = OrderedDict()
        self._lock = threading.Lock()

    def piece(self, number):
        import pyarrow

        with self._lock:  # two threads that need the same group shall not read it twice
            if number not in self._kept:
                file, group = self._groups[number]
                try:
                    column = file.read_row_group(group, columns=[self._column]).column(self._column)
                except (pyarrow.ArrowException, ValueError) as error:
                    raise OSError(str(error).partition("\n")[0]) from None
                self._kept[number] = column.combine_chunks()
                while len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def squares(self, indices, size):
        order = np.argsort(self.pieces(indices), kind="stable")  # each group once for a batch
        found = super().squares(np.asarray(indices)[order], size)
        return [found[place] for place in np.argsort(order)]


def find_saved(tree, test_only=False):
    """A data set that `save_to_disk` wrote: `dataset_dict.json` with a folder for each part, or one part."""
    if tree.path is None:
        return None
    if "dataset_dict.json" in tree.files:
        parts = {name: tree.sub(name) for name in tree.folders if name in _PARTS}
    elif "state.json" in tree.files and "dataset_info.json" in tree.files:
        parts = {"train": tree}
    else:
        return None
    if not parts:
        raise DataError(f"data_dir: {tree.name} has no part called {', '.join(_PARTS)}.")
    found = {}
    for name in _PARTS:  # several may hold the validation part: the first that has labels
        part = _PARTS[name]
        if name in parts and part not in found and (source := _saved(parts[name])):
            found[part] = source
    return _both(tree, found)


def _saved(tree):
    pyarrow = _pyarrow(tree)
    files = [name for name in tree.files if name.endswith(".arrow") and not name.startswith("cache-")]
    if not files:
        raise DataError(f"data_dir: {tree.name} holds no .arrow file.")
    try:
        tables = [_table(pyarrow, str(tree.path / name)) for name in files]
        table = pyarrow.concat_tables(tables)
        image, label, names = _columns(tree, table.schema)
        labels = table.column(label).to_pylist()
        chunks = table.column(image).chunks
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"data_dir: {tree.name}: {_reason(error)}.") from None
    return _source(tree, ArrowRows(tree.name, chunks), labels, names, "a data set that Hugging Face saved")


def _table(pyarrow, path):
    """All of an Arrow file, memory-mapped; `datasets` writes streams, others write files."""
    mapped = pyarrow.memory_map(path)
    try:
        return pyarrow.ipc.open_stream(mapped).read_all()
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        return pyarrow.ipc.open_file(mapped).read_all()


def find_parquet(tree, test_only=False):
    """Parquet files, `train-00000-of-00002.parquet` or `train/0000.parquet`, perhaps in a folder `data`."""
    if tree.path is None:
        return None
    if "data" in tree.folders and not any(name.endswith(".parquet") for name in tree.files):
        tree = tree.sub("data")
    below = [(tree, "")] + [(tree.sub(name), f"{name}/") for name in tree.folders if name.lower() in _PARTS]
    shards = [(folder.path / name, prefix + name) for folder, prefix in below for name in folder.files]
    shards = [(path, name) for path, name in shards if name.lower().endswith(".parquet")]
    if not shards:
        return None
    groups = {}
    for path, name in shards:
        match = _SHARD.fullmatch(name) or _SHARD.fullmatch(posixpath.dirname(name) + ".parquet")
        groups.setdefault(match[1].lower() if match else "train", []).append(path)
    found = {}
    for name in _PARTS:
        part = _PARTS[name]
        if name not in groups or part in found or (part == "train" and test_only and groups.keys() - {"train"}):
            continue
        if source := _parquet(tree, groups[name]):
            found[part] = source
    if test_only and not found and "train" in groups:
        found["train"] = _parquet(tree, groups["train"])
    return _both(tree, found)


def _parquet(tree, paths):
    pyarrow = _pyarrow(tree)
    from pyarrow import parquet

    path = paths[0]
    try:
        files = []
        for path in sorted(paths):
            files.append(parquet.ParquetFile(path, memory_map=True))
        image, label, names = _columns(tree, files[0].schema_arrow)
        labels = [value for file in files for value in file.read(columns=[label]).column(label).to_pylist()]
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise DataError(f"data_dir: {path}: {_reason(error)}.") from None
    kind = "Parquet files (packed first, they are read much faster: python -m alexnet pack)"
    first = str(min(paths))  # of this part: training and validation have rows of the same numbers
    name = first if len(files) == 1 else f"{first} and {len(files) - 1} more"
    return _source(tree, ParquetRows(name, files, image), labels, names, kind)


def _columns(tree, schema):
    """`(image column, label column, class names or None)` by what Hugging Face notes in the schema, or by type."""
    from pyarrow import types

    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    except (TypeError, KeyError, ValueError, AttributeError):
        features, kinds = {}, {}

    def has_bytes(kind):
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    images = [field.name for field in schema if has_bytes(field.type)]
    images.sort(key=lambda name: (kinds.get(name) != "Image", name not in ("image", "img")))
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    labels += [name for name in ("label", "labels", "class", "fine_label") if name in schema.names]
    if not images or not labels:
        raise DataError(
            f"data_dir: {tree.name} must have a column of images (bytes) and one of labels. "
            f"Received: {', '.join(schema.names)}."
        )
    names = features[labels[0]].get("names") if kinds.get(labels[0]) == "ClassLabel" else None
    return images[0], labels[0], names if isinstance(names, list) and names else None


def _source(tree, store, labels, names, kind):
    """Rows with a label: -1, or nothing, is how hidden ones are written. None where no row has any."""
    rows = [(row, label) for row, label in enumerate(labels) if label is not None and label != -1]
    if not rows:
        return None
    indices, labels = zip(*rows, strict=True)
    if len({type(label) for label in labels}) > 1 or not isinstance(labels[0], (int, str)):
        raise DataError(f"data_dir: {tree.name}: labels must be numbers or text. Received: {labels[0]!r:.40}.")
    if names is None:
        names = sorted(set(labels))
        number = {name: label for label, name in enumerate(names)}
        labels = [number[label] for label in labels]
    if not all(isinstance(label, int) and 0 <= label < len(names) for label in labels):
        raise DataError(f"data_dir: {tree.name} has labels that are not among its {len(names)} classes.")
    names = [str(name) for name in names]
    return Source(store, np.array(indices, np.int64), np.array(labels, np.int32), names, kind)


def _both(tree, found):
    if not found:
        raise DataError(f"data_dir: {tree.name} has no labels.")
    return found.get("train"), found.get("validation")


def _pyarrow(tree):
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"data_dir: {tree.name} needs pyarrow to be read: pip install pyarrow.") from None
    return pyarrow


def _reason(error):
    return str(error).partition("\n")[0].rstrip(".")
