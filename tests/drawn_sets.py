"""Small versions of published data sets: the layout, the names and the tables of each, as its authors publish it."""

import io
import json
import os

import numpy as np
from PIL import Image

WNIDS = ["n01440764", "n02102040", "n03000684"]
LETTERS = ["A", "B", "del"]


def _image(form):
    content = io.BytesIO()
    Image.new("RGB", (12, 10), (200, 40, 40)).save(content, form)
    return content.getvalue()


CONTENTS = {form: _image(form) for form in ("JPEG", "PNG", "PPM")}
FORMS = {".png": "PNG", ".ppm": "PPM"}


class Drawn:
    """A data set below `folder`, and how a reader should understand it.

    Attributes:
        truth: `{"train" or "val": {path: class}}`; without a "val" a share of "train" is held out.
    """

    def __init__(self, folder):
        self.folder, self.truth = folder, {"train": {}, "val": {}}

    def write(self, path, content=b""):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def image(self, path, label=None, part="train"):
        """Write an image; without a label it is one that must not be used."""
        self.write(path, CONTENTS[FORMS.get(os.path.splitext(path)[1], "JPEG")])
        if label is not None:
            self.truth[part][path] = label

    def images(self, path, classes, count=8, part="train", first=0):
        """Write `count` images of each class; in the path `{c}` is the class and `{i}` a number."""
        for name in classes:
            for i in range(first, first + count):
                self.image(path.format(c=name, i=i), name if part else None, part or "train")

    def table(self, path, rows, separator=","):
        self.write(path, "".join(separator.join(map(str, row)) + "\n" for row in rows))

    def mat(self, path, **arrays):
        from scipy.io import savemat

        content = io.BytesIO()
        savemat(content, arrays)
        self.write(path, content.getvalue())


# --- The sets


def imagenette(d):
    d.images("imagenette2-160/train/{c}/{c}_{i}.JPEG", WNIDS)
    d.images("imagenette2-160/val/{c}/ILSVRC2012_val_{i}.JPEG", WNIDS, part="val", count=3)
    rows = [["path", *(f"noisy_labels_{share}" for share in (0, 1, 5, 25, 50)), "is_valid"]]
    for part, paths in d.truth.items():
        for k, (path, wnid) in enumerate(paths.items()):
            noisy = [WNIDS[(k + share) % 3] for share in (1, 2, 3, 4)]
            rows.append([path.partition("/")[2], wnid, *noisy, part == "val"])
    d.table("imagenette2-160/noisy_imagenette.csv", rows)


def tiny_imagenet(d):
    d.images("tiny-imagenet-200/train/{c}/images/{c}_{i}.JPEG", WNIDS)
    for wnid in WNIDS:
        rows = [[f"{wnid}_{i}.JPEG", 0, 10, 63, 58 - i] for i in range(8)]
        d.table(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", rows, "\t")
    rows = []
    for i in range(12):
        d.image(f"tiny-imagenet-200/val/images/val_{i}.JPEG", WNIDS[i * 7 % 3], "val")
        rows.append([f"val_{i}.JPEG", WNIDS[i * 7 % 3], i % 2, 32, 44, 62])
        d.image(f"tiny-imagenet-200/test/images/test_{i}.JPEG")
    d.table("tiny-imagenet-200/val/val_annotations.txt", rows, "\t")
    d.table("tiny-imagenet-200/wnids.txt", [[wnid] for wnid in WNIDS])
    d.table("tiny-imagenet-200/words.txt", [[wnid, "tench, Tinca tinca"] for wnid in WNIDS], "\t")


def imagenet_flat_validation(d):
    d.images("train/{c}/{c}_{i}.JPEG", WNIDS)
    rows = [["ImageId", "PredictionString"]]
    for i in range(12):
        d.image(f"val/ILSVRC2012_val_{i:08d}.JPEG", WNIDS[i * 7 % 3], "val")
        boxes = f"{WNIDS[i * 7 % 3]} {i} 2 3 4 "
        rows.append([f"ILSVRC2012_val_{i:08d}", boxes * (1 + i % 2)])
    d.table("LOC_val_solution.csv", rows)


def stanford_dogs(d):
    classes = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    lists = {"train": [], "test": []}
    for k, name in enumerate(classes):
        for i in range(8):
            part = "test" if (i + k) % 3 == 0 else "train"
            file = f"{name}/{name.partition('-')[0]}_{i}"
            d.image(f"Images/{file}.jpg", name, "val" if part == "test" else "train")
            d.write(f"Annotation/{file}", "<annotation></annotation>")
            lists[part].append((file, k + 1))
    for part, rows in {**lists, "file": lists["train"] + lists["test"]}.items():
        d.mat(
            f"lists/{part}_list.mat",
            file_list=np.array([[f"{file}.jpg"] for file, _ in rows], object),
            annotation_list=np.array([[file] for file, _ in rows], object),
            labels=np.array([[k] for _, k in rows], np.uint8),
        )


def pets(d):
    classes = ["Abyssinian", "american_bulldog", "Birman"]
    lists = {"list": [], "trainval": [], "test": []}
    for k, name in enumerate(classes):
        for i in range(1, 9):
            part = "test" if (i + k) % 3 == 0 else "trainval"
            d.image(f"images/{name}_{i}.jpg", name, "val" if part == "test" else "train")
            d.image(f"annotations/trimaps/{name}_{i}.png")
            d.write(f"annotations/trimaps/._{name}_{i}.png")
            d.write(f"annotations/xmls/{name}_{i}.xml")
            row = [f"{name}_{i}", k + 1, 1 + (k == 1), 1 + (k == 2)]
            lists[part].append(row)
            lists["list"].append(row)
    d.write("images/Abyssinian_100.mat")
    lists["list"] = [["#Image CLASS-ID SPECIES BREED ID"], ["#ID: 1:37 Class ids"], *lists["list"]]
    for name, rows in lists.items():
        d.table(f"annotations/{name}.txt", rows, " ")
    d.write("annotations/README")


def flowers(d):
    labels = [(i * 5) % 3 + 1 for i in range(30)]
    parts = {"trnid": [], "valid": [], "tstid": []}
    for i, label in enumerate(labels, 1):
        part = ("trnid", "valid", "tstid")[(i * 7 // 3) % 3]
        parts[part].append(i)
        used = {"trnid": "train", "valid": "val"}.get(part)
        d.image(f"jpg/image_{i:05d}.jpg", used and str(label), used or "train")
    d.mat("imagelabels.mat", labels=np.array([labels], np.uint8))
    d.mat("setid.mat", **{name: np.array([numbers], np.uint16) for name, numbers in parts.items()})


def flowers_in_folders(d):
    for part in ("train", "valid", "test"):
        used = {"train": "train", "valid": "val"}.get(part)
        d.images(f"dataset/{part}/{{c}}/image_0{{i}}.jpg", ["1", "10", "2"], count=4, part=used)
    d.write("cat_to_name.json", '{"1": "pink primrose", "10": "globe thistle", "2": "hard-leaved pocket orchid"}')


def food(d):
    classes = ["apple_pie", "baby_back_ribs", "baklava"]
    meta = {"train": {}, "test": {}}
    for k, name in enumerate(classes):
        for i in range(8):
            part = "test" if (i + k) % 4 == 0 else "train"
            d.image(f"food-101/images/{name}/{1000 + i}.jpg", name, "val" if part == "test" else "train")
            meta[part].setdefault(name, []).append(f"{name}/{1000 + i}")
    for part, names in meta.items():
        d.write(f"food-101/meta/{part}.json", json.dumps(names))
        d.table(f"food-101/meta/{part}.txt", [[name] for own in names.values() for name in own])
    d.table("food-101/meta/classes.txt", [[name] for name in classes])
    d.table("food-101/meta/labels.txt", [[name.replace("_", " ").capitalize()] for name in classes])
    d.write("food-101/README.txt", "Food-101 Data Set\n")
    d.write("food-101/license_agreement.txt")


def caltech101(d):
    d.images("caltech-101/101_ObjectCategories/{c}/image_{i:04d}.jpg", ["BACKGROUND_Google", "accordion", "yin_yang"])
    d.write("caltech-101/101_ObjectCategories/BACKGROUND_Google/tmp")
    for i in range(8):
        d.write(f"caltech-101/Annotations/accordion/annotation_{i:04d}.mat")
    d.write("caltech-101/Annotations/show_annotation.m")


def caltech256(d):
    for name in ("001.ak47", "056.dog", "198.spider", "257.clutter"):
        d.images(f"256_ObjectCategories/{{c}}/{name[:3]}_{{i:04d}}.jpg", [name])
    d.write("256_ObjectCategories/198.spider/RENAME2")
    for i in range(3):
        d.image(f"256_ObjectCategories/056.dog/greg/vision309/{i}.jpg", "056.dog")


def cub(d):
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    top, number, images, splits, labels, boxes = "CUB_200_2011", 0, [], [], [], []
    for k, name in enumerate(classes):
        for i in range(9):
            number += 1
            train = int((i * 7 + k) % 3 > 0)
            file = f"{name}/{name[4:]}_{i:04d}_{796100 + number}.jpg"
            d.image(f"{top}/images/{file}", name, "train" if train else "val")
            d.image(f"segmentations/{file[:-4]}.png")
            images.append([number, file])
            splits.append([number, train])
            labels.append([number, k + 1])
            boxes.append([number, 60.0, 27.0, 325.0, 304.0])
    tables = {"images": images, "train_test_split": splits, "image_class_labels": labels, "bounding_boxes": boxes}
    tables["classes"] = [[k + 1, name] for k, name in enumerate(classes)]
    tables["parts/part_locs"] = [[i, part, 312.0, 182.0, 1] for i in range(1, number + 1) for part in (1, 2)]
    tables["attributes/image_attribute_labels"] = [[i, 1, 0, 3, 27.708] for i in range(1, number + 1)]
    for name, rows in tables.items():
        d.table(f"{top}/{name}.txt", rows, " ")
    d.table("attributes.txt", [[1, "has_bill_shape::curved_(up_or_down)"]], " ")
    d.write(f"{top}/README", "The images are organized in subdirectories")


SIGNS = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2"]


def signs(d):
    names = ["00000", "00001", "00010"]
    d.images("GTSRB/Final_Training/Images/{c}/00000_{i:05d}.ppm", names)
    for name in names:
        rows = [["Filename", *SIGNS, "ClassId"]]
        rows += [[f"00000_{i:05d}.ppm", 29 + i, 30, 5, 6, 24, 25, int(name)] for i in range(8)]
        d.table(f"GTSRB/Final_Training/Images/{name}/GT-{name}.csv", rows, ";")
    rows = [["Filename", *SIGNS, "ClassId"]]
    for i in range(12):
        name = names[i * 5 % 3]
        d.image(f"GTSRB/Final_Test/Images/{i:05d}.ppm", name, "val")
        rows.append([f"{i:05d}.ppm", 53 + i % 2, 54, (0, 1, 10)[i % 3], 5, 48, 49, int(name)])  # x looks like a class
    d.table("GTSRB/Final_Test/Images/GT-final_test.test.csv", [row[:-1] for row in rows], ";")
    d.table("GTSRB/GT-final_test.csv", rows, ";")
    d.write("GTSRB/Readme-Images.txt", "GTSRB\n")


def signs_without_truth(d):
    signs(d)
    (d.folder / "GTSRB/GT-final_test.csv").unlink()
    d.truth["val"] = {}


def signs_on_kaggle(d):
    tables = {name: [[*SIGNS, "ClassId", "Path"]] for name in ("Train", "Test")}
    for name in ("0", "1", "10"):
        for i in range(8):
            path = f"Train/{name}/{int(name):05d}_00000_{i:05d}.png"
            d.image(path, name)
            d.image(path.replace("Train", "train"))  # it holds everything twice
            tables["Train"].append([27 + i, 26, 5, 5, 22, 20, name, path])
        d.image(f"Meta/{name}.png")
        d.image(f"meta/{name}.png")
    for i in range(12):
        path, name = f"Test/{i:05d}.png", ["0", "1", "10"][i * 5 % 3]
        d.image(path, name, "val")
        d.image(path.replace("Test", "test"))
        tables["Test"].append([53 + i % 2, 54, (0, 1, 10)[i % 3], 5, 48, 49, name, path])
    d.table("Train.csv", tables["Train"])
    d.table("Test.csv", tables["Test"])
    rows = [["Path", "ClassId", "ShapeId", "ColorId", "SignId"]]
    d.table("Meta.csv", [*rows, *([f"Meta/{name}.png", name, 1, 0, f"3.{name}"] for name in ("0", "1", "10"))])


def ham10000(d):
    rows = [["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]]
    for i in range(36):
        label = ["bkl", "mel", "nv"][i * 5 % 3]
        d.image(f"HAM10000_images_part_{1 + i // 20}/ISIC_{27000 + i:07d}.jpg", label)
        d.image(f"ham10000_images_part_{1 + i // 20}/ISIC_{27000 + i:07d}.jpg")
        sort = ["histo", "follow_up"][i % 2]
        where = ["back", "scalp"][i % 4 // 2]
        rows.append([f"HAM_{i // 2:07d}", f"ISIC_{27000 + i:07d}", label, sort, 40.0 + i % 5 * 5, "male", where])
    d.table("HAM10000_metadata.csv", rows)
    pixels = [[*(f"pixel{k:04d}" for k in range(12)), "label"]]
    pixels += [[*range(i, i + 12), i % 3] for i in range(36)]
    d.table("hmnist_28_28_RGB.csv", pixels)
    d.table("hmnist_8_8_L.csv", pixels)


def ham10000_with_test(d):
    ham10000(d)
    rows = [["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]]
    for i in range(24):
        label = ["bkl", "mel", "nv"][i * 7 % 3]
        d.image(f"ISIC2018_Task3_Test_Images/ISIC_{34524 + i:07d}.jpg", label, "val")
        d.image(f"HAM10000_segmentations_lesion_tschandl/ISIC_{27000 + i:07d}_segmentation.png")
        rows.append([f"HAMTEST_{i:07d}", f"ISIC_{34524 + i:07d}", label, "histo", 40.0, "male", "back"])
    d.table("ISIC2018_Task3_Test_GroundTruth.csv", rows)


def isic2018(d):
    names = ["MEL", "NV", "BCC", "AKIEC"]
    truth, groups = [["image", *names]], [["image", "lesion_id", "diagnosis_confirm_type"]]
    for i in range(32):
        d.image(f"ISIC2018_Task3_Training_Input/ISIC_{24306 + i:07d}.jpg", names[i * 5 % 4])
        truth.append([f"ISIC_{24306 + i:07d}", *(float(k == i * 5 % 4) for k in range(4))])
        groups.append([f"ISIC_{24306 + i:07d}", f"HAM_{i:07d}", ["histopathology", "follow_up"][i % 2]])
    d.write("ISIC2018_Task3_Training_Input/ATTRIBUTION.txt", "HAM10000\n")
    d.write("ISIC2018_Task3_Training_Input/LICENSE.txt")
    d.table("ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv", truth)
    d.table("ISIC2018_Task3_Training_LesionGroupings.csv", groups)


def isic2019(d):
    names = ["MEL", "NV", "BCC", "UNK"]
    truth, meta = [["image", *names]], [["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]]
    for i in range(33):
        label = i * 5 % 3
        path = "ISIC_2019_Training_Input/ISIC_2019_Training_Input"
        d.image(f"{path}/ISIC_{i:07d}.jpg", names[label])
        truth.append([f"ISIC_{i:07d}", *(float(k == label) for k in range(4))])
        meta.append(
            [f"ISIC_{i:07d}", 55.0, ["anterior torso", ""][i % 2], f"BCN_{i // 3:07d}", ["male", "female"][i % 2]]
        )
    d.table("ISIC_2019_Training_GroundTruth.csv", truth)
    d.table("ISIC_2019_Training_Metadata.csv", meta)
    truth, meta = [[*truth[0], "score_weight", "validation_weight"]], [meta[0][:3] + ["sex"]]
    for i in range(24):
        label = i * 7 % 3
        d.image(f"ISIC_2019_Test_Input/ISIC_{i + 34321:07d}.jpg", names[label], "val")
        truth.append([f"ISIC_{i + 34321:07d}", *(float(k == label) for k in range(4)), 1.0, 0.0])
        meta.append([f"ISIC_{i + 34321:07d}", 50.0 + i % 3 * 5, "head/neck", "male"])
    d.table("ISIC_2019_Test_GroundTruth.csv", truth)
    d.table("ISIC_2019_Test_Metadata.csv", meta)


NIH = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"]


def chest_x_ray14(d, label=lambda finding, sex: None if "|" in finding else finding):
    rows, lists = [NIH], {"train_val": [], "test": []}
    for i in range(48):
        finding, sex = ["Cardiomegaly", "No Finding", "Effusion", "Cardiomegaly|Effusion"][i * 5 % 4], "FM"[i // 3 % 2]
        name, part = f"{i // 3:08d}_{i % 3:03d}.png", "test" if i // 3 % 4 == 0 else "train_val"
        d.image(f"images_{1 + i // 16:03d}/images/{name}", label(finding, sex), "val" if part == "test" else "train")
        rows.append([name, finding, i % 3, i // 3 + 1, 50 + i // 3 % 9, sex, ["PA", "AP"][i % 2]])
        lists[part].append([name])
    d.table("Data_Entry_2017.csv", rows)
    boxes = [[f"{i // 3:08d}_{i % 3:03d}.png", "Cardiomegaly", 225.08, 547.0, 86.8, 79.2, ""] for i in (0, 4, 8)]
    d.table("BBox_List_2017.csv", [["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", ""], *boxes])
    d.table("train_val_list.txt", lists["train_val"])
    d.table("test_list.txt", lists["test"])
    d.write("README_CHESTXRAY.pdf")


def chest_x_ray14_sample(d):
    rows = [NIH]
    for i in range(30):
        finding = ["Cardiomegaly", "No Finding", "Effusion", "Cardiomegaly|Effusion"][i * 5 % 4]
        d.image(f"sample/images/{i:08d}_000.png", None if "|" in finding else finding)
        d.image(f"sample/sample/images/{i:08d}_000.png")  # it holds everything twice
        rows.append([f"{i:08d}_000.png", finding, i % 3, i, 50 + i % 9, "FM"[i // 3 % 2], ["PA", "AP"][i % 2]])
    for path in ("", "sample/", "sample/sample/"):
        d.table(f"{path}sample_labels.csv", rows)


def paddy(d):
    rows = [["image_id", "label", "variety", "age"]]
    for k, name in enumerate(("blast", "hispa", "normal")):
        for i in range(10):
            d.image(f"train_images/{name}/1{k}{i:04d}.jpg", name)
            rows.append([f"1{k}{i:04d}.jpg", name, ["ADT45", "IR20"][i % 2], 45 + i % 3 * 5])
    for i in range(5):
        d.image(f"test_images/20{i:04d}.jpg")
    d.table("train.csv", rows)
    d.table("sample_submission.csv", [["image_id", "label"], *([f"20{i:04d}.jpg", ""] for i in range(5))])
