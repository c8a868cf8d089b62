"""Is this installation right? What is installed, what each backend sees and computes, and what the machine has.

It changes nothing, and writes only into a temporary folder that it removes. Backends are started in processes of their
own, so that this one imports none of them.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alexnet.doctor.backends import TITLES, examine_backends
from alexnet.doctor.installed import examine_installed
from alexnet.doctor.machine import examine_machine
from alexnet.doctor.report import Check, Report
from alexnet.launching import LaunchError
from alexnet.progress import progress

__all__ = ["Check", "Report", "examine"]

TIMEOUT = 120  # seconds for each process; a first import from a slow disk takes long


def examine(run_dir: Path, backends: Sequence[str] = (), timeout: float = TIMEOUT, verbose: Any = None) -> Report:
    """Look at everything, in about a minute.

    Args:
        run_dir: Where runs would be recorded.
        backends: Those that must be there; none for all that are installed.
        timeout: Seconds that each process may take.
        verbose: As for `alexnet.progress.progress`.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the processes are ended.
    """
    began = time.monotonic()
    checks = list(progress(_checks(run_dir, backends, timeout), None, "Examining", verbose))
    groups = list(dict.fromkeys(["installed", "backends", *TITLES.values(), "machine"]))
    return Report(sorted(checks, key=lambda check: groups.index(check.group)), time.monotonic() - began)


def _checks(run_dir, backends, timeout) -> Iterator[Check]:
    with tempfile.TemporaryDirectory(prefix="alexnet-doctor-") as folder:
        try:
            yield from examine_installed(Path(folder), timeout)
            yield from examine_backends(backends, Path(folder), timeout)
        except LaunchError as error:  # Windows
            yield Check("backends", "processes", "not tried", str(error))
    yield from examine_machine(run_dir)
