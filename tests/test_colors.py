"""Colors that are used together, as people with red-green blindness see them."""

import itertools

import numpy as np
import pytest

from alexnet.plotting import style

pytestmark = pytest.mark.once

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIMULATIONS = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "full sight": np.eye(3),
}
TOGETHER = {
    "backends": [*style.BACKEND_COLORS.values(), style.INK],
    "bars of predictions": [style.RIGHT, style.WRONG],
    "names of neighbors": [style.RIGHT_TEXT, style.WRONG_TEXT],
    "curves, candidates": [style.ACCENT, style.SOFT],
    "forward and backward": [style.ACCENT, style.PALE],
    "kinds of layers": style.LAYER_COLORS.values(),
}


def linear(color):
    """`#rrggbb` as linear RGB from 0 to 1."""
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen(color, simulation):
    """sRGB from 0 to 255."""
    values = np.clip(np.array(SIMULATIONS[simulation]) @ linear(color), 0, 1)
    return 255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def distance(one, other, simulation):
    return np.linalg.norm(seen(one, simulation) - seen(other, simulation))


def contrast(one, other):
    """As WCAG defines it."""
    light = sorted(linear(color) @ [0.2126, 0.7152, 0.0722] + 0.05 for color in (one, other))
    return light[1] / light[0]


@pytest.mark.parametrize("simulation", SIMULATIONS)
@pytest.mark.parametrize("colors", TOGETHER.values(), ids=TOGETHER)
def test_colors_used_together_differ(colors, simulation):
    for one, other in itertools.combinations(colors, 2):
        assert distance(one, other, simulation) >= 60, (one, other)


def test_green_and_red_would_not():
    assert distance("#81c995", "#f6aea9", "full sight") > 100
    assert distance("#81c995", "#f6aea9", "deuteranopia") < 30


def test_lines_and_texts_stand_out_from_the_page():
    for color in (*style.BACKEND_COLORS.values(), style.ACCENT, style.SOFT):
        assert contrast(color, "#ffffff") >= 3
    for color in (style.RIGHT_TEXT, style.WRONG_TEXT, style.INK):
        assert contrast(color, "#ffffff") >= 4.5
    for color in (style.RIGHT, style.WRONG, *style.LAYER_COLORS.values()):
        assert contrast(color, style.INK) >= 4.5  # under text
