"""Which column of a table holds the images, which holds the classes, and which names the split of each row."""

import re

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.arrow_tables import NoClasses
from alexnet.data.readers.naming import FLAG_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, SPLIT_OF, plain
from alexnet.data.readers.shards import has_bytes, reading
from alexnet.data.readers.splits import some

_IMAGES = ("image", "img")
# The first bytes of image files.
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|II\*\0|MM\0\*|P[1-6]\s|....ftyp", re.DOTALL)


def find_image(part, asked):
    """The column of images.

    Raises:
        DataError: there is none, or there are several candidates.
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
            f"data_dir: {part.where}: several columns could hold the images: {some(found)}; name one: image_column."
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
    """Stop if a table holds only paths of images: files at those paths are not part of the data set."""
    try:
        for shard in part.shards:
            with reading(shard):
                if any(_content(value) is not None for value in shard.first(image, 16)):
                    return
        for shard in part.shards:
            with reading(shard):
                if any(_content(value.as_py()) is not None for _, read in shard.groups(image) for value in read()):
                    return
    except DataError:  # the column holds something, even if it is damaged
        return
    if sum(map(len, part.shards)):
        raise DataError(
            f"data_dir: {part.where}: column {image} holds no bytes of images, but perhaps their paths. Give the "
            "folder that holds the images, or save the data set with them."
        )


def _content(value):
    return value.get("bytes") if isinstance(value, dict) else value


def find_label(part, image, asked):
    """`(column of the classes, sentences that name other candidates)`.

    Hugging Face's own description decides first, then the names of columns, then their values.

    Raises:
        DataError: there is none, or there are several candidates.
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
        _require_classes(part, called[0])  # an empty column passes: then no row has a label
        return called[0], []
    likely = [name for name in usable if _looks_like_classes(part, name)]
    if not likely:
        likely = [name for name in columns if _looks_like_classes(part, name) and _splits_of(part, name) is None]
        if usable and likely:  # the column with the right name has a different value in each row
            raise DataError(_several(part, usable + likely))
        likely = likely or usable
    if not likely:
        raise DataError(_neither(part))
    return _one_of(part, sorted(likely, key=lambda name: not _is_text(part, name))), []


def _one_of(part, names):
    """The first of some columns, if all divide the rows in the same way."""
    if any(_partition(part, name) != _partition(part, names[0]) for name in names[1:]):
        raise DataError(_several(part, names))
    return names[0]


def _several(part, names):
    return f"data_dir: {part.where}: several columns could hold the classes: {some(names)}; name one: label_column."


def _partition(part, name):
    """Which rows are in one class, whatever the classes' names."""
    _, first, inverse = np.unique(part.codes(name)[1], return_index=True, return_inverse=True)
    return first[inverse].tobytes()


def _has_classes(part, name):
    """Whether a column's values can be classes at all."""
    try:
        return bool(part.codes(name)[0])
    except NoClasses:
        return False


def _looks_like_classes(part, name):
    """Whether a column has few different values, which repeat."""
    if any(has_bytes(kind) for kind in part.types(name)) or not _has_classes(part, name):
        return False
    codes = part.codes(name)[1]
    codes = codes[codes >= 0]
    return 2 <= len(np.unique(codes)) <= max(2, len(codes) / 2)


def _is_text(part, name):
    return isinstance(part.codes(name)[0][0], str)


def require_columns(part, image, label):
    """Check that a split has the chosen columns.

    Raises:
        DataError: one is missing, or its values do not fit.
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
    except NoClasses as error:
        raise DataError(
            f"data_dir: {part.where}: labels must be numbers or text, one for each image. Column {label} holds {error} "
            "(label_column)."
        ) from None


def split_column(part, label=None):
    """`(column, kind of split of each row)` if a column names it, else None. The kind is None if it is unknown."""
    for name in part.columns:
        if name != label and (kinds := _splits_of(part, name)) is not None:
            return name, kinds
    return None


def _splits_of(part, name):
    """The kind of split that each row of a column names; None if its values are not names of splits."""
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
