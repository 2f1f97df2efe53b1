"""Scripts in the style of TFMOT's guides and examples of clustering, and of what they combine it with."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_mot as tfmot
from keras_mot.clustering import clustering_report
from tests.tfmot.small import LOSS, baseline, digits, kernels, results_of, trained

cluster_weights = tfmot.clustering.keras.cluster_weights
CentroidInitialization = tfmot.clustering.keras.CentroidInitialization
PARAMS = {"number_of_clusters": 3, "cluster_centroids_init": CentroidInitialization.KMEANS_PLUS_PLUS}


def counts(model):
    return [len(np.unique(kernel)) for kernel in kernels(model).values()]


def test_guide_of_a_first_model(tmp_path):
    """Clusters a whole model, with summaries as an example writes them; saves it clustered and stripped."""
    images, labels = digits()
    params = {"number_of_clusters": 8, "cluster_centroids_init": CentroidInitialization.LINEAR}
    clustered = cluster_weights(baseline(), **params)
    with pytest.warns(UserWarning, match="'histogram_freq'.* have no effect"):
        summaries = tfmot.clustering.keras.ClusteringSummaries(
            str(tmp_path / "logs"), cluster_update_freq="epoch", update_freq="batch", histogram_freq=1
        )
    trained(clustered, images, labels, rate=1e-5, validation_split=0.1, callbacks=[summaries])
    expected = results_of(clustered, images)
    clustered.save(tmp_path / "clustered.h5")
    with tfmot.clustering.keras.cluster_scope():
        loaded = keras.models.load_model(tmp_path / "clustered.h5")
    stripped = tfmot.clustering.keras.strip_clustering(loaded)
    assert counts(stripped) == [8, 8]
    stripped.save(tmp_path / "stripped.h5", include_optimizer=False)
    for model in (loaded, stripped, keras.models.load_model(tmp_path / "stripped.h5")):
        np.testing.assert_allclose(results_of(model, images), expected, rtol=1e-4, atol=1e-5)
    (events,) = (tmp_path / "logs" / "metrics").iterdir()
    content = events.read_bytes()
    assert content.count(b"unique_values/conv2d/kernel") == 4  # three batches, and the end of the epoch


def small_dense(wrap=lambda layer: layer, kind=layers.Dense):
    return keras.Sequential([wrap(kind(20, input_shape=(20,), activation="softmax")), layers.Flatten()])


def apply_to_dense(layer):
    return cluster_weights(layer, **PARAMS) if isinstance(layer, layers.Dense) else layer


class MyDense(layers.Dense, tfmot.clustering.keras.ClusterableLayer):
    def get_clusterable_weights(self):
        return [("kernel", self.kernel), ("bias", self.bias)]


class WithAlgorithm(MyDense):
    def get_clusterable_algorithm(self, weight_name):
        return None


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_guide_of_everything():
    """Some layers by a clone function, by themselves, of one's own class; layers that have nothing to cluster."""
    by_clone = keras.models.clone_model(small_dense(), clone_function=apply_to_dense)
    each = keras.models.clone_model(small_dense(), clone_function=lambda layer: cluster_weights(layer, **PARAMS))
    own = small_dense(lambda layer: cluster_weights(layer, **PARAMS), MyDense)
    for model, weights in ((by_clone, 1), (each, 1), (own, 2)):
        assert [row.unique_values <= 3 for row in clustering_report(model).clustered] == [True] * weights
    x = np.random.default_rng(1).standard_normal((4, 20)).astype("float32")
    trained(own, x, np.arange(4))
    assert counts(tfmot.clustering.keras.strip_clustering(own)) == [3]
    with pytest.warns(UserWarning, match="`get_clusterable_algorithm` of .* is not asked"):
        small_dense(lambda layer: cluster_weights(layer, **PARAMS), WithAlgorithm)


def test_clusterable_layers_say_what_they_cluster():
    with pytest.raises(NotImplementedError, match="ClusterableLayer does not implement"):
        tfmot.clustering.keras.ClusterableLayer().get_clusterable_weights()


def test_example_of_a_recurrent_network():
    cells = layers.StackedRNNCells([layers.LSTMCell(6) for _ in range(2)])
    model = keras.models.Sequential([layers.Embedding(30, 8), layers.RNN(cells), layers.Dropout(0.5), layers.Dense(1)])
    model.add(layers.Activation("sigmoid"))
    model = cluster_weights(model, number_of_clusters=8, cluster_centroids_init=CentroidInitialization.KMEANS_PLUS_PLUS)
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(np.random.default_rng(0).integers(1, 30, (16, 10)), np.arange(16) % 2, batch_size=16, verbose=0)
    stripped = tfmot.clustering.keras.strip_clustering(model)
    weights = [weight for weight in stripped.weights if len(weight.shape) == 2 and min(weight.shape) > 2]
    assert len(weights) >= 3
    assert {len(np.unique(keras.ops.convert_to_numpy(weight))) for weight in weights} == {8}


def test_example_of_attention():
    inputs = keras.layers.Input(shape=(8, 8))
    x = layers.MultiHeadAttention(num_heads=2, key_dim=4, name="mha")(query=inputs, value=inputs)
    model = keras.Model(inputs=inputs, outputs=layers.Dense(4, activation="softmax")(layers.Flatten()(x)))
    clustered = trained(cluster_weights(model, **PARAMS), *digits(32))
    stripped = tfmot.clustering.keras.strip_clustering(clustered)
    stripped.compile(loss=LOSS, optimizer="adam", metrics=["accuracy"])
    weights = [weight for weight in stripped.weights if "mha" in weight.path and "kernel" in weight.path]
    assert [len(np.unique(keras.ops.convert_to_numpy(weight))) for weight in weights] == [3] * 4


def test_guide_of_clustering_that_keeps_zeros():
    """Prunes, strips, copies by hand; clusters one copy without and one with its zeros."""
    from keras_mot.python.core.clustering.keras.experimental import cluster

    images, labels = digits()
    params = {"pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=100)}
    pruned = tfmot.sparsity.keras.prune_low_magnitude(baseline(), **params)
    tfmot.sparsity.keras.update_pruning_step(pruned, 0)
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    copy = keras.models.clone_model(stripped)
    copy.set_weights(stripped.get_weights())
    with pytest.warns(UserWarning, match="will not stay so"):
        cluster_weights(stripped, **PARAMS)
    clustered = trained(cluster.cluster_weights(copy, **PARAMS, preserve_sparsity=True), images, labels)
    final = tfmot.clustering.keras.strip_clustering(clustered)
    assert counts(final) == [3, 3]
    assert [float((kernel == 0).mean()) for kernel in kernels(final).values()] == [0.5, 0.5]
