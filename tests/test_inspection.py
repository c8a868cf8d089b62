"""What `inspect` finds in a data set, and how it reports it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import write_class_folders
from PIL import Image, ImageEnhance

from alexnet.cli import main
from alexnet.data import contact_sheet, duplicates, shapes
from alexnet.data import inspection as inspecting
from alexnet.data.decoding import decode_image
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once


def draw(shape, number):
    return shapes.draw(shape, np.random.default_rng([7, number]))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def inspect(data_dir, decode_all=False, **fields):
    return inspecting.inspect(Recipe(data_dir=str(data_dir), **fields), decode_all, verbose=0)


def inspected(capsys, *arguments):
    """`(status, JSON, error)` of the command."""
    status = main(["inspect", *map(str, arguments), "--json"])
    out, error = capsys.readouterr()
    return status, json.loads(out), error


@pytest.fixture
def folder(tmp_path):
    """Three classes, 4 + 2 images, and a few files beside them."""
    folder = write_class_folders(tmp_path / "set", {"train": 4, "val": 2})
    (folder / "train" / "cross" / "notes.txt").write_text("none")
    (folder / "train" / "ring" / "scan.psd").write_text("none")
    (folder / "val" / ".DS_Store").write_text("none")
    return folder


def names(group):
    return {os.path.basename(member["name"]) for member in group}


# --- What is counted


def test_classes_parts_and_what_is_passed_over(folder, capsys):
    shutil.rmtree(folder / "val" / "triangle")
    (folder / "train" / "cross" / "0001.jpg").unlink()
    status, found, error = inspected(capsys, folder)
    assert (status, error, found["problem"]) == (0, "", None)
    assert found["classes"] == {
        "cross": {"training": 3, "validation": 2},
        "ring": {"training": 4, "validation": 2},
        "triangle": {"training": 4, "validation": 0},
    }
    assert found["images"] == {"training": 11, "validation": 4}
    assert found["layout"] == "class folders" and found["validation_from"] == "val/"
    passed_over = {name: reason for reason, files in found["passed_over"].items() for name in files["first"]}
    assert set(passed_over) == {"train/cross/notes.txt", "train/ring/scan.psd", "val/.DS_Store"}
    assert passed_over["train/cross/notes.txt"] == "extension not read" and passed_over["val/.DS_Store"] == "hidden"
    assert passed_over["train/ring/scan.psd"] == ".psd: this format is not read (convert it)"
    assert main(["inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "passed over       1 extension not read: train/cross/notes.txt" in lines
    assert lines[-4:] == ["class     training  validation", *(f"{n:<8}  {k:>8}  {v:>10}" for n, k, v in rows(found))]


def rows(found):
    return [(name, counts["training"], counts["validation"]) for name, counts in found["classes"].items()]


def test_held_out_images_are_a_part(tmp_path):
    found = inspect(write_class_folders(tmp_path / "set", {"": 10}), validation_split=0.2)
    held_out = found.summary.images["validation"]
    assert 0 < held_out < 15 and sum(counts["validation"] for counts in found.classes.values()) == held_out
    assert all(counts["training"] + counts["validation"] == 10 for counts in found.classes.values())
    assert "held out" in found.summary.validation_from


def test_a_few_images_of_each_class_are_counted(tmp_path, capsys):
    folder = write_class_folders(tmp_path / "set", {"train": 6, "val": 2})
    status, found, _ = inspected(capsys, folder, "--images_per_class", 4)
    assert status == 0 and set(rows(found)) == {(name, 4, 2) for name in ("cross", "ring", "triangle")}
    assert found["notes"] == ["images_per_class 4: 12 of 18 to train on"]


def test_sizes_are_those_that_a_viewer_shows(tmp_path):
    """From the headers: rotated by EXIF in JPEG, PNG and TIFF, and also if the pixels are damaged."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for k, (size, kind, options) in enumerate(
        [
            ((40, 20), "JPEG", {}),
            ((60, 30), "JPEG", {"exif": turned}),
            ((80, 10), "PNG", {"exif": turned}),
            ((70, 90), "TIFF", {"exif": turned}),
            ((50, 50), "WEBP", {"exif": turned}),
            ((33, 44), "GIF", {}),
        ]
    ):
        content = encoded(Image.new("RGB", size, (k, 0, 0)), kind, **options)
        path = tmp_path / "set" / "ab"[k % 2] / f"{k}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = inspect(tmp_path / "set", validation_split=0.5)
    #            0   1   2   3   4   5
    # width     40  30  10  90  50  33
    # height    20  60  80  70  50  44
    assert found.sizes == {"width": (10, 36, 90), "height": (20, 55, 80), "shorter side": (10, 31, 70)}
    assert found.measured == 6


def test_sizes_of_arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3)).astype(np.uint8)
    pixels[11] = pixels[0]
    labels = np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=pixels[:8], y_train=labels[:8], x_val=pixels[8:], y_val=labels[8:])
    found = inspect(tmp_path / "a.npz")
    assert found.sizes["width"] == (9, 9, 9)
    ((first, second),) = found.exact
    assert (first.part, first.name, second.part, second.name) == ("training", "0", "validation", "3")


# --- Damage


def test_damaged_images_stand_for_those_that_are_not_decoded(folder, capsys, monkeypatch):
    for name in ("0000", "0001", "0002"):
        (folder / "train" / "ring" / f"{name}.jpg").write_bytes(b"\xff\xd8\xff no more")
    status, found, error = inspected(capsys, folder, "--max_skipped", 0.2)
    assert status == 0 and found["damaged"]["count"] == found["damaged"]["expected_of_all"] == 3
    assert found["sizes"]["images"] == 15
    assert found["damaged"]["first"][0]["file"] == str(folder / "train" / "ring" / "0000.jpg")
    status, found, error = inspected(capsys, folder, "--max_skipped", 0.1)
    assert status == 1 and "3 of 18 images cannot be read, more than max_skipped (0.1) allows" in error
    # Half of the training images and all of the validation images are decoded: each part has its own estimate.
    monkeypatch.setattr(inspecting, "SAMPLE", 12)
    for name in ("0000", "0001"):
        (folder / "val" / "ring" / f"{name}.jpg").write_bytes(b"")
    (folder / "train" / "ring" / "0003.jpg").write_bytes(b"")
    looked = inspect(folder, seed=1)
    in_training = sum("train" in name for name in looked.damaged)
    assert len(looked.damaged) == in_training + 2 and 0 < in_training < 4
    assert looked.decoded == 12 and looked.expected_damaged == 2 * in_training + 2
    assert f"about {2 * in_training + 2} of 18 images" in looked.too_many_unreadable(0.1)
    assert inspect(folder, decode_all=True).expected_damaged == 6


def test_a_row_without_a_file_is_unreadable(tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(8):
        draw("ring", k).save(folder / f"{k}.png")
    table = "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(10))
    (folder / "labels.csv").write_text(f"file,label\n{table}")
    status, found, error = inspected(capsys, folder, "--validation_split", 0.5, "--max_skipped", 0)
    assert status == 1 and found["unreadable"]["count"] == 2 and "2 of 8 images" in error
    assert found["paths_from"] and "label" in found["labels_from"]


# --- What a run could not train on


def test_one_class_is_reported_all_the_same(tmp_path, capsys):
    write_class_folders(tmp_path / "set", {"": 5}, classes=("ring",))
    status, found, error = inspected(capsys, tmp_path / "set", "--output", tmp_path / "out")
    assert status == 2 and "one class" in error and found["problem"] in error
    assert found["images"] == {"all": 5} and found["classes"] == {"ring": {"all": 5}}
    assert (tmp_path / "out" / "contact_sheet.png").exists()
    assert main(["inspect", str(tmp_path / "set")]) == 2
    assert capsys.readouterr().out.endswith("class  images\nring        5\n")


def test_a_part_whose_classes_do_not_fit_is_reported_all_the_same(tmp_path):
    write_class_folders(tmp_path / "set", {"train": 3})
    write_class_folders(tmp_path / "set2", {"val": 2}, classes=("cross", "star"))
    shutil.move(tmp_path / "set2" / "val", tmp_path / "set" / "val")
    found = inspect(tmp_path / "set")
    assert "star" in found.problem
    assert found.classes["star"] == {"training": 0, "validation": 2}
    assert found.classes["ring"] == {"training": 3, "validation": 0}
    assert found.classes["cross"] == {"training": 3, "validation": 2}


def test_where_nothing_is_understood_the_status_is_2(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty"), "--json"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and "there is no folder" in error and "holds no images" in error


# --- Duplicates


def test_exact_and_near_duplicates_across_parts_and_classes(folder, capsys):
    train, val = folder / "train", folder / "val"
    shutil.copy(train / "cross" / "0000.jpg", val / "cross" / "copy.jpg")  # across parts
    shutil.copy(train / "cross" / "0000.jpg", train / "cross" / "copy.jpg")
    shutil.copy(train / "ring" / "0001.jpg", train / "triangle" / "other.jpg")  # across classes
    again = Image.open(train / "triangle" / "0002.jpg")
    again.resize((again.width // 2, again.height // 2)).save(val / "ring" / "small.jpg", quality=50)  # across both
    Image.open(train / "ring" / "0003.jpg").save(train / "ring" / "again.png")
    status, found, _ = inspected(capsys, folder)
    exact, near = found["duplicates"]["exact"], found["duplicates"]["near"]
    assert status == 0
    # As PNG the same pixels may differ by a level after decoding, but they are alike.
    pairs = [*exact["first"], *near["first"]]
    assert [names(group) for group in exact["first"][:2]] == [{"0000.jpg", "copy.jpg"}, {"0001.jpg", "other.jpg"}]
    assert [len(group) for group in exact["first"][:2]] == [3, 2]
    assert (exact["across_parts"], exact["across_classes"]) == (1, 1)
    assert (near["across_parts"], near["across_classes"], near["not_compared"]) == (1, 1, 0)
    assert [(m["part"], m["class_name"]) for m in near["first"][0]] == [
        ("training", "triangle"),
        ("validation", "ring"),
    ]
    assert {"0003.jpg", "again.png"} in map(names, pairs) and len(pairs) == 4
    lines = str(inspect(folder)).splitlines()
    first = next(line for line in lines if line.startswith("exact duplicates"))
    assert "1 across parts, 1 across classes" in first
    # From a long group one image of each part is shown first.
    assert lines[lines.index(first) + 1].strip() == (
        "training cross: train/cross/0000.jpg = validation cross: val/cross/copy.jpg = "
        "training cross: train/cross/copy.jpg"
    )


@pytest.mark.parametrize("form", ["folder", "zip", "npz"])
def test_equal_files_are_found_among_all_images(tmp_path, monkeypatch, form):
    """Also if neither is decoded, but not if only the size and the last bytes are equal."""
    monkeypatch.setattr(inspecting, "SAMPLE", 2)
    folder = write_class_folders(tmp_path / "set", {"train": 12, "val": 6}, classes=["ring", "star"])
    shutil.copy(folder / "train" / "ring" / "0005.jpg", folder / "val" / "ring" / "0003.jpg")
    content = bytearray((folder / "train" / "star" / "0005.jpg").read_bytes())
    content[15] ^= 1
    (folder / "val" / "star" / "0003.jpg").write_bytes(content)
    if form == "zip":
        shutil.make_archive(str(folder), "zip", folder)
    elif form == "npz":
        arrays = {}
        for part in ("train", "val"):
            files = sorted((folder / part).rglob("*.jpg"))
            arrays[f"x_{part}"] = np.array([decode_image(file.read_bytes(), 32, "") for file in files])
            arrays[f"y_{part}"] = np.arange(len(files)) * 2 // len(files)
        np.savez(folder.with_suffix(".npz"), **arrays)
    found = inspect(folder if form == "folder" else folder.with_suffix(f".{form}"))
    equal = [[(m.part, m.class_name, m.name.rpartition("/")[2]) for m in group] for group in found.exact]
    ring, star = ("0", "1") if form == "npz" else ("ring", "star")
    same = [("training", ring, "0005.jpg"), ("validation", ring, "0003.jpg")]
    if form != "npz":
        assert equal == [same] and found.decoded == 2 and "searched for among all" in str(found)
    else:  # in an array there are only pixels, and the changed byte is not one
        expected = [
            [("training", ring, "5"), ("validation", ring, "3")],
            [("training", star, "17"), ("validation", star, "9")],
        ]
        assert equal == expected


def test_plain_images_that_differ_a_little_are_no_exact_duplicates(tmp_path):
    folder = tmp_path / "set"
    for k, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        pixels = np.full((128, 128, 3), 60 * k, np.uint8)
        if k == 1:
            pixels[:] = 0
            pixels[64, 64] = 9
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    found = inspect(folder, validation_split=0.5)
    assert found.exact == []
    assert [{os.path.basename(m.name) for m in group} for group in found.near] == [{"0.png", "1.png"}]


COPIES = {
    "JPEG of quality 50": lambda image: encoded(image, "JPEG", quality=50),
    "PNG": encoded,
    "WebP": lambda image: encoded(image, "WEBP", quality=60),
    "half as large": lambda image: encoded(image.resize((image.width // 2, image.height // 2)), "JPEG", quality=85),
    "half as large, nearest": lambda image: encoded(image.resize((image.width // 2, image.height // 2), 0)),
    "twice as large": lambda image: encoded(image.resize((image.width * 2, image.height * 2)), "JPEG"),
    "5 % brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.05), "JPEG", quality=85),
}


def thumbnails(contents):
    return np.stack([duplicates.thumbnail(decode_image(content, 128, "it")) for content in contents])


def test_copies_look_alike_and_different_drawings_do_not():
    drawn = [draw(shape, k) for shape in ("circle", "square") for k in range(5)]
    jpegs = [encoded(image, "JPEG", quality=90) for image in drawn]
    assert duplicates.group_similar(thumbnails(jpegs)) == []
    read = [Image.open(io.BytesIO(content)) for content in jpegs]
    originals, count = thumbnails(jpegs), len(jpegs)
    for kind, copy in COPIES.items():
        groups = duplicates.group_similar(np.concatenate([originals, thumbnails(map(copy, read))]))
        assert groups == [[k, count + k] for k in range(count)], kind
    mirrored = thumbnails(encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for image in read[5:])
    assert duplicates.group_similar(np.concatenate([originals[5:], mirrored])) == []


def test_alike_images_of_all_blocks_are_found(monkeypatch):
    """Compared with testing every pair separately; the blocks of the matrix are small."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 256, (16, 1, 16, 16, 3))
    noisy = np.clip(
        base + rng.normal(0, 1, (16, 4, 16, 16, 3)) * rng.choice([0.5, 9, 30, 60], (16, 4, 1, 1, 1)), 0, 255
    )
    plain = np.broadcast_to(rng.integers(100, 110, (20, 1, 1, 3)), (20, 16, 16, 3))
    squares = np.concatenate([noisy.reshape(-1, 16, 16, 3), plain]).astype(np.uint8)
    squares = squares[rng.permutation(len(squares))]
    contrast = np.sqrt(squares.astype(float).var(axis=(1, 2)).mean(axis=1))
    group = np.arange(len(squares))
    for i in range(len(squares)):
        for j in range(i):
            difference = np.sqrt(np.square(squares[i].astype(float) - squares[j]).mean())
            if difference <= max(1, 0.25 * min(contrast[i], contrast[j])):
                group[group == group[i]] = group[j]
    expected = sorted(np.flatnonzero(group == g).tolist() for g in set(group.tolist()) if (group == g).sum() > 1)
    assert len(expected) > 5
    for entries in (1, 700, 2**24):
        monkeypatch.setattr(duplicates, "_ENTRIES", entries)
        assert duplicates.group_similar(squares) == expected
    assert duplicates.group_similar(squares[:0]) == []


def test_so_many_images_are_compared_and_the_others_counted(folder, monkeypatch):
    Image.open(folder / "train" / "cross" / "0000.jpg").save(folder / "train" / "cross" / "0001.jpg", quality=60)
    Image.open(folder / "train" / "cross" / "0000.jpg").save(folder / "val" / "ring" / "0001.jpg", quality=60)
    monkeypatch.setattr(inspecting, "COMPARED", 12)
    found = inspect(folder)
    assert found.not_compared == 6 - len(found.exact) and len(found.near) == 1
    assert {member.part for member in found.near[0]} == {"training"}
    assert f"{found.not_compared} images not compared" in str(found)


def test_the_sample_has_of_each_part_as_many(folder, monkeypatch):
    monkeypatch.setattr(inspecting, "SAMPLE", 8)
    monkeypatch.setattr(inspecting, "MEASURED", 4)
    found = inspect(folder)
    assert (found.decoded, found.measured) == (8, 4)
    assert "8 of 18 images; equal files are searched for among all" in str(found)
    assert inspect(folder, decode_all=True).decoded == 18
    sources = found.sources
    assert {part: len(places) for part, places in inspecting._sample(sources, 8, 0).items()} == {
        "training": 4,
        "validation": 4,
    }
    assert {part: len(places) for part, places in inspecting._sample(sources, 15, 0).items()} == {
        "training": 9,
        "validation": 6,
    }


# --- Files


def test_output_has_four_files_and_keeps_no_old_list(folder, tmp_path, capsys):
    shutil.copy(folder / "train" / "ring" / "0000.jpg", folder / "val" / "ring" / "copy.jpg")
    out = tmp_path / "out"
    assert main(["inspect", str(folder), "--output", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        *("contact_sheet.png", "index.html"),
        *("duplicates.csv", "passed_over.csv"),
    }
    with (out / "duplicates.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["group"], row["kind"], row["part"], row["class_name"]) for row in table] == [
        ("1", "exact", "training", "ring"),
        ("1", "exact", "validation", "ring"),
    ]
    assert table[1]["name"] == str(folder / "val" / "ring" / "copy.jpg")
    assert len((out / "passed_over.csv").read_text().splitlines()) == 4
    page = (out / "index.html").read_text()
    assert "contact_sheet.png" in page and "exact duplicates" in page and "train/cross/notes.txt" in page
    (folder / "val" / "ring" / "copy.jpg").unlink()
    for path in ("train/cross/notes.txt", "train/ring/scan.psd", "val/.DS_Store"):
        (folder / path).unlink()
    assert main(["inspect", str(folder), "--output", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"contact_sheet.png", "index.html"}


def test_contact_sheet_shows_each_class_where_it_says(folder):
    (folder / "train" / "cross" / "0002.jpg").write_bytes(b"")
    found = inspect(folder)
    sheet = contact_sheet.draw(found.sources, found.classes)
    assert list(sheet.strips) == ["cross", "ring", "triangle"]
    for name, (x, y, width, height) in sheet.strips.items():
        strip = np.asarray(sheet.image.crop((x, y, x + width, y + height)))
        for k in range(4):
            tile = strip[:, k * (height + 4) : k * (height + 4) + height]
            if (name, k) == ("cross", 2):
                assert (tile[0] == (255, 0, 0)).all() and (tile[10, 30] == 255).all()
            else:
                content = (folder / "train" / name / f"{k:04d}.jpg").read_bytes()
                np.testing.assert_array_equal(tile, decode_image(content, height, "it"))
        assert (strip[:, 4 * (height + 4) :] == 255).all()


def test_contact_sheet_of_many_classes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MOST", 45)
    pixels = np.full((100, 8, 8, 3), 250, np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(100) % 50, class_names=[f"<{k}>" for k in range(50)])
    found = inspect(tmp_path / "a.npz", validation_split=0.5)
    sheet = contact_sheet.draw(found.sources, found.classes)
    assert len(sheet.strips) == 45 and max(sheet.image.size) < 1600
    boxes = list(sheet.strips.values())
    assert len({box[:2] for box in boxes}) == 45
    assert all(x + w <= sheet.image.width and y + h <= sheet.image.height for x, y, w, h in boxes)
    found.write(tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("background-position:") == 45 and page.count("<tr><td>&lt;") == 50


def test_output_inside_the_data_set_is_refused(folder, capsys):
    for inside in (folder, folder / "out", folder / "train" / ".." / "out"):
        with pytest.raises(SystemExit) as error:
            main(["inspect", str(folder), "--output", str(inside)])
        assert error.value.code == 2 and "would become part of the data" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_names_that_are_no_text(tmp_path, capsys):
    folder = os.fsencode(write_class_folders(tmp_path / "set", {"train": 3, "val": 2}))
    shutil.copy(folder + b"/train/ring/0000.jpg", folder + b"/val/ring/caf\xe9.jpg")
    os.rename(folder + b"/train/cross", folder + b"/train/\xff cross")
    os.rename(folder + b"/val/cross", folder + b"/val/\xff cross")
    with open(folder + b"/val/\xfe.txt", "w"):
        pass
    status, found, error = inspected(capsys, tmp_path / "set", "--output", tmp_path / "out")
    assert (status, error) == (0, "")
    json.dumps(found, ensure_ascii=False).encode()
    assert "\\udcff cross" in found["classes"] and found["passed_over"]["extension not read"]["first"] == [
        "val/\\udcfe.txt"
    ]
    assert found["duplicates"]["exact"]["first"][0][1]["name"].endswith("val/ring/caf\\udce9.jpg")
    for file in ("index.html", "duplicates.csv"):
        assert "caf\\udce9.jpg" in (tmp_path / "out" / file).read_text(encoding="utf-8")
    assert main(["inspect", str(tmp_path / "set")]) == 0
    assert "\\udcff cross" in capsys.readouterr().out


def test_a_zip(folder, tmp_path, capsys):
    archive = shutil.make_archive(tmp_path / "images", "zip", folder)
    expected = inspected(capsys, folder)[1]
    status, found, _ = inspected(capsys, archive, "--output", tmp_path / "out")
    assert status == 0
    for key in ("layout", "classes", "images", "sizes", "validation_from"):
        assert found[key] == expected[key], key
    assert {reason: files["count"] for reason, files in found["passed_over"].items()} == {
        reason: files["count"] for reason, files in expected["passed_over"].items()
    }
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_json_is_one_object_and_needs_no_keras(folder):
    program = "import sys; from alexnet.cli import main; status = main(sys.argv[1:]); "
    program += "sys.exit(status or 9 * ('keras' in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program, "inspect", folder, "--json", "--all"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["decoded"] == 18
