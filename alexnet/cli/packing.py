"""`pack`."""

import shutil

from alexnet.cli.common import BAD_USAGE, FAILED, fail, value_of
from alexnet.locking import FolderLock
from alexnet.recipe import DATA_FIELDS, Recipe
from alexnet.units import format_duration, format_size

FIELDS = (*DATA_FIELDS[1:], "resize", "validation_split", "split_by", "seed", "workers", "max_skipped")


def pack(options):
    from alexnet.data import DataError, ImageError

    if options.target is None and not options.verify:
        options.parser.error("OUT, the folder to pack into, is needed")
    try:
        status = 0
        if options.target is not None:
            with FolderLock(options.target, ".lock.tmp"):  # a folder to pack into may hold files that end in .tmp
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
            f"{options.encoding}: {format_size(packing.bytes)} in all, about {format_duration(packing.seconds)}; "
            f"{format_size(free)} free",
            flush=True,
        )
    packing.run()
    summary.write(packing.folder / "passed_over.csv")
    print(f"{options.target}: {packing.num_written:,} images")
    if len(packing.skipped):
        print(f"{packing.skipped}; they are listed in {options.target}/skipped.csv")
    return 0


def _verify(folder):
    from alexnet.data.readers.packed import verify

    damaged = verify(folder)
    for file, reason in damaged:
        fail(f"{file} {reason}", FAILED)
    if damaged:
        return fail("delete the damaged files, and run the same pack command again to replace them", FAILED)
    print(f"{folder}: every file has its checksum")
    return 0
