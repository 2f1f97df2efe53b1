"""Stripping: a copy by default, as its siblings do; what it leaves is a plain model."""

import keras
import numpy as np
import pytest

from keras_mot import clustering, sparsity
from keras_mot.layers import is_transformed, strip, transformed_weights

X = np.random.default_rng(0).standard_normal((16, 6)).astype("float32")


def pruned_and_clustered():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-2)),
            keras.layers.Dense(3),
        ]
    )
    pruned = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.5, 0))
    sparsity.update_pruning_step(pruned, 0)
    return clustering.cluster_weights(pruned, 4)


def test_a_copy_is_stripped_and_the_model_goes_on():
    model = pruned_and_clustered()
    model.compile("sgd", "mse")
    stored = [np.array(variable) for variable in model.get_weights()]
    expected = model.predict(X, verbose=0)
    plain = strip(model)
    assert plain is not model
    assert {type(layer) for layer in plain.layers} == {keras.layers.Dense}
    assert not transformed_weights(plain)
    assert len(plain.weights) == 4
    assert not plain.compiled
    np.testing.assert_allclose(plain.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
    kernel = keras.ops.convert_to_numpy(plain.layers[0].kernel)
    assert np.sum(kernel == 0) == kernel.size // 2
    assert len(np.unique(kernel)) <= 4
    # The model has kept what masks and codebooks hide, and trains on.
    assert len(transformed_weights(model)) == 2
    assert model.compiled
    for before, after in zip(stored, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_penalty_is_that_of_the_plain_layer_again():
    model = pruned_and_clustered()
    penalty = float(keras.ops.convert_to_numpy(model.losses[0]))
    plain = strip(model)
    assert type(plain.layers[0].kernel.regularizer) is keras.regularizers.L2
    assert float(keras.ops.convert_to_numpy(plain.losses[0])) == pytest.approx(penalty, rel=1e-5)


def test_in_place_it_is_the_model_itself_that_is_stripped():
    model = pruned_and_clustered()
    model.compile("sgd", "mse")
    expected = model.predict(X, verbose=0)
    assert strip(model, inplace=True) is model
    assert not any(is_transformed(layer) for layer in model.layers)
    assert not model.compiled
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_a_model_without_transforms_is_copied():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    plain = strip(model)
    assert plain is not model
    np.testing.assert_array_equal(plain.get_weights()[0], model.get_weights()[0])


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="`strip` expects a Keras 3 model or layer"):
        strip(np.zeros(3))
