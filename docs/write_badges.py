"""Write badges that open the notebooks in Colab and on Kaggle, once pyproject.toml names the project's repository.

make params
python docs/write_badges.py

With `repository = "OWNER/NAME"` in [tool.alexnet], each notebook in README's list has a badge for Colab and one for
Kaggle, and `hosted/` has the notebooks that they open. These have the package in a cell, since both hosts open only
that one file. While `repository` is empty, there are neither badges nor `hosted/`.
"""

import re
from pathlib import Path

from alexnet.hosting import repository, self_contained

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BADGES = {
    "Colab": ("https://colab.research.google.com/assets/colab-badge.svg", "https://colab.research.google.com/github/"),
    "Kaggle": (
        "https://kaggle.com/static/images/open-in-kaggle.svg",
        "https://kaggle.com/kernels/welcome?src=https://github.com/",
    ),
}
_BADGE = re.compile(r" \[!\[Open in \w+\]\([^()]*\)\]\([^()]*\)")
_ENTRY = re.compile(r"^- \[\w+\]\(notebooks/(\w+)\.ipynb\)", flags=re.MULTILINE)


def readme(text: str, repository: str) -> str:
    """README with the badges of a repository, or without any if it is empty."""
    text = _BADGE.sub("", text)
    if not repository:
        return text

    def add(match):
        place = f"{repository}/blob/main/hosted/{match[1]}.ipynb"
        badges = [f" [![Open in {host}]({picture})]({address}{place})" for host, (picture, address) in BADGES.items()]
        return match[0] + "".join(badges)

    return _ENTRY.sub(add, text)


def main() -> None:
    where = repository()
    text = README.read_text(encoding="utf-8")
    if readme(text, where) != text:
        print("writing README.md")
        README.write_text(readme(text, where), encoding="utf-8", newline="\n")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if where else ():
        (ROOT / "hosted").mkdir(exist_ok=True)
        target = ROOT / "hosted" / path.name
        print(f"writing {target.relative_to(ROOT)}")
        target.write_text(self_contained(path, {}, repository=where), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
