"""The repository: the order of imports, how fast the package starts, which files there are, where links lead."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
# A file imports only from those above it.
ORDER = [
    "_compat",
    "atomic",
    "units",
    "mounts",
    "networks",
    "scaling",
    "recipe",
    "packages",
    "runtime",
    "locking",
    "watching",
    "launching",
    "progress",
    "ops",
]
ORDER += ["layers", "weights", "model", "saving", "data", "evaluation", "training", "parity", "profiling"]
ORDER += ["plotting", "studies", "hosting", "doctor", "cli"]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in getattr(node, "names", [])] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("alexnet."))


def test_files_import_one_way():
    files = [path for path in (ROOT / "alexnet").iterdir() if path.suffix == ".py" or [*path.glob("*.py")]]
    rooms = {path.stem if path.is_file() else path.name: path for path in files}
    found = {name for name in rooms if not name.startswith("__")}
    assert found == set(ORDER)
    # Both kinds of import statements are found.
    assert list(imported(ROOT / "alexnet" / "studies" / "report.py"))[:2] == ["plotting", "atomic"]
    for name in ORDER:
        files = rooms[name].rglob("*.py") if rooms[name].is_dir() else [rooms[name]]
        for path in files:
            for other in imported(path):
                assert other == name or ORDER.index(other) < ORDER.index(name), f"{path.name} imports {other}"


def test_the_recipe_knows_nothing_of_keras():
    program = (
        "import sys, alexnet, alexnet.recipe, alexnet.cli; assert not {'keras', 'numpy', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_importing_adds_little_to_keras():
    """With everything that the package offers, under an eighth of what `import keras` takes; the best of three."""
    program = (
        "import time; before = time.process_time(); import keras; theirs = time.process_time() - before\n"
        "import alexnet; [getattr(alexnet, name) for name in alexnet.__all__]\n"
        "print((time.process_time() - before) / theirs - 1)"
    )
    shares = []
    for _ in range(3):
        found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
        shares.append(float(found.stdout))
        if shares[-1] < 1 / 8:
            return
    raise AssertionError(shares)


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_keras_starts_without_jax_where_it_is_not_needed(backend):
    program = (
        f"import sys, alexnet; alexnet.import_keras({backend!r}); alexnet.AlexNet\n"
        "assert 'jax' not in sys.modules; import jax; jax.numpy.ones(3)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_every_public_name_is_documented():
    import alexnet

    for name in alexnet.__all__:
        thing = getattr(alexnet, name)
        assert isinstance(thing, dict) or thing.__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        alexnet.nothing  # noqa: B018


def test_every_public_name_is_in_the_reference_and_typed():
    """docs/api.md has all of them, and __init__.pyi agrees with __init__.py on where they are."""
    import alexnet

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: alexnet\.(\w+)$", page, flags=re.MULTILINE)) == alexnet.__all__
    stub = ast.parse((ROOT / "alexnet" / "__init__.pyi").read_text())
    named = [
        (each.asname, each.name, node.module)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    ]
    homes = alexnet._LAZY_ATTRS.items()
    assert sorted(named) == sorted((name, name, f"alexnet.{home}") for name, home in homes)


def test_one_thread_does_without_a_package_that_another_imports():
    program = """
import importlib, sys, threading
from alexnet.runtime import without
with without("colorsys"):
    try:
        import colorsys
        sys.exit("imported")
    except ModuleNotFoundError as error:
        assert error.name == "colorsys"
    other = threading.Thread(target=importlib.import_module, args=("colorsys",))
    other.start(); other.join()
    import colorsys
assert colorsys.rgb_to_hsv and len([f for f in sys.meta_path if type(f).__module__ == "alexnet.runtime"]) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_saving_leaves_tensorflow_to_others(tmp_path):
    """It is not hidden from other threads, not considered absent afterwards, and not imported."""
    program = f"""
import sys, alexnet
keras = alexnet.import_keras("torch")
model = alexnet.AlexNet(input_shape=(67, 67, 3), classes=2, width=1 / 64)
alexnet.save_checkpoint(model, {str(tmp_path / "a.keras")!r})
assert "tensorflow" not in sys.modules
from keras.src.utils.module_utils import tensorflow
assert tensorflow._available is None
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_looking_for_keras_is_not_importing_it(tmp_path):
    """Even if another library asks whether Keras is there, our layers and our optimizer are registered."""
    program = """
import importlib.util, sys, alexnet
importlib.util.find_spec("keras")
assert "keras" not in sys.modules
import keras
assert not any(getattr(each, "__name__", "") == "_AfterKeras" for each in sys.meta_path)
known = keras.saving.get_custom_objects()
assert "alexnet>LocalResponseNormalization" in known and "alexnet.training" not in sys.modules
config = {"module": "alexnet.training.optimizer", "class_name": "SGD", "registered_name": "alexnet>SGD",
          "config": {"learning_rate": 0.5, "decay": 0.25}}
assert keras.optimizers.deserialize(config).decay == 0.25
"""
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment)


# --- Pages


def markdown(path):
    """The text of a page, or of a notebook, without blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```|^ {4}.*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The anchors of a page, as GitHub makes them from the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", markdown(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative_links(path):
    """Targets of links and pictures within the repository."""
    found = re.findall(r"\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"", markdown(path))
    return [target for target in map("".join, found) if not re.match(r"[a-z]+:", target)]


def broken_links(path):
    for target in relative_links(path):
        name, _, anchor = unquote(target).partition("#")
        there = path.parent / name if name else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield target


def test_links_between_pages_lead_somewhere(tmp_path):
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("notebooks/**/*.ipynb"),
        ROOT / "data" / "README.md",
    ]
    found = {str(page.relative_to(ROOT)): list(broken_links(page)) for page in pages}
    assert not {page: broken for page, broken in found.items() if broken}
    assert len(relative_links(ROOT / "README.md")) > 10

    page = tmp_path / "page.md"
    page.write_text("# Two `words`\n[a](#two-words) ![b](page.md#two) [c](gone.png) [d](http://e.f)\n\n    [e](code)\n")
    assert list(broken_links(page)) == ["page.md#two", "gone.png"]


def test_notebooks_are_shared_out():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shares = {name: set(listed.split()) for name, listed in re.findall(r"^NOTEBOOKS_(\w+) := (.*)$", makefile, re.M)}
    solutions = [set(listed.split()) for listed in re.findall(r"^SOLUTIONS_\w+ := (.*)$", makefile, re.M)]
    every = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    long = {"04_finetune"}  # a short run of it stands in tests/notebooks
    assert set(shares) == {"tensorflow", "jax", "torch"}
    assert set.union(*shares.values()) == set.union(*solutions) == every - long
    assert set.intersection(*shares.values()) == {"01_architecture", "02_train"}


def test_readme_shows_what_lies_in_the_repository():
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Layout\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^ {4}( *)(\S+)", layout, flags=re.MULTILINE)
    assert len(lines) > 15
    for indent, name in lines:
        assert (ROOT / ("alexnet" if indent else "") / name).exists(), name


def test_citation_is_of_this_version():
    import alexnet

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == alexnet.__version__
    assert alexnet.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (paper,) = citation["references"]
    assert [person["family-names"] for person in paper["authors"]] == ["Krizhevsky", "Sutskever", "Hinton"]
    assert paper["year"] == 2012
