"""A notebook that needs no installation and no internet: the package and what its cells read are in one of them."""

import ast
import base64
import hashlib
import io
import json
import lzma
import os
import re
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import alexnet
from alexnet.recipe import PROJECT, UNPACKED, Recipe, assigned_names, nearest

PACKAGE = Path(__file__).resolve().parents[1]
# What a checkout has beside the package and a notebook reads, as patterns below the project's folder.
BESIDE = ("params/**/*.yaml", "benchmarks/**/*.py", "benchmarks/results/*.json")
MAX_BYTES = 1_000_000  # Kaggle takes no larger notebook

_MARK = """\
A notebook has unpacked this folder. It goes with the notebook's kernel; relative paths start where that was started.
"""
# Jupyter, Kaggle and Colab each have their own way to fold a cell.
_FOLDED = {"jupyter": {"source_hidden": True}, "_kg_hide-input": True, "cellView": "form"}
_UNPACK = '''\
#@title The package alexnet {version}, in {kilobytes} kB of text. Run this cell; there is nothing to read in it.
import base64, hashlib, io, lzma, os, sys, tempfile, zipfile

_text = """
{text}
""".strip()
if hashlib.sha256(_text.encode()).hexdigest() != "{digest}":
    raise RuntimeError("The package in this cell was changed or cut off. Take the notebook as it was made.")
if "alexnet" not in sys.modules:
    _unpacked = tempfile.TemporaryDirectory(prefix="alexnet-")  # goes with this kernel
    _archive = lzma.decompress(base64.b64decode(_text))
    zipfile.ZipFile(io.BytesIO(_archive)).extractall(_unpacked.name)
    sys.path.insert(0, _unpacked.name)
    # So that `!python -m alexnet` and the processes of a measurement find it, too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_unpacked.name, os.environ.get("PYTHONPATH")]))
'''

_DRIVE = "/content/drive"
_MOUNT = f'''\
from google.colab import drive

drive.mount("{_DRIVE}")  # otherwise run_dir would be a folder of this machine, which Colab removes
'''


class HostingError(ValueError):
    """What cannot be made into a notebook for Kaggle or Colab, in one sentence."""


def repository() -> str:
    """Where the project is on GitHub, `OWNER/NAME`, as pyproject.toml says; an empty text where it says nothing."""
    try:
        content = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return content.get("tool", {}).get("alexnet", {}).get("repository", "")


def find_notebook(name: str) -> Path:
    """A notebook by its path, or one of the project's by its name, as `02_train`.

    Raises:
        HostingError: there is none.
    """
    ours = PROJECT / "notebooks"
    for path in (Path(os.path.expanduser(name)), PROJECT / name, ours / name, ours / f"{name}.ipynb"):
        if path.is_file():
            return path
    known = [path.stem for path in sorted(ours.glob("*.ipynb"))]
    hint = f"{nearest(name, known)} Known: {', '.join(known)}" if known else " Give the path of a notebook"
    raise HostingError(f"There is no notebook {name}.{hint}.")


def read_notebook(path: Path) -> dict[str, Any]:
    """The content of a notebook with a cell tagged `parameters`.

    Raises:
        HostingError: it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            cell["source"] = "".join(cell["source"])
        next(_parameters(content))
    except OSError as error:
        raise HostingError(f"{path} cannot be read ({error.strerror}).") from None
    except StopIteration:
        raise HostingError(f"{path} has no cell tagged parameters.") from None
    except (ValueError, KeyError, TypeError):
        raise HostingError(f"{path} is not a notebook.") from None
    return content


def _parameters(content):
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", ()):
            yield number


def default_parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a notebook's cell tagged `parameters` assigns, by name."""
    source = content["cells"][next(_parameters(content))]["source"]
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    values = {line.targets[0].id: line.value for line in lines if isinstance(line.targets[0], ast.Name)}
    return {name: ast.literal_eval(value) for name, value in values.items() if name in assigned_names(source)}


def checked_parameters(content: Mapping[str, Any], values: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The parameters that a notebook is to be run with instead of its own, as `Recipe` reads them.

    Raises:
        HostingError: one that the notebook does not have.
        RecipeError: one that cannot be used.
    """
    own = default_parameters(content)
    for name in values:
        if name not in own:
            near = nearest(name, own) or " Known: " + ", ".join(own)
            raise HostingError(f"{name}: unknown parameter of {title}.{near}")
    fields = {name: value for name, value in {**own, **values}.items() if name in Recipe.model_fields}
    recipe = Recipe(**fields)
    return {name: getattr(recipe, name) if name in fields else _literal(value) for name, value in values.items()}


def _literal(value):
    """What a flag's text stands for, where no field of `Recipe` says what it is."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def self_contained(path: Path, values: Mapping[str, Any], gpu: bool = False, repository: str = "") -> str:
    """The text of a notebook that runs from top to bottom in an empty folder, with or without internet.

    Args:
        path: A notebook with a cell tagged `parameters`.
        values: Parameters that differ from its own, written into a cell after that one, as papermill does.
        gpu: Whether Colab is asked for one.
        repository: `OWNER/NAME` on GitHub, where links to other pages lead; without one they become text.

    Raises:
        HostingError: it is no notebook, has no such parameter, is too large, or reads what is not here.
        RecipeError: a parameter that cannot be used.
    """
    content = read_notebook(path)
    values = checked_parameters(content, values, path.name)
    _require_what_it_reads(content, path)
    cells = [_clean(cell, path.parent, repository) for cell in content["cells"]]
    added = [_unpacking_cell()]
    if values:
        lines = [f"{name} = {value!r}\n" for name, value in values.items()]
        added.insert(0, _code("# Parameters\n" + "".join(lines), {"tags": ["injected-parameters"]}))
    if str(values.get("run_dir", "")).startswith(f"{_DRIVE}/"):
        added.append(_code(_MOUNT, {"tags": ["drive"]}))
    place = next(_parameters(content)) + 1
    cells[place:place] = added
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02d}"
        cell["source"] = cell["source"].splitlines(keepends=True)
    metadata: dict[str, Any] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        **({"accelerator": "GPU"} if gpu else {}),
    }
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if len(text.encode()) >= MAX_BYTES:
        raise HostingError(f"{path.name} would be {len(text.encode()):,} bytes; Kaggle takes fewer than {MAX_BYTES:,}.")
    return text


def _require_what_it_reads(content, path):
    code = "\n".join(cell["source"] for cell in content["cells"] if cell["cell_type"] == "code")
    if "benchmarks" in code and not (PROJECT / "benchmarks").is_dir():
        raise HostingError(
            f"{path.name} reads the folder benchmarks, which the installed package does not have. Make it in a clone "
            "of the project."
        )


def _code(source, metadata):
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": source.rstrip(),
    }


def _clean(cell, folder, repository):
    tags = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
    if cell["cell_type"] == "code":
        return _code(cell["source"], tags)
    return {"cell_type": cell["cell_type"], "metadata": tags, "source": _freed(cell["source"], folder, repository)}


def _freed(text, folder, repository):
    """Markdown whose pictures are in the text, and whose links to files of the project lead to GitHub or nowhere."""

    def replace(match):
        picture, shown, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        name, _, anchor = target.partition("#")
        file = (folder / name).resolve()
        if not file.exists():
            return match[0]  # no link: brackets of a formula or a program
        if picture:
            kind = {".svg": "svg+xml", ".jpg": "jpeg"}.get(file.suffix, file.suffix[1:])
            return f"![{shown}](data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()})"
        if not repository or not file.is_relative_to(PROJECT):
            return shown
        place = file.relative_to(PROJECT).as_posix()
        return f"[{shown}](https://github.com/{repository}/blob/main/{place}{'#' * bool(anchor)}{anchor})"

    return re.sub(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)", replace, text)


# --- The package as text


def archive() -> bytes:
    """The package and what notebooks read beside it, of the same files always the same bytes.

    It is a zip file that is compressed as a whole, since that takes two thirds of what compressing file by file takes.
    """
    files = {
        f"alexnet/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if (PROJECT / "params" / "default.yaml").is_file():
        beside = [path for pattern in BESIDE for path in PROJECT.glob(pattern)]
        files |= {path.relative_to(PROJECT).as_posix(): path.read_bytes() for path in beside}
    files[UNPACKED] = _MARK.encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name in sorted(files):
            packed.writestr(zipfile.ZipInfo(name), files[name])  # dated 1980, whenever it was written
    return lzma.compress(content.getvalue(), preset=9)


def _unpacking_cell():
    text = base64.encodebytes(archive()).decode().strip()
    source = _UNPACK.format(
        text=text,
        version=alexnet.__version__,
        kilobytes=len(text) // 1000,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    return _code(source, {"tags": ["package"], **_FOLDED})
