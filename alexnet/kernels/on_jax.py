"""JAX on a CPU."""

import functools
import os

import jax
import jax.numpy as jnp
import jaxlib
from jax import lax

from alexnet.kernels import reference, shifted

YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
SLOWER = ("INDIVIDUAL_CONVOLUTION", "REDUCE")  # of its fusions, than XLA without it


def choose_fusions():
    """Set the XLA flag for it, as long as JAX has computed nothing and the user has not set it himself.

    This jaxlib computes with YNNPACK what it can. Convolutions: the first layer takes four times as long as with
    Eigen, the gradients of the second one twice. Reductions: softmax draws the fully connected layers and
    pool5 into one fusion, with which eight images take five times as long. XLA ends a process whose flags it does not
    know, and so other versions are left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.__version__ == "0.10.2" and YNNPACK not in flags:
        without = ",".join(f"-LIBRARY_FUSION_TYPE_{name}" for name in SLOWER)
        os.environ["XLA_FLAGS"] = f"{flags} {YNNPACK}={without}".strip()


choose_fusions()


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
    lambda *arguments: (_once(lambda *arrays: shifted.gradient(*arrays, *arguments[:-2]), *arguments[-2:]),),
)


def _once(function, *arrays):
    """`function(*arrays)`, computed once and kept. XLA on a CPU would fuse it into each of its uses, and compute it in
    each of them anew; into a branch it does not look. The other branch is never taken: nothing is below -inf.
    """

    def never(*arrays):
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *arrays))

    return lax.cond(arrays[0].ravel()[0] < -jnp.inf, never, function, *arrays)


def max_pooling(inputs, size, stride):
    """With the place of each largest value kept: XLA's own gradient looks for it again, in indices of every input. Of
    equal values the first counts, as in XLA."""
    return _pool(inputs, size, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _pool(inputs, size, stride):
    return _largest(inputs, size, stride)[0]


def _pool_forward(inputs, size, stride):
    best, place = _once(lambda inputs: _largest(inputs, size, stride), inputs)
    return best, (place, jnp.zeros((0, *inputs.shape[1:3])))  # the shape alone


def _pool_gradient(size, stride, kept, upstream):
    place, (_, *sides) = kept[0], kept[1].shape
    return (_once(lambda upstream, place: _spread(place, upstream, size, stride, sides), upstream, place),)


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
    """With the gradient of the bias as a matrix product: XLA sums by columns, and computes what it sums anew."""
    outputs = reference.convolution(inputs, kernel, None, strides, padding, groups)
    return outputs if bias is None else _plus(outputs, bias)


@jax.custom_vjp
def _plus(maps, bias):
    return maps + bias


def _plus_gradient(_, upstream):
    rows = upstream.reshape(-1, upstream.shape[-1])
    return upstream, jnp.ones_like(rows[:, 0]) @ rows


_plus.defvjp(lambda maps, bias: (maps + bias, None), _plus_gradient)


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
