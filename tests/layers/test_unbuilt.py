"""What is not built yet: transforms wait for the call, or the training, that builds it."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning
from tests.layers.user_models import FeedForward

HALF = ConstantSparsity(0.5)


def _zeros(model):
    return [float(np.mean(ops.convert_to_numpy(v) == 0)) for v in model.variables if v.name in ("kernel", "embeddings")]


@pytest.mark.parametrize("technique", ["prune", "cluster"])
def test_a_sequential_model_without_input_shape(technique, rng, tmp_path):
    """TFMOT's examples do so; there, `input_length` builds the model."""
    plain = keras.Sequential([layers.Embedding(8, 6), FeedForward(), layers.Flatten(), layers.Dense(2)])
    model = prune_low_magnitude(plain, HALF) if technique == "prune" else cluster_weights(plain, 3)
    x, y = rng.integers(0, 8, (6, 3)), rng.normal(size=(6, 2))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, y, epochs=2, verbose=0)
    assert not plain.built
    assert len(transformed_weights(model)) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
    stripped = (strip_pruning if technique == "prune" else strip_clustering)(loaded)
    np.testing.assert_allclose(ops.convert_to_numpy(stripped(x)), ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
    if technique == "prune":
        assert _zeros(stripped) == [0.5] * 4
    else:
        assert all(len(np.unique(v)) <= 3 for v in stripped.variables if v.name in ("kernel", "embeddings"))


def test_overrides_of_a_model_that_is_not_built(rng):
    plain = keras.Sequential([layers.Dense(4), layers.Dense(4), layers.Dense(2, name="head")])
    model = prune_low_magnitude(plain, HALF, overrides={"head": None, plain.layers[0]: None})
    model(rng.normal(size=(2, 4)))
    assert [weight.owner for weight in transformed_weights(model)] == [model.layers[1]]
    with pytest.raises(ValueError, match="No layer matches 'heat'"):
        prune_low_magnitude(plain, HALF, overrides={"heat": None})


def test_a_composite_layer_that_was_never_called(rng):
    layer = prune_low_magnitude(FeedForward(), HALF)
    model = keras.Sequential([keras.Input((6,)), layer])
    assert len(transformed_weights(model)) == 2
    assert sorted(weight.path for weight in transformed_weights(model))[0].endswith("/dense/kernel")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(rng.normal(size=(4, 6)), np.ones((4, 6)), verbose=0)
    assert _zeros(strip_pruning(model)) == [0.5, 0.5]


def test_as_a_clone_function():
    """Layers without weights come back as copies."""
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    cloned = keras.models.clone_model(model, clone_function=prune_low_magnitude)
    assert [weight.owner for weight in transformed_weights(cloned)] == [cloned.layers[0], cloned.layers[-1]]
    assert not set(map(id, cloned.layers)) & set(map(id, model.layers))
    layer = layers.Flatten()
    assert isinstance(prune_low_magnitude(layer), layers.Flatten)
    assert prune_low_magnitude(layer, inplace=True) is layer
