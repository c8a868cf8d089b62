"""Ends the processes that a process has started when it is killed itself and can end nothing any more."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_SECONDS = 10  # for killed processes to be gone: a large one gives its memory back first


@contextlib.contextmanager
def watch(*folders, keep=()):
    """Start a watcher: a process that outlives this one. The end of its input is the end of this process, however that
    came about.

    Yields a function that tells it what runs: `tell("+123")` when process 123, the leader of a group, has been started,
    and `tell("-123")` when it has ended. When this process dies, the groups that are left are killed, with all that
    their leaders have started in groups of their own, such as the kernel of a notebook.

    Args:
        folders: Removed after groups were killed.
        keep: Descriptors that stay open until then, so that a lock is not free before the killed processes are gone.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, *map(str, folders)],  # -P: the files beside this one are no modules
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=keep,
        text=True,
    )

    def tell(line):
        with contextlib.suppress(OSError):  # somebody killed it
            process.stdin.write(line + "\n")
            process.stdin.flush()

    try:
        yield tell
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()


def _watch(lines, folders):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups = set()
    for line in lines:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    if groups:
        _kill(groups)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _kill(groups):
    processes = [process for group in groups for process in _descendants(group)]
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(Exception):  # it has ended
            process.kill()
    end = time.monotonic() + _SECONDS
    while any(map(_lives, processes)) and time.monotonic() < end:
        time.sleep(0.02)


def _descendants(pid):
    try:
        import psutil

        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except Exception:  # the leader has ended, or psutil is broken: its group is killed all the same
        return []


def _lives(process):
    try:
        return process.is_running() and process.status() != "zombie"
    except Exception:
        return False


if __name__ == "__main__":
    _watch(sys.stdin, [Path(name) for name in sys.argv[1:]])
