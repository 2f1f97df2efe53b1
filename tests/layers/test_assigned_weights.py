"""Layers that assign a weight in their own call: the weight that they see is the one that is used, before and after."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.clustering import ClusteringConfig, DifferentiableKMeans, cluster_weights, strip_clustering
from keras_mot.layers import register_weights, transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step
from tests.clustering.models import distinct

SETTINGS = ClusteringConfig(16, frequency=4)


@keras.saving.register_keras_serializable("test_assigned_weights")
class Centered(keras.layers.Layer):
    """Takes the mean off its own kernel, and reads it again."""

    def __init__(self, units=10, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units))

    def call(self, inputs, training=False):
        if training:
            self.kernel.assign(self.kernel.value - ops.mean(self.kernel.value))
        return ops.matmul(inputs, self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


register_weights(Centered, ["kernel"])


def spectral(power_iterations=3):
    return keras.layers.SpectralNormalization(keras.layers.Dense(10, name="inner"), power_iterations=power_iterations)


def spectral_convolution():
    layer = keras.layers.SpectralNormalization(keras.layers.Conv1D(10, 1))
    return keras.Sequential([keras.layers.Reshape((1, 12)), layer, keras.layers.Flatten()])


LAYERS = [spectral, Centered, spectral_convolution]


def network(layer):
    return keras.Sequential([keras.Input((12,)), layer(), keras.layers.Dense(3, name="head")])


def trained(model, steps=10, rate=0.01):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((steps * 8, 12)).astype("float32")
    model.compile(keras.optimizers.SGD(rate), "mse")
    model.fit(x, generator.standard_normal((steps * 8, 3)).astype("float32"), batch_size=8, verbose=0, shuffle=False)
    return model, x


def effective(model):
    return np.array(ops.convert_to_numpy(transformed_weights(model)[0].effective_value()))


@pytest.mark.parametrize("layer", LAYERS)
def test_clustered_weights_keep_their_values(layer):
    model, x = trained(cluster_weights(network(layer), SETTINGS))
    assert len(np.unique(effective(model))) == 16
    stripped = strip_clustering(model)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert distinct(stripped)[0] == 16


@pytest.mark.parametrize("settings", [ClusteringConfig(5, per_channel=True), ClusteringConfig(4, frequency=2)])
def test_other_codebooks(settings):
    model, _ = trained(cluster_weights(network(spectral), settings), rate=0.0)
    channels = effective(model).T if settings.per_channel else [effective(model)]
    assert [len(np.unique(channel)) for channel in channels] == [settings.number_of_clusters] * len(channels)


def test_soft_codebooks():
    model, _ = trained(cluster_weights(network(spectral), ClusteringConfig(4, method=DifferentiableKMeans())))
    assert distinct(strip_clustering(model))[0] == 4


@pytest.mark.parametrize("transform", [lambda model: prune_low_magnitude(model, ConstantSparsity(0.5)), None])
def test_it_is_the_weight_in_use_that_is_normalized(transform, backend):
    if backend == "jax":
        pytest.skip("Keras's JAX trainer drops what a call assigns to a variable that is trained")
    transform = transform or (lambda model: cluster_weights(model, SETTINGS))
    model, _ = trained(transform(network(lambda: spectral(30))), rate=0.0)
    assert np.linalg.norm(effective(model), 2) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("layer", LAYERS)
def test_pruned_weights_keep_what_their_mask_hides(layer):
    pruned = prune_low_magnitude(network(layer), ConstantSparsity(0.5, 0, 0), overrides={"head": None})
    update_pruning_step(pruned, 0)
    weight = transformed_weights(pruned)[0]
    mask = np.array(ops.convert_to_numpy(weight.transforms[0].mask))
    hidden = np.array(ops.convert_to_numpy(weight.variable))[~mask]
    model, x = trained(pruned)
    np.testing.assert_array_equal(ops.convert_to_numpy(weight.variable)[~mask], hidden)
    assert np.count_nonzero(effective(model)) == mask.sum()
    stripped = strip_pruning(model)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_training_with_an_open_mask_is_the_plain_training(layer):
    start = network(layer)
    pruned, x = trained(prune_low_magnitude(start, ConstantSparsity(0.0), overrides={"head": None}))
    plain, _ = trained(start)
    np.testing.assert_allclose(pruned.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-4)
