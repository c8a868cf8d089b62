"""A simulated session on Kaggle: its folders, its variables and no network, as far as Linux allows a user.

python tests/hosted_session.py 02_train --backends tensorflow jax torch [-p NAME VALUE] [--keep FOLDER]

Makes the folder of `python -m alexnet kaggle` and runs its notebook for each backend as Kaggle would: papermill in
/kaggle/working, the only writable folder; /kaggle/input read-only; no network but loopback; an empty home folder; this
repository hidden. It prints the seconds that each took.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child"]
# The folders of this machine in the new root: programs, but nothing of the user's.
SHOWN = ("bin", "etc", "lib", "lib32", "lib64", "opt", "sbin", "usr", "dev", "sys")

# $1 is the new root, $2 a file with the folders of Python, then the command.
_ENTER = """
set -e
root=$1 pythons=$2; shift 2
mount -t tmpfs tmpfs "$root"
mkdir -p "$root/tmp" "$root/kaggle" "$root/root"
for name in {shown}; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
    elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --rbind "/$name" "$root/$name"; fi
done
mkdir "$root/proc"; mount -t proc proc "$root/proc"
while read -r folder; do mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; done < "$pythons"
mkdir "$root/kaggle/input" "$root/kaggle/working" "$root/kaggle/src"
mount --bind "$KAGGLE_HERE/input" "$root/kaggle/input"
mount -o remount,bind,ro "$root/kaggle/input"
mount --bind "$KAGGLE_HERE/working" "$root/kaggle/working"
mount --bind "$KAGGLE_HERE/src" "$root/kaggle/src"
ip link set lo up
exec chroot "$root" /usr/bin/env -C /kaggle/working "$@"
"""


def can_isolate() -> bool:
    """Whether this user may make namespaces with everything that a session needs."""
    try:
        found = subprocess.run([*NAMESPACES, "sh", "-c", "mount -t tmpfs tmpfs /mnt && ip link set lo up"],
                               capture_output=True, timeout=20)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0


def environment(backend):
    """The variables of a session, and those of this process that its Python and libraries need."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_WAIT_POLICY") if name in os.environ}
    return {
        **kept,
        "HOME": "/root",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_DATA_PROXY_TOKEN": "-",
        "KERAS_BACKEND": backend,
        "MPLBACKEND": "agg",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run(folder: Path, here: Path, backend: str, timeout: float = 600) -> subprocess.CompletedProcess:
    """Run the notebook in a folder of `python -m alexnet kaggle` as Kaggle would, in namespaces of its own.

    Args:
        folder: What `kaggle kernels push` would send.
        here: Has `input`, what is attached, and `working`, what is kept; the executed notebook is `working/out.ipynb`.
        backend: What `KERAS_BACKEND` says.
    """
    code_file = json.loads((folder / "kernel-metadata.json").read_text())["code_file"]
    (here / "src").mkdir(exist_ok=True)
    shutil.copy(folder / code_file, here / "src" / "script.ipynb")
    for name in ("input", "working"):
        (here / name).mkdir(exist_ok=True)
    papermill = [sys.executable, "-m", "papermill", "/kaggle/src/script.ipynb", "/kaggle/working/out.ipynb"]
    papermill += ["-k", "python3", "--no-progress-bar", "--no-log-output"]
    with tempfile.TemporaryDirectory() as room:
        (root := Path(room, "root")).mkdir()
        pythons = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix)} | {Path(sys.prefix)}
        outside = [place for place in pythons if place.parts[1] not in SHOWN]
        Path(room, "pythons").write_text("".join(f"{place}\n" for place in sorted(outside)))
        enter = _ENTER.format(shown=" ".join(SHOWN))
        return subprocess.run(
            [*NAMESPACES, "sh", "-c", enter, "sh", root, Path(room, "pythons"), *papermill],
            env=environment(backend) | {"KAGGLE_HERE": str(here)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def make(notebook, folder, *arguments):
    """Run `python -m alexnet kaggle` from a folder outside the project."""
    command = [sys.executable, "-m", "alexnet", "kaggle", notebook, str(folder), "--user", "somebody", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder.parent, env=variables, capture_output=True, text=True, timeout=60)


def processor_seconds():
    """The resources used by all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook")
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("-p", "--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--keep", type=Path, help="leave the sessions' folders here")
    options = parser.parse_args(arguments)
    if not can_isolate():
        sys.exit("This machine does not let its users make namespaces (unshare).")
    with tempfile.TemporaryDirectory() as room:
        kept = options.keep.absolute() if options.keep else Path(room)
        kept.mkdir(parents=True, exist_ok=True)
        made = make(options.notebook, kept / "kernel", *[word for pair in options.set for word in ("-p", *pair)])
        if made.returncode:
            sys.exit(made.stderr)
        print(made.stdout.splitlines()[0])
        status = 0
        for backend in options.backends:
            (kept / backend).mkdir(exist_ok=True)
            began, used = time.perf_counter(), processor_seconds()
            try:
                found = run(kept / "kernel", kept / backend, backend)
            except subprocess.TimeoutExpired as error:
                sys.exit(f"{backend}: not finished after {error.timeout:.0f} s")
            seconds, used = time.perf_counter() - began, processor_seconds() - used
            print(
                f"{backend}: {seconds:.0f} s, of the processor {used:.0f} s, exit status {found.returncode}", flush=True
            )
            if found.returncode:
                print(found.stderr[-3000:])
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
