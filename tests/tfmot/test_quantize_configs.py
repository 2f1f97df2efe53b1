"""`QuantizeConfig` with TFMOT's methods, and quantizers of one's own: mapped onto kernels, or called in training."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot as tfmot
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import transformed_weights
from keras_mot.tfmot.calling import CalledOnActivation, CalledOnWeight
from keras_mot.tfmot.schemes import (
    Default8BitConvQuantizeConfig,
    Default8BitOutputQuantizeConfig,
    Default8BitQuantizeConfig,
    NoOpQuantizeConfig,
)
from keras_mot.transforms import FakeQuantize
from tests.tfmot.small import only_tensorflow, results_of

room = tfmot.quantization.keras
AllValuesQuantizer = room.quantizers.AllValuesQuantizer
FixedQuantizer = room.quantizers.FixedQuantizer
LastValueQuantizer = room.quantizers.LastValueQuantizer
MovingAverageQuantizer = room.quantizers.MovingAverageQuantizer

X = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 64)


class DenseConfig(room.QuantizeConfig):
    """All methods, as the guide has them."""

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, LastValueQuantizer(num_bits=8, symmetric=True, narrow_range=False, per_axis=False))]

    def get_activations_and_quantizers(self, layer):
        quantizer = MovingAverageQuantizer(num_bits=8, symmetric=False, narrow_range=False, per_axis=False)
        return [(layer.activation, quantizer)]

    def set_quantize_weights(self, layer, quantize_weights):
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


class FourBits(DenseConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, LastValueQuantizer(num_bits=4, symmetric=True, narrow_range=False, per_axis=True))]


class NoActivations(DenseConfig):
    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        return


class Clip(room.quantizers.Quantizer):
    """Clips, and counts how often it is called for training."""

    def __init__(self, reach):
        self.reach = reach

    def build(self, tensor_shape, name, layer):
        assert len(tensor_shape) == 2
        return {"calls": layer.add_weight(name + "_calls", initializer="zeros", trainable=False)}

    def __call__(self, inputs, training, weights, **kwargs):
        if training:
            weights["calls"].assign(weights["calls"] + 1.0)
        return ops.clip(inputs, -self.reach, self.reach)

    def get_config(self):
        return {"reach": self.reach}


class Clipped(DenseConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, Clip(0.25))]

    def get_output_quantizers(self, layer):
        return [Clip(0.5)]

    def get_activations_and_quantizers(self, layer):
        return []


class Custom(layers.Dense):
    pass


def applied(config, layer=layers.Dense, data=None):
    """A model of two dense layers, of which the first has a config, annotated and quantized as the guide does it."""
    annotated = room.quantize_annotate_model(
        keras.Sequential(
            [
                keras.Input((8,)),
                room.quantize_annotate_layer(layer(6, name="first"), config),
                layers.Dense(4, name="second"),
            ]
        )
    )
    with room.quantize_scope({type(config).__name__: type(config), "Custom": Custom, "Clip": Clip}):
        return room.quantize_apply(annotated, calibration_data=data)


def first(model):
    return next(weight for weight in transformed_weights(model) if weight.owner.name == "first")


@pytest.mark.parametrize(
    ("config", "layer", "bits", "per_channel"),
    [
        (DenseConfig(), layers.Dense, 8, False),
        (DenseConfig(), Custom, 8, False),
        (FourBits(), layers.Dense, 4, True),
        (Default8BitQuantizeConfig(["kernel"], ["activation"], False), layers.Dense, 8, False),
        (Default8BitConvQuantizeConfig(["kernel"], [], True), layers.Dense, 8, True),
    ],
)
@pytest.mark.filterwarnings("error:.*with `:UserWarning")
def test_what_has_an_integer_kernel_becomes_settings(config, layer, bits, per_channel):
    model = applied(config, layer)
    transforms = first(model).transforms
    assert [type(transform) for transform in transforms] == [FakeQuantize]
    assert (transforms[0].bits, transforms[0].per_channel) == (bits, per_channel)
    assert not any(isinstance(each, CalledOnActivation) for each in model.layers)


def test_a_layer_without_quantizers_stays_in_floats():
    model = applied(NoOpQuantizeConfig())
    assert [weight.owner.name for weight in transformed_weights(model)] == ["second"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (NoActivations(), "its results are rounded as the scheme"),
        (Default8BitOutputQuantizeConfig(), "its weights are"),
    ],
)
def test_what_kernels_demand_is_done_and_said(config, said):
    with pytest.warns(UserWarning, match=f"'first' with `{type(config).__name__}`: {said}"):
        model = applied(config)
    assert len(transformed_weights(model)) == 2
    assert model.get_layer("first_quantizer").bits == 8


@pytest.fixture(scope="module")
def clipped():
    """A trained model with quantizers of one's own on a weight and on activations."""
    keras.utils.set_random_seed(7)
    with pytest.warns(UserWarning, match="`Clip` is called on 'kernel' in training.*`Clip` is called on its results"):
        model = applied(Clipped())
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, batch_size=32, epochs=2, verbose=0)
    return model


def test_quantizers_of_ones_own_are_called(clipped):
    weight = first(clipped)
    assert [type(transform) for transform in weight.transforms] == [CalledOnWeight, FakeQuantize]
    assert np.abs(ops.convert_to_numpy(weight.effective_value())).max() == pytest.approx(0.25, abs=1e-6)
    assert np.abs(ops.convert_to_numpy(weight.variable)).max() > 0.25
    calls = {each.path: float(ops.convert_to_numpy(each)) for each in clipped.variables if "calls" in each.path}
    assert list(calls.values()) == [4.0, 4.0]
    behind = clipped.get_layer("first_quantizer")
    assert behind.clipping_range == pytest.approx((-0.5, 0.5))


def test_gradients_are_those_of_the_quantizer(clipped):
    """What is clipped stays as it was before training; the rest has moved."""
    keras.utils.set_random_seed(7)
    with pytest.warns(UserWarning, match="Clip"):
        before = ops.convert_to_numpy(first(applied(Clipped())).variable)
    after = ops.convert_to_numpy(first(clipped).variable)
    far = np.abs(before) > 0.25
    assert far.any()
    np.testing.assert_array_equal(after[far], before[far])
    assert np.abs(after - before)[~far].min() > 0


def test_they_are_saved(clipped, tmp_path):
    clipped.save(tmp_path / "model.keras")
    with room.quantize_scope({"Clip": Clip}):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(results_of(loaded, X), results_of(clipped, X), atol=1e-6)
    loaded(X, training=True)
    assert [float(ops.convert_to_numpy(each)) for each in loaded.variables if "calls" in each.path] == [5.0, 5.0]


@only_tensorflow
def test_the_file_has_the_clipped_weight_and_integers(clipped, tmp_path):
    exported = export_litert(clipped, tmp_path / "model.tflite", strict=True)
    assert exported.float_operators == ()
    (received,) = LiteRTRunner(tmp_path / "model.tflite").run(X).values()
    simulated = results_of(clipped, X)
    assert np.abs(received - simulated).max() < 0.03 * simulated.std()


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize(
    "kind", [LastValueQuantizer, MovingAverageQuantizer, AllValuesQuantizer], ids=lambda kind: kind.__name__
)
def test_ranges_of_quantizers(kind, per_axis):
    """Two batches, the second half as large; what is stored is used in inference, with 0 and the ends on the grid."""
    quantizer = kind(num_bits=3, per_axis=per_axis, symmetric=False, narrow_range=False)
    layer = keras.layers.Layer()
    variables = quantizer.build((None, 2), "range", layer)
    batch = np.array([[-1.0, 0.0], [2.5, 7.0]], "float32")
    untrained = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(batch), False, weights=variables))
    assert untrained.max() == pytest.approx(7.0, abs=0.15)
    for scale in (1.0, 0.5):
        quantizer(ops.convert_to_tensor(scale * batch), True, weights=variables)
    share = {LastValueQuantizer: 0.5, MovingAverageQuantizer: 0.995, AllValuesQuantizer: 1.0}[kind]
    low, high = (ops.convert_to_numpy(variables[f"{end}_var"]) for end in ("min", "max"))
    np.testing.assert_allclose(low, share * (np.array([-1.0, 0.0]) if per_axis else -1.0), rtol=1e-5)
    np.testing.assert_allclose(high, share * (np.array([2.5, 7.0]) if per_axis else 7.0), rtol=1e-5)
    rounded = ops.convert_to_numpy(quantizer(ops.convert_to_tensor(batch), False, weights=variables))
    assert rounded[1, 1] == pytest.approx(share * 7.0, abs=share * (0.0 if per_axis else 0.6) + 1e-5)


def test_symmetric_and_fixed_ranges():
    values = ops.convert_to_tensor(np.array([-3.0, -0.4, 0.0, 1.0, 3.0], "float32"))
    narrow = LastValueQuantizer(num_bits=2, symmetric=True, narrow_range=True)
    variables = narrow.build((5,), "range", keras.layers.Layer())
    np.testing.assert_allclose(ops.convert_to_numpy(narrow(values, True, weights=variables)), [-3, 0, 0, 0, 3])
    fixed = FixedQuantizer(num_bits=2, init_min=0.0, init_max=3.0)
    np.testing.assert_allclose(ops.convert_to_numpy(fixed(values, True, weights={})), [0, 0, 0, 1, 3])


@pytest.mark.parametrize(
    "quantizer",
    [
        LastValueQuantizer(num_bits=3, per_axis=True, symmetric=False, narrow_range=False),
        FixedQuantizer(num_bits=8, init_min=-0.2, init_max=0.2),
    ],
    ids=["asymmetric", "fixed"],
)
def test_quantizers_without_a_kernel_come_before_the_rounding(quantizer):
    class Other(DenseConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.kernel, quantizer)]

    with pytest.warns(
        UserWarning, match="called on 'kernel' in training, and the file has what it returns, rounded to"
    ):
        model = applied(Other())
    weight = first(model)
    value = ops.convert_to_numpy(weight.effective_value())
    assert [type(transform) for transform in weight.transforms] == [CalledOnWeight, FakeQuantize]
    if isinstance(quantizer, FixedQuantizer):
        assert np.abs(value).max() == pytest.approx(0.2, abs=0.001)
    else:
        assert max(len(np.unique(column)) for column in value.T) <= 8


def test_by_a_selector():
    """Such configs are for `overrides`, too."""
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="first"), layers.Dense(4, name="second")])
    quantized = room.quantize_model(model, overrides={"^first$": FourBits()})
    bits = {weight.owner.name: weight.transforms[0].bits for weight in transformed_weights(quantized)}
    assert bits == {"first": 4, "second": 8}


def test_what_is_no_quantizer_is_refused():
    class Wrong(DenseConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.kernel, "8 bits")]

    with pytest.raises(TypeError, match="`Wrong` returned '8 bits' where a quantizer is expected"):
        applied(Wrong())


def test_configs_of_default_survive_serialization():
    config = Default8BitQuantizeConfig(["kernel"], ["activation"], True)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(config))
    assert restored.get_config() == config.get_config()
    assert type(restored) is Default8BitQuantizeConfig


class OfCell(room.QuantizeConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.cell.kernel, Clip(0.1)), (layer.cell.recurrent_kernel, Clip(0.1))]


class OfMatrix(room.QuantizeConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.matrix, Clip(0.1))]


class Unknown(layers.Layer):
    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 4))

    def call(self, inputs):
        return ops.matmul(inputs, self.matrix)


def test_weights_that_lie_deeper():
    """Those of a cell are reached where they go when the layer is broken down; of an unknown class it is said."""
    inputs = keras.Input((4, 3))
    outputs = Unknown(name="unknown")(layers.LSTM(5, name="lstm")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(outputs))
    with pytest.warns(UserWarning, match="Clip") as caught:
        quantized = room.quantize_model(model, overrides={"^lstm$": OfCell(), "^unknown$": OfMatrix()})
    texts = " ".join(str(item.message) for item in caught)
    assert "`Clip` is called on 'cell/recurrent_kernel' in training, and the file has what it returns, rounded" in texts
    assert "`Clip` is not called on 'unknown/variable', for nothing says what that weight is" in texts
    called = [weight for weight in transformed_weights(quantized) if weight.transform_of(CalledOnWeight)]
    assert {weight.owner.name for weight in called} == {"lstm_input", "lstm_recurrent"}
    for weight in called:
        assert np.abs(ops.convert_to_numpy(weight.effective_value())).max() == pytest.approx(0.1, abs=1e-6)
