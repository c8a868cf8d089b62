"""One writer for a folder at a time."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from alexnet import locking
from alexnet.locking import FolderLock, LockedError, is_locked

pytestmark = pytest.mark.once


def test_one_at_a_time(tmp_path):
    folder = tmp_path / "a" / "b"
    with FolderLock(folder) as lock:
        assert lock.path.is_file() and is_locked(folder)
        with (
            pytest.raises(LockedError, match=f"in use by another process .process {os.getpid()} on"),
            FolderLock(folder),
        ):
            pass
        with FolderLock(folder, ".another"):  # for a different purpose
            pass
    assert not (tmp_path / "a").exists()  # nothing was written there
    folder.mkdir(parents=True)
    (folder / "result").touch()
    with FolderLock(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["result"] and not is_locked(folder)


def test_a_killed_process_leaves_no_lock(tmp_path):
    program = "import sys, time; from alexnet.locking import FolderLock\nwith FolderLock(sys.argv[1]): time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    deadline = time.monotonic() + 30
    while not is_locked(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".lock").is_file()  # its file is still there
    with FolderLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_meanwhile(tmp_path):
    folder = tmp_path / "runs"
    with FolderLock(folder) as lock:
        shutil.rmtree(folder)
        lock.keep()
        assert is_locked(folder)
        shutil.rmtree(folder)
        with FolderLock(folder), pytest.raises(LockedError):
            lock.keep()


def test_a_lock_taken_from_a_file_that_was_removed_is_none(tmp_path, monkeypatch):
    """Between opening the file and locking it, its holder has ended and removed it."""
    real, removed = locking.fcntl.flock, []

    def flock(descriptor, operation):
        if not removed:
            removed.append((tmp_path / ".lock").unlink())
        real(descriptor, operation)

    monkeypatch.setattr(locking.fcntl, "flock", flock)
    with FolderLock(tmp_path):
        assert is_locked(tmp_path)


def test_where_there_are_no_locks(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(locking.fcntl, "flock", flock)
        with FolderLock(tmp_path):
            pass
    assert "cannot be locked (No locks available)" in caplog.text
    monkeypatch.setattr(locking, "fcntl", None)
    with FolderLock(tmp_path / "windows") as lock:
        lock.keep()
