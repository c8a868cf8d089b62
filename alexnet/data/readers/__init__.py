"""Where images come from: what `data_dir` means, and the order in which layouts are tried.

Each layout has a file here with a detector. All detectors have the same signature:

    detect(view, recipe, test_only=False) -> (training, validation), or None for a different layout

`view` is a `DirectoryView` of the folder or zip; `recipe` says how to read it. Each part is `LabeledImages` or None.
With `test_only`, training images need not be listed if there are others: ImageNet's take a while. A detector that
recognizes the layout but finds it damaged raises a `DataError`. If two readings are possible, the error names the
parameter that decides. `DETECTORS` lists all detectors.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from alexnet import mounts
from alexnet.data import shapes
from alexnet.data.errors import DataError
from alexnet.data.formats import EXTENSIONS, NOT_READ
from alexnet.data.readers import arrays, flowers, huggingface, image_files, imagenet, packed
from alexnet.data.readers.csv_labels import ENDINGS
from alexnet.data.readers.filesystem import DirectoryView, FolderView, ZipView
from alexnet.data.readers.held_out import hold_out, take_few
from alexnet.data.readers.naming import part_of
from alexnet.data.source import ENDING, OTHER_SPLITS, LabeledImages, Parts, merge_passed_over
from alexnet.recipe import PROJECT, UNPACKED, Recipe, RecipeError, nearest, resolve

Detector = Callable[[DirectoryView, Recipe, bool], Parts | None]

NAMED = (*shapes.SETS, *arrays.KERAS_DATASETS)


def find_sources(recipe: Recipe) -> tuple[LabeledImages, LabeledImages]:
    """`(training, validation)` sources of a recipe's `data_dir`, in any layout that a detector knows.

    Without a validation part, `validation_split` of each class is held out; `split_by` and `seed` decide which images.
    With `images_per_class`, at most so many of each class are used for training.

    Raises:
        DataError: `data_dir` holds nothing to train on.
    """
    return _to_train(recipe, *_with_limits(recipe, *_find(recipe)))


def find_parts(recipe: Recipe) -> tuple[dict[str, LabeledImages], str | None]:
    """`({part: source}, why)` of a recipe's `data_dir`, even if it is unfit for training.

    If it is fit, the parts are those of `find_sources`, and `why` is None. Otherwise the parts are `training` and
    `validation`, or `all` if no part has a name, and `why` is the message with which `find_sources` refuses them.

    Raises:
        DataError: nothing in `data_dir` is recognized.
    """
    training, validation = _with_limits(recipe, *_find(recipe))
    try:
        training, validation = _to_train(recipe, training, validation)
        why = None
    except DataError as error:
        why = str(error)
    parts = {"training": training, "validation": validation}
    parts = {part: source for part, source in parts.items() if source is not None}
    if len(parts) == 1:
        ((part, source),) = parts.items()
        parts = {part if source.origin else "all": source}
    return parts, why


def _to_train(recipe, training, validation):
    """The parts as `find_sources` returns them."""
    data_dir = recipe.data_dir
    if training is None:
        refused = [f" ({path} {reason})" for path, reason in validation.unreadable][:1]
        raise DataError(f"data_dir: {data_dir} has no training images{''.join(refused)}.")
    if len(training.class_names) == 1:
        raise DataError(f"data_dir: {data_dir} holds only one class ({training.class_names[0]}); two are needed.")
    if validation is None:
        training, validation = hold_out(training, recipe)
        return take_few(training, recipe), validation
    if unknown_classes := sorted(set(validation.class_names) - set(training.class_names)):
        where = f" in {validation.origin}" if validation.origin else ""
        raise DataError(
            f"data_dir: {data_dir} has{where} classes that the training images lack: {', '.join(unknown_classes[:5])}"
            f"{', ...' if len(unknown_classes) > 5 else ''}. If these are no validation images, name the folder that "
            "holds them: validation_dir."
        )
    return take_few(training, recipe), validation.relabeled(training.class_names)


def find_test_source(recipe: Recipe, part: str = "validation") -> LabeledImages:
    """One `part` of a recipe's `data_dir`, `"validation"` or `"training"`, or all images if it has no such part.

    Raises:
        DataError: `data_dir` holds no labeled images.
    """
    training, validation = _with_limits(recipe, *_find(recipe, test_only=part == "validation"))
    first, second = (training, validation) if part == "training" else (validation, training)
    return second if first is None else first


def _with_limits(recipe, *sources):
    """The same sources, with the recipe's settings for decoding."""
    for source in sources:
        if source is not None:
            source.reader.max_pixels = int(recipe.max_megapixels * 1e6)
            source.reader.white_level = recipe.white_level
    return sources


def _find(recipe, test_only=False):
    """`(training, validation)` as `data_dir` has them; one of them may be None. `test_only` is that of a detector."""
    data_dir, cache = recipe.data_dir, recipe.run_folder.parent / ".listings"
    if data_dir in shapes.SETS:
        return detect(FolderView(_drawn(data_dir), cache), recipe, test_only)
    if data_dir in arrays.KERAS_DATASETS:
        return arrays.load_keras_dataset(data_dir)
    try:
        path = resolve(data_dir)
    except RecipeError as error:
        raise DataError(f"data_dir: {error}") from None
    if not os.path.exists(path):  # unlike Path.exists, this never raises an error
        raise DataError(
            f"data_dir: there is no folder {data_dir}, and no data set of that name ({', '.join(NAMED)})."
            + nearest(data_dir, NAMED)
        )
    if os.path.isdir(path):
        return detect(FolderView(path, cache), recipe, test_only)
    if path.suffix.lower() == ".zip":
        return detect(ZipView.open(path), recipe, test_only)
    if path.suffix.lower() == ".npz":
        return arrays.read(path, recipe.white_level)
    raise DataError(f"data_dir: {data_dir} is a file; a folder of images, a .zip or an .npz is needed.")


def _drawn(name):
    """The folder of a built-in data set. If there is none yet, it is drawn into the first folder that is writable."""
    places = drawing_places()
    for place in places:
        if (place / name).is_dir():
            return place / name
    for place in places:
        try:
            return shapes.prepare(place / name, name)
        except OSError as error:
            problem = error
    listed = ", ".join(map(str, places))
    raise DataError(f"data_dir: {name} cannot be drawn into any of {listed} ({problem.strerror}).")


def drawing_places() -> list[Path]:
    """The folders that may hold the built-in data sets, in this order.

    - `data` in the project's folder, unless that folder is removed with a notebook's kernel
    - the user's cache, which on Kaggle is not part of a notebook's output
    - `data` in Kaggle's working folder; elsewhere, in the current directory
    """
    here = [] if (PROJECT / UNPACKED).is_file() else [PROJECT / "data"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [*here, cache / "alexnet" / "data", (mounts.WORKING if mounts.on_kaggle() else Path.cwd()) / "data"]


# --- Layouts


def detect(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts:
    """The parts that the first detector finds which recognizes the layout.

    Raises:
        DataError: no detector recognizes it, or the data are damaged or ambiguous.
    """
    for each in DETECTORS:
        if found := each(view, recipe, test_only):
            return found
    listing = view.list_images()
    refused = f" ({listing.unreadable[0][0]} {listing.unreadable[0][1]})" if listing.unreadable else ""
    raise DataError(
        f"data_dir: {view.name} holds no images{refused or _what_lies_there(listing)}; expected "
        f"{os.path.basename(view.name)}/<class>/<image>, images ending in {', '.join(EXTENSIONS)}, or one of the other "
        f"layouts: {image_files.LAYOUTS}."
    )


def _inside(*detectors):
    """A detector that tries several on a folder and, while a folder holds just one other, on that one."""

    def detect_inside(view, recipe, test_only=False):
        for _ in range(8):  # a limit, since a link may lead back to a folder above
            for each in detectors:
                if found := each(view, recipe, test_only):
                    return found
            if len(view.folders) != 1:
                break
            view = view.sub(view.folders[0])
        return None

    return detect_inside


def _detect_zips(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """Zips as competitions provide them: `train.zip`, `test.zip` and a table. Or a single zip."""
    zips = [name for name in view.files if name.lower().endswith(".zip")]
    if not zips:
        return None
    if view.path is None:
        raise DataError(f"data_dir: {view.name} holds zips ({', '.join(zips[:3])}); unzip the outer one.")
    parts: dict = {}
    for name in zips:
        parts.setdefault(part_of(os.path.splitext(name)[0]) if len(zips) > 1 else "train", []).append(name)
    first = parts.get("train", [])
    if len(first) != 1:
        shown = ", ".join(zips[:5])
        raise DataError(f"data_dir: {view.name} holds several zips ({shown}); name one as data_dir, or unzip them.")
    outer = [
        (view, name, name, part_of(os.path.splitext(name)[0])) for name in view.files if name.lower().endswith(ENDINGS)
    ]
    training, validation = detect(ZipView.open(view.path / first[0], outer), recipe)
    left: list = []
    for name in [name for part in ("val", "test") for name in sorted(parts.get(part, []))]:
        inside = ZipView.open(view.path / name)
        if validation is None:
            try:
                found = [part for part in detect(inside, recipe, test_only=True) if part is not None]
                validation = replace(found[-1], origin=name)
                continue
            except DataError as error:
                why = f" ({error})" if part_of(os.path.splitext(name)[0]) == "val" else ""
                if why:
                    raise DataError(f"data_dir: {name} cannot be used for validation{why}.") from None
        left.append((OTHER_SPLITS, [f"{name}/{image}" for image in inside.list_images().names]))
    if training is not None and left:
        training = replace(training, passed_over=merge_passed_over(training.passed_over, left))
    elif validation is not None and left:
        validation = replace(validation, passed_over=merge_passed_over(validation.passed_over, left))
    return training, validation


def _what_lies_there(listing):
    """A phrase that counts the files that are there instead, by their extensions."""
    endings = Counter(
        os.path.splitext(name)[1].lower() or "without an extension"
        for reason, names in listing.passed_over
        if reason == ENDING
        for name in names
    )
    if not endings:
        return ""
    counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(3))
    reasons = [f"; {ending}: {NOT_READ[ending]}" for ending, _ in endings.most_common(3) if ending in NOT_READ]
    return f" ({counts} there{''.join(reasons)})"


# The most specific detectors come first. `image_files` accepts anything that holds images, and opens folders itself.
DETECTORS: tuple[Detector, ...] = (
    _inside(
        packed.detect,
        imagenet.detect_kaggle,
        imagenet.detect_tars,
        flowers.detect,
        huggingface.detect_saved,
        huggingface.detect_tables,
    ),
    image_files.detect,
    _inside(arrays.detect, _detect_zips),
)
