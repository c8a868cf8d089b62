"""What is installed, beside what the package needs and what it was tested with."""

import csv
import functools
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import alexnet
from alexnet._compat import xla_keeps_matrices
from alexnet.doctor.processes import ask
from alexnet.doctor.report import Check
from alexnet.packages import install, module_of
from alexnet.recipe import BACKENDS

TABLE = Path(__file__).with_name("packages.csv")
GROUP = "installed"
# Versions with a fault that this package works around: the package, which versions, and what to know.
KNOWN_FAULTS = (
    (
        "jaxlib",
        xla_keeps_matrices,
        "JAX 0.7.1 to 0.8 multiplies by weights of an earlier step on a CPU, in silence. The layers of this package "
        "avoid that; Keras's own Dense does not.",
    ),
    (
        "tensorflow",
        lambda version: release(version)[:2] == (2, 20),
        "TensorFlow 2.20 multiplies arrays of rank 4 by matrices wrongly where a size is 1, in silence. The layers of "
        "this package avoid that.",
    ),
)


@dataclass(frozen=True)
class Package:
    """A row of packages.csv, which `make params` writes from pyproject.toml and requirements.txt.

    Attributes:
        name: As pip knows it.
        extra: The extra that brings it; empty for what every use needs.
        lowest: The lowest version that is allowed.
        tested: The version that everything was tested with.
        purpose: What it is for.
    """

    name: str
    extra: str
    lowest: str
    tested: str
    purpose: str


@functools.cache
def packages() -> tuple[Package, ...]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(Package(**row) for row in csv.DictReader(file))


def release(version: str) -> tuple[int, ...]:
    """The numbers by which versions are compared.

    Examples:
        >>> release("2.13.0+cpu"), release("3.16.0.dev2026") > release("3.15.1")
        ((2, 13), True)
    """
    numbers = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version)[0])]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        del numbers[-1]
    return tuple(numbers)


def installed_version(name: str) -> str | None:
    """The version of a package, also where its module comes from a package of another name, as `tensorflow-cpu`; then
    with that name. None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        module = module_of(name)
        others = {} if module == "google" else _distributions()  # the namespace of many packages
        return next((f"{importlib.metadata.version(other)} ({other})" for other in others.get(module, ())), None)


@functools.cache
def _distributions():
    return importlib.metadata.packages_distributions()


def examine_installed(folder: Path, timeout: float) -> Iterator[Check]:
    """Python, each package that is needed, and each extra of which something is missing."""
    lowest, *needed = packages()
    yield _python(lowest)
    yield Check(GROUP, "alexnet-keras", "ok", alexnet.__version__, values={"version": alexnet.__version__})
    found = {package: installed_version(package.name) for package in needed}
    modules = [module_of(each.name) for each, version in found.items() if version and each.extra not in BACKENDS]
    broken = _cannot_be_imported(modules, folder, timeout)
    missing: dict[str, list[Package]] = {}
    for package, version in found.items():
        if version is None and package.extra:
            if package.extra not in BACKENDS:  # each of which has a group of its own
                missing.setdefault(package.extra, []).append(package)
        else:
            yield _package(package, version, broken.get(module_of(package.name)))
    for extra, lacking in missing.items():
        what = "; ".join(f"{package.name} ({package.purpose})" for package in lacking)
        how = f"pip install 'alexnet-keras[{extra}]'"
        yield Check(GROUP, f"extra {extra}", "not tried", f"not installed: {what}; install it with {how}")
    for name, is_faulty, sentence in KNOWN_FAULTS:
        version = installed_version(name)
        if version and is_faulty(version):
            yield Check(GROUP, f"{name} {version}", "note", sentence, values={"version": version})


def _python(row):
    version = platform.python_version()
    low = release(version) < release(row.lowest)
    advice = f"Python {row.lowest} or newer is needed." if low else None
    found = f"{version}; {row.lowest} or newer is needed"
    return Check(GROUP, "Python", "problem" if low else "ok", found, advice, {"version": version})


def _package(package, version, broken):
    values = {"version": version, "lowest": package.lowest, "tested": package.tested}
    check = functools.partial(Check, GROUP, package.name, values=values)
    if version is None:
        return check("problem", f"not installed: {package.purpose}", install(module_of(package.name)))
    found = f"{version}, tested with {package.tested}"
    if release(version) < release(package.lowest):
        advice = f"Install {package.lowest} or newer: pip install '{package.name}>={package.lowest}'"
        return check("problem", f"{version}, {package.lowest} or newer is needed", advice)
    if broken:
        advice = f"Install it again: pip install --force-reinstall --no-deps '{package.name}=={package.tested}'"
        return check("problem", f"{version} cannot be imported: {broken}", advice)
    if release(version) > release(package.tested):
        return check("note", f"{found}: newer than what was tested")
    return check("ok", found)


def _cannot_be_imported(modules, folder, timeout):
    """By module, why it cannot be imported. They are tried in another process; Keras is left to the backends."""
    answer = ask("import_modules", *(each for each in modules if each != "keras"), folder=folder, timeout=timeout)
    if answer.failure is None:
        return answer.read("imports")
    return {answer.read("importing") or "numpy": f"the process {answer.failure}"}
