"""Tests of `open_model`: layers that are made of others, replaced by these."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot.graph.kinds import is_kind, kind_of
from keras_mot.graph.opening import open_model
from keras_mot.graph.rewrite import flatten_with_origins, operations_of
from tests.layers.user_models import COMPOSITES, inputs_of


class ClassToken(layers.Layer):
    """A token before all others, and positions: computed with the size of the batch."""

    def build(self, input_shape):
        width = input_shape[-1]
        self.token = self.add_weight(shape=(1, 1, width), initializer="random_normal", name="token")
        self.positions = self.add_weight(shape=(1, input_shape[1] + 1, width), initializer="random_normal", name="rows")

    def call(self, inputs):
        size, length, width = ops.shape(inputs)
        token = ops.broadcast_to(self.token, (size, 1, width))
        return ops.reshape(ops.concatenate([token, inputs], axis=1) + self.positions, (size, (length + 1) * width))


class MaskedWindows(layers.Layer):
    """Scores within the windows of images, which stand in the batch, with a mask that has a row for each window."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs, mask=None):
        size, length, _ = ops.shape(inputs)
        rows = self.dense(inputs)
        scores = ops.matmul(rows, ops.transpose(rows, (0, 2, 1)))
        windows = ops.shape(mask)[0]
        scores = ops.reshape(scores, (size // windows, windows, length, length)) + mask[None]
        return ops.matmul(ops.softmax(ops.reshape(scores, (-1, length, length))), rows)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


class Heads(layers.Layer):
    """What leaves sizes open between reshapes that say the size of the batch."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.projection = layers.EinsumDense("bsd,dkh->bskh", output_shape=(None, 2, 3))

    def build(self, input_shape):
        self.projection.build(input_shape)

    def call(self, inputs):
        heads = self.projection(inputs)
        pairs = ops.stack(ops.split(ops.concatenate([heads, -heads], axis=-1), 2, axis=-1), axis=-1)
        return ops.reshape(pairs, (*ops.shape(heads)[:-2], 12))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 12)


class Linear(layers.Layer):
    """Weights of its own, and `keras.ops`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], self.units), name="matrix")
        self.offset = self.add_weight(shape=(self.units,), initializer="random_normal", name="offset")

    def call(self, inputs):
        return ops.relu(ops.matmul(inputs, self.matrix) + self.offset)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)


class Convolutions(layers.Layer):
    """Kernels of its own, one of them computed, and a sum of products."""

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(shape=(3, 3, channels, 4), name="kernel")
        self.depthwise = self.add_weight(shape=(3, 3, 4, 1), name="depthwise")
        self.products = self.add_weight(shape=(4, 2, 3), name="products")

    def call(self, inputs):
        kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2), keepdims=True)
        x = ops.conv(inputs, kernel, strides=2, padding="same")
        x = ops.depthwise_conv(x, self.depthwise, padding="valid")
        return ops.einsum("bhwc,cdf->bhwdf", x, self.products)


class Pairs(layers.Layer):
    """Returns `None` beside its result."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs, training=None):
        return self.dense(inputs), None


class First(layers.Layer):
    """Takes the first of two results, and holds a layer that it never calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pairs, self.unused = Pairs(), layers.Dense(7)

    def call(self, inputs, training=None):
        return self.pairs(inputs, training=training)[0]

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


class Masked(layers.Layer):
    """Makes a mask, which a layer behind it reads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(10, 4, mask_zero=True)

    def call(self, inputs):
        return self.embedding(inputs) * 2.0

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)


class Looks(layers.Layer):
    """Looks at values."""

    def call(self, inputs):
        return inputs * 2 if float(ops.max(inputs)) > 0 else inputs

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class Draws(layers.Layer):
    """Draws numbers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, inputs):
        return inputs + keras.random.normal((1, 3), seed=self.seeds)


class Counts(layers.Layer):
    """Changes its own state."""

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs * 2.0


def functional(*parts, shape=(6,), dtype="float32"):
    x = inputs = keras.Input(shape, dtype=dtype)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def values(model, inputs):
    return ops.convert_to_numpy(model(inputs, training=False))


def assert_same(opened, model, data):
    flat, _ = flatten_with_origins(opened.model, opened.names)
    assert len({operation.name for operation in operations_of(flat)}) == len(operations_of(flat))
    for batch in (data, data[:1]) if isinstance(data, np.ndarray) else (data,):
        np.testing.assert_allclose(values(flat, batch), values(model, batch), rtol=1e-4, atol=1e-5)
    return flat


@pytest.mark.parametrize("name", COMPOSITES)
def test_nothing_is_left_but_what_has_a_kind(name, rng):
    model = COMPOSITES[name][0]()
    data = inputs_of(model, rng)
    opened = open_model(model)
    flat = assert_same(opened, model, data)
    assert not opened.closed
    known = (layers.MultiHeadAttention,)
    assert all(kind_of(each) is not None or isinstance(each, known) or not each.name for each in operations_of(flat))


def test_names_say_where_a_layer_is_and_origins_are_the_users_own():
    model = COMPOSITES["containers"][0]()
    composite = model.layers[0]
    opened = open_model(model)
    flat, origins = flatten_with_origins(opened.model, opened.names)
    (first,) = [each for each in operations_of(flat) if origins.of(each) is composite.blocks[0].first]
    assert first.name == f"{composite.name}_{composite.blocks[0].name}_{composite.blocks[0].first.name}"
    assert opened.layers_around(composite.blocks[0].first) == (composite, composite.blocks[0])
    assert composite.blocks[0].first.name.startswith("dense")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(ClassToken, (5, 4)), (lambda: Linear(4), (5, 6)), (Convolutions, (8, 8, 3)), (First, (6,))],
    ids=["batch size", "own weights", "own kernels", "returns None"],
)
def test_layers_of_many_kinds(layer, shape, rng):
    model = functional(layer(), layers.Flatten(), layers.Dense(2), shape=shape)
    opened = open_model(model)
    assert not opened.closed
    assert_same(opened, model, rng.standard_normal((3, *shape)).astype("float32"))


def test_own_weights_become_kernels():
    model = functional(Linear(4, name="first"), Linear(3))
    opened = open_model(model)
    flat, origins = flatten_with_origins(opened.model, opened.names)
    dense = [each for each in operations_of(flat) if is_kind(each, "dense")]
    assert [each.name for each in dense] == ["first_matmul", "linear_matmul"]
    assert origins.through(opened.origins).of(dense[0]) is model.layers[1]
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (dense[0].bias, model.layers[1].offset)))
    assert not opened.fixed  # what is trained stays so
    shared = Linear(6)
    again = open_model(functional(shared, shared))
    assert sum(is_kind(each, "dense") for each in operations_of(again.model)) == 1


class Regression(layers.Layer):
    """One number for each sample, and a bias without axes."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 1), name="matrix")
        self.offset = self.add_weight(shape=(), initializer="ones", name="offset")

    def call(self, inputs):
        return ops.matmul(inputs, self.matrix) + self.offset


class ColumnsAdded(layers.Layer):
    """Images with their channels first, as many as columns, and a number for each column."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(1, 1, input_shape[1], 5), name="kernel")
        self.columns = self.add_weight(shape=(5,), name="columns")

    def call(self, inputs):
        return ops.conv(inputs, self.kernel, data_format="channels_first") + self.columns


class FixedBasis(layers.Layer):
    """A product with a constant matrix, such as a filter bank, and an offset that is trained."""

    def build(self, input_shape):
        self.basis = np.random.default_rng(0).normal(size=(input_shape[-1], 4)).astype("float32")
        self.offset = self.add_weight(shape=(4,), name="offset")

    def call(self, inputs):
        return ops.matmul(inputs, self.basis) + self.offset


def test_what_is_added_is_a_bias_only_where_it_is_one(rng):
    model = functional(Regression())
    flat = assert_same(open_model(model), model, rng.standard_normal((3, 6)).astype("float32"))
    (dense,) = (layer for layer in flat.layers if isinstance(layer, layers.Dense))
    assert ops.convert_to_numpy(dense.bias).tolist() == [1.0]
    inputs = keras.Input((3, 4, 5))
    found = open_model(keras.Model(inputs, ColumnsAdded()(inputs))).model
    assert [layer.use_bias for layer in found.layers if isinstance(layer, layers.Conv2D)] == [False]


def test_constants_and_frozen_weights_are_not_trained(rng):
    data = rng.standard_normal((3, 6)).astype("float32")
    model = functional(FixedBasis())
    opened = open_model(model)
    (trained,) = assert_same(opened, model, data).trainable_variables
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (trained, model.layers[1].offset)))
    assert opened.fixed == {}
    frozen = Linear(3)
    model = functional(frozen, Linear(2))
    frozen.trainable = False
    kept = assert_same(open_model(model), model, data).trainable_variables
    assert [tuple(variable.shape) for variable in kept] == [(3, 2), (2,)]


class HalfOfAKernel(layers.Layer):
    """A product with a kernel of which a constant leaves half out, behind one with a constant of the same size."""

    def build(self, input_shape):
        self.basis = np.random.default_rng(1).normal(size=(6, 6)).astype("float32")
        self.kernel = self.add_weight(shape=(6, 6), name="kernel")

    def call(self, inputs):
        return ops.matmul(ops.relu(ops.matmul(inputs, self.basis)), self.kernel * np.tri(6, dtype="float32"))


def test_what_is_made_of_a_variable_is_told_from_constants_of_its_size(rng):
    model = functional(HalfOfAKernel())
    opened = open_model(model)
    flat = assert_same(opened, model, rng.standard_normal((3, 6)).astype("float32"))
    assert [layer.trainable for layer in flat.layers if isinstance(layer, layers.Dense)] == [False, True]
    assert opened.fixed == {}


def test_kernels_of_many_kinds():
    opened = open_model(functional(Convolutions(), shape=(8, 8, 3)))
    found = [type(each).__name__ for each in operations_of(opened.model) if isinstance(each, layers.Layer)]
    assert found == ["Conv2D", "DepthwiseConv2D", "EinsumDense"]


def test_a_mask_reaches_what_reads_it(rng):
    model = functional(Masked(), layers.GlobalAveragePooling1D(), shape=(5,), dtype="int32")
    data = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 4]], "int32")
    opened = open_model(model)
    assert not opened.closed
    assert_same(opened, model, data)
    assert np.abs(values(model, data) - values(model, data[:, ::-1])).max() < 1e-6


def test_dropout_is_decided_by_who_runs_the_model(rng):
    model = COMPOSITES["shared"][0]()
    data = inputs_of(model, rng, 64)
    opened = open_model(model)
    assert np.abs(ops.convert_to_numpy(opened.model(data, training=True)) - values(model, data)).max() > 1e-3


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(Looks, "cannot be traced"), (Draws, "random numbers"), (Counts, "changes its own state")],
)
def test_what_has_no_graph_is_one_operation(layer, reason, rng):
    data = rng.standard_normal((4, 6)).astype("float32")
    layer = layer()
    model = functional(layers.Dense(3), layer, Linear(2))
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    opened = open_model(model)
    ((closed, why),) = opened.closed
    assert closed is layer
    assert reason in why
    assert layer in operations_of(opened.model)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert values(opened.model, data).shape == (4, 2)


class Decides(layers.Layer):
    """A function that reads a tensor which no argument of the operation shows."""

    def build(self, input_shape):
        self.dense = layers.Dense(4)
        self.dense.build(input_shape)

    def call(self, inputs):
        x = self.dense(inputs)
        return ops.cond(ops.max(x) > 100.0, lambda: x / 100.0, lambda: 2.0 * x)


def test_functions_within_a_call(rng):
    model = functional(layers.Dense(6), Decides(), layers.Dense(2))
    opened = open_model(model)
    reason = "its `call`" if keras.backend.backend() == "jax" else "hands functions to 'Cond'"
    assert reason in opened.closed[0][1]
    assert_same(opened, model, rng.standard_normal((3, 6)).astype("float32"))


def test_types_of_a_dictionary_of_inputs():
    class Table(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.dense = layers.Embedding(9, 4), layers.Dense(2)

        def call(self, inputs):
            return self.dense(ops.concatenate([self.embedding(inputs["id"]), inputs["number"]], axis=-1))

    model, data = Table(), {"id": np.arange(3), "number": np.ones((3, 2), "float32")}
    model(data)
    opened = open_model(model, data=data)
    assert {tensor.name: tensor.dtype for tensor in opened.model.inputs} == {"id": "int32", "number": "float32"}
    assert_same(opened, model, data)


class Shares(layers.Layer):
    """Divides by the size of the batch."""

    def call(self, inputs):
        return inputs / ops.cast(ops.shape(inputs)[0], "float32")


def test_numbers_that_follow_from_the_batch(rng):
    model = functional(layers.Dense(4), Shares(), layers.Dense(2))
    opened = open_model(model)
    assert "computes with the size of the batch" in opened.closed[0][1]
    assert_same(opened, model, rng.standard_normal((300, 6)).astype("float32"))


def test_open_sizes_are_named():
    class Halves(layers.Layer):
        def call(self, inputs):
            return inputs[:, : ops.shape(inputs)[1] // 2]

    opened = open_model(functional(Halves(), shape=(None, 3)))
    assert "fixed sizes" in opened.closed[0][1]
    assert not open_model(functional(Halves(), shape=(4, 3))).closed


def test_an_ordinary_model_is_itself():
    model = functional(layers.Dense(3), layers.ReLU())
    assert open_model(model).model is model


class Contracted(layers.Layer):
    """Products written as sums over axes."""

    def build(self, input_shape):
        self.first = self.add_weight(shape=(input_shape[-1], 5), name="first")
        self.offset = self.add_weight(shape=(5,), initializer="ones", name="offset")
        self.second = self.add_weight(shape=(5, 2), name="second")

    def call(self, inputs):
        hidden = ops.tanh(ops.tensordot(inputs, self.first, axes=1) + self.offset)
        return ops.tensordot(hidden, self.second, axes=((2,), (0,)))


def test_sums_over_axes_are_dense_layers(rng):
    model = functional(Contracted(), shape=(4, 6))
    flat = assert_same(open_model(model), model, rng.standard_normal((3, 4, 6)).astype("float32"))
    assert [layer.use_bias for layer in flat.layers if isinstance(layer, layers.Dense)] == [True, False]


def test_windows_in_the_batch_are_taken_apart_with_their_mask(rng):
    inputs = keras.Input((4, 4, 3))
    windows = ops.reshape(ops.transpose(ops.reshape(inputs, (-1, 2, 2, 2, 2, 3)), (0, 1, 3, 2, 4, 5)), (-1, 4, 3))
    mask = np.where(rng.random((4, 4, 4)) < 0.3, -100.0, 0.0).astype("float32")
    rows = MaskedWindows()(windows, mask=mask)
    model = keras.Model(inputs, ops.reshape(rows, (-1, 4, 4, 4)))
    opened = open_model(model)
    assert not opened.closed
    assert all(type(each) is not MaskedWindows for each in operations_of(opened.model))
    assert_same(opened, model, rng.standard_normal((3, 4, 4, 3)).astype("float32"))


def test_sizes_that_layers_leave_open_are_found_within_a_layer(rng):
    model = functional(Heads(), layers.Dense(2), shape=(5, 6))
    opened = open_model(model)
    assert not opened.closed
    assert_same(opened, model, rng.standard_normal((3, 5, 6)).astype("float32"))


class WrittenForTensorFlow(layers.Layer):
    """Functions of TensorFlow alone, with the size of the batch."""

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(input_shape[-1], 4), initializer="random_normal", name="matrix")

    def call(self, inputs):
        import tensorflow as tf

        x = tf.nn.relu(tf.matmul(inputs, self.matrix) + 0.1)
        x = tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], 2, 2])
        x = tf.concat([tf.transpose(x, perm=[0, 2, 1, 3]), tf.stack([x[:, :, 0], x[:, :, 1]], axis=1)], axis=-1)
        places = tf.broadcast_to([[[[1, 0], [3, 2], [0, 0]]]], [inputs.shape[0] or tf.shape(inputs)[0], 2, 3, 2])
        picked = tf.gather(x, places, batch_dims=3)
        rows = tf.gather(x, [1, 0], axis=1)
        mean = tf.reduce_mean(rows, axis=[1, 2]) - tf.reduce_max(picked, axis=[1, 2, 3], keepdims=False)[:, None]
        halves = tf.cast(tf.shape(x)[1:3] / 2, "float32")  # numbers to compute with, not a tuple
        return tf.sqrt(tf.square(mean, name="squares") + halves[0]) / tf.cast(2, "float32")

    def compute_output_shape(self, shape):
        return (shape[0], 4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="functions of TensorFlow")
def test_functions_of_tensorflow_become_those_of_keras(rng):
    import tensorflow as tf

    model = functional(WrittenForTensorFlow(), layers.Dense(2), shape=(3, 6))
    opened = open_model(model)
    assert not opened.closed
    assert all(type(each) is not WrittenForTensorFlow for each in operations_of(opened.model))
    assert_same(opened, model, rng.standard_normal((4, 3, 6)).astype("float32"))
    with pytest.raises(ValueError, match="KerasTensor"):  # as before, elsewhere
        tf.nn.relu(keras.Input((3,)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="functions of TensorFlow")
@pytest.mark.parametrize("function", ["cumsum", "silu"])
def test_other_functions_of_tensorflow_leave_a_layer_whole(function, rng):
    class Cumulated(layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.cumsum(tf.nn.relu(inputs), axis=1) if function == "cumsum" else tf.nn.silu(inputs, beta=2.0)

    model = functional(Cumulated(), layers.Dense(2))
    opened = open_model(model)
    assert [type(layer) for layer, _ in opened.closed] == [Cumulated]
    assert_same(opened, model, rng.standard_normal((4, 6)).astype("float32"))
