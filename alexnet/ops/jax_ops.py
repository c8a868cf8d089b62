"""JAX on a CPU."""

import functools
import math

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from alexnet._compat import jax_primitives, uses_ynnpack, xla_keeps_matrices
from alexnet.ops import reference

_JAX = jax_primitives()


@functools.cache
def fuses_convolutions():
    """Whether XLA gives convolutions to YNNPACK in this process: it does where JAX had computed something before
    `alexnet.tune_process` was called. The last digits differ, so that a run says which it was."""
    images, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 13, 13, 64), (3, 3, 64, 64)))
    program = jax.jit(functools.partial(reference.convolution, padding="same"))
    return uses_ynnpack(program.lower(images, kernel).compile())


@functools.cache
def _only_cpus():
    return jax.default_backend() == "cpu"


def is_measured(x):
    """Whether this process has no other device. (While it traces, JAX does not tell where `x` is.)"""
    return _only_cpus()


def column_mesh(groups):
    """The mesh of devices whose axis `column` has a place for each of `groups` groups of channels, if the network is
    trained so (`distribute: two_columns`); otherwise None."""
    distribution = keras.distribution.distribution()
    mesh = distribution and distribution.device_mesh.backend_mesh
    return mesh if mesh is not None and mesh.shape.get("column") == groups else None


def in_columns(function, mesh, images, *weights):
    """`function` of maps and weights whose last axis is divided into columns, each where it lives. XLA alone would
    gather all of them on every device."""
    columns = [jax.sharding.PartitionSpec(*[None] * (each.ndim - 1), "column") for each in weights]
    maps = jax.sharding.PartitionSpec("batch", None, None, "column")
    compute = jax.shard_map(function, mesh=mesh, in_specs=(maps, *columns), out_specs=maps, check_vma=False)
    return compute(images, *weights)


class _Linear:
    """A function that is linear in its last arrays, as a JAX primitive with a transpose rule of its own, `backward`.

    Unlike `jax.custom_vjp` it keeps forward mode and second derivatives: `jax.jvp`, `jax.hessian`, `jax.linearize`.
    `kept` are the other arrays, the residuals: derivatives by them, and `jax.vmap`, use the plain function.

    Args:
        forward: From `kept`, the arrays it is linear in and `settings` (hashable) to a tuple of arrays.
        backward: From `kept`, the gradients by the results and `settings` to the gradients by the linear arrays.
    """

    def __init__(self, name, forward, backward):
        self.functions = (forward, backward)
        if _JAX is None:
            return
        self.primitive = _JAX.Primitive(f"alexnet_{name}")
        self.primitive.multiple_results = True
        self.primitive.def_impl(jax.jit(self._compute, static_argnames=("kept", "transposed", "settings")))
        self.primitive.def_abstract_eval(self._shapes)
        _JAX.jvps[self.primitive] = self._jvp
        _JAX.transposes[self.primitive] = self._transpose
        _JAX.batchers[self.primitive] = self._batch
        _JAX.register_lowering(self.primitive, _JAX.lower_fun(self._compute, multiple_results=True))

    def __call__(self, kept, linear, settings=()):
        if _JAX is None:
            return self._compute(*kept, *linear, kept=len(kept), transposed=False, settings=settings)
        return self.primitive.bind(*kept, *linear, kept=len(kept), transposed=False, settings=settings)

    def _compute(self, *arrays, kept, transposed, settings):
        return tuple(self.functions[transposed](arrays[:kept], arrays[kept:], settings))

    def _shapes(self, *arrays, **how):
        given = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arrays]
        found = jax.eval_shape(functools.partial(self._compute, **how), *given)
        return [_JAX.ShapedArray(each.shape, each.dtype) for each in found]

    def _jvp(self, primals, tangents, kept, **how):
        def still(tangent):
            return isinstance(tangent, _JAX.Zero)

        parts = []
        if not all(map(still, tangents[kept:])):
            moved = map(_JAX.instantiate_zeros, tangents[kept:])
            parts.append(self.primitive.bind(*primals[:kept], *moved, kept=kept, **how))
        if moving := [place for place in range(kept) if not still(tangents[place])]:

            def by_moving(*values):
                arrays = list(primals)
                for place, value in zip(moving, values, strict=True):
                    arrays[place] = value
                return self._compute(*arrays, kept=kept, **how)

            given = tuple(primals[place] for place in moving), tuple(tangents[place] for place in moving)
            parts.append(jax.jvp(by_moving, *given)[1])
        return self.primitive.bind(*primals, kept=kept, **how), [
            sum(each[1:], each[0]) for each in zip(*parts, strict=True)
        ]

    def _transpose(self, cotangents, *arrays, kept, transposed, settings):
        cotangents = map(_JAX.instantiate_zeros, cotangents)
        found = self.primitive.bind(
            *arrays[:kept], *cotangents, kept=kept, transposed=not transposed, settings=settings
        )
        wanted = map(_JAX.is_undefined_primal, arrays[kept:])
        return [None] * kept + [each if want else None for each, want in zip(found, wanted, strict=True)]

    def _batch(self, arrays, axes, **how):
        found = jax.vmap(functools.partial(self._compute, **how), tuple(axes))(*arrays)
        return found, [0] * len(found)


def local_response_normalization(activations, axis, radius, k, alpha, beta, groups=1):
    """The reference, with a gradient of its own that XLA compiles to one loop and that keeps only the activations."""
    return _normalize(activations, (axis, radius, k, alpha, beta, groups))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _normalize(activations, settings):
    return reference.local_response_normalization(activations, *settings)


@_normalize.defjvp
def _normalize_jvp(settings, primals, tangents):
    return _normalize(*primals, settings), _normalize_linear(primals, tangents, settings)[0]


_normalize_linear = _Linear(
    "normalize",
    lambda kept, linear, settings: [reference.normalization_tangent(*kept, *linear, *settings)],
    lambda kept, cotangents, settings: [
        _fusion_barrier(lambda *arrays: reference.normalization_gradient(*arrays, *settings), *kept, *cotangents)
    ],
)


def _fusion_barrier(function, *arrays):
    """`function(*arrays)` behind a fusion barrier: XLA on a CPU copies cheap producers into every consumer, and
    computes them again in each, but does not fuse across `cond`. The other branch is never taken: nothing is below
    -inf.
    """

    def never(*arrays):
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *arrays))

    return (
        lax.cond(_dependent_false(arrays[0]), never, function, *arrays)
        if 0 not in arrays[0].shape
        else function(*arrays)
    )


def _dependent_false(values):
    """False, which XLA cannot know before `values`."""
    return values[(0,) * values.ndim] < -jnp.inf  # not of a flattened copy, which several devices would have to gather


def max_pooling(inputs, size, stride):
    """Keeps the position of each largest value: XLA's own gradient looks for it again, in indices of every input. Of
    equal values the first counts, as in XLA."""
    return _pool(inputs, size, stride)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _pool(inputs, size, stride):
    return _max_pool_with_argmax(inputs, size, stride)[0]


@_pool.defjvp
def _pool_jvp(size, stride, primals, tangents):
    best, argmax = _pool_with_argmax(*primals, size, stride)
    return best, _pick([argmax], tangents, (size, stride, primals[0].shape[1:3]))[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _pool_with_argmax(inputs, size, stride):
    return _fusion_barrier(lambda inputs: _max_pool_with_argmax(inputs, size, stride), inputs)


@_pool_with_argmax.defjvp
def _pool_with_argmax_jvp(size, stride, primals, tangents):
    best, argmax = _pool_with_argmax(*primals, size, stride)
    moved = _pick([argmax], tangents, (size, stride, primals[0].shape[1:3]))[0]
    return (best, argmax), (moved, np.zeros(argmax.shape, jax.dtypes.float0))


def _windows(inputs, size, stride):
    """For each pixel of a window, that pixel of all windows."""
    rows, columns = ((side - size) // stride + 1 for side in inputs.shape[1:3])
    for number in range(size * size):
        top, left = divmod(number, size)
        values = inputs[:, top : top + stride * (rows - 1) + 1 : stride]
        yield number, values[:, :, left : left + stride * (columns - 1) + 1 : stride]


def _max_pool_with_argmax(inputs, size, stride):
    """The largest value of each square, and which of the square's pixels has it, uint8."""
    best = argmax = None
    for number, values in _windows(inputs, size, stride):
        if best is None:
            best, argmax = values, jnp.zeros(values.shape, jnp.uint8)
        else:
            argmax = jnp.where(values > best, jnp.uint8(number), argmax)
            best = jnp.maximum(values, best)
    return best, argmax


def _unpool(argmax, cotangent, size, stride, sides):
    """Each gradient at the position of its largest value, in maps of `sides`."""
    found = 0
    for number in range(size * size):
        first = divmod(number, size)
        edges = [
            (start, side - start - stride * (count - 1) - 1, stride - 1)
            for start, side, count in zip(first, sides, cotangent.shape[1:3], strict=True)
        ]
        part = jnp.where(argmax == number, cotangent, 0)
        found += lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return found


def _picked(kept, linear, settings):
    """The `tangent` at the position of each largest value."""
    (argmax,), (tangent,), (size, stride, _) = kept, linear, settings
    found = 0
    for number, values in _windows(tangent, size, stride):
        found += jnp.where(argmax == number, values, 0)
    return [found]


_pick = _Linear(
    "pick",
    _picked,
    lambda kept, cotangents, settings: [
        _fusion_barrier(lambda cotangent, argmax: _unpool(argmax, cotangent, *settings), *cotangents, *kept)
    ],
)


def convolution(inputs, kernel, bias=None, strides=(1, 1), padding="valid", groups=1):
    """With the gradient of the bias as a matrix product: XLA sums by columns, and computes the summands again."""
    outputs = reference.convolution(inputs, kernel, None, strides, padding, groups)
    if bias is None or bias.dtype != outputs.dtype:
        return outputs if bias is None else outputs + bias
    return _bias_add(outputs, bias)


@jax.custom_jvp
def _bias_add(maps, bias):
    return maps + bias


@functools.partial(_bias_add.defjvp, symbolic_zeros=True)
def _bias_add_jvp(primals, tangents):
    maps, bias = (None if isinstance(each, SymbolicZero) else each for each in tangents)
    outputs = _bias_add(*primals)
    spread = 0 if bias is None else _broadcast_bias([], [bias], outputs.shape)[0]
    return outputs, spread if maps is None else maps + spread


_broadcast_bias = _Linear(
    "broadcast_bias",
    lambda _, linear, shape: [jnp.broadcast_to(linear[0], shape)],
    lambda _, cotangents, shape: [
        jnp.ones(math.prod(shape[:-1]), cotangents[0].dtype) @ cotangents[0].reshape(-1, shape[-1])
    ],
)


def dense(inputs, kernel, bias=None):
    """With the gradient of the kernel after that of the inputs: what comes next changes the kernel where it lies, and
    XLA copies it first if something may still read it."""
    kernel = _as_it_is_now(kernel)
    if inputs.dtype != kernel.dtype or 0 in inputs.shape:
        return reference.dense(inputs, kernel, bias)
    outputs = _matmul(inputs, kernel)
    return outputs if bias is None else outputs + bias


def _as_it_is_now(kernel):
    """The kernel as something computed where XLA would otherwise multiply by an earlier step's."""
    if not xla_keeps_matrices() or 0 in kernel.shape:
        return kernel
    return kernel + _dependent_false(kernel)


@jax.custom_jvp
def _matmul(inputs, kernel):
    return inputs @ kernel


@functools.partial(_matmul.defjvp, symbolic_zeros=True)
def _matmul_jvp(primals, tangents):
    inputs, kernel = primals
    still = [isinstance(each, SymbolicZero) for each in tangents]
    if still[1]:
        moved = tangents[0] @ kernel
    elif still[0]:
        moved = inputs @ tangents[1]
    else:
        moved = _matmul_linear(primals, tangents)[0]
    return _matmul(inputs, kernel), moved


def _matmul_gradient(kept, cotangents, _):
    (inputs, kernel), (cotangent,) = kept, cotangents
    below = cotangent @ kernel.T
    return below, inputs.T @ cotangent + _dependent_false(below)  # XLA on a CPU heeds no other order


_matmul_linear = _Linear(
    "matmul", lambda kept, linear, _: [linear[0] @ kept[1] + kept[0] @ linear[1]], _matmul_gradient
)
