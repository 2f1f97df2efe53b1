"""Criteria that see gradients, inputs and the present mask, against formulas and numerical derivatives."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers import WeightAxes, transformed_weights
from keras_mot.sparsity import (
    SNIP,
    ConstantSparsity,
    Gradient,
    Movement,
    OptimalBrainSurgeon,
    PolynomialDecay,
    PruningConfig,
    PruningEvidence,
    Random,
    Taylor,
    UpdatePruningStep,
    Wanda,
    WeightEvidence,
    prune_at_once,
    prune_low_magnitude,
    strip_pruning,
    update_pruning_step,
)
from keras_mot.sparsity._gradients import collect_gradients, gradients_of
from keras_mot.sparsity._moments import collect_moments
from keras_mot.sparsity.criteria_by_gradients import in_order

from .models import batches, classifier, compiled

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def evidence_of(weight, **known):
    return WeightEvidence(weight, "path", 3, np.ones(weight.shape, bool), WeightAxes((0,), (1,)), **known)


def test_scores_are_the_formulas_of_the_papers():
    rng = np.random.default_rng(0)
    weight, gradient, square = rng.normal(size=(3, 5, 4))
    square = square**2
    known = evidence_of(
        weight,
        gradient=gradient,
        absolute_gradient=2 * np.abs(gradient),
        squared_gradient=square,
        movement=-gradient * weight,
        input_square=square,
        inverse_moment=square,
    )
    assert np.allclose(Gradient().scores_from(known), np.abs(gradient))
    assert np.allclose(SNIP().scores_from(known), np.abs(gradient * weight))
    assert np.allclose(Taylor().scores_from(known), 2 * np.abs(gradient * weight))
    assert np.allclose(Taylor(second_order=True).scores_from(known), square * weight**2)
    assert np.allclose(Wanda().scores_from(known), np.abs(weight) * np.sqrt(square))
    assert np.allclose(OptimalBrainSurgeon().scores_from(known), weight**2 / square)
    order = np.argsort(Movement().scores_from(known), axis=None)
    assert (order == np.argsort(-gradient * weight, axis=None)).all()


def test_signed_scores_become_positive_in_their_order():
    values = np.array([-3e8, -2.0, -1.9999, -1e-12, 0.0, 1e-12, 1e-3, 1.0001e-3, 5e30])
    result = in_order(values)
    assert (np.diff(result) > 0).all()
    assert (result > 0).all()
    assert np.isfinite(result).all()


@pytest.fixture(scope="module")
def halved():
    """A model with masks, of which half the weights are out of use."""
    keras.utils.set_random_seed(3)
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.5))
    update_pruning_step(pruned, steps=0)
    return pruned


def test_gradients_are_those_of_weights_out_of_use_too():
    """Differences of the loss tell, where the model has no corners."""
    x, y = batches(1)
    smooth = keras.Sequential([layers.Input((12,)), layers.Dense(8, activation="tanh"), layers.Dense(3)])
    halved = prune_low_magnitude(smooth, ConstantSparsity(0.5))
    update_pruning_step(halved, steps=0)
    weights = transformed_weights(halved)
    gradients = gradients_of(halved, weights, x, y, lambda x, y, outputs: ops.mean(LOSS(y, outputs)))
    weight, gradient = weights[0], gradients[0]
    mask = ops.convert_to_numpy(weight.transforms[0].mask)
    small = strip_pruning(halved)
    kernel = np.array(ops.convert_to_numpy(small.layers[0].kernel))
    for place in [*np.argwhere(mask)[:2], *np.argwhere(~mask)[:2]]:
        losses = []
        for step in (-1e-2, 1e-2):
            changed = kernel.copy()
            changed[tuple(place)] += step
            small.layers[0].kernel.assign(changed)
            losses.append(float(ops.convert_to_numpy(LOSS(y, small(x, training=False)))))
        assert (losses[1] - losses[0]) / 2e-2 == pytest.approx(gradient[tuple(place)], abs=2e-4)


def test_pruning_at_once_takes_the_loss_of_the_compiled_model():
    x, y = batches(1)
    fast = PruningConfig(ConstantSparsity(0.5), criterion=Taylor())
    with pytest.raises(ValueError, match=r"prune_at_once\(\.\.\., loss="):
        prune_at_once(classifier(), (x, y), fast, rounds=1)
    model = classifier()
    given = prune_at_once(model, (x, y), fast, rounds=1, loss=LOSS)
    model.compile("sgd", LOSS)
    compiled = prune_at_once(model, (x, y), fast, rounds=1)
    for one, other in zip(given.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_means_over_batches_and_movement_over_updates(halved):
    x, y = batches(4)
    weights = transformed_weights(halved)[:1]
    evidence = PruningEvidence((x, y), LOSS, batch_size=16, samples=32)
    single = PruningEvidence((x, y), LOSS, batch_size=16, samples=16)
    names = ["gradient", "absolute_gradient", "squared_gradient", "movement"]
    key = id(weights[0].variable)
    both = collect_gradients(halved, weights, names, evidence)[key]
    first, second = (collect_gradients(halved, weights, ["gradient"], single)[key]["gradient"] for _ in range(2))
    np.testing.assert_allclose(both["gradient"], (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(both["absolute_gradient"], (np.abs(first) + np.abs(second)) / 2, atol=1e-6)
    np.testing.assert_allclose(both["squared_gradient"], (first**2 + second**2) / 2, atol=1e-6)
    stored = ops.convert_to_numpy(weights[0].variable)
    np.testing.assert_allclose(both["movement"], -both["gradient"] * stored, atol=1e-6)
    third, fourth = (collect_gradients(halved, weights, ["gradient"], single)[key]["gradient"] for _ in range(2))
    again = collect_gradients(halved, weights, ["movement"], evidence)[key]["movement"]
    np.testing.assert_allclose(again, both["movement"] - (third + fourth) / 2 * stored, atol=1e-6)


def test_moments_are_those_of_the_inputs(halved):
    x, _ = batches(2)
    weights = transformed_weights(halved)[:1]
    found = collect_moments(halved, weights, ["input_square", "inverse_moment"], PruningEvidence(x))
    found = found[id(weights[0].variable)]
    np.testing.assert_allclose(found["input_square"][:, 0], (x**2).mean(axis=0), rtol=1e-4)
    second = x.T @ x / len(x)
    inverse = np.linalg.inv(second + 0.01 * np.diag(second).mean() * np.eye(12)).diagonal()
    np.testing.assert_allclose(found["inverse_moment"][:, 5], inverse, rtol=1e-3)


def test_inputs_of_convolutions_and_depthwise_kernels():
    model = keras.Sequential(
        [layers.Input((5, 5, 2)), layers.DepthwiseConv2D(3, name="depthwise"), layers.Conv2D(3, 2, name="conv")]
    )
    pruned = prune_low_magnitude(model, include_depthwise=True)
    x = np.random.default_rng(0).normal(size=(8, 5, 5, 2)).astype("float32")
    depthwise, _ = weights = transformed_weights(pruned)
    found = collect_moments(pruned, weights, ["input_square"], PruningEvidence(x))
    expected = np.mean([(x[:, i : i + 3, j : j + 3] ** 2) for i in range(3) for j in range(3)], axis=(0, 1))
    np.testing.assert_allclose(found[id(depthwise.variable)]["input_square"][..., 0], expected, rtol=1e-4)


def test_data_are_taken_in_turn_and_begin_again():
    x, y = batches(3)
    model = classifier()
    evidence = PruningEvidence((x, y), LOSS, batch_size=16, samples=32)
    firsts = [[inputs[0, 0] for inputs, _ in evidence.next_batches(model)] for _ in range(3)]
    assert firsts == [[x[0, 0], x[16, 0]], [x[32, 0]], [x[0, 0], x[16, 0]]]
    with pytest.raises(ValueError, match="empty"):
        PruningEvidence([]).next_batches(model)


def test_data_come_in_the_structure_of_the_inputs():
    inputs = keras.Input((12,), name="features")
    model = keras.Model([inputs], layers.Dense(4)(inputs))  # a list of one
    x, _ = batches(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as Keras warns of another structure
        ((given, _),) = PruningEvidence(x).next_batches(model)
        model(given)
    assert keras.tree.flatten(given)[0].shape == x.shape
    with pytest.raises(ValueError, match=r"Batch 0 of the data of `PruningEvidence`.*NaN"):
        PruningEvidence(np.full_like(x, np.nan)).next_batches(model)


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"loss": 3}, TypeError), ({"batch_size": 0}, ValueError), ({"samples": True}, ValueError)],
)
def test_wrong_evidence_is_refused(settings, error):
    with pytest.raises(error, match=next(iter(settings))):
        PruningEvidence(batches(1), **settings)


def test_without_data_training_does_not_begin():
    x, y = batches(2)
    pruned = compiled(prune_low_magnitude(classifier(), PolynomialDecay(0.1, 0.5, 100, 200), criterion=SNIP()))
    with pytest.raises(ValueError, match=r"SNIP.*PruningEvidence"):
        pruned.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match="need labels"):
        update_pruning_step(pruned, 100, PruningEvidence(x))
    with pytest.raises(TypeError, match="PruningEvidence"):
        UpdatePruningStep(evidence=(x, y))


def test_weights_whose_inputs_are_unknown_are_named():
    model = keras.Sequential([layers.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten()])
    pruned = prune_low_magnitude(model, criterion=Wanda())
    with pytest.raises(ValueError, match="embeddings"):
        update_pruning_step(pruned, 0, PruningEvidence(np.zeros((8, 4), "int32")))


def test_movement_keeps_what_grows():
    x, y = batches(8)
    pruned = compiled(prune_low_magnitude(classifier(), ConstantSparsity(0.5, 2, frequency=2), criterion=Movement()))
    pruned.fit(x, y, batch_size=16, verbose=0, callbacks=[UpdatePruningStep(PruningEvidence((x, y), samples=32))])
    small = strip_pruning(pruned)
    kernels = [ops.convert_to_numpy(layer.kernel) for layer in small.layers if hasattr(layer, "kernel")]
    assert [np.mean(kernel == 0) for kernel in kernels] == pytest.approx([0.5] * 3, abs=0.02)


def test_random_orders_change_if_asked_for():
    weight = np.zeros((6, 6))
    for anew in (False, True):
        criterion = Random(seed=1, anew=anew)
        assert (criterion.scores(weight, "a", 3) == criterion.scores(weight, "a", 4)).all() != anew
    assert PruningConfig(criterion=Random(1, True)) != PruningConfig(criterion=Random(1))
