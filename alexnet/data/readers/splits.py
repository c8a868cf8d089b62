"""Which split of a data set a file belongs to, by its name, and which splits are for training and validation."""

import itertools
import posixpath
import re
from dataclasses import dataclass, field

from alexnet.data.errors import DataError
from alexnet.data.readers.naming import SHOWN_AS, SPLIT_OF

# A split with such a name is the data to train on, whatever is beside it.
_NEUTRAL = frozenset(("data", "dataset", "images", "image", "all", "full", "default"))
# Programs number the files of one table like this: train-00000-of-00002-<hash>, part-00000-<uuid>-c000.snappy.
_OF = re.compile(r"(?<![^\W_])(\d{1,9})-of-(\d{1,9})(?![^\W_])")
_HASH = re.compile(
    r"(?<![a-z0-9])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[a-f]*\d)[0-9a-f]{8,}|c\d{3})(?![a-z0-9])"
)
_PIECES = frozenset(
    ("of", "part", "parts", "shard", "shards", "chunk", "batch", "file", "snappy", "gz", "gzip", "zstd")
)


@dataclass
class Split:
    """A split of a data set.

    Attributes:
        name: The name to show: a folder, or a file and how many more there are.
        key: The words of its name: "train", "train extra".
        kind: "train", "val", "test" or None.
        place: The folders above it, without the one that names the split.
        files: Its files, relative to the data set.
    """

    name: str
    key: str
    kind: str | None
    place: str = ""
    files: list = field(default_factory=list)

    def is_called(self, name):
        name = name.rstrip("/").lower()
        names = (self.name.rstrip("/"), *self.files)
        return name in map(str.lower, names) or " ".join(words(posixpath.basename(name))) == self.key


def words(name):
    """The words of a name, without numbers, hashes and words for pieces."""
    found = re.split(r"[-._=\s\d]+", _HASH.sub(" ", name.lower()))
    return [word for word in found if word and word not in _PIECES]


def kind_of(name):
    """The kind of split that a name says; None if it says none, or several."""
    found = _kinds(name)
    return found.pop() if len(found) == 1 else None


def _kinds(name):
    return {SPLIT_OF[word] for word in words(name) if word in SPLIT_OF}


def group(paths):
    """The splits that some files belong to: by the file's own name, or by the nearest folder that names a split."""
    parents = [posixpath.dirname(path).split("/") for path in paths]
    shared = len(list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parents, strict=False))))
    found = {}
    for path in sorted(paths):
        *folders, stem = posixpath.splitext(path)[0].split("/")
        key, place, name = " ".join(words(stem)), folders, path
        kinds = _kinds(stem)
        if not kinds and (named := [depth for depth, folder in enumerate(folders) if _kinds(folder)]):
            depth = named[-1]
            kinds, key = _kinds(folders[depth]), " ".join(words(folders[depth]))
            place, name = folders[:depth] + folders[depth + 1 :], "/".join(folders[: depth + 1]) + "/"
        elif not key and folders:  # 0000.parquet
            key, place, name = " ".join(words(folders[-1])), folders[:-1], "/".join(folders) + "/"
        kinds = kinds.union(*(_kinds(folder) for folder in folders[shared:]))
        kind = kinds.pop() if len(kinds) == 1 else None
        where = (kind, "/".join(place), key)
        found.setdefault(where, Split(name, key, kind, "/".join(place))).files.append(path)
    for split in found.values():
        if not split.name.endswith("/") and len(split.files) > 1:
            split.name += f" and {len(split.files) - 1} more"
    return list(found.values())


def choose(where, splits, training=None, validation=None, test_only=False):
    """`(training or None, splits to validate on, the best one first)`.

    Args:
        where: The data set, for messages.
        training: The user's name for the split to train on; None to decide by the splits' names.
        validation: The user's name for the split to validate on; None as above.
        test_only: Whether a split to validate on is enough.

    Raises:
        DataError: there are several candidates.
    """
    left = list(splits)
    if validation is not None:
        second = [_called(where, left, validation, "validation_dir")]
        left.remove(second[0])
    if training is not None:
        first = _called(where, left, training, "training_dir")
        left.remove(first)
    if validation is None:
        second = _only(where, left, "val", "name one: validation_dir")
        if not second or sum(split.kind == "test" for split in left) == 1:
            second = second + _only(where, left, "test", "name one: validation_dir")
    if training is not None:
        return first, second
    if first := _only(where, left, "train", "name one: training_dir"):
        return first[0], second
    unknown = [split for split in left if split.kind is None]
    likely = unknown
    if validation is None and len(splits) > 1:
        likely = [split for split in unknown if _NEUTRAL.issuperset(split.key.split())]
    if len(likely) == 1:
        return likely[0], second
    if unknown and not (test_only and second):
        raise DataError(
            f"data_dir: {where} has several splits, and none is called train: {_names(splits)}. Name the one to train "
            "on, and perhaps the one to validate on: training_dir, validation_dir."
        )
    return None, second


def _called(where, splits, name, parameter):
    """The split that a user means."""
    found = [split for split in splits if split.is_called(name)]
    if len(found) != 1:
        raise DataError(f"data_dir: {where} has no split called {name}. {parameter} may be one of: {_names(splits)}.")
    return found[0]


def _only(where, splits, kind, how):
    """A list with the only split of a kind; `[]` if there is none. `train` is preferred to `train_extra` beside it."""
    found = [split for split in splits if split.kind == kind]
    if len(found) > 1 and len({split.place for split in found}) == 1:
        plain = [split for split in found if split.key in SPLIT_OF]
        found = plain if len(plain) == 1 else found
    if len(found) > 1:
        raise DataError(f"data_dir: {where} has several splits of {SHOWN_AS[kind]} images: {_names(found)}; {how}.")
    return found


def _names(splits):
    return some(split.name for split in splits)


def some(names, most=8):
    """The first few names as text, and how many more there are."""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_complete(where, files):
    """Sentences on what may be missing among the files of one split.

    Raises:
        DataError: by their names, a file is missing or there are two of one.
    """
    stems = {path: posixpath.basename(path) for path in files}
    counted = {path: matches[-1] for path, stem in stems.items() if (matches := list(_OF.finditer(stem)))}
    plain = [path for path in files if path not in counted]
    if counted and plain:
        raise DataError(
            f"data_dir: {where} holds {plain[0]} beside numbered shards of the same split ({next(iter(counted))}). "
            "Keep only one of these."
        )
    series = {}
    for path, match in counted.items():
        series.setdefault(path[: len(path) - len(stems[path]) + match.start()], {})[path] = match
    for prefix, matches in series.items():
        counts = {int(match[2]): path for path, match in matches.items()}
        if len(counts) > 1:
            raise DataError(
                f"data_dir: {where} holds shards of several saves ({some(counts.values())}). Keep only those of one "
                "save."
            )
        (count,) = counts
        found = {}
        for path, match in matches.items():
            if (other := found.setdefault(int(match[1]), path)) != path:
                raise DataError(f"data_dir: {where} holds the same shard twice: {other} and {path}.")
        first = 1 if count in found else 0
        match = next(iter(matches.values()))
        missing = (number for number in range(first, first + count) if number not in found)
        if len(found) != count or not all(first <= number < first + count for number in found):
            ending = posixpath.splitext(match.string)[1]
            lacking = [f"{prefix}{i:0{len(match[1])}d}-of-{match[2]}{ending}" for i in itertools.islice(missing, 5)]
            raise DataError(
                f"data_dir: {where} holds {len(found)} of {count} shards; it lacks {some(lacking)}"
                f"{' and more' if count - len(found) > 5 else ''}."
            )
    return _gaps(plain)


def _gaps(files):
    numbers = {}
    for path in files:
        if match := re.fullmatch(r"(\D*)(\d{1,9})(\D*)", posixpath.basename(path)):
            numbers.setdefault((posixpath.dirname(path), match[1], match[3]), []).append((int(match[2]), path))
    notes = []
    for found in numbers.values():
        found.sort()
        for (number, path), (after, other) in itertools.pairwise(found):
            if after - number > 1:
                notes.append(f"a number is missing between {path} and {other}; a file may be missing")
    return notes[:5]
