"""The wheel contains everything that the package needs, and declares its dependencies."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from environments import build_wheel

import alexnet
from alexnet.packages import EXTRAS

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements):
    """The packages of a list of requirements."""
    return {re.match(r"[\w-]+", text)[0].lower() for text in requirements}


def imported(path):
    """The other packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        yield from {module.partition(".")[0] for module in modules} - {"alexnet"} - sys.stdlib_module_names


def test_every_import_is_declared():
    """In dependencies, or in the extra that the message about a missing package names."""
    distributions = importlib.metadata.packages_distributions()
    needed = set()
    for path in sorted((ROOT / "alexnet").rglob("*.py")):
        for module in imported(path):
            declared = PROJECT["dependencies"]
            if module in EXTRAS:
                extra = EXTRAS[module]
                declared = PROJECT["optional-dependencies"][extra]
            found = {name.lower() for name in distributions[module]}
            assert found & names(declared) or module in ("jaxlib", "IPython"), f"{path.name} imports {module}"
            needed |= found
    optional_by_name = {"simplejpeg", "opencv-python-headless", "array-record", "scipy"}  # `decoding.optional`
    assert names(PROJECT["dependencies"]) <= needed | optional_by_name


def test_the_lock_lies_within_the_ranges():
    from packaging.requirements import Requirement

    lock = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if match := re.match(r"([\w-]+)==(\S+)", line):
            lock[match[1].lower()] = match[2]
    extras = {name: needed for name, needed in PROJECT["optional-dependencies"].items() if name != "docs"}
    everything = [*PROJECT["dependencies"], *sum(extras.values(), [])]
    for requirement in map(Requirement, everything):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(lock[requirement.name.lower()]), requirement


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel was installed, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, timeout=300)
    return folder / "site", wheel


def test_the_wheel_is_complete(installed):
    site, wheel = installed
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("alexnet/")}
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "alexnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here
    (metadata,) = (text for text in site.glob("*.dist-info/METADATA"))
    assert "Requires-Dist: keras>=" in metadata.read_text() and "Provides-Extra: torch" in metadata.read_text()


def test_the_wheel_works_without_a_checkout(installed, tmp_path):
    """From an empty folder, which afterwards holds the drawn data and the run."""
    site, _ = installed
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command):
        found = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert found.returncode == 0, found.stderr[-3000:]
        return found.stdout

    before = sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts)
    program = "import alexnet.recipe; print(alexnet.__file__, alexnet.recipe.PROJECT)"
    assert run(sys.executable, "-c", program).split() == [str(site / "alexnet" / "__init__.py"), str(tmp_path)]
    command = site / "bin" / "alexnet"
    assert (
        "usage: alexnet" in run(command, "--help") and run(command, "--version") == f"alexnet {alexnet.__version__}\n"
    )
    fields = ["--width", "0.0625", "--epochs", "1", "--name", "wheel", "--validation_split", "0.2"]
    assert "val_top1" in run(command, "train", *fields)
    assert (tmp_path / "data" / "shapes").is_dir()
    (model,) = (tmp_path / "runs" / "wheel").glob("*/model.keras")
    run(command, "convert", model.parent, tmp_path / "model.safetensors")
    found = run(command, "predict", "--weights", model.parent, next((tmp_path / "data").rglob("*.jpg")))
    assert found.count("%") == 5  # the five most probable classes
    assert sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts) == before
