"""Folders and tables that could mean two things give the right labels, or an error that names the parameter."""

import io
import json
import os
import unicodedata
import zipfile

import numpy as np
import pytest
from PIL import Image

from alexnet.data import DataError, load_data, load_test_data
from alexnet.data.readers.naming import SPLITS, are_containers, is_camera, is_plain_part, part_of, words
from alexnet.data.readers.splits import kind_of
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once


def _jpeg():
    content = io.BytesIO()
    Image.new("RGB", (70, 70), (200, 40, 40)).save(content, "JPEG")
    return content.getvalue()


JPEG = _jpeg()


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(JPEG)
    return folder


def classes(folder, *names, count=6, first=0):
    return fill(folder, *(f"{name}/{first + i}.jpg" for name in names for i in range(count)))


def table(path, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(",".join(map(str, row)) for row in rows).encode(encoding))


def load(folder, **values):
    values = {"resize": 70, "run_dir": str(folder.parent / "runs"), "validation_split": 0.2, **values}
    return load_data(Recipe(data_dir=str(folder), **values))


def counts(images):
    return {name: int((images.labels == k).sum()) for k, name in enumerate(images.class_names)}


def both(pair):
    """`{class: images}` of training and validation together."""
    return {name: count + counts(pair[1])[name] for name, count in counts(pair[0]).items()}


def asks(folder, parameter, **values):
    with pytest.raises(DataError, match=parameter) as error:
        load(folder, **values)
    assert str(error.value).startswith("data_dir: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "part", "plain"),
    [
        *[("train", "train", True), ("seg_train", "train", True), ("Test set", "test", True), ("VAL", "val", True)],
        *[("trainLabels", "train", True), ("bullet_train", "train", False), ("test1", "test", True)],
        *[("control", None, False), ("train_val_list", None, False), ("sample_submission", "other", True)],
    ],
)
def test_words_of_names(name, part, plain):
    assert (part_of(name), is_plain_part(name)) == (part, plain)
    assert words("HAM10000_images_part_1") == ["ham", "images", "part"]
    assert are_containers(["images_001", "images_002"]) and not are_containers(["Sample001", "Sample002"])
    assert is_camera("IMG") and is_camera("Train") and not is_camera("cat")


# --- Folders


@pytest.mark.parametrize(("split", "word"), [(split, word) for split in ("val", "test") for word in SPLITS[split]])
def test_a_split_has_the_same_names_everywhere(tmp_path, split, word):
    """In names of files, of folders, in a table's column, and in an array's keys."""
    assert part_of(word) == kind_of(f"{word}-00000-of-00001.parquet") == split
    folder = classes(classes(tmp_path / "folders", "train/a", "train/b"), f"{word}/a", f"{word}/b", count=2, first=9)
    training, validation = load(folder)
    assert (len(training), len(validation), validation.source.origin) == (12, 4, f"{word}/")
    lines = [[f"{i}.jpg", "ab"[i % 2], "train" if i < 8 else word] for i in range(12)]
    table(fill(tmp_path / "table", *(row[0] for row in lines)) / "t.csv", [["image", "label", "split"], *lines])
    assert [len(part) for part in load(tmp_path / "table")] == [8, 4]
    pixels, labels = np.arange(12 * 70 * 70, dtype=np.uint8).reshape(12, 70, 70), np.arange(12) % 2
    arrays = {"x_train": pixels, "y_train": labels, f"x_{word}": pixels[:6], f"y_{word}": labels[:6]}
    np.savez(tmp_path / "arrays.npz", **arrays)
    assert [len(part) for part in load(tmp_path / "arrays.npz")] == [12, 6]


@pytest.mark.parametrize(
    "stray", ["LICENSE", "data.tar", "desktop.ini", "info.json", "__MACOSX/data/train/cat/._0.jpg"]
)
def test_a_stray_file_beside_the_one_folder(tmp_path, stray):
    folder = tmp_path / "d"
    classes(folder / "data" / "train", "cat", "dog")
    classes(folder / "data" / "val", "cat", "dog", count=2)
    fill(folder, stray)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.writestr(str(path.relative_to(folder)).replace("/", "\\"), path.read_bytes())
    for data_dir in (folder, tmp_path / "d.zip"):
        training, validation = load(data_dir)
        assert counts(training) == {"cat": 6, "dog": 6} and counts(validation) == {"cat": 2, "dog": 2}
        assert sum(training.summary.counts.values()) == 1 and training.summary.validation_from.endswith("val/")


def test_what_is_held_out_stays_held_out(tmp_path):
    folder = classes(tmp_path / "d", "cat", "dog", count=60)
    before = [set(part.paths) for part in load(folder)]
    fill(folder, "cat/more.jpg", "dog/0a.jpg")
    (folder / "dog" / "59.jpg").unlink()
    after = [set(part.paths) for part in load(folder)]
    assert not before[0] & after[1] and not before[1] & after[0]
    moved = folder.rename(tmp_path / "elsewhere")
    assert [len(part) for part in load(moved)] == [len(part) for part in after]
    by_order = load(moved, split_by="order")
    assert [len(part) for part in by_order] == [97, 24]


def test_folds_and_parts_are_no_classes(tmp_path):
    for fold in ("fold1", "fold2"):
        classes(tmp_path / "folds" / fold, "cat", "dog")
    asks(tmp_path / "folds", "classes_from")
    training, validation = load(tmp_path / "folds", validation_dir="fold2")
    assert counts(training) == counts(validation) == {"cat": 6, "dog": 6}
    assert both(load(tmp_path / "folds", classes_from="subfolders")) == {"cat": 12, "dog": 12}
    assert both(load(tmp_path / "folds", classes_from="folders")) == {"fold1": 12, "fold2": 12}
    for name in ("cat", "dog"):
        classes(tmp_path / "inside" / name, "train", "test")
    asks(tmp_path / "inside", "training_dir")
    training, validation = load(tmp_path / "inside", training_dir="train", validation_dir="test")
    assert counts(training) == counts(validation) == {"cat": 6, "dog": 6}
    classes(tmp_path / "shares", "batch_1", "batch_2")
    asks(tmp_path / "shares", "classes_from")
    classes(tmp_path / "trial", "control", "test")
    asks(tmp_path / "trial", "classes_from")
    assert both(load(tmp_path / "trial", classes_from="folders")) == {"control": 6, "test": 6}
    asks(tmp_path / "trial", "training_dir: .* has no folder nowhere", training_dir="nowhere")


def test_masks_are_no_classes(tmp_path):
    for name in ("ill", "well"):
        classes(tmp_path / "a" / name, "images", "masks")
    pair = load(tmp_path / "a")
    assert both(pair) == {"ill": 6, "well": 6} and pair[0].summary.counts == {"masks": 12}
    fill(tmp_path / "b", *(f"images/{name}_{i}.jpg" for name in ("pug", "lab") for i in range(5)))
    fill(tmp_path / "b", *(f"annotations/trimaps/{name}_{i}.png" for name in ("pug", "lab") for i in range(5)))
    assert both(load(tmp_path / "b")) == {"lab": 5, "pug": 5}
    assert both(load(classes(tmp_path / "c", "mask", "no_mask"))) == {"mask": 6, "no_mask": 6}
    asks(classes(tmp_path / "d", "annotations", "cat", "dog"), "classes_from")


def test_classes_in_two_levels(tmp_path):
    for kind, breeds in {"cat": ("persian", "siam"), "dog": ("pug", "lab")}.items():
        classes(tmp_path / "d" / kind, *breeds)
    asks(tmp_path / "d", "subfolders")
    assert set(both(load(tmp_path / "d", classes_from="subfolders"))) == {"persian", "siam", "pug", "lab"}
    assert both(load(tmp_path / "d", classes_from="folders")) == {"cat": 12, "dog": 12}


def test_a_second_validation_folder_is_counted(tmp_path):
    for part in ("train", "val", "test"):
        classes(tmp_path / "d" / part, "cat", "dog")
    training, validation = load(tmp_path / "d")
    assert training.summary.counts == {"other splits": 12} and "/val/" in validation.path(0)
    assert "/test/" in load(tmp_path / "d", validation_dir="test")[1].path(0)


def test_what_is_not_read_is_counted(tmp_path):
    folder = classes(tmp_path / "d", "cat", "dog")
    fill(folder, "cat/a.jfif", "cat/b.jpe", "cat/.hidden.jpg", "cat/c.psd", "zebra/notes.txt", "cover.jpg")
    training, validation = load(folder)
    assert both((training, validation)) == {"cat": 8, "dog": 6}
    psd = ".psd: this format is not read (convert it)"
    assert training.summary.counts == {psd: 1, "extension not read": 1, "hidden": 1, "outside the class folders": 1}
    assert "zebra holds no image" in str(training.summary) and "\n" not in str(training.summary)
    training.summary.write(tmp_path / "passed_over.csv")
    lines = (tmp_path / "passed_over.csv").read_text().splitlines()
    assert lines[:2] == ["file,reason", "zebra/notes.txt,extension not read"] and f"cat/c.psd,{psd}" in lines
    for path in folder.rglob("*.j*"):
        path.rename(path.with_suffix(".NEF"))
    with pytest.raises(
        DataError, match=r"no images \(\d+ \.nef, 1 \.psd, 1 \.txt there; \.nef: raw photographs are not read"
    ):
        load(folder)


def test_names_in_other_bytes_and_forms(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    classes(tmp_path / "d" / "train", composed, "tea")
    classes(tmp_path / "d" / "val", apart, "tea")
    training, validation = load(tmp_path / "d")
    assert counts(training) == counts(validation) == {composed: 6, "tea": 6}
    strange = os.fsdecode(b"th\xe9")
    pair = load(classes(tmp_path / "bytes", strange, "tea"))
    assert "th\\udce9" in str(pair[0].summary).encode("utf-8").decode()


def test_names_of_cameras_and_parts_are_no_classes(tmp_path):
    for first, second in (("IMG", "DSC"), ("Train", "Test")):
        folder = fill(tmp_path / first, *(f"{name}_{i}.jpg" for name in (first, second) for i in range(5)))
        asks(folder, "nothing that tells their classes")


# --- Tables


LABELS = ["blast", "hispa", "normal"]


def flat(folder, count=30, ending=".jpg", prefix=""):
    return fill(folder, *(f"images/{prefix}{i}{ending}" for i in range(count)))


def rows(header, make, count=30):
    return [header, *(make(i, LABELS[i % 3]) for i in range(count))]


def right(pair, count=30):
    """Every image has the label that its number implies."""
    found = {}
    for part in pair:
        for path, label in zip(part.paths, part.labels, strict=True):
            found[int("".join(c for c in os.path.basename(path) if c.isdigit()))] = part.class_names[label]
    return found == {i: LABELS[i % 3] for i in range(count)}


@pytest.mark.parametrize(
    ("header", "make"),
    [
        (["image_id", "label", "variety", "age"], lambda i, label: [f"{i}.jpg", label, "ab"[i % 2], 45]),
        (["id", "filename", "label"], lambda i, label: [i + 1, f"{i}.jpg", label]),
        (["filename", "what"], lambda i, label: [f"/kaggle/input/set/images/{i}.JPG", label]),
        (["filename", "what"], lambda i, label: [f"C:\\data\\{i}.jpg", label]),
        (["file", "class_id", "class name"], lambda i, label: [i, i % 3, label]),
        (["file", *LABELS], lambda i, label: [i, *(float(label == name) for name in LABELS)]),
        (["file", "mask_file", "label"], lambda i, label: [f"{i}.jpg", f"{(i + 1) % 30}.jpg", label]),
        (["0.jpg", "blast"], lambda i, label: [f"{i}.jpg", label]),
    ],
)
def test_the_columns_that_count(tmp_path, header, make):
    folder = flat(tmp_path / "d")
    lines = rows(header, make)
    table(folder / "labels.csv", lines[:1] + lines[2:] if header[0] == "0.jpg" else lines)
    pair = load(folder)
    assert right(pair) and pair[0].class_names == LABELS
    assert "labels.csv" in pair[0].summary.labels_from and pair[0].summary.counts == {}


@pytest.mark.parametrize(
    ("header", "make", "parameter", "value"),
    [
        (["f", "variety", "disease"], lambda i, label: [i, "ab"[i % 2], label], "label_column", "disease"),
        (["f", "label", "class"], lambda i, label: [i, label, "ab"[i % 2]], "label_column", "label"),
        (["a", "b", "label"], lambda i, label: [f"{i}.jpg", f"{(i + 1) % 30}.jpg", label], "image_column", "a"),
        (["f", "label", "kind"], lambda i, label: [i, i / 7, label], "label_column", "kind"),
    ],
)
def test_columns_that_could_be_meant(tmp_path, header, make, parameter, value):
    folder = flat(tmp_path / "d")
    table(folder / "labels.csv", rows(header, make))
    asks(folder, parameter)
    assert right(load(folder, **{parameter: value}))
    asks(folder, f"{parameter}: labels.csv has no column nothing", **{parameter: "nothing"})


def test_labels_that_are_missing_or_written_twice(tmp_path):
    folder = flat(tmp_path / "d")
    table(folder / "labels.csv", rows(["id", "label"], lambda i, _: [i, ["1", "1.0", "2", "nan", ""][i % 5]]))
    pair = load(folder)
    assert both(pair) == {"1": 12, "2": 6} and pair[0].summary.counts["no label"] == 12


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_tables(tmp_path, encoding):
    folder = flat(tmp_path / "d")
    names = ["père", "pâre", "dog"]
    table(folder / "labels.csv", rows(["id", "label"], lambda i, _: [i, names[i % 3]]), encoding)
    pair = load(folder)
    assert set(both(pair)) == set(names)
    assert ("cp1252" in str(pair[0].summary)) == (encoding == "cp1252")
    asks(folder, "table_encoding", table_encoding="ascii")


def test_tables_of_parts(tmp_path):
    folder = flat(tmp_path / "d")
    lines = rows(["file", "label"], lambda i, label: [f"{i}.jpg", label])
    table(folder / "train.csv", lines[:21])
    table(folder / "test.csv", lines[:1] + lines[21:])
    training, validation = load(folder)
    assert right((training, validation)) and (len(training), len(validation)) == (20, 10)
    table(folder / "test.csv", lines[:1] + lines[18:])
    asks(folder, "share images")
    (folder / "test.csv").unlink()
    table(folder / "train.csv", rows(["file", "split", "y"], lambda i, label: [i, ["train", "val"][i > 19], label]))
    training, validation = load(folder)
    assert right((training, validation)) and (len(training), len(validation)) == (20, 10)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_metadata_in_the_folders_of_parts(tmp_path, ending):
    for part, first in (("train", 0), ("test", 20)):
        names = range(first, first + 10)
        fill(tmp_path / "d" / part, *(f"{i}.jpg" for i in names))
        lines = [{"file_name": f"{i}.jpg", "label": LABELS[i % 3]} for i in names]
        if ending == "csv":
            table(tmp_path / "d" / part / "metadata.csv", [list(lines[0]), *(list(row.values()) for row in lines)])
        else:
            (tmp_path / "d" / part / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    training, validation = load(tmp_path / "d")
    assert (len(training), len(validation)) == (10, 10)
    assert {int(os.path.basename(p)[:-4]) for p in validation.paths} == set(range(20, 30))
    assert all(part.class_names[k] == LABELS[int(os.path.basename(p)[:-4]) % 3] for part in (training, validation)
               for p, k in zip(part.paths, part.labels, strict=True))  # fmt: skip


def test_folders_and_tables_that_contradict(tmp_path):
    folder = classes(tmp_path / "d", "cat", "dog", count=10)
    names = [(name, i) for name in ("cat", "dog") for i in range(10)]
    table(folder / "labels.csv", [["file", "label"], *[[f"{name}/{i}.jpg", "xy"[i % 2]] for name, i in names]])
    asks(folder, "classes_from")
    assert both(load(folder, classes_from="folders")) == {"cat": 10, "dog": 10}
    assert both(load(folder, classes_from="table")) == {"x": 10, "y": 10}
    table(folder / "labels.csv", [["file", "label"], *[[f"{name}/{i}.jpg", name[0]] for name, i in names]])
    assert both(load(folder)) == {"cat": 10, "dog": 10}


def test_rows_that_do_not_fit(tmp_path):
    folder = flat(tmp_path / "d")
    lines = rows(["id", "label", "note"], lambda i, label: [i, label, "a"])
    table(folder / "labels.csv", [*lines, [1, "blast", "a", "b"]])
    asks(folder, "row 32 under 3 headers")
    table(folder / "labels.csv", [*lines[:20], [99, "blast", "a"]])
    found = load_test_data(Recipe(data_dir=str(folder), resize=70, max_skipped=1, run_dir=str(tmp_path / "runs")))
    assert found.summary.counts == {"no file for a row": 1, "no row in the table": 11} and np.size(found.labels) == 19
    table(folder / "labels.csv", rows(["id", "labels"], lambda i, label: [i, f"{label}|{LABELS[(i + 1) % 3]}"]))
    asks(folder, "several classes")
