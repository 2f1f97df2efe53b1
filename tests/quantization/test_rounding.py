"""Roundings of one's own: what they choose is what is computed, saved and shipped."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import keras_mot
from keras_mot._arrays import numpy_value
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization import Nearest, QuantizationScheme, Rounding, quantize_model, quantize_post_training
from keras_mot.transforms import FakeQuantize
from keras_mot.transforms.grid import Grid


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class Up(keras_mot.Config, Rounding):
    """Away from zero."""

    def integers(self, weight, scale, grid, axes):
        ratio = weight / scale
        return np.clip(np.sign(ratio) * np.ceil(np.abs(ratio) - 1e-6), grid.lowest, grid.highest)


@dataclasses.dataclass(frozen=True)
class Wrong(Rounding):
    """Returns what it was made with."""

    answer: str

    def integers(self, weight, scale, grid, axes):
        return {"shape": np.zeros(3), "half": np.full(weight.shape, 0.5), "far": np.full(weight.shape, 999)}[
            self.answer
        ]


def _model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu", name="a"), keras.layers.Dense(3, name="b")]
    )


def _weight(model, name):
    (weight,) = transformed_weights(model.get_layer(name))
    return weight, weight.transform_of(FakeQuantize)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_chosen_integers_are_computed(bits, learned, rng):
    weight = rng.standard_normal((6, 5)).astype("float32")
    weight[0, 0] = 0.0
    transform = FakeQuantize(bits, per_channel=False, learned=learned, rounding=Up())
    transform.build(weight.shape)
    transform.fit(weight)
    scale = float(np.squeeze(transform.scales(weight)))
    expected = np.clip(np.sign(weight) * np.ceil(np.abs(weight / scale) - 1e-6), -transform.limit, transform.limit)
    np.testing.assert_array_equal(transform.integers(weight)[0], expected)
    np.testing.assert_allclose(ops.convert_to_numpy(transform(weight)), expected * scale, rtol=0, atol=2e-7)
    assert (np.abs(expected) >= np.abs(np.round(weight / scale)).clip(max=transform.limit)).all()
    # Training moves on from there, and less than half a step changes nothing.
    moved = weight + np.float32(0.3 * scale) * (weight != weight.max())
    np.testing.assert_array_equal(transform.integers(moved)[0], expected)


def test_through_a_scheme_and_overrides(rng, tmp_path):
    x = rng.standard_normal((64, 6)).astype("float32")
    scheme = QuantizationScheme(4, rounding=Up())
    quantized = quantize_post_training(_model(), scheme, x, correct_biases=False)
    for name in "ab":
        weight, transform = _weight(quantized, name)
        value = numpy_value(weight.variable)
        integers, scale = transform.integers(value)
        np.testing.assert_array_equal(integers, Up().integers(value, scale, Grid(4), None))
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert _weight(loaded, "a")[1].rounding == Up()
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(quantized(x)))
    stripped = keras_mot.quantization.strip_quantization(quantized)
    np.testing.assert_allclose(stripped.get_layer("b").kernel, integers * scale, rtol=0, atol=1e-6)

    mixed = quantize_model(_model(), calibration_data=x, overrides={"^a$": scheme})
    assert _weight(mixed, "a")[1].rounding == Up()
    assert _weight(mixed, "b")[1].rounding == Nearest()


def test_a_mask_and_shared_values_are_kept(rng):
    x = rng.standard_normal((64, 6)).astype("float32")
    pruned = keras_mot.sparsity.prune_low_magnitude(_model(), keras_mot.sparsity.ConstantSparsity(0.5, 0))
    keras_mot.sparsity.update_pruning_step(pruned)
    quantized = quantize_post_training(pruned, QuantizationScheme(4, rounding=Up()), x)
    weight, transform = _weight(quantized, "a")
    before = numpy_value(weight.value_before(transform))
    assert (transform.integers(before)[0][before == 0] == 0).all()

    clustered = keras_mot.clustering.cluster_weights(_model(), number_of_clusters=4)
    quantized = quantize_post_training(clustered, QuantizationScheme(rounding=Up()), x)
    assert _weight(quantized, "a")[1].rounding == Nearest()
    trained = quantize_model(clustered, QuantizationScheme(4), calibration_data=x)  # may assign the values anew
    assert _weight(trained, "a")[1].rounding == Nearest()


@pytest.mark.parametrize(
    ("answer", "message"),
    [("shape", "integers of shape"), ("half", "returned others"), ("far", "some from 999 to 999")],
)
def test_what_is_no_integer_is_refused(answer, message, rng):
    with pytest.raises(ValueError, match=message):
        quantize_post_training(
            _model(), QuantizationScheme(rounding=Wrong(answer)), rng.standard_normal((8, 6)).astype("float32")
        )


def test_bad_arguments():
    with pytest.raises(TypeError, match="`rounding` should be a `Rounding`"):
        QuantizationScheme(rounding="nearest")
    with pytest.raises(TypeError, match="`rounding` should be a `Rounding`"):
        FakeQuantize(rounding="nearest")


def test_nearest_needs_no_state():
    transform = FakeQuantize(4)
    transform.build((3, 2))
    assert [variable.name for variable in transform.variables] == ["reach"]
    with pytest.raises(ValueError, match="another `rounding`"):
        transform.round_to(np.zeros((3, 2)), np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("grid", "low", "high", "scale", "zero_point"),
    [
        (Grid(8, symmetric=False, narrow=False), 0.0, 2.55, 0.01, -128),
        (Grid(8, symmetric=False, narrow=False), -1.0, 1.55, 0.01, -28),
        (Grid(8, symmetric=False, narrow=False), 1.0, 2.55, 0.01, -128),  # 0 is in it in any case
        (Grid(8, symmetric=False, narrow=False), 0.0, 0.0, 1 / 255, -128),
        (Grid(16), -2.0, 1.0, 2 / 32767, 0),
        (Grid(8), -0.5, 1.27, 0.01, 0),
        (Grid(4), 0.0, 0.0, 1 / 7, 0),
    ],
)
def test_quantization_parameters(grid, low, high, scale, zero_point):
    """By hand; and the same with tensors."""
    parameters = grid.parameters(low, high)
    assert parameters.scale == pytest.approx(scale, rel=1e-6)
    assert parameters.zero_point == zero_point
    ends = (ops.convert_to_tensor(end, "float32") for end in (low, high))
    received, zero = grid.scale_and_zero(*grid.clipping_range(*ends, array=ops), array=ops)
    assert float(received) == parameters.scale
    assert int(zero) + grid.lowest == zero_point


def test_limits_and_states_of_ranges(rng):
    quantized = quantize_post_training(_model(), calibration_data=rng.standard_normal((32, 6)).astype("float32"))
    quantizer = activation_quantizers(quantized)[1]
    start, config = quantizer.state(), quantizer.get_config()
    quantizer.fix(-1.0, 3.0)
    quantizer.limit_to(high=2.0)
    assert quantizer.clipping_range == (-1.0, 3.0)
    assert quantizer.parameters().range[1] - quantizer.parameters().range[0] == pytest.approx(3.0, rel=1e-6)
    assert quantizer.get_config()["decay"] is None
    quantizer(10 * rng.standard_normal((4, 5)).astype("float32"), training=True)
    assert quantizer.clipping_range == (-1.0, 3.0)
    quantizer.restore(start)
    assert quantizer.state() == start
    assert quantizer.get_config() == config
