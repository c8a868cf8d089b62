"""What the tests of checkpoints and of exports share."""

import numpy as np
import torch
from torch import nn

from alexnet.model import without_softmax

CLASSES, WIDTH = 7, 1 / 8


def pixels(count, side):
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), dtype="uint8")


def close(found, expected):
    """The largest difference relative to the largest logit."""
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.1  # the outputs are not all zero


def logits(model, images):
    return without_softmax(model).predict_on_batch(images)


# --- PyTorch ---------------------------------------------------------------------------------------------------------


class Torchvision(nn.Module):
    """A module with the names and the arithmetic of torchvision's alexnet, in an eighth of its width."""

    def __init__(self, classes=CLASSES, width=WIDTH):
        super().__init__()
        a, b, c, d, f = (int(size * width) for size in (64, 192, 384, 256, 4096))
        self.features = nn.Sequential(
            *[nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)],
            *[nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)],
            *[nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU()],
            *[nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)],
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            *[nn.Dropout(), nn.Linear(d * 36, f), nn.ReLU()],
            *[nn.Dropout(), nn.Linear(f, f), nn.ReLU(), nn.Linear(f, classes)],
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    def logits(self, images):
        """Logits of pixels 0-255, prepared as torchvision's transforms prepare them."""
        x = torch.tensor(images.transpose(0, 3, 1, 2)).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.no_grad():
            return self.eval()((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).numpy()
