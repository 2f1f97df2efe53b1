"""Sparse training at constant sparsity: what goes, what comes, and how many, as the papers have it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mot.layers import WeightAxes, transformed_weights
from keras_mot.sparsity import (
    SET,
    Block,
    ConstantSparsity,
    Magnitude,
    NofM,
    PerLayer,
    PruningEvidence,
    Random,
    Regrow,
    RigL,
    UpdatePruningStep,
    WeightEvidence,
    WholeModel,
    prune_low_magnitude,
    strip_pruning,
    update_pruning_step,
)

from .models import batches, classifier, compiled


def chosen(criterion, weight, mask, keep, step=0, gradient=None):
    """The mask of the `keep` highest scores."""
    known = WeightEvidence(weight, "path", step, mask, WeightAxes((0,), (1,)), gradient=gradient)
    scores = criterion.unit_scores(known, np.asarray)
    result = np.zeros(weight.size, bool)
    result[np.argsort(-scores, axis=None, kind="stable")[:keep]] = True
    return result.reshape(weight.shape)


def test_rigl_drops_the_smallest_and_grows_the_steepest():
    rng = np.random.default_rng(0)
    weight, gradient = rng.normal(size=(2, 10, 10)).astype("float32")
    mask = rng.random((10, 10)) < 0.5
    count = np.count_nonzero(mask)
    after = chosen(RigL(fraction=0.2), weight, mask, count, gradient=gradient)
    goes = round(0.2 * count)
    # Plain NumPy, in the words of the paper: those of least magnitude go, and of all that are out of use come as many.
    used = np.flatnonzero(mask)
    survivors = used[np.argsort(-np.abs(weight.ravel()[used]))][: count - goes]
    others = np.setdiff1d(np.arange(100), survivors)
    grown = others[np.argsort(-np.abs(gradient.ravel()[others]))][:goes]
    assert set(np.flatnonzero(after)) == {*survivors, *grown}


def test_the_share_falls_along_a_cosine():
    criterion = RigL(fraction=0.4, end_step=100)
    assert [criterion.share_at(step) for step in (0, 50, 100, 500)] == pytest.approx([0.4, 0.2, 0, 0])
    assert SET(0.3).share_at(10**6) == 0.3


def test_set_grows_at_random_anew_at_each_step():
    weight, mask = np.random.default_rng(0).normal(size=(10, 10)), np.eye(10) > 0
    first, again, later = (chosen(SET(0.5), weight, mask, 10, step) for step in (3, 3, 4))
    assert (first == again).all()
    assert (first != later).any()
    survivors = np.argsort(-np.abs(np.diag(weight)))[:5]
    assert all(np.diag(each)[survivors].all() for each in (first, later))


def test_the_first_update_prunes_by_what_is_dropped():
    weight = np.arange(1.0, 13).reshape(3, 4)
    after = chosen(Regrow(Magnitude(), Random()), weight, np.ones((3, 4), bool), 5)
    assert (after == (weight > 7)).all()


@pytest.mark.parametrize(
    ("granularity", "scope"),
    [(None, PerLayer()), (None, WholeModel()), (Block((1, 2)), WholeModel()), (NofM(2, 4), PerLayer())],
    ids=["elements", "whole model", "blocks", "pattern"],
)
def test_sparsity_stays_and_masks_move(granularity, scope):
    pruned = prune_low_magnitude(
        classifier(), ConstantSparsity(0.5, 0, frequency=1), granularity=granularity, criterion=SET(0.4), scope=scope
    )
    weights, seen = transformed_weights(pruned), []
    for step in range(3):
        update_pruning_step(pruned, steps=min(step, 1))
        seen.append([np.array(ops.convert_to_numpy(weight.transforms[0].mask)) for weight in weights])
    total = sum(mask.size for mask in seen[0])
    for masks in seen:
        assert sum(np.count_nonzero(mask) for mask in masks) == pytest.approx(
            total / 2, abs=8
        )  # blocks at edges are smaller
    assert any((first != second).any() for first, second in zip(seen[0], seen[2], strict=True))
    stored = np.concatenate([np.ravel(ops.convert_to_numpy(weight.variable)) for weight in weights])
    before, after = (np.concatenate([mask.ravel() for mask in masks]) for masks in (seen[1], seen[2]))
    assert not stored[~before & after].any()  # what comes into use starts from zero


def test_trains_at_constant_sparsity():
    x, y = batches(8)
    schedule = ConstantSparsity(0.8, 0, 12, frequency=4)
    pruned = compiled(prune_low_magnitude(classifier(), schedule, criterion=RigL(end_step=12)))
    before = np.array(ops.convert_to_numpy(pruned.layers[0].kernel))
    history = pruned.fit(
        x, y, batch_size=16, epochs=2, verbose=0, callbacks=[UpdatePruningStep(PruningEvidence((x, y), samples=32))]
    )
    assert history.history["sparsity"] == pytest.approx([0.8, 0.8], abs=0.005)
    small = strip_pruning(pruned)
    magnitude = np.abs(before) >= np.sort(np.abs(before), axis=None)[-np.count_nonzero(small.layers[0].kernel)]
    used = ops.convert_to_numpy(small.layers[0].kernel) != 0
    assert (used != magnitude).any()


def test_is_saved_and_loaded(tmp_path):
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.5), criterion=Regrow(Magnitude(), Random(3), 0.1, 7))
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    updaters = [transformed_weights(model)[0].transforms[0].updater for model in (pruned, loaded)]
    assert updaters[0] == updaters[1]
    assert updaters[1].criterion.grow == Random(3)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RigL(1.5), ValueError),
        (lambda: SET(end_step=0), ValueError),
        (lambda: SET(seed=-1), ValueError),
        (lambda: Regrow(drop=RigL()), TypeError),
        (lambda: Regrow(grow="gradient"), TypeError),
    ],
)
def test_wrong_settings_are_refused(make, error):
    with pytest.raises(error):
        make()
