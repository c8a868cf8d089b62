"""Where Kaggle puts things: what is attached to a notebook, and what it keeps. On other machines nothing is found.

`/kaggle/input` is read-only and has a folder, a mount, for each thing that is attached. There are two layouts:

| attached | now, below /kaggle/input | before |
|---|---|---|
| a data set | datasets/OWNER/SLUG | SLUG |
| a competition's data | competitions/SLUG | SLUG |
| another notebook's output | notebooks/OWNER/SLUG | SLUG |
| a model | models/OWNER/SLUG/FRAMEWORK/VARIATION/VERSION | SLUG/FRAMEWORK/VARIATION/VERSION |
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# Tests that cannot have a /kaggle of their own name another folder.
KAGGLE = Path(os.environ.get("ALEXNET_KAGGLE_ROOT") or "/kaggle")
INPUT, WORKING = KAGGLE / "input", KAGGLE / "working"
KINDS = ("datasets", "competitions", "notebooks", "models")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class MountError(ValueError):
    """A name that several of the attached things have, in one sentence."""


def on_kaggle() -> bool:
    """Whether this process belongs to a notebook on Kaggle."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ and WORKING.is_dir()


def find_mount(name: str) -> Path | None:
    """The file or folder that a name stands for among what is attached, None if there is none.

    Args:
        name: `slug`, `owner/slug`, or a model's `owner/slug/framework/variation/version`; a path inside may follow, as
            in `owner/slug/weights/model.keras`.

    Raises:
        MountError: several things of that name are attached.
    """
    parts = name.split("/")
    if not _SLUG.fullmatch(parts[0]) or any(part in ("", ".", "..") for part in parts):
        return None
    for places in (_with_owner(parts), _by_slug(parts)):
        # Both layouts may be there at once, one as links to the other.
        found = {os.path.realpath(place): place for place in places if os.path.exists(place)}
        if len(found) > 1:
            listed = ", ".join(sorted(map(str, found.values())))
            raise MountError(f"{name} is the name of {len(found)} attached things. Give the path of one: {listed}.")
        if found:
            return next(iter(found.values()))
    return None


def _with_owner(parts: Sequence[str]) -> Iterator[Path]:
    """Where `owner/slug/...` may be, in the layout that tells owners."""
    for kind in ("datasets", "notebooks", "models") if len(parts) > 1 else ():
        yield INPUT.joinpath(kind, *parts)
    if len(parts) > 2:
        yield INPUT.joinpath("models", *parts[:2], parts[2].lower(), *parts[3:])  # `PyTorch` is mounted as `pytorch`
    if parts[0] in KINDS and len(parts) > 1:
        yield INPUT.joinpath(*parts)


def _by_slug(parts: Sequence[str]) -> Iterator[Path]:
    """Where `slug/...` may be, or `owner/slug/...` in the layout that does not tell owners."""
    for rest in (parts, parts[1:]):
        if rest and rest[0] not in KINDS:
            yield INPUT.joinpath(*rest)
            yield INPUT.joinpath(rest[0], *map(str.lower, rest[1:2]), *rest[2:])
    yield INPUT.joinpath("competitions", *parts)
    for kind in ("datasets", "notebooks", "models"):
        yield from (owner.joinpath(*parts) for owner in _folders(INPUT / kind))


def mounts() -> list[Path]:
    """The folder of each thing that is attached, but for models."""
    new = [each for kind in ("datasets", "notebooks") for owner in _folders(INPUT / kind) for each in _folders(owner)]
    old = [each for each in _folders(INPUT) if each.name not in KINDS]
    return list({os.path.realpath(place): place for place in [*old, *new]}.values())


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except (OSError, ValueError):
        return []
