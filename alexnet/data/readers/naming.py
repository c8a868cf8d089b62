"""What the names of folders, files and columns say: a split of a data set, classes, masks, or nothing."""

import re


def _set(text):
    return frozenset(text.split())


# The words for splits, in the names of folders, files and keys of arrays, and in the rows of tables.
SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "holdout", "heldout"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
# Words for images that are for neither training nor validation.
_OTHERS = _set("pred prediction predictions unlabeled unlabelled extra submission submissions sample")
SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
PART_OF = SPLIT_OF | dict.fromkeys(_OTHERS, "other")
SHOWN_AS = {"train": "training", "val": "validation", "test": "test"}  # in messages
# Columns that name the split of each row, and columns that say whether a row belongs to one split.
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "phase")
FLAG_COLUMNS = {"isvalid": "val", "isval": "val", "isvalidation": "val", "istest": "test"}
# Headers of columns of classes, in the form of `plain`; names come before numbers.
LABEL_COLUMNS = ("classname", "labelname", "categoryname", "classlabel", "label", "labels", "class", "classes",
                 "category", "target", "classid", "labelid", "categoryid", "classindex")  # fmt: skip
# Words that a part's name may contain: train_images, seg_train, Final_Training.
_NEUTRAL = _set(
    "image images img imgs jpg jpeg png pic pics picture pictures photo photos frames data dataset datasets "
    "set folder folders dir input inputs raw final seg split splits part parts labels label files all new the "
    "of and for"
)
# Words for folders that hold a share of the images: images_001, part_2, fold3.
_CONTAINERS = _set(
    "image images img imgs jpg jpeg png pic pics pictures photos frames data dataset part parts fold folds "
    "split splits batch batches set subset folder folders dir chunk shard archive volume disk cv kfold"
)
_IMAGES = _set("image images img imgs jpg jpeg png jpegimages pics pictures photos data original originals")
_MASKS = _set(
    "mask masks annotation annotations annot annots trimap trimaps segmentation segmentations "
    "segmentationclass segmentationobject groundtruth gt bbox bboxes xml xmls landmarks contours"
)
# Words that cameras, scanners and programs use for their files.
_CAMERAS = _set(
    "img image images imgs dsc dscf dscn dcim pic pics picture photo photos pxl vid video frame frames scan "
    "scans scanned file untitled screenshot sam mvi gopr capture snapshot page copy isic whatsapp fb signal "
    "slide sample crop thumb thumbnail download unnamed"
)


def plain(text):
    """The letters and digits of a name in lower case, so that case, spaces and underscores do not count."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def words(name):
    """The words of a name in lower case, without digits: `HAM10000_images_part_1` has ham, images, part."""
    found = []
    for letters in re.findall(r"[^\W\d_]+", name):
        found += re.findall(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+", letters)
    return [word.lower() for word in found]


def part_of(name):
    """`"train"`, `"val"`, `"test"`, `"other"` (predictions, unlabeled images), or None, from a name's words."""
    parts = {PART_OF[word] for word in words(name) if word in PART_OF}
    if len(parts) > 1:
        parts.discard("other")  # a sample of the training images
    return parts.pop() if len(parts) == 1 else None  # "train_test" names both


def is_plain_part(name):
    """Whether a name means only a part: `train`, `Test set`, `train_images`; not `bullet_train`."""
    return part_of(name) is not None and all(word in PART_OF or word in _NEUTRAL for word in words(name))


def holds_images(name):
    """Whether a folder's name says only that it holds images: `images`, `jpg`."""
    found = words(name)
    return bool(found) and all(word in _IMAGES for word in found)


def holds_masks(name):
    """Whether a folder of this name might hold masks or annotations."""
    return any(word in _MASKS for word in words(name))


def are_containers(names):
    """Whether folders are numbered shares of one set, which are not classes: `images_001`, `images_002`."""
    stems = {tuple(words(name)) for name in names}
    numbered = all(re.search(r"\d|[ _-][a-e]$", name, re.IGNORECASE) for name in names)
    return len(stems) == 1 and numbered and any(word in _CONTAINERS for word in stems.pop())


def is_camera(prefix):
    """Whether the text before a file name's number says nothing about the image: `IMG`, `frame`, `train`."""
    found = words(prefix)
    return not found or all(word in _CAMERAS or word in PART_OF or word in _NEUTRAL for word in found)


def folder_part(path):
    """The part that a file is in, by the folders above it; None if they do not say."""
    for folder in path.split("/")[:-1]:
        if is_plain_part(folder) and (part := part_of(folder)):
            return part
    return None
