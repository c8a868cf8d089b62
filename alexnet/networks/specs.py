"""What a network is made of: layer specs, and a network as an ordered tuple of them. Plain data, without Keras."""

import dataclasses
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

IMAGENET_MEAN = (127.30, 119.72, 104.91)  # of the pixels of ILSVRC 2012's training images, RGB, 0-255


@dataclass(frozen=True)
class Layer:
    """One layer, under the name that it has in the model."""

    name: str


@dataclass(frozen=True)
class WeightedLayer(Layer):
    """A layer with a kernel and a bias.

    Attributes:
        init_std: Standard deviation of the Gaussian that the kernel starts from; None for PyTorch's uniform values.
        init_bias: What the bias starts from.
        learning_rate_factors: Factors of the learning rate, for the kernel and for the bias.
        decay_factors: Factors of the weight decay, for the kernel and for the bias.
    """

    _: KW_ONLY
    init_std: float | None = 0.01
    init_bias: float = 0.0
    learning_rate_factors: tuple[float, float] = (1.0, 1.0)
    decay_factors: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Conv(WeightedLayer):
    """A convolution. `padding` is the number of rows and columns of zeros on each side. With `groups`, the filters of
    each group see only their own group's feature maps below: the paper's two columns (figure 2)."""

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclass(frozen=True)
class LocallyConnected(WeightedLayer):
    """A convolution with a different kernel and bias at every position of the feature maps."""

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Dense(WeightedLayer):
    """A fully connected layer; `units` of None are as many as there are classes, the logits."""

    units: int | None


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each value: `"relu"` or `"tanh"`."""

    function: Literal["relu", "tanh"] = "relu"


@dataclass(frozen=True)
class LRN(Layer):
    """Response normalization across feature maps (section 3.3), as `alexnet.LocalResponseNormalization` has it."""

    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    groups: int = 1


@dataclass(frozen=True)
class WithinChannelLRN(Layer):
    """Response normalization inside each feature map, over squares of `size` x `size`."""

    size: int = 5
    k: float = 1.0
    alpha: float = 1e-3 / 25
    beta: float = 0.75


@dataclass(frozen=True)
class Pool(Layer):
    """Pooling over `size` x `size` windows, `stride` apart. Where they do not come out even, rounding `"floor"` leaves
    the rest out, and `"ceil"` has one more window, cut off at the end."""

    size: int = 3
    stride: int = 2
    kind: Literal["max", "average"] = "max"
    rounding: Literal["floor", "ceil"] = "floor"


@dataclass(frozen=True)
class AdaptivePool(Layer):
    """The average over a grid of `size` x `size` windows, whatever the feature map's size."""

    size: int = 6


@dataclass(frozen=True)
class Flatten(Layer):
    """Feature maps as one vector; what follows it is the network's top."""

    name: str = "flatten"


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout at the rate that the model is built with."""


SPECS = (Conv, LocallyConnected, Dense, Activation, LRN, WithinChannelLRN, Pool, AdaptivePool, Flatten, Dropout)


@dataclass(frozen=True)
class Network:
    """A network as data: its layers from the pixels to the logits, and what it was trained on.

    A row similar to an existing one is written as that row and the differences, with `changed`, `moved`, `inserted`
    and `without`.

    Attributes:
        title: What it is, in a few words.
        layers: The layers in order; the last one is `Dense` with `units=None`.
        pixel_mean: Of the pixels that it was trained on, RGB, 0-255.
        pixel_std: What the difference from the mean is divided by.
        image_size: Pixels a side that it was trained with.
        overhang: The layer whose last window reaches past an image of 224 to 226 pixels over zeros, so that they pass
            for 227, or None.

    Raises:
        ValueError: layers that do not make a network; the message is one sentence.

    Examples:
        >>> from alexnet.networks.specs import Activation, Conv, Dense, Flatten
        >>> layers = Conv("conv1", 8, 5), Activation("relu1"), Flatten(), Dense("fc2", None)
        >>> tiny = alexnet.Network("a tiny one", layers)
        >>> tiny.without("relu1").layers[1]
        Flatten(...)
    """

    title: str
    layers: tuple[Layer, ...]
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: float | tuple[float, float, float] = 1.0
    image_size: int = 227
    overhang: str | None = None

    def __post_init__(self):
        if strangers := [layer for layer in self.layers if not isinstance(layer, SPECS)]:
            raise ValueError(
                f"{self.title}: {strangers[0]!r} is not one of {', '.join(spec.__name__ for spec in SPECS)}."
            )
        names = [layer.name for layer in self.layers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{self.title}: two layers are called {twice}.")
        last = self.layers[-1] if self.layers else None
        if not isinstance(last, Dense) or last.units is not None:
            raise ValueError(f"{self.title}: the last layer must be Dense with units=None, the logits. Found: {last!r}")
        flat, channels = False, 3
        for layer in self.layers:
            if isinstance(layer, Flatten):
                flat = True
            elif flat != isinstance(layer, Dense) and not isinstance(layer, Activation | Dropout):
                where = "after" if flat else "before"
                raise ValueError(f"{self.title}: {layer.name} cannot come {where} Flatten.")
            if isinstance(layer, Pool) and layer.stride > layer.size:
                raise ValueError(f"{self.title}: {layer.name} leaves gaps between its windows.")
            if isinstance(layer, Conv | LRN) and layer.groups > 1 and channels % layer.groups:
                raise ValueError(f"{self.title}: {layer.name} cannot cut {channels} feature maps into {layer.groups}.")
            if isinstance(layer, Conv | LocallyConnected):
                channels = layer.filters
        if not self.output_side(self.image_size):
            raise ValueError(f"{self.title}: nothing is left of an image of {self.image_size} pixels (image_size).")
        if self.overhang is not None and self.overhang not in names:
            object.__setattr__(self, "overhang", None)  # of a row without that layer

    @property
    def weighted(self):
        """The layers with weights, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, WeightedLayer))

    @property
    def groups(self):
        """Into how many columns the network is cut at most."""
        return max((layer.groups for layer in self.layers if isinstance(layer, Conv)), default=1)

    @property
    def smallest_input(self):
        """Pixels a side below which nothing is left for some layer."""
        return next(side for side in range(1, self.image_size + 1) if self.output_side(side))

    def layer(self, name):
        """The layer of that name.

        Raises:
            KeyError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{self.title} has no layer {name!r}. It has: {', '.join(each.name for each in self.layers)}")

    def following(self, name):
        """The layers without weights between the layer of that name and the next one with weights."""
        place = self.layers.index(self.layer(name)) + 1
        return tuple(_until_weighted(self.layers[place:]))

    def sides(self, side):
        """Rows of the feature maps after each layer, by its name, for an image of `side` rows. It ends with the first
        layer of which nothing is left, and 0 there; layers after `Flatten` keep the number of the maps before it.

        Examples:
            >>> alexnet.NETWORKS["paper"].sides(227)["pool1"]
            27
        """
        found, overhang = {}, self.overhanging(side)
        for layer in self.layers:
            if isinstance(layer, Conv | LocallyConnected):
                extra = overhang if layer.name == self.overhang else 0
                side = (side + 2 * layer.padding + extra - layer.kernel) // layer.stride + 1
            elif isinstance(layer, Pool):
                extra = overhang if layer.name == self.overhang else 0
                extra += layer.stride - 1 if layer.rounding == "ceil" and side >= layer.size else 0
                side = (side + extra - layer.size) // layer.stride + 1
            elif isinstance(layer, AdaptivePool):
                side = layer.size
            found[layer.name] = max(side, 0)
            if side < 1:
                break
        return found

    def output_side(self, side):
        """Rows of the feature maps that the first dense layer sees of an image of `side` rows; 0 if none is left."""
        return list(self.sides(side).values())[-1]

    def input_sides(self, output_side):
        """The sides of square images that end in feature maps of `output_side` rows, smallest first, up to 2048."""
        return [side for side in range(1, 2049) if self.output_side(side) == output_side]

    def overhanging(self, side):
        """Rows of zeros behind the input of the layer `overhang`, for an image of `side` rows."""
        if self.overhang is None or not 224 <= side < 227:
            return 0
        return 227 - side if isinstance(self.layer(self.overhang), Conv) else 1  # a pool sees 54 rows instead of 55

    def changed(self, layers=None, **fields):
        """This network with other values in some of its fields, and in some fields of some layers."""
        changes = dict(layers or {})
        for name in changes:
            self.layer(name)
        layers = tuple(replace(layer, **changes.get(layer.name, {})) for layer in self.layers)
        return replace(self, layers=layers, **fields)

    def moved(self, name, after):
        """This network with a layer at a different position."""
        rest = tuple(layer for layer in self.layers if layer.name != name)
        return replace(self, layers=_insert(rest, self.layer(name), self.layer(after)))

    def inserted(self, layer, after):
        """This network with one layer more."""
        return replace(self, layers=_insert(self.layers, layer, self.layer(after)))

    def without(self, *names):
        """This network without some layers: section 7 of the paper asks what a layer is worth.

        A layer with weights takes the activation that follows it along, and a dense one a dropout beside it.

        Raises:
            KeyError: a name that no layer has.
            ValueError: nothing that could be computed is left.
        """
        left = self
        for name in names:
            gone, index = [left.layer(name)], left.layers.index(left.layer(name))
            if isinstance(gone[0], WeightedLayer):
                after = left.following(name)
                before = _until_weighted(left.layers[:index][::-1])
                gone += [layer for layer in after if isinstance(layer, Activation)][:1]
                if isinstance(gone[0], Dense):
                    gone += [layer for layer in (*after, *before) if isinstance(layer, Dropout)][:1]
            left = replace(left, layers=tuple(layer for layer in left.layers if layer not in gone))
        return left

    def with_activation(self, function):
        """This network with every activation replaced by `"relu"` or `"tanh"`; layers are named after it."""

        def other(layer):
            if not isinstance(layer, Activation):
                return layer
            return Activation(layer.name.replace(layer.function, function), function)

        return replace(self, layers=tuple(map(other, self.layers)))


def _insert(layers, layer, after):
    place = layers.index(after) + 1
    return (*layers[:place], layer, *layers[place:])


def _until_weighted(layers):
    for layer in layers:
        if isinstance(layer, WeightedLayer):
            return
        yield layer


def scale_width(size, width, columns=1):
    """`size` filters or units times `width`, a multiple of `columns`, at least one in each."""
    return max(1, round(size * width / columns)) * columns


def settings(layer):
    """The fields of a layer but for its name."""
    return {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer) if field.name != "name"}
