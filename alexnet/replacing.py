"""Files that are whole or not there, whatever happens while they are written."""

import contextlib
import csv
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """A path to write to, which becomes `path` at the end; after an error the old file is still there."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_text(path, text, errors="strict"):
    """Write a text file in UTF-8; `errors` as `open` takes it."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors=errors)


def replace_csv(path, headings, rows):
    """Write a table. Names of files that are no text have their bytes written out."""
    with (
        replacing(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(headings)
        writer.writerows(rows)


def replace_list(path, headings, rows):
    """The same of a list; without rows there is no such file, nor an older one."""
    rows = list(rows)
    if rows:
        replace_csv(path, headings, rows)
    else:
        Path(path).unlink(missing_ok=True)
