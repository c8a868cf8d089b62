"""Data sets in columns: what `save_to_disk` writes, Parquet and Arrow files, and which column is which."""

import json
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import jpeg, recipe, refused

from alexnet.data import DataError, load_data, load_test_data
from alexnet.data.decoding import decode_image
from alexnet.data.readers import huggingface, shards
from alexnet.data.readers.filesystem import FolderView, ZipView
from alexnet.data.source import ENDING, NO_LABEL, NO_ROW, OTHER_SPLITS
from alexnet.recipe import Recipe

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.once


def features(labels=("cat", "dog")):
    kinds = {"image": {"_type": "Image"}, "label": {"names": list(labels), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


def table(count, first=0, metadata=True, labels=None):
    images = [{"bytes": jpeg(seed=first + i), "path": "../../etc/passwd"} for i in range(count)]
    found = pyarrow.table({"label": labels or [i % 2 for i in range(count)], "image": images})
    return found.replace_schema_metadata(features()) if metadata else found


def save(folder, tables, writer=None):
    """Tables as `save_to_disk` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(tables):
        with (writer or pyarrow.ipc.new_stream)(
            str(folder / f"data-{number:05d}-of-{len(tables):05d}.arrow"), part.schema
        ) as file:
            file.write_table(part, max_chunksize=3)
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    return folder


def check_rows(images, count):
    assert len(images) == count and images.class_names == ["cat", "dog"]
    for index in range(count):
        np.testing.assert_array_equal(images.get_images([index])[0], decode_image(jpeg(seed=index), 72, ""))


def test_a_saved_data_set(tmp_path):
    save(tmp_path / "d" / "train", [table(7), table(5, first=7)])
    save(tmp_path / "d" / "test", [table(4)])
    (tmp_path / "d" / "train" / "cache-0123.arrow").touch()
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    training, validation = load_data(recipe(tmp_path / "d"))
    check_rows(training, 12)
    check_rows(validation, 4)
    assert training.source.layout == "a data set that Hugging Face saved"
    assert training.path(3) == f"{tmp_path}/d/train row 3"
    alone = load_data(recipe(tmp_path / "d" / "train"))
    assert [len(images) for images in alone] == [10, 2]


def test_hidden_labels_and_missing_images(tmp_path):
    rows = table(6, labels=[0, 1, -1, None, 0, 1])
    images = rows.column("image").to_pylist()
    images[4] = {"bytes": None, "path": "/etc/hostname"}
    rows = rows.set_column(1, "image", pyarrow.array(images))
    save(tmp_path / "train", [rows], pyarrow.ipc.new_file)
    save(tmp_path / "test", [table(3, labels=[-1, -1, -1])])
    (tmp_path / "dataset_dict.json").write_text("{}")
    found = load_test_data(recipe(tmp_path, max_skipped=1))
    assert found.labels.tolist() == [0, 1, 0, 1]
    list(found.images())
    assert found.skipped.reasons == {f"{tmp_path}/train row 4": "cannot be read (it holds no bytes)"}


def test_saved_data_sets_that_cannot_be_used(tmp_path, monkeypatch):
    save(tmp_path / "a", [pyarrow.table({"text": ["x"]})])
    refused(tmp_path / "a", "must have a column of images .*Received: text")
    save(tmp_path / "b", [table(4, labels=[0, 1, 2, 0])])
    refused(tmp_path / "b", "labels that are not among its 2 classes")
    save(tmp_path / "f", [pyarrow.table({"image": [b"x"], "label": [[1, 2]]})])
    refused(tmp_path / "f", "labels must be numbers or text")
    save(tmp_path / "c", [table(4)])
    (tmp_path / "c" / "data-00000-of-00001.arrow").write_bytes(b"text" * 99)
    refused(tmp_path / "c", "data_dir: .*/c/data-00000-of-00001.arrow: ")
    save(tmp_path / "e", [table(2, labels=[-1, -1])])
    refused(tmp_path / "e", "has no labels")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path / "b", "needs pyarrow to be read. Install it with: pip install pyarrow")


@pytest.mark.parametrize("layout", ["data/{}-{:05d}-of-{:05d}.parquet", "{}/{:04d}.parquet", "x/default/{}/{}.parquet"])
def test_parquet(tmp_path, layout):
    for part, number, count, rows in (
        ("train", 0, 2, table(7)),
        ("train", 1, 2, table(5, 7)),
        ("test", 0, 1, table(4)),
    ):
        path = tmp_path / "d" / layout.format(part, number, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(rows, path, row_group_size=2)
    training, validation = load_data(recipe(tmp_path / "d"))
    check_rows(training, 12)
    check_rows(validation, 4)
    assert "python -m alexnet pack" in training.source.layout
    shuffled = np.random.default_rng(0).permutation(12)
    for index, square in zip(shuffled, training.get_images(shuffled), strict=True):
        np.testing.assert_array_equal(square, decode_image(jpeg(seed=index), 72, ""))
    reader = training.source.reader
    assert isinstance(reader, shards.ParquetReader) and len(reader._kept) == reader.KEPT
    assert len(load_test_data(recipe(tmp_path / "d"))) == 4


def test_plain_parquet(tmp_path):
    """A column of bytes and one of text, with no word from Hugging Face."""
    rows = pyarrow.table({"id": [1, 2, 3, 4], "jpg": [jpeg(seed=i) for i in range(4)], "label": ["dog", "cat"] * 2})
    parquet.write_table(rows, tmp_path / "part-0.parquet")
    images = load_test_data(recipe(tmp_path))
    assert images.class_names == ["cat", "dog"] and images.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(images.get_images([3])[0], decode_image(jpeg(seed=3), 72, ""))
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path, "part-0.parquet: ")


def test_a_damaged_row_group_costs_its_images(tmp_path):
    path = tmp_path / "train.parquet"
    parquet.write_table(table(6), path, row_group_size=2, compression="snappy")
    column = parquet.ParquetFile(path).metadata.row_group(1)
    (place,) = (i for i in range(column.num_columns) if column.column(i).path_in_schema == "image.bytes")
    begin = column.column(place).data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 40] = b"\xff" * 40
    path.write_bytes(content)
    images = load_test_data(recipe(tmp_path, max_skipped=1))
    assert [square.any() for square in images.get_images(range(6))] == [True, True, False, False, True, True]


# --- Splits and shards


def rows(classes="abab", count=None, image="image", **others):
    """A plain table: images that are only looked at, and labels; `others` are more columns."""
    count = count or len(classes)
    images = [b"\x89PNG" + bytes([number]) for number in range(count)]
    return pyarrow.table({image: images, **({} if classes is None else {"label": list(classes)}), **others})


def write(folder, *names, table=None):
    """The same table as files of several names."""
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
    """`(origin, labels, what was passed over)`, the last without the folder's own path."""
    if source is None:
        return None
    passed = {reason: [name.rpartition("/")[2] or name for name in names] for reason, names in source.passed_over}
    return source.origin, [source.class_names[label] for label in source.labels], passed


TWO = ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("names", "count", "training", "validation", "left"),
    [
        (["a.parquet"], 1, "a.parquet", None, []),
        (["0000.parquet", "0001.parquet"], 2, "0000.parquet and 1 more", None, []),
        ([f"part-0-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4be{i}-c000.snappy.parquet" for i in "01"], 2, "part-", None, []),
        (["train.parquet", "test.parquet"], 1, "train.parquet", "test.parquet", []),
        (["train.parquet", "val.parquet", "test.parquet"], 1, "train.parquet", "val.parquet", ["test.parquet"]),
        (["train.parquet", "train_extra.parquet"], 1, "train.parquet", None, ["train_extra.parquet"]),
        (["train.parquet", "train[:50%].parquet"], 1, "train.parquet", None, ["train[:50%].parquet"]),
        (["train.parquet", "extra.parquet", "pseudo.pq"], 1, "train.parquet", None, ["extra.parquet", "pseudo.pq"]),
        (["train.parquet", "train (1).parquet"], 1, "train.parquet", None, ["train (1).parquet"]),
        (["data/train.parquet", "data/unsupervised.parquet"], 1, "data/train.parquet", None, ["unsupervised.parquet"]),
        (["plain/train-0.parquet", "plain/dev-0.parquet"], 1, "plain/train-0.parquet", "plain/dev-0.parquet", []),
        (["train/x.parquet", "train/y.parquet", "test/x.parquet"], 2, "train/", "test/", []),
        (["split=train/0.parquet", "split=test/0.parquet"], 1, "split=train/", "split=test/", []),
        (["pets-train.parquet", "pets-test.parquet"], 1, "pets-train.parquet", "pets-test.parquet", []),
        (["my-tests/train.parquet", "my-tests/val.parquet"], 1, "my-tests/train.parquet", "my-tests/val.parquet", []),
        (["all.parquet", "test.parquet"], 1, "all.parquet", "test.parquet", []),
        (["test/0.parquet"], 1, None, "test/", []),
    ],
)
def test_splits(tmp_path, names, count, training, validation, left):
    first, second = find(write(tmp_path, *names))
    for source, origin in ((first, training), (second, validation)):
        assert (source is None) == (origin is None)
        if source is not None:
            assert source.origin.startswith(origin)
    assert len(first or second) == 4 * count
    assert shown(first or second)[2] == ({OTHER_SPLITS: left} if left else {})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.parquet", "b.parquet"], "none .* called train: a.parquet, b.parquet.*training_dir, validation_dir"),
        (["extra.parquet", "test.parquet"], "none that is called train"),
        (["fine/train.parquet", "coarse/train.parquet"], "sets of training images: coarse/.*, fine/.*training_dir"),
        (["train.parquet", "data/train.parquet"], "several sets of training images"),
        (["a-train.parquet", "b-train.parquet"], "several sets of training images"),
        (["train.parquet", "val.parquet", "dev.parquet"], "several sets of validation images.*validation_dir"),
        (["train-00000-of-00003.parquet"], "1 of 3 shards; it lacks train-00001-of-00003.parquet, train-00002"),
        (["train-1-of-3.parquet", "train-3-of-3.parquet"], "2 of 3 shards; it lacks train-2-of-3.parquet"),
        (["data/train-00000-of-00001-0b1c2d3e.parquet", "data/train-00000-of-00002-1b1c2d3e.parquet",
          "data/train-00001-of-00002-2b1c2d3e.parquet"], "shards of several saves"),
        (["train-00000-of-00001-0b1c2d3e.parquet", "train-00000-of-00001-1b1c2d3e.parquet"], "same shard twice"),
        (["train.parquet", "train-00000-of-00001.parquet"], "train.parquet beside numbered shards"),
        (["train.parquet", "train.pq"], "same split in several formats"),
        (["cat/0.parquet", "dog/0.parquet"], "several splits and none"),
    ],
)  # fmt: skip
def test_splits_that_have_two_readings(tmp_path, names, message):
    stopped(write(tmp_path, *names), message)


def test_the_user_names_the_split_to_validate_on(tmp_path):
    write(tmp_path, *(f"{name}.parquet" for name in ("train", "val", "test", "extra")))
    for name, left in (("test", ["extra", "val"]), ("extra.parquet", ["test", "val"]), ("val", ["extra", "test"])):
        first, second = find(tmp_path, validation_dir=name)
        assert (first.origin, second.origin) == ("train.parquet", f"{name.removesuffix('.parquet')}.parquet")
        assert sorted(shown(first)[2][OTHER_SPLITS]) == [f"{other}.parquet" for other in left]
    stopped(tmp_path, "no split called dev. validation_dir may be one of: .*val.parquet", validation_dir="dev")
    first, second = find(tmp_path, training_dir="extra")
    assert (first.origin, second.origin) == ("extra.parquet", "val.parquet")
    assert sorted(shown(first)[2][OTHER_SPLITS]) == ["test.parquet", "train.parquet"]
    stopped(tmp_path, "no split called dev. training_dir may be one of", training_dir="dev")
    first, second = find(write(tmp_path / "x", "easy/0.parquet", "hard/0.parquet"), validation_dir="hard/")
    assert (first.origin, second.origin) == ("easy/", "hard/")


def test_a_missing_number_is_said(tmp_path):
    first, _ = find(write(tmp_path, "0000.parquet", "0002.parquet"))
    assert "between 0000.parquet and 0002.parquet" in first.notes[0]


def test_what_lies_beside_tables(tmp_path):
    write(tmp_path, "train.parquet", "val.parquet")
    (tmp_path / "LICENSE").touch()
    (tmp_path / "metadata.csv").write_text("file,label\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "teaser.png").touch()
    (tmp_path / "cache-1.arrow").touch()
    first, _ = find(tmp_path)
    assert shown(first)[2] == {ENDING: ["LICENSE", "cache-1.arrow", "metadata.csv"], NO_ROW: ["docs/"]}
    # Only one part tells of it, and it does so when it is alone as well.
    second = find(tmp_path, test_only=True)
    assert second[0] is None and shown(second[1])[2][OTHER_SPLITS] == ["train.parquet"]
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").touch()
    stopped(
        tmp_path,
        r"images in tables \(train.parquet\) and in folders \(cat, docs, dog\).*classes_from table, or folders",
    )
    assert find(tmp_path, classes_from="folders") is None
    assert len(find(tmp_path, classes_from="table")[0]) == 4


def test_tables_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.parquet", b"")
    view = ZipView.open(tmp_path / "a.zip")
    with pytest.raises(DataError, match="unzip it once"):
        huggingface.detect_tables(view, Recipe())
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:  # among images it is a stray file
        archive.writestr("cat/0.jpg", b"")
    assert huggingface.detect_tables(ZipView.open(tmp_path / "a.zip"), Recipe()) is None


def test_tables_of_something_else(tmp_path):
    write(tmp_path, "images.parquet", table=rows())
    write(tmp_path, "boxes.parquet", table=pyarrow.table({"x": [1.5]}))
    assert shown(find(tmp_path)[0])[2] == {ENDING: ["boxes.parquet"]}
    paths = pyarrow.table({"file_name": ["cat.jpg"], "label": ["a"]})
    write(tmp_path / "d", "metadata.parquet", table=paths)
    stopped(tmp_path / "d", "must have a column of images .*Received: file_name, label")
    (tmp_path / "d" / "cat.jpg").touch()
    stopped(tmp_path / "d", "lies beside images and holds none .*file_name, label.*classes_from")


def test_arrow_files(tmp_path):
    """Streams, as the cache of `datasets` has them, and the format that other programs write, compressed or not."""
    table = rows("abcabc")
    write(tmp_path / "a", "pets-train.arrow", table=table)
    for name, compression in (("b", None), ("c", "zstd"), ("d", "lz4")):
        (tmp_path / name).mkdir()
        options = pyarrow.ipc.IpcWriteOptions(compression=compression)
        with pyarrow.ipc.new_file(str(tmp_path / name / "train.feather"), table.schema, options=options) as file:
            file.write_table(table, max_chunksize=2)
    for name in "abcd":
        source, _ = find(tmp_path / name)
        assert source.layout == huggingface.ARROW and shown(source)[1] == list("abcabc")
        assert [source.reader.read(i) for i in (5, 0, 3)] == [b"\x89PNG" + bytes([i]) for i in (5, 0, 3)]
    (tmp_path / "b" / "train.feather").write_bytes(b"FEA1" + bytes(100))
    stopped(tmp_path / "b", "train.feather: ")


def test_damaged_offsets_are_refused(tmp_path):
    """They would lead the reader out of the file."""
    path = write(tmp_path, "train.arrow", table=rows("ab" * 40, image="picture")) / "train.arrow"
    content = path.read_bytes()
    offsets = np.arange(0, 81 * 5, 5, dtype="<i4").tobytes()
    assert content.count(offsets) == 1
    broken = np.arange(0, 81 * 5, 5, dtype="<i4")
    broken[40] = 2**30
    path.write_bytes(content.replace(offsets, broken.tobytes()))
    stopped(tmp_path, "train.arrow: ")


# --- What save_to_disk writes


def state(folder, files, **others):
    files = [{"filename": name} for name in files]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": None, **others}))


def test_the_state_says_which_files_count(tmp_path):
    save(tmp_path, [rows("ab"), rows("cd")])
    state(tmp_path, ["data-00001-of-00002.arrow", "data-00000-of-00002.arrow"])
    write(tmp_path, "data-00000-of-00001.arrow", "cache-77.arrow", table=rows("xyz"))
    source, validation = find(tmp_path)
    assert validation is None
    assert shown(source) == ("", list("cdab"), {OTHER_SPLITS: ["cache-77.arrow", "data-00000-of-00001.arrow"]})
    (tmp_path / "data-00001-of-00002.arrow").unlink()
    stopped(tmp_path, "lacks data-00001-of-00002.arrow, which its state.json lists")
    state(tmp_path, ["../secret.arrow"])
    stopped(tmp_path, "lacks ../secret.arrow")
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00002.arrow", "take": 1}]}')
    stopped(tmp_path, "takes some rows of data-00000-of-00002.arrow only")
    for text in ('{"_data_files": 3}', '{"_data_files": [3]}', "[]", "{"):
        (tmp_path / "state.json").write_text(text)
        stopped(tmp_path, "state.json")
    (tmp_path / "state.json").write_text("{}")
    stopped(tmp_path, "shards of several saves")


def test_a_selection_is_kept(tmp_path):
    """`select` and `shuffle` note rows and do not write them anew."""
    save(tmp_path, [rows("ab"), rows("cd")])
    write(tmp_path, "indices.arrow", table=pyarrow.table({"indices": pyarrow.array([3, 0, 3], pyarrow.uint64())}))
    state(
        tmp_path,
        ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"],
        _indices_data_files=[{"filename": "indices.arrow"}],
    )
    source, _ = find(tmp_path)
    assert shown(source)[1:] == (list("dad"), {OTHER_SPLITS: [f"{tmp_path.name} row {row}" for row in (1, 2)]})
    assert source.reader.read(source.indices[0]) == b"\x89PNG\1"
    assert source.notes == ("indices.arrow picks 3 of 4 rows",)
    write(tmp_path, "indices.arrow", table=pyarrow.table({"indices": [4]}))
    stopped(tmp_path, "indices.arrow must name some of the 4 rows")


def test_a_dictionary_lists_its_splits(tmp_path):
    for name in ("train", "test", "extra", "old"):
        save(tmp_path / name, [rows()])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test", "extra"]}')
    first, second = find(tmp_path)
    assert (first.origin, second.origin) == ("train/", "test/")
    assert shown(first)[2] == {OTHER_SPLITS: ["old/", "extra/"]}
    (tmp_path / "dataset_dict.json").unlink()  # the folders still say what they are
    assert find(tmp_path)[1].origin == "test/"
    write(tmp_path, "data/train.parquet")
    stopped(tmp_path, r"saved \(extra, old, test, train\) and other tables \(data/train.parquet\)")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    stopped(tmp_path, "lacks the splits validation that dataset_dict.json lists")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["extra", "old"]}')
    stopped(tmp_path, "none that is called train: extra/, old/")
    assert find(tmp_path, validation_dir="old")[0].origin == "extra/"


def test_numbers_of_rows_are_compared(tmp_path):
    save(tmp_path / "d", [rows()])
    infos = {"splits": {"train": {"num_examples": 9}, "test": {"num_examples": 4}}}
    (tmp_path / "d" / "dataset_info.json").write_text(json.dumps(infos))
    state(tmp_path / "d", ["data-00000-of-00001.arrow"], _split="train")
    assert find(tmp_path / "d")[0].notes == ("dataset_info.json tells of 9 rows of train; 4 are there",)
    write(tmp_path / "x", "data/train-0.parquet", "data/test-0.parquet")
    (tmp_path / "x" / "dataset_info.json").write_text(json.dumps(infos))
    first, second = find(tmp_path / "x")
    assert "9 rows of train" in first.notes[0] and second.notes == ()


# --- Columns and labels


def declared(table, **names):
    """With classes as Hugging Face notes them."""
    kinds = {column: {"names": list(found), "_type": "ClassLabel"} for column, found in names.items()}
    return table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": kinds}}).encode()})


FOUR = [0, 1, 0, 1]
OTHER = ["x", "x", "y", "y"]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (rows(variety=OTHER), "label"),
        (rows(None, 4, variety=OTHER, weight=[1.5, 2.5, 3.5, 4.5], id=["p", "q", "r", "s"]), "variety"),
        (rows(None, 4, kind=OTHER, id=[1, 2, 3, 4], source=["web"] * 4), "kind"),
        (rows(None, 4, code=FOUR, word=TWO), "word"),
        (rows(FOUR, label_name=TWO, other=OTHER), "label_name"),
        (rows(None, 4, class_id=FOUR, class_name=TWO), "class_name"),
        (rows(None, 4, what=OTHER, split=["train", "train", "train", "test"]), "what"),
        (declared(rows(None, 4, species=FOUR, place=OTHER), species="xy"), "species"),
        (declared(rows(FOUR, coarse=[0, 0, 1, 1]), label="ab", coarse="xy"), "label"),
        (
            declared(rows(None, 4, coarse_label=[0, 0, 1, 1], fine_label=FOUR), fine_label="ab", coarse_label="xy"),
            "fine_label",
        ),
    ],
)
def test_the_column_of_classes(tmp_path, table, column):
    source, _ = find(write(tmp_path, "train.parquet", table=table))
    assert source.labels_from == f"column {column}" and source.paths_from == "column image"
    assert (column != "fine_label") or "could also be those of coarse_label" in source.notes[0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows(None, 4, kind=OTHER, place=TWO), "hold the classes: kind, place; say which: label_column"),
        (rows(None, 4, kind=OTHER, variety=TWO), "hold the classes: kind, variety"),
        (rows(None, 4, target=OTHER, category=TWO), "hold the classes: category, target"),
        (rows(TWO, labels=OTHER), "hold the classes: label, labels"),
        (declared(rows(None, 4, a=FOUR, b=[0, 0, 1, 1]), a="xy", b="xy"), "hold the classes: a, b"),
        (declared(rows(OTHER, a=FOUR), a="xy"), "hold the classes: a, label"),
        (rows(["p", "q", "r", "s"], kind=OTHER), "hold the classes: label, kind"),
        (rows(None, 4, id=[1, 2, 3, 4]), "must have a column of images"),
        (rows([0.5, 1, 0.5, 1]), "Column label holds fractions"),
        (rows([[1], [2], [1], [2]]), "Column label holds lists"),
        (rows([{"a": 1}] * 4), "Column label holds several values"),
        (rows([b"\xff"] * 4), "Column label holds bytes"),
        (declared(rows([0, 1, 0, 2]), label="xy"), "not among its 2 classes"),
        (declared(rows(FOUR), label="xx"), "two classes of column label have the same name"),
        (rows(mask=[b"\x89PNG"] * 4, image="photo"), "hold the images: photo, mask; say which: image_column"),
        (rows(image="blob").set_column(0, "blob", [[b"RIFF"] * 4]), "must have a column of images"),
        (rows().set_column(0, "image", [[{"bytes": None, "path": "/etc/hostname"}] * 4]), "holds no bytes of images"),
        (
            pyarrow.Table.from_arrays([[1], [b"a"], [2]], names=["label", "image", "label"]),
            "several columns of one name",
        ),
    ],
)
def test_columns_that_have_two_readings(tmp_path, table, message):
    stopped(write(tmp_path, "train.arrow", table=table), message)


def test_the_user_names_columns(tmp_path):
    images = [b"\xff\xd8\xff" + bytes([i]) for i in range(4)]
    write(tmp_path, "train.parquet", table=rows(kind=OTHER, other=images, image="photo"))
    source, _ = find(tmp_path, label_column="kind", image_column="other")
    assert shown(source)[1] == OTHER and source.reader.read(0) == images[0]
    stopped(
        tmp_path,
        "no column sort. label_column may be one of: label, kind, other",
        label_column="sort",
        image_column="photo",
    )
    stopped(tmp_path, "no column img. image_column may be one of: photo, label", image_column="img")
    stopped(tmp_path, r"column kind \(image_column\) holds no bytes", image_column="kind")


def test_the_image_goes_before_the_mask(tmp_path):
    write(tmp_path, "train.parquet", table=rows(depth=[b"\x89PNG"] * 4, mask=[{"bytes": b"\x89PNG", "path": None}] * 4))
    assert find(tmp_path)[0].paths_from == "column image"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, None, -1, 1], "01--1"),
        ([0.0, 1.0, float("nan"), 2.0, 1.0], "01-21"),
        (["b", "", "nan", None, " a "], "b---a"),
        (["1.0", "1", "2", "2.0", "1."], "11221"),
        ([b"a", b"b", None, b"a", b"b"], "ab-ab"),
        ([-1, 1, 1, -1, 1], ["-1", "1", "1", "-1", "1"]),
        ([True, False, None, True, False], ["True", "False", "-", "True", "False"]),
        (["e\u0301", "\u00e9", "a", "a", "a"], ["\u00e9", "\u00e9", "a", "a", "a"]),
        (pyarrow.array(["b", "a", None, "b", "a"]).dictionary_encode(), "ba-ba"),
        (pyarrow.array([3, 1, None, 3, 1], pyarrow.uint8()), "31-31"),
        (pyarrow.array(["b", "a", "b", "a", "b"], pyarrow.large_string()), "babab"),
    ],
)
def test_values_of_labels(tmp_path, labels, expected):
    images = [b"\x89PNG"] * 5
    table = pyarrow.table({"image": images, "label": labels})
    for name in ("train.parquet", "train.arrow"):
        source, _ = find(write(tmp_path / name, name, table=table))
        found = {row: source.class_names[label] for row, label in zip(source.indices, source.labels, strict=True)}
        assert [found.get(row, "-") for row in range(5)] == list(expected)
        missing = [f"{name} row {row}" for row in range(5) if expected[row] == "-"]
        assert shown(source)[2] == ({NO_LABEL: missing} if missing else {})


def test_a_split_without_labels(tmp_path):
    write(tmp_path, "train.parquet")
    write(tmp_path, "val.parquet", table=rows(None, 2))
    write(tmp_path, "test.parquet", table=rows("ab"))
    first, second = find(tmp_path)
    assert second.origin == "test.parquet"
    assert shown(first)[2] == {NO_LABEL: ["val.parquet row 0", "val.parquet row 1"]}
    write(tmp_path, "val.parquet", table=rows(None, 2, labels=["a", "b"]))
    stopped(tmp_path, r"val.parquet has no column label \(label_column\). It has image, labels")


def test_shards_that_do_not_belong_together(tmp_path):
    write(tmp_path, "train-0.parquet", table=rows())
    write(tmp_path, "train-1.parquet", table=rows(FOUR))
    stopped(tmp_path, r"Column label holds values of different types \(int, str\)")
    write(tmp_path, "train-1.parquet", table=rows(place=OTHER))
    stopped(tmp_path, "train-1.parquet has other columns")
    write(tmp_path, "train-0.parquet", table=declared(rows(FOUR), label="xy"))
    write(tmp_path, "train-1.parquet", table=declared(rows(FOUR), label="yx"))
    stopped(tmp_path, "name the classes of column label in several ways: x, y; y, x")
    write(tmp_path, "train-1.parquet", table=rows([1.0, 0.0, None, 1.0]))
    source, _ = find(tmp_path)
    assert shown(source)[1] == list("xyxyyxy")


def test_parts_whose_classes_are_written_differently(tmp_path):
    write(tmp_path, "train.parquet", table=declared(rows(FOUR), label="xy"))
    write(tmp_path, "test.parquet", table=declared(rows(FOUR), label="yx"))
    first, second = find(tmp_path)
    assert shown(first)[1] == list("xyxy") and shown(second)[1] == list("yxyx")
    write(tmp_path, "test.parquet", table=rows("xyyx"))
    assert shown(find(tmp_path)[1])[1] == list("xyyx")
    write(tmp_path, "test.parquet", table=rows(FOUR))
    stopped(tmp_path, "test.parquet: column label holds numbers, and nothing says which of the classes")


def test_a_column_of_splits(tmp_path):
    splits = ["train", "Test", "validation", "train"]
    write(tmp_path, "data.parquet", table=rows("abab", split=splits))
    first, second = find(tmp_path)
    assert shown(first) == ("column split", ["a", "b"], {OTHER_SPLITS: ["data.parquet row 1"]})
    assert shown(second) == ("column split", ["a"], {})
    write(tmp_path, "data.parquet", table=rows("abab", subset=["train", "extra", "test", "train"]))
    first, second = find(tmp_path)
    assert first.indices.tolist() == [0, 3] and second.indices.tolist() == [2]
    assert shown(first)[2] == {OTHER_SPLITS: ["data.parquet row 1"]}
    write(tmp_path, "data.parquet", table=rows("abab", is_valid=[False, True, True, False]))
    assert [source.indices.tolist() for source in find(tmp_path)] == [[0, 3], [1, 2]]
    (tmp_path / "data.parquet").unlink()
    write(tmp_path, "train.parquet", "test.parquet", table=rows("abab", split=splits))
    stopped(tmp_path, "column split puts rows into other splits than their file does.*validation_dir")
    assert [len(source) for source in find(tmp_path, validation_dir="test")] == [4, 4]


# --- Mixtures of all that


class Mixture:
    """A data set drawn at random, and what is in it: each image says its split, its row and its class."""

    PLACES = (
        "{split}-{i:05d}-of-{n:05d}.{e}",
        "data/{split}-{i:05d}-of-{n:05d}-0a1b2c3d4e5f{i}{n}.{e}",
        "{split}_{i}.{e}",
        "{split}/{i:04d}.{e}",
        "config/{split}/part-{i}.{e}",
        "pets-{split}-{i}.{e}",
    )

    def __init__(self, rng, folder):
        self.rng, self.folder = rng, folder
        self.splits = ["train", *(name for name in ("validation", "test", "extra") if self.chance(0.4))]
        self.classes = ["cat", "dog", "emu"][: 2 + self.chance(0.5)]
        self.style = self.pick("names", "text", "numbers", "floats", "categories")
        self.label = self.pick("label", "label", "labels", "category", "kind")
        self.image = self.pick("image", "img", "photo")
        self.others = [name for name in ("id", "weight", "variety", "mask", "kind_of_day") if self.chance(0.2)]
        self.fault = self.pick(*[None] * 4, "shard", "leftover", "type", "paths", "names", "unlabelled", "columns")
        self.victim = self.pick(*self.splits)
        self.rows = {split: [] for split in self.splits}
        self.left_over = 0
        (self.save if self.chance(0.4) else self.write)()

    def chance(self, share):
        return bool(self.rng.random() < share)

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def table(self, split):
        """A few rows, and they are noted. None for a class that is not said."""
        count, first = int(self.rng.integers(4, 9)), len(self.rows[split])
        classes = [self.pick(*self.classes, *[None] * self.chance(0.2)) for _ in range(count)]
        classes[:4] = [self.classes[0], self.classes[1]] * 2
        ill = split == self.victim
        if ill and self.fault == "unlabelled" and split != "train":
            classes = [None] * count
        self.rows[split] += classes
        contents = [f"\x89PNG {split} {first + i} {name}".encode("latin1") for i, name in enumerate(classes)]
        if ill and self.fault == "paths":
            contents = [{"bytes": None, "path": "x.png"} for _ in contents]
        elif self.chance(0.5):
            contents = [{"bytes": content, "path": None} for content in contents]
        order = self.classes
        if ill and self.fault == "names":
            order = order[::-1]
        style = self.style
        if ill and self.fault == "type":
            style = "text" if style in ("numbers", "floats") else "numbers"
        codes = [None if name is None else order.index(name) for name in classes]
        values = {
            "names": [self.pick(-1, None) if code is None else code for code in codes],
            "text": [self.pick(None, "", "nan") if name is None else self.pick(name, f" {name}") for name in classes],
            "numbers": [self.pick(-1, None) if name is None else self.classes.index(name) for name in classes],
            "floats": [None if name is None else float(self.classes.index(name)) for name in classes],
            "categories": pyarrow.array(classes, pyarrow.string()).dictionary_encode(),
        }[style]
        others = {
            "id": [f"{split}{first + i}" for i in range(count)],
            "weight": self.rng.random(count).tolist(),
            "variety": [self.pick("x", "y") for _ in range(count)],
            "mask": [b"\x89PNG mask"] * count,
            "kind_of_day": [i // 2 % 2 for i in range(count)],
        }
        found = {self.image: contents, self.label: values} | {name: others[name] for name in self.others}
        if ill and self.fault == "columns":
            found["late"] = [1] * count
        if style == "floats" and all(value is None for value in values):
            found[self.label] = pyarrow.array(values, pyarrow.float64())
        table = pyarrow.table({name: found[name] for name in self.rng.permutation(list(found))})
        kinds = {self.image: {"_type": "Image"}}
        if style == "names":
            kinds[self.label] = {"names": order, "_type": "ClassLabel"}
        return table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": kinds}}).encode()})

    def write(self):
        layout, ending = self.pick(*self.PLACES), self.pick("parquet", "parquet", "arrow")
        if self.fault in ("shard", "leftover") and "-of-" not in layout:  # nothing would tell
            self.fault = None
        for split in self.splits:
            count = int(self.rng.integers(1, 4))
            if split == self.victim and self.fault == "shard":
                count = max(2, count)
            names = [layout.format(split=split, i=i, n=count, e=ending) for i in range(count)]
            for name in names:
                write(self.folder, name, table=self.table(split))
            if split == self.victim and self.fault == "shard":
                (self.folder / names[-1]).unlink()
            if split == self.victim and self.fault == "leftover":
                write(self.folder, layout.format(split=split, i=0, n=count + 1, e=ending), table=rows())

    def save(self):
        for split in self.splits:
            folder = self.folder / split
            save(folder, [self.table(split) for _ in range(self.rng.integers(1, 4))])
            names = sorted(path.name for path in folder.glob("*.arrow"))
            state(folder, names)
            if split == self.victim and self.fault == "shard":
                (folder / names[-1]).unlink()
            if split == self.victim and self.fault == "leftover":
                write(folder, "data-00000-of-00009.arrow", table=rows())
        (self.folder / "dataset_dict.json").write_text(json.dumps({"splits": self.splits}))

    def check(self, training, validation):
        """What was found is right, and what was not is counted."""
        sources = [source for source in (training, validation) if source]
        passed = [(why, name) for source in sources for why, names in source.passed_over for name in names]
        seen = set()
        for source, splits in ((training, ("train",)), (validation, ("validation", "test"))):
            for row, label in zip(source.indices, source.labels, strict=True) if source else ():
                _, split, number, name = source.reader.read(row).decode("latin1").split(" ")
                assert split in splits
                expected = {name if self.style in ("names", "text", "categories") else str(self.classes.index(name))}
                if self.fault == "type":  # each split as it is written; that they do not agree is told later
                    expected = {name, str(self.classes.index(name))}
                assert source.class_names[label] in expected
                assert (split, int(number)) not in seen
                seen.add((split, int(number)))
        used = {split for split, _ in seen}
        for split, classes in self.rows.items():
            labelled = sum(name is not None for name in classes)
            if split in used:
                assert sum(other == split for other, _ in seen) == labelled
            elif labelled:
                assert any(reason == OTHER_SPLITS and split in name for reason, name in passed), split
        if training:
            hidden = sum(name is None for split in used for name in self.rows[split])
            assert sum(reason == NO_LABEL for reason, _ in passed) >= hidden


def test_random_mixtures(tmp_path):
    """Right, or one sentence; never silently something else."""
    outcomes = []
    for seed in range(60):
        mixture = Mixture(np.random.default_rng(seed), tmp_path / str(seed))
        try:
            found = find(mixture.folder)
        except DataError as error:
            assert str(error).startswith("data_dir: ") and "\n" not in str(error), seed
            outcomes.append(str(error))
            continue
        mixture.check(*found)
        outcomes.append("right")
    assert outcomes.count("right") > len(outcomes) / 3
