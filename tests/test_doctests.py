"""Runs the example of each public name, which must have one, and the other examples in the package."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
from helpers import write_class_folders

import alexnet

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
THINGS = {name: getattr(alexnet, name) for name in alexnet.__all__}
# Its example would change this process for good; tests/train_distributed.py calls it.
NOT_HERE = {"divide_processor"}
NAMES = [
    name
    for name, thing in THINGS.items()
    if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, Exception))
    if name not in NOT_HERE
]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the examples assume: the imports, images in a folder for each class, a folder to write to."""
    folder = tmp_path_factory.mktemp("examples")
    photos = write_class_folders(folder / "photos", {"": 24})
    return {"alexnet": alexnet, "keras": keras, "np": np, "photos": str(photos), "folder": str(folder)}


@pytest.fixture
def as_it_was():
    """Undoes what examples change: a registered network, and settings of the process."""
    networks = dict(alexnet.NETWORKS)
    yield
    alexnet.NETWORKS.clear()
    alexnet.NETWORKS.update(networks)
    alexnet.tune_process()


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_true(name, given, as_it_was):
    found = doctest.DocTestFinder(recurse=False).find(THINGS[name], name, globs=dict(given))
    examples = [each for each in found if each.examples]
    assert len(examples) == 1, f"{name} has no example"
    said = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(examples[0], out=said.append)
    assert result.attempted and not result.failed, "".join(said)


def modules():
    """Those that can be imported on this backend."""
    others = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
    foreign = {f"on_{other}" for other in others} | {f"{other}_ops" for other in others} | {"__main__"}
    names = [found.name for found in pkgutil.walk_packages(alexnet.__path__, "alexnet.")]
    return [importlib.import_module(name) for name in names if name.rpartition(".")[2] not in foreign]


def test_the_other_examples_are_true(given, as_it_was):
    count, said = 0, []
    for module in modules():
        for example in doctest.DocTestFinder().find(module, globs={**vars(module), **given}):
            if example.examples and example.name.rpartition(".")[2] not in alexnet.__all__:
                result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
                count += 1
                assert result.attempted and not result.failed, "".join(said)
    assert count >= 8
