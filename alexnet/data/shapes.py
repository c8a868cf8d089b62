"""The built-in data sets: shapes in any color, size, position and rotation, drawn when they are first needed.

`shapes` has ten classes. `signs` has eight others, on which a network can be trained before it learns `shapes`.

Neither color nor position tells the class. So a linear classifier of small thumbnails fails, and a network that finds
edges and corners at any position succeeds.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

SPLITS = {"shapes": {"train": 200, "val": 50}, "signs": {"train": 150, "val": 25}}  # images of each class
SEED = 2012
_OVERSAMPLING = 2


def _circle(radius, points=48, center=(0.0, 0.0)):
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], 1)


def _star(points=5, inner=0.42):
    angles = np.pi * np.arange(2 * points) / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], 1)


def _heart(points=60):
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], 1) / 17


def _cross(arm=0.3):
    a = arm
    corners = [
        (-a, -1),
        (a, -1),
        (a, -a),
        (1, -a),
        (1, a),
        (a, a),
        (a, 1),
        (-a, 1),
        (-a, a),
        (-1, a),
        (-1, -a),
        (-a, -a),
    ]
    return np.array(corners)


def _drop(points=30):
    angles = np.linspace(-0.2 * np.pi, 1.2 * np.pi, points)
    return np.concatenate([[(0.0, -1.0)], np.stack([0.62 * np.cos(angles), 0.36 + 0.62 * np.sin(angles)], 1)])


# The polygons of each class, within the unit circle: the first is filled, the second is cut out of it.
SHAPES = {
    "arrow": [
        np.array([(0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 0.95), (-0.28, 0.95), (-0.28, -0.1), (-0.75, -0.1)])
    ],
    "circle": [_circle(0.95)],
    "crescent": [_circle(1.0), _circle(0.85, center=(0.45, 0.0))],
    "cross": [_cross()],
    "heart": [_heart()],
    "hourglass": [np.array([(-0.75, -0.95), (0.75, -0.95), (0.1, 0), (0.75, 0.95), (-0.75, 0.95), (-0.1, 0)])],
    "ring": [_circle(1.0), _circle(0.55)],
    "square": [np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])],
    "star": [_star()],
    "triangle": [np.array([(0, -1), (0.9, 0.65), (-0.9, 0.65)])],
}
SIGNS = {
    "angle": [np.array([(-0.6, -0.9), (-0.1, -0.9), (-0.1, 0.4), (0.8, 0.4), (0.8, 0.9), (-0.6, 0.9)])],
    "bolt": [np.array([(-0.1, -1), (0.5, -1), (0.15, -0.2), (0.6, -0.2), (-0.4, 1), (-0.05, 0.1), (-0.5, 0.1)])],
    "chevron": [np.array([(-0.9, 0), (0, -0.85), (0.9, 0), (0.9, 0.65), (0, -0.2), (-0.9, 0.65)])],
    "drop": [_drop()],
    "frame": [
        np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
        np.array([(-0.45, -0.45), (0.45, -0.45), (0.45, 0.45), (-0.45, 0.45)]),
    ],
    "gear": [_star(9, 0.72), _circle(0.35)],
    "house": [np.array([(0, -1), (0.85, -0.25), (0.85, 0.85), (-0.85, 0.85), (-0.85, -0.25)])],
    "tee": [
        np.array(
            [
                (-0.8, -0.9),
                (0.8, -0.9),
                (0.8, -0.4),
                (0.28, -0.4),
                (0.28, 0.95),
                (-0.28, 0.95),
                (-0.28, -0.4),
                (-0.8, -0.4),
            ]
        )
    ],
}
SETS = {"shapes": SHAPES, "signs": SIGNS}
OUTLINES = SHAPES | SIGNS


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """A PIL image of a shape: 96 to 192 pixels on its shorter side, up to 1.6 times that on the other."""
    shorter = int(rng.integers(96, 193))
    size = np.array([shorter, int(shorter * rng.uniform(1.0, 1.6))])
    if rng.random() < 0.5:
        size = size[::-1]
    ground, paint = _two_colors(rng)
    image = _background(size, ground, rng)
    image.paste(tuple(int(c) for c in paint), mask=_mask(shape, size, shorter, rng))
    noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 8), (size[1], size[0], 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _two_colors(rng):
    """A dark background color, nearly gray, and a bright color of any hue."""
    ground = rng.uniform(15, 85) + rng.uniform(-15, 15, 3)
    paint = np.array(
        [
            int(v)
            for v in ImageColor.getrgb(f"hsl({rng.integers(360)}, {rng.integers(40, 101)}%, {rng.integers(50, 81)}%)")
        ]
    )
    return ground, paint


def _background(size, color, rng):
    """A soft gradient around a color, with a few faint strokes across it."""
    slope = rng.uniform(-25, 25, (2, 3))
    x, y = np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1])
    pixels = color + x[None, :, None] * slope[0] + y[:, None, None] * slope[1]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        ends = [tuple(int(v) for v in rng.uniform(0, size)) for _ in range(2)]
        stroke = tuple(int(c) for c in np.clip(color + rng.uniform(-40, 40, 3), 0, 255))
        pen.line(ends, fill=stroke, width=int(rng.integers(1, 5)))
    return image


def _mask(shape, size, shorter, rng):
    """A mask of the shape, within the image's central square, so that a central crop shows all of it."""
    radius = shorter * rng.uniform(0.24, 0.4)
    room = shorter / 2 - radius - 0.04 * shorter
    center = size / 2 + rng.uniform(-room, room, 2)
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.diag([1.0, rng.uniform(0.8, 1.0)])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mask = Image.new("L", tuple(int(s) * _OVERSAMPLING for s in size))
    pen = ImageDraw.Draw(mask)
    for polygon, fill in zip(OUTLINES[shape], (255, 0), strict=False):
        points = (polygon @ (turn @ stretch).T * radius + center) * _OVERSAMPLING
        pen.polygon([tuple(point) for point in points], fill=fill)
    return mask.reduce(_OVERSAMPLING).filter(ImageFilter.GaussianBlur(0.4))


def prepare(folder: str | os.PathLike, name: str = "shapes") -> Path:
    """Draw the data set `name` into `folder` unless it exists, and return `folder`.

    It is drawn into a temporary folder beside `folder` and renamed when it is complete. So an interruption leaves no
    half of it, and two processes do not interfere.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(unfinished, name)
        with contextlib.suppress(PermissionError):  # a file system without modes
            unfinished.chmod(0o755)
        os.rename(unfinished, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def write(
    folder: str | os.PathLike, name: str = "shapes", splits: dict[str, int] | None = None, seed: int = SEED
) -> None:
    """Draw every image as a JPEG, `folder/<split>/<shape>/NNNN.jpg`. `splits` gives the number of images per class."""
    for split_number, (split, count) in enumerate((splits or SPLITS[name]).items()):
        for shape_number, shape in enumerate(SETS[name]):
            class_folder = Path(folder) / split / shape
            class_folder.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([seed, split_number, shape_number, number])
                draw(shape, rng).save(class_folder / f"{number:04d}.jpg", quality=90)
