"""Published data sets in small versions: each image must have the label that its publisher means."""

import json
import os
import shutil

import pytest
from drawn_sets import (
    LETTERS,
    WNIDS,
    Drawn,
    caltech101,
    caltech256,
    chest_x_ray14,
    chest_x_ray14_sample,
    cub,
    flowers,
    flowers_in_folders,
    food,
    ham10000,
    ham10000_with_test,
    imagenet_flat_validation,
    imagenette,
    isic2018,
    isic2019,
    paddy,
    pets,
    signs,
    signs_on_kaggle,
    signs_without_truth,
    stanford_dogs,
    tiny_imagenet,
)

from alexnet.data import DataError, load_data, load_test_data
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once


PLANTS = ["Apple___Apple_scab", "Apple___healthy", "Tomato___Late_blight"]


def plant_village(d):
    for kind in ("color", "grayscale", "segmented"):
        d.images(f"plantvillage dataset/{kind}/{{c}}/{{i}}.JPG", PLANTS, part="train" if kind == "color" else None)


def plant_village_twice(d):
    d.images("PlantVillage/{c}/{i}.JPG", PLANTS)
    d.images("PlantVillage/PlantVillage/{c}/{i}.JPG", PLANTS, part=None)


def plant_village_beside(d):
    d.images("PlantVillage/{c}/{i}.JPG", PLANTS)
    d.images("plantvillage/PlantVillage/{c}/{i}.JPG", PLANTS, part=None)


def plant_diseases(d):
    top = "New Plant Diseases Dataset(Augmented)"
    for outer in (top, top.lower()):  # it holds everything twice
        ours = outer == top
        d.images(f"{outer}/{top}/train/{{c}}/{{i}}.JPG", PLANTS, part="train" if ours else None)
        d.images(f"{outer}/{top}/valid/{{c}}/9{{i}}.JPG", PLANTS, part="val" if ours else None, count=3)
    for i in range(4):
        d.image(f"test/test/AppleCedarRust{i + 1}.JPG")


def plant_pathology_2020(d):
    names = ["healthy", "multiple_diseases", "rust", "scab"]
    rows = [["image_id", *names]]
    for i in range(32):
        d.image(f"images/Train_{i}.jpg", names[i * 5 % 4])
        rows.append([f"Train_{i}", *(int(k == i * 5 % 4) for k in range(4))])
        d.image(f"images/Test_{i}.jpg")
    d.table("train.csv", rows)
    d.table("test.csv", [["image_id"], *([f"Test_{i}"] for i in range(32))])
    d.table("sample_submission.csv", [["image_id", *names], *([f"Test_{i}", *[0.25] * 4] for i in range(32))])


def plant_pathology_2021(d):
    names = ["healthy", "scab", "frog_eye_leaf_spot", "scab frog_eye_leaf_spot"]
    rows = [["image", "labels"]]
    for i in range(32):
        label = names[i * 5 % 4]
        d.image(f"train_images/{i:04x}b{i}.jpg", None if " " in label else label)
        rows.append([f"{i:04x}b{i}.jpg", label])
    d.image("test_images/85f8cb619c66b863.jpg")
    d.table("train.csv", rows)
    d.table("sample_submission.csv", [["image", "labels"], ["85f8cb619c66b863.jpg", "healthy"]])


def intel(d):
    d.images("seg_train/seg_train/{c}/{i}.jpg", ["buildings", "forest", "sea"])
    d.images("seg_test/seg_test/{c}/2{i}.jpg", ["buildings", "forest", "sea"], count=3, part="val")
    for i in range(5):
        d.image(f"seg_pred/seg_pred/{i}.jpg")


def chest_xray(d):
    for top, ours in (("chest_xray", True), ("chest_xray/chest_xray", False)):
        for part, used in (("train", "train"), ("val", "val"), ("test", None)):
            path = f"{top}/{part}/{{c}}/{part}-{{i}}.jpeg"
            d.images(path, ["NORMAL", "PNEUMONIA"], count=3 + (part == "train"), part=used if ours else None)
    d.write("chest_xray/__MACOSX/chest_xray/train/NORMAL/._train-0.jpeg")
    d.write("chest_xray/chest_xray/.DS_Store")


def covid(d):
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        d.images(f"COVID-19_Radiography_Dataset/{name}/images/{name}-{{i}}.png", [name])
        d.images(f"COVID-19_Radiography_Dataset/{name}/masks/{name}-{{i}}.png", [name], part=None)
        d.write(f"COVID-19_Radiography_Dataset/{name}.metadata.xlsx")
    d.write("COVID-19_Radiography_Dataset/README.md.txt", "COVID-19 CHEST X-RAY DATABASE\n")


def asl(d):
    d.images("asl_alphabet_train/asl_alphabet_train/{c}/{c}{i}.jpg", LETTERS)
    for name in LETTERS:
        d.image(f"asl_alphabet_test/asl_alphabet_test/{name}_test.jpg")


def pet_images(d):
    d.images("PetImages/{c}/{i}.jpg", ["Cat", "Dog"], count=120)
    d.write("PetImages/Cat/66.jpg")  # damaged: it is listed, and left out when it is read
    d.write("PetImages/Dog/Thumbs.db")
    d.write("PetImages/Cat/Thumbs.db")
    d.write("readme[1].txt")
    d.write("MSR-LA - 3467.docx")


def cassava(d):
    rows = [["image_id", "label"]]
    for i in range(30):
        d.image(f"train_images/{1000015157 + i}.jpg", str(i * 7 % 5))
        rows.append([f"{1000015157 + i}.jpg", i * 7 % 5])
    d.image("test_images/2216849948.jpg")
    d.table("train.csv", rows)
    d.table("sample_submission.csv", [["image_id", "label"], ["2216849948.jpg", 4]])
    d.write("label_num_to_disease_map.json", '{"0": "Cassava Bacterial Blight (CBB)", "4": "Healthy"}')
    d.write("train_tfrecords/ld_train00-1338.tfrec")


def cifar_on_kaggle(d):
    rows = [["id", "label"]]
    for i in range(1, 31):
        label = ["frog", "truck", "deer"][i * 5 % 3]
        d.image(f"train/{i}.png", label)
        rows.append([i, label])
        d.image(f"test/{i}.png")
    d.table("trainLabels.csv", rows)
    d.table("sampleSubmission.csv", [["id", "label"], *([i, "cat"] for i in range(1, 31))])


LAND = ["AnnualCrop", "Forest", "SeaLake"]


def eurosat(d):
    d.images("2750/{c}/{c}_{i}.jpg", LAND)


def eurosat_on_kaggle(d, bands=False):
    tables = {part: [["", "Filename", "Label", "ClassName"]] for part in ("train", "validation", "test")}
    for k, name in enumerate(LAND):
        for i in range(1, 11):
            part = ("train", "train", "validation", "train", "test")[(i + k) % 5]
            used = {"train": "train", "validation": "val"}.get(part)
            d.image(f"EuroSAT/{name}/{name}_{i}.jpg", used and name, used or "train")
            if bands:
                d.image(f"EuroSATallBands/{name}/{name}_{i}.tif")
            tables[part].append([len(tables[part]) - 1, f"{name}/{name}_{i}.jpg", k, name])
    for part, rows in tables.items():
        d.table(f"EuroSAT/{part}.csv", rows)
        if bands:
            d.table(f"EuroSATallBands/{part}.csv", [[row[0], row[1].replace(".jpg", ".tif"), *row[2:]] for row in rows])
    d.write("EuroSAT/label_map.json", json.dumps({name: k for k, name in enumerate(LAND)}))


def eurosat_with_bands(d):
    eurosat_on_kaggle(d, bands=True)


def fruits(d):
    classes = ["Apple Braeburn", "Apple Red 1", "Pear"]
    d.images("fruits-360_dataset/fruits-360/Training/{c}/{i}_100.jpg", classes)
    d.images("fruits-360_dataset/fruits-360/Test/{c}/3{i}_100.jpg", classes, count=3, part="val")
    for name in ("apple_apricot", "apples1"):
        d.image(f"fruits-360_dataset/fruits-360/test-multiple_fruits/{name}.jpg")
    d.write("fruits-360_dataset/fruits-360/papers/Fruit recognition.pdf")
    d.write("fruits-360_dataset/fruits-360/readme.md")
    d.write("fruits-360_dataset/fruits-360/LICENSE")


def fruits_of_two_sizes(d):
    for size in ("100x100", "original-size"):
        top, first = f"fruits-360_{size}/fruits-360", size == "100x100"
        d.images(top + "/Training/{c}/{i}_100.jpg", ["Apple 6", "Pear 1"], part="train" if first else None)
        d.images(top + "/Test/{c}/5{i}_100.jpg", ["Apple 6", "Pear 1"], part="val" if first else None)


def numbered_validation(d):
    """Class folders, and validation images whose table has numbers that the folders do not explain."""
    d.images("train/{c}/{c}_{i}.JPEG", WNIDS)
    d.images("val/{i}.JPEG", [""], part=None)
    d.table("val.csv", [["file", "label"], *([f"{i}.JPEG", i % 3] for i in range(8))])


def lists_with_labels(d):
    """Lists as Caffe takes them: a path and a number in each line."""
    for part, used, count in (("train", "train", 24), ("val", "val", 9)):
        rows = [[f"images/{part}_{i}.jpg", i * 5 % 3] for i in range(count)]
        for path, label in rows:
            d.image(path, str(label), used)
        d.table(f"{part}.txt", rows, " ")


RECOGNIZED = [
    *(imagenette, tiny_imagenet, imagenet_flat_validation, stanford_dogs, pets, flowers, flowers_in_folders, food),
    *(
        caltech101,
        caltech256,
        cub,
        signs,
        signs_without_truth,
        signs_on_kaggle,
        ham10000,
        ham10000_with_test,
        isic2018,
        isic2019,
    ),
    *(
        paddy,
        plant_village_twice,
        plant_village_beside,
        plant_diseases,
        plant_pathology_2020,
        intel,
        chest_xray,
        covid,
        asl,
    ),
    *(pet_images, cassava, cifar_on_kaggle, eurosat, eurosat_on_kaggle, fruits, lists_with_labels),
]


def by_sex(d):
    chest_x_ray14(d, lambda finding, sex: sex)


ASKED = [
    (chest_x_ray14, {"label_column": "Finding Labels"}),
    (by_sex, {"label_column": "Patient Gender"}),
    (chest_x_ray14_sample, {"label_column": "Finding Labels"}),
    (plant_pathology_2021, {"label_column": "labels"}),
    (plant_village, {"training_dir": "color"}),
    (eurosat_with_bands, {"training_dir": "EuroSAT"}),
    (fruits_of_two_sizes, {"training_dir": "fruits-360_100x100"}),
    (numbered_validation, {"classes_from": "folders"}),
]


# --- The tests


def load(d, **values):
    values = {"data_dir": str(d.folder), "resize": 67, "validation_split": 0.2, **values}
    return load_data(Recipe(run_dir=f"{d.folder}.runs", **values))


def said(images, folder):
    """`{path: class}` as the readers find it."""
    pairs = zip(images.paths, images.labels, strict=True)
    return {os.path.relpath(path, folder): images.class_names[label] for path, label in pairs}


def check(d, pair):
    training, validation = (said(images, d.folder) for images in pair)
    assert len(training) == len(pair[0]) and len(validation) == len(pair[1])
    if d.truth["val"]:
        assert validation == d.truth["val"] and training == d.truth["train"]
    else:
        assert not set(training) & set(validation) and training | validation == d.truth["train"]
        assert "held out" in pair[0].summary.validation_from


@pytest.mark.parametrize("draw", RECOGNIZED)
def test_recognized(tmp_path, draw):
    d = Drawn(tmp_path / "d")
    draw(d)
    check(d, load(d))


@pytest.mark.parametrize(("draw", "values"), ASKED)
def test_asked(tmp_path, draw, values):
    d = Drawn(tmp_path / "d")
    draw(d)
    with pytest.raises(DataError, match="|".join(values)):
        load(d)
    check(d, load(d, **values))


@pytest.mark.parametrize("draw", [tiny_imagenet, stanford_dogs, flowers, cub, signs_on_kaggle, plant_village_twice])
def test_in_a_zip(tmp_path, draw):
    d = Drawn(tmp_path / "d")
    draw(d)
    shutil.make_archive(tmp_path / "d", "zip", d.folder)
    d.folder = tmp_path / "d.zip"
    check(d, load(d))


def test_the_validation_folder_alone(tmp_path):
    d = Drawn(tmp_path / "d")
    tiny_imagenet(d)
    top = d.folder / "tiny-imagenet-200/val"
    values = {"data_dir": str(top), "resize": 67, "run_dir": str(tmp_path / "runs")}
    with pytest.raises(DataError, match="column 2, column 3; name one: label_column"):
        load_test_data(Recipe(**values))
    found = said(load_test_data(Recipe(**values, label_column="column 2")), top)
    assert found == {path[22:]: wnid for path, wnid in d.truth["val"].items()}


def test_lists_of_parts(tmp_path):
    d = Drawn(tmp_path / "d")
    d.images("images/{c}/{i}.jpg", ["cat", "dog"])
    names = [f"{c}/{i}.jpg" for c in ("cat", "dog") for i in range(8)]

    def parts(**lists):
        for path in d.folder.glob("*.txt"):
            path.unlink()
        for name, chosen in lists.items():
            d.table(f"{name}.txt", [[path] for path in chosen])
        pair = load(d)
        counts = pair[0].summary.counts
        counts.pop("extension not read", None)
        return len(pair[0]), len(pair[1]), pair[0].summary.validation_from, counts

    assert parts(train=names[::2], val=names[1::2]) == (8, 8, "val.txt", {})
    assert parts(train=names[::2], val=names[1::4], test=names[3::4]) == (8, 4, "val.txt", {"other splits": 4})
    assert parts(trainval=names[::2], test=names[1::2]) == (8, 8, "test.txt", {})
    assert parts(train=names[::4], trainval=names[::2], val=names[2::4]) == (
        4,
        4,
        "val.txt",
        {"in no list of parts": 8},
    )
    assert parts(test=names[1::4]) == (12, 4, "test.txt", {})
    assert parts(train=names[::2])[3] == {"other splits": 8}
    for lists, said in (
        ({"train": names[::2], "test": names[:3]}, "train.txt share images and are not used"),
        ({"train": names[::2], "test1": names[1::4], "test2": names[3::4]}, "name different images for one part"),
        ({"train": names[::2], "test": ["x", "y", *names[1:2]]}, "1 of its 3 lines name one image"),
        ({"train": names[::2], "test": ["x", *names[1::2]]}, "test.txt names 1 images that do not exist"),
    ):
        parts(**lists)
        assert said in str(load(d)[0].summary)


def test_files_that_are_no_lists(tmp_path):
    d = Drawn(tmp_path / "d")
    d.images("images/{c}/{i}.jpg", ["cat", "dog"])
    for name, content in {
        "train_data.mat": "?",
        "test.json": "{",
        "val.txt": "a b\nc",
        "train.txt": "",
        "test.lst": "é",
    }.items():
        d.write(name, content)
    d.table("train_test_split.txt", [[i, i % 2] for i in range(16)], " ")
    d.table("test_small.txt", [["cat/0.jpg"]] * 3)
    d.write("train_small.txt", "cat/1.jpg\n")
    pair = load(d)
    check(d, pair)
    said = str(pair[0].summary)
    assert "train_data.mat is not used" in said and "name 2 of 16 images and are not used" in said


def test_the_user_names_the_validation_folder(tmp_path):
    d = Drawn(tmp_path / "d")
    rows = [["file", "label"]]
    for i in range(24):
        d.image(f"{'ab'[i % 2]}/{i}.jpg", ["x", "y", "z"][i % 3], ["train", "val"][i % 2])
        rows.append([f"{i}.jpg", ["x", "y", "z"][i % 3]])
    d.table("labels.csv", rows)
    check(d, load(d, validation_dir="b", classes_from="table"))
    d = Drawn(tmp_path / "e")
    d.images("train/{c}/{i}.jpg", ["cat", "dog"])
    d.images("new/{i}.jpg", [""])
    with pytest.raises(DataError, match="validation_dir: new holds no images with classes"):
        load(d, validation_dir="new")


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (["rust", "scab", "rust scab"], True),
        (["rust", "scab", "rust,scab"], True),
        (["Pepper, bell", "Pepper, red", "Tomato"], False),
        (["Apple Red", "Apple Braeburn", "Apple"], False),
    ],
)
def test_several_classes_of_one_image(tmp_path, labels, several):
    d = Drawn(tmp_path / "d")
    rows = [["name", "labels"]]
    for i in range(24):
        left_out = several and i % 3 == 2
        d.image(f"images/{i}.jpg", None if left_out else labels[i % 3])
        rows.append([f"{i}.jpg", f'"{labels[i % 3]}"'])
    d.table("labels.csv", rows)
    if several:
        with pytest.raises(DataError, match="several classes for one image. Name a different one: label_column"):
            load(d)
    pair = load(d, label_column="labels")
    check(d, pair)
    assert pair[0].summary.counts == ({"several labels": 8} if several else {})
