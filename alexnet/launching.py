"""Starts the processes of one host that train together, and ends them together. It knows nothing of training."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from alexnet.runtime import cores
from alexnet.watching import watch

TIMED_OUT = 124  # as the command `timeout` says it
HOST = "127.0.0.1"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_PORT_TRIES = 3
_PORT_SECONDS = 120  # a process that finds its port taken says so while it starts
_LONGEST_LINE = 1 << 16
# As PyTorch and JAX say it.
_PORT_TAKEN = re.compile(rb"address already in use|EADDRINUSE|failed to add port to server", re.IGNORECASE)


class LaunchError(ValueError):
    """Processes that cannot be started together; the message is one sentence."""


def launch(command, environments, timeout=None, grace=30, output=None):
    """Run one command in several processes at the same time, and return when all have ended.

    Each line that a process prints, on either stream, appears whole after its rank: `[1] ...`. When one fails, the
    others get SIGTERM, and SIGKILL after `grace` seconds; what they have started is killed with them. SIGINT and
    SIGTERM are passed on, SIGHUP as SIGTERM, and the processes have `grace` seconds to save; a second signal kills at
    once. If this process is killed, so are they. Call it from the main thread.

    Args:
        command: The program and its arguments, a sequence of strings.
        environments: For each rank the variables that are added to this process's environment, a list of dicts.
        timeout: Seconds after which all are ended; None has no limit.
        grace: Seconds between SIGTERM and SIGKILL.
        output: A binary stream for the lines; by default the standard output.

    Returns:
        The exit status: 0 if all ended well; otherwise that of the first that failed, 128 + N where signal N killed it;
        124 after `timeout`; 128 + N after signal N to this process, 130 for Ctrl-C.

    Raises:
        LaunchError: the system has no process groups, as Windows, or the program cannot be started.
    """
    return _Group(command, environments, timeout, grace, output).run()


def launch_on_loopback(command, backend, processes, port=None, **options):
    """`launch` with the environment that `backend` expects; see `process_environment`.

    A free port is chosen. If another program takes it before rank 0 does, all start again with another one.

    Raises:
        LaunchError: see `check_processes` and `launch`; or `port` is taken.
    """
    check_processes(backend, processes)
    if port is not None and not _is_free(port):
        raise LaunchError(f"--port {port} is taken on {HOST}; without --port a free one is chosen.")
    for left in reversed(range(_PORT_TRIES)):
        chosen = port or free_port()
        environments = [process_environment(backend, rank, processes, chosen) for rank in range(processes)]
        group = _Group(command, environments, **options)
        status = group.run()
        if not group.port_was_taken:
            return status
        if port or not left:
            _say(f"Port {chosen} of {HOST} was taken by another program; start again, or name a free one with --port.")
            return status
        _say(f"Port {chosen} of {HOST} was taken by another program meanwhile; starting again with another one.")


def process_environment(backend, rank, processes, port):
    """The variables by which the framework finds the other processes of one host: those of torchrun for PyTorch, those
    of `keras.distribution.initialize` for JAX.

    Examples:
        >>> process_environment("jax", 1, 2, 29500)["KERAS_DISTRIBUTION_JOB_ADDRESSES"]
        '127.0.0.1:29500'
    """
    values = {"KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1"}  # lines appear when they are printed
    threads = {"torch": "OMP_NUM_THREADS", "jax": "NPROC"}.get(backend)  # by which XLA counts the cores
    if threads and threads not in os.environ:
        values[threads] = str(max(1, cores() // processes))
    if backend == "torch":
        values |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        values |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    elif backend == "jax":
        values["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = f"{HOST}:{port}"
        values["JAX_COORDINATOR_BIND_ADDRESS"] = f"{HOST}:{port}"  # it would listen on all addresses
        values["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(processes)
        values["KERAS_DISTRIBUTION_PROCESS_ID"] = str(rank)
        if processes > 1 and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
            values["JAX_LOCAL_DEVICE_IDS"] = str(rank)  # of the GPUs; CPUs do not heed it
    return values


def check_processes(backend, processes):
    """Refuse a number of processes that the backend or this machine does not have.

    Raises:
        LaunchError: it is below 1, above the number of GPUs where there are any, or above 1 on TensorFlow.
    """
    if processes < 1:
        raise LaunchError(f"--processes is 1 or more. Received: {processes}")
    if backend == "tensorflow" and processes > 1:
        raise LaunchError(
            "TensorFlow uses all devices of a host from one process: run the command without launch, with "
            "--distribute data; several processes are for torch and jax."
        )
    gpus = count_gpus()
    if gpus and processes > gpus:
        raise LaunchError(
            f"--processes {processes} is more than the GPUs that are visible here, {gpus}, and each process has one; "
            'to compute on CPUs, set CUDA_VISIBLE_DEVICES="".'
        )


def count_gpus():
    """NVIDIA GPUs that a process started now would see; 0 where there are none or that cannot be known."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return sum(1 for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit())
    names = [name.strip() for name in visible.split(",")]
    hidden = [i for i, name in enumerate(names) if name in ("", "-1")]  # CUDA ignores what follows
    return hidden[0] if hidden else len(names)


class _Group:
    """The processes of one start."""

    def __init__(self, command, environments, timeout=None, grace=30, output=None):
        self.command = list(command)
        self.environments = environments
        self.timeout = timeout
        self.grace = grace
        self.output = output or sys.stdout.buffer
        self.processes = []
        self.running = {}  # rank: process
        self.readers = []
        self.printing = threading.Lock()
        self.output_failed = False
        self.saw_port_taken = False
        self.port_was_taken = False  # and that is why it failed
        self.signals = []
        self.status = 0
        self.deadline = None  # for SIGKILL, once the group is being ended

    def run(self):
        if not hasattr(os, "killpg"):
            raise LaunchError("launch needs the process groups of Linux or macOS, which this system does not have.")
        self.began = time.monotonic()
        with _record_signals(self.signals), watch() as self.tell:
            try:
                self._start()
                while self.running:
                    self._step()
                    time.sleep(0.02)
            finally:
                for rank in list(self.running):
                    self._kill(rank)
                for reader in self.readers:
                    reader.join(timeout=2)  # a process that left its group may hold the pipe
        return self.status

    def _start(self):
        for rank, values in enumerate(self.environments):
            try:
                process = subprocess.Popen(
                    self.command,
                    env={**os.environ, **values},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group for all that it starts; the terminal's Ctrl-C comes from here
                )
            except OSError as error:
                raise LaunchError(f"{self.command[0]} cannot be started ({error.strerror}).") from error
            self.tell(f"+{process.pid}")
            self.processes.append(process)
            self.running[rank] = process
            reader = threading.Thread(target=self._copy_lines, args=(rank, process.stdout), daemon=True)
            reader.start()
            self.readers.append(reader)

    def _step(self):
        """Look once at everything that may have happened."""
        now = time.monotonic()
        for rank, process in list(self.running.items()):
            if process.poll() is not None:
                self._kill(rank)  # what it started
                if process.returncode and self.deadline is None:
                    self._fail(rank, process.returncode)
        if self.deadline is None and self.signals:
            name = signal.Signals(self.signals[0]).name
            self._end(128 + self.signals[0], f"{name}: waiting up to {self.grace:g} s for the processes to save.")
        if self.deadline is None and self.output_failed:
            self._end(1, "The output can no longer be written; ending the processes.")
        if self.deadline is None and self.timeout is not None and now > self.began + self.timeout and self.running:
            self._end(TIMED_OUT, f"The time limit of {self.timeout:g} s has passed; ending the processes.")
        if self.deadline is not None and self.running and (now > self.deadline or len(self.signals) > 1):
            _say(f"Killing {_ranks(self.running)}.")
            for rank in list(self.running):
                self._kill(rank)

    def _fail(self, rank, code):
        self.readers[rank].join(timeout=2)  # its last lines come first
        self.port_was_taken = self.saw_port_taken
        how = f"exit status {code}" if code > 0 else _signal_name(-code)
        others = f"; ending {_ranks(self.running)}" if self.running else ""
        self._end(code if code > 0 else 128 - code, f"Rank {rank} ended with {how}{others}.")

    def _end(self, status, sentence):
        """Ask all to end. Only the processes themselves: a trainer may need its helpers in order to save."""
        self.status = status
        self.deadline = time.monotonic() + self.grace
        _say(sentence)
        number = signal.SIGINT if self.signals[:1] == [signal.SIGINT] else signal.SIGTERM
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(number)

    def _kill(self, rank):
        """Kill a process and all that it started; there may be nothing left."""
        process = self.running.pop(rank)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies only
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.tell(f"-{process.pid}")

    def _copy_lines(self, rank, stream):
        """Print whole lines as they come. Of a line that is drawn again and again with \\r, the last state."""
        pending = b""
        while chunk := os.read(stream.fileno(), 1 << 16):
            *lines, pending = (pending + chunk).split(b"\n")
            body = pending[:-1].rpartition(b"\r")[2]
            pending = body + pending[-1:]
            if len(pending) > _LONGEST_LINE:
                lines, pending = [*lines, pending], b""
            self._print(rank, lines)
        self._print(rank, [pending] if pending else [])
        stream.close()

    def _print(self, rank, lines):
        if time.monotonic() < self.began + _PORT_SECONDS and any(map(_PORT_TAKEN.search, lines)):
            self.saw_port_taken = True
        shown = (line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines)
        text = b"".join(b"[%d] %s\n" % (rank, line) for line in shown)
        with self.printing:
            try:
                if not self.output_failed:
                    self.output.write(text)
                    self.output.flush()
            except OSError:
                self.output_failed = True  # go on reading: a full pipe would stop the process


@contextlib.contextmanager
def _record_signals(received):
    """Within it, signals are appended to `received` and do nothing else."""
    numbers = [getattr(signal, name) for name in _SIGNALS]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] != signal.SIG_IGN:  # as under nohup
                signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port():
    """A port of 127.0.0.1 that nothing uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has just ended is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise LaunchError(f"--port {port} cannot be used ({error.strerror}).") from error
            return False
    return True


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one


def _ranks(running):
    names = ", ".join(map(str, running))
    return f"rank {names}" if len(running) == 1 else f"ranks {names}"


def _say(sentence):
    print(sentence, file=sys.stderr, flush=True)
