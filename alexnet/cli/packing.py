"""`pack`."""

import shutil

from alexnet.cli.common import BAD_USAGE, FAILED, fail, value_of
from alexnet.locking import FolderLock
from alexnet.recipe import DATA_FIELDS, Recipe

FIELDS = (*DATA_FIELDS[1:], "resize", "validation_split", "split_by", "seed", "workers", "max_skipped")


def pack(options):
    from alexnet.data import DataError, ImageError

    if options.target is None and not options.verify:
        options.parser.error("OUT is needed, the folder to pack into")
    try:
        status = 0
        if options.target is not None:
            with FolderLock(options.target, ".lock.tmp"):  # what ends so may lie in a folder to pack into
                status = _pack(options)
        return status or (_verify(options.target or options.source) if options.verify else 0)
    except DataError as error:
        return fail(error, BAD_USAGE)
    except (ImageError, OSError) as error:
        return fail(error, FAILED)


def _pack(options):
    from alexnet.data.packing import PackWriter
    from alexnet.data.readers import find_sources
    from alexnet.data.summary import Summary

    given = {name: getattr(options, name) for name in FIELDS if getattr(options, name) is not None}
    recipe = Recipe(**{"resize": 256, **given, "data_dir": value_of("data_dir", options.source)})
    training, validation = find_sources(recipe)
    summary = Summary.of(recipe.data_dir, training=training, validation=validation)
    print(summary, flush=True)
    packing = PackWriter(options.target, {"training": training, "validation": validation}, recipe, options.encoding)
    if packing.remaining:
        free = shutil.disk_usage(options.target).free
        print(
            f"{packing.remaining:,} of {packing.images:,} images to pack, {packing.size} x {packing.size} pixels, "
            f"{options.encoding}: {packing.bytes / 1e9:,.1f} GB in all, about {_duration(packing.seconds)}; "
            f"{free / 1e9:,.1f} GB are free",
            flush=True,
        )
    packing.run()
    summary.write(packing.folder / "passed_over.csv")
    print(f"{options.target}: {packing.num_written:,} images")
    if len(packing.skipped):
        print(f"{packing.skipped}; they are listed in {options.target}/skipped.csv")
    return 0


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _verify(folder):
    from alexnet.data.readers.packed import verify

    damaged = verify(folder)
    for file, reason in damaged:
        fail(f"{file} {reason}", FAILED)
    if damaged:
        return fail("delete what is damaged; the same pack command writes it again", FAILED)
    print(f"{folder}: every file has its checksum")
    return 0
