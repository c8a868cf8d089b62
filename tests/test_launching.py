"""Processes that are started and ended together; small programs stand for training."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet import launching
from alexnet.cli import main
from alexnet.launching import LaunchError, launch, launch_on_loopback, process_environment

pytestmark = [pytest.mark.once, pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")]
ROOT = Path(__file__).resolve().parents[1]
RANK = "import os, signal, subprocess, sys, time\nrank = os.environ['RANK']\n"
RANKS = [{"RANK": "0"}, {"RANK": "1"}]


def python(program):
    return [sys.executable, "-S", "-c", RANK + program]


def start(program, environments=RANKS, **options):
    """Status and lines of a launch in this process."""
    output = io.BytesIO()
    status = launch(python(program), environments, output=output, **options)
    return status, output.getvalue().decode().splitlines()


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def launcher(program, **options):
    """A launch in a process of its own, which can be sent signals."""
    code = f"import sys; from alexnet.launching import launch; sys.exit(launch({python(program)!r}, {RANKS!r}, "
    code += f"**{options!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_lines_are_whole_and_begin_with_the_rank():
    program = """
for i in range(200):
    os.write(1, b"out " + b"x" * 50)
    os.write(2, b" %d\\n" % i)
for i in range(3):
    os.write(1, b"\\rstep %d" % i)
os.write(1, b"\\nwindows\\r\\nlast")
"""
    status, lines = start(program)
    assert status == 0
    for rank in "01":
        mine = [line[4:] for line in lines if line.startswith(f"[{rank}] ")]
        assert mine == [f"out {'x' * 50} {i}" for i in range(200)] + ["step 2", "windows", "last"]
    assert len(lines) == 2 * 203


def test_the_first_failure_ends_the_others(capfd, tmp_path):
    """One that heeds SIGTERM saves; one that ignores it is killed, and what each has started as well."""
    program = f"""
if rank == "0":
    while len(os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.01)
    print("no memory"); sys.exit(7)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
def save(*_):
    print("saved", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, save if rank == "1" else signal.SIG_IGN)
open(os.path.join({str(tmp_path)!r}, rank + "." + str(child.pid)), "w").close()
time.sleep(60)
"""
    began = time.monotonic()
    status, lines = start(program, [*RANKS, {"RANK": "2"}], grace=0.5)
    assert status == 7 and time.monotonic() - began < 10
    assert sorted(lines) == ["[0] no memory", "[1] saved"]
    said = capfd.readouterr().err
    assert said == "Rank 0 ended with exit status 7; ending ranks 1, 2.\nKilling rank 2.\n"
    for path in tmp_path.iterdir():
        wait_until(lambda pid=int(path.suffix[1:]): not is_running(pid))


def test_a_process_that_a_signal_killed_is_named(capfd):
    status, _ = start("os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else time.sleep(60)")
    assert status == 128 + signal.SIGKILL
    assert capfd.readouterr().err == "Rank 1 ended with SIGKILL; ending rank 0.\n"


def test_the_time_limit(capfd):
    status, _ = start("time.sleep(60)", timeout=0.3)
    assert status == 124 and "The time limit of 0.3 s has passed" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on(number):
    program = f"""
def save(number, frame):
    time.sleep(0.2); print("saved", number, flush=True); sys.exit(0)
signal.signal({int(number)}, save)
print("ready", flush=True)
time.sleep(60)
"""
    with launcher(program) as process:
        assert [process.stdout.readline()[3:] for _ in RANKS] == [" ready\n"] * 2
        process.send_signal(number)
        said, errors = process.communicate(timeout=20)
    assert sorted(said.splitlines()) == [f"[0] saved {int(number)}", f"[1] saved {int(number)}"]
    assert process.returncode == 128 + number
    assert errors == f"{signal.Signals(number).name}: waiting up to 30 s for the processes to save.\n"


def test_a_second_signal_kills_at_once():
    program = "signal.signal(signal.SIGINT, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    with launcher(program) as process:
        pids = [int(process.stdout.readline()[4:]) for _ in RANKS]
        process.send_signal(signal.SIGINT)
        assert "waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Killing ranks 0, 1." in errors
    assert not any(map(is_running, pids))


def test_a_killed_launcher_leaves_nothing_running():
    program = "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
    program += "print(os.getpid(), child.pid, flush=True)\ntime.sleep(60)"
    with launcher(program) as process:
        pids = [int(word) for _ in RANKS for word in process.stdout.readline()[4:].split()]
        assert len(pids) == 4 and all(map(is_running, pids))
        process.kill()
        wait_until(lambda: not any(map(is_running, pids)))


def test_output_that_cannot_be_written_ends_the_processes(capfd):
    class Closed(io.BytesIO):
        def write(self, text):
            raise BrokenPipeError

    program = "print('x', flush=True); time.sleep(60)"
    assert launch(python(program), RANKS, output=Closed()) == 1
    assert "The output can no longer be written" in capfd.readouterr().err


def test_environment_of_pytorch_is_that_of_torchrun(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launching, "cores", lambda: 7)
    assert process_environment("torch", 1, 2, 2345) == {
        "KERAS_BACKEND": "torch",
        "PYTHONUNBUFFERED": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "2345",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "3",
    }
    assert process_environment("torch", 0, 20, 2345)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in process_environment("torch", 1, 2, 2345)


def test_environment_of_jax_is_that_of_keras(monkeypatch):
    monkeypatch.delenv("JAX_LOCAL_DEVICE_IDS", raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(launching, "cores", lambda: 7)
    assert process_environment("jax", 1, 2, 2345) == {
        "KERAS_BACKEND": "jax",
        "PYTHONUNBUFFERED": "1",
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": "127.0.0.1:2345",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
        "KERAS_DISTRIBUTION_PROCESS_ID": "1",
        "JAX_COORDINATOR_BIND_ADDRESS": "127.0.0.1:2345",
        "JAX_LOCAL_DEVICE_IDS": "1",
        "NPROC": "3",
    }
    monkeypatch.setenv("NPROC", "5")
    assert "NPROC" not in process_environment("jax", 1, 2, 2345)
    assert "JAX_LOCAL_DEVICE_IDS" not in process_environment("jax", 0, 1, 2345)  # one process has all devices


def test_a_port_that_is_taken_is_another_or_a_sentence(capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    listen = "import socket\nif rank == '0':\n    s = socket.socket()\n"
    listen += "    s.bind(('127.0.0.1', int(os.environ['MASTER_PORT'])))\n    print('fine')"
    free = launching.free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        ports = iter([taken, free])
        monkeypatch.setattr(launching, "free_port", lambda: next(ports))
        output = io.BytesIO()
        assert launch_on_loopback(python(listen), "torch", 2, output=output) == 0
        assert output.getvalue().endswith(b"[0] fine\n")
        assert f"Port {taken} of 127.0.0.1 was taken" in capfd.readouterr().err
        with pytest.raises(LaunchError, match=f"--port {taken} is taken"):
            launch_on_loopback(python(listen), "torch", 2, port=taken)
    # A process that speaks of ports and ends well is no reason to start again.
    monkeypatch.setattr(launching, "free_port", lambda: free)
    said = io.BytesIO()
    assert launch_on_loopback(python("print('Address already in use')"), "torch", 1, output=said) == 0
    assert said.getvalue() == b"[0] Address already in use\n"


@pytest.mark.parametrize(
    ("visible", "gpus"), [("", 0), ("-1", 0), ("0", 1), ("2, 5", 2), ("0,-1,1", 1), ("GPU-1a,GPU-2b", 2)]
)
def test_visible_gpus(visible, gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launching.count_gpus() == gpus


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-n", "0", "--", "train", "--backend", "torch"], "--processes is 1 or more. Received: 0"),
        (
            ["-n", "3", "--", "train", "--backend", "jax"],
            "--processes 3 is more than the GPUs that are visible",
        ),
        (["-n", "2", "--", "train", "--backend", "tensorflow"], "TensorFlow uses all devices of a host from one"),
        (["-n", "2"], "launch needs a command"),
        (["-n", "2", "--", "convert", "a", "b"], "convert does not run in several processes"),
        (["-n", "2", "--", "trian"], "Did you mean train?"),
        (["-n", "2", "--", "train"], "launch needs to know the backend"),
        (["-n", "2", "--", "train", "--backend", "trch"], "Did you mean torch?"),
        (["-n", "2", "--", "train", "--bakend", "torch"], "Did you mean backend?"),
        (["-n", "2", "--timeout", "0", "--", "train", "--backend", "jax"], "--timeout is a number of seconds above 0"),
        (["-n", "2", "--port", "70000", "--", "train", "--backend", "jax"], "--port is from 1 to 65535"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    try:
        status = main(["launch", *arguments])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert status == 2 and sentence in said.err
    assert said.err.count("\n") == 1 and not said.out


def test_a_program_that_is_not_there_is_a_sentence():
    with pytest.raises(LaunchError, match="no-such-program cannot be started"):
        launch(["no-such-program"], RANKS)


def test_the_backend_is_the_commands_own(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr("alexnet.cli.launching.launch_on_loopback", lambda *a, **k: started.append((a, k)) or 0)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    params = tmp_path / "params.yaml"
    params.write_text("backend: torch\n")
    command = ["train", "--params", str(params), "--epochs", "1"]
    assert main(["launch", "-n", "2", "--timeout", "60", "--", *command]) == 0
    assert main(["launch", "-n", "2", "--", "train"]) == 0
    assert main(["launch", "-n", "2", "--", *command, "--backend", "jax"]) == 0
    assert [arguments[1:3] for arguments, _ in started] == [("torch", 2), ("jax", 2), ("jax", 2)]
    assert started[0][0][0] == [sys.executable, "-m", "alexnet", *command]
    assert started[0][1] == {"timeout": 60, "grace": 30}


def test_launch_starts_the_command_line(tmp_path):
    """A whole start: the command's own refusal comes back with its rank and its status."""
    command = [sys.executable, "-m", "alexnet", "launch", "-n", "2", "--timeout", "60", "--", "train"]
    command += ["--backend", "torch", "--epochs", "none"]
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert found.returncode == 2 and "epochs" in found.stdout, json.dumps([found.stdout, found.stderr])
    assert found.stdout.startswith("[") and "ended with exit status 2" in found.stderr
