"""Nothing is skipped without a word: each weight of a model is found, or left alone with a reason."""

import math
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.clustering import cluster_weights, clustering_report
from keras_mot.layers import copy_model, find_weights, transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, pruning_report, strip_pruning, update_pruning_step
from tests.layers.model_zoo import MODELS


class Holder:
    """A plain Python object, which Keras does not look into."""

    def __init__(self, layer):
        self.layer = layer


class Composite(layers.Layer):
    """Adds up what its parts make of the inputs; a subclass makes them in `parts`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = self.parts()

    def build(self, input_shape):
        for part in self.calls.layer:
            if not part.built:
                part.build(input_shape)
        self.built = True

    def call(self, inputs):
        return sum(part(inputs) for part in self.calls.layer)


def composite(name, parts):
    """A composite layer's class whose parts are held as the function `parts` says; it returns them as a list."""
    return keras.saving.register_keras_serializable("found_weights")(
        type(name, (Composite,), {"parts": lambda self: Holder(parts(self))})
    )


def _private(layer):
    layer._self_attention, layer._self_output = layers.Dense(4), layers.Dense(4)
    return [layer._self_attention, layer._self_output]


def _dictionary(layer):
    layer.by_name = {"a": layers.Dense(4), "b": [layers.Dense(4), (layers.Dense(4), {"c": layers.Dense(4)})]}
    one, (two, (three, last)) = layer.by_name["a"], layer.by_name["b"]
    return [one, two, three, last["c"]]


def _slashes(layer):
    layer.by_name = {"a/b": layers.Dense(4), "a": {"b": layers.Dense(4)}}
    return [layer.by_name["a/b"], layer.by_name["a"]["b"]]


def _tracked_alone(layer):
    parts = [layers.Dense(4), layers.Dense(4)]
    for part in parts:
        layer._tracker.track(part)
    return parts


def _twice(layer):
    layer.first = layers.Dense(4)
    layer.second = layer.first
    return [layer.first, layer.second]


def _set(layer):
    layer.chosen = {layers.Dense(4), layers.Dense(4)}
    return list(layer.chosen)


COMPOSITES = {
    "private attributes": (composite("Private", _private), 2),
    "dictionaries and lists": (composite("Dictionary", _dictionary), 4),
    "names with slashes": (composite("Slashes", _slashes), 2),
    "tracked, without an attribute": (composite("TrackedAlone", _tracked_alone), 2),
    "one layer twice": (composite("Twice", _twice), 1),
    "a set": (composite("Set", _set), 0),
}


def sequential(*stack, shape=(4,)):
    model = keras.Sequential([layers.Input(shape), *stack])
    return model


@keras.saving.register_keras_serializable("found_weights")
class Backbone(keras.Model):
    """A functional model with a configuration of its own, some of whose layers are no attributes."""

    def __init__(self, width, **kwargs):
        inputs = keras.Input((4,))
        x = layers.Dense(width, name="local")(inputs)
        head = layers.Dense(3, name="head")
        super().__init__(inputs=inputs, outputs=head(x), **kwargs)
        self.head, self.width = head, width

    def get_config(self):
        return {"width": self.width, "name": self.name}


class Extended(layers.Dense):
    """A layer of the table with weights that the table does not know."""

    def build(self, input_shape):
        super().build(input_shape)
        self._tracker.unlock()
        self.gate = self.add_weight(shape=(input_shape[-1], self.units), name="gate")
        self.offset = self.add_weight(shape=(self.units,), name="offset", trainable=False)


def _with_own_variable():
    model = sequential(layers.Dense(3))
    model._tracker.unlock()
    model.temperature = model.add_weight(shape=(), name="temperature")
    return model


def _with_extra_layer():
    model = keras.Model(inputs := keras.Input((4,)), layers.Dense(3)(inputs))
    model.auxiliary = layers.Dense(2)
    model.auxiliary.build((None, 4))
    return model


def _frozen_stranger():
    model = sequential(Extended(3), layers.BatchNormalization())
    model.trainable = False
    return model


OTHERS = {
    "normalization": lambda: sequential(
        layers.Conv1D(4, 2), layers.BatchNormalization(), layers.PReLU(), layers.GroupNormalization(2), shape=(6, 4)
    ),
    "state": lambda: sequential(
        layers.Normalization(), layers.GRU(3, stateful=False), layers.Dropout(0.1), shape=(5, 4)
    ),
    "stateful": lambda: keras.Sequential([layers.Input(batch_shape=(2, 5, 4)), layers.GRU(3, stateful=True)]),
    "functional subclass": lambda: Backbone(5),
    "more than the table": lambda: sequential(Extended(3)),
    "frozen": _frozen_stranger,
    "a model's own variable": _with_own_variable,
    "a layer beside the graph": _with_extra_layer,
}
BUILDERS = {
    **{name: build for name, (build, _) in MODELS.items()},
    **{name: (lambda kind=kind: sequential(kind())) for name, (kind, _) in COMPOSITES.items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_found_and_left_alone_are_all_weights(name):
    model = BUILDERS[name]()
    found, left_alone = find_weights(model)
    explained = [variable for item in left_alone for variable in item.variables]
    listed = [id(variable) for variable in [*(weight.variable for weight in found), *explained]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(variable) for variable in model.weights}
    assert all(item.reason and item.path for item in left_alone)
    places = [(id(weight.host), weight.place) for weight in found]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", COMPOSITES)
def test_layers_are_found_however_they_are_held(name, tmp_path):
    kind, count = COMPOSITES[name]
    model = sequential(kind(name="mine"), layers.Dense(3, name="head"))
    found = [weight for weight in find_weights(model)[0] if weight.owner.name != "head"]
    assert len(found) == count
    if not count:
        with pytest.warns(UserWarning, match="held in a set.*hold it in a list"):
            prune_low_magnitude(model)
        return
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = ops.convert_to_numpy(pruned(x))
    copy = copy_model(pruned)
    np.testing.assert_allclose(ops.convert_to_numpy(copy(x)), expected, rtol=1e-6)
    assert [weight.place for weight in transformed_weights(copy)] == [w.place for w in transformed_weights(pruned)]
    np.testing.assert_allclose(ops.convert_to_numpy(strip_pruning(pruned)(x)), expected, rtol=1e-5)


def test_private_attributes_have_a_name_that_is_saved(tmp_path):
    """As in KerasHub's transformers, nearly half of whose weights lie in `_self_attention_layer`."""
    model = sequential(COMPOSITES["private attributes"][0](name="mine"))
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    assert [weight.place for weight in find_weights(pruned)[0]] == ["_self_attention/kernel", "_self_output/kernel"]
    assert len(transformed_weights(pruned)) == 2
    pruned.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(pruned(x)), rtol=1e-6)
    assert pruning_report(loaded).sparsity == 0.5


@pytest.mark.parametrize("name", ["normalization", "state", "more than the table", "composite", "lstm"])
def test_reports_account_for_all_weights(name):
    model = BUILDERS[name]()
    size = sum(math.prod(variable.shape) for variable in model.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned, clustered = prune_low_magnitude(model), cluster_weights(model, 4)
    for report, rows in (
        (pruning_report(pruned), pruning_report(pruned).pruned),
        (clustering_report(clustered), clustering_report(clustered).clustered),
    ):
        left_alone = [item for item in find_weights(model)[1] if not item.usual]
        assert [reason for _, reason in report.left_alone] == [item.reason for item in left_alone]
        counted = sum(math.prod(row.shape) for row in rows) + sum(values for _, _, values in report.left_alone_by_kind)
        assert counted + sum(math.prod(v.shape) for item in left_alone for v in item.variables) == size
        assert all(kind in " ".join(str(report).split()) for kind, _, _ in report.left_alone_by_kind)


def test_what_the_table_does_not_know_of_a_layer_is_named():
    with pytest.warns(UserWarning, match=r"gate'.*register_weights\(Extended"):
        pruned = prune_low_magnitude(sequential(Extended(3, name="mine")))
    (path, reason), *others = pruning_report(pruned).left_alone
    assert path.endswith("mine/gate")
    assert "not among the weights listed" in reason
    assert not others
    assert pruning_report(pruned).left_alone_by_kind == (
        ("biases", 1, 3),
        ("statistics and other state that is not trained", 1, 3),
    )


def test_a_quantized_model_is_accounted_for():
    quantized = keras_mot.quantization.quantize_model(
        sequential(layers.Dense(3)),
        keras_mot.quantization.QuantizationScheme(learned_scales=True),
        calibration_data=np.eye(4, dtype="float32"),
    )
    found, left_alone = find_weights(quantized)
    attached = [v for weight in transformed_weights(quantized) for t in weight.transforms for v in t.variables]
    explained = [variable for item in left_alone for variable in item.variables]
    listed = {id(variable) for variable in [*(weight.variable for weight in found), *attached, *explained]}
    assert listed == {id(variable) for variable in quantized.weights}
    assert not any(item.unknown for item in left_alone)
