"""Reads a packed set: images decoded once and stored in a few large files, with random access."""

import bisect
import hashlib
import itertools
import json
import os
import threading
from pathlib import Path

import numpy as np

from alexnet.data import decoding
from alexnet.data.errors import DataError, ImageError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.pixel_stats import PixelStats
from alexnet.data.readers.filesystem import DirectoryView
from alexnet.data.source import ImageReader, LabeledImages, Parts
from alexnet.packages import install, optional
from alexnet.progress import progress
from alexnet.recipe import Recipe

VERSION = 1
# Describe the packed images when packing is complete, and before that. The names of files and keys are of version 1.
MANIFEST, SPEC = "packed.json", "plan.json"
# Each image can be read alone.
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


def detect(view: DirectoryView, recipe: Recipe, test_only: bool = False) -> Parts | None:
    """A folder that `python -m alexnet pack` wrote. A detector for `readers.DETECTORS`."""
    return load_packed(view.path) if view.path and is_packed(view.path) else None


class PackedReader(ImageReader):
    """One part of a packed folder. Any number of threads may read it.

    Args:
        folder: The folder's path.
        shards: `(file name, number of images)` of each shard.
        names: `PackedStrings`, the images' original names.
        size: Side of the squares in pixels.
        encoding: `"raw"` or `"jpeg"`.
        pixel_stats: `PixelStats` of all training images.
    """

    def __init__(self, folder, shards, names, size, encoding, pixel_stats):
        self.folder = str(folder)
        self.names = names
        self.size = size
        self.encoding = encoding
        self.pixel_stats = pixel_stats
        self.is_decoded = encoding == "raw"
        self._files = [file for file, _ in shards]
        self._ends = list(itertools.accumulate(images for _, images in shards))
        self._readers = [None] * len(shards)
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return os.path.join(self.folder, self.names[index])

    def image(self, index, size):
        """See `ImageReader.image`.

        Raises:
            DataError: `size` is larger than that of the squares.
        """
        if size > self.size:
            raise DataError(
                f"data_dir: {self.folder} is packed at {self.size} pixels, but resize {size} asks for more."
            )
        record = self._read(index)
        if self.encoding == "jpeg":
            return decoding.decode_image(record, size, self.name(index))
        if len(record) != self.size**2 * 3:
            raise ImageError(self.name(index), f"is damaged: {len(record):,} bytes of {self.size**2 * 3:,}")
        pixels = np.frombuffer(record, np.uint8).reshape(self.size, self.size, 3)
        return pixels if size == self.size else decoding.resize_array(pixels, size)

    def _read(self, index):
        shard = bisect.bisect_right(self._ends, index)
        place = int(index - (self._ends[shard - 1] if shard else 0))
        try:
            # One record at a time: this spreads over threads, and a damaged record does not affect others.
            return self._reader(shard).read([place])[0]
        except (RuntimeError, IndexError) as error:
            reason = str(error).partition(";")[0]
            raise ImageError(self.name(index), f"is damaged in {self._files[shard]} ({reason})") from None

    def _reader(self, shard):
        if self._readers[shard] is None:
            array_record = array_record_module()
            with self._lock:
                if self._readers[shard] is None:
                    path = os.path.join(self.folder, self._files[shard])
                    self._readers[shard] = array_record.ArrayRecordReader(
                        path, _READ_OPTIONS, file_reader_buffer_size=2**16
                    )
        return self._readers[shard]

    def close(self):
        for reader in self._readers:
            if reader is not None:
                reader.close()
        self._readers = [None] * len(self._files)


def array_record_module():
    """The module that reads and writes ArrayRecord.

    Raises:
        DataError: it is missing.
    """
    module = optional("array_record.python.array_record_module")
    if module is None:
        raise DataError(f"Packed images need array_record, which is not installed. {install('array_record')}")
    return module


def is_packed(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a packed set, complete or not."""
    return any((Path(folder) / name).is_file() for name in (MANIFEST, SPEC))


def load_packed(folder: str | os.PathLike) -> tuple[LabeledImages | None, LabeledImages | None]:
    """`(training, validation)` sources of a packed folder; one of them may be None.

    Raises:
        DataError: it is unfinished, damaged or of a different version.
    """
    folder = Path(folder)
    array_record_module()
    manifest = read_manifest(folder)
    damaged = [file["file"] for file in _files(manifest) if size_of(folder / file["file"]) != file["bytes"]]
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise DataError(
            f"data_dir: {folder}: {', '.join(damaged[:3])}{more} {'is' if len(damaged) == 1 else 'are'} missing or "
            "truncated. Run the same pack command again: it writes only what is missing."
        )
    pixel_stats = PixelStats.from_json(manifest["colors"]) if manifest["colors"] else None
    size, encoding = manifest["plan"]["size"], manifest["plan"]["encoding"]
    layout = f"packed, {encoding} {size} x {size}"
    found = dict.fromkeys(("training", "validation"))
    for part, files in manifest["parts"].items():
        try:
            with np.load(folder / files["labels"]["file"], allow_pickle=False) as arrays:
                labels, names = arrays["labels"], PackedStrings(arrays["text"].tobytes(), arrays["ends"])
        except Exception as error:  # zipfile, zlib and NumPy raise their own kinds
            raise DataError(f"data_dir: {folder / files['labels']['file']} cannot be read ({error}).") from None
        shards = [(shard["file"], shard["images"]) for shard in files["shards"] if shard["images"]]
        reader = PackedReader(folder, shards, names, size, encoding, pixel_stats)
        found[part] = LabeledImages.whole(reader, labels, manifest["class_names"], layout)
    return found["training"], found["validation"]


def verify(folder: str | os.PathLike) -> list[tuple[str, str]]:
    """`(file name, what is wrong)` of each damaged file of a packed folder. Reads all files.

    Raises:
        DataError: it is unfinished, or of a different version.
    """
    folder = Path(folder)
    files = list(_files(read_manifest(folder)))
    damaged = []
    for file in progress(files, len(files), "verifying"):
        size = size_of(folder / file["file"])
        if size != file["bytes"]:
            damaged.append((file["file"], "is missing" if size is None else f"has {size:,} bytes of {file['bytes']:,}"))
        elif sha256_of(folder / file["file"]) != file["sha256"]:
            damaged.append((file["file"], "has a different checksum"))
    return damaged


def read_manifest(folder):
    if not (folder / MANIFEST).is_file():
        raise DataError(f"data_dir: {folder} is not packed completely. Run the same pack command again to continue.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["plan"]["version"]
        if any(os.path.basename(file["file"]) != file["file"] for file in _files(manifest)):
            raise ValueError("a file's name leads out of the folder")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"data_dir: {folder / MANIFEST} cannot be read ({error}).") from None
    if version != VERSION:
        raise DataError(f"data_dir: {folder} is packed in version {version}; this program reads {VERSION}.")
    return manifest


def _files(manifest):
    for part in manifest["parts"].values():
        yield part["labels"]
        yield from (shard for shard in part["shards"] if shard["images"])


def size_of(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
