"""Tables beside images: their text, their columns, and the image that each row is about."""

import csv
import io
import json
import os
import unicodedata

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.naming import FLAG_COLUMNS, is_plain_part, part_of, plain, words

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl")
IMAGE_ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
IMAGE_ENDINGS += (".ppm", ".pgm", ".pbm", ".heic", ".heif", ".avif", ".jp2", ".dcm")
NONE, SEVERAL = -1, -2  # no image has this name; more than one has it
# What programs write for a missing value.
_MISSING = frozenset(("", "nan", "NaN", "NAN", "null", "NULL", "<NA>", "NA", "N/A", "#N/A", "n/a"))
# The most common encodings of tables that are not Unicode.
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "euc_kr"]
_SAMPLE = 200  # values of a column that are tried before all of them are


class Table:
    """A table as text.

    Attributes:
        name: The name of its file.
        columns: `{header: values}`, each a list of text without surrounding space, "" for an empty cell.
        notes: Sentences on decisions made in reading it.
    """

    def __init__(self, name, header, rows, notes=()):
        self.name = name
        self.notes = tuple(notes)
        self.columns = {}
        for number, column in enumerate(header):
            values = [row[number].strip() if number < len(row) else "" for row in rows]
            self.columns[_unused(column.strip() or f"column {number + 1}", self.columns)] = values

    def __len__(self):
        return len(next(iter(self.columns.values()), ()))

    def headless(self):
        """The same table with its first line as a row, for a table without a header."""
        rows = zip(*([header, *values] for header, values in self.columns.items()), strict=True)
        return Table(self.name, [""] * len(self.columns), list(rows), self.notes)

    def find(self, column):
        """The header that a user means by `column`, ignoring case and spaces; None if there is none."""
        if column in self.columns:
            return column
        return next((header for header in self.columns if plain(header) == plain(column)), None)


def _unused(column, columns):
    number, name = 1, column
    while name in columns:
        number += 1
        name = f"{column}.{number}"
    return name


def read(view, name, encoding=None):
    """The `Table` in the file `name` of a view; None if the file is empty.

    Args:
        encoding: The text's encoding; None to detect it.

    Raises:
        DataError: it cannot be read, or is ambiguous.
    """
    text, notes = _decode(view, name, view.read(name), encoding)
    if name.lower().endswith(".jsonl"):
        return _read_lines(view, name, text, notes)
    header = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max("\t;|," if name.lower().endswith((".tsv", ".tab")) else ",;\t|", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"data_dir: {view.name}/{name} cannot be read as CSV ({error}).") from None
    numbers = [number for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    rows = [rows[number - 1] for number in numbers]
    if not rows:
        return None
    header, rows, numbers = rows[0], rows[1:], numbers[1:]
    for number, row in zip(numbers, rows, strict=True):
        if any(cell.strip() for cell in row[len(header) :]):
            raise DataError(
                f"data_dir: {view.name}/{name} has {len(row)} values in row {number} under {len(header)} headers, so "
                "it is unclear which belong together. Text that contains the separator must be in quotes."
            )
    return Table(name, header, rows, notes)


def _read_lines(view, name, text, notes):
    """A table of JSON objects, one per line, as in Hugging Face's `metadata.jsonl`."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"data_dir: {view.name}/{name}: line {number} is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise DataError(f"data_dir: {view.name}/{name}: line {number} is not a JSON object.")
        rows.append(row)
    header = list(dict.fromkeys(key for row in rows for key in row))
    return Table(name, header, [[_text(row.get(key)) for key in header] for row in rows], notes) if rows else None


def _text(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _decode(view, name, content, encoding):
    """`(text, notes)`."""
    if encoding is not None:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), []
        except (LookupError, UnicodeError) as error:
            raise DataError(f"data_dir: {view.name}/{name} is not in table_encoding {encoding} ({error}).") from None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:1000]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding), []
    except UnicodeError:
        pass
    import charset_normalizer  # here, not above: nearly all tables are UTF-8

    found = charset_normalizer.from_bytes(content, cp_isolation=_ENCODINGS).best()
    encoding = found.encoding if found else None
    if encoding in (None, "cp1250") and _is_western(content):
        encoding = "cp1252"
    if encoding is None:
        raise DataError(f"data_dir: the encoding of {view.name}/{name} was not recognized; name it: table_encoding.")
    return content.decode(encoding), [f"{name} is read as {encoding} (table_encoding)"]


def _is_western(content):
    """Whether all bytes above 127 are letters in Windows' Western encoding, as in French or German."""
    try:
        text = content.decode("cp1252")
    except UnicodeError:
        return False
    return all(letter.isalpha() for letter in text if ord(letter) > 127)


def clean_label(text):
    """A label in its usual form: Unicode composed, whole numbers without `.0`; None if it is missing."""
    text = unicodedata.normalize("NFC", text.strip())
    if text in _MISSING:
        return None
    if text.endswith("0") and "." in text:
        whole, _, zeros = text.partition(".")
        if whole.lstrip("+-").isdigit() and not zeros.strip("0"):
            return str(int(whole))
    return text


def clean_labels(values):
    """`clean_label` of each value: `1` and `1.0` become the same label, `1` and `01` do not."""
    known = {value: clean_label(value) for value in set(values)}
    return [known[value] for value in values]


def sort_labels(labels):
    """Each label once, sorted: as numbers if all are numbers, otherwise as text."""
    labels = set(labels)
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


# --- Rows and files


def fold(path):
    """A path in the form for comparisons, which ignores case, the form of accents, and backslashes."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()
    while path.startswith("./"):
        path = path[2:]
    return path


class Files:
    """Finds the images of a listing by their names in a table: with or without the extension, with or without folders.

    Args:
        names: The images' paths.
        part: `"train"`, `"val"` or `"test"` for a table about that part: images in the folder of a different part count
            only if the table names that folder. None for a table about all of them.
    """

    def __init__(self, names, part=None):
        self.names = names
        self.part = part

    def match(self, columns):
        """`{column: (images, endings)}`: for each row, int64, the number of the image that it names, NONE or SEVERAL;
        and how many rows name it with a different extension."""
        columns = {column: [fold(value) for value in values] for column, values in columns.items()}
        shared = {column: _shared_folders(values) for column, values in columns.items()}
        wanted = {}
        for column, values in columns.items():
            for value in set(values):
                for key in _spellings(value, shared[column]):
                    wanted.setdefault(key, [])
        wanted.pop("", None)
        foreign = self._foreign_folders()
        for index, path in enumerate(self.names):
            folded = fold(path)
            top = foreign[path.rpartition("/")[0]]
            stem = os.path.splitext(folded)[0]
            while True:
                for key in (folded, stem):
                    if key in wanted:
                        wanted[key].append((index, top is None or _names_folder(key, top)))
                before, slash, folded = folded.partition("/")
                stem = stem.partition("/")[2]
                if not slash:
                    break
        return {column: self._resolve(values, shared[column], wanted) for column, values in columns.items()}

    def _foreign(self, directory):
        """The folder in a path that makes its images those of a different part, or None."""
        for folder in directory.split("/"):
            part = part_of(folder) if is_plain_part(folder) else None
            if part not in (None, self.part):
                return fold(folder)
        return None

    def _foreign_folders(self):
        """`{directory: folder that makes it a different part's, or None}`. A table of test images is used for a folder
        of validation images if there is no other, and the other way round."""
        directories = {path.rpartition("/")[0] for path in self.names}
        if self.part is None:
            return dict.fromkeys(directories)
        found = {directory: self._foreign(directory) for directory in directories}
        parts = {part_of(folder) for folder in found.values() if folder}
        ours = self.part in {part_of(f) for d in directories for f in d.split("/") if is_plain_part(f)}
        if self.part != "train" and not ours:
            other = parts & {"val", "test"}
            return {d: None if folder and part_of(folder) in other else folder for d, folder in found.items()}
        return found

    def _resolve(self, values, shared, wanted):
        """The matches under the spelling that finds most images, the same for the whole column."""
        best, best_found, best_endings = None, -1, 0
        for stripped in range(shared + 1):
            images, endings, known = np.full(len(values), NONE, np.int64), 0, {}
            for row, value in enumerate(values):
                if value not in known:
                    known[value] = self._find(_strip(value, stripped), wanted)
                images[row], other = known[value]
                endings += other
            found = int((images >= 0).sum())
            if found > best_found:
                best, best_found, best_endings = images, found, endings
        return best, best_endings

    def _find(self, key, wanted):
        """`(number of an image, NONE or SEVERAL; whether its extension differs)`."""
        stem, ending = os.path.splitext(key)
        for spelling in (key, stem) if ending in IMAGE_ENDINGS else (key,):
            found = [index for index, ours in wanted.get(spelling, ()) if ours]
            if len(found) == 1:
                return found[0], spelling != key
            if found:
                exact = [index for index in found if fold(self.names[index]) == key]
                return (exact[0] if len(exact) == 1 and "/" in key else SEVERAL), False
        return NONE, False


def _names_folder(key, folder):
    return f"/{folder}/" in f"/{key}"


def _shared_folders(values):
    """How many leading folders all paths of a column share: those of the machine on which it was written."""
    heads = {value.rpartition("/")[0] for value in values if value}
    if not heads or "" in heads:
        return 0
    paths = [head.split("/") for head in heads]
    count = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count


def _strip(value, folders):
    return value.split("/", folders)[-1] if folders else value


def _spellings(value, shared):
    for stripped in range(shared + 1):
        key = _strip(value, stripped)
        yield key
        stem, ending = os.path.splitext(key)
        if ending in IMAGE_ENDINGS:
            yield stem


def likely_paths(table, names):
    """Headers of the columns that may name images: those with file names in a sample of their values."""
    stems = set()
    for name in names:
        base = fold(name).rpartition("/")[2]
        stems |= {base, os.path.splitext(base)[0]}
    found = []
    for column, values in table.columns.items():
        step = max(1, len(values) // _SAMPLE)
        sample = {fold(value).rpartition("/")[2] for value in values[::step] if value}
        if any(value in stems or os.path.splitext(value)[0] in stems for value in sample):
            found.append(column)
    return found


def has_endings(values):
    """Whether most values of a column have the extension of an image."""
    named = sum(os.path.splitext(value)[1].lower() in IMAGE_ENDINGS for value in values[:_SAMPLE])
    return named > len(values[:_SAMPLE]) / 2


def split_column(table):
    """`(header, part of each row)` of a column that names the part of each row, or None. Its values are words like
    train and test, or it is called `is_valid` or `is_test`."""
    for column, values in table.columns.items():
        distinct = set(values)
        if len(distinct) > 6:
            continue
        parts = {value: part_of(value) if len(words(value)) <= 2 else None for value in distinct}
        if len(set(parts.values())) > 1 and None not in parts.values() and "train" in parts.values():
            return column, [parts[value] for value in values]
        second = FLAG_COLUMNS.get(plain(column))
        if second and {value.lower() for value in distinct} <= {"true", "false", "0", "1"}:
            return column, [second if value.lower() in ("true", "1") else "train" for value in values]
    return None
