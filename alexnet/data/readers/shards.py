"""Reads Arrow and Parquet files: their columns, and the images in them. Needs pyarrow."""

import os
import threading
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.filesystem import LARGEST
from alexnet.data.source import EncodedReader
from alexnet.packages import install

ENDINGS = (".parquet", ".pq", ".arrow", ".feather")


class ColumnReader(EncodedReader):
    """A column of images in several pieces.

    Args:
        name: The name of images in messages, where the row's number follows it.
        lengths: How many rows each piece has.
    """

    def __init__(self, name, lengths):
        self._name = name
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index):
        return f"{self._name} row {index}"

    def pieces(self, indices):
        """The number of the piece that holds each row."""
        return np.searchsorted(self._ends, indices, side="right")

    def piece(self, number):
        """The column's piece `number`, an Arrow array."""
        raise NotImplementedError

    def read(self, index):
        number = int(self.pieces(index))
        row = int(index) - (int(self._ends[number - 1]) if number else 0)
        value = self.piece(number)[row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:  # there may be a path to a file, but that file is not part of the data set
            raise OSError("it holds no bytes")
        if len(content) > LARGEST:
            raise OSError(f"it has {len(content):,} bytes")
        return content


class ArrowReader(ColumnReader):
    """Memory-mapped Arrow arrays: reading copies only the image."""

    def __init__(self, name, chunks):
        super().__init__(name, [len(chunk) for chunk in chunks])
        self._chunks = chunks

    def piece(self, number):
        return self._chunks[number]


class ParquetReader(ColumnReader):
    """Row groups of Parquet files, or batches of compressed Arrow files. Each can only be read whole, so the last few
    stay in memory.

    Args:
        groups: `(rows, function that reads the column)` of each.
    """

    KEPT = 4

    def __init__(self, name, groups):
        super().__init__(name, [rows for rows, _ in groups])
        self._groups = groups
        self._kept = OrderedDict()
        self._lock = threading.Lock()

    def piece(self, number):
        import pyarrow

        with self._lock:  # so that two threads that need the same group do not both read it
            if number not in self._kept:
                try:
                    self._kept[number] = self._groups[number][1]()
                except (pyarrow.ArrowException, ValueError) as error:
                    raise OSError(reason(error)) from None
                while len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def images(self, indices, size):
        order = np.argsort(self.pieces(indices), kind="stable")  # reads each group once per batch
        found = super().images(np.asarray(indices)[order], size)
        return [found[place] for place in np.argsort(order)]


class Shard:
    """One file of a table.

    Attributes:
        path: The file's path.
        name: The file's name, without folders.
        schema: Arrow's schema of its columns.
    """

    def __init__(self, path, schema):
        self.path = path
        self.name = os.path.basename(path)
        self.schema = schema

    def __len__(self):
        raise NotImplementedError

    def column(self, name):
        """A whole column, a `ChunkedArray`."""
        raise NotImplementedError

    def first(self, name, count):
        """The first `count` values of a column, at little cost."""
        return self.column(name).slice(0, count).to_pylist()

    def groups(self, name):
        """`(rows, function that reads them)` of each piece of a column."""
        raise NotImplementedError


class ParquetShard(Shard):
    def __init__(self, path):
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path, memory_map=True)
        super().__init__(path, self._file.schema_arrow)

    def __len__(self):
        return self._file.metadata.num_rows

    def column(self, name):
        return self._file.read(columns=[name]).column(name)

    def first(self, name, count):
        import pyarrow

        groups = [0] if self._file.num_row_groups else []
        try:
            batches = self._file.iter_batches(batch_size=count, row_groups=groups, columns=[name])
            return next((batch.column(name).to_pylist() for batch in batches), [])
        except (OSError, pyarrow.ArrowException):  # a damaged group affects only its own images
            return []

    def groups(self, name):
        def read(group):
            return self._file.read_row_group(group, columns=[name]).column(name).combine_chunks()

        metadata = self._file.metadata
        numbers = range(metadata.num_row_groups)
        return [(metadata.row_group(i).num_rows, lambda i=i: read(i)) for i in numbers]


class StreamShard(Shard):
    """Arrow's stream format, which `datasets` writes. It is mapped into memory and never read as a whole."""

    def __init__(self, path, table):
        super().__init__(path, table.schema)
        self._table = table

    def __len__(self):
        return self._table.num_rows

    def column(self, name):
        return _checked(self._table.column(name))

    def groups(self, name):
        return [(len(chunk), lambda chunk=chunk: chunk) for chunk in self.column(name).chunks]


class FeatherShard(Shard):
    """Arrow's file format (Feather), which other programs write. It may be compressed: batches are read one by one."""

    def __init__(self, path, mapped):
        self._mapped = mapped
        super().__init__(path, self._open().schema)
        # Rows are counted in a small column: one of images would have to be decompressed.
        widths = [_is_wide(field.type) for field in self.schema]
        reader = self._open([int(np.argmin(widths))] if widths else None)
        self._lengths = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]

    def __len__(self):
        return sum(self._lengths)

    def _open(self, fields=None):
        import pyarrow

        options = pyarrow.ipc.IpcReadOptions(included_fields=fields) if fields else None
        return pyarrow.ipc.open_file(self._mapped, options=options)

    def _only(self, name):
        return self._open([self.schema.get_field_index(name)])

    def column(self, name):
        return _checked(self._only(name).read_all().column(name))

    def first(self, name, count):
        reader = self._only(name)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        return next((batch.column(name).slice(0, count).to_pylist() for batch in batches if len(batch)), [])

    def groups(self, name):
        reader = self._only(name)
        return [(rows, lambda i=i: _valid(reader.get_batch(i).column(name))) for i, rows in enumerate(self._lengths)]


def _is_wide(kind):
    from pyarrow import types

    return not (types.is_primitive(kind) or types.is_dictionary(kind)) + (types.is_nested(kind) or is_binary(kind))


def _checked(column):
    for chunk in column.chunks:
        _valid(chunk)
    return column


def _valid(array):
    """The array, after checking its offsets: those of a damaged file could point anywhere in memory."""
    from pyarrow import types

    if types.is_struct(array.type):
        array.validate()
        for number in range(array.type.num_fields):
            if is_binary(array.type.field(number).type):
                array.field(number).validate(full=True)
    else:
        array.validate(full=True)
    return array


def is_binary(kind):
    """Whether an Arrow type is one of bytes."""
    from pyarrow import types

    views = getattr(types, "is_binary_view", lambda kind: False)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or views(kind)


def has_bytes(kind):
    """Whether a column of this Arrow type could hold images: bytes, or Hugging Face's struct of bytes and path."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and (is_binary(inner := kind.field(place).type) or types.is_null(inner))
    return is_binary(kind)


def open_shard(path):
    """The `Shard` of an Arrow or Parquet file.

    Raises:
        DataError: it cannot be read, or pyarrow is missing.
    """
    path = str(path)
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise DataError(f"data_dir: {path} needs pyarrow to be read. {install('pyarrow')}") from None
    with reading(path):
        if path.lower().endswith((".parquet", ".pq")):
            return ParquetShard(path)
        mapped = pyarrow.memory_map(path)
        try:
            return StreamShard(path, pyarrow.ipc.open_stream(mapped).read_all())
        except pyarrow.ArrowInvalid:
            mapped.seek(0)
            return FeatherShard(path, mapped)


@contextmanager
def reading(shard):
    """Turns pyarrow's errors while reading a `Shard`, or the file at a path, into a `DataError`."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException, KeyError) as error:
        raise DataError(f"data_dir: {getattr(shard, 'path', shard)}: {reason(error)}.") from None


def reason(error):
    """The first line of one of pyarrow's errors."""
    return str(error).partition("\n")[0].rstrip(".")
