"""What stands in users' models beside composite layers: tables, own training steps, layers that are never called."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.clustering import cluster_weights, strip_clustering
from keras_mot.layers import transformed_weights
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude, strip_pruning, update_pruning_step

HALF = ConstantSparsity(0.5)
register = keras.saving.register_keras_serializable("wild_parts")


def _cycle(model, x, count, folder):
    """Pruned, saved, loaded, stripped, saved, loaded: what is predicted stays the same; then clustered."""
    pruned = prune_low_magnitude(model, HALF)
    assert len(transformed_weights(pruned)) == count
    _same(model, pruned, x)
    update_pruning_step(pruned, 0)
    for technique, changed in ((strip_pruning, pruned), (strip_clustering, cluster_weights(model, 3))):
        changed.save(folder / "changed.keras")
        loaded = keras.models.load_model(folder / "changed.keras")
        _same(changed, loaded, x)
        plain = technique(loaded)
        plain.save(folder / "plain.keras")
        _same(changed, keras.models.load_model(folder / "plain.keras"), x)


def _same(first, second, x):
    np.testing.assert_allclose(ops.convert_to_numpy(first(x)), ops.convert_to_numpy(second(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has strings")
@pytest.mark.parametrize("kind", ["text", "words"])
def test_tables_of_words(kind, tmp_path):
    import tensorflow as tf

    if kind == "text":
        table, shape, x = layers.TextVectorization(output_sequence_length=3), (), tf.constant(["a c", "b z a"])
        table.adapt(["a b", "c d"])
    else:
        table, shape, x = layers.StringLookup(vocabulary=["a", "b"]), (3,), tf.constant([["a", "b", "z"]])
    inputs = keras.Input(shape, dtype="string")
    outputs = layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 4)(table(inputs))))
    _cycle(keras.Model(inputs, outputs), x, 2, tmp_path)


def test_tables_of_numbers(tmp_path):
    words, number = keras.Input((2,), dtype="int32"), keras.Input((1,))
    known = layers.IntegerLookup(vocabulary=[3, 5, 7])(words)
    bins = layers.CategoryEncoding(3, output_mode="one_hot")(layers.Discretization([0.0, 1.0])(number))
    hashed = layers.Hashing(4)(words) if keras.backend.backend() == "tensorflow" else known
    embedded = layers.Flatten()(layers.Embedding(6, 4)(known) + layers.Embedding(6, 4)(hashed))
    model = keras.Model([words, number], layers.Dense(2)(layers.Concatenate()([embedded, bins])))
    _cycle(model, [np.array([[3, 9]]), np.array([[0.5]])], 3, tmp_path)


class Autoencoder(keras.Model):
    """A training step of its own in `compute_loss`, on every backend, and no `call`."""

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(self.decoder(self.encoder(x)) - x))


class Callable(Autoencoder):
    """The same with a `call`."""

    def call(self, inputs):
        return self.decoder(self.encoder(inputs))


def _parts():
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(4)], name="encoder")
    return encoder, keras.Sequential([keras.Input((4,)), layers.Dense(6)], name="decoder")


def test_a_model_with_its_own_training_step(rng):
    x = rng.normal(size=(8, 6)).astype("float32")
    model = Callable(*_parts())
    model(x)
    pruned = prune_low_magnitude(model, HALF)
    assert type(pruned.encoder.layers[0]).__mro__[2] is layers.Dense
    pruned.compile(keras.optimizers.SGD(0.01))
    pruned.fit(x, x, verbose=0)
    stripped = strip_pruning(pruned)
    assert type(stripped) is Callable
    assert [np.mean(ops.convert_to_numpy(v) == 0) for v in stripped.variables if v.name == "kernel"] == [0.5, 0.5]


def test_a_model_without_call_says_what_to_prune(rng):
    model = Autoencoder(*_parts())
    with pytest.raises(
        ValueError, match=r"no `call`.*`encoder` \(Sequential\).*prune_low_magnitude\(model\."
    ) as raised:
        prune_low_magnitude(model, HALF)
    assert "`decoder` (Sequential)" in str(raised.value)
    with pytest.raises(ValueError, match="cluster_weights"):
        cluster_weights(model, 3)


def test_layers_that_are_never_called_are_left_alone(tmp_path):
    @register
    class Spare(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.used, self.unused = layers.Dense(3), layers.Dense(9, name="unused")

        def call(self, inputs):
            return self.used(inputs)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Spare()(inputs))
    with pytest.warns(UserWarning, match="never called and have no weights, such as 'unused'"):
        _cycle(model, np.ones((2, 4)), 1, tmp_path)


def test_a_model_that_begins_with_the_input_of_one_within(tmp_path):
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, layers.Dense(3)(inputs), name="inner")
    _cycle(keras.Model(inputs, layers.Dense(2)(inner(inputs))), np.ones((2, 4)), 2, tmp_path)


def test_lora_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match="lora_rank"):
        prune_low_magnitude(layers.Dense(4, lora_rank=2), HALF)
    inputs = keras.Input((3, 4))
    model = prune_low_magnitude(keras.Model(inputs, layers.MultiHeadAttention(2, 2)(inputs, inputs)), HALF)
    for part in model.layers[1]._flatten_layers(include_self=False):
        if hasattr(part, "enable_lora"):
            with pytest.raises(ValueError, match="LoRA cannot be enabled"):
                part.enable_lora(2)
