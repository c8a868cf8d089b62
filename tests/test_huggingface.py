"""Data sets in columns: files of `save_to_disk`, Parquet and Arrow files, and which column is which."""

import json
import sys
import zipfile

import numpy as np
import pytest
from helpers import jpeg, recipe, refused
from huggingface_helpers import find, parquet, pyarrow, rows, save, shown, state, stopped, table, write

from alexnet.data import DataError, load_data, load_test_data
from alexnet.data.decoding import decode_image
from alexnet.data.readers import huggingface, shards
from alexnet.data.readers.filesystem import ZipView
from alexnet.data.source import ENDING, NO_ROW, OTHER_SPLITS
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once


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
    for part, number, count, many in (
        ("train", 0, 2, table(7)),
        ("train", 1, 2, table(5, 7)),
        ("test", 0, 1, table(4)),
    ):
        path = tmp_path / "d" / layout.format(part, number, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(many, path, row_group_size=2)
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
    """A column of bytes and one of text, without Hugging Face's description."""
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
        (["extra.parquet", "test.parquet"], "none is called train"),
        (["fine/train.parquet", "coarse/train.parquet"], "splits of training images: coarse/.*, fine/.*training_dir"),
        (["train.parquet", "data/train.parquet"], "several splits of training images"),
        (["a-train.parquet", "b-train.parquet"], "several splits of training images"),
        (["train.parquet", "val.parquet", "dev.parquet"], "several splits of validation images.*validation_dir"),
        (["train-00000-of-00003.parquet"], "1 of 3 shards; it lacks train-00001-of-00003.parquet, train-00002"),
        (["train-1-of-3.parquet", "train-3-of-3.parquet"], "2 of 3 shards; it lacks train-2-of-3.parquet"),
        (["data/train-00000-of-00001-0b1c2d3e.parquet", "data/train-00000-of-00002-1b1c2d3e.parquet",
          "data/train-00001-of-00002-2b1c2d3e.parquet"], "shards of several saves"),
        (["train-00000-of-00001-0b1c2d3e.parquet", "train-00000-of-00001-1b1c2d3e.parquet"], "same shard twice"),
        (["train.parquet", "train-00000-of-00001.parquet"], "train.parquet beside numbered shards"),
        (["train.parquet", "train.pq"], "same split in several formats"),
        (["cat/0.parquet", "dog/0.parquet"], "several splits, and none"),
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
    # Only one part reports it, also when that part is alone.
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
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:  # among images it is an unrelated file
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
    stopped(tmp_path / "d", "is beside images and holds none .*file_name, label.*classes_from")


def test_arrow_files(tmp_path):
    """Streams, as in the cache of `datasets`, and the format that other programs write, compressed or not."""
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
    """They would make the reader leave the file."""
    path = write(tmp_path, "train.arrow", table=rows("ab" * 40, image="picture")) / "train.arrow"
    content = path.read_bytes()
    offsets = np.arange(0, 81 * 5, 5, dtype="<i4").tobytes()
    assert content.count(offsets) == 1
    broken = np.arange(0, 81 * 5, 5, dtype="<i4")
    broken[40] = 2**30
    path.write_bytes(content.replace(offsets, broken.tobytes()))
    stopped(tmp_path, "train.arrow: ")


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
    stopped(tmp_path, "takes only some rows of data-00000-of-00002.arrow")
    for text in ('{"_data_files": 3}', '{"_data_files": [3]}', "[]", "{"):
        (tmp_path / "state.json").write_text(text)
        stopped(tmp_path, "state.json")
    (tmp_path / "state.json").write_text("{}")
    stopped(tmp_path, "shards of several saves")


def test_a_selection_is_kept(tmp_path):
    """`select` and `shuffle` record the rows and do not rewrite them."""
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
    stopped(tmp_path, "indices.arrow must hold row numbers from 0 to 3")


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
    stopped(tmp_path, "none is called train: extra/, old/")
    assert find(tmp_path, validation_dir="old")[0].origin == "extra/"


def test_numbers_of_rows_are_compared(tmp_path):
    save(tmp_path / "d", [rows()])
    infos = {"splits": {"train": {"num_examples": 9}, "test": {"num_examples": 4}}}
    (tmp_path / "d" / "dataset_info.json").write_text(json.dumps(infos))
    state(tmp_path / "d", ["data-00000-of-00001.arrow"], _split="train")
    assert find(tmp_path / "d")[0].notes == ("dataset_info.json states 9 rows of train, but there are 4",)
    write(tmp_path / "x", "data/train-0.parquet", "data/test-0.parquet")
    (tmp_path / "x" / "dataset_info.json").write_text(json.dumps(infos))
    first, second = find(tmp_path / "x")
    assert "9 rows of train" in first.notes[0] and second.notes == ()
