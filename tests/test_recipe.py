import ast
import datetime
import runpy
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from alexnet.recipe import PROJECT, Recipe, RecipeError, check_parameters, describe_field, grouped_fields, resolve

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


def parameters_cell(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1, f"{path.name} needs one cell tagged parameters"
    return cells[0].source


def assignments(source):
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}


def test_default_yaml_is_the_recipe():
    content = yaml.safe_load((ROOT / "params" / "default.yaml").read_text())
    assert list(content) == list(Recipe.model_fields)
    assert content == Recipe().model_dump()


def test_images_per_class_is_a_whole_number_or_none():
    for value, meant in ((20, 20), ("20", 20), (None, None), ("None", None)):
        assert Recipe(images_per_class=value).images_per_class == meant
    for value in (0, 2.5, True, "few"):
        with pytest.raises(RecipeError, match="allowed: a whole number at least 1, or None"):
            Recipe(images_per_class=value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: "-".join(path.parts[-2:]))
def test_parameters_cells_are_the_recipe(path):
    found = assignments(parameters_cell(path))
    assert "backend" in found
    assert found == {name: getattr(Recipe(), name) for name in found}


def test_the_training_notebook_has_every_parameter():
    assert list(assignments(parameters_cell(ROOT / "notebooks" / "02_train.ipynb"))) == list(Recipe.model_fields)


@pytest.fixture
def generator():
    return runpy.run_path(str(ROOT / "docs" / "write_parameters.py"))


def test_what_recipe_says_of_its_parameters_stands_everywhere(generator, monkeypatch):
    changed = [path.name for path in generator["outdated"]()]
    assert changed == [], "run `make params`"
    monkeypatch.setitem(generator["DESCRIPTIONS"], "momentum", "something else")
    changed = [path.name for path in generator["outdated"]()]
    assert changed == ["default.yaml", "parameters.md", "02_train.ipynb", "04_finetune.ipynb"]


def test_a_parameters_cell_keeps_names_values_order_and_own_lines(generator):
    rewrite, descriptions = generator["parameters_cell"], generator["DESCRIPTIONS"]
    own = '# Mine\nruns = [1, 2]  # how many\nepochs = 9  # old\n\nname = "a"'
    assert rewrite(own, {"epochs": "passes", "name": "which"}) == (
        '# Mine\nruns = [1, 2]  # how many\nepochs = 9  # passes\n\nname = "a"  # which'
    )
    some = [name for name in Recipe.model_fields if name not in ("data_dir", "views")]  # a group's first, and a group
    titled = rewrite("\n".join(f"{name} = 1" for name in some), descriptions)
    assert rewrite(titled, descriptions) == titled
    titles = [line.removeprefix("# ") for line in titled.splitlines() if line.startswith("#")]
    assert titles == [title for title in grouped_fields() if title != "Evaluation"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: "-".join(path.parts[-2:]))
def test_papermill_shows_what_parameters_mean(path, generator):
    expected = generator["DESCRIPTIONS"] | generator["NOTEBOOK_DESCRIPTIONS"].get(path.stem, {})
    shown = papermill.inspect_notebook(path)
    assert {name: parameter["help"] for name, parameter in shown.items()} == {name: expected[name] for name in shown}
    assert list(shown) == list(assignments(parameters_cell(path)))
    if path.parent.name == "notebooks":  # the solutions of its exercises have no such parameters
        assert set(generator["NOTEBOOK_DESCRIPTIONS"].get(path.stem, ())) <= set(shown)


@pytest.mark.parametrize("name", ["cifar10", "paper", "brief", "finetune"])
def test_other_files_hold_only_what_differs(name):
    path = ROOT / "params" / f"{name}.yaml"
    recipe, default = Recipe.read(path), Recipe()
    for key in yaml.safe_load(path.read_text()):
        assert getattr(recipe, key) != getattr(default, key), key


def test_the_brief():
    brief = Recipe.read(ROOT / "params" / "brief.yaml")
    assert (brief.resize, brief.image_size, brief.width, brief.initializer) == (256, 256, 1.0, "paper")
    assert (brief.batch_size, brief.learning_rate, brief.momentum, brief.weight_decay) == (128, 0.01, 0.9, 0.0005)
    assert (brief.validation_split, brief.epochs) == (0.04, 10)


def test_numbers_as_text_are_numbers(tmp_path):
    (tmp_path / "x.yaml").write_text("weight_decay: 1e-4\nepochs: '3'\nmirror: off\nweights: null\n")
    recipe = Recipe.read(tmp_path / "x.yaml", learning_rate="2e-3", backend="None")
    assert (recipe.weight_decay, recipe.epochs, recipe.mirror, recipe.learning_rate) == (1e-4, 3, False, 2e-3)
    assert recipe.weights is None and recipe.backend is None


def test_later_files_and_keywords_win(tmp_path):
    for name, epochs in (("a", 3), ("b", 4)):
        (tmp_path / f"{name}.yaml").write_text(f"epochs: {epochs}\n")
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    assert Recipe.read(*paths).epochs == 4
    assert Recipe.read(*paths, epochs=5).epochs == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learnin_rate": 0.1}, "learnin_rate: unknown parameter. Did you mean learning_rate?"),
        ({"zzz": 1}, "zzz: unknown parameter. Known: backend, data_dir"),
        ({"learning_rate": "fast"}, "learning_rate: received 'fast'; allowed: a number above 0."),
        ({"learning_rate": float("nan")}, "learning_rate: received nan; allowed: a number above 0."),
        ({"epochs": 2.5}, "epochs: received 2.5; allowed: a whole number at least 1."),
        ({"epochs": True}, "epochs: received True; allowed: a whole number at least 1."),
        ({"dropout": 1}, "dropout: received 1; allowed: a number at least 0 and below 1."),
        ({"mirror": "perhaps"}, "mirror: received 'perhaps'; allowed: true or false."),
        ({"backend": "jaxx"}, "allowed: tensorflow, jax, torch, None. Did you mean jax?"),
        ({"network": "papper"}, "Did you mean paper?"),
        ({"image_size": 66}, "image_size: received 66; allowed: at least 67 for paper"),
        ({"image_size": 227}, "image_size: 227 is larger than resize, 80"),
        ({"name": "../outside"}, "name: received '../outside'; allowed: letters, digits"),
        ({"data_dir": None}, "data_dir: received None; allowed: a text."),
    ],
)
def test_errors_name_the_field_what_came_and_what_may(values, message):
    with pytest.raises(RecipeError) as error:
        Recipe(**values)
    assert message in str(error.value)


def test_all_errors_come_at_once():
    with pytest.raises(RecipeError) as error:
        Recipe(epochs=0, widht=1.0)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("content", ["- a\n- b\n", "just text", "a: [", "1: 2"])
def test_files_that_are_no_parameters(tmp_path, content):
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(RecipeError, match="x.yaml"):
        Recipe.read(tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.read(tmp_path / "absent.yaml")


def test_yaml_does_not_make_objects(tmp_path):
    (tmp_path / "x.yaml").write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(RecipeError, match="is not YAML"):
        Recipe.read(tmp_path / "x.yaml")


def test_every_field_is_described_and_in_one_group():
    for name, field in Recipe.model_fields.items():
        assert field.description and not set("=#|\n") & set(field.description), name  # papermill, YAML, tables
        assert describe_field(name)
    assert [name for names in grouped_fields().values() for name in names] == list(Recipe.model_fields)
    assert None not in grouped_fields()


def test_yaml_round_trip_and_paths(tmp_path):
    recipe = Recipe(weights="x.keras", width=0.5)
    (tmp_path / "x.yaml").write_text(recipe.to_yaml())
    assert Recipe.read(tmp_path / "x.yaml") == recipe
    assert PROJECT == ROOT and resolve("runs") == ROOT / "runs" and resolve(tmp_path) == tmp_path


def test_a_notebooks_variables():
    variables = {"epochs": 7, "recipe": "something else", "In": []}
    assert Recipe.from_notebook(variables) == Recipe(epochs=7)


@pytest.mark.parametrize("text", ["007", "1.10", "1e3", "2026-11-25", "1_000", "'on'"])
def test_text_in_a_file_stays_as_it_is_written(tmp_path, text):
    (tmp_path / "x.yaml").write_text(f"name: {text}\ndata_dir: {text}\nwidth: 1e-1\n")
    recipe = Recipe.read(tmp_path / "x.yaml")
    assert (recipe.name, recipe.data_dir, recipe.width) == (text.strip("'"), text.strip("'"), 0.1)


def test_numbers_dates_and_paths_as_text():
    """As papermill's -p and programs give them."""
    assert Recipe(name=1).name == "1" and Recipe(data_dir=2012).data_dir == "2012"
    assert Recipe(name=datetime.date(2026, 11, 25)).name == "2026-11-25"
    assert Recipe(data_dir=Path("a") / "b", weights=Path("c.keras")).weights == "c.keras"
    for value in (1.1, True):  # it could have been 1.10; and on, yes or true
        with pytest.raises(
            RecipeError, match="name: received .* meant as text, write it in quotes, .* papermill with -r"
        ):
            Recipe(name=value)


def test_a_name_that_stands_twice_in_a_file(tmp_path):
    (tmp_path / "x.yaml").write_text("epochs: 1\nwidth: 1\nepochs: 2\n")
    with pytest.raises(RecipeError, match="epochs is there twice"):
        Recipe.read(tmp_path / "x.yaml")


PARAMETERS = 'backend = None  # which\nepochs = 3\nname = "a"'


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [PARAMETERS, "# Parameters\nepochs = 1\nlearnin_rate = 1\n"],
            "learnin_rate: unknown parameter. Known: backend",
        ),
        (["%time", PARAMETERS, "# Parameters\nepocs = 1\n"], "epocs: unknown parameter. Did you mean epochs?"),
        ([PARAMETERS, '# Parameters\nepochs = 1\nname = "b"\n'], None),
        ([PARAMETERS, "epocs = 1"], None),  # a user's own variable
        (["# Parameters\nepochs = 1\n"], None),  # nothing to compare with
        ([PARAMETERS, "a syntax error"], None),
    ],
)
def test_papermill_s_names_are_compared_with_the_notebook_s(cells, message):
    variables = {"In": ["", *cells], "epochs": 1}
    if message is None:
        check_parameters(variables)
        assert Recipe.from_notebook(variables).epochs == 1
    else:
        for check in (check_parameters, Recipe.from_notebook):
            with pytest.raises(RecipeError) as error:
                check(variables)
            assert message in str(error.value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: "-".join(path.parts[-2:]))
def test_every_notebook_checks_its_parameters_first(path):
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert code[1].index("alexnet.check_parameters(globals())") < code[1].index("keras = ")


def test_views_and_freeze():
    assert Recipe(views="10").views == 10  # as the command line gives it
    for values, message in (
        ({"views": 5}, "views: received 5; allowed: 1, 10"),
        ({"freeze": 8, "weights": "a.pth"}, "freeze: received 8; allowed: at most 7, of the 8 layers of paper"),
    ):
        with pytest.raises(RecipeError) as error:
            Recipe(**values)
        assert message in str(error.value)


def test_finetuning_fits_the_checkpoint_that_it_names():
    recipe = Recipe.read(ROOT / "params" / "finetune.yaml")
    assert (recipe.network, recipe.image_size, recipe.width, recipe.freeze) == ("torchvision", 224, 1.0, 5)
    assert Path(recipe.weights).name == "alexnet-owt-7be5be79.pth"
