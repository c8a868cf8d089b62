"""A training step on several GPUs, on paper: how long it computes, exchanges and waits for images.

`docs/scaling.md` has its predictions, and `benchmarks/devices.py` compares it with measurements.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from alexnet.networks import NETWORKS, Network
from alexnet.networks.specs import LRN, Conv, Dense, Flatten, LocallyConnected, scale_width

# What a step is divided by. The first two are values of `distribute`; the third is Krizhevsky 2014, arXiv:1404.5997.
STRATEGIES = ("data", "two_columns", "one_weird_trick")
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BYTES = 4  # of a float32, in which everything is exchanged
# Reads of the weight, the velocity and the gradient, and writes of the first two.
_UPDATE_PASSES = 5


@dataclass(frozen=True)
class LayerCost:
    """What a layer costs for one image.

    Attributes:
        name: Its name.
        inputs: Numbers that it reads.
        outputs: Numbers that it writes.
        parameters: Of its kernel and its bias.
        macs: Multiply-adds of the forward pass.
        in_maps: Whether it comes before `Flatten`, so that it belongs to the convolutional part.
    """

    name: str
    inputs: int
    outputs: int
    parameters: int
    macs: int
    in_maps: bool


def layer_costs(
    network: Network, image_size: int | None = None, width: float = 1.0, classes: int = 1000
) -> list[LayerCost]:
    """What each layer costs, counted from the network's specs.

    Args:
        network: The network.
        image_size: Pixels a side; None for what it was trained with.
        width: Factor of the filters and hidden units.
        classes: Units of the last layer.

    Raises:
        ValueError: nothing is left of images of this size.

    Examples:
        >>> costs = layer_costs(NETWORKS["paper"])
        >>> sum(cost.parameters for cost in costs), sum(cost.macs for cost in costs)
        (60965224, 724406816)
    """
    side = network.image_size if image_size is None else image_size
    sides = network.sides(side)
    if not all(sides.values()):
        raise ValueError(f"{network.title}: nothing is left of an image of {side} pixels.")
    channels, flat, costs = 3, False, []
    numbers = side * side * channels
    for layer in network.layers:
        inputs, parameters, macs = numbers, 0, 0
        flat = flat or isinstance(layer, Flatten)
        positions = sides[layer.name] ** 2
        if isinstance(layer, Conv | LocallyConnected):
            filters = scale_width(layer.filters, width, network.groups)
            kernel = layer.kernel**2 * channels * filters
            if isinstance(layer, Conv):
                kernel //= layer.groups
                parameters, macs = kernel + filters, kernel * positions
            else:
                parameters, macs = (kernel + filters) * positions, kernel * positions
            channels = filters
        elif isinstance(layer, Dense):
            numbers = classes if layer.units is None else scale_width(layer.units, width)
            parameters, macs = (inputs + 1) * numbers, inputs * numbers
        if not flat:
            numbers = positions * channels
        costs.append(LayerCost(layer.name, inputs, numbers, parameters, macs, not flat))
    return costs


@dataclass(frozen=True)
class Hardware:
    """Devices, the links between them, and what feeds them.

    Attributes:
        title: What it is.
        flops: FLOP/s of a device in training this kind of network; a multiply-add counts as two.
        memory_bandwidth: Bytes/s that a device reads and writes in its memory; the optimizer's step is limited by it.
        link_bandwidth: Bytes/s that a device sends to another one of its host, while it receives as many.
        link_latency: Seconds before the first byte arrives there.
        devices_per_host: Devices of a host.
        network_bandwidth: Bytes/s that a host sends to others, while it receives as many.
        network_latency: Seconds before the first byte arrives there.
        input_rate: Images/s that a host reads and prepares.
        overlap: Share of the time for exchanging the gradients of the fully connected layers that the engine hides
            behind the backward pass of the convolutions, if that takes long enough.
        shared: Whether the devices of a host are virtual ones, which share the FLOP/s, the memory and the link of one
            processor: then nothing gets faster, and what several cost is overhead.
    """

    title: str
    flops: float
    memory_bandwidth: float = math.inf
    link_bandwidth: float = math.inf
    link_latency: float = 0.0
    devices_per_host: int = 1
    network_bandwidth: float = math.inf
    network_latency: float = 0.0
    input_rate: float = math.inf
    overlap: float = 1.0
    shared: bool = False


@dataclass(frozen=True)
class Transfer:
    """Something that the devices of a group exchange in each step.

    Attributes:
        layer: The layer that reads it, or whose gradient it is; `"convolutions"` and `"fully connected"` for the
            gradients of all of them.
        what: `"activations"`, `"gradients of activations"` or `"gradients of weights"`.
        bytes: Size of the whole array, of which each device has a part or a summand.
        passes: 1 where each device gets the parts of the others (all-gather) or the sum of a part (reduce-scatter), 2
            where each gets the whole sum (all-reduce).
        devices: Devices in a group.
        stride: 1 for groups of neighbors, 2 for groups of every second device.
    """

    layer: str
    what: str
    bytes: int
    passes: Literal[1, 2]
    devices: int
    stride: int = 1

    @property
    def backward(self) -> bool:
        """Whether it belongs to the backward pass."""
        return self.what != "activations"

    @property
    def received(self) -> float:
        """Bytes that each device of the group receives."""
        return self.passes * (self.devices - 1) / self.devices * self.bytes

    def seconds(self, hardware: Hardware) -> float:
        """How long it takes as a ring: `passes * (n - 1) / n * bytes / bandwidth`, and `passes * (n - 1)` latencies.

        With several hosts, the devices of a host first do it among themselves, and then each with its counterparts,
        where the groups of a host share its network: so does NCCL count its steps (NVIDIA/nccl, src/graph/tuning.cc).

        Examples:
            >>> link = Hardware("", flops=1e12, link_bandwidth=1e9, devices_per_host=2)
            >>> Transfer("fc6", "gradients of weights", 10**9, 2, devices=2).seconds(link)
            1.0
        """
        local = max(1, min(self.devices, hardware.devices_per_host // self.stride))
        hosts = self.devices // local
        groups = min(self.stride, hardware.devices_per_host)
        link = hardware.link_bandwidth / (hardware.devices_per_host if hardware.shared else 1)
        once = (local - 1) / local * self.bytes / link + (local - 1) * hardware.link_latency
        if hosts > 1:
            once += (hosts - 1) / hosts * self.bytes * groups / hardware.network_bandwidth
            once += (hosts - 1) * hardware.network_latency
        return self.passes * once


def transfers(
    network: Network,
    strategy: str,
    devices: int,
    batch_size: int,
    image_size: int | None = None,
    width: float = 1.0,
    classes: int = 1000,
) -> list[Transfer]:
    """What the devices exchange in each step.

    - `data`: the gradients of all weights are summed over all devices.
    - `two_columns`: in a pair of devices, what the column layouts of `distribute: two_columns` imply. conv3, fc6 and
      fc7 read the activations of both devices, so that these are gathered, and the gradients with respect to them are
      summed in the backward pass; of fc8 the logits are summed. Response normalization over all channels exchanges
      the channels at the border. Between the pairs, the gradients of each column's weights are summed.
    - `one_weird_trick`: the gradients of the convolutions are summed over all devices. Each device has a part of the
      fully connected layers and computes it for the whole batch, for which the activations of the last pooling are
      gathered at once, the first of the three schemes of Krizhevsky 2014 (a). The layers are divided as in the columns,
      and none of their weights' gradients is exchanged.

    Args:
        network: The network.
        strategy: One of `STRATEGIES`.
        devices: How many devices; 1 exchanges nothing.
        batch_size: Images in a step, on all devices together.
        image_size: Pixels a side; None for what the network was trained with.
        width: Factor of the filters and hidden units.
        classes: Units of the last layer.

    Raises:
        ValueError: an unknown strategy, columns that the network does not have, or a batch or a number of devices that
            cannot be divided.

    Examples:
        >>> [gradients, _] = transfers(NETWORKS["paper"], "data", 2, 128)
        >>> gradients.layer, gradients.bytes, gradients.passes
        ('fully connected', 234524576, 2)
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"Unknown strategy. Received: {strategy!r}. Known: {', '.join(STRATEGIES)}")
    if devices == 1:
        return []
    replicas = devices // 2 if strategy == "two_columns" else devices
    if devices < 1 or (strategy == "two_columns" and devices % 2):
        kind = "an even number" if strategy == "two_columns" else "1 or more"
        raise ValueError(f"devices: received {devices}; allowed for {strategy}: {kind}.")
    if batch_size < 1 or batch_size % replicas:
        raise ValueError(f"batch_size: received {batch_size}; allowed: a multiple of {replicas}.")
    costs = layer_costs(network, image_size, width, classes)
    maps, dense = (sum(cost.parameters for cost in costs if cost.in_maps is part) for part in (True, False))
    if strategy == "data":
        return _gradients({"fully connected": dense, "convolutions": maps}, devices)
    if strategy == "one_weird_trick":
        return _divided_dense(network, costs, batch_size, devices) + _gradients({"convolutions": maps}, devices)
    if not any(isinstance(layer, Conv) and layer.groups == 2 for layer in network.layers):
        raise ValueError(f"{network.title} has no two columns.")
    images = batch_size // replicas
    halves = {"fully connected": (dense - classes) // 2 + classes, "convolutions": maps // 2}  # both have fc8's bias
    return (
        _divided_maps(network, costs, images, network.sides(image_size or network.image_size))
        + _divided_dense(network, costs, images, 2)
        + (_gradients(halves, replicas, stride=2) if replicas > 1 else [])
    )


def received_by_layer(exchanged: list[Transfer]) -> dict[str, tuple[float, float]]:
    """Megabytes that each device receives in a step, in the forward and in the backward pass, by layer.

    Examples:
        >>> received_by_layer(transfers(NETWORKS["krizhevsky2012"], "two_columns", 2, 125))["fc7"]
        (1.024, 1.024)
    """
    found: dict[str, list[float]] = {}
    for each in exchanged:
        found.setdefault(each.layer, [0.0, 0.0])[each.backward] += each.received / 1e6
    return {layer: (forward, backward) for layer, (forward, backward) in found.items()}


def _gradients(parameters, devices, stride=1):
    """In the order in which the backward pass makes them."""
    return [
        Transfer(layer, "gradients of weights", _BYTES * count, 2, devices, stride)
        for layer, count in parameters.items()
        if count
    ]


def _both_ways(layer, numbers, devices):
    """Activations gathered in the forward pass, and the gradients with respect to them summed in the backward pass."""
    return [
        Transfer(layer, "activations", _BYTES * numbers, 1, devices),
        Transfer(layer, "gradients of activations", _BYTES * numbers, 1, devices),
    ]


def _divided_maps(network, costs, images, sides):
    """What two devices with a column each exchange for the convolutional part."""
    found, previous = [], None
    for layer, cost in zip(network.layers, costs, strict=True):
        if isinstance(layer, Conv | LocallyConnected):
            if previous is not None and getattr(layer, "groups", 1) == 1:
                found += _both_ways(layer.name, images * cost.inputs, 2)
            previous = layer
        elif isinstance(layer, LRN) and layer.groups == 1:
            found += _both_ways(layer.name, images * 2 * (layer.n // 2) * sides[layer.name] ** 2, 2)
    return found


def _divided_dense(network, costs, images, devices):
    """What devices with a part of the fully connected layers exchange: the first ones are divided by their units, the
    last one by its inputs."""
    layers = [cost for layer, cost in zip(network.layers, costs, strict=True) if isinstance(layer, Dense)]
    found = [each for cost in layers[:-1] for each in _both_ways(cost.name, images * cost.inputs, devices)]
    return [*found, Transfer(layers[-1].name, "activations", _BYTES * images * layers[-1].outputs, 2, devices)]


@dataclass(frozen=True)
class Step:
    """A training step, predicted. Times are in seconds.

    Attributes:
        strategy: One of `STRATEGIES`.
        devices: How many devices.
        batch_size: Images in a step, on all devices together.
        compute: Forward and backward pass.
        update: The optimizer's step.
        exchange: All exchanges, those behind the backward pass included.
        exposed: Those for which the devices wait.
        input: Reading the images, while the devices compute.
        memory: Bytes on a device, at least: weights, gradients, velocities, and the activations of its images.
        efficiency: Images/s as a share of those of as many devices that would work as one alone does.
    """

    strategy: str
    devices: int
    batch_size: int
    compute: float
    update: float
    exchange: float
    exposed: float
    input: float
    memory: int
    efficiency: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return max(self.compute + self.update + self.exposed, self.input)

    @property
    def images_per_second(self) -> float:
        """Images/s of all devices together."""
        return self.batch_size / self.seconds

    @property
    def limit(self) -> str:
        """What takes longest: `"compute"`, `"exchange"` or `"input"`."""
        if self.input >= self.compute + self.update + self.exposed:
            return "input"
        return "exchange" if self.exposed > self.compute + self.update else "compute"


def training_step(
    network: Network,
    strategy: str,
    devices: int,
    batch_size: int,
    hardware: Hardware,
    image_size: int | None = None,
    width: float = 1.0,
    classes: int = 1000,
) -> Step:
    """Predict a training step.

    The devices share the arithmetic equally in every strategy. Its time is the multiply-adds divided by the effective
    FLOP/s, without regard to how well small batches fill a device. What a pair of columns or the fully connected
    layers exchange is waited for; of the gradients of the weights a part is hidden (`Hardware.overlap`).

    Args:
        network: The network.
        strategy: One of `STRATEGIES`.
        devices: How many devices; full hosts if there is more than one host.
        batch_size: Images in a step, on all devices together.
        hardware: What it runs on.
        image_size: Pixels a side; None for what the network was trained with.
        width: Factor of the filters and hidden units.
        classes: Units of the last layer.

    Raises:
        ValueError: see `transfers`; or devices that do not fill their hosts.

    Examples:
        >>> step = training_step(NETWORKS["krizhevsky2012"], "two_columns", 2, 128, HARDWARE["gtx580"])
        >>> round(step.images_per_second), step.limit
        (226, 'compute')
    """
    if hardware.shared:  # among those that work
        hardware = replace(hardware, devices_per_host=min(devices, hardware.devices_per_host))
    per_host = hardware.devices_per_host
    if devices > per_host and devices % per_host:
        raise ValueError(f"devices: received {devices}; allowed: a multiple of {per_host}, the devices of a host.")
    sizes: dict[str, Any] = {"image_size": image_size, "width": width, "classes": classes}
    exchanged = transfers(network, strategy, devices, batch_size, **sizes)
    costs = layer_costs(network, **sizes)
    share = per_host if hardware.shared else 1  # of one processor
    images = batch_size / devices

    def compute(macs):
        return share * images * 2 * macs / hardware.flops

    # Gradients with respect to the kernel and to the input, which the first layer does not need.
    first = next(cost for cost in costs if cost.macs)
    backward = compute(sum((1 if cost is first else 2) * cost.macs for cost in costs if cost.in_maps))
    owned = _parameters_on_a_device(costs, strategy, devices, classes)
    update = share * _BYTES * _UPDATE_PASSES * owned / hardware.memory_bandwidth
    hideable = sum(each.seconds(hardware) for each in exchanged if each.layer == "fully connected")
    exchange = sum(each.seconds(hardware) for each in exchanged)
    exposed = exchange - min(hardware.overlap * hideable, backward)
    hosts = math.ceil(devices / per_host)
    gathered = sum(each.bytes for each in exchanged if each.what == "activations" and each.passes == 1)
    step = Step(
        strategy=strategy,
        devices=devices,
        batch_size=batch_size,
        compute=compute(3 * sum(cost.macs for cost in costs) - first.macs),
        update=update,
        exchange=exchange,
        exposed=exposed,
        input=batch_size / hosts / hardware.input_rate,
        memory=round(3 * _BYTES * owned + _BYTES * images * sum(cost.outputs for cost in costs) + gathered),
        efficiency=1.0,
    )
    if devices == 1:
        return step
    alone = training_step(network, "data", 1, batch_size, hardware, **sizes)
    efficiency = step.images_per_second / devices / alone.images_per_second
    return replace(step, efficiency=efficiency)


def _parameters_on_a_device(costs, strategy, devices, classes):
    maps, dense = (sum(cost.parameters for cost in costs if cost.in_maps is part) for part in (True, False))
    if devices == 1 or strategy == "data":
        return maps + dense
    parts = 2 if strategy == "two_columns" else devices
    return (maps / parts if strategy == "two_columns" else maps) + (dense - classes) / parts + classes


def predict(
    network: Network,
    hardware: Hardware,
    batch_size: int | None = None,
    images_per_device: int = 128,
    devices: tuple[int, ...] = DEVICES,
) -> list[Step]:
    """A `Step` for each strategy and each number of devices, in this order.

    Args:
        network: A network with two columns.
        hardware: What it runs on.
        batch_size: Images in a step on all devices together, whatever their number; None for a batch that grows with
            them. Numbers of devices that do not divide it are left out.
        images_per_device: Images of each device where `batch_size` is None.
        devices: The numbers of devices.

    Examples:
        >>> steps = predict(NETWORKS["krizhevsky2012"], HARDWARE["h100"], batch_size=1024)
        >>> len(steps), steps[-1].strategy, steps[-1].devices, steps[-1].limit
        (27, 'one_weird_trick', 256, 'exchange')
    """
    return [
        training_step(network, strategy, count, batch_size or count * images_per_device, hardware)
        for strategy in STRATEGIES
        for count in devices
        if batch_size is None or batch_size % count == 0
    ]


def pays_up_to(steps: list[Step], gain: float = 1.5) -> int:
    """The number of devices up to which each doubling makes at least `gain` times as many images/s.

    Args:
        steps: Of one strategy, each with twice the devices of the one before.
        gain: 2 if nothing is lost.

    Examples:
        >>> steps = predict(NETWORKS["krizhevsky2012"], HARDWARE["gtx580"], devices=(1, 2, 4))
        >>> pays_up_to(steps[:3])
        2
    """
    for step, doubled in zip(steps, steps[1:], strict=False):
        if doubled.images_per_second < gain * step.images_per_second:
            return step.devices
    return steps[-1].devices


def learning_rate(
    batch_size: int,
    rule: str = "linear",
    base_rate: float = 0.01,
    base_batch_size: int = 128,
    epoch: float | None = None,
    warmup_epochs: float = 5.0,
) -> float:
    """The learning rate for a batch that is k times as large as the one that `base_rate` is for.

    - `linear`: k times the rate, which is reached from the base rate in equal steps over the first five epochs: Goyal
      et al. 2017 (arXiv:1706.02677), ResNet-50 with batches of up to 8192. Krizhevsky 2014 (arXiv:1404.5997) also
      multiplied by k.
    - `sqrt`: sqrt(k) times the rate, which keeps the variance of the gradient's expectation; Krizhevsky 2014, page 5,
      gives it as what theory suggests.

    For AlexNet the linear rule does not go on without end. You et al. 2017 (arXiv:1708.03888) say that it is not
    general enough and that training may diverge; with a rate for each layer (LARS), AlexNet reached batches of 8192
    without loss of accuracy. This package has no LARS.

    Args:
        batch_size: Images in a step, on all devices together.
        rule: `"linear"` or `"sqrt"`.
        base_rate: The rate that is known to work: 0.01 in the paper.
        base_batch_size: For batches of this size: 128 in the paper.
        epoch: How many epochs have passed, for the rate while it warms up; None for the rate after that.
        warmup_epochs: How many epochs the warm-up takes.

    Raises:
        ValueError: an unknown rule, or a size below 1.

    Examples:
        >>> learning_rate(1024), learning_rate(512, "sqrt"), round(learning_rate(1024, epoch=2.5), 3)
        (0.08, 0.02, 0.045)
    """
    if rule not in ("linear", "sqrt"):
        raise ValueError(f"Unknown rule. Received: {rule!r}. Known: linear, sqrt")
    if batch_size < 1 or base_batch_size < 1:
        raise ValueError(f"batch_size: received {min(batch_size, base_batch_size)}; allowed: 1 or more.")
    factor = batch_size / base_batch_size
    rate = base_rate * (factor if rule == "linear" else math.sqrt(factor))
    if epoch is None or epoch >= warmup_epochs or rate <= base_rate:
        return rate
    return base_rate + (rate - base_rate) * max(epoch, 0.0) / warmup_epochs


def effective_flops(
    network: Network,
    images_per_second: float,
    batch_size: int,
    memory_bandwidth: float = math.inf,
    image_size: int | None = None,
    width: float = 1.0,
    classes: int = 1000,
) -> float:
    """The FLOP/s of a device that trains so many images/s alone.

    Convolutions count as they are written. Libraries that compute them with fewer multiplications, as Winograd's
    algorithm does, may come out above what a data sheet promises.

    Examples:
        >>> flops = effective_flops(NETWORKS["paper"], 100, 128)
        >>> round(training_step(NETWORKS["paper"], "data", 1, 128, Hardware("", flops)).images_per_second)
        100
    """
    sizes: dict[str, Any] = {"image_size": image_size, "width": width, "classes": classes}
    one = training_step(network, "data", 1, batch_size, Hardware("", 1.0, memory_bandwidth), **sizes)
    return one.compute / (batch_size / images_per_second - one.update)


# tf_cnn_benchmarks' AlexNet (tensorflow/benchmarks, alexnet_model.py): one column, 384 filters in conv4.
TENSORFLOW2017 = NETWORKS["one_tower"].changed({"conv4": {"filters": 384}}, title="AlexNet of tf_cnn_benchmarks")
# Images/s in training by the number of P100s in a DGX-1: synthetic data, 512 images on each, NCCL, May 2017
# (tensorflow/tensorflow, docs_src/performance/benchmarks.md).
TENSORFLOW2017_RATES = {1: 2987, 2: 5658, 4: 10509, 8: 17822}
# 90 epochs of 1.2 million images in five to six days on two GTX 580 (sections 1 and 5 of the paper).
PAPER_EPOCHS, PAPER_IMAGES, PAPER_DAYS = 90, 1_200_000, (5, 6)


def _paper_gpus():
    memory = 384 / 8 * 4.008e9  # 384 bits at 4008 MHz
    rate = PAPER_EPOCHS * PAPER_IMAGES / (86_400 * sum(PAPER_DAYS) / 2)
    return Hardware(
        title="GTX 580, two in a machine, PCIe 2.0",
        flops=effective_flops(NETWORKS["krizhevsky2012"], rate / 2, 128, memory),
        memory_bandwidth=memory,
        link_bandwidth=8e9,  # 16 lanes of 500 MB/s in each direction
        link_latency=5.7e-6,  # NCCL's number for a step over PCIe
        devices_per_host=2,
        network_bandwidth=1e9 / 8,  # the gigabit Ethernet of a board of that time; the paper used one machine
        network_latency=9.6e-6,  # NCCL's number for a step over a network, a good one
        overlap=0.0,
    )


def _dgx1():
    memory, latency, images = 732e9, 3.4e-6, 512  # of HBM2; NCCL's number for a step over NVLink
    rates = TENSORFLOW2017_RATES
    waited = images / (rates[8] / 8) - images / rates[1]  # in a step of eight GPUs
    sent = sum(each.bytes for each in transfers(TENSORFLOW2017, "data", 8, 8 * images)) * 2 * 7 / 8
    return Hardware(
        title="P100, eight in a DGX-1, TensorFlow of 2017",
        flops=effective_flops(TENSORFLOW2017, rates[1], images, memory),
        memory_bandwidth=memory,
        link_bandwidth=sent / (waited - 2 * 2 * 7 * latency),  # what the measured rates leave of NVLink's 80 GB/s
        link_latency=latency,
        devices_per_host=8,
        network_bandwidth=4 * 100e9 / 8,  # four InfiniBand adapters of 100 Gb/s
        network_latency=9.6e-6,
        overlap=0.0,  # it is contained in the bandwidth
    )


def _dgx_h100(p100):
    memory = 3.35e12
    return Hardware(
        title="H100, eight in a DGX H100, NDR InfiniBand",
        # An estimate, not a measurement: the P100's measured rate times the ratio of the memories' bandwidths.
        flops=p100.flops * memory / p100.memory_bandwidth,
        memory_bandwidth=memory,
        link_bandwidth=450e9,  # NVLink's 900 GB/s are both directions together
        link_latency=3.4e-6,
        devices_per_host=8,
        network_bandwidth=8 * 400e9 / 8,  # eight InfiniBand adapters of 400 Gb/s
        network_latency=9.6e-6,
        # 112 cores, and a packed set: 9,783 images/s on two cores (docs/measurements.md, "Reading images").
        input_rate=112 / 2 * 9783,
        overlap=1.0,
    )


HARDWARE = {"gtx580": _paper_gpus(), "p100": (_p100 := _dgx1()), "h100": _dgx_h100(_p100)}
