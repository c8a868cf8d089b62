"""AlexNet in plain PyTorch: `nn.Module`, `torch.optim.SGD`, a loop.

| candidate | |
|---|---|
| `eager` | channels first, as `nn.Conv2d` has them |
| `channels_last` | the same module and images in `torch.channels_last` |
| `compile` | that one, and the optimizer's step, under `torch.compile`, which needs a C++ compiler |
"""

import time

import torch
from torch import nn
from torch.nn import functional as F

CANDIDATES = ("eager", "channels_last", "compile")
NORMALIZATIONS = ("LocalResponseNorm",)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class AlexNet(nn.Module):
    """Pixels `(batch, 3, size, size)`, uint8, to logits `(batch, classes)`."""

    def __init__(self, image_size=227, width=1.0, classes=1000, dropout=0.5):
        super().__init__()
        c1, c2, c3, c4, c5 = (2 * round(filters * width / 2) for filters in (96, 256, 384, 384, 256))
        hidden = round(4096 * width)
        self.register_buffer("mean", torch.tensor([127.30, 119.72, 104.91]).view(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.norm = local_response_norm()
        self.pool = nn.MaxPool2d(3, stride=2)
        side = (image_size - 11) // 4 + 1  # after conv1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        self.fc6 = nn.Linear(c5 * side * side, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(dropout)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01 / width**0.5)
                nn.init.constant_(layer.bias, float(name in ("conv2", "conv4", "conv5", "fc6", "fc7")))

    def forward(self, pixels):
        x = pixels.float() - self.mean
        x = self.pool(self.norm(F.relu(self.conv1(x))))
        x = self.pool(self.norm(F.relu(self.conv2(x))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = self.pool(F.relu(self.conv5(x)))
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))
        x = self.dropout(F.relu(self.fc7(x)))
        return self.fc8(x)


def local_response_norm():
    """The paper's, n = 5, k = 2, alpha = 1e-4, beta = .75: PyTorch divides its alpha by the window's 5."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class Network:
    """A network and its optimizer."""

    def __init__(self, candidate, image_size=227, width=1.0, classes=1000, dropout=0.5, learning_rate=0.01):
        torch.manual_seed(0)
        self.layout = torch.contiguous_format if candidate == "eager" else torch.channels_last
        self.model = AlexNet(image_size, width, classes, dropout).to(DEVICE, memory_format=self.layout)
        kernels = [weight for weight in self.model.parameters() if weight.ndim > 1]
        biases = [weight for weight in self.model.parameters() if weight.ndim == 1]
        groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": biases}]
        compiled = candidate == "compile"
        self.optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, fused=not compiled)
        self.call, self.update = self.model, self.optimizer.step
        if compiled:  # for each batch size a program of its own: one for all sizes would be slower
            self.call = torch.compile(self.call, dynamic=False)
            self.update = torch.compile(self.update)

    def batch(self, images, labels):
        """NumPy images `(batch, size, size, 3)` and labels `(batch,)` as a data loader would deliver them."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return pixels, torch.from_numpy(labels).long()

    def train(self, batch, steps):
        """Make `steps` steps on a batch; returns the last one's loss, and the seconds of all."""
        self.model.train()
        began = time.perf_counter()
        for _ in range(steps):
            images, labels = (each.to(DEVICE) for each in batch)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.call(images), labels)
            loss.backward()
            self.update()
        return loss.item(), time.perf_counter() - began

    @torch.inference_mode()
    def predict(self, batch):
        """Probabilities `(batch, classes)` as NumPy."""
        self.model.eval()
        return self.call(batch[0].to(DEVICE)).softmax(1).cpu().numpy()

    def set_weights(self, weights):
        """Kernels `(rows, columns, in, out)` or `(in, out)`, and biases, by layer, as TensorFlow lays them out."""
        maps = self.model.conv5.out_channels
        with torch.no_grad():
            for name, (kernel, bias) in weights.items():
                kernel, layer = torch.tensor(kernel), getattr(self.model, name)
                if name == "fc6":  # of maps with channels last
                    side = round((len(kernel) / maps) ** 0.5)
                    kernel = kernel.view(side, side, maps, -1).permute(2, 0, 1, 3).flatten(0, 2)
                layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
                layer.bias.copy_(torch.tensor(bias))


def wait_for(*tensors):
    """The same tensors when they are computed: a GPU goes on while the program does."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return tensors


def normalization(candidate, activations, above):
    """The normalization alone: activations and a gradient from above, NumPy `(batch, rows, columns, channels)`.

    Returns a function without arguments, which returns the normalized activations and the gradient below.
    """
    norm = local_response_norm()
    x, above = (torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(DEVICE) for array in (activations, above))
    x.requires_grad_()

    def run():
        output = norm(x)
        return wait_for(output, *torch.autograd.grad(output, x, above))

    return run
