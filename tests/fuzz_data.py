"""Random combinations of folders and tables must give the right labels, or an error that says why.

python tests/fuzz_data.py --count 10000 [--first SEED]
"""

import argparse
import io
import os
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data import DataError, ImageError, load_data
from alexnet.recipe import Recipe

CLASSES = (["cat", "dog", "emu"], ["0", "1", "2"], ["père", "mère", "fils"], ["n01440764", "n02102040", "n03000684"])
TRAIN = ("train", "Train", "training_set", "seg_train", "train_images")
SECOND = ("val", "valid", "validation", "test", "Test", "testing", "val_images")
STRAY = ("README.md", "LICENSE", "desktop.ini", "Thumbs.db", ".DS_Store", "archive.tar.gz", "info.json", "list.pdf")


def _jpeg():
    content = io.BytesIO()
    Image.new("RGB", (68, 68), (200, 40, 40)).save(content, "JPEG")
    return content.getvalue()


JPEG = _jpeg()


def case(seed, folder):
    """A data set below `folder`.

    Returns:
        `(data_dir, truth)`; truth is `{end of an image's path: (class, part or None)}`, "train" or "val".
    """
    rng = np.random.default_rng(seed)

    def pick(options):
        return options[int(rng.integers(len(options)))]

    files, truth = {}, {}
    classes = list(pick(CLASSES))
    by = pick(("folders", "table", "names", "both"))
    parted = bool(rng.integers(2))
    parts = [(pick(TRAIN), "train"), (pick(SECOND), "val")] if parted else [("", None)]
    ending = pick((".jpg", ".JPG", ".jpeg", ".png", ".jfif"))
    restart = bool(rng.integers(2))  # numbers start again in each part
    rows = {}
    number = 0
    for folder_name, part in parts:
        number = 0 if restart else number
        inner = pick(("", "", f"{folder_name}/" if folder_name else ""))
        for label, name in enumerate(classes):
            for _ in range(int(rng.integers(3, 7))):
                stem = f"{name}_{number}" if by == "names" else f"{number:04d}"
                place = f"{folder_name}/{inner}" if folder_name else ""
                if by in ("folders", "both"):
                    place += f"{name}/"
                elif not folder_name:
                    place += "images/"
                path = place + stem + ending
                files[path] = JPEG
                truth[path] = (name, part)
                rows.setdefault(part, []).append((stem, path, name, label))
                number += 1
    if by in ("table", "both"):
        _add_tables(rng, pick, files, rows, parts)
    wrapper = pick(("", "", "data/", "archive/set/"))
    files = {wrapper + path: content for path, content in files.items()}
    truth = {wrapper + path: value for path, value in truth.items()}
    for name in STRAY:
        if rng.random() < 0.15:
            files[pick(("", wrapper)) + name] = b"text"
    if rng.random() < 0.2:
        files["__MACOSX/._a.jpg"] = b"\0"
    if rng.random() < 0.2 and by in ("folders", "both") and parted:
        files[wrapper + "unlabeled/1.jpg"] = JPEG
    if rng.random() < 0.25:
        target = folder / "d.zip"
        with zipfile.ZipFile(target, "w") as archive:
            for path, content in files.items():
                archive.writestr(path.replace("/", "\\") if seed % 2 else path, content)
        return target, truth
    for path, content in files.items():
        (folder / "d" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "d" / path).write_bytes(content)
    return folder / "d", truth


def _add_tables(rng, pick, files, rows, parts):
    """One table for all parts or one for each, with columns in any order, some of them as misleading as real ones."""
    separate = len(parts) > 1 and bool(rng.integers(2))
    label = pick(("label", "Label", "class", "species", "what"))
    name = pick(("id", "image_id", "filename", "path", "f"))
    how = pick(("stem", "file", "path", "foreign"))
    more = [column for column in ("age", "variety", "width", "index", "split_number") if rng.random() < 0.25]
    numbers = label in ("label", "class") and bool(rng.integers(2))
    columns = [name, label, *more]
    columns = [columns[k] for k in rng.permutation(len(columns))]
    encoding, separator = pick(("utf-8", "utf-8-sig", "utf-16", "cp1252")), pick((",", ";", "\t"))
    lines = {}
    for part, found in rows.items():
        for position, (stem, path, class_name, number) in enumerate(found):
            values = {
                name: {"stem": stem, "file": os.path.basename(path), "path": path, "foreign": f"C:\\set\\{path}"}[how],
                label: number if numbers else class_name,
                "age": int(rng.integers(20, 25)),
                "variety": pick(("a", "b")),
                "width": rng.random(),
                "index": position + 1,
                "split_number": int(rng.integers(3)),
            }
            lines.setdefault(part if separate else "all", []).append(separator.join(str(values[c]) for c in columns))
    for part, found in lines.items():
        file = {"train": "train.csv", "val": pick(("val.csv", "test.csv"))}.get(part, pick(("labels.csv", "train.csv")))
        files[file] = "\n".join([separator.join(columns), *found]).encode(encoding)


def check(seed, folder):
    """The outcome of a case: `"right"`, or the error's message.

    Raises:
        AssertionError: no error, although labels or parts are wrong.
    """
    data_dir, truth = case(seed, folder)
    try:
        recipe = Recipe(data_dir=str(data_dir), resize=67, validation_split=0.3, run_dir=str(folder / "runs"))
        training, validation = load_data(recipe)
    except (DataError, ImageError) as error:
        assert len(str(error)) > 30 and "\n" not in str(error), f"seed {seed}: {error}"
        return str(error)
    found = {}
    for part, images in (("train", training), ("val", validation)):
        for path, label in zip(images.paths, images.labels.tolist(), strict=True):
            found[path.removeprefix(f"{data_dir}/").replace("\\", "/")] = (images.class_names[label], part)
    strange = found.keys() - truth.keys()
    assert not strange, f"seed {seed}: {sorted(strange)[:3]} are no images of the set ({training.summary})"
    pairs = Counter((truth[path][0], name) for path, (name, _) in found.items())
    both = len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert both, f"seed {seed}: wrong labels {dict(pairs)} ({training.summary})"
    for path, (_, part) in found.items():
        assert truth[path][1] in (None, part), f"seed {seed}: {path} is in {part} ({training.summary})"
    missing = truth.keys() - found.keys()
    counted = sum(training.summary.counts.values())
    assert len(missing) <= counted, f"seed {seed}: {len(missing)} images are gone, {counted} said ({training.summary})"
    return "right"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    results, wrong = Counter(), []
    for seed in range(options.first, options.first + options.count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                results["right" if check(seed, Path(folder)) == "right" else "refused"] += 1
            except AssertionError as error:
                wrong.append(str(error))
                print(error, flush=True)
    print(", ".join(f"{count:,} {what}" for what, count in results.items()), f"and {len(wrong):,} silently wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
