"""A split's files as one table: which of its columns holds the images, and which the classes. Needs pyarrow."""

import copy
import json
import re
import unicodedata
from decimal import Decimal

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.naming import FLAG_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, SPLIT_OF, plain
from alexnet.data.readers.shards import ArrowReader, ParquetReader, StreamShard, has_bytes, open_shard, reading
from alexnet.data.readers.splits import some, words

_IMAGES = ("image", "img")
# How files of images begin.
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|II\*\0|MM\0\*|P[1-6]\s|....ftyp", re.DOTALL)


class _NoClasses(ValueError):
    """A column whose values are no classes. The message says what it holds."""


class Part:
    """A split whose files are opened when they are needed.

    Attributes:
        split: Which it is.
        where: What its images are called in messages, with their row.
        origin: As `LabeledImages.origin`.
        word: What `dataset_info.json` calls it.
        paths: Its files.
        rows: Which of their rows it has; None for all.
        info: What `dataset_info.json` says.
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
        """Its files, open.

        Raises:
            DataError: they cannot be read, or do not belong together.
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
                raise DataError(f"data_dir: {shard.path} has several columns of one name: {some(names)}.")
            if set(names) != set(first.schema.names):
                raise DataError(
                    f"data_dir: {shard.path} has other columns ({some(names)}) than {first.name} "
                    f"({some(first.schema.names)})."
                )

    def row(self, number):
        return f"{self.where} row {number}"

    def shown(self):
        """What of it is listed where it is passed over as a whole: a folder, files, or rows of a file."""
        if not self._whole:
            return [self.row(number) for number in self.rows]
        return [self.split.name] if self.split.name.endswith("/") else self.split.files

    def all_rows(self):
        """The numbers of its rows."""
        return np.arange(sum(map(len, self.shards))) if self.rows is None else self.rows

    def counted(self):
        """A sentence if `dataset_info.json` says that there are other numbers of rows."""
        splits = self.info.get("splits")
        for name, split in splits.items() if isinstance(splits, dict) else ():
            same = name == self.word if self.word else " ".join(words(name)) == self.split.key
            expected = split.get("num_examples") if isinstance(split, dict) else None
            found = sum(map(len, self.shards)) if self.rows is None else len(self.rows)
            if same and isinstance(expected, int) and expected != found:
                return [f"{self.info_name} tells of {expected:,} rows of {name}; {found:,} are there"]
        return []

    @property
    def columns(self):
        return self.shards[0].schema.names

    def is_within(self, other):
        """Whether it has no columns that another part lacks."""
        return set(self.columns) <= set(other.columns)

    def held(self):
        """The columns that hold bytes, and perhaps images."""
        return [name for name in self.columns if all(has_bytes(kind) for kind in self.types(name))]

    def types(self, name):
        """Arrow's types of a column, which may differ from file to file."""
        return [shard.schema.field(name).type for shard in self.shards]

    def features(self, name):
        """What Hugging Face notes about a column, in each place where it notes something."""
        if self._features is None:
            noted = {shard.schema.metadata[b"huggingface"] for shard in self.shards if _is_noted(shard.schema)}
            self._features = [_features(self.info), *(_features(_noted(text)) for text in sorted(noted))]
        return [features[name] for features in self._features if isinstance(features.get(name), dict)]

    def kind(self, name):
        """`"Image"`, `"ClassLabel"`, ... as Hugging Face notes it; None if it does not."""
        return next((feature.get("_type") for feature in self.features(name)), None)

    def class_names(self, label):
        """The names of the classes as Hugging Face notes them; None if it does not."""
        noted = [feature.get("names") for feature in self.features(label) if feature.get("_type") == "ClassLabel"]
        noted = [names for names in noted if isinstance(names, list) and names]
        if any(names != noted[0] for names in noted):
            raise DataError(
                f"data_dir: {self.where}: its files name the classes of column {label} in several ways: "
                f"{some(noted[0], 5)}; {some(next(names for names in noted if names != noted[0]), 5)}."
            )
        if noted and len(set(map(str, noted[0]))) < len(noted[0]):
            raise DataError(f"data_dir: {self.where}: two classes of column {label} have the same name.")
        return [str(name) for name in noted[0]] if noted else None

    def first(self, name):
        """Some values of a column, without those that are missing."""
        found = []
        for shard in self.shards[:3]:
            with reading(shard):
                found += [value for value in shard.first(name, 16) if value is not None]
        return found

    def codes(self, name):
        """`(values, codes)` of a column: each class once, and for each row which one, -1 for none.

        Raises:
            _NoClasses: it holds something else.
        """
        if name not in self._codes:
            try:
                self._codes[name] = _encode(self.shards, name)
            except _NoClasses as error:
                self._codes[name] = error
        if isinstance(self._codes[name], _NoClasses):
            raise self._codes[name]
        values, codes = self._codes[name]
        return values, codes if self.rows is None else codes[self.rows]

    def take(self, chosen):
        """The same split with the rows at `chosen` of those it has."""
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
    """`Part.codes` of all rows of some files."""
    from pyarrow import types

    numbers, pieces = {}, []
    for shard in shards:
        kind = shard.schema.field(name).type
        if types.is_nested(kind):
            raise _NoClasses("lists" if "list" in str(kind) else "several values")
        if types.is_temporal(kind):
            raise _NoClasses("times")
        with reading(shard):
            column = shard.column(name)
            try:
                column = column if types.is_dictionary(kind) else column.dictionary_encode()
            except NotImplementedError:
                raise _NoClasses(f"values of type {kind}") from None
            encoded = column.unify_dictionaries().combine_chunks()
            values = [_class(value) for value in encoded.dictionary.to_pylist()]
            found = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        own = [-1 if value is None else numbers.setdefault((type(value), value), len(numbers)) for value in values]
        pieces.append(np.array([*own, -1], np.int64)[found])  # the last is what -1 picks
    if len(kinds := {kind.__name__ for kind, _ in numbers}) > 1:
        raise _NoClasses(f"values of different types ({some(sorted(kinds))})")
    values, codes = [value for _, value in numbers], np.concatenate(pieces)
    return _as_whole_numbers(values, codes)


def _class(value):
    """A value as a class: a number, text, or None where it says that there is no class."""
    if isinstance(value, float | Decimal):
        if value != value:
            return None
        if value - value != 0 or value != int(value):
            raise _NoClasses("fractions")
        return int(value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise _NoClasses("bytes") from None
    if isinstance(value, str):
        value = unicodedata.normalize("NFC", value).strip()
        return None if value.lower() in ("", "nan") else value
    return value


def _as_whole_numbers(values, codes):
    """Text like 1.0, which programs write for 1 where a number is missing elsewhere, as 1."""
    if not all(isinstance(value, str) and re.fullmatch(r"-?\d+(\.0*)?", value) for value in values):
        return values, codes
    numbers = {}
    places = [numbers.setdefault(value.partition(".")[0], len(numbers)) for value in values]
    return list(numbers), np.array([*places, -1], np.int64)[codes]


# --- Which column


def find_image(part, asked):
    """The column of images.

    Raises:
        DataError: there is none, or several could be it.
    """
    held = part.held()
    if asked is not None:
        if asked not in part.columns:
            raise DataError(
                f"data_dir: {part.where} has no column {asked}. image_column may be one of: {some(part.columns)}."
            )
        if asked not in held:
            raise DataError(f"data_dir: {part.where}: column {asked} (image_column) holds no bytes of images.")
        return asked
    found = [name for name in held if part.kind(name) == "Image"]
    found = found or [name for name in held if _looks_like_images(part.first(name))]
    found = found or [name for name in held if name.lower() in _IMAGES]
    for name in _IMAGES:
        if len(found) > 1 and (called := [column for column in found if column.lower() == name]):
            found = called
    if len(found) > 1:
        raise DataError(
            f"data_dir: {part.where}: several columns could hold the images: {some(found)}; say which: image_column."
        )
    if not found:
        raise DataError(_neither(part))
    return found[0]


def _neither(part):
    return (
        f"data_dir: {part.where} must have a column of images (bytes) and one of labels. "
        f"Received: {some(part.columns, 20)}."
    )


def _looks_like_images(values):
    return any(content and _MAGIC.match(content) for content in map(_content, values))


def _require_bytes(part, image):
    """A table may hold the paths of images only; what lies there is not the data set's."""
    try:
        for shard in part.shards:
            with reading(shard):
                if any(_content(value) is not None for value in shard.first(image, 16)):
                    return
        for shard in part.shards:
            with reading(shard):
                if any(_content(value.as_py()) is not None for _, read in shard.groups(image) for value in read()):
                    return
    except DataError:  # something is there, if only damage
        return
    if sum(map(len, part.shards)):
        raise DataError(
            f"data_dir: {part.where}: column {image} holds no bytes of images, perhaps paths to them. Give the folder "
            "that they lie in, or save the data set with its images."
        )


def _content(value):
    return value.get("bytes") if isinstance(value, dict) else value


def find_label(part, image, asked):
    """`(column of the classes, sentences on what else could have been it)`.

    What Hugging Face notes goes before names, and names before values.

    Raises:
        DataError: there is none, or several could be it.
    """
    columns = [name for name in part.columns if name != image]
    if asked is not None:
        if asked not in columns:
            raise DataError(
                f"data_dir: {part.where} has no column {asked}. label_column may be one of: {some(columns)}."
            )
        return asked, []
    called = [name for label in LABEL_COLUMNS for name in columns if plain(name) == label]
    label = [name for name in called if plain(name) in ("label", "labels")]
    declared = [name for name in columns if part.kind(name) == "ClassLabel" and _splits_of(part, name) is None]
    if len(declared) > 1:
        chosen = [name for name in declared if name in label or name == "fine_label"][:1]
        if not chosen:
            return _one_of(part, declared), []
        left = some(name for name in declared if name not in chosen)
        return chosen[0], [f"the classes could also be those of {left} (label_column)"]
    if declared:
        rivals = [name for name in label if name not in declared and _looks_like_classes(part, name)]
        return _one_of(part, declared + rivals), []
    usable = [name for name in called if _has_classes(part, name)]
    if called and not usable:
        _require_classes(part, called[0])  # unless there is nothing in it: then nothing has a label
        return called[0], []
    likely = [name for name in usable if _looks_like_classes(part, name)]
    if not likely:
        likely = [name for name in columns if _looks_like_classes(part, name) and _splits_of(part, name) is None]
        if usable and likely:  # what is called so has another value in each row
            raise DataError(_several(part, usable + likely))
        likely = likely or usable
    if not likely:
        raise DataError(_neither(part))
    return _one_of(part, sorted(likely, key=lambda name: not _is_text(part, name))), []


def _one_of(part, names):
    """The first of some columns, if all divide the rows alike."""
    if any(_partition(part, name) != _partition(part, names[0]) for name in names[1:]):
        raise DataError(_several(part, names))
    return names[0]


def _several(part, names):
    return f"data_dir: {part.where}: several columns could hold the classes: {some(names)}; say which: label_column."


def _partition(part, name):
    """Which rows are of one class, whatever the classes are called."""
    _, first, inverse = np.unique(part.codes(name)[1], return_index=True, return_inverse=True)
    return first[inverse].tobytes()


def _has_classes(part, name):
    """Whether a column's values can be classes at all."""
    try:
        return bool(part.codes(name)[0])
    except _NoClasses:
        return False


def _looks_like_classes(part, name):
    """Whether a column's values are a few that come back."""
    if any(has_bytes(kind) for kind in part.types(name)) or not _has_classes(part, name):
        return False
    codes = part.codes(name)[1]
    codes = codes[codes >= 0]
    return 2 <= len(np.unique(codes)) <= max(2, len(codes) / 2)


def _is_text(part, name):
    return isinstance(part.codes(name)[0][0], str)


def require_columns(part, image, label):
    """Stop where a split does not have the columns that were decided on.

    Raises:
        DataError: one is missing, or holds something else.
    """
    for name, parameter in ((image, "image_column"), (label, "label_column")):
        if name not in part.columns:
            raise DataError(f"data_dir: {part.where} has no column {name} ({parameter}). It has {some(part.columns)}.")
    if image not in part.held():
        raise DataError(f"data_dir: {part.where}: column {image} (image_column) holds no bytes of images.")
    _require_bytes(part, image)
    _require_classes(part, label)


def _require_classes(part, label):
    try:
        part.codes(label)
    except _NoClasses as error:
        raise DataError(
            f"data_dir: {part.where}: labels must be numbers or text, one for each image. Column {label} holds {error} "
            "(label_column)."
        ) from None


def split_column(part, label=None):
    """`(column, kind of split that each row belongs to, None for another)` where a column says so; otherwise None."""
    for name in part.columns:
        if name != label and (kinds := _splits_of(part, name)) is not None:
            return name, kinds
    return None


def _splits_of(part, name):
    """For each row of a column the kind of split it names; None if its values are something else."""
    if any(has_bytes(kind) for kind in part.types(name)) or not _has_classes(part, name):
        return None
    values, codes = part.codes(name)
    if len(values) > 8:
        return None
    if flag := FLAG_COLUMNS.get(plain(name)):
        kinds = [flag if value == 1 else "train" for value in values] if set(values) <= {0, 1} else [None]
    else:
        names = part.class_names(name) or []
        values = [names[v] if isinstance(v, int) and 0 <= v < len(names) else v for v in values]
        kinds = [SPLIT_OF.get(value.lower()) if isinstance(value, str) else None for value in values]
    if not any(kinds) or (None in kinds and plain(name) not in SPLIT_COLUMNS):
        return None
    return np.array([*kinds, None], dtype=object)[codes]
