"""Composite layers, which have no `build`: they are pruned and clustered, saved, loaded, trained on and stripped."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step
from tests.layers.user_models import COMPOSITES, inputs_of

TECHNIQUES = {
    "containers": "cluster",
    "text": "cluster",
    "shared": "prune",
    "nested": "cluster",
    "subclassed": "prune",
}


def _apply(technique, model):
    if technique == "cluster":
        return cluster_weights(model, 3)
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    return pruned


def _numpy(value):
    return ops.convert_to_numpy(value)


def _same(first, second, x):
    np.testing.assert_allclose(_numpy(first(x)), _numpy(second(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_layers_go_through(name, rng, tmp_path):
    make, count = COMPOSITES[name]
    technique, model = TECHNIQUES[name], make()
    x = inputs_of(model, rng)
    before = [_numpy(variable) for variable in model.variables]
    changed = _apply(technique, model)
    assert len(transformed_weights(changed)) == count
    changed.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.ones_like(_numpy(changed(x)))
    changed.train_on_batch(x, y)

    changed.save(tmp_path / "changed.keras")
    loaded = keras.models.load_model(tmp_path / "changed.keras")
    assert len(transformed_weights(loaded)) == count
    _same(changed, loaded, x)
    loaded.train_on_batch(x, y)

    plain = (strip_clustering if technique == "cluster" else strip_pruning)(loaded)
    _same(loaded, plain, x)
    for variable in plain.variables:
        if variable.path.endswith("kernel"):
            values = _numpy(variable)
            assert len(np.unique(values)) <= 3 if technique == "cluster" else np.mean(values == 0) >= 0.4
    plain.save(tmp_path / "plain.keras")
    _same(plain, keras.models.load_model(tmp_path / "plain.keras"), x)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, _numpy(variable))


def test_files_of_weights_and_copies_of_composite_layers(rng, tmp_path):
    model = COMPOSITES["shared"][0]()
    x = inputs_of(model, rng)
    pruned = _apply("prune", model)
    pruned.save_weights(tmp_path / "pruned.weights.h5")
    cloned = keras.models.clone_model(pruned)
    assert len(transformed_weights(cloned)) == 3
    cloned.load_weights(tmp_path / "pruned.weights.h5")
    _same(pruned, cloned, x)
    _same(pruned, copy.deepcopy(pruned), x)
    _same(pruned, pickle.loads(pickle.dumps(pruned)), x)


def test_a_subclassed_model_with_masks_can_be_pickled(rng):
    model = COMPOSITES["subclassed"][0]()
    x = inputs_of(model, rng)
    pruned = _apply("prune", model)
    _same(pruned, pickle.loads(pickle.dumps(pruned)), x)
