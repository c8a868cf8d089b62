"""The state of an unfinished run on disk: whole or not there, and the last two are kept."""

import contextlib
import errno
import json
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.training.stopping import RunError

logger = logging.getLogger(__name__)

MAX_TO_KEEP = 2


@dataclass
class Checkpoint:
    """A saved state.

    Attributes:
        path: The file.
        progress: What is not an array, as JSON has it.
    """

    path: Path
    progress: dict

    def arrays(self):
        """The saved arrays by name."""
        with np.load(self.path, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files if name != "progress"}


class CheckpointManager:
    """The folder `saves/` of a run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder):
        self.folder = Path(folder) / "saves"

    def write(self, step, progress, arrays):
        """Write a state so that a kill at any moment leaves the earlier ones or this one, never half of it.

        Args:
            step: Its number in the whole run, for the file's name.
            progress: Anything that JSON holds.
            arrays: NumPy arrays by name.

        Raises:
            OSError: the disk is full, or the folder cannot be written. Earlier states stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:09d}.npz"
        unfinished = path.with_suffix(".tmp")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, progress=json.dumps(progress), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        _flush_folder(self.folder)
        earlier = [other for other in self._paths() if other != path]
        for old in [*earlier[MAX_TO_KEEP - 1 :], *self.folder.glob("step-*.tmp")]:  # and what a kill has left
            old.unlink(missing_ok=True)

    def newest(self, most=None):
        """The newest `Checkpoint` that is whole, or None where there is no file at all. Damaged ones are said to be.

        Args:
            most: The largest step that is wanted; None for any.

        Raises:
            RunError: there are files, and none can be used. They are not touched.
        """
        paths = [path for path in self._paths() if most is None or number(path) <= most]
        for path in paths:
            try:
                with np.load(path, allow_pickle=False) as saved:
                    if saved.zip.testzip() is None:
                        return Checkpoint(path, json.loads(str(saved["progress"])))
            except OSError as error:
                if error.errno not in (None, errno.EINVAL):  # not the file's fault: it may be whole
                    raise RunError(f"{path} cannot be read ({error.strerror}).") from None
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass
            logger.warning(f"{path} is damaged.")
        if paths:
            raise RunError(f"No state in {self.folder} is whole. Set resume to false to begin afresh.")
        return None

    def clear(self):
        """Remove all states."""
        with contextlib.suppress(FileNotFoundError):
            for path in [*self.folder.glob("step-*.npz"), *self.folder.glob("step-*.tmp")]:
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _paths(self):
        """Files of states, the latest first."""
        return sorted(self.folder.glob("step-*.npz"), key=number, reverse=True)


def number(path):
    """The step in the name of a state's file."""
    return int(path.stem.partition("-")[2])


def _flush_folder(folder):
    """Make a rename last through a loss of power, where the system knows how."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
