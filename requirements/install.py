"""Make a virtual environment and install a lock into it, for the chosen backends and for a CPU or a GPU.

python requirements/install.py .venv                   # everything in requirements.txt, for a CPU
python requirements/install.py .venv --backends jax    # without TensorFlow and PyTorch
python requirements/install.py .venv --gpu             # with what an NVIDIA GPU needs
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
NEEDS = {**{name: name for name in BACKENDS}, "optax": "jax"}  # packages that only one backend needs
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # the default index has PyTorch for Linux with 2.8 GB of CUDA
CUDA_13_DRIVER = 580  # the first major version of NVIDIA's driver that runs CUDA 13


def chosen(lock, backends, driver=None):
    """The lines of a lock that some backends need, with the extras for a GPU if a driver's version is given."""
    extras = {"jax": f"[cuda{13 if driver >= CUDA_13_DRIVER else 12}]", "tensorflow": "[and-cuda]"} if driver else {}
    found = []
    for line in lock.splitlines():
        package, version = re.match(r"([\w-]*)(.*)", line).groups()
        if NEEDS.get(package, backends[0]) in backends:
            found.append(package + extras.get(package, "") + version)
    return found


def gpu_driver():
    """The major version of NVIDIA's driver; None if there is none."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = re.match(r"\d+", subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    return int(found[0]) if found else None


def reachable(url, seconds=4):
    """Whether a page answers in time, even if looking up its host hangs."""
    answers = []

    def ask():
        try:
            with urllib.request.urlopen(url, timeout=seconds) as page:
                answers.append(page.status)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def install(folder, lines, gpu):
    """Install the lines of a lock into the environment in `folder`, which is created if necessary."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    print(f"Installing into {folder}; this takes a few minutes the first time.", flush=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    torch = [line.split()[0] for line in lines if line.startswith("torch==")]
    if torch and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        if gpu:  # pip would keep a CPU build that is already installed
            command = [str(folder / "bin" / "python"), "-m", "pip", "show", "torch"]
            shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
            if "+cpu" in shown:
                subprocess.run([*pip, "uninstall", "--yes", "torch"], check=True)
        elif reachable(f"{CPU_INDEX}/torch/"):
            # If this fails, the next command takes PyTorch from the default index.
            subprocess.run([*pip, "install", "--no-deps", "--index-url", CPU_INDEX, *torch])
    command = [*pip, "install", "--requirement", "/dev/stdin"]
    subprocess.run(command, input="\n".join(lines), text=True, cwd=str(ROOT), check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.txt")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--torch", metavar="VERSION", help="instead of the lock's")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  older versions get this message
        return "Python 3.11 or newer is needed: make PYTHON=python3.11"
    driver = gpu_driver() if options.gpu else None
    if options.gpu and driver is None:
        return (
            "GPU=1 needs an NVIDIA GPU and its driver, and nvidia-smi finds none here. Leave GPU=1 out to use the CPU."
        )
    lines = chosen(options.lock.read_text(), options.backends, driver)
    if options.torch:
        lines = [re.sub(r"^torch==\S+", f"torch=={options.torch}", line) for line in lines]
    try:
        install(options.folder.resolve(), lines, options.gpu)
    except subprocess.CalledProcessError as error:
        return f"Installing failed: {' '.join(error.cmd[3:])} ended with status {error.returncode}."
    return 0


if __name__ == "__main__":
    sys.exit(main())
