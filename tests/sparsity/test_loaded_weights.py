"""Masks that come with weights alone, without the progress of their schedule, have been pruned all the same."""

import keras
import numpy as np
import pytest

from keras_mot.clustering import ClusteringConfig, cluster_weights, strip_clustering
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import (
    ConstantSparsity,
    NofM,
    PolynomialDecay,
    WholeModel,
    prune_low_magnitude,
    pruning_report,
    strip_pruning,
    update_pruning_step,
)
from tests.sparsity.models import batches, classifier, compiled, zeros

STEPS = 8
SCHEDULE = PolynomialDecay(0.5, 0.9, 0, STEPS, frequency=2)


def by_set_weights(target, source, folder):
    target.set_weights(source.get_weights())


def by_state_dict(target, source, folder):
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch has state dictionaries")
    target.load_state_dict(source.state_dict())


def by_weights_file(target, source, folder):
    source.save_weights(folder / "m.weights.h5")
    target.load_weights(folder / "m.weights.h5")


class Watch(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append([row.zeros for row in pruning_report(self.model).pruned])


LOADERS = [by_set_weights, by_state_dict, by_weights_file]


@pytest.fixture(scope="module")
def trained():
    model = compiled(prune_low_magnitude(classifier(), SCHEDULE))
    model.fit(*batches(STEPS), batch_size=16, verbose=0)
    return model


@pytest.mark.parametrize("load", LOADERS)
def test_loaded_into_a_fresh_model_and_stripped(load, trained, tmp_path, recwarn):
    fresh = prune_low_magnitude(classifier(), SCHEDULE)
    load(fresh, trained, tmp_path)
    x = batches(1)[0]
    stripped = strip_pruning(fresh)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), trained.predict(x, verbose=0), atol=1e-5)
    assert zeros(stripped) == zeros(strip_pruning(trained)) == [216, 288, 43]
    assert not [warning for warning in recwarn if "sparsity" in str(warning.message)]


@pytest.mark.parametrize("load", LOADERS)
def test_training_goes_on_without_fewer_zeros(load, trained, tmp_path):
    fresh = compiled(prune_low_magnitude(classifier(), SCHEDULE))
    load(fresh, trained, tmp_path)
    watch = Watch()
    fresh.fit(*batches(STEPS), batch_size=16, verbose=0, callbacks=[watch])
    assert watch.zeros == [[216, 288, 43]] * STEPS
    # The steps begin anew, unless the file says how many there were.
    assert {row.step for row in pruning_report(fresh).pruned} == {STEPS if load is not by_weights_file else 2 * STEPS}


def test_a_schedule_that_aims_higher_goes_on():
    start = prune_low_magnitude(classifier(), ConstantSparsity(0.5))
    update_pruning_step(start, 0)
    higher = prune_low_magnitude(classifier(), PolynomialDecay(0.1, 0.9, 0, 4, power=1, frequency=1))
    higher.set_weights(start.get_weights())
    counts = []
    for _ in range(4):
        update_pruning_step(higher)
        counts.append(pruning_report(higher).sparsity)
    assert counts == pytest.approx([0.5, 0.5, 0.7, 0.9], abs=0.002)


@pytest.mark.parametrize("settings", [{"scope": WholeModel()}, {"granularity": NofM(2, 4)}], ids=["WholeModel", "2:4"])
def test_other_axes(settings):
    source, fresh = (prune_low_magnitude(classifier(), ConstantSparsity(0.5), **settings) for _ in range(2))
    update_pruning_step(source, 0)
    fresh.set_weights(source.get_weights())
    assert zeros(strip_pruning(fresh)) == zeros(strip_pruning(source))


def test_masks_below_the_target_are_warned_of():
    source = prune_low_magnitude(classifier(), ConstantSparsity(0.5))
    update_pruning_step(source, 0)
    fresh = prune_low_magnitude(classifier(), ConstantSparsity(0.9))
    fresh.set_weights(source.get_weights())
    with pytest.warns(UserWarning, match="loaded without their progress"):
        strip_pruning(fresh)


def test_weights_that_were_never_pruned_are_still_refused():
    source, fresh = (prune_low_magnitude(classifier(), SCHEDULE) for _ in range(2))
    fresh.set_weights(source.get_weights())
    with pytest.raises(ValueError, match="Nothing has been pruned yet"):
        strip_pruning(fresh)


@pytest.mark.parametrize("load", LOADERS)
def test_codebooks_come_with_the_weights(load, tmp_path):
    settings, start = ClusteringConfig(6, frequency=4), classifier()
    trained = compiled(cluster_weights(start, settings))
    trained.fit(*batches(STEPS), batch_size=16, verbose=0)
    fresh = cluster_weights(start, settings)
    load(fresh, trained, tmp_path)
    for a, b in zip(transformed_weights(trained), transformed_weights(fresh), strict=True):
        np.testing.assert_array_equal(a.transforms[0].assignments(), b.transforms[0].assignments())
    x = batches(1)[0]
    stripped = strip_clustering(fresh)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), trained.predict(x, verbose=0), atol=1e-5)


def test_the_old_format_of_whole_models_serves_for_inference(trained, tmp_path):
    trained.save(tmp_path / "m.h5")
    loaded = keras.models.load_model(tmp_path / "m.h5", compile=False)
    x = batches(1)[0]
    np.testing.assert_allclose(loaded.predict(x, verbose=0), trained.predict(x, verbose=0), atol=1e-5)
    assert zeros(strip_pruning(loaded)) == [216, 288, 43]
