"""The published networks written a second time, in plain PyTorch with PyTorch's own layers: the tests' reference."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

IMAGENET = (127.30, 119.72, 104.91)
CAFFE = (122.679, 116.669, 104.007)
GROUPED = [(3, 96, 1), (96, 256, 2), (256, 384, 1), (384, 384, 2), (384, 256, 2)]
SINGLE = [(3, 64, 1), (64, 192, 1), (192, 384, 1), (384, 256, 1), (256, 256, 1)]


def lrn(x, a, k, columns=1):
    """Across maps, in each column apart; PyTorch divides its alpha by the window's 5."""
    parts = x.chunk(columns, 1)
    return torch.cat([F.local_response_norm(part, 5, alpha=5 * a, beta=0.75, k=k) for part in parts], 1)


def same_map(x):
    """Over 5 x 5 places of each map, .001 divided by their number."""
    squares = F.avg_pool2d(x**2, 5, stride=1, padding=2, count_include_pad=True) * 25
    return x / (1 + 0.001 / 25 * squares) ** 0.75


def pool(x):
    return F.max_pool2d(x, 3, 2)


# What stands between conv1 and conv2, and between conv2 and conv3.
BETWEEN = {
    "paper": [lambda x: pool(lrn(x.relu(), 1e-4, 2))] * 2,
    "krizhevsky2012": [
        lambda x: pool(lrn(x, 2e-5, 2, columns=2)).relu(),
        lambda x: pool(same_map(lrn(x.relu(), 2e-5, 2, columns=2))),
    ],
    "caffe": [lambda x: pool(lrn(x.relu(), 2e-5, 1))] * 2,
    "caffenet": [lambda x: lrn(pool(x.relu()), 2e-5, 1)] * 2,
    "one_tower": [lambda x: pool(lrn(x, 2e-5, 2)).relu(), lambda x: pool(lrn(x.relu(), 2e-5, 2))],
    "torchvision": [lambda x: pool(x.relu())] * 2,
}


class TorchAlexNet(nn.Module):
    """A network that takes RGB 0-255, channels first, and returns logits."""

    def __init__(self, preset="paper", classes=1000, inputs=9216):
        super().__init__()
        self.preset = preset
        sizes = SINGLE if preset in ("one_tower", "torchvision") else GROUPED
        shapes = [(11, 4, 2 if preset == "torchvision" else 0), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        for number, ((below, filters, groups), shape) in enumerate(zip(sizes, shapes, strict=True), 1):
            setattr(self, f"conv{number}", nn.Conv2d(below, filters, *shape, groups=groups))
        self.fc6, self.fc7, self.fc8 = nn.Linear(inputs, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)

    def forward(self, pixels):
        if self.preset == "torchvision":
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            x = (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        else:
            x = pixels - torch.tensor(CAFFE if self.preset.startswith("caffe") else IMAGENET).view(1, 3, 1, 1)
        after1, after2 = BETWEEN[self.preset]
        x = after2(self.conv2(after1(self.conv1(x))))
        x = self.conv4(self.conv3(x).relu()).relu()
        x = pool(self.conv5(x).relu())
        if self.preset == "torchvision":
            x = F.adaptive_avg_pool2d(x, 6)
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels: the order of our fc6
        return self.fc8(self.fc7(self.fc6(x).relu()).relu())

    def take(self, model):
        """Copy the weights of a Keras model."""
        for name, module in self.named_children():
            kernel, bias = model.get_layer(name).get_weights()
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            module.weight.data = torch.tensor(np.ascontiguousarray(kernel.transpose(axes)))
            module.bias.data = torch.tensor(bias)
        return self


def _tensor(images):
    return torch.tensor(images.transpose(0, 3, 1, 2)).float()


def logits(network, images):
    with torch.no_grad():
        return network(_tensor(images)).numpy()


def gradients(network, images, labels):
    """By layer, the gradients of the mean cross-entropy in the layout of Keras."""
    network.zero_grad()
    nn.functional.cross_entropy(network(_tensor(images)), torch.tensor(labels).long()).backward()
    found = {}
    for name, module in network.named_children():
        kernel = module.weight.grad.numpy()
        found[name] = (kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T, module.bias.grad.numpy())
    return found


def train(network, images, labels, steps, learning_rate, momentum, decay):
    """Losses of some steps of the paper's update rule, written out: decay inside the momentum, none on biases."""
    images, labels = _tensor(images), torch.tensor(labels).long()
    velocities = [torch.zeros_like(weight) for weight in network.parameters()]
    losses = []
    for _ in range(steps):
        network.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for weight, velocity in zip(network.parameters(), velocities, strict=True):
                wd = decay if weight.ndim > 1 else 0.0
                velocity.mul_(momentum).sub_(wd * learning_rate * weight).sub_(learning_rate * weight.grad)
                weight.add_(velocity)
    return losses
