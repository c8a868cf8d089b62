"""Reads ImageNet's challenge of 2012: as Kaggle distributes it, and from its original tar files."""

import csv
import io
import os
import struct
import tarfile
import zlib
from dataclasses import replace

import numpy as np

from alexnet.data.errors import DataError
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.readers.image_files import from_class_folders
from alexnet.data.readers.tars import list_tar
from alexnet.data.source import LabeledImages, Parts
from alexnet.recipe import Recipe

MAPPING, SOLUTION, IMAGES = "LOC_synset_mapping.txt", "LOC_val_solution.csv", "ILSVRC/Data/CLS-LOC"
TRAINING_TAR, VALIDATION_TAR, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"
META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"


def detect_kaggle(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """`train/<wnid>/*.JPEG`, and validation images in one folder whose classes are in a table."""
    if MAPPING not in view.files or not view.has(IMAGES):
        return None
    layout, images = "ImageNet as Kaggle ships it", view.sub(IMAGES)
    training = None
    try:
        lines = view.read(MAPPING).decode().splitlines()
        classes = [line.split()[0] for line in lines if line.strip()]
        if "train" in images.folders and not test_only:
            training = replace(from_class_folders(images.sub("train")).relabeled(classes), layout=layout)
        table = csv.DictReader(io.StringIO(view.read(SOLUTION).decode(), newline=""))
        rows = {row["ImageId"]: classes.index(row["PredictionString"].split()[0]) for row in table}
    except DataError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(
            f"data_dir: {view.name} looks like ImageNet from Kaggle, but {SOLUTION} or {MAPPING} cannot be used "
            f"({error})."
        ) from None
    validation = images.sub("val")
    listing = validation.list_images()
    labels = np.array([rows.get(os.path.splitext(name)[0], -1) for name in listing.names], np.int32)
    indices = np.flatnonzero(labels >= 0)
    if not len(indices):
        raise DataError(f"data_dir: {validation.name} holds none of the images of {SOLUTION}.")
    return training, LabeledImages(
        validation.reader(listing.names), indices, labels[indices], classes, layout, listing.unreadable
    )


def detect_tars(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """The tar files of image-net.org, read in place: one with a thousand tars, and one of validation images.

    The classes of validation images are in the development kit, a folder or a `.tar.gz`.
    """
    names = [name for name in (TRAINING_TAR, VALIDATION_TAR) if name in view.files]
    if not names or view.path is None:
        return None
    try:
        return _find_tars(view, test_only)
    except (tarfile.TarError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"data_dir: {view.name}: a tar is damaged or incomplete ({error}).") from None
    except OSError as error:
        raise DataError(
            f"data_dir: {error.filename or view.name} cannot be read ({error.strerror or error})."
        ) from None


def _find_tars(view, test_only):
    layout, training, validation = "ImageNet in ILSVRC's tar files", None, None
    classes, truth = _devkit(view) or (None, None)
    if VALIDATION_TAR in view.files and classes:
        reader, _, _, unreadable = list_tar(view.path / VALIDATION_TAR, view.cache)
        if len(reader) != len(truth):
            raise DataError(
                f"data_dir: {VALIDATION_TAR} has {len(reader):,} images, but {TRUTH} has {len(truth):,} lines."
            )
        validation = LabeledImages.whole(reader, truth, classes, layout, unreadable)
    if TRAINING_TAR in view.files and not (test_only and validation):
        reader, group, groups, unreadable = list_tar(view.path / TRAINING_TAR, view.cache)
        used = sorted(np.unique(group).tolist(), key=groups.__getitem__)
        if not used or 0 in used:
            raise DataError(f"data_dir: {TRAINING_TAR} holds no tar for each class.")
        labels = np.zeros(len(groups), np.int32)
        labels[used] = np.arange(len(used))
        training = LabeledImages.whole(reader, labels[group], [groups[number] for number in used], layout, unreadable)
        if validation is not None:
            training = training.relabeled(classes)
    if training is None and validation is None:
        raise DataError(f"data_dir: {view.name} holds {VALIDATION_TAR}, but not {DEVKIT}, which has its classes.")
    return training, validation


def _devkit(view):
    """`(class ids, labels of the validation images in the order of their names)`; None without a development kit."""
    if DEVKIT in view.folders:
        kit = view.sub(DEVKIT)
        kit = kit.sub("data") if "data" in kit.folders else kit
        meta, truth = kit.read(META), kit.read(TRUTH)
    elif f"{DEVKIT}.tar.gz" in view.files:
        wanted = {}
        with tarfile.open(view.path / f"{DEVKIT}.tar.gz", "r:gz") as kit:
            for member in kit:
                if member.isreg() and os.path.basename(member.name) in (META, TRUTH):
                    wanted[os.path.basename(member.name)] = kit.extractfile(member).read()
        if len(wanted) < 2:
            raise DataError(f"data_dir: {DEVKIT}.tar.gz lacks {META} or {TRUTH}.")
        meta, truth = wanted[META], wanted[TRUTH]
    else:
        return None
    from scipy.io import loadmat  # here, not above: it takes a moment

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if not int(row["num_children"])}
        classes = sorted(wnids.values())
        number = {key: classes.index(wnid) for key, wnid in wnids.items()}
        return classes, [number[int(line)] for line in truth.split()]
    except Exception as error:  # on damaged files SciPy raises many kinds
        raise DataError(f"data_dir: {META} or {TRUTH} of {DEVKIT} cannot be used ({type(error).__name__}).") from None
