"""The paper's network written a second time, in plain PyTorch with PyTorch's own layers: the tests' reference."""

import numpy as np
import torch
from torch import nn

MEAN = (127.30, 119.72, 104.91)


class TorchAlexNet(nn.Module):
    """Section 3 of the paper for an input of 227 pixels; takes RGB 0-255, channels first, and returns logits."""

    def __init__(self, classes=1000):
        super().__init__()
        lrn = dict(size=5, alpha=5 * 1e-4, beta=0.75, k=2.0)
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.norm, self.pool = nn.LocalResponseNorm(**lrn), nn.MaxPool2d(3, 2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)

    def forward(self, pixels):
        x = pixels - torch.tensor(MEAN).view(1, 3, 1, 1)
        x = self.pool(self.norm(self.conv1(x).relu()))
        x = self.pool(self.norm(self.conv2(x).relu()))
        x = self.conv4(self.conv3(x).relu()).relu()
        x = self.pool(self.conv5(x).relu())
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels: the order of our fc6
        return self.fc8(self.fc7(self.fc6(x).relu()).relu())

    def take(self, model):
        """Copy the weights of a Keras model."""
        for name, module in self.named_children():
            if hasattr(module, "weight"):
                kernel, bias = model.get_layer(name).get_weights()
                axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
                module.weight.data = torch.tensor(np.ascontiguousarray(kernel.transpose(axes)))
                module.bias.data = torch.tensor(bias)
        return self


def train(network, images, labels, steps, learning_rate, momentum, decay):
    """Losses of some steps of the paper's update rule, written out: decay inside the momentum, none on biases."""
    images, labels = torch.tensor(images.transpose(0, 3, 1, 2)).float(), torch.tensor(labels).long()
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
