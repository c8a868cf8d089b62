"""The package leaves a program's state unchanged: environment, random states, settings, warnings, memory."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

PROGRAM = Path(__file__).with_name("side_effects.py")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "TF_CPP"))}


def run(*arguments, environment=ENVIRONMENT):
    """The lines that a fresh process prints."""
    environment = {**environment, "KERAS_BACKEND": keras.backend.backend()}
    found = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout.splitlines()


@pytest.mark.slow
def test_importing_changes_nothing():
    assert run(PROGRAM, "importing") == ["import", "every name", "import_keras"]


@pytest.mark.slow
def test_using_changes_nothing(tmp_path):
    assert run(PROGRAM, "using", tmp_path)[-1] == "figures"


@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_freed_memory_goes_back_to_the_system():
    assert run(PROGRAM, "memory")[-1] == "memory"
    environment = {**ENVIRONMENT, "MALLOC_TOP_PAD_": "131072"}
    assert run(PROGRAM, "users_memory", environment=environment)[-1] == "memory"


@pytest.mark.once
def test_only_tensorflows_remarks_are_hidden(tmp_path):
    """Another thread may write to the error stream while Keras starts."""
    (tmp_path / "tensorflow.py").write_text(
        "import os\n"
        "os.write(2, b'2026-01-01 00:00:00.1: I tensorflow/core/util/port.cc:153] oneDNN\\n')\n"
        "os.write(2, b'WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n')\n"
        "os.write(2, b'I0000 00:00:17.5 1 cudart_stub.cc:31] no cuda\\n')\n"
        "os.write(2, b'To enable the following instructions: AVX2\\n')\n"
        "os.write(2, b'said by another thread\\n')\n"
    )
    program = (
        "import os\nfrom alexnet._compat import quiet_tensorflow\n"
        "with quiet_tensorflow():\n    import tensorflow\n"
        "assert 'TF_CPP_MIN_LOG_LEVEL' not in os.environ\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**ENVIRONMENT, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert (found.returncode, found.stderr) == (0, "said by another thread\n")
