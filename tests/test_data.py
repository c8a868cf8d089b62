import importlib.util
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import write_class_folders
from PIL import Image

from alexnet.data import (
    DataError,
    ImageError,
    augmentation,
    dataset,
    decoding,
    imagenet,
    load_data,
    load_test_data,
    shapes,
)
from alexnet.data.pixel_stats import IMAGENET
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once


def recipe(folder, **values):
    return Recipe(**{"data_dir": str(folder), "resize": 72, "batch_size": 8, **values})


def take(images, count):
    stream = iter(images.batches())
    return [next(stream) for _ in range(count)]


# --- Decoding


def save(path, mode="RGB", size=(90, 72), **options):
    """A left half of pure red and a right half of pure blue, in any mode and format."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    image.convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.png", "RGB"), ("a.png", "P"), ("a.png", "RGBA"), ("a.bmp", "RGB"),
     ("a.gif", "P"), ("a.webp", "RGB"), ("a.JPEG", "RGB")],
)  # fmt: skip
def test_every_format_becomes_rgb(tmp_path, name, mode):
    square = decoding.load_image(save(tmp_path / name, mode), 72)
    assert square.shape == (72, 72, 3) and square.dtype == np.uint8
    np.testing.assert_allclose(square[36, 5], [255, 0, 0], atol=12)
    np.testing.assert_allclose(square[36, 66], [0, 0, 255], atol=12)


def test_grey_images_become_rgb(tmp_path):
    Image.new("L", (80, 80), 99).save(tmp_path / "gray.png")
    Image.fromarray(np.full((80, 80), 99 * 257, np.uint16)).save(tmp_path / "deep.png")
    for name in ("gray.png", "deep.png"):
        np.testing.assert_allclose(decoding.load_image(tmp_path / name, 72), 99, atol=1)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (80, 80), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(decoding.load_image(tmp_path / "clear.png", 72), 255)


def test_exif_orientation_is_honored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    square = decoding.load_image(save(tmp_path / "turned.jpg", exif=exif), 72)
    np.testing.assert_allclose(square[36, 5], [0, 0, 255], atol=12)


def test_the_central_square_is_kept():
    # Columns count up; of 200 x 100 pixels the middle hundred columns stay, halved.
    image = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3)))
    square = decoding.resize_image(image, 50)
    np.testing.assert_allclose(square[25, :, 0], np.arange(50.5, 150, 2), atol=1.1)


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    whole = save(tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("text.jpg", "is not an image"),
        ("empty.jpg", "is empty"),
        ("half.jpg", "cannot be decoded"),
    ):
        with pytest.raises(ImageError, match=f"{name} {message}"):
            decoding.load_image(tmp_path / name, 72)


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def photograph(size, seed=0):
    """Soft patches of color, a dozen in each direction."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(60, 50), (130, 110), (200, 301), (700, 600), (3000, 1700)])
def test_jpegs_are_decoded_as_pil_does_it(mode, size):
    """The fast way differs from PIL's in its filter."""
    image = photograph(size).convert(mode)
    found = decoding.decode_image(jpeg(image, quality=95, subsampling=0), 72, "x")
    expected = decoding.resize_image(image.convert("RGB"), 72).astype(int)
    assert found.shape == (72, 72, 3) and found.dtype == np.uint8
    assert np.abs(found - expected).mean() < 3.5
    assert np.abs((found - expected).mean()) < 1  # not brighter, and not shifted


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_is_cut_off_is_no_image(fraction, options):
    content = jpeg(photograph((300, 200)), **options)
    with pytest.raises(ImageError, match="^x (is not an image|cannot be decoded)"):
        decoding.decode_image(content[: int(len(content) * fraction)], 72, "x")


def test_a_damaged_file_is_read_or_an_image_error():
    """Whatever bytes are wrong: no other exception, and nothing on the error stream."""
    rng, refused = np.random.default_rng(0), 0
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        stream = io.BytesIO()
        photograph((96, 80)).save(stream, kind)
        for _ in range(60):
            content = bytearray(stream.getvalue())
            for place in rng.integers(0, min(len(content), 400), 4):
                content[place] = rng.integers(256)
            try:
                assert decoding.decode_image(bytes(content), 72, "x").shape == (72, 72, 3)
            except ImageError:
                refused += 1
    assert 100 < refused < 300


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process knows its own peak on Linux only")
@pytest.mark.parametrize("side", [17400, 60000])
def test_a_header_that_claims_too_much_is_refused_silently(tmp_path, side):
    content = jpeg(Image.new("RGB", (80, 80)))
    frame = content.index(b"\xff\xc0") + 5
    (tmp_path / "bomb.jpg").write_bytes(content[:frame] + side.to_bytes(2, "big") * 2 + content[frame + 4 :])
    program = (
        "import re, sys\nfrom alexnet.data import ImageError, load_image\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "try: load_image(sys.argv[1], 72)\nexcept ImageError as error: print(error)\n"
        "assert peak() < before + 50000"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "bomb.jpg")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0 and found.stderr == ""
    assert "bomb.jpg claims to have" in found.stdout


def test_the_content_decides_and_not_the_name(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / "a.JPEG")
    np.testing.assert_array_equal(decoding.load_image(tmp_path / "a.JPEG", 72)[36, 5], [255, 0, 0])


# --- Augmentation


def test_random_crops_reach_every_corner_and_stay_inside():
    images = np.tile(np.arange(10 * 10, dtype=np.uint8).reshape(1, 10, 10, 1), (400, 1, 1, 3))
    corners = augmentation.random_crop_offsets(400, 2, np.random.default_rng(0))
    crops = np.empty((400, 8, 8, 3), np.uint8)
    augmentation.crop_and_flip(list(images), corners, np.zeros(400, bool), crops)
    found = {divmod(int(crop[0, 0, 0]), 10) for crop in crops}
    assert found == {(y, x) for y in range(3) for x in range(3)}
    np.testing.assert_array_equal(augmentation.center_crop(images, 8)[0, 0, 0], 11)


def test_half_of_the_images_are_mirrored():
    assert 430 < augmentation.sample_flips(1000, np.random.default_rng(0)).sum() < 570


def test_cutting_is_exact():
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (6, 20, 21, 3), np.uint8)
    squares.flags.writeable = False
    corners, flips = augmentation.random_crop_offsets(6, 11, rng), np.arange(6) % 2 == 0
    batch = np.zeros((6, 9, 9, 3), np.uint8)
    augmentation.crop_and_flip(list(squares), corners, flips, batch)
    for found, square, (y, x), flip in zip(batch, squares, corners, flips, strict=True):
        part = square[y : y + 9, x : x + 9]
        np.testing.assert_array_equal(found, part[:, ::-1] if flip else part)


def test_color_noise_has_imagenets_covariance():
    noise = augmentation.pca_color(np.zeros((20000, 1, 1, 3)), 0.1, IMAGENET.pca_components, np.random.default_rng(0))
    # Each component's standard deviation is 0.1 times the root of its eigenvalue.
    np.testing.assert_allclose((noise.reshape(-1, 3) @ IMAGENET.vectors).std(0), 0.1 * IMAGENET.std, rtol=0.03)
    np.testing.assert_allclose(IMAGENET.vectors.T @ IMAGENET.vectors, np.eye(3), atol=2e-3)


# --- What a model is evaluated on


def test_the_validation_part_or_everything(tmp_path):
    write_class_folders(tmp_path / "split", {"train": 3, "val": 2})
    write_class_folders(tmp_path / "whole", {"": 1})  # one image per class cannot be split, but can be evaluated on
    assert len(load_test_data(recipe(tmp_path / "split"))) == 6
    assert len(load_test_data(recipe(tmp_path / "whole"))) == 3
    assert len(load_test_data(recipe(tmp_path / "split"), part="training")) == 9
    assert len(load_test_data(recipe(tmp_path / "whole"), part="training")) == 3
    write_class_folders(tmp_path / "alone", {"val": 2})  # not a class that is called val
    assert load_test_data(recipe(tmp_path / "alone")).class_names == ["cross", "ring", "triangle"]


def test_labels_follow_the_model(tmp_path):
    write_class_folders(tmp_path / "d", {"": 2})
    names = ["arrow", "triangle", "heart", "ring", "cross"]
    images = load_test_data(recipe(tmp_path / "d"), names)
    assert images.class_names == names
    for path, label in zip(images.paths, images.labels, strict=True):
        assert f"/{names[label]}/" in path
    with pytest.raises(DataError, match="the model lacks classes cross, triangle. It has 2: arrow, ring"):
        load_test_data(recipe(tmp_path / "d"), ["arrow", "ring"])


def test_the_way_of_a_batch_is_short(shapes_folder):
    """From the numbers of images to their pixels, only these files are involved."""
    folder, passed = Path(dataset.__file__).parent, set()

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and folder in path.parents:
            passed.add(path.relative_to(folder).as_posix())

    images, _ = load_data(recipe(shapes_folder, cache_gb=0))
    threading.setprofile(note)
    try:
        next(iter(images.batches()))
    finally:
        threading.setprofile(None)
    names = {"dataset.py", "source.py", "readers/filesystem.py", "packed_strings.py", "decoding.py", "augmentation.py"}
    if importlib.util.find_spec("simplejpeg") is None:
        names.add("formats.py")  # which Pillow opens images through
    assert passed == names


def test_images_before_any_crop_are_whole(shapes_folder):
    images = load_data(recipe(shapes_folder, batch_size=7))[1]
    squares = list(images.images())
    assert [len(labels) for _, labels in squares] == [7, 7, 4] and squares[0][0].shape == (7, 72, 72, 3)
    crops = np.concatenate([augmentation.center_crop(square, 67) for square, _ in squares])
    np.testing.assert_array_equal(crops, np.concatenate([image for image, _ in images.batches()]))
    np.testing.assert_array_equal(images.get_images([3, 9])[1], squares[1][0][2])


def test_ten_views_are_corners_centre_and_mirror_images():
    image = np.arange(6 * 6 * 3).reshape(1, 6, 6, 3)
    views = list(augmentation.ten_crop(image, 4))
    plain, mirrored = views[::2], views[1::2]
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    for view, mirror, (y, x) in zip(plain, mirrored, corners, strict=True):
        np.testing.assert_array_equal(view, image[:, y : y + 4, x : x + 4])
        np.testing.assert_array_equal(mirror, np.flip(view, 2))


def test_imagenets_names():
    assert len(imagenet.names()) == 1000 and list(imagenet.names()) == sorted(imagenet.names())
    assert [imagenet.class_display_name(name) for name in ("n01440764", "n03042490", "Paris, France", "n1")] == [
        "tench",
        "cliff dwelling",
        "Paris, France",
        "n1",
    ]
    assert len({imagenet.class_display_name(wnid) for wnid in imagenet.names()}) == 1000


# --- Batches


def test_training_batches_are_full_shuffled_and_endless(shapes_folder):
    training, _ = load_data(recipe(shapes_folder, batch_size=10))
    batches = take(training, 20)
    assert all(x.shape == (10, 67, 67, 3) and x.dtype == np.uint8 and y.dtype == np.int32 for x, y in batches)
    first = np.concatenate([y for _, y in batches])[:72]
    second = np.concatenate([y for _, y in batches])[72:144]
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [24, 24, 24]
    assert first.tolist() != second.tolist() and first.tolist() != sorted(first)


def test_the_seed_decides_and_a_batch_is_found_again(shapes_folder):
    training, _ = load_data(recipe(shapes_folder))
    batches = take(training, 12)
    again, other = load_data(recipe(shapes_folder))[0], load_data(recipe(shapes_folder, seed=1))[0]
    np.testing.assert_array_equal(take(again, 12)[11][0], batches[11][0])
    assert not np.array_equal(take(other, 1)[0][0], batches[0][0])
    np.testing.assert_array_equal(next(iter(again.batches(first=11)))[0], batches[11][0])


def test_the_cache_changes_nothing(shapes_folder):
    kept, fresh = (load_data(recipe(shapes_folder, cache_gb=size))[0] for size in (1, 0))
    for (x, _), (y, _) in zip(take(kept, 20), take(fresh, 20), strict=True):
        np.testing.assert_array_equal(x, y)


def test_validation_is_one_pass_in_order(shapes_folder):
    _, validation = load_data(recipe(shapes_folder, batch_size=7))
    for _ in range(2):
        batches = list(validation.batches())
        assert [len(y) for _, y in batches] == [7, 7, 4]
        np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), validation.labels)
        np.testing.assert_array_equal(batches[1][0], validation.center_crops(np.arange(7, 14)))


def test_without_augmentation_training_sees_the_central_crops(shapes_folder):
    training, _ = load_data(recipe(shapes_folder, random_crop=False, mirror=False, batch_size=72))
    batch = {image.tobytes() for image in take(training, 1)[0][0]}
    assert batch == {image.tobytes() for image in training.center_crops(np.arange(72))}


def test_color_noise_makes_float_batches(shapes_folder):
    images, _ = take(load_data(recipe(shapes_folder, pca_color=0.1))[0], 1)[0]
    assert images.dtype == np.float32


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_batches_need_no_tensorflow_and_are_the_same(shapes_folder, backend):
    program = (
        "import sys, hashlib, alexnet; keras = alexnet.import_keras()\n"
        f"images, _ = alexnet.load_data(alexnet.Recipe(data_dir={str(shapes_folder)!r}, resize=72, batch_size=8))\n"
        "stream = iter(images.batches()); total = hashlib.sha256()\n"
        "for _ in range(12): total.update(next(stream)[0].tobytes())\n"
        "assert 'tensorflow' not in sys.modules; print(total.hexdigest())"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    import hashlib

    ours = hashlib.sha256(b"".join(x.tobytes() for x, _ in take(load_data(recipe(shapes_folder))[0], 12)))
    assert found.stdout.strip() == ours.hexdigest()


# --- Data sets by name


@pytest.mark.parametrize(
    ("name", "shape", "label_shape", "classes"),
    [("cifar10", (32, 32, 3), (1,), 10), ("cifar100", (32, 32, 3), (1,), 100), ("mnist", (28, 28), (), 10),
     ("fashion_mnist", (28, 28), (), 10)],
)  # fmt: skip
def test_keras_datasets(monkeypatch, name, shape, label_shape, classes):
    """As keras.datasets returns them: shapes, types and the extra axis of CIFAR's labels; no download."""
    rng = np.random.default_rng(0)

    def load_data_():
        return tuple(
            (
                rng.integers(0, 256, (n, *shape), dtype="uint8"),
                (np.arange(n) % classes).reshape(n, *label_shape).astype("uint8"),
            )
            for n in (200, 100)
        )

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", load_data_)
    training, validation = load_data(recipe(name))
    assert (len(training), len(validation), len(training.class_names)) == (200, 100, classes)
    images, labels = take(training, 1)[0]
    assert images.shape == (8, 67, 67, 3) and labels.shape == (8,)


def test_a_failed_download_is_one_sentence(monkeypatch):
    def fail():
        raise OSError("URL fetch failure on https://example.org: unreachable\nmore")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(DataError, match="cifar10 could not be loaded by keras.datasets") as error:
        load_data(recipe("cifar10"))
    assert "\n" not in str(error.value)


# --- The built-in data set


def test_shapes_are_deterministic_and_varied(tmp_path):
    for name in ("a", "b"):
        shapes.write(tmp_path / name, splits={"train": 4})
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 40 and {path.parts[1] for path in files} == set(shapes.SHAPES)
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    sizes = [Image.open(tmp_path / "a" / path).size for path in files]
    assert len(set(sizes)) > 30 and any(w > h for w, h in sizes) and any(w < h for w, h in sizes)
    shapes.write(tmp_path / "c", splits={"train": 4}, seed=1)
    assert (tmp_path / "a" / files[0]).read_bytes() != (tmp_path / "c" / files[0]).read_bytes()


def test_shapes_are_written_once_and_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(shapes.SPLITS, "shapes", {"train": 1})
    first = shapes.prepare(tmp_path / "shapes")
    stamps = [path.stat().st_mtime_ns for path in sorted(first.rglob("*.jpg"))]
    shapes.prepare(tmp_path / "shapes")
    assert [path.stat().st_mtime_ns for path in sorted(first.rglob("*.jpg"))] == stamps

    def interrupted(folder):
        (folder / "train").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "write", lambda folder, name: interrupted(folder))
    with pytest.raises(KeyboardInterrupt):
        shapes.prepare(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_shapes_need_more_than_a_linear_classifier():
    """Softmax regression on 8 x 8 thumbnails of the whole data set stays under 40 %, at its best step."""
    training, validation = load_data(Recipe(resize=67))
    assert (len(training), len(validation), len(training.class_names)) == (2000, 500, 10)

    def thumbnails(images):
        squares = images.center_crops(np.arange(len(images)))
        small = [np.asarray(Image.fromarray(s).resize((8, 8), Image.Resampling.BOX), np.float32) for s in squares]
        return np.stack(small).reshape(len(squares), -1) / 255

    x, y = thumbnails(training), np.eye(10, dtype=np.float32)[training.labels]
    held_out, mean = thumbnails(validation), x.mean(0)
    x, held_out = x - mean, held_out - mean
    weights, bias, best = np.zeros((192, 10), np.float32), np.zeros(10, np.float32), 0.0
    for step in range(3000):
        scores = np.exp(x @ weights + bias)
        error = (scores / scores.sum(1, keepdims=True) - y) / len(x)
        weights -= 2.0 * (x.T @ error + 1e-4 * weights)
        bias -= 2.0 * error.sum(0)
        if step % 50 == 49:
            best = max(best, np.mean((held_out @ weights + bias).argmax(1) == validation.labels))
    assert 0.15 < best < 0.4  # better than chance; otherwise the test would prove nothing
