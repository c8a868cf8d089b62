"""Write what is said in one file into the others that say it, too.

The descriptions of parameters in `alexnet.Recipe` go into params/default.yaml, the tables of docs/parameters.md and the
comments in the notebooks' parameters cells; the packages of pyproject.toml, with the versions of requirements.txt, into
alexnet/doctor/packages.csv, because neither file is in an installed package.

make params
python docs/write_parameters.py --check    writes nothing; the exit status is 1 if a file would change
"""

import csv
import io
import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

from alexnet.recipe import Recipe, grouped_fields

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_YAML = ROOT / "params" / "default.yaml"
PAGE = ROOT / "docs" / "parameters.md"
PACKAGES = ROOT / "alexnet" / "doctor" / "packages.csv"
NOT_FOR_USERS = ("dev", "docs")  # extras

GROUPS = {name: title for title, names in grouped_fields().items() for name in names}
DESCRIPTIONS = {name: field.description for name, field in Recipe.model_fields.items()}
# Notebooks in which a parameter has a different meaning than in a run.
NOTEBOOK_DESCRIPTIONS = {
    "03_evaluate": {
        "weights": "a checkpoint, or the folder of a run; None for the run of the name below",
        "data_dir": "for a checkpoint: a folder of class folders, or ImageNet as Kaggle ships it",
    },
}

TABLES_BEGIN, TABLES_END = "<!-- tables: written by make params -->", "<!-- end of tables -->"
YAML_HEAD = """\
# Every parameter of a run. This file trains on the built-in data set in about a minute on two cores.
# Any other file in this folder holds only what differs from this one, and why.
"""


def as_yaml(name):
    """`name: value` with the default in YAML."""
    return yaml.safe_dump({name: Recipe.model_fields[name].default}).strip()


def described_for_yaml(name):
    return DESCRIPTIONS[name].replace("None", "null")


def default_yaml():
    blocks = [YAML_HEAD]
    for title, names in grouped_fields().items():
        lines = [f"{as_yaml(name):<25}  # {described_for_yaml(name)}\n" for name in names]
        blocks.append("".join([f"# {title}\n", *lines]))
    return "\n".join(blocks)


def page(text):
    """The page with its tables, which are between two comments, rewritten."""
    tables = []
    for title, names in grouped_fields().items():
        rows = [f"| `{name}` | {as_yaml(name).partition(': ')[2]} | {described_for_yaml(name)} |\n" for name in names]
        tables.append("".join([f"## {title}\n\n| name | default | meaning |\n|---|---|---|\n", *rows, "\n"]))
    before, rest = text.split(TABLES_BEGIN)
    _, after = rest.split(TABLES_END)
    return "".join([before, TABLES_BEGIN, "\n\n", *tables, TABLES_END, after])


def notebook(text, name):
    """The notebook with the comments of its parameters rewritten."""
    content = json.loads(text)
    for cell in content["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            source = parameters_cell("".join(cell["source"]), DESCRIPTIONS | NOTEBOOK_DESCRIPTIONS.get(name, {}))
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"  # as nbformat writes it


def parameters_cell(source, descriptions):
    """The cell with a comment after each field of Recipe, and with titles of groups if it has many fields.

    Names, values and their order stay, and so do the notebook's own lines.
    """
    lines = [line for line in source.splitlines() if line.removeprefix("# ") not in GROUPS.values()]
    assignments = [re.fullmatch(r"(?P<code>(?P<name>\w+) = .*?)(  # .*)?", line) for line in lines]
    names = [found["name"] if found and found["name"] in GROUPS else None for found in assignments]
    titled = sum(name is not None for name in names) > len(grouped_fields())
    written, group = [], None
    for line, found, name in zip(lines, assignments, names, strict=True):
        if name is None:
            written.append(line)
            continue
        if titled and GROUPS[name] != group:
            written.append(f"# {GROUPS[name]}")
        group = GROUPS[name]
        written.append(f"{found['code']}  # {descriptions[name]}")
    return "\n".join(written)


def packages(pyproject, lock):
    """The table of what the package needs: Python, then each package with its extra, its versions and its purpose.

    Args:
        pyproject: The text of pyproject.toml, whose comments are the purposes.
        lock: The text of requirements.txt.
    """
    project = tomllib.loads(pyproject)["project"]
    tested = dict(re.findall(r"^([\w-]+)==([^\s#]+)", lock, flags=re.MULTILINE))
    purposes = dict(re.findall(r'"([\w-]+)>=[^"]+"[],]*\s*# (.*)$', pyproject, flags=re.MULTILINE))
    optional = project["optional-dependencies"].items()
    groups = {"": project["dependencies"], **{extra: each for extra, each in optional if extra not in NOT_FOR_USERS}}
    rows = [("python", "", project["requires-python"].removeprefix(">="), "", "")]
    for extra, requirements in groups.items():
        own = [each.partition(">=") for each in requirements if not each.startswith(f"{project['name']}[")]
        rows += [(name, extra, lowest, tested[name], purposes[name]) for name, _, lowest in own]
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([("name", "extra", "lowest", "tested", "purpose"), *rows])
    return written.getvalue()


def outdated():
    """`{path: new text}` of each file that is out of date."""
    texts = {DEFAULT_YAML: default_yaml(), PAGE: page(PAGE.read_text(encoding="utf-8"))}
    texts[PACKAGES] = packages((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.txt").read_text())
    for path in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")):
        texts[path] = notebook(path.read_text(encoding="utf-8"), path.stem)
    return {path: text for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def main(check):
    files = outdated()
    for path, text in files.items():
        print(f"{'would change' if check else 'writing'} {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
    return int(check and bool(files))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
