"""How many images a second are made into training batches, compared with tf.data and torch's DataLoader.

KERAS_BACKEND=torch python benchmarks/input_rate.py /tmp/data/imagenet-sample
KERAS_BACKEND=torch python benchmarks/input_rate.py /tmp/data/imagenet-sample --memory 50000

Every candidate makes batches of 128: shorter side to 256, a random crop of 227, mirrored at random, uint8. Each round
runs each of them for a few seconds in a process of its own, with two threads (the DataLoader: two processes) and the
files in the system's cache. The medians of the rounds are compared. Small folders are repeated by links until they have
a few thousand images. With --memory, that many training steps of 16 images are read from a packed folder while the
process's memory is watched. Results go to benchmarks/results/input_rate.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

BATCH, RESIZE, CROP, THREADS = 128, 256, 227, 2
IMAGES = 2000  # the least number in the folder that is read
CANDIDATES = ("tf.data", "DataLoader", "ours", "packed jpeg", "packed raw")
RESULTS = Path(__file__).parent / "results" / "input_rate.json"


def recipe(folder):
    from alexnet import Recipe

    return Recipe(data_dir=str(folder), resize=RESIZE, image_size=CROP, batch_size=BATCH, workers=THREADS, cache_gb=0)


def ours(folder):
    from alexnet import load_data

    return iter(load_data(recipe(folder))[0].batches())


def tf_data(folder):
    import tensorflow as tf

    def load(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_FAST")
        sides = tf.cast(tf.shape(image)[:2], tf.float32)
        image = tf.image.resize(image, tf.cast(tf.round(sides * RESIZE / tf.reduce_min(sides)), tf.int32))
        image = tf.image.random_crop(image, (CROP, CROP, 3))
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    paths = [str(path) for path in sorted(folder.rglob("*.*"))]
    options = tf.data.Options()
    options.threading.private_threadpool_size = THREADS
    options.deterministic = False
    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = files.map(load, num_parallel_calls=THREADS).batch(BATCH, drop_remainder=True).prefetch(2 * THREADS)
    return dataset.with_options(options).as_numpy_iterator()


class Files:
    """A data set as users of PyTorch write it, with PIL."""

    def __init__(self, folder):
        self.paths = sorted(folder.rglob("*.*"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import torch

        with Image.open(self.paths[index]) as image:
            image = image.convert("RGB")
        scale = RESIZE / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
        x, y = (int(torch.randint(side - CROP + 1, ())) for side in image.size)
        image = image.crop((x, y, x + CROP, y + CROP))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image))


def data_loader(folder):
    import torch

    loader = torch.utils.data.DataLoader(
        Files(folder), BATCH, shuffle=True, num_workers=THREADS, drop_last=True, persistent_workers=True
    )
    while True:
        yield from loader


def measure(candidate, folder, seconds):
    """Images a second of one candidate, after a warm-up."""
    batches = {"tf.data": tf_data, "DataLoader": data_loader}.get(candidate, ours)(folder)
    for _ in range(2 * THREADS + 2):
        next(batches)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += len(next(batches)[0]) if candidate not in ("tf.data", "DataLoader") else len(next(batches))
    return images / (time.perf_counter() - began)


def watch_memory(folder, steps):
    """Megabytes of the process in each hundredth of `steps` training steps."""
    from alexnet import load_data

    training, _ = load_data(recipe(folder).replace(batch_size=16))
    batches, process, found = iter(training.batches()), psutil.Process(), []
    for step in range(steps):
        next(batches)
        if step % max(1, steps // 100) == 0:
            found.append(process.memory_info().rss / 1e6)
    return found


def augmentation_time():
    """Seconds per image for crops, mirror images and the batch."""
    from alexnet.data import augmentation

    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (BATCH, RESIZE, RESIZE, 3), np.uint8))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        corners, flips = (
            augmentation.random_crop_offsets(BATCH, RESIZE - CROP, rng),
            augmentation.sample_flips(BATCH, rng),
        )
        augmentation.crop_and_flip(images, corners, flips, np.empty((BATCH, CROP, CROP, 3), np.uint8))
        times.append((time.perf_counter() - began) / BATCH)
    return statistics.median(times)


def filter_difference(folder):
    """Mean difference in gray levels between our squares and PIL's of the same files: over all, and of the worst."""
    from alexnet.data import decoding

    found = []
    for path in sorted(folder.rglob("*.*"))[:500]:
        with Image.open(path) as image:
            slow = decoding.resize_image(decoding.to_rgb(image), RESIZE)
        found.append(np.abs(decoding.load_image(path, RESIZE) - slow.astype(int)).mean())
    return {"mean": float(np.mean(found)), "worst": float(np.max(found))}


def repeated(folder, target):
    """Make links to the images in class folders, each repeated as often as needed."""
    paths = [path for path in sorted(folder.rglob("*.*")) if path.is_file()]
    for path in paths:
        for copy in range(-(-IMAGES // len(paths))):
            link = target / path.parent.name / f"{copy}_{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return target


def packed(folder, target, encoding):
    from alexnet.data.packing import PackWriter
    from alexnet.data.readers import find_sources

    training, validation = find_sources(recipe(folder))
    PackWriter(target, {"training": training, "validation": validation}, recipe(folder), encoding).run(verbose=0)
    return target


def child(*arguments):
    """The JSON that this file prints when it is run with other arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(found.stdout.splitlines()[-1])


def compare(folder, rounds, seconds):
    """`{candidate: its rate in each round}`."""
    folders = {"packed raw": folder.parent / "raw", "packed jpeg": folder.parent / "jpeg"}
    for name, target in folders.items():
        packed(folder, target, name.split()[1])
    rates = {candidate: [] for candidate in CANDIDATES}
    for number in range(rounds):
        for candidate in CANDIDATES:
            where = folders.get(candidate, folder)
            rates[candidate].append(child(where, "--candidate", candidate, "--seconds", seconds))
        print(f"round {number + 1}: " + ", ".join(f"{name} {rates[name][-1]:.0f}" for name in CANDIDATES), flush=True)
    return rates


def report(folder, rates):
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:12} {rate:8.0f} images/s, {rate / medians['ours']:6.2f} times ours from JPEGs")
    spent = augmentation_time()
    shares = {name: spent * medians[name] / THREADS for name in ("ours", "packed raw")}
    difference = filter_difference(folder)
    print(
        f"crop, mirror and batch: {spent * 1e3:.3f} ms an image, "
        + ", ".join(f"{s:.0%} of {n}" for n, s in shares.items())
    )
    print(f"our squares and PIL's differ by {difference['mean']:.2f} gray levels, at worst {difference['worst']:.2f}")
    return {
        "rates": rates,
        "medians": medians,
        "augmentation": {"seconds": spent, "shares": shares},
        "filter_difference": difference,
    }


def report_memory(found, steps):
    """Medians may differ by one batch of 20 MB, which may be waiting or not. A leak would raise the peak as well."""
    tenth, half = max(1, len(found) // 10), len(found) // 2
    first, last = statistics.median(found[:tenth]), statistics.median(found[-tenth:])
    peaks = [max(found[:half]), max(found[half:])]
    print(f"{steps:,} steps: {first:.0f} MB in the first tenth, {last:.0f} MB in the last, {last - first:+.1f} MB")
    print(f"peak of the first half {peaks[0]:.0f} MB, of the second {peaks[1]:.0f} MB")
    return {"steps": steps, "first_mb": first, "last_mb": last, "peaks_mb": peaks, "samples_mb": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of class folders with JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each candidate runs in a round")
    parser.add_argument("--memory", type=int, nargs="?", const=50_000, metavar="STEPS", help="watch memory instead")
    parser.add_argument("--candidate", choices=CANDIDATES, help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        print(json.dumps(measure(options.candidate, options.folder, options.seconds)), flush=True)
        os._exit(0)  # some candidates' threads end only with the process
    if options.watch:
        print(json.dumps(watch_memory(options.folder, options.watch)), flush=True)
        os._exit(0)
    import alexnet

    alexnet.import_keras()
    from alexnet.training import hardware, versions

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = repeated(options.folder, Path(temporary) / "images")
        if options.memory:
            raw = packed(folder, Path(temporary) / "raw", "raw")
            results["memory"] = report_memory(child(raw, "--watch", options.memory), options.memory)
        else:
            results.update(report(folder, compare(folder, options.rounds, options.seconds)))
    results.update(versions=versions(), hardware=hardware())
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
