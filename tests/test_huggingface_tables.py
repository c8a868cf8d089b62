"""Columns, labels and parts of Hugging Face's tables."""

import json

import numpy as np
import pytest
from huggingface_helpers import find, pyarrow, rows, save, shown, state, stopped, write

from alexnet.data import DataError
from alexnet.data.source import NO_LABEL, OTHER_SPLITS

pytestmark = pytest.mark.once


TWO = ["a", "b", "a", "b"]


# --- Columns and labels


def declared(table, **names):
    """With classes as Hugging Face describes them."""
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
        (rows(None, 4, kind=OTHER, place=TWO), "hold the classes: kind, place; name one: label_column"),
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
        (rows(mask=[b"\x89PNG"] * 4, image="photo"), "hold the images: photo, mask; name one: image_column"),
        (rows(image="blob").set_column(0, "blob", [[b"RIFF"] * 4]), "must have a column of images"),
        (rows().set_column(0, "image", [[{"bytes": None, "path": "/etc/hostname"}] * 4]), "holds no bytes of images"),
        (
            pyarrow.Table.from_arrays([[1], [b"a"], [2]], names=["label", "image", "label"]),
            "several columns with the same name",
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
    stopped(tmp_path, "train-1.parquet has different columns")
    write(tmp_path, "train-0.parquet", table=declared(rows(FOUR), label="xy"))
    write(tmp_path, "train-1.parquet", table=declared(rows(FOUR), label="yx"))
    stopped(tmp_path, "name the classes of column label differently: x, y; y, x")
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
    stopped(tmp_path, "test.parquet: column label holds numbers, and nothing says which classes")


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
    stopped(tmp_path, "column split and the file put rows into different splits.*validation_dir")
    assert [len(source) for source in find(tmp_path, validation_dir="test")] == [4, 4]


# --- Mixtures of all of these


class Mixture:
    """A random data set, and its truth: each image encodes its split, its row and its class."""

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
        self.fault = self.pick(*[None] * 4, "shard", "leftover", "type", "paths", "names", "unlabeled", "columns")
        self.victim = self.pick(*self.splits)
        self.rows = {split: [] for split in self.splits}
        self.left_over = 0
        (self.save if self.chance(0.4) else self.write)()

    def chance(self, share):
        return bool(self.rng.random() < share)

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def table(self, split):
        """Make a few rows, and record them. None stands for a hidden class."""
        count, first = int(self.rng.integers(4, 9)), len(self.rows[split])
        classes = [self.pick(*self.classes, *[None] * self.chance(0.2)) for _ in range(count)]
        classes[:4] = [self.classes[0], self.classes[1]] * 2
        ill = split == self.victim
        if ill and self.fault == "unlabeled" and split != "train":
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
        if self.fault in ("shard", "leftover") and "-of-" not in layout:  # nothing would reveal it
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
        """Images that were found have the right labels, and the others are counted."""
        sources = [source for source in (training, validation) if source]
        passed = [(why, name) for source in sources for why, names in source.passed_over for name in names]
        seen = set()
        for source, splits in ((training, ("train",)), (validation, ("validation", "test"))):
            for row, label in zip(source.indices, source.labels, strict=True) if source else ():
                _, split, number, name = source.reader.read(row).decode("latin1").split(" ")
                assert split in splits
                expected = {name if self.style in ("names", "text", "categories") else str(self.classes.index(name))}
                if self.fault == "type":  # each split as it is written; a later check finds that they differ
                    expected = {name, str(self.classes.index(name))}
                assert source.class_names[label] in expected
                assert (split, int(number)) not in seen
                seen.add((split, int(number)))
        used = {split for split, _ in seen}
        for split, classes in self.rows.items():
            labeled = sum(name is not None for name in classes)
            if split in used:
                assert sum(other == split for other, _ in seen) == labeled
            elif labeled:
                assert any(reason == OTHER_SPLITS and split in name for reason, name in passed), split
        if training:
            hidden = sum(name is None for split in used for name in self.rows[split])
            assert sum(reason == NO_LABEL for reason, _ in passed) >= hidden


def test_random_mixtures(tmp_path):
    """Right, or an error; never silently wrong."""
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
