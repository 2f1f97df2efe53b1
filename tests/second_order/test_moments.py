"""Second moments: in one pass, in graph order with what came before changed, and with a reference beside it."""

import contextlib
import types

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers import copy_model
from keras_mot.low_rank import FixedRank, factorize
from keras_mot.quantization import INT4_WEIGHTS, quantize_post_training
from keras_mot.second_order import gather_moments, largest_cut, matrices_of, visit_in_order
from keras_mot.sparsity import prune_at_once


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="first")(inputs)
    y = layers.Conv2D(3, 1, name="second")(x)
    x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(4, name="last")(x))


DATA = np.random.default_rng(0).normal(size=(10, 6, 6, 2)).astype("float32")
BATCHES = [DATA[:4], DATA[4:8], DATA[8:]]


def weights_of(model):
    return [each for layer in model.layers for each in matrices_of(layer)]


def inputs_of(model, name):
    part = keras.Model(model.input, model.get_layer(name).input)
    return ops.convert_to_numpy(part(DATA))


def test_one_pass_sums_over_batches(model):
    weights = weights_of(model)
    assert [weight.layer.name for weight in weights] == ["first", "second", "last"]
    first, second, last = gather_moments(model, weights, BATCHES)
    rows = inputs_of(model, "second").reshape(-1, 3)
    np.testing.assert_allclose(second.second[0], rows.T @ rows, rtol=1e-4)
    np.testing.assert_allclose(second.means[0], rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(second.centered().second[0], np.cov(rows.T, bias=True) * len(rows), rtol=1e-3, atol=1e-3)
    assert (first.count, second.count, last.count) == (360, 360, 10)
    assert second.cross is None


def test_in_order_each_kernel_sees_what_was_changed_before(model):
    changed = copy_model(model)
    weights, seen = weights_of(changed), {}

    def visit(weight, moments):
        seen[weight.layer.name] = moments
        kernel = ops.convert_to_numpy(weight.variable)
        weight.variable.assign(np.round(kernel, 1))

    visit_in_order(changed, weights, BATCHES, visit, reference=model, reference_weights=weights_of(model))
    assert list(seen) == ["first", "second", "last"]
    for name in seen:  # the model is now changed all through
        shape = (-1, seen[name].second.shape[-1])
        if name == "first":
            continue
        rows, before = inputs_of(changed, name).reshape(shape), inputs_of(model, name).reshape(shape)
        np.testing.assert_allclose(seen[name].second[0], rows.T @ rows, rtol=1e-4)
        np.testing.assert_allclose(seen[name].cross[0], rows.T @ before, rtol=1e-4)
        np.testing.assert_allclose(seen[name].first_crossed[0], before.sum(axis=0), rtol=1e-4)
        assert np.abs(rows - before).max() > 1e-3


def test_shared_layers_see_the_inputs_of_all_their_calls():
    keras.utils.set_random_seed(0)
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="last")(shared(shared(inputs))))
    data = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    rows = np.concatenate([data, ops.convert_to_numpy(shared(data))])
    seen = []
    visit_in_order(model, weights_of(model), [data], lambda weight, moments: seen.append(moments))
    np.testing.assert_allclose(seen[0].second[0], rows.T @ rows, rtol=1e-4)
    assert [moments.count for moments in seen] == [14, 7]


def test_moments_about_the_means(model):
    first, last = (gather_moments(model, weights_of(model), BATCHES)[-1] for _ in range(2))
    rows = inputs_of(model, "last")
    expected = np.cov(rows.T, bias=True) * len(rows)
    np.testing.assert_allclose(first.centered().second[0], expected, atol=1e-4)
    np.testing.assert_array_equal(first.second, last.second)  # as they were
    given = first.second
    centered = first.centered(consumed=True)
    assert centered.second is given
    np.testing.assert_allclose(centered.second[0], expected, atol=1e-4)
    np.testing.assert_array_equal(first.first, last.first)


@pytest.fixture
def progress(monkeypatch):
    """What progress bars show: a list of titles and steps, and one of whether each bar is shown."""
    steps, shown = [], []

    @contextlib.contextmanager
    def bar(show):
        shown.append(show)
        yield types.SimpleNamespace(add_task=lambda *task, total: steps.append((*task, total)), advance=steps.append)

    monkeypatch.setattr("keras_mot.second_order.moments.progress_bar", bar)
    return steps, shown


@pytest.mark.parametrize(
    ("run", "title"),
    [
        (lambda model, **options: prune_at_once(model, DATA, rounds=2, **options), "refitting"),
        (lambda model, **options: factorize(model, FixedRank(1), calibration_data=DATA, **options), "factorizing"),
        (lambda model, **options: quantize_post_training(model, INT4_WEIGHTS, DATA, **options), "rounding"),
    ],
)
def test_progress_can_be_switched_off(run, title, model, progress):
    steps, shown = progress
    run(model, progress=False)
    assert shown
    assert not any(shown)
    assert steps[0][0] == title


def test_progress_has_a_step_for_each_layer(model, progress):
    steps, shown = progress
    visit_in_order(model, weights_of(model), BATCHES, lambda weight, moments: None, title="rounding", progress=False)
    assert steps == [("rounding", 3), None, None, None]
    assert shown == [False]


def test_layers_within_others_are_seen():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 4))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    model = keras.Model(inputs, layers.Bidirectional(layers.LSTM(2))(x))
    data = np.random.default_rng(0).normal(size=(6, 3, 4)).astype("float32")
    weights = [each for layer in model._flatten_layers() for each in matrices_of(layer)]
    assert len(weights) == 9
    at_once = gather_moments(model, weights, [data])
    in_order = {}
    visit_in_order(model, weights, [data], lambda weight, moments: in_order.setdefault(id(weight), moments))
    assert len(in_order) == 9
    for weight, moments in zip(weights, at_once, strict=True):
        assert moments.count == 18
        np.testing.assert_allclose(in_order[id(weight)].second, moments.second, rtol=1e-4, atol=1e-5)
    assert not model.layers[-1].forward_layer.unroll


def test_a_reference_of_another_graph_is_refused(model):
    other = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3)])
    with pytest.raises(ValueError, match="copy of"):
        visit_in_order(model, weights_of(model), BATCHES, print, reference=other, reference_weights=weights_of(other))


def test_nan_names_the_layer(model):
    data = DATA.copy()
    data[0] = np.nan
    with pytest.raises(ValueError, match=r"first/kernel.*NaN"):
        visit_in_order(model, weights_of(model), [data], lambda weight, moments: None)
    with pytest.raises(ValueError, match=r"first/kernel.*NaN"):
        gather_moments(model, weights_of(model), [data])


def test_the_largest_cut_is_where_most_is_kept(model):
    # Behind the first convolution: its result, which the addition reads too, and that of the second.
    assert largest_cut(model) == 2 * 6 * 6 * 3 * 4
