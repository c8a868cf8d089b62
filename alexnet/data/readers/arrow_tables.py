"""A split's Arrow and Parquet files as one table: its columns, their description, and their values as classes."""

import copy
import json
import re
import unicodedata
from decimal import Decimal

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.shards import ArrowReader, ParquetReader, StreamShard, has_bytes, open_shard, reading
from alexnet.data.readers.splits import some, words


class NoClasses(ValueError):
    """The values of a column cannot be classes. The message says what they are."""


class SplitTable:
    """A split whose files are opened when they are needed.

    Attributes:
        split: The `Split`.
        where: The name of its images in messages, where the row's number follows it.
        origin: See `LabeledImages`.
        word: Its name in `dataset_info.json`.
        paths: Its files.
        rows: Which rows of the files belong to it; None for all.
        info: The content of `dataset_info.json`.
    """

    def __init__(self, split, where, prepare):
        self.split = split
        self.where = where
        self.origin = split.name
        self.word = None
        self.paths = []
        self.rows = None
        self.info, self.info_name = {}, None
        self.passed_over, self.notes = [], []
        self._prepare = prepare
        self._whole = True
        self._shards = None
        self._features = None
        self._codes = {}

    @property
    def shards(self):
        """The open files, as `Shard`.

        Raises:
            DataError: they cannot be read, or have different columns.
        """
        if self._shards is None:
            if self._prepare:
                prepare, self._prepare = self._prepare, None
                prepare(self)
            if self._shards is None:  # `prepare` may have asked for them
                self._shards = [open_shard(path) for path in self.paths]
                self._check()
        return self._shards

    def _check(self):
        first = self._shards[0]
        for shard in self._shards:
            names = shard.schema.names
            if len(set(names)) < len(names):
                raise DataError(f"data_dir: {shard.path} has several columns with the same name: {some(names)}.")
            if set(names) != set(first.schema.names):
                raise DataError(
                    f"data_dir: {shard.path} has different columns ({some(names)}) from {first.name} "
                    f"({some(first.schema.names)})."
                )

    def row(self, number):
        return f"{self.where} row {number}"

    def shown(self):
        """The names to list if the whole split is passed over: a folder, files, or rows of a file."""
        if not self._whole:
            return [self.row(number) for number in self.rows]
        return [self.split.name] if self.split.name.endswith("/") else self.split.files

    def all_rows(self):
        """The numbers of its rows."""
        return np.arange(sum(map(len, self.shards))) if self.rows is None else self.rows

    def counted(self):
        """A list with a sentence if `dataset_info.json` states a different number of rows."""
        splits = self.info.get("splits")
        for name, split in splits.items() if isinstance(splits, dict) else ():
            same = name == self.word if self.word else " ".join(words(name)) == self.split.key
            expected = split.get("num_examples") if isinstance(split, dict) else None
            found = sum(map(len, self.shards)) if self.rows is None else len(self.rows)
            if same and isinstance(expected, int) and expected != found:
                return [f"{self.info_name} states {expected:,} rows of {name}, but there are {found:,}"]
        return []

    @property
    def columns(self):
        return self.shards[0].schema.names

    def is_within(self, other):
        """Whether the other part has all columns of this one."""
        return set(self.columns) <= set(other.columns)

    def held(self):
        """The columns that hold bytes, which may be images."""
        return [name for name in self.columns if all(has_bytes(kind) for kind in self.types(name))]

    def types(self, name):
        """Arrow's types of a column, which may differ from file to file."""
        return [shard.schema.field(name).type for shard in self.shards]

    def features(self, name):
        """Hugging Face's descriptions of a column, one for each file that has one."""
        if self._features is None:
            noted = {shard.schema.metadata[b"huggingface"] for shard in self.shards if _is_noted(shard.schema)}
            self._features = [_features(self.info), *(_features(_noted(text)) for text in sorted(noted))]
        return [features[name] for features in self._features if isinstance(features.get(name), dict)]

    def kind(self, name):
        """A column's type as Hugging Face describes it, `"Image"`, `"ClassLabel"`, ...; None without a description."""
        return next((feature.get("_type") for feature in self.features(name)), None)

    def class_names(self, label):
        """The names of the classes as Hugging Face describes them; None without a description."""
        noted = [feature.get("names") for feature in self.features(label) if feature.get("_type") == "ClassLabel"]
        noted = [names for names in noted if isinstance(names, list) and names]
        if any(names != noted[0] for names in noted):
            raise DataError(
                f"data_dir: {self.where}: its files name the classes of column {label} differently: "
                f"{some(noted[0], 5)}; {some(next(names for names in noted if names != noted[0]), 5)}."
            )
        if noted and len(set(map(str, noted[0]))) < len(noted[0]):
            raise DataError(f"data_dir: {self.where}: two classes of column {label} have the same name.")
        return [str(name) for name in noted[0]] if noted else None

    def first(self, name):
        """Some values of a column, without missing ones."""
        found = []
        for shard in self.shards[:3]:
            with reading(shard):
                found += [value for value in shard.first(name, 16) if value is not None]
        return found

    def codes(self, name):
        """`(values, codes)` of a column: each class once, and for each row the index of its class, -1 for none.

        Raises:
            NoClasses: its values cannot be classes.
        """
        if name not in self._codes:
            try:
                self._codes[name] = _encode(self.shards, name)
            except NoClasses as error:
                self._codes[name] = error
        if isinstance(self._codes[name], NoClasses):
            raise self._codes[name]
        values, codes = self._codes[name]
        return values, codes if self.rows is None else codes[self.rows]

    def take(self, chosen):
        """The same split with only the rows at `chosen`."""
        part = copy.copy(self)
        part.passed_over, part.notes = [], []
        part.rows, part._whole = self.all_rows()[chosen], False
        return part

    def reader(self, image):
        groups = []
        for shard in self.shards:
            with reading(shard):
                groups += shard.groups(image)
        if all(isinstance(shard, StreamShard) for shard in self.shards):
            return ArrowReader(self.where, [read() for _, read in groups])
        return ParquetReader(self.where, groups)


def _is_noted(schema):
    return schema.metadata is not None and b"huggingface" in schema.metadata


def _noted(text):
    try:
        return json.loads(text)["info"]
    except (TypeError, KeyError, ValueError, RecursionError):
        return None


def _features(info):
    features = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}


def _encode(shards, name):
    """`SplitTable.codes` of all rows of some files."""
    from pyarrow import types

    numbers, pieces = {}, []
    for shard in shards:
        kind = shard.schema.field(name).type
        if types.is_nested(kind):
            raise NoClasses("lists" if "list" in str(kind) else "several values")
        if types.is_temporal(kind):
            raise NoClasses("times")
        with reading(shard):
            column = shard.column(name)
            try:
                column = column if types.is_dictionary(kind) else column.dictionary_encode()
            except NotImplementedError:
                raise NoClasses(f"values of type {kind}") from None
            encoded = column.unify_dictionaries().combine_chunks()
            values = [_class(value) for value in encoded.dictionary.to_pylist()]
            found = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        own = [-1 if value is None else numbers.setdefault((type(value), value), len(numbers)) for value in values]
        pieces.append(np.array([*own, -1], np.int64)[found])  # a code of -1 picks the last entry
    if len(kinds := {kind.__name__ for kind, _ in numbers}) > 1:
        raise NoClasses(f"values of different types ({some(sorted(kinds))})")
    values, codes = [value for _, value in numbers], np.concatenate(pieces)
    return _as_whole_numbers(values, codes)


def _class(value):
    """A value as a class: a number, text, or None for no class."""
    if isinstance(value, float | Decimal):
        if value != value:
            return None
        if value - value != 0 or value != int(value):
            raise NoClasses("fractions")
        return int(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise NoClasses("bytes") from None
    if isinstance(value, str):
        value = unicodedata.normalize("NFC", value).strip()
        return None if value.lower() in ("", "nan") else value
    return value


def _as_whole_numbers(values, codes):
    """Text like 1.0 as 1. Programs write 1.0 for 1 if other numbers in the column are missing."""
    if not all(isinstance(value, str) and re.fullmatch(r"-?\d+(\.0*)?", value) for value in values):
        return values, codes
    numbers = {}
    places = [numbers.setdefault(value.partition(".")[0], len(numbers)) for value in values]
    return list(numbers), np.array([*places, -1], np.int64)[codes]
