"""Whether it matters to a network how large images are reduced: the fast way of `alexnet.data.decoding`, or PIL's.

    python -m alexnet train --backend torch --name decoding
    KERAS_BACKEND=torch python benchmarks/decoding.py runs/decoding/torch

The held-out shapes are enlarged, saved as JPEGs, and decoded in both ways to the size that the run was trained with.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import alexnet

alexnet.import_keras()

from alexnet.data import decoding  # noqa: E402
from alexnet.evaluation import predict_probabilities  # noqa: E402

SCALES = (1, 1.3, 1.7, 2.3, 4, 6.7)


def main(folder):
    recipe = alexnet.Recipe.read(Path(folder) / "params.yaml")
    model = alexnet.load_checkpoint(folder)
    _, validation = alexnet.load_data(recipe)
    originals = [Image.open(path).convert("RGB") for path in validation.paths]
    print("enlarged   top1 fast   top1 PIL   agree   gray levels apart")
    for scale in SCALES:
        ways = {"fast": [], "pil": []}
        for image in originals:
            size = [round(side * scale) for side in image.size]
            stream = io.BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
            ways["fast"].append(decoding.decode_image(stream.getvalue(), recipe.resize, "image"))
            ways["pil"].append(decoding.resize_image(Image.open(stream).convert("RGB"), recipe.resize))
        predictions = {way: predict_probabilities(model, np.stack(found)).argmax(1) for way, found in ways.items()}
        right = {way: np.mean(found == validation.labels) for way, found in predictions.items()}
        apart = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(ways["fast"], ways["pil"], strict=True)])
        agree = np.mean(predictions["fast"] == predictions["pil"])
        print(f"{scale:8.1f} {right['fast']:11.1%} {right['pil']:10.1%} {agree:7.1%} {apart:12.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
