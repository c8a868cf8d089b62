"""The tests' reference: the published networks written independently, in plain PyTorch with its own layers."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

IMAGENET = (127.30, 119.72, 104.91)
CIFAR10 = (125.31, 122.95, 113.87)
CAFFE = (122.679, 116.669, 104.007)
GROUPED = [(3, 96, 1), (96, 256, 2), (256, 384, 1), (384, 384, 2), (384, 256, 2)]
HALF = [(3, 48, 1), (48, 128, 1), (128, 192, 1), (192, 192, 1), (192, 256, 1)]
SINGLE = [(3, 64, 1), (64, 192, 1), (192, 384, 1), (384, 256, 1), (256, 256, 1)]


def lrn(x, a, k, columns=1):
    """LRN across maps, in each column separately. PyTorch divides its alpha by the window's 5."""
    parts = x.chunk(columns, 1)
    return torch.cat([F.local_response_norm(part, 5, alpha=5 * a, beta=0.75, k=k) for part in parts], 1)


def same_map(x):
    """Normalization over 5 x 5 positions of each map; .001 is divided by their number."""
    squares = F.avg_pool2d(x**2, 5, stride=1, padding=2, count_include_pad=True) * 25
    return x / (1 + 0.001 / 25 * squares) ** 0.75


def pool(x):
    return F.max_pool2d(x, 3, 2)


def apart(x):
    """Pooling of 2 x 2 windows that do not overlap; the last one is cut off."""
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


# The layers between conv1 and conv2, and between conv2 and conv3.
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
    "net147": [
        lambda x: apart(lrn(x, 2e-5, 2, columns=2)).relu(),
        lambda x: apart(same_map(lrn(x.relu(), 2e-5, 2, columns=2))),
    ],
    "net148": [lambda x: pool(x).relu(), lambda x: pool(x.relu())],
    "net145_half": [lambda x: pool(lrn(x, 2e-5, 2)).relu(), lambda x: pool(same_map(lrn(x.relu(), 2e-5, 2)))],
}
BETWEEN["net150"] = BETWEEN["krizhevsky2012"]
SIZES = {"one_tower": SINGLE, "torchvision": SINGLE, "net145_half": HALF}


class TorchAlexNet(nn.Module):
    """A network that takes RGB 0-255, channels first, and returns logits. `share` of the filters and hidden units."""

    def __init__(self, network="paper", classes=1000, inputs=9216, share=1):
        super().__init__()
        self.network = network
        sizes = list(SIZES.get(network, GROUPED))
        shapes = [(11, 4, 2 if network == "torchvision" else 0), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        if network == "net147":
            shapes[1], shapes[4] = (5, 1, 1), (3, 1, 0)
        if network == "net150":
            sizes[2] = (256, 384, 2)
        for number, ((below, filters, groups), shape) in enumerate(zip(sizes, shapes, strict=True), 1):
            below = below if number == 1 else int(below * share)
            setattr(self, f"conv{number}", nn.Conv2d(below, int(filters * share), *shape, groups=groups))
        units = int(4096 * share)
        self.fc6, self.fc7, self.fc8 = nn.Linear(inputs, units), nn.Linear(units, units), nn.Linear(units, classes)

    def forward(self, pixels):
        if self.network == "torchvision":
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            x = (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        else:
            x = pixels - torch.tensor(CAFFE if self.network.startswith("caffe") else IMAGENET).view(1, 3, 1, 1)
        after1, after2 = BETWEEN[self.network]
        x = after2(self.conv2(after1(self.conv1(x))))
        x = self.conv4(self.conv3(x).relu()).relu()
        x = (apart if self.network == "net147" else pool)(self.conv5(x).relu())
        if self.network == "torchvision":
            x = F.adaptive_avg_pool2d(x, 6)
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels: the order of our fc6
        return self.fc8(self.fc7(self.fc6(x).relu()).relu())

    def take(self, model):
        """Copy the weights of a Keras model."""
        for name, module in self.named_children():
            kernel, bias = model.get_layer(name).get_weights()
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            axes = (0, 1, 2, 3) if isinstance(module, LocalConv2d) else axes
            module.weight.data = torch.tensor(np.ascontiguousarray(kernel.transpose(axes)))
            module.bias.data = torch.tensor(bias)
        return self


class LocalConv2d(nn.Module):
    """A 3 x 3 convolution with zeros around it, whose weights differ from position to position, written as sums.

    weight: (rows, columns, 9 * channels, filters), a window's values by rows, columns and channels.
    """

    def __init__(self, side, below, filters):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(side, side, 9 * below, filters))
        self.bias = nn.Parameter(torch.zeros(side, side, filters))

    def forward(self, x):
        images, channels, rows, columns = x.shape
        windows = F.unfold(x, 3, padding=1).reshape(images, channels, 9, rows, columns)
        windows = windows.permute(0, 3, 4, 2, 1).flatten(3)
        return (torch.einsum("byxi,yxif->byxf", windows, self.weight) + self.bias).permute(0, 3, 1, 2)


def half(x, kind="max"):
    """Pooling of 3 x 3 windows with a stride of 2, the last one cut off, as in cuda-convnet."""
    if kind == "max":
        return F.max_pool2d(x, 3, 2, ceil_mode=True)
    return F.avg_pool2d(x, 3, 2, ceil_mode=True, count_include_pad=False)


def map_lrn(x):
    squares = F.avg_pool2d(x**2, 3, stride=1, padding=1, count_include_pad=True) * 9
    return x / (1 + 5e-5 / 9 * squares) ** 0.75


class TorchCifar(nn.Module):
    """The CIFAR-10 networks of cuda-convnet, from RGB 0-255 to logits; `take` as above."""

    def __init__(self, network, side):
        super().__init__()
        self.network = network
        if "80sec" in network or "18pct" in network:
            self.conv1, self.conv2 = nn.Conv2d(3, 32, 5, padding=2), nn.Conv2d(32, 32, 5, padding=2)
            self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
            self.fc4 = nn.Linear(64 * (side // 8) ** 2, 64 if "80sec" in network else 10)
            if "80sec" in network:
                self.fc5 = nn.Linear(64, 10)
        else:
            wide = 64 if "11pct" in network else 32
            self.conv1, self.conv2 = nn.Conv2d(3, 64, 5, padding=2), nn.Conv2d(64, 64, 5, padding=2)
            self.local3, self.local4 = LocalConv2d(side // 4, 64, wide), LocalConv2d(side // 4, wide, 32)
            self.fc5 = nn.Linear(32 * (side // 4) ** 2, 10)

    def forward(self, pixels):
        x = self.conv1(pixels - torch.tensor(CIFAR10).view(1, 3, 1, 1))
        if self.network == "cifar10_80sec":
            x = half(self.conv2(half(x).relu()).relu(), "average")
        elif self.network == "cifar10_18pct":
            x = map_lrn(half(self.conv2(map_lrn(half(x).relu())).relu(), "average"))
        elif self.network == "cifar10_13pct":
            x = half(self.conv2(half(x.relu())).relu())
        elif self.network == "cifar10_13pct_lrn":
            x = half(F.local_response_norm(x.relu(), 5, alpha=0.001, beta=0.75, k=1))
            x = half(F.local_response_norm(self.conv2(x).relu(), 5, alpha=0.001, beta=0.75, k=1))
        else:
            x = F.local_response_norm(half(x.relu()), 9, alpha=0.001, beta=0.75, k=1)
            x = half(F.local_response_norm(self.conv2(x).relu(), 9, alpha=0.001, beta=0.75, k=1))
        if hasattr(self, "local3"):
            x = self.local4(self.local3(x).relu()).relu()
        else:
            x = half(self.conv3(x).relu(), "average")
        x = x.permute(0, 2, 3, 1).flatten(1)
        if self.network == "cifar10_80sec":
            x = self.fc4(x).relu()
        return (self.fc4 if self.network == "cifar10_18pct" else self.fc5)(x)

    def take(self, model):
        """Copy the weights of a Keras model."""
        return TorchAlexNet.take(self, model)


def _tensor(images):
    return torch.tensor(images.transpose(0, 3, 1, 2)).float()


def logits(network, images):
    with torch.no_grad():
        return network(_tensor(images)).numpy()


def gradients(network, images, labels):
    """`{layer: gradients}` of the mean cross-entropy, in Keras's layout."""
    network.zero_grad()
    nn.functional.cross_entropy(network(_tensor(images)), torch.tensor(labels).long()).backward()
    found = {}
    for name, module in network.named_children():
        kernel = module.weight.grad.numpy()
        if not isinstance(module, LocalConv2d):
            kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        found[name] = (kernel, module.bias.grad.numpy())
    return found


def assert_equal_gradients(compute, network, images, labels):
    """Compare the gradients of three images, by `compute(image, label)` and by PyTorch."""
    errors = []
    for image, label in zip(images, labels, strict=True):
        expected, found = gradients(network, image[None], label[None]), compute(image[None], label[None])
        errors.append(
            max(
                np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
                for name in expected
                for ours, theirs in zip(found[name], expected[name], strict=True)
            )
        )
    # Rounding may move an activation across ReLU's kink, which affects one image. A wrong gradient affects all.
    assert sorted(errors)[1] <= 1e-3, errors


def train(network, images, labels, steps, learning_rate, momentum, decay, factors=None):
    """Losses of some steps of the paper's update rule, written out: decay inside the momentum, and not on biases.

    Args:
        factors: By parameter name, factors of the learning rate and of the decay; others have 1 and 1, biases 1 and 0.
    """
    images, labels = _tensor(images), torch.tensor(labels).long()
    velocities = [torch.zeros_like(weight) for weight in network.parameters()]
    losses = []
    for _ in range(steps):
        network.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for (name, weight), velocity in zip(network.named_parameters(), velocities, strict=True):
                plain = (1.0, 0.0) if name.endswith("bias") else (1.0, 1.0)
                faster, share = (factors or {}).get(name, plain)
                rate, wd = learning_rate * faster, decay * share
                velocity.mul_(momentum).sub_(wd * rate * weight).sub_(rate * weight.grad)
                weight.add_(velocity)
    return losses
