"""One writer at a time for a folder. The system drops the lock with the process, so that a crash leaves none."""

import contextlib
import logging
import os
import platform
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# Somebody may remove the file between its opening and its locking, but not every time.
_ATTEMPTS = 100


class LockedError(RuntimeError):
    """Another process writes into the folder; one sentence."""


class FolderLock:
    """The exclusive right to write into a folder, as a context manager.

    A small file in the folder shows the lock, and is removed with it. If a killed process leaves the file behind, it
    locks nothing.

    Args:
        folder: The folder; made if it is not there, and removed again if it is still empty at the end.
        name: The file; locks of different names do not exclude each other.

    Raises:
        LockedError: another process or thread holds it.
        OSError: the folder cannot be written.

    Example:
        with FolderLock("runs/mine/jax"):
            ...
    """

    def __init__(self, folder, name=".lock"):
        self.path = Path(os.path.expanduser(folder)) / name
        self._descriptor = None
        self._recognizable = True  # whether an open file and its path have the same number here
        self._made = []

    def __enter__(self):
        self._make_folder()
        try:
            self._acquire()
        except BaseException:
            self._remove_folders()
            raise
        return self

    def __exit__(self, *_):
        if self._descriptor is not None:
            if self._is_there():
                self.path.unlink(missing_ok=True)
            self._close()
        self._remove_folders()

    def keep(self):
        """Lock the folder again if it was removed meanwhile.

        Raises:
            LockedError: another process was faster.
        """
        if self._descriptor is not None and not self._is_there():
            self._close()
            self._make_folder()
            self._acquire()

    def fileno(self):
        """The locked file, or None where nothing can be locked. A process that inherits it keeps the lock as well."""
        return self._descriptor

    def _acquire(self):
        attempts = 0
        while fcntl is not None and self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self._descriptor, 200).decode(errors="replace").strip()
                self._close()
                who = f" ({holder})" if holder else ""
                raise LockedError(f"{self.path.parent} is in use by another process{who}.") from None
            except OSError as error:
                self._recognizable = self._is_there()
                self._warn(error.strerror)
                return
            if not self._is_there():  # the last process that held it has removed it since
                attempts += 1
                self._recognizable = attempts < _ATTEMPTS
                if not self._recognizable:  # a file system that numbers its files anew at each look
                    self._warn("it does not recognize its own files")
                    return
                self._close()
        if self._descriptor is not None:
            # The process's name is only for information: a full disk is no reason to stop.
            with contextlib.suppress(OSError):
                os.truncate(self._descriptor, 0)
                os.write(self._descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())

    def _warn(self, reason):
        logger.warning(f"{self.path.parent} cannot be locked ({reason}): see that nothing else writes there.")

    def _is_there(self):
        if not self._recognizable:
            return True
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    def _close(self):
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # closing alone leaves it to children of this process
        os.close(self._descriptor)
        self._descriptor = None

    def _make_folder(self):
        folder = self.path.parent
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += missing

    def _remove_folders(self):
        with contextlib.suppress(OSError):  # not empty, or gone
            for folder in self._made:
                folder.rmdir()


def is_locked(folder, name=".lock"):
    """Whether a folder is locked now."""
    if not (Path(folder) / name).is_file():
        return False
    try:
        with FolderLock(folder, name):
            return False
    except (LockedError, OSError):
        return True
