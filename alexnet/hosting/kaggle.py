"""The folder that `kaggle kernels push -p FOLDER` sends: a notebook and `kernel-metadata.json`."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.atomic import write_text
from alexnet.data.readers import NAMED
from alexnet.data.readers.arrays import KERAS_DATASETS
from alexnet.hosting.notebook import (
    HostingError,
    checked_parameters,
    default_parameters,
    find_notebook,
    read_notebook,
    self_contained,
)

METADATA = "kernel-metadata.json"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_OWNED = f"{_NAME}/{_NAME}"
# What each kind of source looks like, and how it is written in a sentence.
_SOURCES = {
    "data": (_OWNED, "OWNER/SLUG"),
    "competition": (_NAME, "SLUG"),
    "kernel": (_OWNED, "OWNER/SLUG"),
    "model": (f"{_OWNED}/{_NAME}/{_NAME}/[0-9]+", "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
}


@dataclass
class KernelOptions:
    """What Kaggle is asked for.

    Attributes:
        user: Who pushes it.
        title: The notebook's, five to fifty letters, from which its address is made; None for one from its file.
        gpu, internet, public: Whether it runs with a GPU, has internet, and may be seen by everybody.
        data, competition, kernel, model: What is attached, as lists of slugs: data sets, competitions' data, other
            notebooks' outputs, models.
    """

    user: str
    title: str | None = None
    gpu: bool = False
    internet: bool = False
    public: bool = False
    data: tuple[str, ...] = ()
    competition: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    model: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises HostingError: a name that Kaggle would not take."""
        if not re.fullmatch(_NAME, self.user):
            raise HostingError(f"--user: a Kaggle user name has letters, digits, - and _. Received: {self.user!r}.")
        for kind, (pattern, shown) in _SOURCES.items():
            for slug in getattr(self, kind):
                if not re.fullmatch(pattern, slug):
                    raise HostingError(f"--{kind} takes {shown}, as in the address of its page. Received: {slug!r}.")
        if self.title is not None and not 5 <= len(self.title) <= 50:
            raise HostingError(f"--title: Kaggle takes 5 to 50 letters. Received: {len(self.title)}.")


def slug_of(title: str) -> str:
    """The last part of a notebook's address, as Kaggle makes it of a title."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def metadata(options: KernelOptions, title: str, code_file: str) -> dict[str, Any]:
    """`kernel-metadata.json`: every key that the client reads, so that none of its defaults matters."""
    return {
        "id": f"{options.user.lower()}/{slug_of(title)}",
        "title": title,
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": not options.public,
        "enable_gpu": options.gpu,
        "enable_tpu": False,
        "enable_internet": options.internet,
        "machine_shape": "NvidiaTeslaT4" if options.gpu else "",
        "dataset_sources": list(options.data),
        "competition_sources": list(options.competition),
        "kernel_sources": list(options.kernel),
        "model_sources": list(options.model),
        "keywords": [],
        "docker_image": None,
        "docker_image_pinning_type": "latest",
    }


def write_kernel(
    notebook: str, folder: Path, options: KernelOptions, values: Mapping[str, Any], repository: str = ""
) -> dict[str, Any]:
    """Write the folder; what it holds of an earlier call is replaced.

    Args:
        notebook: A path, or the name of one of the project's notebooks.
        folder: Where to; made if it is not there.
        options: `KernelOptions`.
        values: Parameters by name. Where `data_dir` is none of them, it is what `options` attach, if that is one.
        repository: As `self_contained` takes it.

    Returns:
        The content of `kernel-metadata.json`.

    Raises:
        HostingError, RecipeError: something that Kaggle or the notebook would not take; nothing is written then.
        OSError: the folder cannot be written.
    """
    options.check()
    path = find_notebook(notebook)
    title = options.title or f"AlexNet {path.stem.replace('_', ' ')}"
    if len(slug_of(title)) < 5:
        raise HostingError(f"--title: no address can be made of {title!r}. Use letters of the English alphabet.")
    if foreign := sorted(each.name for each in _contents(folder) if each.name not in (METADATA, path.name)):
        raise HostingError(f"{folder} holds other files ({', '.join(foreign[:3])}). Give an empty or a new folder.")
    page = read_notebook(path)
    own = default_parameters(page)
    values = checked_parameters(page, {**_chosen_data(values, own, options), **values}, path.name)
    _require_attached({**own, **values}, options)
    text = self_contained(path, values, options.gpu, repository)
    content = metadata(options, title, path.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / path.name, text)
    write_text(folder / METADATA, json.dumps(content, indent=2) + "\n")
    return content


def _contents(folder):
    if folder.exists() and not folder.is_dir():
        raise HostingError(f"{folder} is a file; a folder is needed.")
    return folder.iterdir() if folder.is_dir() else ()


def _chosen_data(values, own, options):
    """`data_dir` is what is attached, if nothing else was said and there is no choice."""
    attached = [*options.data, *options.competition]
    if "data_dir" in values or "data_dir" not in own or not attached:
        return {}
    if len(attached) > 1:
        raise HostingError(f"{len(attached)} sources of data are attached; say which is trained on: -p data_dir SLUG.")
    return {"data_dir": attached[0]}


def _require_attached(values, options):
    """What a notebook reads on Kaggle is attached, drawn there, or downloaded with the internet that it has."""
    attached = [*options.data, *options.competition, *options.kernel, *options.model]
    names = [f"{slug}/".lower() for source in attached for slug in (source, source.partition("/")[2]) if slug]
    if values.get("data_dir") in KERAS_DATASETS and not options.internet:
        raise HostingError(f"data_dir: {values['data_dir']} is downloaded, which takes --internet.")
    for name in ("data_dir", "weights"):
        value = values.get(name)
        if value is None or (name == "data_dir" and value in NAMED):
            continue
        wanted = f"{value}/".lower()
        if not wanted.startswith(("/kaggle/", *names)) and not any(each.startswith(wanted) for each in names):
            raise HostingError(
                f"{name}: {value} is not attached, and Kaggle does not see this machine's files. "
                "Attach it with --data, --competition, --kernel or --model."
            )
