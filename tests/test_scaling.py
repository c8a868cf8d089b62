"""The prediction of a training step on several GPUs: what any right model says, and numbers counted by hand."""

import dataclasses
import doctest
import json
import math
import runpy
from pathlib import Path

import pytest

from alexnet import plotting, scaling
from alexnet.model import AlexNet, summarize_layers
from alexnet.networks import NETWORKS
from alexnet.scaling import HARDWARE, STRATEGIES, Hardware, Transfer, layer_costs, training_step, transfers
from benchmarks import devices as measured

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
NETWORK = NETWORKS["krizhevsky2012"]
PARAMETERS = 60_965_224
DENSE = 37_752_832 + 16_781_312 + 4_097_000
CONV = PARAMETERS - DENSE
# 2e12 FLOP/s and links of 1 GB/s: a step of 128 images takes about a quarter of a second to compute, and as long to
# sum the gradients. Nothing is hidden.
MACHINE = Hardware("a machine", flops=2e12, link_bandwidth=1e9, devices_per_host=256, overlap=0.0)


def step(strategy="data", devices=2, batch_size=256, hardware=MACHINE, network=NETWORK):
    return training_step(network, strategy, devices, batch_size, hardware)


def sizes(found, what):
    return {each.layer: (each.bytes, each.passes) for each in found if each.what == what}


def test_the_examples_are_true():
    assert doctest.testmod(scaling).attempted > 10
    assert doctest.testmod(scaling, raise_on_error=True).failed == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_the_built_network(name):
    """At a different size and width, too. Counted from the specs here, from the layers of Keras there."""
    for options in ({}, {"image_size": 99, "width": 0.25, "classes": 7}):
        side = options.get("image_size", NETWORKS[name].image_size)
        keywords = {key: options[key] for key in ("width", "classes") if key in options}
        model = AlexNet(name, (side, side, 3), classes=keywords.pop("classes", 1000), initializer="zeros", **keywords)
        built = {row["layer"]: row for row in summarize_layers(model)}
        for cost in layer_costs(NETWORKS[name], **options):
            if cost.name in built:  # an AdaptivePool that has nothing to do is not built
                row = built[cost.name]
                found = cost.outputs, cost.parameters, cost.macs
                assert found == (math.prod(row["output"]), row["parameters"], row["macs"]), cost.name


def test_one_device_exchanges_nothing():
    for strategy in STRATEGIES:
        alone = step(strategy, 1, 128)
        assert (alone.exchange, alone.exposed, alone.efficiency, alone.limit) == (0, 0, 1, "compute")
        # Three passes of two operations, but for the gradient with respect to the pixels.
        assert alone.compute == pytest.approx(128 * (6 * 724_406_816 - 2 * 105_415_200) / 2e12)


def test_data_sums_the_gradient_of_every_weight():
    found = transfers(NETWORK, "data", 8, 128)
    assert sum(each.bytes for each in found) == 4 * PARAMETERS and {each.passes for each in found} == {2}
    # A ring of n devices sends 2 (n - 1) / n of it.
    for devices in (2, 8, 256):
        expected = 2 * (devices - 1) / devices * 4 * PARAMETERS / 1e9
        assert step(devices=devices, batch_size=256).exchange == pytest.approx(expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_link_twice_as_fast_halves_the_exchange(strategy):
    faster = dataclasses.replace(MACHINE, link_bandwidth=2e9)
    assert step(strategy, 8).exchange == pytest.approx(2 * step(strategy, 8, hardware=faster).exchange)
    apart = dataclasses.replace(MACHINE, devices_per_host=2, network_bandwidth=1e8, link_bandwidth=1e15)
    closer = dataclasses.replace(apart, network_bandwidth=2e8)
    slow, fast = (step(strategy, 8, hardware=machine).exchange for machine in (apart, closer))
    assert slow == pytest.approx(2 * fast, rel=1e-4)


def test_columns_exchange_what_the_paper_draws():
    """Figure 2: conv3, fc6 and fc7 read both columns; the logits are sums of both."""
    found = transfers(NETWORK, "two_columns", 2, 128)
    maps, pooled, hidden = 13 * 13 * 256, 6 * 6 * 256, 4096
    both = {"conv3": maps, "fc6": pooled, "fc7": hidden}
    assert sizes(found, "activations") == {
        **{layer: (4 * 128 * numbers, 1) for layer, numbers in both.items()},
        "fc8": (4 * 128 * 1000, 2),
    }
    backward = sizes(found, "gradients of activations")
    assert backward == {layer: (4 * 128 * numbers, 1) for layer, numbers in both.items()}
    assert not sizes(found, "gradients of weights")
    # By hand: half of what is gathered, there and back, and the logits once more than half.
    assert step("two_columns", 2, 128).exchange == pytest.approx(4 * 128 * (maps + pooled + hidden + 1000) / 1e9)
    # In `paper` two channels at each side of the border are exchanged for the response normalizations.
    border = sizes(transfers(NETWORKS["paper"], "two_columns", 2, 128), "activations")
    assert border["norm1"] == (4 * 128 * 4 * 55 * 55, 1) and border["norm2"] == (4 * 128 * 4 * 27 * 27, 1)
    # The columns of net 150 first meet in fc6.
    assert "conv3" not in sizes(transfers(NETWORKS["net150"], "two_columns", 2, 128), "activations")


def test_pairs_of_columns_sum_half_of_the_weights():
    found = transfers(NETWORK, "two_columns", 8, 128)
    weights = [each for each in found if each.what == "gradients of weights"]
    assert {(each.devices, each.stride) for each in weights} == {(4, 2)}
    assert sum(each.bytes for each in weights) == 4 * (PARAMETERS + 1000) / 2  # both have the bias of fc8
    assert sizes(found, "activations")["fc7"] == (4 * 32 * 4096, 1)  # a pair has a quarter of the images


def test_the_weird_trick_leaves_dense_gradients_where_they_are():
    found = transfers(NETWORK, "one_weird_trick", 8, 128)
    assert sizes(found, "gradients of weights") == {"convolutions": (4 * CONV, 2)}
    assert sizes(found, "activations")["fc6"] == (4 * 128 * 9216, 1)
    assert {each.devices for each in found} == {8}
    # Its activations grow with the batch, the gradients do not.
    large, small = (step("one_weird_trick", 8, size).exchange for size in (4096, 128))
    assert large > 10 * small and step("data", 8, 4096).exchange == step("data", 8, 128).exchange
    assert step("one_weird_trick", 8, 128).memory < step("data", 8, 128).memory - 3 * 4 * 0.8 * DENSE


def test_rings_over_hosts():
    """Two hosts with two devices each; every device sends half inside, and a host the whole of a half twice over."""
    machine = Hardware("", 1e12, link_bandwidth=1e9, link_latency=1e-3, devices_per_host=2)
    machine = dataclasses.replace(machine, network_bandwidth=1e8, network_latency=1e-2)
    all_four = Transfer("", "gradients of weights", 10**8, 2, devices=4)
    assert all_four.seconds(machine) == pytest.approx(2 * (0.05 + 1e-3 + 0.5 + 1e-2))
    # Every second device: two groups at once share the network, and none meets inside a host.
    assert Transfer("", "gradients of weights", 10**8, 2, 2, stride=2).seconds(machine) == pytest.approx(2.02)
    pair = Transfer("", "activations", 10**8, 1, devices=2)
    assert pair.seconds(machine) == pytest.approx(0.05 + 1e-3)
    assert pair.seconds(dataclasses.replace(machine, devices_per_host=1)) == pytest.approx(0.5 + 1e-2)


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("batch_size", [None, 1024])
def test_efficiency_falls(hardware, batch_size):
    steps = scaling.predict(NETWORK, HARDWARE[hardware], batch_size)
    for strategy in STRATEGIES:
        own = [each for each in steps if each.strategy == strategy]
        assert [each.devices for each in own] == list(scaling.DEVICES)
        found = [each.efficiency for each in own]
        assert found[0] == 1 and found == sorted(found, reverse=True) and found[-1] < 0.95
        for each in own:
            expected = each.efficiency * each.devices
            alone = training_step(NETWORK, strategy, 1, each.batch_size, HARDWARE[hardware])
            assert each.images_per_second == pytest.approx(expected * alone.images_per_second)


def test_what_is_hidden():
    """Behind the backward pass of the convolutions, the gradients of the fully connected layers, and no more."""
    hidden = step(batch_size=512, hardware=dataclasses.replace(MACHINE, overlap=1.0))
    assert hidden.exchange - hidden.exposed == pytest.approx(4 * DENSE / 1e9)
    half = step(batch_size=512, hardware=dataclasses.replace(MACHINE, overlap=0.5))
    assert half.exchange - half.exposed == pytest.approx(2 * DENSE / 1e9)
    short = step(batch_size=2, hardware=dataclasses.replace(MACHINE, overlap=1.0))  # an image on each
    backward = 4 * (665_784_864 - 105_415_200) + 2 * 105_415_200
    assert short.exchange - short.exposed == pytest.approx(backward / 2e12)


def test_what_limits():
    assert step(batch_size=2).limit == "exchange"
    hungry = step(hardware=dataclasses.replace(MACHINE, input_rate=100))
    assert hungry.limit == "input" and hungry.images_per_second == pytest.approx(100)
    hosts = dataclasses.replace(MACHINE, input_rate=100, devices_per_host=1, network_bandwidth=1e12)
    assert step(devices=2, hardware=hosts).images_per_second == pytest.approx(200)


def test_virtual_devices_make_nothing_faster():
    machine = dataclasses.replace(MACHINE, devices_per_host=4, shared=True, memory_bandwidth=1e10)
    steps = [step(devices=devices, hardware=machine) for devices in (1, 2, 4)]
    assert {round(each.compute, 9) for each in steps} == {round(steps[0].compute, 9)}
    assert [each.update / steps[0].update for each in steps] == pytest.approx([1, 2, 4])  # each updates its copy
    assert steps[1].exchange == pytest.approx(2 * 4 * PARAMETERS / 1e9)  # two devices send over one bus
    assert steps[0].seconds < steps[1].seconds < steps[2].seconds
    # Two pairs with half of the images each take as long over the same bus as one pair.
    one, two = (step("two_columns", devices, 128, machine) for devices in (2, 4))
    weights = sum(each.seconds(machine) for each in transfers(NETWORK, "two_columns", 4, 128) if each.stride == 2)
    assert two.exchange - weights == pytest.approx(one.exchange)


def test_the_papers_time_and_its_one_gpu_network():
    """Section 3.2: the network on two GPUs takes slightly less time than the one of half as many kernels on one."""
    paper = HARDWARE["gtx580"]
    two = step("two_columns", 2, 128, paper)
    assert 5 < scaling.PAPER_EPOCHS * scaling.PAPER_IMAGES / two.images_per_second / 86_400 < 6
    assert 0.2 < paper.flops / 1.581e12 < 0.5  # of 512 cores at 1.544 GHz
    one = step("data", 1, 128, paper, NETWORKS["net145_half"])
    assert 0.85 < two.seconds / one.seconds < 1


def test_rates_that_tensorflow_published():
    """One and eight GPUs are what the model was told; two and four are not, nor is another batch size."""
    p100, network = HARDWARE["p100"], scaling.TENSORFLOW2017
    found = {n: training_step(network, "data", n, 512 * n, p100).images_per_second for n in (1, 2, 4, 8)}
    for count, tolerance in {1: 1e-6, 2: 0.15, 4: 0.15, 8: 1e-6}.items():
        assert found[count] == pytest.approx(scaling.TENSORFLOW2017_RATES[count], rel=tolerance)
    # You et al. 2017 on the same machine: batches of 4096 run three times as fast as batches of 512.
    assert found[8] / training_step(network, "data", 8, 512, p100).images_per_second == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("both", 2, 128), "Unknown strategy.*both.*one_weird_trick"),
        (("data", 3, 128), "a multiple of 3"),
        (("data", 0, 128), "1 or more"),
        (("two_columns", 3, 128), "an even number"),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_step(NETWORK, *arguments, MACHINE)


def test_what_else_cannot_be():
    with pytest.raises(ValueError, match="has no two columns"):
        transfers(NETWORKS["one_tower"], "two_columns", 2, 128)
    with pytest.raises(ValueError, match="a multiple of 8, the devices of a host"):
        training_step(NETWORK, "data", 12, 144, HARDWARE["h100"])
    with pytest.raises(ValueError, match="nothing is left of an image of 20 pixels"):
        layer_costs(NETWORK, 20)
    with pytest.raises(ValueError, match="Unknown rule"):
        scaling.learning_rate(256, "cubic")
    with pytest.raises(ValueError, match="1 or more"):
        scaling.learning_rate(0)


def test_learning_rates():
    assert scaling.learning_rate(128) == 0.01 and scaling.learning_rate(64) == 0.005
    assert scaling.learning_rate(8192) == pytest.approx(0.64)
    assert scaling.learning_rate(8192, "sqrt") == pytest.approx(0.08)
    warming = [scaling.learning_rate(1024, epoch=epoch) for epoch in (0, 1, 4, 5, 20)]
    assert warming == pytest.approx([0.01, 0.024, 0.066, 0.08, 0.08])
    assert scaling.learning_rate(64, epoch=0) == 0.005  # nothing to warm up to


def test_the_page_has_these_numbers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    written = runpy.run_path(str(ROOT / "docs" / "write_scaling.py"))
    assert written["main"](check=True) == 0, "run python docs/write_scaling.py"
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert written["page"](text.replace("| 256 |", "| 255 |")) == text  # the check sees a change


def test_the_record_is_of_this_model():
    record = json.loads((ROOT / "benchmarks" / "results" / "devices.json").read_text(encoding="utf-8"))
    sized = {"image_size": record["settings"]["image_size"], "width": record["settings"]["width"], "classes": 10}
    rows = {row["arrangement"]: row for row in record["rows"]}
    for row in rows.values():
        strategy = "data" if row["distribute"] == "none" else row["distribute"]
        found = transfers(NETWORK, strategy, row["devices"], record["settings"]["batch_size"], **sized)
        assert sum(each.bytes for each in found) == row["predicted"]["exchanged_bytes"], row["arrangement"]


def test_picture():
    steps = scaling.predict(NETWORK, HARDWARE["h100"], 1024)
    figure = plotting.device_scaling({"one": steps, "two": steps})
    lines = figure.axes[1].lines
    assert [line.get_label() for line in lines][2] == "one weird trick" and len(lines) == 3
    assert lines[0].get_ydata()[0] == 100 and lines[0].get_xdata()[-1] == 256
    assert "higher is better" in figure.axes[0].get_ylabel()
    figure.canvas.draw()


def test_the_prediction_that_is_compared_with_measurements():
    """0.005 s for an image, 0.04 s for an update, 0.05 s to sum the array that is summed."""
    found = {name: {"rounds": [0.2, 0.2, 0.4], "sum_seconds": [0.0, 0.05]} for name in measured.ARRANGEMENTS}
    for alone in ("jax", "tensorflow", "torch"):
        found[alone]["small_batch_seconds"] = 0.08
    found["torch, 2 processes"]["rounds"] = [0.3, 0.6, 0.4]
    rows = {row["arrangement"]: row for row in measured.compare(found)}
    assert rows["torch"]["predicted"]["seconds"] == pytest.approx(0.2)
    assert rows["torch, 2 processes"]["against_one_device"] == pytest.approx({"median": 1.5, "min": 1.0, "max": 3.0})
    sizes = {"image_size": 227, "width": 0.25, "classes": 10}
    parameters = sum(cost.parameters for cost in layer_costs(NETWORK, **sizes))
    for name in ("torch, 2 processes", "jax, 4 devices"):
        count, summed = rows[name]["devices"], 0.05 * parameters / measured.SUMMED[1]
        expected = 32 * 0.005 + count * 0.04 + summed
        assert rows[name]["predicted"]["seconds"] == pytest.approx(expected, rel=1e-6)
    columns = rows["jax, 2 columns"]["predicted"]  # each updates half of the weights, and fc8's ten biases
    assert columns["update"] == pytest.approx(0.04, rel=1e-4) and columns["exchange"] < 0.05
