"""The model card of a run: what hubs read from it, and that it agrees with the run's record."""

import copy
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from runs_helpers import BACKEND, metrics

from alexnet.cli.parser import build_parser
from alexnet.recipe import Recipe
from alexnet.training import read_history, train
from alexnet.training.model_card import model_card

pytestmark = pytest.mark.once

SAVED = Path(__file__).with_name("saved_before") / "run"


@pytest.fixture
def recorded():
    """A run's record, with every parameter that runs have now."""
    found = json.loads((SAVED / "metrics.json").read_text())
    found["parameters"]["network"] = found["parameters"].pop("preset")
    found["parameters"] = Recipe(**found["parameters"]).model_dump()
    return found


def head(card):
    """The YAML between the first two lines of dashes, as a hub cuts it out."""
    _, text, rest = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert rest.startswith("\n\n# ")
    return yaml.safe_load(text)


def row(card, name):
    """The cells of a row of a table."""
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:]


def values(card):
    (entry,) = head(card)["model-index"]
    (result,) = entry["results"]
    return {metric["name"]: metric["value"] for metric in result["metrics"]}


def test_a_run_writes_its_card(tiny):
    run = train(Recipe(**{**tiny, "epochs": 1}, without="conv3+conv4"), verbose=0)
    found, history = metrics(run), read_history(run.folder)
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(found, history)

    assert values(card) == {
        "top-1 accuracy, one view": found["results"]["val_top1"],
        "top-5 accuracy, one view": found["results"]["val_top5"],
        "cross-entropy, one view": found["results"]["val_loss"],
    }
    known = head(card)
    assert (known["library_name"], known["pipeline_tag"]) == ("keras", "image-classification")
    assert known["tags"] == ["alexnet", "keras"] and not {"license", "datasets"} & set(known)
    assert known["model-index"][0]["name"] == "tiny"
    assert known["model-index"][0]["results"][0]["dataset"] == {
        "name": "small",
        "type": "imagefolder",
        "split": "validation",
    }

    assert row(card, "network") == [
        "paper (the text of the paper), 0.0625 times as many filters and hidden units, without conv3 and conv4"
    ]
    assert row(card, "parameters") == [f"{run.model.count_params():,}"]
    assert row(card, "classes") == ["3: cross, ring, triangle"]
    assert row(card, "training images") == ["72"] and row(card, "validation images")[0].startswith("18")
    assert row(card, "one view")[0] == f"{found['results']['val_top1']:.2%}"
    assert row(card, "learning rate in the last epoch") == ["0.005"]
    assert f"Keras {found['versions']['keras']}" in row(card, "versions")[0]
    for path in (run.folder, tiny["data_dir"], tiny["run_dir"], Path.home()):
        assert str(path) not in card


def test_ten_views_stand_beside_one(recorded):
    recorded["ten_views"] = {"top1": 0.123456, "top5": 0.75, "loss": 1.25}
    card = model_card(recorded, [])
    assert values(card) == {
        "top-1 accuracy, one view": recorded["results"]["val_top1"],
        "top-5 accuracy, one view": recorded["results"]["val_top5"],
        "cross-entropy, one view": recorded["results"]["val_loss"],
        "top-1 accuracy, ten views": 0.123456,
        "top-5 accuracy, ten views": 0.75,
        "cross-entropy, ten views": 1.25,
    }
    assert row(card, "ten views") == ["12.35%", "75.00%", "1.2500"]


def test_a_run_that_fails_has_no_card(tiny):
    recipe = Recipe(**{**tiny, "learning_rate": 1e30, "epochs": 1})
    folder = recipe.run_folder / BACKEND
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("of the run before")
    with pytest.raises(RuntimeError):
        train(recipe, verbose=0)
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    "name",
    ["a: b", "# no", "|cats|", "<b>cats", "`rm`", "---", "two\nlines", "\udcff cats", "'\"", "*", "yes", "1.10"],
)
def test_strange_names(recorded, name):
    recorded["data"]["class_names"] = [name, "dog"]
    recorded["parameters"]["data_dir"] = f"/home/somebody/{name}/"
    card = model_card(recorded, [])
    card.encode()
    (entry,) = head(card)["model-index"]
    shown = entry["results"][0]["dataset"]["name"]
    assert shown == {"two\nlines": r"two\nlines", "\udcff cats": r"\udcff cats"}.get(name, name)
    (classes,) = row(card, "classes")
    assert classes.startswith("2: ") and classes.endswith(", dog") and "<" not in classes
    assert "somebody" not in card and len(re.findall("^---$", card, flags=re.MULTILINE)) == 2
    words = shlex.split(command(card))
    assert words[words.index("--data_dir") + 1] == shown


def command(card):
    return re.search(r"^    (python -m alexnet train .*)$", card, flags=re.MULTILINE)[1]


@pytest.mark.parametrize(
    ("data_dir", "shown"),
    [
        ("/data/flowers", "flowers"),
        ("photos.zip", "photos.zip"),
        (r"C:\Users\somebody\photos", "photos"),
        ("owner/slug", "slug"),
        *((path, "a folder of images") for path in (".", "..", "~", "/")),
    ],
)
def test_the_data_set_is_named_without_its_path(recorded, data_dir, shown):
    recorded["parameters"]["data_dir"] = data_dir
    card = model_card(recorded, [])
    assert row(card, "data set") == [shown]
    assert not {"datasets"} & set(head(card))


def test_published_sets_are_named_as_hubs_do(recorded):
    recorded["parameters"]["data_dir"] = "cifar10"
    card = model_card(recorded, [])
    assert head(card)["datasets"] == ["cifar10"] and "--data_dir" not in command(card)
    imagenet = copy.deepcopy(recorded)
    imagenet["parameters"]["data_dir"] = "/somewhere/ILSVRC2012"
    imagenet["data"] |= {"source": "ImageNet as Kaggle ships it", "class_names": [f"n{i}" for i in range(1000)]}
    card = model_card(imagenet, [])
    assert head(card)["datasets"] == ["imagenet-1k"]
    assert row(card, "classes")[0].endswith("and 980 more, listed in metrics.json")


def test_how_to_train_it_again_is_understood(recorded):
    recorded["parameters"] |= {"weights": "/home/somebody/net.pth", "freeze": 2, "network": "a network of their own"}
    card = model_card(recorded, [])
    options = build_parser().parse_args(shlex.split(command(card))[3:])
    assert (options.params, options.name, options.backend) == (["params.yaml"], "again", "torch")
    assert (options.data_dir, options.weights) == ("images", "net.pth")
    assert row(card, "network")[0].startswith("a network of their own, 0.03125 times")
