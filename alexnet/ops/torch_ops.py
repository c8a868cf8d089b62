"""PyTorch on a CPU and on CUDA."""

import functools
import logging

import torch

from alexnet._compat import torch_fused_sgd, torch_is_transformed
from alexnet.ops import reference

_is_transformed, _fused_sgd = torch_is_transformed(), torch_fused_sgd()
WORTH_COMPILING = 1 << 22  # activations: for fewer, the seconds that compiling takes do not come back
CHUNK = 1 << 18  # activations that are normalized at a time: what is made of them on the way stays in the cache


_logger = logging.getLogger(__name__)


def is_measured(x):
    """Whether the forms below were measured on the device of `x`."""
    return getattr(x, "value", x).device.type in ("cpu", "cuda")


def _computes(*tensors):
    """Whether PyTorch computes with these numbers now and notes no more than first derivatives.

    A form with a backward pass of its own is missing or wrong in a recorded graph (`torch.compile`, `torch.export`,
    `torch.jit.trace`), under a transformation (`torch.func`), in forward-mode derivatives and under autocast.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled(tensors[0].device.type)
        or any(type(each) not in (torch.Tensor, torch.nn.Parameter) for each in tensors)
        or _is_transformed(tensors)
    )


def local_response_normalization(activations, axis, radius, k, alpha, beta, groups=1):
    """With the gradient written out: on a CPU chunk by chunk in the cache, ten passes through memory less; on CUDA
    compiled to one kernel, where there is a compiler and enough to do."""
    count = activations.numel()
    too_few = count == 0 or (activations.device.type == "cuda" and count < WORTH_COMPILING)
    if axis not in (-1, activations.ndim - 1) or too_few or not _computes(activations):
        return reference.local_response_normalization(activations, axis, radius, k, alpha, beta, groups)
    return _Normalization.apply(activations, radius, k, alpha, beta, groups)


class _Normalization(torch.autograd.Function):
    @staticmethod
    def forward(ctx, activations, *settings):
        ctx.save_for_backward(activations)
        ctx.settings = settings
        rows = activations.reshape(-1, activations.shape[-1])
        if activations.device.type == "cpu":
            outputs = _normalize_chunks(rows, *settings)
        else:
            outputs = _compiled("local_response_normalization")(rows, -1, *settings)
        return outputs.view(activations.shape)

    @staticmethod
    def backward(ctx, grad):
        (activations,), settings = ctx.saved_tensors, ctx.settings
        rows = activations.reshape(-1, activations.shape[-1])
        grad = grad.reshape(rows.shape)
        if torch.is_grad_enabled() or not _computes(activations, grad):  # it may be differentiated once more
            gradient = reference.normalization_gradient(rows, grad, -1, *settings)
        elif activations.device.type == "cpu":
            gradient = _gradient_chunks(rows, grad, *settings)
        else:
            gradient = _compiled("normalization_gradient")(rows, grad, -1, *settings)
        return gradient.view(activations.shape), *[None] * len(settings)


@functools.cache
def _compiled(name):
    """An operation of `reference` as one kernel of CUDA; the operation itself where PyTorch has no compiler."""
    return torch.compile(getattr(reference, name)) if _compiles() else getattr(reference, name)


@functools.cache
def _compiles():
    try:
        torch.compile(torch.square)(torch.ones(2, device="cuda"))
    except Exception as error:  # whatever a missing or broken compiler, or a GPU that is too old, may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        _logger.warning("PyTorch cannot compile for this GPU, so response normalization is slower: %s", reason)
        return False
    return True


def _normalize_chunks(rows, *settings):
    outputs, workspace = torch.empty_like(rows), _Workspace(rows, *settings)
    for chunk in _chunks(rows):
        powers, _ = workspace.powers(rows[chunk])
        torch.mul(powers, rows[chunk], out=outputs[chunk])
    return outputs


def _gradient_chunks(rows, grad, *settings):
    _, _, alpha, beta, _ = settings
    outputs, workspace = torch.empty_like(rows), _Workspace(rows, *settings)
    for chunk in _chunks(rows):
        powers, scale = workspace.powers(rows[chunk])
        shrunk = torch.mul(grad[chunk], powers, out=outputs[chunk])
        sums = workspace.window(torch.mul(shrunk, rows[chunk], out=powers).div_(scale))
        shrunk.addcmul_(sums, rows[chunk], value=-2 * alpha * beta)
    return outputs


def _chunks(rows):
    height = max(1, CHUNK // rows.shape[1])
    return [slice(first, first + height) for first in range(0, len(rows), height)]


class _Workspace:
    """The memory for one chunk of the activations, used for one chunk after the other."""

    def __init__(self, rows, radius, k, alpha, beta, groups):
        height, channels = min(len(rows), max(1, CHUNK // rows.shape[1])), rows.shape[1]
        self.radius, self.k, self.alpha, self.beta = radius, k, alpha, beta
        self._padded = rows.new_zeros(height, groups, channels // groups + 2 * radius)
        self._sums, self._powers, self._scale = rows.new_empty(3, height, groups, channels // groups)

    def window(self, values, out=None):
        """The sum of each value and its neighbors."""
        out = self._sums if out is None else out
        channels, padded, out = out.shape[-1], self._padded[: len(values)], out[: len(values)]
        padded[..., self.radius : self.radius + channels].copy_(values.view(out.shape))
        out.copy_(padded[..., :channels])
        for shift in range(1, 2 * self.radius + 1):
            out.add_(padded[..., shift : shift + channels])
        return out.view(values.shape)

    def powers(self, values):
        """`scale ** -beta` and `scale`, which is k + alpha times the sum of squares."""
        squares = torch.mul(values, values, out=self._powers[: len(values)].view(values.shape))
        scale = self.window(squares, self._scale).mul_(self.alpha).add_(self.k)
        powers = self._powers[: len(values)].view(values.shape)
        if self.beta == 0.75:
            torch.rsqrt(scale, out=powers)
            return powers.mul_(torch.sqrt(powers, out=self._sums[: len(values)].view(values.shape))), scale
        return torch.pow(scale, -self.beta, out=powers), scale


def convolution(inputs, kernel, bias=None, strides=(1, 1), padding="valid", groups=1):
    """Grouped, since oneDNN splits the channels without copying them."""
    if padding == "same" and (strides != (1, 1) or not all(side % 2 for side in kernel.shape[:2])):
        return reference.convolution(inputs, kernel, bias, strides, padding, groups)
    around = [side // 2 for side in kernel.shape[:2]] if padding == "same" else 0
    outputs = torch.nn.functional.conv2d(
        inputs.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias, strides, around, 1, groups
    )
    return outputs.permute(0, 2, 3, 1)


def max_pooling(inputs, size, stride):
    """Without the copies that change the order of axes."""
    return torch.nn.functional.max_pool2d(inputs.permute(0, 3, 1, 2), size, stride).permute(0, 2, 3, 1)


def dense(inputs, kernel, bias=None):
    """With the gradient of `inputs` as kernel times the gradient above, which reads the kernel as it lies in memory."""
    if inputs.dtype != kernel.dtype or not _computes(inputs, kernel):
        return reference.dense(inputs, kernel, bias)
    outputs = _Matmul.apply(inputs, kernel)
    return outputs if bias is None else outputs.add_(bias)


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, kernel):
        ctx.save_for_backward(inputs, kernel)
        return inputs @ kernel

    @staticmethod
    def backward(ctx, grad):
        inputs, kernel = ctx.saved_tensors
        below = (kernel @ grad.T).T if ctx.needs_input_grad[0] else None
        return below, inputs.T @ grad if ctx.needs_input_grad[1] else None


def momentum_step(variable, velocity, gradient, learning_rate, momentum, decay):
    """In one pass over the weights, by the step of `torch.optim.SGD(fused=True)`.

    Its velocity has no learning rate in it: `w -= lr * v` after `v = momentum * v + (1 - dampening) * (g + decay * w)`.
    A dampening of 1 + learning rate and a rate of -1 make it the paper's.
    """
    if _fused_sgd is None or not _computes(variable.value, gradient):
        reference.momentum_step(variable, velocity, gradient, learning_rate, momentum, decay)
        return
    _fused_sgd(
        [variable.value],
        [gradient],
        [velocity.value],
        weight_decay=decay,
        momentum=momentum,
        lr=-1.0,
        dampening=1 + float(learning_rate),
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
