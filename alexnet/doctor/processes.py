"""Questions that are answered in a process of its own: a backend that crashes or hangs takes only that one with it."""

import contextlib
import io
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.launching import TIMED_OUT, launch

WORKER = "import sys; from alexnet.doctor.worker import main; main(*sys.argv[1:])"
# A process is alone, whatever started this one; and it takes no more of a GPU's memory than it needs, because somebody
# may be training there.
ALONE = {"WORLD_SIZE": "", "KERAS_DISTRIBUTION_NUM_PROCESSES": ""}
ALONE |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}
_GRACE = 3  # seconds between SIGTERM and SIGKILL
_LONGEST = 300  # characters of a last line that are shown


@dataclass(frozen=True)
class Answer:
    """How a process ended.

    Attributes:
        failure: None if it ended well, otherwise how it ended, with the last line that it printed.
        folder: Where it left what it found.
    """

    failure: str | None
    folder: Path

    def read(self, name: str) -> Any:
        """What it wrote as `name`.json; None if it did not come so far."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None


def ask(
    task: str, *arguments: str, folder: Path, timeout: float, backend: str = "", on_cpu: bool = False, **more: str
) -> Answer:
    """Let a process do a task of `worker.py`.

    Args:
        task: The name of a function there.
        arguments: Of that function, after the folder.
        folder: Where it writes.
        timeout: Seconds after which it is ended.
        backend: The backend that Keras starts on there.
        on_cpu: Whether GPUs are hidden from it.
        more: Further variables of its environment.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
        LaunchError: this system has no process groups.
    """
    environment = {
        **ALONE,
        **dict(_kept_out_of_home(folder)),
        **(ON_CPU if on_cpu else {}),
        "KERAS_BACKEND": backend,
        **more,
    }
    output, remarks = io.BytesIO(), io.StringIO()
    command = [sys.executable, "-c", WORKER, task, str(folder), *arguments]
    with contextlib.redirect_stderr(remarks):  # what the launcher says of ranks
        status = launch(command, [environment], timeout=timeout, grace=_GRACE, output=output)
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM) and "waiting up to" in remarks.getvalue():
        stop = KeyboardInterrupt()
        stop.status = status  # type: ignore[attr-defined]
        raise stop
    return Answer(_failure(status, timeout, output.getvalue().decode(errors="replace")), folder)


def _kept_out_of_home(folder):
    """Keras writes its settings and matplotlib a list of fonts into the user's home where there are none."""
    home = Path.home()
    if not (Path(os.environ.get("KERAS_HOME") or home / ".keras") / "keras.json").exists():
        yield "KERAS_HOME", str(folder)
    caches = (Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "matplotlib", home / ".matplotlib")
    if "MPLCONFIGDIR" not in os.environ and not any(cache.exists() for cache in caches):
        yield "MPLCONFIGDIR", str(folder)


def _failure(status, timeout, output):
    if status == 0:
        return None
    how = f"ended with exit status {status}"
    if status == TIMED_OUT:
        how = f"did not end within {timeout:g} s"
    elif status > 128:
        with contextlib.suppress(ValueError):
            how = f"was killed by {signal.Signals(status - 128).name}"
    lines = [re.sub(r"^(\[\d+\] )+", "", line).strip() for line in output.splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return f"{how}; its last line: {last[:_LONGEST]}" if last else f"{how} and printed nothing"
