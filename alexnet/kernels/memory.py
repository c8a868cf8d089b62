"""Memory that a step frees is kept for the next one.

glibc gives large blocks back to the system at once and gets them anew in the next step, page by page and filled with
zeros. On two CPU cores that took a quarter to a half of a training step. So a process keeps what it once
needed, until `release`.
"""

import ctypes
import os
import sys

# The parameters' numbers in malloc.h, and their values
_SETTINGS = {
    "M_MMAP_MAX": (-4, 0),  # no block of its own for large arrays
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # and no return of free memory at the heap's end
    "M_ARENA_MAX": (-8, 1),  # one heap for all threads: what one frees another can use
}


_GLIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def keep():
    """Keep freed memory in this process, on Linux with glibc. A user's own MALLOC_... in the environment wins."""
    if not hasattr(_GLIBC, "mallopt") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    return all(_GLIBC.mallopt(*setting) for setting in _SETTINGS.values())


def release():
    """Give free memory back to the system: after a training, or after a large file."""
    if hasattr(_GLIBC, "malloc_trim"):
        _GLIBC.malloc_trim(0)
