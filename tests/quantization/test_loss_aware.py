"""Ranges by the loss on labelled data: the estimator with the least loss, and clear errors."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import (
    INT8,
    Entropy,
    LeastSquares,
    MeanMinMax,
    MinMax,
    Percentile,
    SeenValues,
    quantize_post_training,
)
from keras_mot.quantization.estimators.loss_aware import keep_best

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier():
    """A classifier of three classes, labelled data, and one sample with a feature four hundred times as large."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    x = np.random.default_rng(3).standard_normal((200, 8)).astype("float32")
    y = ops.convert_to_numpy(model(x)).argmax(-1)
    x[7] *= 400
    return model, x, y


def loss_of(model, x, y):
    return float(ops.convert_to_numpy(LOSS(y, model(x))))


def test_the_estimator_with_the_least_loss_is_chosen():
    model, x, y = classifier()
    chosen = loss_of(quantize_post_training(model, INT8, (x, y), loss=LOSS), x, y)
    estimators = (None, MinMax(), MeanMinMax(), Percentile(), LeastSquares(), Entropy())
    alone = [loss_of(quantize_post_training(model, INT8, x, estimator=item), x, y) for item in estimators]
    assert chosen == pytest.approx(min(alone), rel=1e-5)
    assert max(alone) - min(alone) > 0.1


def test_clipping_that_the_loss_asks_for_is_no_fault(recwarn):
    """Logits that are much too sure of wrong labels have less loss once they are clipped."""
    model, x, _ = classifier()
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * 20)
    y = np.random.default_rng(0).integers(0, 3, len(x))
    clipped = quantize_post_training(model, INT8, (x, y), loss=LOSS)
    assert loss_of(clipped, x, y) < 0.7 * loss_of(model, x, y)
    assert not [warning for warning in recwarn if "of little use" in str(warning.message)]


@pytest.mark.parametrize("kind", ["pair", "batches", "generator", "dataset", "named loss", "function"])
def test_kinds_of_labelled_data_and_losses(kind):
    model, x, y = classifier()
    batches = [(x[start : start + 32], y[start : start + 32]) for start in range(0, len(x), 32)]
    data, loss = (x, y), LOSS
    if kind == "batches":
        data = batches
    elif kind == "generator":
        data = iter(batches)
    elif kind == "dataset":
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    elif kind == "named loss":
        model = keras.Sequential([model, layers.Softmax()])
        loss = "sparse_categorical_crossentropy"
    elif kind == "function":

        def loss(labels, received):  # one number for each sample
            return keras.losses.sparse_categorical_crossentropy(labels, received, from_logits=True)

    quantized = quantize_post_training(model, INT8, data, loss=loss)
    expected = quantize_post_training(
        model, INT8, (x, y), loss="sparse_categorical_crossentropy" if kind == "named loss" else LOSS
    )
    ranges = [[quantizer.parameters() for quantizer in activation_quantizers(item)] for item in (quantized, expected)]
    assert ranges[0] == ranges[1]


def test_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate()([a, b])
    model = keras.Model([a, b], [layers.Dense(2)(joined), layers.Dense(1)(joined)])
    g = np.random.default_rng(0)
    x = [g.standard_normal((64, 4)).astype("float32"), g.standard_normal((64, 3)).astype("float32")]
    y = [ops.convert_to_numpy(part) for part in model(x)]

    def loss(labels, received):
        return sum(ops.mean((label - part) ** 2) for label, part in zip(labels, received, strict=True))

    quantized = quantize_post_training(model, INT8, (x, y), loss=loss)
    assert float(loss([ops.convert_to_tensor(part) for part in y], quantized(x))) < 1e-3


def test_what_a_choice_changes_is_put_back():
    """Also what training makes of ranges: `decay` and `limits`."""
    model, x, _ = classifier()
    quantized = quantize_post_training(model, INT8, x, estimator=MinMax())
    first, second, *_ = activation_quantizers(quantized)
    costs = iter([[2.0, 3.0], [1.0, 2.0], [float("inf"), 1.0]])

    def choice(low):
        def choose():
            assert first.limits is None
            assert second.decay is not None
            first.set_range(low, 1.0)
            if low == -1.0:
                first.limit_to(-1.0, 1.0)
                second.fix(-2.0, 2.0)

        return choose

    keep_best(quantized, [choice(-3.0), choice(-1.0), choice(-2.0)], lambda: next(costs))
    assert first.clipping_range == (-1.0, 1.0)
    assert first.limits == (-1.0, 1.0)
    assert second.decay is None
    assert second.clipping_range == (-2.0, 2.0)


@pytest.mark.parametrize(("others", "kept"), [([0.9, 1.9, 2.9, 3.8], -2.0), ([0.0, 3.0, 2.5, 3.8], -1.0)])
def test_what_may_be_chance_changes_nothing(others, kept):
    """Both are better by a tenth and more in the mean, the second one not in all batches."""
    model, x, _ = classifier()
    quantized = quantize_post_training(model, INT8, x, estimator=MinMax())
    first = activation_quantizers(quantized)[0]
    costs = iter([[1.0, 2.0, 3.0, 4.0], others])
    choices = [functools.partial(first.set_range, low, 1.0) for low in (-1.0, -2.0)]
    keep_best(quantized, choices, lambda: next(costs))
    assert first.clipping_range == (kept, 1.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"calibration_data": "x"}, ValueError, "has no labels, which `loss` needs"),
        ({"calibration_data": "batches"}, ValueError, "Batch 0 .* has no labels"),
        ({"calibration_data": "uneven"}, ValueError, r"different lengths, \[199, 200\]"),
        ({"loss": 3}, TypeError, "`loss` should be a Keras loss or its name"),
        ({"loss": "no_such_loss"}, ValueError, "no_such_loss"),
        ({"estimator": MinMax()}, ValueError, "give one of `loss` and `estimator`"),
        (
            {"loss": lambda labels, received: ops.mean(received) * float("nan")},
            ValueError,
            "`loss` is inf for the float",
        ),
    ],
)
def test_bad_input(changes, error, message):
    model, x, y = classifier()
    data = {"x": x, "batches": [x[:100], x[100:]], "uneven": (x, y[:-1])}
    settings = {"calibration_data": (x, y), "loss": LOSS, **changes}
    if isinstance(settings["calibration_data"], str):
        settings["calibration_data"] = data[settings["calibration_data"]]
    with pytest.raises(error, match=message):
        quantize_post_training(model, INT8, **settings)


def test_means_of_extremes(rng):
    values = rng.standard_normal((90, 7)).astype("float32")
    seen = SeenValues()
    for batch in np.split(values, [10, 15, 60]):
        seen.add(batch, with_histogram=False)
    expected = (values.min(axis=1).mean(), values.max(axis=1).mean())
    assert MeanMinMax().range(seen) == pytest.approx(expected, rel=1e-6)
    assert seen.limits == (values.min(), values.max())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite"):
        SeenValues().add(np.array([1.0, bad], "float32"))
