"""However a model is trained, its weights stay clustered, its centroids move, and it goes on after loading."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot.clustering import (
    ClusteringConfig,
    ClusteringSummaries,
    DifferentiableKMeans,
    cluster_weights,
    strip_clustering,
)
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import PolynomialDecay, prune_low_magnitude
from tests.clustering.models import distinct
from tests.devices import run_on_two_devices
from tests.sparsity.models import batches, classifier, compiled, zeros

STEPS = 11
SETTINGS = ClusteringConfig(6, frequency=4)


def clustered_model(**settings):
    return compiled(cluster_weights(classifier(), SETTINGS), **settings)


def palettes(model):
    return [weight.transforms[-1].palette() for weight in transformed_weights(model)]


def check_trained(model, before):
    assert max(distinct(strip_clustering(model))) <= 6
    for old, new in zip(before, palettes(model), strict=True):
        assert np.abs(old - new).max() > 1e-5


@pytest.mark.parametrize(
    "settings",
    [{}, {"steps_per_execution": 3}, {"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False}],
    ids=str,
)
def test_fit_under_every_setting(settings, backend):
    if backend == "torch" and settings.get("jit_compile"):
        pytest.skip("`jit_compile=True` needs a C++ compiler and minutes on PyTorch")
    if backend == "torch" and "steps_per_execution" in settings:
        pytest.skip("Keras itself does not support `steps_per_execution` on PyTorch")
    model = clustered_model(**settings)
    before = palettes(model)
    history = model.fit(*batches(STEPS), batch_size=16, verbose=0).history
    assert history["unique_values"] == [6.0]
    assert [weight.transforms[0].step for weight in transformed_weights(model)] == [STEPS] * 3
    check_trained(model, before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_fit_in_other_precisions(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = cluster_weights(classifier(), SETTINGS)
        # Not Adam: on PyTorch in bfloat16 its bias correction rounds to 0, and no weight of any model moves.
        model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        before = palettes(model)
        model.fit(*batches(STEPS), batch_size=16, verbose=0)
        check_trained(model, before)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_model_changed_in_place_after_training_trains_on():
    """On PyTorch, lists of parameters made before must learn of the centroids, or their gradients pile up."""
    model, other = compiled(classifier()), None
    x, y = batches(STEPS)
    model.fit(x[:32], y[:32], batch_size=16, verbose=0)
    other = compiled(cluster_weights(model, SETTINGS))
    compiled(cluster_weights(model, SETTINGS, inplace=True))
    for trained in (model, other):
        trained.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_centroids_learn():
    """A regression that a clustered layer can solve exactly: the loss goes to nearly nothing."""
    x = np.random.default_rng(0).standard_normal((256, 8)).astype("float32")
    target = np.where(np.arange(32).reshape(8, 4) % 3, 0.7, -0.4).astype("float32")
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4, use_bias=False)])
    clustered = cluster_weights(model, ClusteringConfig(2, frequency=5))
    clustered.compile(keras.optimizers.Adam(0.02), "mse")
    history = clustered.fit(x, x @ target, epochs=25, batch_size=32, verbose=0).history["loss"]
    assert history[-1] < 1e-3 < history[0]
    kernel = ops.convert_to_numpy(strip_clustering(clustered).layers[0].kernel)
    np.testing.assert_allclose(kernel, target, atol=0.05)


@pytest.mark.parametrize("sparse", [False, True])
def test_differentiable_kmeans_learns_few_values(sparse, tmp_path):
    """Three values that a hard assignment from the dense start would have to find."""
    x = np.random.default_rng(0).standard_normal((256, 8)).astype("float32")
    target = np.array([-0.6, 0.0, 0.5], "float32")[np.arange(64).reshape(8, 8) % 3]
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8, use_bias=False)])
    kernel = np.random.default_rng(1).uniform(-0.6, 0.6, (8, 8))  # the same start on every backend
    model.layers[0].kernel.assign(np.where(target == 0, 0, kernel) if sparse else kernel)
    settings = ClusteringConfig(3, method=DifferentiableKMeans(0.2 if sparse else 0.1), frequency=5)
    clustered = cluster_weights(model, settings, preserve_sparsity=sparse)
    clustered.compile(keras.optimizers.Adam(0.02), "mse")
    clustered.fit(x, x @ target, epochs=30, batch_size=32, verbose=0)
    clustered.save(tmp_path / "m.keras")
    for trained in (clustered, keras.models.load_model(tmp_path / "m.keras")):
        kernel = ops.convert_to_numpy(strip_clustering(trained).layers[0].kernel)
        assert len(np.unique(kernel)) == 3
        assert np.abs(kernel - target).mean() < 0.06  # the mixtures at the end leave a little


def test_a_custom_loop_needs_one_call():
    model = cluster_weights(classifier(), SETTINGS)
    compiled(model)
    x, y = batches(STEPS)
    updates = []
    for step in range(STEPS):
        model.train_on_batch(x[step * 16 :][:16], y[step * 16 :][:16])
        updates.append(keras_mot.update_step(model))
    assert [step + 1 for step, updated in enumerate(updates) if updated and step] == [4, 8]
    assert max(distinct(strip_clustering(model))) <= 6


def test_training_in_two_halves_equals_training_at_once(tmp_path):
    x, y = batches(2 * STEPS)
    half = STEPS * 16
    start = classifier()

    def fresh():
        return compiled(cluster_weights(start, SETTINGS))

    whole = fresh()
    whole.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    first = fresh()
    first.fit(x[:half], y[:half], batch_size=16, verbose=0, shuffle=False)
    first.save(tmp_path / "half.keras")
    second = keras.models.load_model(tmp_path / "half.keras")
    second.fit(x[half:], y[half:], batch_size=16, verbose=0, shuffle=False)
    for a, b in zip(transformed_weights(whole), transformed_weights(second), strict=True):
        np.testing.assert_array_equal(a.transforms[0].assignments(), b.transforms[0].assignments())
        assert a.transforms[0].step == b.transforms[0].step == 2 * STEPS
    for a, b in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_pruning_and_clustering_at_once():
    """The codebook follows the mask: zeros are zeros after each update of the masks, and all values are in use."""
    schedule = PolynomialDecay(0.2, 0.75, 0, STEPS - 1, frequency=2)
    model = compiled(cluster_weights(prune_low_magnitude(classifier(), schedule), ClusteringConfig(6, frequency=100)))
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            used = [ops.convert_to_numpy(w.effective_value()) for w in transformed_weights(self.model)]
            seen.append((logs["sparsity"], sum(int((value == 0).sum()) for value in used) / 608))

    model.fit(*batches(STEPS), batch_size=16, verbose=0, callbacks=[Look()])
    assert all(logged == pytest.approx(counted) for logged, counted in seen)
    stripped = strip_clustering(model)
    assert zeros(stripped) == [180, 240, 36]
    assert distinct(stripped) == [6, 6, 6]


def test_a_codebook_follows_its_mask_beside_layers_without_one():
    schedule = PolynomialDecay(0.0, 0.75, 0, STEPS - 1, frequency=1)
    pruned = prune_low_magnitude(classifier(), schedule, overrides={"first$": None})
    model = compiled(cluster_weights(pruned, ClusteringConfig(6, frequency=2, end_step=4)))
    model.fit(*batches(STEPS), batch_size=16, verbose=0)
    assert zeros(strip_clustering(model)) == [0, 240, 36]


def test_stripping_says_what_pruning_would():
    never = cluster_weights(prune_low_magnitude(classifier(), PolynomialDecay(0.5, 0.9, 100, 200)), 4)
    with pytest.raises(ValueError, match="Nothing has been pruned yet"):
        strip_clustering(never)
    early = prune_low_magnitude(classifier(), PolynomialDecay(0.5, 0.9, 0, 100, frequency=10))
    keras_mot.update_step(early, 20)
    with pytest.warns(UserWarning, match="below the schedule's final 0.900"):
        strip_clustering(cluster_weights(early, 4))


def test_clustered_weights_are_not_pruned_afterwards():
    with pytest.raises(ValueError, match="Prune first, then cluster"):
        prune_low_magnitude(cluster_weights(classifier(), 4))


def test_regularizers_penalise_the_weights_in_use():
    model = keras.Sequential([layers.Input((12,)), layers.Dense(20, kernel_regularizer=keras.regularizers.L2(0.1))])
    clustered = cluster_weights(model, 3)
    expected = 0.1 * np.square(ops.convert_to_numpy(strip_clustering(clustered).layers[0].kernel)).sum()
    assert float(clustered.losses[0]) == pytest.approx(expected, rel=1e-5)


def test_summaries_are_written_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clustered_model().fit(*batches(4), batch_size=16, verbose=0, callbacks=[ClusteringSummaries(tmp_path)])
    events = EventAccumulator(str(tmp_path / "metrics")).Reload()
    tags = events.Tags()["scalars"] + events.Tags()["tensors"]
    assert any(tag.startswith("unique_values/") for tag in tags)
    entropy = next(tag for tag in tags if tag.startswith("entropy/"))
    assert 1.0 < events.Scalars(entropy)[0].value <= np.log2(6)


TRAIN = """
model = compiled_on_devices(lambda: classifier(), lambda start: cluster_weights(start, SETTINGS))
before = palettes(model)
model.fit(*batches(STEPS), batch_size=16, verbose=0)
check_trained(model, before)
"""


def test_two_devices():
    """`MirroredStrategy` over two logical CPUs, `DataParallel` over two host devices."""
    run_on_two_devices("from tests.clustering.test_training import *", TRAIN)
