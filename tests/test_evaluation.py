import json
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from PIL import Image

from alexnet.cli import main
from alexnet.data import imagenet
from alexnet.evaluation import (
    checkpoint_info,
    evaluate,
    extract_features,
    label_rank,
    nearest_neighbors,
    occlusion_sensitivity,
    predict_probabilities,
)
from alexnet.model import AlexNet
from alexnet.parity import difference, set_numpy_weights
from alexnet.saving import save_checkpoint


class Fixed:
    """A model that knows the probabilities of each image, whose first pixel is its number."""

    def __init__(self, probabilities, side=4):
        self.probabilities = np.asarray(probabilities)
        self.inputs = [keras.KerasTensor((None, side, side, 3))]
        self.sizes = set()

    def predict_on_batch(self, images):
        assert images.flags.c_contiguous  # PyTorch accepts no others
        self.sizes.add(len(images))
        return self.probabilities[images[:, 0, 0, 0]]


class Numbered:
    def __init__(self, labels, batch_size, side=4):
        self.labels, self.batch_size, self.side = np.array(labels), batch_size, side

    def images(self):
        for first in range(0, len(self.labels), self.batch_size):
            numbers = np.arange(first, min(first + self.batch_size, len(self.labels)))
            shape = (len(numbers), self.side, self.side, 3)
            yield np.broadcast_to(numbers[:, None, None, None], shape), self.labels[numbers]


PROBABILITIES = [[0.7, 0.1, 0.1, 0.04, 0.03, 0.03], [0.1, 0.2, 0.3, 0.2, 0.15, 0.05], [0.2, 0.2, 0.2, 0.2, 0.2, 0.0]]


@pytest.mark.once
def test_by_hand_with_a_short_last_batch():
    model = Fixed(PROBABILITIES)
    found = evaluate(model, Numbered([0, 1, 5], 2))
    # Right at once; second of two equal ones after the first prediction; last of six, with a probability of zero.
    assert found["top1"] == pytest.approx(1 / 3)
    assert found["top5"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(np.log(0.7) + np.log(0.2) + np.log(np.finfo(np.float32).tiny)) / 3)
    assert model.sizes == {2}  # one shape, one compilation


@pytest.mark.once
def test_a_model_that_does_not_say_its_size():
    """A subclass of Keras's gets the images as they are; ten views are not possible."""
    model = Fixed(PROBABILITIES)
    expected = evaluate(model, Numbered([0, 1, 5], 2))
    del model.inputs
    assert evaluate(model, Numbered([0, 1, 5], 2)) == expected
    with pytest.raises(ValueError, match="does not say its input size"):
        evaluate(model, Numbered([0, 1, 5], 2), views=10)


@pytest.mark.once
def test_images_that_could_not_be_read_count_nowhere():
    whole = evaluate(Fixed(PROBABILITIES), Numbered([0, 1, 5], 2), details=True)
    found = evaluate(
        Fixed([PROBABILITIES[0], PROBABILITIES[0], *PROBABILITIES[1:]]), Numbered([0, -1, 1, 5], 2), details=True
    )
    assert found.metrics == whole.metrics and found.per_class() == whole.per_class()
    np.testing.assert_array_equal(found.confusion(), whole.confusion())
    assert found.misclassified().tolist() == [2, 3]  # positions in the data, as before
    with pytest.raises(ValueError, match="None of the images could be read"):
        evaluate(Fixed(PROBABILITIES), Numbered([-1], 2), details=True)


@pytest.mark.once
def test_several_models_are_averaged():
    one, other = np.array(PROBABILITIES), np.roll(PROBABILITIES, 1, axis=1)
    together = evaluate([Fixed(one), Fixed(other)], Numbered([0, 1, 5], 2), details=True)
    mean = (one + other) / 2
    np.testing.assert_allclose(together.probabilities, -np.sort(-mean, axis=1)[:, :5])
    np.testing.assert_allclose(together.losses[:2], -np.log([mean[0, 0], mean[1, 1]]))


@pytest.mark.once
def test_tables_by_hand():
    """Six images of three classes: 0 right twice, 1 mistaken for 2 twice and right once, 2 mistaken for 0."""
    sure = np.array([0.5, 0.6, 0.7, 0.9, 0.8, 0.4])[:, None]
    says = np.where(np.eye(3)[[0, 0, 2, 2, 1, 0]] == 1, sure, (1 - sure) / 2)
    found = evaluate(Fixed(says), Numbered([0, 0, 1, 1, 1, 2], 4), details=True)
    assert found.confusion().tolist() == [[2, 0, 0], [0, 1, 2], [1, 0, 0]]
    assert found.misclassified().tolist() == [3, 2, 5] and found.misclassified(1).tolist() == [3]
    assert [(row["class"], row["images"], row["most_confused_with"]) for row in found.per_class()] == [
        ("2", 1, "0"),
        ("1", 3, "2"),
        ("0", 2, ""),
    ]
    assert [row["top1"] for row in found.per_class()] == pytest.approx([0, 1 / 3, 1])
    assert found.metrics["top1"] == pytest.approx(0.5) and found.metrics["top5"] == 1.0
    assert found.top5.shape == (6, 3)  # there are only three classes


@pytest.mark.once
def test_a_model_without_opinion_is_no_better_than_chance():
    labels = np.arange(1000) % 10
    assert np.mean(label_rank(np.full((1000, 10), 0.1), labels) < 1) == pytest.approx(0.1)


@pytest.mark.once
def test_nan_is_never_right():
    said = np.array([[np.nan] * 3, [0.1, np.nan, 0.9], [0.1, 0.2, 0.7]])
    assert label_rank(said, [0, 2, 2]).tolist() == [5, 5, 0]  # not even among the best five of three
    found = evaluate(Fixed(said), Numbered([0, 2, 2], 3))
    assert found["top1"] == found["top5"] == pytest.approx(1 / 3) and np.isnan(found["loss"])


@pytest.mark.once
def test_outputs_that_are_no_probabilities():
    for said in ([[2.0, -1.0, 0.0]], [[0.1, 0.2, 0.3]], [[0.9, 0.8, 0.9]]):
        with pytest.raises(ValueError, match="not probabilities.* softmax"):
            evaluate(Fixed(said), Numbered([0], 1))


@pytest.mark.once
def test_views_that_make_no_sense():
    with pytest.raises(ValueError, match="views must be 1 or 10. Received: views=5"):
        evaluate(Fixed(PROBABILITIES), Numbered([0], 1), views=5)
    with pytest.raises(ValueError, match="The images have 3 pixels a side; the model needs 4"):
        evaluate(Fixed(PROBABILITIES), Numbered([0], 1, side=3))


@pytest.fixture(scope="module")
def model():
    made = AlexNet(input_shape=(67, 67, 3), classes=7, width=1 / 8, initializer="zeros")
    set_numpy_weights(made)
    return made


def random_images(count, side=72):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype="uint8")


@pytest.mark.slow
def test_data_of_other_programs(model):
    """The same metrics from all kinds of data with the same images; those of other libraries if they are installed."""
    x, y = random_images(40), np.arange(40) % 7

    class Numbers(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return x[10 * index : 10 * index + 10], y[10 * index : 10 * index + 10]

    expected = evaluate(model, (x, y))
    several = [
        (x.astype("float32"), np.eye(7)[y]),
        (keras.ops.convert_to_tensor(x), y[:, None]),
        [(x[:25], y[:25]), (x[25:], y[25:])],
        ((x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)),
        Numbers(),
    ]
    if find_spec("torch"):
        import torch

        tensors = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        several += [(torch.tensor(x), y[:, None]), torch.utils.data.DataLoader(tensors, batch_size=16)]
    if find_spec("tensorflow"):
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
        several += [(tf.constant(x), y.tolist()), dataset]
        with pytest.raises(ValueError, match="never end"):
            evaluate(model, dataset.repeat())
    for data in several:
        assert evaluate(model, data) == pytest.approx(expected, rel=1e-5)


X, Y = np.full((4, 4, 4, 3), 200, "uint8"), np.array([0, 1, 2, 0])


@pytest.mark.once
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("shapes", TypeError, "expected the images of alexnet.load_data .* Received: str"),
        (None, TypeError, "Received: NoneType"),
        ({"x": X}, TypeError, "Received: dict"),
        (X, TypeError, "must be a pair .* Received: ndarray"),
        ([(X, Y, Y)], TypeError, "must be a pair .* Received: 3 parts"),
        ([(X[0], Y[0])], ValueError, "expected images .* Received: .4, 4, 3."),
        ((X.transpose(0, 3, 1, 2), Y), ValueError, "Move their channels to the end"),
        ((X[:, :3], Y), ValueError, "expected images"),
        ((X / 255, Y), ValueError, "0 to 255. .* multiply them by 255"),
        ((X - 250.0, Y), ValueError, "0 to 255, as in an image file. Received: -50"),
        ((X * np.nan, Y), ValueError, "Received: nan"),
        ((X.astype("uint16") * 257, Y), ValueError, "Received: 51400"),
        ((X.astype(str), Y), TypeError, "pixels must be numbers"),
        ((X, Y[:3]), ValueError, "4 images and 3 labels"),
        ((X, Y + 1), ValueError, "a label 3, but the model has 3 classes"),
        ((X, Y - 1), ValueError, "whole numbers from 0 on"),
        ((X, Y + 0.5), ValueError, "whole numbers from 0 on"),
        ((X, ["a"] * 4), TypeError, "labels must be numbers"),
        ((X, np.full((4, 3), 1 / 3)), ValueError, "a single 1"),
        ((X[:0], Y[:0]), ValueError, "no images to evaluate on"),
        ([], ValueError, "no images to evaluate on"),
    ],
)
def test_data_that_cannot_be_what_is_meant(data, error, message):
    class Even(Fixed):
        def predict_on_batch(self, images):
            return np.full((len(images), 3), 1 / 3)

    with pytest.raises(error, match=message):
        evaluate(Even([[]]), data)


def test_ten_views_are_averaged(model):
    """Ten views of a real network, written out: corners and center, each also mirrored, probabilities averaged."""
    images = random_images(3)
    expected = []
    for y, x in ((0, 0), (0, 5), (5, 0), (5, 5), (2, 2)):
        view = np.ascontiguousarray(images[:, y : y + 67, x : x + 67])
        expected += [model.predict(view, verbose=0), model.predict(np.flip(view, 2).copy(), verbose=0)]
    np.testing.assert_allclose(predict_probabilities(model, images, 10), np.mean(expected, axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        predict_probabilities(model, images), model.predict(images[:, 2:69, 2:69].copy(), verbose=0), rtol=1e-4
    )


def test_features_and_neighbors(model):
    images = random_images(6)
    found = extract_features(model, images)
    assert found.shape == (6, 512) and (found >= 0).all()  # after the ReLU of fc7
    hidden = keras.Model(model.input, model.get_layer("fc7").output).predict_on_batch(images[:, 2:69, 2:69].copy())
    np.testing.assert_allclose(found, np.maximum(hidden, 0), rtol=1e-4, atol=1e-4)
    assert nearest_neighbors(found[[4, 1]], found, 1).tolist() == [[4], [1]]
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert nearest_neighbors(np.array([[2.9], [0.4]]), line, 3).tolist() == [[2, 1, 0], [0, 1, 2]]


@pytest.mark.once
def test_features_are_those_of_the_last_hidden_layer():
    """Whatever that layer's name: here fc4, with 64 units."""
    network = AlexNet("cifar10_80sec")
    images = random_images(2, 32)
    hidden = keras.Model(network.input, network.layers[-2].input).predict_on_batch(images)
    assert isinstance(network.layers[-2], keras.layers.Dense) and hidden.shape == (2, 64)
    np.testing.assert_allclose(extract_features(network, images), hidden, rtol=1e-4, atol=1e-5)


def test_occlusion_finds_what_matters():
    """A network built to respond to one bright spot stops responding if the spot is hidden, and only then."""
    inputs = keras.Input((67, 67, 3))
    bright = keras.layers.GlobalMaxPooling2D()(inputs)[:, :1] / 255.0
    network = keras.Model(inputs, keras.layers.Concatenate()([bright, 1.0 - bright]))
    image = np.zeros((67, 67, 3), "uint8")
    image[50, 20] = 255
    found = occlusion_sensitivity(network, image, 0, places=13)
    y, x = np.nonzero(found < 0.5)
    assert found.shape == (13, 13) and found.max() == 1.0 and 0 < len(y) <= 9
    corners = np.linspace(-6, 61, 13)
    assert np.abs(corners[y] + 6.5 - 50).max() <= 7.5 and np.abs(corners[x] + 6.5 - 20).max() <= 7.5


@pytest.mark.once
def test_what_belongs_to_a_model(model, tmp_path):
    save_checkpoint(model, tmp_path / "model.keras")
    assert checkpoint_info(tmp_path / "model.keras", model) == (None, 76)
    record = {"data": {"class_names": list("abcdefg")}, "parameters": {"resize": 80}}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    for weights in (tmp_path, tmp_path / "model.keras"):
        assert checkpoint_info(weights, model) == (list("abcdefg"), 80)
    (tmp_path / "metrics.json").write_text("{")
    assert checkpoint_info(tmp_path, model)[0] is None
    thousand = AlexNet("torchvision", width=1 / 16)
    assert checkpoint_info(tmp_path / "model.keras", thousand) == (list(imagenet.names()), 256)


@pytest.mark.once
def test_predict_decodes_as_its_run_or_the_flags_say(model, tmp_path, monkeypatch, capsys):
    """Gray images of 12 bits stored in 16, whose white level the file does not say."""
    seen = []

    def remember(model, squares, views, batch_size):
        seen.append(squares)
        return np.full((1, 7), 1 / 7)

    monkeypatch.setattr("alexnet.evaluation.predict_probabilities", remember)
    save_checkpoint(model, tmp_path / "model.keras")
    image = tmp_path / "scan.png"
    Image.fromarray(np.full((80, 90), 2048, np.uint16)).save(image)

    def predict(*flags):
        backend = keras.backend.backend()
        status = main(["predict", "--weights", str(tmp_path), str(image), "--backend", backend, *flags])
        return status, capsys.readouterr().err

    status, error = predict()
    assert status == 1 and "white_level" in error and not seen
    assert predict("--white_level", "4095") == (0, "")
    assert (seen.pop() == 128).all()
    status, error = predict("--white_level", "4095", "--max_megapixels", "0.007")
    assert status == 1 and "max_megapixels allows 0.007" in error
    (tmp_path / "params.yaml").write_text("white_level: 8190\n")  # a run's
    assert predict() == (0, "")
    assert (seen.pop() == 64).all()
    assert predict("--white_level", "4095") == (0, "")
    assert (seen.pop() == 128).all()


@pytest.mark.once
def test_the_difference_of_two_backends():
    names = [f"gradient {i} conv1 kernel" for i in range(3)]
    one = {"logits": np.array([1.0, -4.0]), "losses": np.array([2.0, 1.0])} | dict.fromkeys(names, np.array([3.0, 4.0]))
    other = {**one, "logits": np.array([1.0, -4.2]), "losses": np.array([2.0, 0.9])}
    other |= {names[0]: np.array([3.0, 4.5]), names[1]: np.array([30.0, 4.0])}  # one image crossed a kink
    assert difference(one, other) == pytest.approx({"logits": 0.05, "gradients": 0.1, "training": 0.05})
    nothing = {name: np.full_like(values, np.nan) for name, values in one.items()}
    assert all(np.isnan(value) for value in difference(one, nothing).values())
