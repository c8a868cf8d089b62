"""Helpers for the tests of Hugging Face's files."""

import json
from types import SimpleNamespace

import pytest
from helpers import jpeg

from alexnet.data import DataError
from alexnet.data.readers import huggingface
from alexnet.data.readers.filesystem import FolderView

pyarrow = pytest.importorskip("pyarrow")


parquet = pytest.importorskip("pyarrow.parquet")


def features(labels=("cat", "dog")):
    kinds = {"image": {"_type": "Image"}, "label": {"names": list(labels), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


def table(count, first=0, metadata=True, labels=None):
    images = [{"bytes": jpeg(seed=first + i), "path": "../../etc/passwd"} for i in range(count)]
    found = pyarrow.table({"label": labels or [i % 2 for i in range(count)], "image": images})
    return found.replace_schema_metadata(features()) if metadata else found


def save(folder, tables, writer=None):
    """Write tables as `save_to_disk` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(tables):
        with (writer or pyarrow.ipc.new_stream)(
            str(folder / f"data-{number:05d}-of-{len(tables):05d}.arrow"), part.schema
        ) as file:
            file.write_table(part, max_chunksize=3)
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    return folder


# --- Splits and shards


def rows(classes="abab", count=None, image="image", **others):
    """A plain table of images that need not be decoded, and labels; `others` are more columns."""
    count = count or len(classes)
    images = [b"\x89PNG" + bytes([number]) for number in range(count)]
    return pyarrow.table({image: images, **({} if classes is None else {"label": list(classes)}), **others})


def write(folder, *names, table=None):
    """Write the same table to files of several names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".arrow", ".feather"):
            with pyarrow.ipc.new_stream(str(path), table.schema) as file:
                file.write_table(table)
        else:
            parquet.write_table(rows() if table is None else table, path)
    return folder


def find(folder, test_only=False, **choices):
    names = ("label_column", "image_column", "training_dir", "validation_dir", "classes_from")
    choices = SimpleNamespace(**{name: choices.get(name) for name in names})
    view = FolderView(folder)
    return huggingface.detect_saved(view, choices, test_only) or huggingface.detect_tables(view, choices, test_only)


def stopped(folder, message, **choices):
    with pytest.raises(DataError, match=message) as error:
        find(folder, **choices)
    assert str(error.value).startswith("data_dir: ") and "\n" not in str(error.value)


def shown(source):
    """`(origin, labels, passed_over)`, the last without the folder's own path."""
    if source is None:
        return None
    passed = {reason: [name.rpartition("/")[2] or name for name in names] for reason, names in source.passed_over}
    return source.origin, [source.class_names[label] for label in source.labels], passed


# --- What save_to_disk writes


def state(folder, files, **others):
    files = [{"filename": name} for name in files]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None, **others}))
