import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from alexnet import plotting
from alexnet.model import AlexNet, summarize_layers
from alexnet.plotting.style import RIGHT, RIGHT_TEXT, WRONG_TEXT, png
from alexnet.training import Run

pytestmark = pytest.mark.once

HISTORY = [
    {"epoch": e, "loss": 2 / e, "val_loss": 1.5 / e, "top1": 1 - 1 / e, "val_top1": 1 - 0.8 / e, "learning_rate": rate}
    for e, rate in ((1, 0.1), (2, 0.1), (3, 0.01))
]


def test_every_figure_draws_and_none_stays_open():
    model = AlexNet(input_shape=(67, 67, 3), classes=5, width=0.25)
    images = np.random.default_rng(0).integers(0, 256, (7, 67, 67, 3), dtype="uint8")
    labels, names = np.arange(7) % 5, list("abcde")
    drawn = [
        plotting.gallery(images, labels, names),
        plotting.curves(HISTORY),
        plotting.filters(model),
        plotting.predictions(images, labels, np.full((7, 5), 0.2), names),
        plotting.shares(summarize_layers(model)),
        plotting.network(model),
        plotting.network(AlexNet("torchvision", (67, 67, 3), classes=5, width=0.25)),
        plotting.activations(),
        plotting.normalized_map(images[0], np.eye(5), np.eye(5) / 2),
        plotting.dropout({row: np.arange(32) % 3 for row in "abc"}),
        plotting.normalization(np.arange(8), np.arange(8) / 2, marked=(1, 2)),
        plotting.comparison([("a jax", "jax", HISTORY), ("b jax", "jax", HISTORY)]),
        plotting.neighbors(images[:2], np.stack([images[:3], images[3:6]]), ["a", "b"], [["a", "b", "a"]] * 2),
        plotting.occlusion(images[:2], np.full((2, 5, 5), 0.3), ["a", "a name that is much too long"]),
        plotting.occlusion(images[:1], np.full((1, 5, 5), 0.3), ["a"]),
        plotting.confusion(np.eye(5, dtype=int), names),
        plotting.confusion(np.eye(100, dtype=int), [str(i) for i in range(100)]),
    ]
    for figure in drawn:
        figure.canvas.draw()
        assert len(figure.alt) > 30 and figure.alt.endswith(".") and "\n" not in figure.alt
    assert plt.get_fignums() == []


def test_a_notebook_shows_figures_sharp_and_described(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata)))
    figure = plotting.curves(HISTORY)
    from IPython.core.formatters import IPythonDisplayFormatter

    assert IPythonDisplayFormatter()(figure) is True  # otherwise IPython does not show it
    ((data, metadata),) = shown
    picture = Image.open(io.BytesIO(data["image/png"]))
    described = metadata["image/png"]
    assert picture.width // 2 == described["width"] > 500 and picture.height // 2 == described["height"]
    assert "the validation error from 80% to 27%" in described["alt"]
    assert picture.mode == "P" and len(data["image/png"]) < 60_000
    noise = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3))
    assert Image.open(io.BytesIO(png(plotting.gallery(noise, [0] * 10, "a")))).mode == "RGB"


def test_a_saved_figure_is_described_in_its_file(tmp_path):
    figure = plotting.curves(HISTORY)
    assert Run(tmp_path, recipe=None).save_figure(figure, "curves") is figure
    assert Image.open(tmp_path / "figures" / "curves.png").text["Description"] == figure.alt


def test_curves_show_what_happened():
    loss, error = plotting.curves(HISTORY).axes
    assert loss.lines[0].get_ydata() == pytest.approx([2, 1, 2 / 3])
    assert error.lines[1].get_ydata() == pytest.approx([0.8, 0.4, 0.8 / 3])
    assert error.lines[2].get_xdata()[0] == 2.5  # where the learning rate was divided


def test_predictions_mark_the_right_answer():
    shares = np.array([[0.1, 0.6, 0.3]])
    figure = plotting.predictions(np.zeros((1, 8, 8, 3)), [2], shares, list("abc"), columns=1)
    bars = figure.axes[1].patches
    assert [text.get_text() for text in figure.axes[1].texts] == ["✗ b", "✓ c", "a"]
    assert "c (predicted b)" in figure.alt
    assert [bar.get_width() for bar in bars] == pytest.approx([0.6, 0.3, 0.1])
    assert [plt.matplotlib.colors.to_hex(bar.get_facecolor()) == RIGHT for bar in bars] == [False, True, False]


def test_filters_are_shown_whole():
    model = AlexNet(input_shape=(67, 67, 3), classes=2, width=0.25)
    kernel, _ = model.get_layer("conv1").get_weights()
    shown = [axes.images[0].get_array() for axes in plotting.filters(model).axes if axes.images]
    assert len(shown) == 24
    reach = np.abs(kernel[..., 5]).max()
    np.testing.assert_allclose((shown[5] - 0.5) * 2 * reach, kernel[..., 5], atol=1e-6)
    unchanged = [axes.images[0].get_array() for axes in plotting.filters(model, before=model).axes if axes.images]
    assert (unchanged[5] == 0.5).all()


def test_tables():
    text = plotting.table([{"a": "x", "b": 1234, "c": (3, 4)}], {"a": "A", "b": "B", "c": "C"}).data
    assert text.splitlines() == ["| A | B | C |", "| :--- | ---: | :--- |", "| x | 1,234 | 3\u00a0×\u00a04 |"]
    text = plotting.table([{"a": 0.98, "b": 1.5}], {"a": "A", "b": "B"}, {"a": ".1%"}).data
    assert text.splitlines()[1:] == ["| ---: | ---: |", "| 98.0% | 1.5 |"]


def test_confusion_is_in_shares_of_each_class():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]])
    axes = plotting.confusion(counts, list("abc")).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]])
    assert [text.get_text() for text in axes.texts] == ["75", "25", "100"]


def test_neighbors_of_another_class_are_marked():
    images = np.zeros((2, 8, 8, 3))
    grid = plotting.neighbors(images[:1], images[None], ["a"], [["a", "b"]]).axes
    colors = {axes.get_title(loc="center"): axes.title.get_color() for axes in grid if axes.images}
    assert colors["✓ a"] == RIGHT_TEXT and colors["✗ b"] == WRONG_TEXT


def test_the_network_is_drawn_with_its_kernels_norms_and_columns():
    texts = [text.get_text() for text in plotting.network(AlexNet(classes=10)).axes[0].texts]
    by_name = dict(zip(texts[::3], zip(texts[1::3], texts[2::3], strict=True), strict=True))
    assert by_name["pixels"] == ("", "227×227\n3")
    assert by_name["conv1"] == ("11×11 /4", "55×55\n48 + 48")
    assert by_name["conv4"] == ("3×3", "13×13\n192 + 192")
    assert by_name["pool5"] == ("3×3 /2", "6×6\n128 + 128")
    assert by_name["fc7"] == ("", "2048\n+ 2048") and by_name["fc8"] == ("", "10")
    assert {"norm1", "norm2"} <= set(by_name) and "relu1" not in by_name


def test_pooling_shows_the_maxima():
    values = np.arange(49).reshape(7, 7)
    axes = plotting.pooling(values).axes
    for found, size in ((axes[1], 3), (axes[3], 2)):
        expected = [[values[y + size - 1, x + size - 1] for x in (0, 2, 4)] for y in (0, 2, 4)]
        np.testing.assert_array_equal(found.images[0].get_array(), expected)
    assert [len(each.patches) for each in axes] == [9, 0, 9, 0]
