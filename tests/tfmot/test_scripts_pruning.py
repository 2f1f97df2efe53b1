"""Scripts in the style of TFMOT's guides and examples of pruning: what they call, in their order, on small data."""

import os
import tempfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_mot as tfmot
from keras_mot.sparsity import pruning_report
from tests.tfmot.small import LOSS, baseline, digits, kernels, only_tensorflow, results_of, trained

prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
X = np.random.default_rng(1).standard_normal((4, 20)).astype("float32")
Y = np.array([0, 3, 1, 2])


def sparsities(model):
    return {name: round(float((kernel == 0).mean()), 2) for name, kernel in kernels(model).items()}


def test_guide_of_a_first_model(tmp_path):
    """Prunes a whole model as it trains, writes summaries, strips it and saves both."""
    images, labels = digits()
    model = baseline()
    end_step = np.ceil(len(images) / 32).astype(np.int32) * 2
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=end_step
    )
    pruned = prune_low_magnitude(model, pruning_schedule=schedule)
    callbacks = [
        tfmot.sparsity.keras.UpdatePruningStep(),
        tfmot.sparsity.keras.PruningSummaries(log_dir=str(tmp_path / "logs")),
    ]
    trained(pruned, images, labels, epochs=2, validation_split=0.1, callbacks=callbacks)
    for_export = tfmot.sparsity.keras.strip_pruning(pruned)
    assert sparsities(for_export) == {"conv2d": 0.8, "dense": 0.8}
    for_export.save(tmp_path / "pruned.h5", include_optimizer=False)
    loaded = keras.models.load_model(tmp_path / "pruned.h5")
    np.testing.assert_allclose(results_of(loaded, images), results_of(pruned, images), rtol=1e-4, atol=1e-5)
    assert any("tfevents" in name for name in os.listdir(tmp_path / "logs" / "metrics"))


def small_dense(wrap=lambda layer: layer):
    return keras.Sequential([wrap(layers.Dense(20, input_shape=(20,), activation="softmax")), layers.Flatten()])


def apply_to_dense(layer):
    return prune_low_magnitude(layer) if isinstance(layer, layers.Dense) else layer


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_guide_of_everything(tmp_path):
    """Some layers by a clone function, by themselves, of one's own class; checkpoints; sizes without training."""
    base = small_dense()
    base.save_weights(tmp_path / "pretrained.weights.h5")
    base.load_weights(tmp_path / "pretrained.weights.h5")
    by_clone = keras.models.clone_model(base, clone_function=apply_to_dense)
    inputs = keras.Input((20,))
    functional = keras.Model(
        inputs, layers.Flatten()(prune_low_magnitude(layers.Dense(10, activation="softmax"))(inputs))
    )
    sequential = small_dense(prune_low_magnitude)

    class MyDense(layers.Dense, tfmot.sparsity.keras.PrunableLayer):
        def get_prunable_weights(self):
            return [self.kernel, self.bias]

    own = keras.Sequential(
        [prune_low_magnitude(MyDense(20, input_shape=(20,), activation="softmax")), layers.Flatten()]
    )
    blocks = prune_low_magnitude(small_dense(), block_size=[1, 4])
    trained(own, X, Y, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    for model, weights in ((by_clone, 1), (functional, 1), (sequential, 1), (own, 2), (blocks, 1)):
        assert model.built
        if model is not own:
            tfmot.sparsity.keras.update_pruning_step(model, 0)
        assert [row.sparsity for row in pruning_report(model).pruned] == [0.5] * weights
    with pytest.warns(UserWarning, match="has been pruned yet: it is stripped as it was"):
        stripped = tfmot.sparsity.keras.strip_pruning(prune_low_magnitude(base))
    np.testing.assert_array_equal(results_of(stripped, X), results_of(base, X))


def test_checkpoints_in_the_old_format(tmp_path):
    """`.h5` in the middle of training: masks come back, and what follows takes no zeros away.

    How far the schedule is does not come back, nor does the optimizer, which Keras does not bring back of plain models.
    """
    images, labels = digits()
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.2, 0.8, begin_step=0, end_step=6, frequency=1)
    pruned = trained(prune_low_magnitude(baseline(), schedule), images, labels)
    pruned.save(tmp_path / "model.h5", include_optimizer=True)
    pruned.save_weights(tmp_path / "model.weights.h5")
    with tfmot.sparsity.keras.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.h5")
    again = prune_low_magnitude(baseline(), schedule)
    again.load_weights(tmp_path / "model.weights.h5")
    for model in (loaded, again):
        np.testing.assert_allclose(results_of(model, images), results_of(pruned, images), rtol=1e-4, atol=1e-5)
        assert [row.sparsity for row in pruning_report(model).pruned] == [
            row.sparsity for row in pruning_report(pruned).pruned
        ]
    trained(loaded, images, labels, epochs=2)
    assert sparsities(tfmot.sparsity.keras.strip_pruning(loaded)) == {"conv2d": 0.8, "dense": 0.8}


@only_tensorflow
def test_guide_of_a_training_loop():
    import tensorflow as tf

    model = prune_low_magnitude(small_dense_built(), tfmot.sparsity.keras.ConstantSparsity(0.5, 0))
    loss, optimizer, unused = keras.losses.sparse_categorical_crossentropy, keras.optimizers.Adam(), -1
    model.optimizer = optimizer
    step_callback = tfmot.sparsity.keras.UpdatePruningStep()
    step_callback.set_model(model)
    log_dir = tempfile.mkdtemp()
    log_callback = tfmot.sparsity.keras.PruningSummaries(log_dir=log_dir)
    log_callback.set_model(model)
    step_callback.on_train_begin()
    for _ in range(2):
        log_callback.on_epoch_begin(epoch=unused)
        for _ in range(2):
            step_callback.on_train_batch_begin(batch=unused)
            with tf.GradientTape() as tape:
                value = loss(Y, model(X, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        step_callback.on_epoch_end(batch=unused)
    assert sparsities(tfmot.sparsity.keras.strip_pruning(model)) == {"dense": 0.5}
    assert os.listdir(os.path.join(log_dir, "metrics"))


def small_dense_built():
    return keras.Sequential([keras.Input((20,)), layers.Dense(20, activation="softmax", name="dense")])


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_guide_of_two_in_four():
    """Layer by layer, a first convolution of one channel among them; images without that axis; a single callback."""
    images, labels = digits()
    halves = {
        "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(target_sparsity=0.5, begin_step=0, frequency=100)
    }
    pairs = {"sparsity_m_by_n": (2, 4)}
    first = layers.Conv2D(8, 3, padding="same", activation="relu", input_shape=(8, 8, 1), name="first")
    model = keras.Sequential(
        [
            prune_low_magnitude(first, **halves),
            layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
            prune_low_magnitude(layers.Conv2D(8, 3, padding="same", name="second"), **pairs),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            prune_low_magnitude(layers.Dense(8, activation="relu", name="third"), **pairs),
            layers.Dropout(0.4),
            layers.Dense(4, activation="softmax", name="last"),
        ]
    )
    trained(model, images, labels, callbacks=tfmot.sparsity.keras.UpdatePruningStep())
    stripped = tfmot.sparsity.keras.strip_pruning(model)
    assert sparsities(stripped) == {"first": 0.5, "second": 0.5, "third": 0.5, "last": 0.0}
    groups = kernels(stripped)["third"].T.reshape(-1, 4)
    assert ((groups == 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize(("inputs", "zeros"), [(1, 0), (3, 1), (6, 2), (8, 4)])
def test_groups_that_do_not_divide(inputs, zeros):
    """The last group is filled up with zeros, which count: of six inputs, two of the first four, none of the others."""
    layer = layers.Dense(5, name="dense")
    layer.build((None, inputs))
    with pytest.warns(UserWarning, match="no multiple of 4") if inputs % 4 else pytest.MonkeyPatch.context():
        pruned = prune_low_magnitude(layer, sparsity_m_by_n=(2, 4))
    tfmot.update_step(pruned, 0)
    (row,) = pruning_report(pruned).pruned
    assert row.sparsity == pytest.approx(zeros / inputs)


def test_example_of_a_recurrent_network():
    sequences = np.random.default_rng(0).integers(1, 30, (32, 10))
    model = keras.models.Sequential()
    model.add(layers.Embedding(30, 8))
    model.add(layers.LSTM(8))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(1))
    model.add(layers.Activation("sigmoid"))
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.3, 0.7, begin_step=0, end_step=2, frequency=1)
    model = prune_low_magnitude(model, schedule)
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(
        sequences, np.arange(32) % 2, batch_size=16, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()]
    )
    assert all(row.sparsity == pytest.approx(0.7, abs=0.06) for row in pruning_report(model).pruned)
    assert len(pruning_report(model).pruned) == 4


def test_guide_of_latency_on_devices():
    """The policy refuses the first network, with the reason, and prunes what it allows of the second."""

    def network(**pooling):
        return keras.Sequential(
            [
                layers.InputLayer(shape=(16, 16, 3)),
                layers.ZeroPadding2D(padding=1),
                layers.Conv2D(filters=8, kernel_size=(3, 3), strides=(2, 2), padding="valid"),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.DepthwiseConv2D(kernel_size=(3, 3), padding="same"),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Conv2D(filters=16, kernel_size=(1, 1), name="point"),
                layers.ReLU(),
                layers.GlobalAveragePooling2D(**pooling),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )

    policy = {"pruning_policy": tfmot.sparsity.keras.PruneForLatencyOnXNNPack()}
    pruned = prune_low_magnitude(network(keepdims=True), **policy)
    assert [row.path for row in pruning_report(pruned).pruned] == ["point/kernel"]
    unsuited = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 1), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="Conv2D"):
        prune_low_magnitude(unsuited, **policy)


def test_example_of_attention():
    inputs = keras.Input((8, 8))
    outputs = layers.MultiHeadAttention(num_heads=2, key_dim=4, name="mha")(query=inputs, value=inputs)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Flatten()(outputs)))
    pruned = prune_low_magnitude(model, tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=0, frequency=100))
    trained(pruned, *digits(32), callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    assert [row.sparsity for row in pruning_report(pruned).pruned] == [0.75] * 5


def test_layers_without_weights_in_a_clone_function():
    """A clone function that prunes all layers, those without weights too, which are copied."""
    model = keras.models.clone_model(baseline(), clone_function=prune_low_magnitude)
    model.compile(loss=LOSS, optimizer="adam")
    model.fit(*digits(32), verbose=0)
    assert sparsities(tfmot.sparsity.keras.strip_pruning(model)) == {"conv2d": 0.5, "dense": 0.5}
