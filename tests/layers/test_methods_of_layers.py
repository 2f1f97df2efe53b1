"""Layers that name their weights themselves: `transformable_weights`, and TFMOT's two methods."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights, clustering_report, strip_clustering
from keras_mot.layers import copy_model, find_weights, transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, pruning_report, strip_pruning, update_pruning_step


@keras.saving.register_keras_serializable("methods_of_layers")
class Everything(layers.Layer):
    """Names all that it trains, its sub-layer's weights included, as TFMOT's examples do."""

    def build(self, input_shape):
        self.inner = layers.Dense(6, bias_initializer="normal")
        self.inner.build(input_shape)
        self.tables = [self.add_weight(shape=(6, 5), name="first"), self.add_weight(shape=(5, 3), name="second")]
        self.add_weight(shape=(3,), name="without_attribute", initializer="normal")
        self.built = True

    def call(self, inputs):
        x = self.inner(inputs) @ ops.convert_to_tensor(self.tables[0]) @ ops.convert_to_tensor(self.tables[1])
        return x + self._trainable_variables[2]

    def get_clusterable_weights(self):
        return [(variable.name, variable) for variable in self.trainable_weights]

    def get_prunable_weights(self):
        return self.trainable_weights


@keras.saving.register_keras_serializable("methods_of_layers")
class Different(layers.Layer):
    """Offers one weight to pruning, another one to clustering, and a third to both."""

    def build(self, input_shape):
        for name in ("a", "b", "c"):
            setattr(self, name, self.add_weight(shape=(input_shape[-1], 4), name=name))
        self.built = True

    def call(self, inputs):
        return inputs @ self.a + inputs @ self.b + inputs @ self.c

    def get_prunable_weights(self):
        return [self.a, self.c]

    def get_clusterable_weights(self):
        return [("b", self.b), ("c", self.c)]


def model_of(layer):
    return keras.Sequential([layers.Input((4,)), layer])


def outputs(model):
    return ops.convert_to_numpy(model(np.eye(4, dtype="float32")))


def test_trainable_weights_are_found_before_and_after():
    model = model_of(Everything())
    expected = {id(variable) for variable in model.trainable_weights}
    assert len(expected) == 5
    assert {id(weight.variable) for weight in find_weights(model)[0]} == expected
    clustered = cluster_weights(model, 3)
    assert len(clustering_report(clustered).clustered) == 5
    assert len(clustered.trainable_weights) == 10  # with centroids, which no method is asked to name
    assert [weight.place for weight in find_weights(clustered)[0]] == [
        weight.place for weight in find_weights(model)[0]
    ]


def test_trainable_weights_of_a_frozen_layer_are_found_too():
    layer = Everything()
    model = model_of(layer)
    layer.trainable = False
    assert layer.trainable_weights == []
    assert len(find_weights(model)[0]) == 5
    assert layer.trainable_weights == []


@pytest.mark.parametrize("frozen", [False, True])
def test_trainable_weights_are_pruned_clustered_saved_and_stripped(frozen, tmp_path):
    model = model_of(Everything())
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    both = cluster_weights(pruned, 4)
    both.layers[0].trainable = not frozen
    both.save(tmp_path / "m.keras")
    for other in (copy_model(both), keras.models.load_model(tmp_path / "m.keras")):
        assert len(transformed_weights(other)) == 5
        np.testing.assert_allclose(outputs(other), outputs(both), rtol=1e-5, atol=1e-6)
    stripped = strip_clustering(both)
    np.testing.assert_allclose(outputs(stripped), outputs(both), rtol=1e-5, atol=1e-6)
    # The bias of the sub-layer is used as it is named: pruned and clustered by the layer around it.
    assert (ops.convert_to_numpy(stripped.layers[0].inner.bias) == 0).sum() == 3


def test_each_technique_asks_its_own_method():
    model = model_of(Different(name="different"))
    pruned, clustered = prune_low_magnitude(model), cluster_weights(model, 3)
    assert [weight.key for weight in transformed_weights(pruned)] == ["a", "c"]
    assert [weight.key for weight in transformed_weights(clustered)] == ["c", "b"]
    reasons = dict(clustering_report(clustered).left_alone)
    assert list(reasons.values()) == ["its layer does not offer it to be clustered"]
    assert [path.split("/")[-1] for path, _ in pruning_report(pruned).left_alone] == ["b"]
    assert [weight.key for weight in transformed_weights(cluster_weights(pruned, 3))] == ["a", "c", "b"]


def test_a_variable_of_another_layer_is_refused():
    stranger = layers.Dense(2)
    stranger.build((None, 3))

    class Wrong(layers.Dense):
        def get_prunable_weights(self):
            return [stranger.kernel]

    with pytest.raises(
        ValueError, match=r"Wrong.get_prunable_weights\(\)` returned .* neither the layer nor a layer below"
    ):
        prune_low_magnitude(model_of(Wrong(3)))


def test_axes_of_a_layer_of_the_table_stay():
    class Mine(layers.Conv1DTranspose):
        def get_prunable_weights(self):
            return [self.kernel]

    model = keras.Sequential([layers.Input((6, 2)), Mine(3, 2)])
    (weight,) = find_weights(model)[0]
    assert (weight.axes.inputs, weight.axes.outputs) == ((2,), (1,))
    update_pruning_step(pruned := prune_low_magnitude(model, ConstantSparsity(0.5)), 0)
    assert (ops.convert_to_numpy(strip_pruning(pruned).layers[0].kernel) == 0).sum() == 6
