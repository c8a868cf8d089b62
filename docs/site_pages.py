"""Hooks for MkDocs: which pages are outside of docs/, and where links lead on the site.

On GitHub the links of README.md and of the pages lead to files of the repository. On the site they lead to the page
made from the file, to a copy of a picture or a notebook, or to the repository if mkdocs.yml names one.
"""

import posixpath
import re
import sys
from pathlib import Path

import nbformat
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs runs this file without its folder

from notebook_pages import as_page  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def on_files(files, config):
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for picture in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb"):
        target = path.relative_to(ROOT).with_suffix(".html").as_posix()
        page = as_page(nbformat.read(path, 4), folder=path.parent)
        files.append(File.generated(config, target, content=with_links(page)))
    return files


def with_links(page):
    """The page of a notebook with its links to notebooks and to docs/ leading to the site's pages."""
    page = re.sub(r'(href="[^":]*)\.ipynb(["#])', r"\1.html\2", page)
    return re.sub(r'href="((?:\.\./)+)docs/(\w+)\.md', r'href="\1\2/', page)


def on_page_markdown(markdown, page, config, files):
    """The page with links to files turned into links to the site. Blocks of code stay as they are."""
    here = {target: source for source, target in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replace(match):
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        name, hash_, anchor = target.partition("#")
        name = posixpath.normpath(posixpath.join(posixpath.dirname(here), name))
        if there := site_path(name, files):
            return f"{mark}[{text}]({posixpath.relpath(there, posixpath.dirname(page.file.src_uri))}{hash_}{anchor})"
        if not (ROOT / name).exists():
            return match[0]  # MkDocs reports the broken link
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{name}{hash_}{anchor})"
        return text if re.fullmatch(r"[\w ,]+|.*`.*", text) else f"`{text}`"  # the name of a file

    parts = re.split(r"(^```.*?^```$|^ {4}.*?$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if index % 2 else LINK.sub(replace, part) for index, part in enumerate(parts))


def site_path(name, files):
    """The site's path for a file of the repository, or None."""
    candidates = (
        PAGES.get(name),
        name.removeprefix("docs/") if name.startswith("docs/") else None,
        name.replace("benchmarks/results/", "results/"),
        re.sub(r"\.ipynb$", ".html", name),
    )
    return next((each for each in candidates if each and files.get_file_from_path(each)), None)
