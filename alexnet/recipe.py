"""Recipe: every parameter of a run, validated. Knows nothing of Keras, so that the backend can still be chosen."""

import ast
import datetime
import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from alexnet import mounts
from alexnet.networks import INITIALIZERS, NETWORKS, find_network, network_of

BACKENDS = ("tensorflow", "jax", "torch")
DISTRIBUTIONS = ("none", "data", "two_columns")
CLASSES_FROM = ("folders", "subfolders", "table", "names")
# Parameters that say where and how a run is made; two runs that differ only in them make the same network.
NON_MODEL_FIELDS = {"backend", "cache_gb", "workers", "max_skipped", "views", "save_steps", "save_seconds"}
NON_MODEL_FIELDS |= {"run_dir", "name", "resume", "distribute"}

# Parameters that decide how data_dir is read.
DATA_FIELDS: tuple[str, ...] = ("data_dir", "training_dir", "validation_dir", "classes_from", "table", "image_column")
DATA_FIELDS += ("label_column", "table_encoding", "max_megapixels", "white_level")

# The groups of parameters, by their first field.
_GROUPS = {
    "backend": "Backend",
    "data_dir": "Data",
    "resize": "Images",
    "max_skipped": "Loading",
    "network": "Network",
    "epochs": "Training",
    "views": "Evaluation",
    "save_seconds": "Results",
}

_PACKAGE_PARENT = Path(__file__).resolve().parents[1]
# The checkout, with params and benchmarks; without one, the current folder.
PROJECT = _PACKAGE_PARENT if (_PACKAGE_PARENT / "params" / "default.yaml").is_file() else Path.cwd()
# A self-contained notebook unpacks the package, params and benchmarks into a folder that goes with its kernel. This
# file marks it.
UNPACKED = "unpacked.txt"
# Where relative paths start: the checkout, wherever a notebook's kernel was started; otherwise the current folder.
START = Path.cwd() if (PROJECT / UNPACKED).is_file() else PROJECT


class RecipeError(ValueError):
    """A parameter that cannot be used. The message has one line for each: name, received, allowed."""


def _no_bool(value):
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _known_network(name):
    find_network(name)
    return name


def _whole_from_text(value):
    return int(value) if isinstance(value, str) and value.isdigit() else _no_bool(value)


def _none(value):
    return None if value in ("", "None", "null") else value


def _text(value):
    """A whole number, a date or a path as text, the way it was written. A fraction is left alone, because the number
    does not tell how it was written: 1.10 and 1.1 are equal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(min_length=1), BeforeValidator(_text)]
Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,+-]*$", max_length=120), BeforeValidator(_text)
]
NoneOrText = Annotated[str | None, BeforeValidator(lambda value: _none(_text(value)))]


NoneOrNumber = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(lambda value: _none(_no_bool(value)))
]
NoneOrWhole = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(lambda value: _none(_no_bool(value)))]


class Recipe(BaseModel):
    """Every parameter of a run. A field's name is also the YAML key, the notebook's variable and the `--flag`.

    A field's description is what `--help` says of it; `make params` writes it into params/default.yaml,
    docs/parameters.md and the notebooks.

    Numbers may be given as text (YAML reads `1e-4` as text). Relative paths start at the project's folder.

    Raises:
        RecipeError: an unknown name, a wrong type or a value out of range, all of them in one message.

    Examples:
        >>> recipe = alexnet.Recipe(epochs=3, learning_rate="1e-3")
        >>> recipe.replace(width=0.5).learning_rate
        0.001
        >>> alexnet.Recipe(epoch=3)
        Traceback (most recent call last):
            ...
        alexnet.recipe.RecipeError: epoch: unknown parameter. Did you mean epochs?
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Annotated[Literal[BACKENDS] | None, BeforeValidator(lambda v: None if v == "None" else v)] = Field(
        None, description="tensorflow, jax or torch; None keeps KERAS_BACKEND"
    )

    data_dir: Text = Field(
        "shapes",
        description="a folder, .zip, .npz or Kaggle slug; or shapes, signs, cifar10, ... (docs/data.md)",
    )
    training_dir: NoneOrText = Field(
        None, description="folder of the training images, in data_dir or in each class folder; None to recognize it"
    )
    validation_dir: NoneOrText = Field(
        None, description="folder of the validation images, in the same places; None to recognize it"
    )
    classes_from: Annotated[Literal[CLASSES_FROM] | None, BeforeValidator(_none)] = Field(
        None, description="where the classes come from: folders, subfolders, table or names; None to recognize it"
    )
    table: NoneOrText = Field(
        None, description="file in data_dir that gives the classes, e.g. a CSV; None to recognize it"
    )
    image_column: NoneOrText = Field(
        None, description="column of the table with file names, or with images; None to recognize it"
    )
    label_column: NoneOrText = Field(None, description="column of the table with classes; None to recognize it")
    table_encoding: NoneOrText = Field(
        None, description="text encoding of the table, e.g. cp1252; None to recognize it"
    )
    max_megapixels: Number = Field(300.0, gt=0, description="a larger image is refused: it could be an attack")
    white_level: NoneOrNumber = Field(
        None, description="pixel value of white if the files do not say, e.g. 4095 for 12 bits in 16; None to find out"
    )
    resize: Whole = Field(80, ge=1, description="shorter side after decoding, in pixels; the central square is kept")
    image_size: Whole = Field(
        67, ge=1, description="side of the crop given to the network, in pixels; at least 67 for most networks"
    )
    validation_split: Number = Field(
        0.04, gt=0, lt=1, description="share held out where the data has no split of its own"
    )
    split_by: Literal["name", "order"] = Field(
        "name", description="which are held out: by a hash of each name, or by the order of all, as old runs did"
    )
    images_per_class: NoneOrWhole = Field(
        None, description="train on at most so many images of each class, chosen by seed; None for all"
    )
    random_crop: bool = Field(True, description="train on random crops; otherwise on the central one")
    mirror: bool = Field(True, description="mirror every other training image, at random")
    pca_color: Number = Field(
        0.0, ge=0, description="standard deviation of the color noise, 0.1 in the paper; 0 for none"
    )
    color_statistics: Literal["imagenet", "training"] = Field(
        "imagenet", description="where the mean and principal components of color come from: imagenet or training"
    )
    max_skipped: Number = Field(
        0.01,
        ge=0,
        le=1,
        description="share of images that may be unreadable; they are left out and listed in skipped.csv",
    )
    workers: Whole = Field(0, ge=0, description="threads that prepare batches; 0 for one on each core")
    cache_gb: Number = Field(1.0, ge=0, description="decoded images are kept in memory if they need no more than this")

    network: Annotated[Text, AfterValidator(_known_network)] = Field(
        "paper", description="which network: paper, caffe, torchvision, ... (README.md), or one that you registered"
    )
    activation: Literal["relu", "tanh"] = Field("relu", description="what follows each layer: relu or tanh")
    without: NoneOrText = Field(
        None, description="layers to leave out, e.g. conv4, or conv3+conv4 for both; None for none"
    )
    width: Number = Field(0.25, gt=0, description="factor of the number of filters and hidden units")
    initializer: Literal[INITIALIZERS] = Field(
        "he_normal", description="paper or he_normal; the paper's biases of 1 stall training on small data sets"
    )
    dropout: Number = Field(0.5, ge=0, lt=1, description="dropout rate of fc6 and fc7 in training")
    weights: NoneOrText = Field(None, description="a checkpoint to start from; None for fresh initial values")
    freeze: Whole = Field(0, ge=0, description="how many layers, from conv1 on, keep the checkpoint's values")

    epochs: Whole = Field(35, ge=1, description="passes over the training images")
    batch_size: Whole = Field(64, ge=1, description="images in a step of training or evaluation")
    learning_rate: Number = Field(
        0.005,
        gt=0,
        description="at the start, 0.01 in the paper for batches of 128; divided by 10 when validation stalls",
    )
    patience: Whole = Field(
        4, ge=1, description="epochs without improvement in validation before the learning rate is divided"
    )
    momentum: Number = Field(0.9, ge=0, lt=1, description="of gradient descent")
    weight_decay: Number = Field(
        0.0005, ge=0, description="of kernels, inside the momentum, times the network's own factors"
    )
    seed: Whole = Field(0, ge=0, lt=2**31, description="of initial values, dropout, shuffling and crops")
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="float32, mixed_bfloat16 or mixed_float16"
    )

    distribute: Literal[DISTRIBUTIONS] = Field(
        "none",
        description="none for one device; data for a share of each batch on every device; two_columns as in the paper",
    )

    views: Annotated[Literal[1, 10], BeforeValidator(_whole_from_text)] = Field(
        1, description="views of each image in the evaluation: 1, or 10 as in the paper"
    )

    save_seconds: Number = Field(
        300.0, ge=0, description="seconds after which the state is saved, as it is after each epoch; 0 for epochs only"
    )
    save_steps: Whole = Field(0, ge=0, description="steps after which it is saved as well; 0 for never")
    run_dir: Text = Field("runs", description="where runs are recorded, in run_dir/name/backend")
    name: Name = Field("default", description="what the run is called")
    resume: bool = Field(True, description="resume an unfinished run of this name")

    @property
    def row(self):
        """The `Network` that is trained: that of the name, with the recipe's activation and without its layers.

        Raises:
            ValueError: a layer that the network does not have or cannot do without.
        """
        return network_of(self.network, self.activation, self.without.split("+") if self.without else ())

    @model_validator(mode="after")
    def _network_fits(self):
        row = self.row
        if self.image_size < row.smallest_input:
            raise ValueError(
                f"image_size: received {self.image_size}; allowed: at least {row.smallest_input} for {self.network}"
            )
        if self.freeze >= len(row.weighted):
            raise ValueError(
                f"freeze: received {self.freeze}; allowed: at most {len(row.weighted) - 1}, of the "
                f"{len(row.weighted)} layers of {self.network}"
            )
        return self

    @model_validator(mode="after")
    def _run_dir_is_a_folder(self):
        if is_url(self.run_dir):
            raise ValueError(
                f"run_dir: received {self.run_dir!r}; allowed: a folder of this machine. Only the command batch takes "
                "a URL: it runs notebooks and puts their results there."
            )
        return self

    @model_validator(mode="after")
    def _crop_fits(self):
        if self.image_size > self.resize:
            raise ValueError(
                f"image_size: {self.image_size} is larger than resize, {self.resize}, out of which it is cut"
            )
        return self

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError("\n".join(_explain(error, values))) from None

    @classmethod
    def read(cls, *paths: str | os.PathLike[str], **values: Any) -> "Recipe":
        """The recipe of YAML files, later ones over earlier ones, and of keywords over both."""
        merged = {}
        for path in paths:
            merged.update(read_yaml(path))
        return cls(**{**merged, **values})

    @classmethod
    def read_run(cls, path: str | os.PathLike[str]) -> "Recipe":
        """The recipe in a run's `params.yaml`.

        One from before `split_by` held images out by their order; one from before `network` called it `preset`.
        """
        values = {"split_by": "order", **read_yaml(path)}
        if "preset" in values:
            values["network"] = values.pop("preset")
        return cls(**values)

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> "Recipe":
        """The recipe in a notebook's `globals()`: every variable that bears a field's name.

        Raises:
            RecipeError: as for any recipe, and as `check_parameters`.
        """
        check_parameters(variables)
        return cls(**{name: variables[name] for name in cls.model_fields if name in variables})

    def replace(self, **values: Any) -> "Recipe":
        """This recipe with other values in some fields, validated again."""
        return Recipe(**{**self.model_dump(), **values})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    @property
    def run_folder(self) -> Path:
        """`run_dir/name`: the runs of one name, a folder for each backend.

        On Kaggle a relative `run_dir` starts at /kaggle/working, which is what a notebook there keeps.
        """
        return _absolute(self.run_dir, mounts.WORKING if mounts.on_kaggle() else START) / self.name


def check_parameters(variables: Mapping[str, Any]) -> None:
    """Refuse parameters that a notebook does not have: papermill, which writes them into a cell, only warns.

    What a person defines in cells of his own is not looked at.

    Args:
        variables: The notebook's `globals()`.

    Raises:
        RecipeError: a name in papermill's cell that no cell above it defines.

    Examples:
        >>> epochs = 3
        >>> alexnet.check_parameters(globals())
    """
    known: list[str] = []
    for source in variables.get("In", ()):  # IPython's record of the cells that were run
        names = assigned_names(source)
        if known and source.lstrip().startswith("# Parameters\n"):  # so papermill's cell begins
            unknown = [name for name in names if name not in known]
            if unknown:
                raise RecipeError("\n".join(_unknown(name, known) for name in unknown))
        known += names


def assigned_names(source: str) -> list[str]:
    """The names that a notebook's cell gives values to."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:
        return []
    targets = [target for line in lines if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a params file. Text stays as it is written there: a `name` may be 007, 1.10 or 2026-11-25.

    Raises:
        RecipeError: the file is missing, is no YAML or holds something else than names and values.
    """
    path = Path(os.path.expanduser(path))
    try:
        content = _parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not YAML ({str(error).splitlines()[0]})") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise RecipeError(f"{path}: must hold one `name: value` a line. Received: {type(content).__name__}")
    return content


def _parse(text):
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise yaml.YAMLError(f"{twice[0]} is there twice")
            for key, value in node.value:
                if key.value in TEXTS and value.tag in _AS_WRITTEN:
                    value.tag = "tag:yaml.org,2002:str"
        return loader.construct_document(node)
    finally:
        loader.dispose()


def resolve(path: str | os.PathLike[str]) -> Path:
    """An absolute path of something to read. A relative one starts at the project's folder; on Kaggle, what is not
    there may be the slug of something attached, see `alexnet.mounts`.

    Raises:
        RecipeError: a slug that several of the attached things have.

    Examples:
        >>> alexnet.recipe.resolve("runs") == alexnet.recipe.PROJECT / "runs"
        True
        >>> str(alexnet.recipe.resolve("/data/photos"))
        '/data/photos'
    """
    found = _absolute(path, START)
    if os.path.exists(found):  # unlike Path's, never an error
        return found
    try:
        return mounts.find_mount(os.fspath(path)) or found
    except mounts.MountError as error:
        raise RecipeError(str(error)) from None


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, as `s3://bucket/runs`, and no path of this machine."""
    return "://" in os.fspath(path)


def _absolute(path, start):
    path = Path(os.path.expanduser(path))
    return path if path.is_absolute() else start / path


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean x?"`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _explain(error, values):
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            yield _unknown(name, Recipe.model_fields)
        elif not name:
            yield problem["msg"].removeprefix("Value error, ")
        else:
            received = values.get(name)
            known = NETWORKS if name == "network" else map(str, literal_values(name))
            near = nearest(received, known) if isinstance(received, str) else ""
            if name in TEXTS and isinstance(received, bool | float):  # YAML and papermill take yes and 1.10 for them
                near = " If it is meant as text, write it in quotes, or give it to papermill with -r instead of -p."
            yield f"{name}: received {received!r}; allowed: {describe_field(name)}.{near}"


def _unknown(name, known):
    return f"{name}: unknown parameter.{nearest(name, known) or ' Known: ' + ', '.join(known)}"


def grouped_fields() -> dict[str, list[str]]:
    """The names of the fields in each group, by the group's title."""
    groups: dict[str, list[str]] = {}
    title = ""
    for name in Recipe.model_fields:
        title = _GROUPS.get(name, title)
        groups.setdefault(title, []).append(name)
    return groups


def literal_values(name: str) -> list:
    """The values of a field that has a fixed list of them; otherwise none."""
    annotation = Recipe.model_fields[name].annotation
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    options += typing.get_args(annotation) if typing.get_origin(annotation) is typing.Union else ()
    return [value for option in options if typing.get_origin(option) is Literal for value in typing.get_args(option)]


def describe_field(name: str) -> str:
    """What a field takes, in words."""
    if name == "network":
        return ", ".join(NETWORKS)
    if name == "white_level":
        return "a number above 0, or None"
    if name == "images_per_class":
        return "a whole number at least 1, or None"
    if name == "name":
        return "letters, digits and . _ = , + -, beginning with a letter or digit"
    field = Recipe.model_fields[name]
    if literal_values(name):
        return ", ".join(map(str, literal_values(name))) + (", None" if field.default is None else "")
    if field.annotation is bool:
        return "true or false"
    if field.annotation not in (int, float):
        return "a path or None" if field.default is None else "a text"
    words = {"ge": "at least {}", "gt": "above {}", "lt": "below {}", "le": "at most {}"}
    limits = [
        text.format(getattr(rule, key)) for rule in field.metadata for key, text in words.items() if hasattr(rule, key)
    ]
    return " ".join(["a whole number" if field.annotation is int else "a number", " and ".join(limits)])


TEXTS = [name for name, field in Recipe.model_fields.items() if field.annotation in (str, str | None)]
_AS_WRITTEN = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}  # not null, true and false
