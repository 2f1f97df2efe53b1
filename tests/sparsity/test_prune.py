"""`prune_low_magnitude` and `strip_pruning`: what they accept, select, refuse and leave unchanged."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_mot.layers import is_transformed, transformed_weights
from keras_mot.sparsity import (
    Block,
    Channel,
    ConstantSparsity,
    Criterion,
    NofM,
    PolynomialDecay,
    PruningConfig,
    PruningPolicy,
    PruningSchedule,
    Random,
    WholeModel,
    prune_low_magnitude,
    pruning_due,
    pruning_report,
    strip_pruning,
    update_pruning_step,
)
from tests.sparsity.models import batches, classifier, compiled, zeros

HALF = ConstantSparsity(0.5)


def shot(model, *arguments, **settings):
    """Pruned in one shot, without training, and stripped."""
    pruned = prune_low_magnitude(model, *arguments, **settings)
    update_pruning_step(pruned, steps=0)
    return strip_pruning(pruned)


def test_the_given_model_stays_as_it_is():
    model = classifier()
    before = [value.copy() for value in model.get_weights()]
    pruned = compiled(prune_low_magnitude(model, ConstantSparsity(0.9)))
    x, y = batches()
    pruned.fit(x, y, batch_size=16, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not any(is_transformed(layer) for layer in model.layers)


def test_nothing_is_pruned_before_training():
    model = classifier()
    x, _ = batches()
    np.testing.assert_allclose(prune_low_magnitude(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.875, 0.9, 0.99])
def test_each_layer_reaches_the_target_exactly(sparsity):
    sizes = [12 * 20, 20 * 16, 16 * 3]
    expected = [min(int(np.floor(size * sparsity + 0.5)), size - 1) for size in sizes]
    assert zeros(shot(classifier(), ConstantSparsity(sparsity))) == expected
    assert zeros(shot(classifier(), np.float64(sparsity))) == expected


def test_the_smallest_weights_go():
    model = classifier()
    kernel = np.arange(1, 241, dtype="float32").reshape(12, 20) * np.where(np.arange(240).reshape(12, 20) % 2, 1, -1)
    model.get_layer("first").kernel.assign(kernel)
    stripped = shot(model, ConstantSparsity(0.75))
    kept = keras.ops.convert_to_numpy(stripped.get_layer("first").kernel)
    np.testing.assert_array_equal(kept, np.where(np.abs(kernel) > 180, kernel, 0))


def test_whole_model_ranks_all_layers_together_and_keeps_a_floor():
    model = classifier()
    for name, scale in (("first", 1.0), ("second", 1e-3), ("head", 10.0)):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.sign(np.random.default_rng(1).random(kernel.shape) - 0.5) * scale)
    stripped = shot(model, ConstantSparsity(0.5), scope=WholeModel(min_density=0.1))
    # 608 weights, 304 kept: all 48 of the head, the floor of 32 in `second`, and 224 in `first`.
    assert zeros(stripped) == [240 - 224, 320 - 32, 0]


def test_blocks_channels_and_patterns():
    model = classifier()
    kernel = keras.ops.convert_to_numpy(shot(model, HALF, (1, 2)).get_layer("first").kernel).reshape(12, 10, 2)
    assert ((kernel[..., 0] == 0) == (kernel[..., 1] == 0)).all()
    kernel = keras.ops.convert_to_numpy(shot(model, sparsity_m_by_n=(2, 4)).get_layer("second").kernel).reshape(
        5, 4, 16
    )
    assert ((kernel == 0).sum(axis=1) == 2).all()
    kernel = keras.ops.convert_to_numpy(shot(model, HALF, granularity=Channel()).get_layer("second").kernel)
    assert sorted((kernel == 0).sum(axis=0).tolist()) == [0] * 8 + [20] * 8


@pytest.mark.parametrize(
    ("selector", "pruned"),
    [
        ("first", [0, 160, 24]),
        (re.compile("^(first|head)$"), [0, 160, 0]),
        (lambda layer: getattr(layer, "units", 0) == 16, [120, 0, 24]),
        ("model.get_layer('head')", [120, 160, 0]),
    ],
)
def test_layers_are_selected_by_regex_predicate_or_object(selector, pruned):
    model = classifier()
    if selector == "model.get_layer('head')":
        selector = model.get_layer("head")
    assert zeros(shot(model, HALF, overrides={selector: None})) == pruned


def test_layers_have_settings_of_their_own():
    overrides = {"head": None, layers.Dense: PruningConfig(ConstantSparsity(0.25), Block((2, 2)))}
    assert zeros(shot(classifier(), HALF, overrides=overrides)) == [60, 80, 0]


def test_a_policy_says_which_layers():
    class OnlyWide(PruningPolicy):
        def allow_pruning(self, layer):
            return layer.units > 10

    assert zeros(shot(classifier(), HALF, pruning_policy=OnlyWide())) == [120, 160, 0]


def test_lists_and_layers():
    model = classifier()
    first, second = prune_low_magnitude([model.get_layer("first"), model.get_layer("second")], HALF)
    assert first is not model.get_layer("first")
    assert isinstance(second, layers.Dense)
    assert len(transformed_weights(first)) == 1


def test_unbuilt_layers_are_pruned_once_they_are_built():
    pruned = prune_low_magnitude(layers.Dense(10), ConstantSparsity(0.9), input_shape=(12,))
    model = compiled(keras.Sequential([pruned, layers.Dense(3)]))
    x, y = batches()
    history = model.fit(x, y, batch_size=16, verbose=0).history
    assert history["sparsity"] == [108 / 120]
    assert zeros(strip_pruning(model)) == [108, 0]


def test_a_model_that_fit_builds_is_pruned():
    model = compiled(keras.Sequential([prune_low_magnitude(layers.Dense(10), ConstantSparsity(0.9)), layers.Dense(3)]))
    assert model.fit(*batches(), batch_size=16, verbose=0).history["sparsity"] == [108 / 120]
    assert zeros(strip_pruning(model)) == [108, 0]


def test_an_unbuilt_pruned_layer_survives_saving(tmp_path):
    model = keras.Sequential([prune_low_magnitude(layers.LSTM(4), HALF), layers.Dense(3)])
    model.build((None, 5, 6))
    model.save(tmp_path / "m.keras")
    assert len(transformed_weights(keras.models.load_model(tmp_path / "m.keras"))) == 2


def test_pruning_more_layers_later_leaves_the_first_as_they_are():
    once = prune_low_magnitude(classifier(), ConstantSparsity(0.9), overrides={"head": None})
    update_pruning_step(once, 0)
    twice = prune_low_magnitude(once, HALF)
    update_pruning_step(twice, 0)
    assert zeros(strip_pruning(twice)) == [216, 288, 24]
    with pytest.raises(ValueError, match="nothing to prune"):
        prune_low_magnitude(twice)


def test_inplace_changes_the_model_itself():
    model = classifier()
    pruned = prune_low_magnitude(model, HALF, inplace=True)
    assert pruned is model
    update_pruning_step(model, 0)
    assert strip_pruning(model, inplace=True) is model
    assert zeros(model) == [120, 160, 24]
    assert type(model.get_layer("first")) is layers.Dense


def test_a_model_that_cannot_be_rebuilt_says_so():
    class Needy(keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = layers.Dense(width.value)
            self.lines = (line for line in "ab")  # which cannot be copied either

        def call(self, inputs):
            return self.dense(inputs)

    class Width:
        value = 4

    model = Needy(Width())
    model(np.zeros((1, 12), "float32"))
    with pytest.raises(ValueError, match="`inplace=True`"):
        prune_low_magnitude(model)
    pruned = prune_low_magnitude(model, HALF, inplace=True)
    update_pruning_step(pruned, 0)
    assert zeros(strip_pruning(pruned, inplace=True)) == [24]


def test_the_report_names_what_is_pruned_and_what_is_not():
    pruned = prune_low_magnitude(classifier(), PolynomialDecay(0.5, 0.9, 0, 100), overrides={"head": None})
    update_pruning_step(pruned, 0)
    report = pruning_report(pruned)
    assert [(row.shape, row.zeros, row.target) for row in report.pruned] == [
        ((12, 20), 120, 0.9),
        ((20, 16), 160, 0.9),
    ]
    reasons = dict(report.left_alone)
    assert [reason for path, reason in reasons.items() if "norm" in path] == ["normalization parameters"]
    assert [reason for path, reason in reasons.items() if "head" in path] == ["not selected"]
    assert report.sparsity == 0.5
    assert "second/kernel" in str(report)


def test_unknown_layers_are_left_alone_with_a_warning():
    class Mine(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(input_shape[-1], 4), name="table")
            self.built = True

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.table)

    model = keras.Sequential([layers.Input((12,)), Mine(name="mine"), layers.Dense(3)])
    with pytest.warns(UserWarning, match="register_weights"):
        pruned = prune_low_magnitude(model, HALF)
    assert ("mine" in str(pruning_report(pruned).left_alone)) is True


def test_users_own_schedule_and_criterion():
    @keras.saving.register_keras_serializable("test_prune")
    @dataclasses.dataclass(frozen=True)
    class Once(PruningSchedule):
        at: int = 2

        def __call__(self, step):
            return keras.ops.equal(step, self.at), keras.ops.convert_to_tensor(0.25)

        def get_config(self):
            return {"at": self.at}

    @keras.saving.register_keras_serializable("test_prune")
    @dataclasses.dataclass(frozen=True)
    class KeepPositive(Criterion):
        def scores(self, weight, path, step):
            return np.maximum(weight, 0)

        def get_config(self):
            return {}

        @classmethod
        def from_config(cls, config):
            return cls()

    pruned = prune_low_magnitude(classifier(), Once(2), criterion=KeepPositive())
    assert [update_pruning_step(pruned) for _ in range(3)] == [False, True, False]
    assert pruning_report(pruned).sparsity == 0.25
    kernel = keras.ops.convert_to_numpy(strip_pruning(pruned).get_layer("first").kernel)
    assert (kernel > 0).sum() >= 100


def test_random_pruning_is_the_same_for_the_same_seed():
    kernels = [
        keras.ops.convert_to_numpy(shot(classifier(), HALF, criterion=Random(seed)).get_layer("first").kernel) == 0
        for seed in (1, 1, 2)
    ]
    assert (kernels[0] == kernels[1]).all()
    assert not (kernels[0] == kernels[2]).all()


def test_pruning_due_tells_before():
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.5, 2, frequency=3))
    for _ in range(9):
        assert pruning_due(pruned) == update_pruning_step(pruned)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pruning_schedule": "half"}, TypeError, "`schedule` should be a `PruningSchedule`"),
        ({"pruning_schedule": 50}, ValueError, "must be in range"),
        ({"block_size": (1, 50)}, ValueError, "larger than weight 'sequential.*/first/kernel'"),
        ({"block_pooling_type": "MEAN"}, ValueError, "Unsupported pooling type 'MEAN'"),
        ({"sparsity_m_by_n": (2, 5)}, ValueError, "need a multiple of 5 inputs"),
        ({"sparsity_m_by_n": (4, 4)}, ValueError, "0 < zeros < group"),
        ({"sparsity_m_by_n": 2}, ValueError, "two integers"),
        ({"sparsity_m_by_n": (2, 4), "block_size": (1, 2)}, ValueError, "at most one of"),
        ({"sparsity_m_by_n": (2, 4), "scope": WholeModel()}, ValueError, "cannot be combined"),
        ({"granularity": NofM}, TypeError, "`granularity` should be"),
        ({"criterion": "magnitude"}, TypeError, "`criterion` should be"),
        ({"overrides": {"frist": None}}, ValueError, "No layer with transformable weights matches 'frist'"),
        ({"overrides": {"first": 0.5}}, TypeError, "should be a `PruningConfig`"),
        ({"overrides": ["first"]}, TypeError, "should be a dictionary"),
        ({"overrides": {3: None}}, TypeError, "A selector should be"),
        ({"overrides": {layers.Dense: None}}, ValueError, "nothing to prune"),
        ({"pruning_policy": "xnnpack"}, TypeError, "`pruning_policy`"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, error, message):
    model = classifier()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        prune_low_magnitude(model, **arguments)
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))
    assert not any(is_transformed(layer) for layer in model.layers)


class Plain(keras.Model):
    """A subclassed model that was not called yet."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model", TypeError, "expects a Keras 3 model or layer"),
        (lambda: None, TypeError, "expects a Keras 3 model or layer"),
        (lambda: [], ValueError, "empty list"),
        (lambda: Plain(), ValueError, "needs a built model"),
        (lambda: keras.Sequential([layers.ReLU()]), ValueError, "nothing to prune"),
        (lambda: keras.Sequential([layers.Input((3,)), layers.ReLU()]), ValueError, "nothing to prune"),
        (
            lambda: keras.Sequential([layers.Input((3,)), layers.BatchNormalization()]),
            ValueError,
            "nothing to prune",
        ),
        (lambda: [layers.Flatten(), layers.ReLU()], ValueError, "nothing to prune in the layers"),
    ],
)
def test_what_cannot_be_pruned_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        prune_low_magnitude(make())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights_are_named(bad):
    model = classifier()
    kernel = keras.ops.convert_to_numpy(model.get_layer("second").kernel).copy()
    kernel[3, 4] = bad
    model.get_layer("second").kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"second/kernel' contains NaN or infinite"):
        prune_low_magnitude(model)


def test_divergence_in_training_is_named():
    pruned = prune_low_magnitude(classifier(), HALF)
    kernel = pruned.get_layer("second").kernel
    kernel.assign(keras.ops.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"second/kernel.*diverged"):
        update_pruning_step(pruned, 0)


def test_stripping_too_early_or_the_wrong_thing_is_refused():
    with pytest.raises(ValueError, match="Nothing has been pruned yet after 0 training steps"):
        strip_pruning(prune_low_magnitude(classifier()))
    late = prune_low_magnitude(classifier(), ConstantSparsity(0.5, begin_step=10))
    update_pruning_step(late, 5)
    with pytest.raises(ValueError, match="after 5 training steps"):
        strip_pruning(late)
    with pytest.raises(ValueError, match="no pruned weights"):
        strip_pruning(classifier())
    with pytest.raises(TypeError, match="expects a Keras 3 model"):
        strip_pruning("model")
    with pytest.raises(ValueError, match="follow a schedule"):
        update_pruning_step(classifier())


def test_stripping_before_the_schedule_ends_warns():
    pruned = prune_low_magnitude(classifier(), PolynomialDecay(0.5, 0.9, 0, 100, frequency=10))
    update_pruning_step(pruned, 20)
    with pytest.warns(
        UserWarning, match=r"below the schedule's final 0\.900 of step 100: the last update was at step 20"
    ):
        strip_pruning(pruned)


def test_lists_pass_layers_without_weights_through_and_take_overrides():
    first, flat, second = layers.Dense(4), layers.Flatten(), layers.Dense(3)
    first.build((None, 12))
    second.build((None, 4))
    pruned = prune_low_magnitude([first, flat, second], HALF, overrides={second: None})
    assert [len(transformed_weights(layer)) for layer in pruned] == [1, 0, 0]


@pytest.mark.parametrize(
    "make", [lambda: layers.Bidirectional(layers.LSTM(4)), lambda: layers.TimeDistributed(layers.Dense(4))]
)
def test_unbuilt_composites_are_pruned_once_they_are_built(make):
    model = keras.Sequential([layers.Input((5, 6)), prune_low_magnitude(make(), HALF)])
    update_pruning_step(model, 0)
    assert pruning_report(model).sparsity == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sparsity_m_by_n": (2, 5)}, "multiple of 5 inputs"), ({"block_size": (1, 50)}, "larger than")],
)
def test_unbuilt_layers_that_turn_out_not_to_fit_are_named(settings, message):
    pruned = prune_low_magnitude(layers.Dense(4), HALF, **settings)
    with pytest.raises(ValueError, match=message):
        keras.Sequential([layers.Input((12,)), pruned])


def test_overrides_and_input_shape_need_the_right_layers():
    with pytest.raises(ValueError, match="whose weights exist"):
        prune_low_magnitude(layers.Dense(4), HALF, overrides={layers.Dense: None})
    with pytest.raises(ValueError, match="not built; 'sequential"):
        prune_low_magnitude(classifier(), input_shape=(12,))


def test_a_floor_that_forbids_the_target_is_refused():
    with pytest.raises(ValueError, match=r"0\.99 over the whole model cannot be reached .*min_density=0\.02"):
        prune_low_magnitude(classifier(), ConstantSparsity(0.99), scope=WholeModel())


def test_criteria_must_not_be_negative_or_of_another_shape():
    class Signed(Criterion):
        def scores(self, weight, path, step):
            return weight

        def get_config(self):
            return {}

    class Flat(Signed):
        def scores(self, weight, path, step):
            return np.abs(weight).reshape(-1)

    for criterion in (Signed(), Flat()):
        with pytest.raises(ValueError, match="without negative numbers"):
            update_pruning_step(prune_low_magnitude(classifier(), HALF, criterion=criterion), 0)


def test_a_plain_class_of_schedule_ranks_a_loaded_model_together(tmp_path):
    @keras.saving.register_keras_serializable("test_prune")
    class Plain(PruningSchedule):
        def __init__(self, sparsity):
            self.sparsity = sparsity

        def __call__(self, step):
            return True, self.sparsity

        def get_config(self):
            return {"sparsity": self.sparsity}

    pruned = prune_low_magnitude(classifier(), Plain(0.5), scope=WholeModel())
    pruned.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for model in (pruned, loaded):
        update_pruning_step(model, 0)
    assert pruning_report(pruned) == pruning_report(loaded)
    assert len({row.sparsity for row in pruning_report(loaded).pruned}) == 3


def test_the_update_before_the_first_step_is_made_once():
    pruned = prune_low_magnitude(classifier(), ConstantSparsity(0.5, frequency=100))
    assert pruning_due(pruned, 0)
    assert update_pruning_step(pruned, 0)
    assert not pruning_due(pruned)
    assert not update_pruning_step(pruned)


def test_stripping_a_model_whose_masks_were_overwritten_warns():
    pruned = prune_low_magnitude(classifier(), HALF)
    before = pruned.get_weights()
    update_pruning_step(pruned, 0)
    pruned.set_weights(before)
    with pytest.warns(UserWarning, match=r"stripped at sparsity 0\.000"):
        strip_pruning(pruned)


def test_a_fitted_model_changed_in_place_must_be_compiled_again():
    model = compiled(classifier())
    x, y = batches(2)
    model.fit(x, y, verbose=0)
    before = model.predict(x, verbose=0)
    prune_low_magnitude(model, ConstantSparsity(0.9), inplace=True)
    update_pruning_step(model, 0)
    assert not model.compiled
    assert np.abs(model.predict(x, verbose=0) - before).max() > 1e-3
    np.testing.assert_allclose(model.predict(x, verbose=0), keras.ops.convert_to_numpy(model(x)), atol=1e-5)


def test_a_predicate_that_fails_is_explained():
    inner = keras.Sequential([layers.Input((12,)), layers.Dense(8)], name="inner")
    model = keras.Sequential([layers.Input((12,)), inner])
    with pytest.raises(ValueError, match="begin it with an `isinstance` test"):
        prune_low_magnitude(model, overrides={lambda layer: layer.units == 8: None})


@pytest.mark.parametrize(
    ("steps", "error"), [(2.5, TypeError), ("3", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError)]
)
def test_a_wrong_number_of_steps_is_refused_and_changes_nothing(steps, error):
    pruned = prune_low_magnitude(classifier(), HALF)
    for function in (update_pruning_step, pruning_due):
        with pytest.raises(error, match="`steps`"):
            function(pruned, steps)
    assert update_pruning_step(pruned)
    assert {row.step for row in pruning_report(pruned).pruned} == {1}


@pytest.mark.parametrize(
    ("answer", "error"), [((True, 1.5), ValueError), ((True, -0.3), ValueError), (True, TypeError), (None, TypeError)]
)
def test_a_schedules_answer_is_checked(answer, error):
    class Odd(PruningSchedule):
        def __call__(self, step):
            return answer

        def get_config(self):
            return {}

    with pytest.raises(error, match="Odd"):
        update_pruning_step(prune_low_magnitude(classifier(), Odd()), 0)


def test_a_layer_twice_in_a_list_stays_one():
    layer = layers.Dense(4)
    layer.build((None, 12))
    first, second = prune_low_magnitude([layer, layer], HALF)
    assert first is second


def test_nothing_is_left_in_torchs_state(backend):
    if backend != "torch":
        pytest.skip("PyTorch alone keeps lists of parameters")
    pruned = compiled(prune_low_magnitude(classifier(), HALF))
    pruned.fit(*batches(2), verbose=0)
    for stripped in (strip_pruning(pruned), strip_pruning(pruned, inplace=True)):
        stripped(np.zeros((1, 12), "float32"))
        assert not [name for name in stripped.state_dict() if "mask" in name]


def test_weights_of_one_channel_are_left_alone_but_where_they_are_asked_for():
    inputs = keras.Input((6,))
    gate = keras.layers.Dense(1, "sigmoid", name="gate")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, name="sum")(inputs) * gate)
    pruned = prune_low_magnitude(model, HALF, granularity=Channel())
    assert [weight.owner.name for weight in transformed_weights(pruned)] == ["sum"]
    config = PruningConfig(HALF, Channel())
    for refused in (
        lambda: prune_low_magnitude(model.get_layer("gate"), HALF, granularity=Channel()),
        lambda: prune_low_magnitude(model, HALF, overrides={"gate": config}),
    ):
        with pytest.raises(ValueError, match="nothing to choose"):
            refused()
