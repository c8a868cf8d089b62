"""Helpers for the tests of readers."""

import numpy as np
from helpers import jpeg, write_class_folders

from alexnet.data import imagenet, shapes
from alexnet.data.readers import imagenet as ilsvrc

JPEG = jpeg()


def fill(folder, *names, content=JPEG):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def named(images):
    """`{end of the path: class name}`."""
    pairs = zip(images.paths, images.labels, strict=True)
    return {path.rpartition("/")[2]: images.class_names[label] for path, label in pairs}


# --- ImageNet


WNIDS = ["n01440764", "n01443537", "n02391049"]


def kaggle(folder, training=True):
    """A small ImageNet in Kaggle's layout; the validation images are all in one folder."""
    images = folder / ilsvrc.IMAGES
    (images / "val").mkdir(parents=True)
    lines = [f"{wnid} {imagenet.names()[wnid]}" for wnid in WNIDS]
    (folder / ilsvrc.MAPPING).write_text("\n".join(lines) + "\n")
    rows = ["ImageId,PredictionString"]
    for number, label in enumerate([2, 0, 0, 1, 2]):
        name = f"ILSVRC2012_val_{number:08d}"
        shapes.draw("ring", np.random.default_rng(number)).save(images / "val" / f"{name}.JPEG", format="JPEG")
        rows.append(f"{name},{WNIDS[label]} 1 2 3 4 {WNIDS[label]} 5 6 7 8 ")
    rows.append("ILSVRC2012_val_00099999,n01440764 1 2 3 4 ")  # of an image that was not copied
    (folder / ilsvrc.SOLUTION).write_text("\n".join(rows) + "\n")
    if training:
        write_class_folders(images, {"train": 2}, classes=("cross", "ring", "star"))
        for shape, wnid in zip(("cross", "ring", "star"), WNIDS, strict=True):
            (images / "train" / shape).rename(images / "train" / wnid)
    return folder
