"""`evaluate` and `predict`."""

import contextlib
import functools
import json
import os
from pathlib import Path

from alexnet.atomic import write_csv
from alexnet.cli.common import BAD_USAGE, FAILED, expects_errors, fail, output_path, value_of
from alexnet.locking import FolderLock
from alexnet.recipe import DATA_FIELDS, Recipe, resolve

# The fields that decide which images a run trained on, and which it held out.
_HOLD_OUT = ("validation_split", "split_by", "images_per_class", "seed")


@expects_errors
def evaluate(options):
    from alexnet.evaluation import checkpoint_info
    from alexnet.evaluation import evaluate as measure
    from alexnet.saving import detect_network, load_checkpoint

    models = [load_checkpoint(path, options.network) for path in options.weights]
    known = [checkpoint_info(path, model) for path, model in zip(options.weights, models, strict=True)]
    named = [names for names, _ in known if names is not None]  # a converted file names none
    if any(names != named[0] for names in named) or len({model.output.shape[-1] for model in models}) > 1:
        return fail(f"{', '.join(options.weights)} have different classes; they cannot be averaged.", BAD_USAGE)
    recipe, images = _choose_images(options, models, known)
    networks = [
        f"{detect_network(model) or 'a custom network'} from {path}"
        for path, model in zip(options.weights, models, strict=True)
    ]
    views = f"{recipe.views} view{'s' * (recipe.views > 1)} of {recipe.image_size} pixels out of {recipe.resize}"
    print(images.summary)
    print(f"{', '.join(networks)}: {len(images):,} images of {recipe.data_dir}, {views}", flush=True)
    with FolderLock(output_path(options.output)) if options.output else contextlib.nullcontext():
        result = measure(models, images, recipe.views, details=True)
        _print(result, images)
        if options.output:
            _write(output_path(options.output), result, images)
    if len(images.skipped):
        print(f"\n{images.skipped}" + ("" if options.output else "; --output lists them"))
    return 0


def _choose_images(options, models, known):
    """What to evaluate on, as a recipe and its images: of a run's own folder what the run held out."""
    from alexnet.data import DataError, load_test_data
    from alexnet.evaluation import input_size

    given = {
        name: value_of(name, getattr(options, name))
        for name in (*DATA_FIELDS, "resize", "views", "batch_size", "cache_gb", "workers", "max_skipped")
        if getattr(options, name) is not None
    }
    runs = [run for path in options.weights if (run := _run_of(path))]
    if "data_dir" not in given:
        if not runs:
            raise DataError("--data_dir is needed: the folder of images to evaluate on.")
        given = {**{name: getattr(runs[0][1], name) for name in DATA_FIELDS}, **given}
    sizes = {"resize": max(resize for _, resize in known), "image_size": max(map(input_size, models))}
    recipe = Recipe(**{"cache_gb": 0, **sizes, **given})
    names = next((names for names, _ in known if names is not None), None)
    held_out = [_held_out(folder, run, recipe) for folder, run in runs if _is_same(run.data_dir, recipe.data_dir)]
    if any(images.paths != held_out[0].paths for images in held_out):
        raise DataError("data_dir: these runs held out different images of their folder; choose a different folder.")
    if held_out:
        return recipe, held_out[0]
    images = load_test_data(recipe, names)
    for folder, run in runs:
        if count := _trained_on(run, recipe, images):
            print(f"{folder} was trained on {count:,} of these {len(images):,} images.")
    if names is None:  # as everybody numbers the folders that he trains on
        classes = models[0].output.shape[-1]
        if len(images.class_names) != classes:
            raise DataError(f"data_dir: the checkpoint has {classes} classes, the folder {len(images.class_names)}.")
        print("The checkpoint names no classes; the folder's are taken in alphabetical order.")
    return recipe, images


def _run_of(weights):
    """`(folder, recipe)` of the run that a checkpoint belongs to, None if it belongs to none."""
    from alexnet.weights import recognize

    file = recognize(weights)[0].parent / "params.yaml"
    return (file.parent, Recipe.read_run(file)) if file.is_file() else None


def _is_same(first, second):
    """Whether two `data_dir` name the same folder, by whatever path."""
    return first == second or os.path.realpath(resolve(first)) == os.path.realpath(resolve(second))


def _trained_on(run, recipe, images):
    """How many of `images` a run was trained on, where their folder is a part of the run's or holds it."""
    from alexnet.data import DataError, TooManyBadImagesError, load_data

    first, second = (Path(os.path.realpath(resolve(each.data_dir))) for each in (run, recipe))
    if not (first.exists() and (first.is_relative_to(second) or second.is_relative_to(first))):
        return 0
    try:
        training, _ = load_data(recipe.replace(**{name: getattr(run, name) for name in (*DATA_FIELDS, *_HOLD_OUT)}))
    except (DataError, TooManyBadImagesError):
        return 0  # it has changed so much that nobody could train on it today
    folders = functools.cache(os.path.realpath)

    def files(source):
        parts = (os.path.split(source.name(index)) for index in range(len(source)))
        return {(folders(folder), name) for folder, name in parts}

    return len(files(training.source) & files(images.source))


def _held_out(folder, run, recipe):
    """The validation images of a run, read as `recipe` says.

    Raises:
        DataError: the images have changed since, and which of them were held out can no longer be told.
    """
    from alexnet.data import DataError, load_data

    training, validation = load_data(
        recipe.replace(**{name: getattr(run, name) for name in (*DATA_FIELDS[1:], *_HOLD_OUT)})
    )
    try:
        known = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):
        return validation
    if known.get("digest") in (None, training.source.digest()[:12] + validation.source.digest()[:12]):
        return validation
    there = f"{known.get('training_images')} training and {known.get('validation_images')} validation images"
    change = f"{recipe.data_dir} has changed since {folder} was trained: {there} then, {len(training)} and "
    change += f"{len(validation)} now"
    drawn = "held out" in validation.source.origin
    elsewhere = known.get("validation_from") != validation.summary.validation_from
    if elsewhere or drawn and (run.split_by == "order" or validation.source.few):
        raise DataError(
            f"data_dir: {change}. Which images the run held out can no longer be told; evaluate on a folder of other "
            "images: --data_dir."
        )
    print(f"{change}." + (" What is held out was held out then: the names decide." if drawn else ""))
    return validation


def _print(result, images):
    """Metrics, the weakest classes and the most confident mistakes."""
    from alexnet.data import class_display_name

    print("  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    print("\nweakest classes    top1   top5  images  mostly predicted as")
    for row in result.per_class()[:10]:
        shares = f"{row['top1']:5.1%}  {row['top5']:5.1%}"
        print(f"{row['name'][:16]:16}  {shares}  {row['images']:6d}  {row['most_confused_with']}")
    print("\nmost confident mistakes")
    names = result.class_names
    for i in result.misclassified(10):
        said, right = (class_display_name(names[k]) for k in (result.top5[i, 0], result.labels[i]))
        print(f"{result.probabilities[i, 0]:6.1%}  {said}, true class {right}: {images.path(i)}")


def _write(folder, result, images):
    """The whole tables as CSV."""
    rows = result.per_class()
    names = list(result.class_names)
    write_csv(folder / "per_class.csv", list(rows[0]), [row.values() for row in rows])
    write_csv(
        folder / "confusion.csv",
        ["class", *names],
        [[n, *row] for n, row in zip(names, result.confusion(), strict=True)],
    )
    write_csv(
        folder / "mistakes.csv",
        ["image", "class", "said", "probability"],
        [
            [
                images.path(i),
                names[result.labels[i]],
                names[result.top5[i, 0]],
                f"{result.probabilities[i, 0]:.6f}",
            ]
            for i in result.misclassified()
        ],
    )
    images.skipped.write(folder / "skipped.csv")
    skipped = ", skipped.csv" * bool(len(images.skipped))
    print(f"\n{folder}: per_class.csv, confusion.csv, mistakes.csv{skipped}")


@expects_errors
def predict(options):
    import numpy as np

    from alexnet.data import ImageError, class_display_name, load_image
    from alexnet.evaluation import checkpoint_info, input_size, predict_probabilities
    from alexnet.saving import load_checkpoint

    model = load_checkpoint(options.weights, options.network)
    names, resize = checkpoint_info(options.weights, model)
    names = names or [f"class {k}" for k in range(model.output.shape[-1])]
    decoding = ("max_megapixels", "white_level")
    run = _run_of(options.weights)
    own = {name: getattr(run[1], name) for name in decoding} if run else {}
    flags = ("resize", "views", *decoding)
    given = {name: getattr(options, name) for name in flags if getattr(options, name) is not None}
    recipe = Recipe(**{"resize": resize, **own, **given, "image_size": input_size(model)})
    status = 0
    for path in options.images:
        try:
            image = load_image(path, recipe.resize, int(recipe.max_megapixels * 1e6), recipe.white_level)
        except ImageError as error:
            status = fail(error, FAILED)
            continue
        probabilities = predict_probabilities(model, image[None], recipe.views, batch_size=1)[0]
        print(path)
        for k in np.argsort(-probabilities, kind="stable")[:5]:
            wnid = f"  ({names[k]})" if names[k] not in class_display_name(names[k]) else ""
            print(f"{probabilities[k]:8.2%}  {class_display_name(names[k])}{wnid}")
    return status
