"""Files saved before names in the code changed are still read: a model, its run, a packed set."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import alexnet
from alexnet.data.readers import packed
from alexnet.layers import WithinChannelLRN
from alexnet.recipe import Recipe
from alexnet.saving import detect_network

SAVED = Path(__file__).with_name("saved_before")


def test_a_model(tmp_path):
    """A model of net 145, with a layer whose name has changed; saved again, it loads again."""
    images = np.random.default_rng(1).integers(0, 256, (2, 67, 67, 3), np.uint8)
    expected = np.load(SAVED / "run" / "expected.npy")
    model = alexnet.load_checkpoint(SAVED / "run")
    assert detect_network(model) == "krizhevsky2012" and isinstance(model.get_layer("map_norm2"), WithinChannelLRN)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-4)
    alexnet.save_checkpoint(model, tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, rtol=1e-4)


@pytest.mark.once
def test_a_run():
    recipe = Recipe.read_run(SAVED / "run" / "params.yaml")
    assert (recipe.network, recipe.width, recipe.data_dir) == ("krizhevsky2012", 1 / 32, "images")
    assert [row["epoch"] for row in alexnet.read_history(SAVED / "run")] == [1]
    assert alexnet.checkpoint_info(SAVED / "run", alexnet.load_checkpoint(SAVED / "run")) == (["cat", "dog"], 72)


@pytest.mark.once
def test_a_packed_set(tmp_path):
    shutil.copytree(SAVED / "packed", tmp_path / "packed")
    packed.verify(tmp_path / "packed")
    training, validation = alexnet.load_data(Recipe(data_dir=str(tmp_path / "packed"), resize=72, image_size=67))
    assert training.class_names == ["cat", "dog"]
    assert np.bincount(training.labels).tolist() == [6, 6] and np.bincount(validation.labels).tolist() == [2, 2]
    squares = training.get_images(range(12))
    assert squares.shape == (12, 72, 72, 3) and 100 < squares.mean() < 150 and squares.std() > 20
