"""Where the tasks of a batch run: threads of this process, Dask or Ray. All are a `concurrent.futures.Executor`."""

import concurrent.futures
import contextlib
import importlib.util
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from alexnet._compat import RAY_ON_LOOPBACK
from alexnet.packages import install
from alexnet.recipe import nearest
from alexnet.studies.errors import BatchError
from alexnet.studies.tasks import stop_batch

RETRIES = 3  # times that a task whose worker was killed is given to another one
# And their packages; the second is for a cluster that is started here.
ENGINES = {"local": (), "dask": ("distributed", "cryptography"), "ray": ("ray",)}
_SECONDS = 30  # for a scheduler to answer
_PORTS = {"dask": "8786", "ray": "6379"}  # those of their own commands
# Connect as a driver does. Where something else answers or nothing, Dask may wait for ever, and Ray ends the process.
_ASK = {
    "dask": "import distributed, sys; distributed.Client(sys.argv[1], timeout=10)",
    "ray": "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)",
}

# In Dask's workers: a terminal's Ctrl-C is for the process that has started them, and it tells them. Not SIG_IGN, which
# the notebooks would inherit.
_NO_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, lambda *_: None)"

logger = logging.getLogger(__name__)


def check_engine(engine: str, address: str | None, jobs: int | None) -> None:
    """Refuse what cannot be used.

    Raises:
        BatchError: an unknown engine, one whose package is missing, or flags that exclude each other.
    """
    if engine not in ENGINES:
        raise BatchError(f"--engine: received {engine!r}; allowed: {', '.join(ENGINES)}.{nearest(engine, ENGINES)}")
    for package in ENGINES[engine][: 1 if address else None]:
        if importlib.util.find_spec(package) is None:
            raise BatchError(f"--engine {engine}: the package {package} is not installed here. {install(package)}")
    if address is not None and engine == "local":
        raise BatchError("--address is that of a scheduler: name its kind as well, --engine dask or --engine ray.")
    if address is not None and jobs is not None:
        raise BatchError("--jobs is for a cluster that batch starts; the one at --address has workers of its own.")
    if jobs is not None and jobs < 1:
        raise BatchError(f"--jobs: received {jobs}; allowed: a whole number at least 1.")
    if address is not None:
        _check_address(engine, address)


@contextlib.contextmanager
def open_engine(
    engine: str, address: str | None = None, jobs: int | None = None
) -> Iterator[tuple[Executor, Callable[[str], Any]]]:
    """A context with an executor, and a function that tells the tasks of a batch to save and end; it does not wait.

    Args:
        engine: `local`, `dask` or `ray`.
        address: Of a scheduler; None for a cluster on this machine that ends with the context.
        jobs: How many tasks at a time, on this machine.

    Raises:
        BatchError: nothing answers at the address.
    """
    with {"local": _local, "dask": _dask, "ray": _ray}[engine](address, jobs or 1) as opened:
        yield opened


@contextlib.contextmanager
def _local(address, jobs):
    with ThreadPoolExecutor(jobs) as pool:

        def stop(batch):
            pool.shutdown(wait=False, cancel_futures=True)
            stop_batch(batch)

        yield pool, stop


@contextlib.contextmanager
def _dask(address, jobs):
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        if address is None:
            cluster = LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                host="127.0.0.1",
                protocol="tls",
                security=True,  # made for this cluster: nobody else on this machine can use it
                dashboard_address=None,
                worker_dashboard_address=None,
                memory_limit=0,  # the notebooks are processes of their own
                silence_logs=logging.CRITICAL,  # a lost worker is no error
                local_directory=stack.enter_context(_temporary_folder()),
                preload=[_NO_INTERRUPTS],
            )
            address = stack.enter_context(cluster)
        else:
            _ask("dask", address)
        client = stack.enter_context(Client(address))
        if not client.scheduler_info()["workers"]:
            logger.warning(f"The Dask scheduler at {address} has no workers; the batch waits for some.")
        yield client.get_executor(pure=False), lambda batch: client.run(stop_batch, batch, on_error="ignore")


@contextlib.contextmanager
def _ray(address, jobs):
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(RAY_USAGE_STATS_ENABLED="0"))
        options = {"address": address, "logging_level": "ERROR", "log_to_driver": False}
        if address is None:
            # Only those who know the token, the processes of this cluster, can use it.
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            stack.enter_context(_environment(**RAY_ON_LOOPBACK, **token))
            options |= {"address": "local", "num_cpus": jobs, "include_dashboard": False}
            options |= {"object_store_memory": 80 << 20, "_temp_dir": stack.enter_context(_temporary_folder())}
        else:
            _ask("ray", address)
        import ray

        ray.init(**options)
        stack.callback(ray.shutdown)
        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < 1:
            logger.warning(f"The Ray cluster at {address} has no processors for runs; the batch waits for some.")
        # Ray hides the GPUs from tasks that do not ask for one.
        executor = RayExecutor(num_cpus=1, num_gpus=min(1, resources.get("GPU", 0)), max_retries=RETRIES)
        yield executor, executor.cancel


class RayExecutor(Executor):
    """Tasks of Ray as a `concurrent.futures.Executor`.

    Args:
        options: Of `ray.remote`, for each task.
    """

    def __init__(self, **options: Any):
        self._options = options
        self._references: dict[Future, Any] = {}

    def submit(self, function, /, *args, **kwargs):
        import ray

        reference = ray.remote(function).options(**self._options).remote(*args, **kwargs)
        future = reference.future()
        self._references[future] = reference
        return future

    def cancel(self, batch: str = "") -> None:
        """Raise KeyboardInterrupt in the tasks that run, and let none begin."""
        import ray

        for future, reference in self._references.items():
            if not future.done():
                ray.cancel(reference)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            self.cancel()
        if wait:
            concurrent.futures.wait(self._references)


def _check_address(engine, address):
    if engine == "ray" and address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        whole = bool(parts.hostname and parts.port)
    except ValueError:
        whole = False
    if not whole:
        raise BatchError(f"--address: received {address!r}; allowed: HOST:PORT, as in 10.0.0.5:{_PORTS[engine]}.")


def _ask(engine, address):
    """Refuse an address at which no cluster answers, asked by another process."""
    command = [sys.executable, "-c", _ASK[engine], address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        lines = [line for line in asked.stderr.splitlines() if line.strip()]
        said = (lines or [f"exit status {asked.returncode}"])[-1] if asked.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"nothing after {_SECONDS} s"
    if said:
        raise BatchError(f"--address: no {engine.title()} cluster answers at {address} ({said}).")


def _temporary_folder():
    # Not where TMPDIR may lead: the names of Ray's sockets must be short.
    folder = "/tmp" if os.path.isdir("/tmp") else None
    return tempfile.TemporaryDirectory(prefix="alexnet-", dir=folder, ignore_cleanup_errors=True)


@contextlib.contextmanager
def _environment(**values):
    """Within it, Ray's variables are set in this process. Afterwards they are as before; Ray sets some of its own."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update(before)
