"""JAX on a CPU."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet.kernels import reference, shifted


@functools.cache
def _only_cpus():
    return jax.default_backend() == "cpu"


def on_cpu(x):
    return _only_cpus()


def local_response_normalization(activities, axis, reach, k, alpha, beta, groups=1):
    """As sums of shifted copies, in one loop each way."""
    if axis not in (-1, activities.ndim - 1):
        return reference.local_response_normalization(activities, axis, reach, k, alpha, beta, groups)
    return _normalize(activities, reach, k, alpha, beta, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _normalize(activities, *settings):
    return shifted.normalize(activities, *settings)


_normalize.defvjp(
    lambda activities, *settings: (_normalize(activities, *settings), activities),
    lambda *arguments: (shifted.gradient(*arguments[-2:], *arguments[:-2]),),
)


def max_pooling(inputs, size, stride):
    """With the place of each largest value kept: XLA's own gradient looks for it again, in indices of every input. Of
    equal values the first counts, as in XLA."""
    return _pool(inputs, size, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pool(inputs, size, stride):
    return _largest(inputs, size, stride)[0]


def _pool_forward(inputs, size, stride):
    best, place = _largest(inputs, size, stride)
    return best, (place, jnp.zeros((0, *inputs.shape[1:3])))  # the shape alone


def _pool_gradient(size, stride, kept, upstream):
    place, (_, *sides) = kept[0], kept[1].shape
    return (_spread(place, upstream, size, stride, sides),)


_pool.defvjp(_pool_forward, _pool_gradient)


def _largest(inputs, size, stride):
    """The largest value of each square, and which of the square's pixels has it, uint8."""
    rows, columns = ((side - size) // stride + 1 for side in inputs.shape[1:3])
    best = place = None
    for number in range(size * size):
        top, left = divmod(number, size)
        values = inputs[:, top : top + stride * (rows - 1) + 1 : stride]
        values = values[:, :, left : left + stride * (columns - 1) + 1 : stride]
        if best is None:
            best, place = values, jnp.zeros(values.shape, jnp.uint8)
        else:
            place = jnp.where(values > best, jnp.uint8(number), place)
            best = jnp.maximum(values, best)
    return best, place


def _spread(place, upstream, size, stride, sides):
    """Each gradient at the place of its largest value, in maps of `sides`."""
    found = 0
    for number in range(size * size):
        first = divmod(number, size)
        edges = [
            (start, side - start - stride * (count - 1) - 1, stride - 1)
            for start, side, count in zip(first, sides, upstream.shape[1:3], strict=True)
        ]
        part = jnp.where(place == number, upstream, 0)
        found += lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return found


def convolution(inputs, kernel, bias=None, strides=(1, 1), padding="valid", groups=1):
    """With a stride, as matrix products of patches: XLA's gradient of such a kernel takes four times as long."""
    if groups > 1 or strides == (1, 1) or padding != "valid":
        return reference.convolution(inputs, kernel, bias, strides, padding, groups)
    outputs = _strided(inputs, kernel, strides)
    return outputs if bias is None else outputs + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _strided(inputs, kernel, strides):
    patches = jnp.concatenate(_blocks(inputs, kernel.shape, strides), -1)
    return patches @ _as_matrix(kernel, strides)


def _strided_gradient(strides, kept, upstream):
    inputs, kernel = kept
    # Block by block, in this order: of the first factor XLA makes a transposed copy, and it is the same for all blocks.
    # What depends on the inputs alone XLA would compute in the forward pass and keep.
    blocks, pixels = _blocks(inputs + _nothing(upstream), kernel.shape, strides), [0, 1, 2]
    product = jnp.concatenate([jnp.tensordot(upstream, block, (pixels, pixels)) for block in blocks], -1)
    as_kernel = jax.linear_transpose(functools.partial(_as_matrix, strides=strides), kernel)
    plain = functools.partial(reference.convolution, kernel=kernel, strides=strides)
    return jax.vjp(plain, inputs)[1](upstream)[0], as_kernel(product.T)[0]


_strided.defvjp(
    lambda inputs, kernel, strides: (_strided(inputs, kernel, strides), (inputs, kernel)), _strided_gradient
)


def _blocks(inputs, kernel_shape, strides):
    """What each output sees, in parts `(batch, rows, columns, inputs)`. A stride's square of pixels counts as one pixel
    of more channels, so that few and long pieces are copied."""
    (down, across), (batch, *sides, channels) = strides, inputs.shape
    found = [(side - kernel) // stride + 1 for side, kernel, stride in zip(sides, kernel_shape, strides, strict=False)]
    blocks = [math.ceil(kernel / stride) for kernel, stride in zip(kernel_shape, strides, strict=False)]
    high, wide = (one + more - 1 for one, more in zip(found, blocks, strict=True))
    inputs = inputs[:, : high * down, : wide * across]
    missing = [(0, high * down - inputs.shape[1]), (0, wide * across - inputs.shape[2])]
    pixels = jnp.pad(inputs, [(0, 0), *missing, (0, 0)]).reshape(batch, high, down, wide, across, channels)
    pixels = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(batch, high, wide, -1)
    rows, columns = found
    return [pixels[:, top : top + rows, left : left + columns] for top, left in np.ndindex(*blocks)]


def _as_matrix(kernel, strides):
    """The kernel in the order of `_blocks`, `(inputs, filters)`."""
    (down, across), (rows, columns, channels, filters) = strides, kernel.shape
    kernel = jnp.pad(kernel, [(0, -rows % down), (0, -columns % across), (0, 0), (0, 0)])
    kernel = kernel.reshape(-(-rows // down), down, -(-columns // across), across, channels, filters)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(-1, filters)


def dense(inputs, kernel, bias=None):
    """With the gradient of the kernel after that of the inputs: what comes next changes the kernel where it lies, and
    XLA copies it first if something may still read it."""
    outputs = _product(inputs, kernel)
    return outputs if bias is None else outputs + bias


@jax.custom_vjp
def _product(inputs, kernel):
    return inputs @ kernel


def _product_gradient(kept, upstream):
    inputs, kernel = kept
    below = upstream @ kernel.T
    return below, inputs.T @ upstream + _nothing(below)


_product.defvjp(lambda inputs, kernel: (_product(inputs, kernel), (inputs, kernel)), _product_gradient)


def _nothing(values):
    """Zero, which cannot be known before `values`: XLA on a CPU heeds no other order."""
    return 0 * values.ravel()[0]
