"""Packed folders are exact, can be resumed after any interruption, and detect damage."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from helpers import write_class_folders

from alexnet.cli import main
from alexnet.data import DataError, ImageError, TooManyBadImagesError, compute_pixel_stats, load_data, packing
from alexnet.data.packing import PackWriter
from alexnet.data.pixel_stats import RunningMoments
from alexnet.data.readers import find_sources, packed
from alexnet.recipe import Recipe

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[1]
SIZE = 72


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Ten images each: 8 shards of the 72 training images, 2 of the 18 others."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 10 * SIZE**2 * 3)


def recipe(folder, **values):
    return Recipe(**{"data_dir": str(folder), "resize": SIZE, "batch_size": 8, **values})


def pack(folder, target, encoding="raw", **values):
    training, validation = find_sources(recipe(folder, **values))
    packing = PackWriter(target, {"training": training, "validation": validation}, recipe(folder, **values), encoding)
    packing.run()
    return packing


def contents(folder):
    """The files of a packed folder; a killed command leaves its lock's file, which no longer locks anything."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock.tmp"}


@pytest.fixture(scope="module")
def small_pack(shapes_folder, tmp_path_factory):
    """The small data set packed as raw pixels; tests must not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SHARD_BYTES", 10 * SIZE**2 * 3)
        target = tmp_path_factory.mktemp("packed") / "raw"
        pack(shapes_folder, target)
    return target


@pytest.fixture
def own_pack(small_pack, tmp_path):
    """A copy of it to be damaged."""
    return shutil.copytree(small_pack, tmp_path / "own")


def test_raw_squares_are_the_same(shapes_folder, small_pack):
    names = sorted(path.name for path in small_pack.iterdir())
    assert names[:2] == ["packed.json", "training-00000-of-00008.array_record"] and len(names) == 1 + 8 + 2 + 2
    for part, plain in zip(packed.load_packed(small_pack), find_sources(recipe(shapes_folder)), strict=True):
        assert (part.class_names, part.labels.tolist()) == (plain.class_names, plain.labels.tolist())
        assert part.layout == "packed, raw 72 x 72" and part.digest() == plain.digest()
        order = np.random.default_rng(0).permutation(len(part))
        np.testing.assert_array_equal(part.images(order, SIZE), plain.images(order, SIZE))
    assert part.name(0) == str(small_pack / "validation" / "cross" / "0000.jpg")
    assert part.reader.is_decoded and part.reader.size == SIZE


def test_jpeg_squares_are_nearly_the_same(shapes_folder, small_pack, tmp_path):
    pack(shapes_folder, tmp_path / "jpeg", "jpeg")
    training, _ = packed.load_packed(tmp_path / "jpeg")
    exact = np.stack(packed.load_packed(small_pack)[0].images(np.arange(72), SIZE)).astype(int)
    assert np.abs(np.stack(training.images(np.arange(72), SIZE)) - exact).mean() < 2
    assert not training.reader.is_decoded
    size = sum(path.stat().st_size for path in (tmp_path / "jpeg").iterdir())
    assert size < 0.6 * sum(path.stat().st_size for path in small_pack.iterdir())


def test_training_batches_are_those_of_the_folder(shapes_folder, small_pack):
    for plain, fast in zip(load_data(recipe(shapes_folder)), load_data(recipe(small_pack)), strict=True):
        batches = zip(plain.batches(), fast.batches(), range(20), strict=False)
        for (images, labels), (packed_images, packed_labels), _ in batches:
            np.testing.assert_array_equal(images, packed_images)
            np.testing.assert_array_equal(labels, packed_labels)


def test_colors_are_those_of_all_training_images(shapes_folder, small_pack):
    training, _ = load_data(recipe(small_pack))
    found = compute_pixel_stats(recipe(small_pack, color_statistics="training"), training)
    pixels = np.concatenate([s.reshape(-1, 3) for s in training.source.images(np.arange(72), SIZE)]).astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(0))
    np.testing.assert_allclose(found.std, np.sqrt(np.linalg.eigvalsh(np.cov(pixels.T, bias=True))))
    assert found.source == "72 training images"
    assert RunningMoments(**RunningMoments(1, [1, 2, 3]).to_json()).sum.tolist() == [1, 2, 3]


def test_a_smaller_resize_is_served_and_a_larger_one_refused(small_pack):
    training, _ = packed.load_packed(small_pack)
    assert training.images(np.arange(2), 68)[0].shape == (68, 68, 3)
    with pytest.raises(DataError, match="packed at 72 pixels, but resize 80 asks for more"):
        training.images(np.arange(2), 80)


SLOW = """
import sys, time
from alexnet.data import packing
from alexnet.cli import main
packing.SHARD_BYTES = int(sys.argv[1])
write = packing.PackWriter._write
packing.PackWriter._write = lambda *arguments: (time.sleep(0.15), write(*arguments))
sys.exit(main(["pack", *sys.argv[2:], "--resize", "72", "--workers", "2"]))
"""


def test_after_a_kill_it_goes_on_and_nothing_differs(shapes_folder, small_pack, tmp_path):
    target = tmp_path / "killed"
    command = [sys.executable, "-c", SLOW, str(packing.SHARD_BYTES), str(shapes_folder), str(target)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    third = target / "training-00002-of-00008.array_record"
    deadline = time.monotonic() + 60
    note = target / f"{third.name}.json"
    while not note.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    stamp = third.stat().st_mtime_ns
    assert packed.is_packed(target)
    with pytest.raises(DataError, match="is not packed completely. Run the same pack command again"):
        load_data(recipe(target))
    with pytest.raises(DataError, match="killed was begun with encoding raw, not jpeg"):
        pack(shapes_folder, target, "jpeg")
    pack(shapes_folder, target)
    assert third.stat().st_mtime_ns == stamp
    assert contents(target) == contents(small_pack)


def test_other_images_or_parameters_are_refused(shapes_folder, own_pack, tmp_path):
    write_class_folders(tmp_path / "other", {"train": 3, "val": 2})
    with pytest.raises(DataError, match=r"training 72 images \(\w+\), not 9 images"):
        pack(tmp_path / "other", own_pack)
    with pytest.raises(DataError, match="size 72, not 70"):
        pack(shapes_folder, own_pack, resize=70)
    with pytest.raises(DataError, match="holds other files"):
        pack(shapes_folder, tmp_path / "other")
    assert pack(shapes_folder, own_pack).remaining == 0


def test_a_flipped_byte_spoils_one_image(own_pack, capsys):
    assert main(["pack", str(own_pack), "--verify"]) == 0
    shard = own_pack / "training-00003-of-00008.array_record"
    content = bytearray(shard.read_bytes())
    content[4 * SIZE**2 * 3] ^= 1
    shard.write_bytes(content)
    assert main(["pack", str(own_pack), "--verify"]) == 1
    assert f"{shard.name} has a different checksum" in capsys.readouterr().err
    training, _ = packed.load_packed(own_pack)
    squares = training.images(np.arange(72), SIZE)
    (bad,) = [square for square in squares if isinstance(square, ImageError)]
    assert f"is damaged in {shard.name}" in str(bad) and "\n" not in str(bad)
    images = load_data(recipe(own_pack, max_skipped=0.05))[0]
    assert len(list(zip(images.batches(), range(9), strict=False))) == 9 and len(images.skipped) == 1


def test_missing_and_cut_off_shards_are_named_and_written_again(shapes_folder, small_pack, own_pack):
    (own_pack / "training-00001-of-00008.array_record").unlink()
    cut = own_pack / "validation-00001-of-00002.array_record"
    cut.write_bytes(cut.read_bytes()[:-5])
    with pytest.raises(DataError, match=rf"training-00001-of-00008.array_record, {cut.name} are missing or truncated"):
        load_data(recipe(own_pack))
    assert {file for file, _ in packed.verify(own_pack)} == {"training-00001-of-00008.array_record", cut.name}
    assert pack(shapes_folder, own_pack).remaining == 18
    assert contents(own_pack) == contents(small_pack)


def test_what_cannot_be_read_is_left_out_and_listed(tmp_path):
    folder = write_class_folders(tmp_path / "images", {"train": 8, "val": 2})
    damaged = folder / "train" / "ring" / "0003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:500])
    pack(folder, tmp_path / "out", max_skipped=0.1)
    training, validation = packed.load_packed(tmp_path / "out")
    assert (len(training), len(validation)) == (23, 6)
    assert not any(training.name(index).endswith("ring/0003.jpg") for index in range(23))
    assert all(isinstance(square, np.ndarray) for square in training.images(np.arange(23), SIZE))
    assert training.labels.tolist() == [0] * 8 + [1] * 7 + [2] * 8
    rows = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith(f"{damaged},cannot be decoded")
    with pytest.raises(TooManyBadImagesError, match="more than max_skipped"):
        pack(folder, tmp_path / "strict")
    assert (tmp_path / "strict" / "skipped.csv").exists()


def test_too_small_a_disk_is_told_before(shapes_folder, tmp_path, monkeypatch, capsys):
    space = namedtuple("usage", "total used free")
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda folder: space(10**9, 10**9 - 10**6, 10**6))
    assert main(["pack", str(shapes_folder), str(tmp_path / "out"), "--resize", "72"]) == 2
    assert "left, but 90 images of 72 x 72 pixels, raw, need 1.4 MB." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_will_take(shapes_folder, tmp_path, capsys):
    target = str(tmp_path / "out")
    assert main(["pack", str(shapes_folder), target, "--resize", "72", "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{shapes_folder}: class folders; 3 classes by the names of the folders (cross, ring, ")
    assert lines[1].startswith("90 of 90 images to pack, 72 x 72 pixels, raw: 1.4 MB in all, about ")
    assert lines[2:] == [f"{target}: 90 images", f"{target}: every file has its checksum"]
    assert main(["pack", str(tmp_path / "none"), target]) == 2
    with pytest.raises(SystemExit):
        main(["pack", str(shapes_folder)])


def test_a_manifest_that_is_none(own_pack):
    manifest = own_pack / packed.MANIFEST
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "plan": {**values["plan"], "version": 9}}))
    with pytest.raises(DataError, match="packed in version 9; this program reads 1"):
        packed.load_packed(own_pack)
    manifest.write_text("{")
    with pytest.raises(DataError, match="packed.json cannot be read"):
        packed.load_packed(own_pack)


def test_memory_stays_bounded(monkeypatch):
    """However slowly shards are written, at most `depth` squares wait."""
    from concurrent.futures import ThreadPoolExecutor

    made = []
    with ThreadPoolExecutor(2) as pool:
        results = packing.bounded_map(pool, lambda task: made.append(task) or task, range(50), 4)
        for number, result in enumerate(results):
            time.sleep(0.001)
            assert result == number and len(made) <= number + 6
