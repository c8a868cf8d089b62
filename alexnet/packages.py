"""Packages that only a part of the work needs, and what to say where one is missing."""

import contextlib
import functools
import importlib

# The extra of this package that brings each, by the name that is imported; see pyproject.toml.
EXTRAS = {
    "IPython": "notebooks",
    "array_record": "pack",
    "cryptography": "dask",
    "distributed": "dask",
    "fsspec": "studies",
    "google": "formats",  # protobuf
    "ipykernel": "notebooks",
    "jax": "jax",
    "jaxlib": "jax",
    "jinja2": "studies",
    "matplotlib": "plots",
    "nbconvert": "studies",
    "nbformat": "studies",
    "onnx": "formats",
    "papermill": "notebooks",
    "pyarrow": "formats",
    "ray": "ray",
    "safetensors": "formats",
    "scipy": "formats",
    "tensorflow": "tensorflow",
    "torch": "torch",
}
# Where the name to install is not the name to import.
_INSTALLED_AS = {"PIL": "pillow", "cv2": "opencv-python-headless", "google": "protobuf", "yaml": "pyyaml"}


@functools.cache
def optional(module):
    """An optional module, or None if it is missing. The answer is remembered, since a failed import takes a while."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def missing(error):
    """One sentence about a package that could not be imported.

    Args:
        error: A `ModuleNotFoundError`.
    """
    return f"the package {_package(error.name or '')} is not installed here. {install(error.name or '')}"


@contextlib.contextmanager
def explain_missing():
    """Within it, or within a function that it decorates, a package of an extra that is missing is an error of the same
    kind that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        sentence = missing(error)
        raise ModuleNotFoundError(sentence[0].upper() + sentence[1:], name=error.name) from None


def install(module):
    """How to install what a module belongs to, in one sentence."""
    command, extra = f"pip install {_package(module)}", EXTRAS.get(module.partition(".")[0])
    return f"Install it with: {command}" + (f", or its extra: pip install 'alexnet-keras[{extra}]'" if extra else "")


def module_of(package):
    """The name to import of a package's name to install.

    Examples:
        >>> module_of("opencv-python-headless"), module_of("array-record")
        ('cv2', 'array_record')
    """
    modules = {installed: module for module, installed in _INSTALLED_AS.items()}
    return modules.get(package, package.replace("-", "_"))


def _package(module):
    module = module.partition(".")[0]
    return _INSTALLED_AS.get(module, module.replace("_", "-"))
