"""Images decoded once and kept as squares in a few large files, which training reads at random."""

import bisect
import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data import decoding
from alexnet.data.bad_images import BadImages
from alexnet.data.colors import PixelStats, RunningMoments
from alexnet.data.decoding import ImageError, optional
from alexnet.data.source import DataError, LabeledImages
from alexnet.data.stores import ImageReader, PackedStrings
from alexnet.packages import install
from alexnet.progress import progress

VERSION = 1
MANIFEST, PLAN, SKIPPED = "packed.json", "plan.json", "skipped.csv"
ENCODINGS = ("raw", "jpeg")
QUALITY = 95
SHARD_BYTES = 2**30  # about; an interruption costs one shard at most
SAMPLE = 64
# Each image can be read alone, and pixels are not compressed a second time.
_WRITER = "group_size:1,uncompressed"
_READER = "readahead_buffer_size:0,max_parallelism:0"


# --- Reading


class Packed(ImageReader):
    """One part of a packed folder. Any number of threads may read it.

    Args:
        folder: Where it lies.
        shards: `(file name, images)` of each shard.
        names: `PackedStrings` that the images had.
        size: Side of the squares in pixels.
        encoding: `"raw"` or `"jpeg"`.
        colors: `PixelStats` of all training images.
    """

    def __init__(self, folder, shards, names, size, encoding, colors):
        self.folder = str(folder)
        self.names = names
        self.size = size
        self.encoding = encoding
        self.colors = colors
        self.fast = encoding == "raw"
        self._files = [file for file, _ in shards]
        self._ends = list(itertools.accumulate(images for _, images in shards))
        self._readers = [None] * len(shards)
        self._lock = threading.Lock()

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return os.path.join(self.folder, self.names[index])

    def square(self, index, size):
        """As `ImageReader.square`.

        Raises:
            DataError: `size` is larger than that of the squares.
        """
        if size > self.size:
            raise DataError(f"data_dir: {self.folder} is packed at {self.size} pixels; resize {size} asks for more.")
        record = self._read(index)
        if self.encoding == "jpeg":
            return decoding.decode_square(record, size, self.name(index))
        if len(record) != self.size**2 * 3:
            raise ImageError(self.name(index), f"is damaged: {len(record):,} bytes of {self.size**2 * 3:,}")
        pixels = np.frombuffer(record, np.uint8).reshape(self.size, self.size, 3)
        return pixels if size == self.size else decoding.array_square(pixels, size)

    def _read(self, index):
        shard = bisect.bisect_right(self._ends, index)
        place = int(index - (self._ends[shard - 1] if shard else 0))
        try:
            # One by one: that spreads over threads, and a damaged record spoils no other.
            return self._reader(shard).read([place])[0]
        except (RuntimeError, IndexError) as error:
            reason = str(error).partition(";")[0]
            raise ImageError(self.name(index), f"is damaged in {self._files[shard]} ({reason})") from None

    def _reader(self, shard):
        if self._readers[shard] is None:
            array_record = _array_record()
            with self._lock:
                if self._readers[shard] is None:
                    path = os.path.join(self.folder, self._files[shard])
                    self._readers[shard] = array_record.ArrayRecordReader(path, _READER, file_reader_buffer_size=2**16)
        return self._readers[shard]

    def close(self):
        for reader in self._readers:
            if reader is not None:
                reader.close()
        self._readers = [None] * len(self._files)


def _array_record():
    """The module that reads and writes ArrayRecord.

    Raises:
        DataError: it is missing.
    """
    module = optional("array_record.python.array_record_module")
    if module is None:
        raise DataError(f"Packed images need array_record, which is not installed. {install('array_record')}")
    return module


def is_packed(folder):
    """Whether a folder holds packed images, finished or not."""
    return any((Path(folder) / name).is_file() for name in (MANIFEST, PLAN))


def find(folder):
    """`(training, validation)` sources of a packed folder; one of them may be None.

    Raises:
        DataError: it is unfinished, of another version or not whole.
    """
    folder = Path(folder)
    _array_record()
    manifest = _read_manifest(folder)
    damaged = [file["file"] for file in _files(manifest) if _size(folder / file["file"]) != file["bytes"]]
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise DataError(
            f"data_dir: {folder}: {', '.join(damaged[:3])}{more} {'is' if len(damaged) == 1 else 'are'} missing or cut "
            "off; the same pack command writes only what is missing."
        )
    colors = PixelStats.from_json(manifest["colors"]) if manifest["colors"] else None
    size, encoding = manifest["plan"]["size"], manifest["plan"]["encoding"]
    kind = f"packed, {encoding} {size} x {size}"
    found = dict.fromkeys(("training", "validation"))
    for part, files in manifest["parts"].items():
        try:
            with np.load(folder / files["labels"]["file"], allow_pickle=False) as arrays:
                labels, names = arrays["labels"], PackedStrings(arrays["text"].tobytes(), arrays["ends"])
        except Exception as error:  # zipfile, zlib and NumPy have their own
            raise DataError(f"data_dir: {folder / files['labels']['file']} cannot be read ({error}).") from None
        shards = [(shard["file"], shard["images"]) for shard in files["shards"] if shard["images"]]
        store = Packed(folder, shards, names, size, encoding, colors)
        found[part] = LabeledImages.whole(store, labels, manifest["class_names"], kind)
    return found["training"], found["validation"]


def verify(folder):
    """`(file name, what is wrong)` of each damaged file of a packed folder, found by reading all of them.

    Raises:
        DataError: it is unfinished or of another version.
    """
    folder = Path(folder)
    files = list(_files(_read_manifest(folder)))
    damaged = []
    for file in progress(files, len(files), "verifying"):
        size = _size(folder / file["file"])
        if size != file["bytes"]:
            damaged.append((file["file"], "is missing" if size is None else f"has {size:,} bytes of {file['bytes']:,}"))
        elif _sha256(folder / file["file"]) != file["sha256"]:
            damaged.append((file["file"], "has another checksum"))
    return damaged


def _read_manifest(folder):
    if not (folder / MANIFEST).is_file():
        raise DataError(f"data_dir: {folder} is not packed to its end; the same pack command goes on with it.")
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


# --- Writing


@dataclass(frozen=True)
class _Shard:
    """Images `first` to `last` of a part, and the file that they go to, without those that cannot be read."""

    part: str
    file: str
    first: int
    last: int


class PackWriter:
    """A packed folder in the making; what was interrupted goes on after the last whole shard.

    Args:
        folder: Where it goes; made if need be.
        sources: `{"training": LabeledImages, "validation": LabeledImages}`.
        recipe: Of its fields `resize`, `workers` and `max_skipped` matter.
        encoding: `"raw"` or `"jpeg"`.

    Attributes:
        images: How many there are.
        left: How many of them are not packed yet.
        bytes: Expected size of the whole.
        seconds: Expected time for what is left.
        written: How many images the finished folder holds.

    Raises:
        DataError: other images or other parameters than the folder's, or not enough space.
    """

    def __init__(self, folder, sources, recipe, encoding="raw"):
        _array_record()
        self.folder = Path(folder)
        self.sources = sources
        self.size = recipe.resize
        self.encoding = encoding
        self.workers = recipe.workers or os.cpu_count()
        self.images = sum(map(len, sources.values()))
        unreadable = dict(row for source in sources.values() for row in source.unreadable)
        self.skipped = BadImages(self.images, recipe.max_skipped, unreadable)
        self._plan()
        self.shards = list(self._shards())
        self._done = self._whole_shards()
        for note in self._done.values():
            self.skipped.reasons.update((name, reason) for _, name, reason in note["skipped"])
        self.skipped.check()
        self.left = sum(shard.last - shard.first for shard in self.shards if shard not in self._done)
        self.bytes = self.seconds = self.written = 0
        if self.left:
            self._estimate()

    def run(self, verbose=None):
        """Pack what is left.

        Raises:
            TooManyBadImagesError: too many images cannot be read.
            OSError: a file cannot be written.
        """
        left = [shard for shard in self.shards if shard not in self._done]
        if left:
            _write_whole(self.folder / PLAN, _json(self.plan))
        with ThreadPoolExecutor(self.workers) as pool:
            squares = progress(self._packed(pool, left), self.left, "packing", verbose)
            try:
                for shard in left:
                    self._write(shard, squares)
            finally:
                self.skipped.write(self.folder / SKIPPED)
                pool.shutdown(cancel_futures=True)
        self._write_manifest()
        for path in (self.folder / PLAN, *map(self._note, self.shards)):
            path.unlink(missing_ok=True)

    def _plan(self):
        """What is packed here, compared with the note of what was begun.

        Files are known by their names: the folder may move, but a file that changes is not noticed.
        """
        self.plan = {"version": VERSION, "size": self.size, "encoding": self.encoding, "shard_bytes": SHARD_BYTES}
        for part, source in self.sources.items():
            self.plan[part] = [len(source), source.digest()]
        if (self.folder / MANIFEST).is_file():
            noted = _read_manifest(self.folder)["plan"]
        elif (self.folder / PLAN).is_file():
            noted = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(path.suffix != ".tmp" for path in self.folder.iterdir()):
                raise DataError(f"{self.folder} holds something else; an empty folder is needed to pack into.")
            return
        differences = [
            f"{key} {_shown(noted.get(key))}, not {_shown(self.plan.get(key))}"
            for key in {**self.plan, **noted}
            if noted.get(key) != self.plan.get(key)
        ]
        if differences:
            raise DataError(f"{self.folder} was begun with {'; '.join(differences)}. Choose another folder.")

    def _shards(self):
        each = max(1, SHARD_BYTES // (self.size**2 * 3)) * (8 if self.encoding == "jpeg" else 1)
        for part, source in self.sources.items():
            count = math.ceil(len(source) / each)
            for k in range(count):
                file = f"{part}-{k:05d}-of-{count:05d}.array_record"
                yield _Shard(part, file, len(source) * k // count, len(source) * (k + 1) // count)

    def _note(self, shard):
        return self.folder / f"{shard.file}.json"

    def _whole_shards(self):
        """What was noted of each shard that is whole."""
        notes = {}
        if (self.folder / MANIFEST).is_file():
            parts = _read_manifest(self.folder)["parts"].values()
            notes = {note["file"]: note for part in parts for note in part["shards"]}
        for shard in self.shards:
            with contextlib.suppress(FileNotFoundError):
                notes[shard.file] = json.loads(self._note(shard).read_text(encoding="utf-8"))
        return {
            shard: note
            for shard in self.shards
            if (note := notes.get(shard.file))
            and (not note["images"] or _size(self.folder / shard.file) == note["bytes"])
        }

    def _estimate(self):
        """Pack a few images for trial, and see whether all the others fit onto the disk."""
        part, source = next((part, source) for part, source in self.sources.items() if len(source))
        indices = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(int))
        trial = self.folder / "trial.tmp"
        with ThreadPoolExecutor(self.workers) as pool:
            source.squares(indices[:1], self.size)  # the first one imports libraries
            began = time.perf_counter()
            packed = [p for _, p, _ in _ahead(pool, self._pack, ((part, index) for index in indices), self.workers)]
            records = [record for record in packed if not isinstance(record, ImageError)]
            try:
                _write_records(trial, records)
                self.seconds = (time.perf_counter() - began) / len(indices) * self.left
                each = trial.stat().st_size / max(1, len(records))
            finally:
                trial.unlink(missing_ok=True)
        if self.encoding == "raw":
            each = self.size**2 * 3 + 200  # ArrayRecord adds 164 on average
        self.bytes = int(each * self.images)
        free, needed = shutil.disk_usage(self.folder).free, int(each * self.left)
        if needed > free:
            raise DataError(
                f"{self.folder} has {free / 1e9:,.1f} GB left, and {needed / 1e9:,.1f} GB are needed for "
                f"{self.left:,} images of {self.size} x {self.size} pixels, {self.encoding}."
            )

    def _packed(self, pool, shards):
        """`(index, record or ImageError, RunningMoments)` of the images in shards."""
        tasks = ((shard.part, index) for shard in shards for index in range(shard.first, shard.last))
        return _ahead(pool, self._pack, tasks, 4 * self.workers)

    def _pack(self, task):
        part, index = task
        square = self.sources[part].squares(np.array([index]), self.size)[0]
        if isinstance(square, ImageError):
            return index, square, None
        moments = RunningMoments()
        if part == "training":
            moments.add(square)
        return index, _encode(square, self.encoding), moments

    def _write(self, shard, squares):
        """Write a shard with the next of `squares`, and then the note that it is whole."""
        moments, left_out = RunningMoments(), []

        def records():
            nonlocal moments
            for index, record, own in (next(squares) for _ in range(shard.last - shard.first)):
                if isinstance(record, ImageError):
                    self.skipped.add(record)
                    left_out.append([index, record.name, record.reason])
                else:
                    moments = moments + own
                    yield record

        path = self.folder / shard.file
        unfinished = path.with_name(path.name + ".tmp")
        written = _write_records(unfinished, records())
        note = {
            "file": shard.file,
            "images": written,
            "bytes": unfinished.stat().st_size,
            "sha256": _sha256(unfinished),
            "skipped": left_out,
            "moments": moments.to_json(),
        }
        if written:
            os.replace(unfinished, path)
            _sync(self.folder)
        else:
            unfinished.unlink()
        _write_whole(self._note(shard), _json(note))
        self._done[shard] = note

    def _write_manifest(self):
        parts, moments = {}, RunningMoments()
        for part, source in self.sources.items():
            notes = [self._done[shard] for shard in self.shards if shard.part == part]
            moments = sum((RunningMoments(**note["moments"]) for note in notes), moments)
            kept = np.ones(len(source), bool)
            kept[[index for note in notes for index, _, _ in note["skipped"]]] = False
            self.written += int(kept.sum())
            parts[part] = {
                "images": int(kept.sum()),
                "labels": self._write_labels(part, source.take(np.flatnonzero(kept))),
                "shards": notes,
            }
        count = parts["training"]["images"] if "training" in parts else 0
        first = next(iter(self.sources.values()))
        manifest = {
            "plan": self.plan,
            "source": first.kind,
            "class_names": first.class_names,
            "colors": moments.colors(f"{count:,} training images").to_json() if count else None,
            "skipped": len(self.skipped),
            "parts": parts,
        }
        _write_whole(self.folder / MANIFEST, _json(manifest))

    def _write_labels(self, part, source):
        file = f"{part}.npz"
        names = [source.name(index) for index in range(len(source))]
        root = os.path.dirname(os.path.commonprefix(names[:1] + names[-1:])) + os.sep
        names = PackedStrings.of(f"{part}/{name.removeprefix(root)}" for name in names)
        unfinished = self.folder / f"{file}.tmp"
        with unfinished.open("wb") as stream:
            np.savez(stream, labels=source.labels, text=np.frombuffer(names.text, np.uint8), ends=names.ends)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, self.folder / file)
        return {"file": file, "bytes": _size(self.folder / file), "sha256": _sha256(self.folder / file)}


def _shown(value):
    """A plan's value in words; images are a number and a checksum."""
    return f"{value[0]:,} images ({value[1][:8]})" if isinstance(value, list) else value


def _encode(square, encoding):
    if encoding == "raw":
        return square.tobytes()
    # Without subsampling: at this size colours would visibly suffer a second time.
    if simplejpeg := optional("simplejpeg"):
        return simplejpeg.encode_jpeg(np.ascontiguousarray(square), QUALITY, "RGB", "444")
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def _ahead(pool, function, tasks, depth):
    """`map` by a pool of threads in order, never more than `depth` results ahead: memory stays small."""
    waiting = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_records(path, records):
    """Write a file that is safely on the disk when this returns; how many records it has."""
    array_record = _array_record()
    count = 0
    try:
        writer = array_record.ArrayRecordWriter(str(path), _WRITER)
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            writer.close()
    except ImageError:
        raise
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written ({error})") from None
    _sync(path)
    return count


def _write_whole(path, text):
    """Write a file so that it is whole or not there."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    _sync(path.parent)


def _sync(path):
    """Have the system put a file, or a folder's list of files, onto the disk."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _json(value):
    return json.dumps(value, indent=1) + "\n"


def _size(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
