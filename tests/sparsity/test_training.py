"""However a model is trained, it reaches the same sparsity, and its checkpoints have it."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.layers import transformed_weights
from keras_mot.sparsity import (
    ConstantSparsity,
    PolynomialDecay,
    PruningSummaries,
    UpdatePruningStep,
    prune_low_magnitude,
    pruning_due,
    pruning_report,
    strip_pruning,
    update_pruning_step,
)
from tests.devices import run_on_two_devices
from tests.sparsity.models import batches, classifier, compiled, zeros

STEPS = 11
SCHEDULE = PolynomialDecay(0.2, 0.9, 1, STEPS - 1, frequency=4)  # the last step is no multiple of the frequency
FINAL = [216, 288, 43]


def pruned_model(**settings):
    return compiled(prune_low_magnitude(classifier(), SCHEDULE), **settings)


@pytest.mark.parametrize(
    "callbacks", [None, [], [UpdatePruningStep], [keras.callbacks.TerminateOnNaN, UpdatePruningStep]]
)
def test_fit_with_and_without_the_callback(callbacks):
    model = pruned_model()
    made = None if callbacks is None else [make() for make in callbacks]
    history = model.fit(*batches(STEPS), batch_size=16, verbose=0, callbacks=made).history
    assert history["sparsity"] == [pytest.approx(sum(FINAL) / 608)]
    assert zeros(strip_pruning(model)) == FINAL


@pytest.mark.parametrize(
    "settings",
    [
        {"steps_per_execution": 3},
        {"steps_per_execution": 50},
        {"run_eagerly": True},
        {"jit_compile": True},
        {"jit_compile": False},
    ],
    ids=str,
)
def test_fit_under_every_setting(settings, backend):
    if backend == "torch" and settings.get("jit_compile"):
        pytest.skip("`jit_compile=True` needs a C++ compiler and minutes on PyTorch")
    if backend == "torch" and "steps_per_execution" in settings:
        pytest.skip("Keras itself does not support `steps_per_execution` on PyTorch")
    model = pruned_model(**settings)
    model.fit(*batches(STEPS), batch_size=16, verbose=0)
    assert zeros(strip_pruning(model)) == FINAL


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_fit_in_other_precisions(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = pruned_model()
        model.fit(*batches(STEPS), batch_size=16, verbose=0)
        assert zeros(strip_pruning(model)) == FINAL
    finally:
        keras.config.set_dtype_policy("float32")


def test_fit_with_gradient_accumulation():
    model = prune_low_magnitude(classifier(), SCHEDULE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2), loss)
    model.fit(*batches(STEPS), batch_size=16, verbose=0)
    assert zeros(strip_pruning(model)) == FINAL


def test_fit_from_a_generator_over_several_epochs():
    model = pruned_model()
    x, y = batches(4)
    model.fit(
        ((x[i : i + 16], y[i : i + 16]) for _ in range(9) for i in range(0, 64, 16)),
        steps_per_epoch=4,
        epochs=3,
        verbose=0,
    )
    report = pruning_report(model)
    assert {row.step for row in report.pruned} == {12}
    assert [row.zeros for row in report.pruned] == FINAL


def test_train_on_batch_and_one_call():
    model = pruned_model()
    x, y = batches(STEPS)
    for step in range(STEPS):
        model.train_on_batch(x[step * 16 :][:16], y[step * 16 :][:16])
        update_pruning_step(model)
    assert zeros(strip_pruning(model)) == FINAL


def test_a_loop_written_for_tfmot():
    """Calls `on_train_batch_begin` and `on_epoch_end` alone, with useless indices, as TFMOT's guide does."""
    model = pruned_model()
    x, y = batches(STEPS)
    callback = UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    for _ in range(1):
        for step in range(STEPS):
            callback.on_train_batch_begin(batch=-1)
            model.train_on_batch(x[step * 16 :][:16], y[step * 16 :][:16])
        callback.on_epoch_end(batch=-1)
    assert {row.step for row in pruning_report(model).pruned} == {STEPS}
    assert zeros(strip_pruning(model)) == FINAL


def test_a_loop_that_forgets_to_begin_is_told():
    callback = UpdatePruningStep()
    callback.set_model(pruned_model())
    with pytest.raises(ValueError, match="on_train_begin"):
        callback.on_train_batch_begin(0)


def test_the_callback_on_a_plain_model_is_refused():
    with pytest.raises(ValueError, match="without pruned layers"):
        compiled(classifier()).fit(*batches(1), verbose=0, callbacks=[UpdatePruningStep()])


def test_a_custom_loop_of_the_backend(backend):
    model = prune_low_magnitude(classifier(), SCHEDULE)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.05)
    optimizer.build(model.trainable_variables)
    x, y = batches(STEPS)
    loop = {"tensorflow": _tensorflow_loop, "jax": _jax_loop, "torch": _torch_loop}[backend]
    loop(model, optimizer, loss_function, [(x[s * 16 :][:16], y[s * 16 :][:16]) for s in range(STEPS)])
    assert zeros(strip_pruning(model)) == FINAL


def _tensorflow_loop(model, optimizer, loss_function, data):
    import tensorflow as tf

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    for x, y in data:
        train_step(x, y)
        update_pruning_step(model)


def _torch_loop(model, optimizer, loss_function, data):
    for x, y in data:
        model.zero_grad()
        loss_function(ops.convert_to_tensor(y), model(x, training=True)).backward()
        gradients = [variable.value.grad for variable in model.trainable_variables]
        import torch

        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_variables)
        update_pruning_step(model)


def _jax_loop(model, optimizer, loss_function, data):
    import jax

    def loss_and_state(trainable, non_trainable, x, y):
        predictions, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)
        return loss_function(y, predictions), non_trainable

    @jax.jit
    def train_step(trainable, non_trainable, optimizer_state, x, y):
        (_, non_trainable), gradients = jax.value_and_grad(loss_and_state, has_aux=True)(trainable, non_trainable, x, y)
        trainable, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, trainable)
        return trainable, non_trainable, optimizer_state

    groups = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    state = [[variable.value for variable in group] for group in groups]
    for x, y in data:
        state = train_step(*state, x, y)
        due = pruning_due(model)
        if due:
            for group, values in zip(groups, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)
        assert update_pruning_step(model) == due
        if due:
            state = [[variable.value for variable in group] for group in groups]
    for variable, value in zip(model.trainable_variables, state[0], strict=True):
        variable.assign(value)


class _SaveEvery(keras.callbacks.Callback):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.logged = {}

    def on_train_batch_end(self, batch, logs=None):
        self.model.save(self.folder / f"{batch}.keras")
        self.logged[batch] = logs["sparsity"]


@pytest.mark.parametrize("position", [0, 1])
def test_every_checkpoint_has_its_full_sparsity_whatever_the_order(position, tmp_path):
    model = compiled(prune_low_magnitude(classifier(), PolynomialDecay(0.5, 0.9, 0, STEPS, frequency=1)))
    saver = _SaveEvery(tmp_path)
    callbacks = [UpdatePruningStep()]
    callbacks.insert(position, saver)
    model.fit(*batches(STEPS), batch_size=16, verbose=0, callbacks=callbacks)
    for batch in (0, 4, STEPS - 1):
        loaded = keras.models.load_model(tmp_path / f"{batch}.keras")
        sparsity = PolynomialDecay(0.5, 0.9, 0, STEPS)(batch + 1)[1]
        expected = [int(np.floor(size * sparsity + 0.5)) for size in (240, 320, 48)]
        with pytest.warns() if batch < STEPS - 1 else contextlib.nullcontext():
            assert zeros(strip_pruning(loaded)) == expected
        assert saver.logged[batch] == pytest.approx(sum(expected) / 608)


class _SaveAtEveryMoment(keras.callbacks.Callback):
    def __init__(self, folder):
        super().__init__()
        self.folder, self.moments = folder, set()

    def _save(self, moment):
        if moment not in self.moments:
            self.moments.add(moment)
            self.model.save(self.folder / f"{moment}.keras")


def _saving(moment):
    return lambda self, *args, **kwargs: self._save(moment)


for _moment in ("train_begin", "epoch_begin", "train_batch_begin", "train_batch_end", "test_begin", "test_batch_end"):
    setattr(_SaveAtEveryMoment, f"on_{_moment}", _saving(_moment))


def test_a_checkpoint_of_any_moment_has_the_sparsity_of_its_step(tmp_path):
    model = compiled(prune_low_magnitude(classifier(), ConstantSparsity(0.75, 0, frequency=5)))
    saver = _SaveAtEveryMoment(tmp_path)
    data = batches(STEPS)
    model.fit(*data, batch_size=16, verbose=0, callbacks=[saver, UpdatePruningStep()], validation_data=data)
    assert len(saver.moments) == 6
    for moment in saver.moments:
        assert zeros(strip_pruning(keras.models.load_model(tmp_path / f"{moment}.keras"))) == [180, 240, 36], moment


def test_loggers_and_the_progress_bar_show_the_sparsity(tmp_path, capsys):
    model = pruned_model()
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    model.fit(*batches(STEPS), batch_size=16, verbose=1, callbacks=[logger])
    header, row = ((tmp_path / "log.csv").read_text().splitlines())[:2]
    logged = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(logged["sparsity"]) == pytest.approx(sum(FINAL) / 608)
    assert "sparsity: 0.89" in capsys.readouterr().out


def test_training_in_two_halves_equals_training_at_once(tmp_path):
    x, y = batches(2 * STEPS)
    half = STEPS * 16
    schedule = PolynomialDecay(0.1, 0.9, 2, 2 * STEPS - 3, frequency=4)
    start = classifier()

    def fresh():
        return compiled(prune_low_magnitude(start, schedule))

    whole = fresh()
    whole.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    first = fresh()
    first.fit(x[:half], y[:half], batch_size=16, verbose=0, shuffle=False)
    first.save(tmp_path / "half.keras")
    second = keras.models.load_model(tmp_path / "half.keras")
    second.fit(x[half:], y[half:], batch_size=16, verbose=0, shuffle=False)
    for a, b in zip(transformed_weights(whole), transformed_weights(second), strict=True):
        masks = [ops.convert_to_numpy(weight.transforms[0].mask) for weight in (a, b)]
        np.testing.assert_array_equal(*masks)
        assert a.transforms[0].step == b.transforms[0].step == 2 * STEPS
    for a, b in zip(whole.get_weights(), second.get_weights(), strict=True):
        if a.dtype == bool:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_weights_files_carry_masks_and_progress(tmp_path):
    model = pruned_model()
    model.fit(*batches(STEPS), batch_size=16, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other = prune_low_magnitude(classifier(), SCHEDULE)
    other.load_weights(tmp_path / "m.weights.h5")
    assert pruning_report(other) == pruning_report(model)


def test_regularizers_penalise_the_weights_in_use():
    model = keras.Sequential([layers.Input((12,)), layers.Dense(20, kernel_regularizer=keras.regularizers.L2(0.1))])
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5))
    update_pruning_step(pruned, 0)
    expected = 0.1 * np.square(ops.convert_to_numpy(strip_pruning(pruned).layers[0].kernel)).sum()
    assert float(pruned.losses[0]) == pytest.approx(expected, rel=1e-5)
    pruned.compile(keras.optimizers.SGD(1.0), "mse")
    before = ops.convert_to_numpy(pruned.layers[0].kernel).copy()
    pruned.train_on_batch(np.zeros((4, 12), "float32"), np.zeros((4, 20), "float32"))
    after = ops.convert_to_numpy(pruned.layers[0].kernel)
    mask = ops.convert_to_numpy(transformed_weights(pruned)[0].transforms[0].mask)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    np.testing.assert_allclose(after[mask], 0.8 * before[mask], rtol=1e-5)


def test_losses_and_statistics_pass_through():
    """Batch-norm statistics move, dropout drops, and `add_loss` inside a transformed composite arrives."""

    @keras.saving.register_keras_serializable("test_training")
    class Noisy(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(8)
            self.norm = layers.BatchNormalization()
            self.dropout = layers.Dropout(0.9, seed=1)

        def build(self, input_shape):
            self.dense.build(input_shape)
            self.norm.build((None, 8))
            self.built = True

        def call(self, inputs, training=False):
            x = self.norm(self.dense(inputs), training=training)
            self.add_loss(7.0 * ops.mean(ops.ones_like(x)))
            return self.dropout(x, training=training)

    inputs = keras.Input((12,))
    pruned = prune_low_magnitude(keras.Model(inputs, Noisy()(inputs)), ConstantSparsity(0.5))
    x = np.ones((16, 12), "float32") * 3
    dropped = ops.convert_to_numpy(
        pruned(x + np.random.default_rng(0).random((16, 12)).astype("float32"), training=True)
    )
    assert [float(loss) for loss in pruned.losses] == [7.0]
    assert 0.8 < (dropped == 0).mean() < 1
    pruned.compile("sgd", "mse")
    moving = next(variable for variable in pruned.variables if variable.name == "moving_mean")
    before = ops.convert_to_numpy(moving).copy()
    loss = pruned.train_on_batch(x, np.zeros((16, 8), "float32"))
    assert float(loss) >= 7.0
    assert np.abs(ops.convert_to_numpy(moving) - before).max() > 1e-3


def test_summaries_are_written_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = pruned_model()
    model.fit(*batches(STEPS), batch_size=16, verbose=0, callbacks=[PruningSummaries(tmp_path)])
    events = EventAccumulator(str(tmp_path / "metrics")).Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("sparsity/")}
    assert len(tags) == 3
    assert events.Scalars("epoch_sparsity")[0].value == pytest.approx(sum(FINAL) / 608)


@pytest.mark.parametrize("log_dir", ["", None, 3])
def test_summaries_need_a_folder(log_dir):
    with pytest.raises(ValueError, match="log_dir"):
        PruningSummaries(log_dir)


def test_summaries_do_not_take_a_file_for_a_folder(tmp_path):
    (tmp_path / "log").write_text("")
    with pytest.raises(ValueError, match="`log_dir` should be a directory"):
        PruningSummaries(tmp_path / "log")


TRAIN = """
import tempfile
model = compiled_on_devices(lambda: classifier(), lambda start: prune_low_magnitude(start, SCHEDULE))
model.fit(*batches(STEPS), batch_size=16, verbose=0)
assert zeros(strip_pruning(model)) == FINAL, zeros(strip_pruning(model))
path = tempfile.mkdtemp() + "/m.keras"
model.save(path)
assert zeros(strip_pruning(keras.models.load_model(path))) == FINAL
"""


def test_two_devices():
    """`MirroredStrategy` over two logical CPUs, `DataParallel` over two host devices."""
    run_on_two_devices("from tests.sparsity.test_training import *", TRAIN)


def test_validation_sees_what_is_saved():
    """The update after an epoch's last step comes before the validation, also without other callbacks."""
    x, y = batches(STEPS)
    model = compiled(prune_low_magnitude(classifier(), PolynomialDecay(0.2, 0.9, 0, STEPS, frequency=STEPS)))
    history = model.fit(x, y, batch_size=16, verbose=0, validation_data=(x, y)).history
    assert history["val_loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True)["loss"], rel=1e-4)
    assert [row.zeros for row in pruning_report(model).pruned] == FINAL


def test_a_run_that_was_cut_short_resumes_where_it_was(tmp_path):
    """`BackupAndRestore` loads its checkpoint after training has begun."""
    x, y = batches(STEPS)
    schedule = PolynomialDecay(0.2, 0.9, 0, 2 * STEPS - 1, frequency=3)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def run(*callbacks):
        model = compiled(prune_low_magnitude(classifier(), schedule))
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[backup, *callbacks])
        return model

    with pytest.raises(KeyboardInterrupt):
        run(Interrupt())
    report = pruning_report(run())
    assert {row.step for row in report.pruned} == {2 * STEPS}
    assert [row.zeros for row in report.pruned] == FINAL


def test_early_stopping_restores_masks_and_stripping_says_so():
    x, y = batches(STEPS)
    model = compiled(prune_low_magnitude(classifier(), PolynomialDecay(0.2, 0.9, 0, 5 * STEPS, frequency=5)))

    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["worse"] = float(epoch)

    stopping = keras.callbacks.EarlyStopping("worse", patience=1, restore_best_weights=True, mode="min")
    model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[Worse(), stopping])
    measured = pruning_report(model).sparsity
    with pytest.warns(UserWarning, match=f"stripped at sparsity {measured:.3f}"):
        assert sum(zeros(strip_pruning(model))) == pytest.approx(measured * 608)
