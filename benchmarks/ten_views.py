"""What ten views cost: a thousand images at 227 pixels, ten views compared with one forward pass of a central crop.

KERAS_BACKEND=jax python benchmarks/ten_views.py [IMAGES]

The two alternate in three rounds, and each round has its ratio. The images are noise of 256 pixels a side in memory, so
that only cropping, computing and averaging are measured.
"""

import sys
import time

import alexnet

keras = alexnet.import_keras()

import numpy as np  # noqa: E402

from alexnet.data.augmentation import center_crop  # noqa: E402
from alexnet.training import hardware, peak_memory  # noqa: E402

BATCH = 50


class Noise:
    """`count` random squares, drawn again in each pass, so that they are never all in memory."""

    def __init__(self, count):
        self.steps_per_epoch = count // BATCH

    def images(self):
        rng = np.random.default_rng(0)
        for _ in range(self.steps_per_epoch):
            yield rng.integers(0, 256, (BATCH, 256, 256, 3), dtype="uint8"), rng.integers(0, 1000, BATCH)


def seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main(count):
    model, data = alexnet.AlexNet(), Noise(count)
    crops = np.ascontiguousarray(center_crop(next(iter(data.images()))[0], 227))
    model.predict_on_batch(crops)  # compiles before the first round

    def forward():
        for _ in range(data.steps_per_epoch):
            np.asarray(model.predict_on_batch(crops))

    before, ratios = peak_memory(), []
    for _ in range(3):
        one = seconds(forward)
        ten = seconds(lambda: alexnet.evaluate(model, data, views=10, verbose=0))
        ratios.append(ten / one)
        print(
            f"{count} images: one forward pass {one:.1f} s, ten views {ten:.1f} s, ratio {ratios[-1]:.2f}", flush=True
        )
    grown = (peak_memory() - before) / 2**20
    print(f"{keras.backend.backend()}: median ratio {np.median(ratios):.2f}; peak memory grew by {grown:.0f} MiB")
    print(f"{hardware()['processor']}, {hardware()['cores']} cores")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
