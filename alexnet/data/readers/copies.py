"""Copies of a whole data set inside or beside it, as some zips contain them: `chest_xray/chest_xray/`."""

from dataclasses import replace

import numpy as np

from alexnet.data.packed_strings import PackedStrings
from alexnet.data.readers.csv_labels import fold
from alexnet.data.readers.folder_nodes import FolderNode
from alexnet.data.source import DUPLICATES

_COMPARED = 8  # images whose bytes are compared, beside the names of all


def drop_copies(view, listing):
    """The `FileIndex` without folders that repeat the folder around or beside them under the same name, ignoring case.

    A folder is a copy if its images have the same names and, in a sample, the same bytes.
    """
    copies = _find(view, listing, FolderNode.of(listing))
    if not copies:
        return listing
    starts = np.concatenate(([0], np.cumsum(listing.counts)))
    kept, names, dropped, directories = [], [], [], []
    for place, directory in enumerate(listing.directories):
        own = [listing.names[i] for i in range(starts[place], starts[place + 1])]
        if any(f"{directory}/".startswith(f"{copy}/") for copy in copies):
            dropped += own
        else:
            directories.append(directory)
            kept.append(len(own))
            names += own
    return replace(
        listing,
        names=PackedStrings.of(names),
        directories=directories,
        counts=np.array(kept, np.int64),
        passed_over=(*listing.passed_over, (DUPLICATES, PackedStrings.of(dropped))),
    )


def _find(view, listing, root):
    """Paths of the copies."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        children = node.filled()
        alike = {}
        for child in children:
            alike.setdefault(fold(child.name), []).append(child)
        first = alike.pop(fold(node.name), []) if node.name else []
        for child in first:
            if node.total > child.total and _is_copy(view, listing, node, child):
                found.append(child.path)
        for first, *others in alike.values():
            found += [other.path for other in others if _is_copy(view, listing, first, other)]
        waiting += [child for child in children if child.path not in found and child.filled()]
    return found


def _is_copy(view, listing, node, copy):
    outer = _relative(listing, _opened(node), copy)
    inner = _relative(listing, _opened(copy))
    if outer.keys() != inner.keys():
        return False
    sample = sorted(outer)[:: max(1, len(outer) // _COMPARED)][:_COMPARED]
    first, second = (view.reader(PackedStrings.of(names[key] for key in sample)) for names in (outer, inner))
    try:
        return all(first.read(number) == second.read(number) for number in range(len(sample)))
    except OSError:
        return False


def _opened(node):
    while not node.own and len(inside := node.filled()) == 1 and fold(inside[0].name) == fold(node.name):
        node = inside[0]
    return node


def _relative(listing, node, without=None):
    """`{path below node: path}` of the images in a folder, except those in the folder `without`."""
    found, start = {}, 0
    prefix = f"{node.path}/" if node.path else ""
    for directory, count in zip(listing.directories, listing.counts.tolist(), strict=True):
        inside = f"{directory}/".startswith(prefix)
        if inside and not (without is not None and f"{directory}/".startswith(f"{without.path}/")):
            names = (listing.names[i] for i in range(start, start + count))
            found.update((name[len(prefix) :], name) for name in names)
        start += count
    return found
