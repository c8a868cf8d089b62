"""Run directories at a URL, through fsspec: what lies there is copied to a folder of this machine, and back."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from alexnet.atomic import PREFIX, SUFFIX
from alexnet.studies.errors import BatchError, MirrorError

_PROBE = ".alexnet-batch"


class Mirror:
    """A folder of this machine that holds a part of what lies at a URL.

    Args:
        url: `run_dir` as fsspec takes it, such as `s3://bucket/runs`. Credentials are those that fsspec finds.
        folder: The folder on this machine.

    Raises:
        MirrorError: there is no such protocol, or its package is missing.
    """

    def __init__(self, url: str, folder: Path):
        from fsspec.core import url_to_fs

        self.url, self.folder = url, folder
        self._seen: dict[str, tuple[int, int]] = {}  # name: size and time, as they are here and there
        try:
            self._system, root = url_to_fs(url)
        except Exception as error:  # of many packages
            raise MirrorError(_sentence(url, error)) from None
        self._root = root.rstrip("/")

    def fetch(self, place: str, names: Iterable[str] | None = None) -> None:
        """Copy a folder at the URL to this machine; nothing if it is not there.

        Args:
            place: The folder, relative to the URL, such as `default/jax`.
            names: The only files in it to copy, relative to it; None for all.

        Raises:
            MirrorError: something cannot be read, or is called such that it would lie outside the folder.
        """
        wanted = None if names is None else {f"{place}/{name}" for name in names}
        try:
            self._system.invalidate_cache()
            for path in self._system.find(f"{self._root}/{place}"):
                name = _inside(self._root, path)
                if wanted is None or name in wanted:
                    target = self.folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._system.get_file(path, str(target))
                    self._seen[name] = _state(target)
        except FileNotFoundError:  # some file systems say so of a folder
            return
        except MirrorError:
            raise
        except Exception as error:
            raise MirrorError(_sentence(self.url, error)) from None

    def put(self, place: str, last: Iterable[str] = ()) -> None:
        """Make a folder at the URL what it is here: copy the files that have changed since, remove those that are gone.

        Args:
            place: The folder.
            last: Files in it, relative to it, that are copied after all others, because they say that a run has ended.

        Raises:
            MirrorError: something cannot be written. What is here stays.
        """
        ending = [f"{place}/{name}" for name in last]
        here = dict(_files(self.folder, place))
        changed = [name for name, state in here.items() if self._seen.get(name) != state]
        gone = [name for name in self._seen if name.startswith(f"{place}/") and name not in here]
        try:
            for name in sorted(changed, key=lambda name: (name in ending, name)):
                try:
                    self._put_file(name)
                except FileNotFoundError:  # the run has removed it meanwhile
                    if (self.folder / name).exists():
                        raise
                else:
                    self._seen[name] = here[name]
            for name in gone:
                self._system.rm_file(f"{self._root}/{name}")
                del self._seen[name]
        except Exception as error:
            raise MirrorError(_sentence(self.url, error)) from None

    def check(self) -> None:
        """Write a small file at the URL and remove it, so that nobody waits for results that cannot be kept.

        Raises:
            MirrorError: that fails.
        """
        try:
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(f"{self._root}/{_PROBE}", b"")
            self._system.rm_file(f"{self._root}/{_PROBE}")
        except Exception as error:
            raise MirrorError(_sentence(self.url, error)) from None

    def _put_file(self, name):
        target = f"{self._root}/{name}"
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(self.folder / name), target)


def check_url(url: str, engine: str) -> None:
    """Refuse a `run_dir` that cannot be used.

    Raises:
        BatchError: its protocol is unknown, its package is missing, or it cannot be written.
    """
    protocol = url.partition("://")[0]
    if protocol == "memory" and engine != "local":
        raise BatchError(
            f"run_dir: {url} is the memory of one process, and the runs of --engine {engine} are in several; name a "
            "URL that all of them see."
        )
    try:
        Mirror(url, Path()).check()
    except MirrorError as error:
        raise BatchError(str(error)) from None


def _inside(root: str, path: str) -> str:
    """The name of a file in a listing, relative to the root. Listings are data of others: no name may lead outside."""
    name = path.removeprefix(root).lstrip("/")
    parts = PurePosixPath(name).parts
    forbidden = set("\\:\0") if os.name == "nt" else {"\0"}
    if not path.startswith(f"{root}/") or not parts or any(part == ".." or set(part) & forbidden for part in parts):
        raise MirrorError(f"run_dir: {path!r} in the listing of {root} is not a name that a run's file has.")
    return "/".join(parts)


def _files(folder: Path, place: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The files of a run and their states; neither locks nor what is still being written."""
    for path in sorted((folder / place).rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(PREFIX) and part.endswith(SUFFIX) for part in parts) or path.suffix == ".lock":
            continue
        try:
            if path.is_file() and not path.is_symlink() and path.name != ".lock":
                yield "/".join(parts), _state(path)
        except FileNotFoundError:
            pass


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _sentence(url: str, error: Any) -> str:
    said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return f"run_dir: {url} cannot be used ({said})."
