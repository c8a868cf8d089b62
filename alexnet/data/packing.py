"""Writes a packed set: images are decoded once, into a few large files. Interrupted packing can be resumed."""

import contextlib
import io
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.atomic import atomic_write, remove_unfinished, write_text
from alexnet.data.bad_images import BadImages
from alexnet.data.errors import DataError, ImageError
from alexnet.data.packed_strings import PackedStrings
from alexnet.data.pixel_stats import RunningMoments
from alexnet.data.readers.packed import (
    MANIFEST,
    SPEC,
    VERSION,
    array_record_module,
    read_manifest,
    sha256_of,
    size_of,
)
from alexnet.data.source import LabeledImages
from alexnet.packages import optional
from alexnet.progress import progress
from alexnet.recipe import Recipe
from alexnet.units import format_size

SKIPPED = "skipped.csv"
ENCODINGS = ("raw", "jpeg")
QUALITY = 95
SHARD_BYTES = 2**30  # approximately; an interruption costs at most one shard
SAMPLE = 64
# Each image can be read alone, and pixels are not compressed a second time.
_WRITE_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class _Shard:
    """Images `first` to `last` of a part, and the file for those of them that can be read."""

    part: str
    file: str
    first: int
    last: int


class PackWriter:
    """Writes a packed folder. Interrupted work resumes after the last complete shard.

    Args:
        folder: Where to write; created if necessary.
        sources: `{"training": LabeledImages, "validation": LabeledImages}`.
        recipe: Its fields `resize`, `workers` and `max_skipped` are used.
        encoding: `"raw"` or `"jpeg"`.

    Attributes:
        images: How many images there are.
        remaining: How many of them are not packed yet.
        bytes: Expected size of the finished folder.
        seconds: Expected time for the remaining images.
        num_written: How many images the finished folder holds.

    Raises:
        DataError: the folder was begun with other images or parameters, or there is not enough space.
    """

    def __init__(
        self, folder: str | os.PathLike, sources: dict[str, LabeledImages], recipe: Recipe, encoding: str = "raw"
    ):
        array_record_module()
        self.folder = Path(folder)
        self.sources = sources
        self.size = recipe.resize
        self.encoding = encoding
        self.workers = recipe.workers or os.cpu_count()
        self.images = sum(map(len, sources.values()))
        unreadable = dict(row for source in sources.values() for row in source.unreadable)
        self.skipped = BadImages(self.images, recipe.max_skipped, unreadable)
        self._check_spec()
        remove_unfinished(self.folder)
        self.shards = list(self._shards())
        self._done = self._finished_shards()
        for shard_metadata in self._done.values():
            self.skipped.reasons.update((name, reason) for _, name, reason in shard_metadata["skipped"])
        self.skipped.check()
        self.remaining = sum(shard.last - shard.first for shard in self.shards if shard not in self._done)
        self.bytes = self.seconds = self.num_written = 0
        if self.remaining:
            self._estimate()

    def run(self, verbose: int | None = None) -> None:
        """Pack the remaining images.

        Raises:
            TooManyBadImagesError: too many images cannot be read.
            OSError: a file cannot be written.
        """
        remaining = [shard for shard in self.shards if shard not in self._done]
        if remaining:
            write_text(self.folder / SPEC, _json(self.spec), durable=True)
        with ThreadPoolExecutor(self.workers) as pool:
            records = progress(self._records(pool, remaining), self.remaining, "packing", verbose)
            try:
                for shard in remaining:
                    self._write(shard, records)
            finally:
                self.skipped.write(self.folder / SKIPPED)
                pool.shutdown(cancel_futures=True)
        self._write_manifest()
        for path in (self.folder / SPEC, *map(self._metadata_path, self.shards)):
            path.unlink(missing_ok=True)

    def _check_spec(self):
        """Compare what is to be packed with what was begun.

        Images are identified by their names: the folder may move, but a changed file is not noticed.
        """
        self.spec = {"version": VERSION, "size": self.size, "encoding": self.encoding, "shard_bytes": SHARD_BYTES}
        for part, source in self.sources.items():
            self.spec[part] = [len(source), source.digest()]
        if (self.folder / MANIFEST).is_file():
            begun = read_manifest(self.folder)["plan"]
        elif (self.folder / SPEC).is_file():
            begun = json.loads((self.folder / SPEC).read_text(encoding="utf-8"))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(path.suffix != ".tmp" for path in self.folder.iterdir()):
                raise DataError(f"{self.folder} holds other files; packing needs an empty folder.")
            return
        differences = [
            f"{key} {_shown(begun.get(key))}, not {_shown(self.spec.get(key))}"
            for key in {**self.spec, **begun}
            if begun.get(key) != self.spec.get(key)
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

    def _metadata_path(self, shard):
        return self.folder / f"{shard.file}.json"

    def _finished_shards(self):
        """`{shard: its metadata}` of the shards that are complete."""
        found = {}
        if (self.folder / MANIFEST).is_file():
            parts = read_manifest(self.folder)["parts"].values()
            found = {metadata["file"]: metadata for part in parts for metadata in part["shards"]}
        for shard in self.shards:
            with contextlib.suppress(FileNotFoundError):
                found[shard.file] = json.loads(self._metadata_path(shard).read_text(encoding="utf-8"))
        return {
            shard: metadata
            for shard in self.shards
            if (metadata := found.get(shard.file))
            and (not metadata["images"] or size_of(self.folder / shard.file) == metadata["bytes"])
        }

    def _estimate(self):
        """Pack a few images as a trial, and check whether the others fit on the disk."""
        part, source = next((part, source) for part, source in self.sources.items() if len(source))
        indices = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(int))
        trial = self.folder / "trial.tmp"
        with ThreadPoolExecutor(self.workers) as pool:
            source.images(indices[:1], self.size)  # the first one imports libraries
            began = time.perf_counter()
            packed = [
                p for _, p, _ in bounded_map(pool, self._pack, ((part, index) for index in indices), self.workers)
            ]
            records = [record for record in packed if not isinstance(record, ImageError)]
            try:
                _write_records(trial, records)
                self.seconds = (time.perf_counter() - began) / len(indices) * self.remaining
                each = trial.stat().st_size / max(1, len(records))
            finally:
                trial.unlink(missing_ok=True)
        if self.encoding == "raw":
            each = self.size**2 * 3 + 200  # ArrayRecord adds 164 on average
        self.bytes = int(each * self.images)
        free, needed = shutil.disk_usage(self.folder).free, int(each * self.remaining)
        if needed > free:
            raise DataError(
                f"{self.folder} has {format_size(free)} left, but {self.remaining:,} images of {self.size} x "
                f"{self.size} pixels, {self.encoding}, need {format_size(needed)}."
            )

    def _records(self, pool, shards):
        """`(index, record or ImageError, RunningMoments)` of the images in shards."""
        tasks = ((shard.part, index) for shard in shards for index in range(shard.first, shard.last))
        return bounded_map(pool, self._pack, tasks, 4 * self.workers)

    def _pack(self, task):
        part, index = task
        image = self.sources[part].images(np.array([index]), self.size)[0]
        if isinstance(image, ImageError):
            return index, image, None
        moments = RunningMoments()
        if part == "training":
            moments.add(image)
        return index, _encode(image, self.encoding), moments

    def _write(self, shard, records):
        """Write a shard from the next of `records`, then its metadata, which mark it as complete."""
        moments, left_out = RunningMoments(), []

        def readable():
            nonlocal moments
            for index, record, own in (next(records) for _ in range(shard.last - shard.first)):
                if isinstance(record, ImageError):
                    self.skipped.add(record)
                    left_out.append([index, record.name, record.reason])
                else:
                    moments = moments + own
                    yield record

        path = self.folder / shard.file
        with atomic_write(path, durable=True) as unfinished:
            num_written = _write_records(unfinished, readable())
            shard_metadata = {
                "file": shard.file,
                "images": num_written,
                "bytes": unfinished.stat().st_size,
                "sha256": sha256_of(unfinished),
                "skipped": left_out,
                "moments": moments.to_json(),
            }
        if not num_written:
            path.unlink()
        write_text(self._metadata_path(shard), _json(shard_metadata), durable=True)
        self._done[shard] = shard_metadata

    def _write_manifest(self):
        parts, moments = {}, RunningMoments()
        for part, source in self.sources.items():
            shards = [self._done[shard] for shard in self.shards if shard.part == part]
            moments = sum((RunningMoments(**shard["moments"]) for shard in shards), moments)
            kept = np.ones(len(source), bool)
            kept[[index for shard in shards for index, _, _ in shard["skipped"]]] = False
            self.num_written += int(kept.sum())
            parts[part] = {
                "images": int(kept.sum()),
                "labels": self._write_labels(part, source.take(np.flatnonzero(kept))),
                "shards": shards,
            }
        count = parts["training"]["images"] if "training" in parts else 0
        first = next(iter(self.sources.values()))
        manifest = {
            "plan": self.spec,
            "source": first.layout,
            "class_names": first.class_names,
            "colors": moments.stats(f"{count:,} training images").to_json() if count else None,
            "skipped": len(self.skipped),
            "parts": parts,
        }
        write_text(self.folder / MANIFEST, _json(manifest), durable=True)

    def _write_labels(self, part, source):
        file = f"{part}.npz"
        names = [source.name(index) for index in range(len(source))]
        root = os.path.dirname(os.path.commonprefix(names[:1] + names[-1:])) + os.sep
        names = PackedStrings.of(f"{part}/{name.removeprefix(root)}" for name in names)
        with atomic_write(self.folder / file, durable=True) as unfinished:
            np.savez(unfinished, labels=source.labels, text=np.frombuffer(names.text, np.uint8), ends=names.ends)
        return {"file": file, "bytes": size_of(self.folder / file), "sha256": sha256_of(self.folder / file)}


def _shown(value):
    """A spec's value in words; for images, a number and a checksum."""
    return f"{value[0]:,} images ({value[1][:8]})" if isinstance(value, list) else value


def _encode(image, encoding):
    if encoding == "raw":
        return image.tobytes()
    # Without subsampling: at this size it would visibly degrade the colors a second time.
    if simplejpeg := optional("simplejpeg"):
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), QUALITY, "RGB", "444")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def bounded_map(pool: ThreadPoolExecutor, function: Callable, tasks: Iterable, depth: int) -> Iterator:
    """`map` by a pool of threads, in order and at most `depth` results ahead, so that memory stays small."""
    waiting: deque = deque()
    for task in tasks:
        waiting.append(pool.submit(function, task))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_records(path, records):
    """Write a file, and return how many records it has."""
    array_record = array_record_module()
    count = 0
    try:
        writer = array_record.ArrayRecordWriter(str(path), _WRITE_OPTIONS)
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
    return count


def _json(value):
    return json.dumps(value, indent=1) + "\n"
