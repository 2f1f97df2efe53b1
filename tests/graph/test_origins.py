"""Origins: which of the user's own layers each operation came from, through all that makes one model of another."""

import keras
import numpy as np
from keras import layers, ops

from keras_mot.graph import operations_of, trace
from keras_mot.graph.batch_norm import fold_with_origins
from keras_mot.graph.origins import Origins, copy_with_origins
from keras_mot.graph.rewrite import flatten_with_origins, rewrite_with_origins


def branch(name, depth):
    """A nested model, whose layers have the names of those of every other one."""
    inputs = x = keras.Input((4,))
    for number in range(depth):
        x = layers.Dense(4, use_bias=False, name=f"dense_{number}")(x)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, ops.relu(x), name=name)


def two_branches():
    """Two nested models of different depths with layers of one name, one of them called twice, and a shared layer."""
    inputs = keras.Input((4,))
    left, right, shared = branch("left", 3), branch("right", 1), layers.Dense(4, name="dense_0_1")
    x = left(inputs) + right(right(shared(inputs)))
    return keras.Model(inputs, [shared(x), layers.Dense(2, name="norm")(x)])


def unsettled(model):
    """Weights of which no two are alike, so that a layer is known by its values."""
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(generator.uniform(0.5, 2.0, variable.shape))
    return model


def kernels(origins, model):
    """Pairs of (kernel of a layer of `model`, kernel of its origin)."""
    found = [operation for operation in operations_of(model) if hasattr(operation, "kernel")]
    return [(ops.convert_to_numpy(layer.kernel), ops.convert_to_numpy(origins.of(layer).kernel)) for layer in found]


def test_flattening():
    model = unsettled(two_branches())
    flat, origins = flatten_with_origins(model)
    made, user = operations_of(flat), operations_of(model)
    assert len(made) == len(user) == 11  # 5 in `left`, 3 in `right`, and 3 around them
    assert {id(origins.of(operation)) for operation in made} == {id(operation) for operation in user}
    for operation in made:
        assert type(operation) is type(origins.of(operation))
    for kernel, original in kernels(origins, flat):
        np.testing.assert_array_equal(kernel, original)


def test_folding_keeps_origins_and_is_known_by_layer():
    model = unsettled(two_branches())
    flat, flattened = flatten_with_origins(model)
    folded, folds, after = fold_with_origins(flat)
    origins = after.through(flattened)
    left, right = model.get_layer("left"), model.get_layer("right")
    # What is called twice is not folded: it is read by two.
    gone = left.get_layer("norm")
    assert {origins.of(operation) for operation in operations_of(folded)} == set(operations_of(model)) - {gone}
    ((layer, fold),) = folds.items()
    assert layer in folded.layers
    assert origins.of(layer) is left.get_layer("dense_2")
    np.testing.assert_array_equal(fold.linear.kernel, left.get_layer("dense_2").kernel)
    np.testing.assert_array_equal(fold.batch_norm.gamma, gone.gamma)
    plain = next(layer for layer in folded.layers if origins.of(layer) is right.get_layer("dense_0"))
    np.testing.assert_array_equal(plain.kernel, right.get_layer("dense_0").kernel)


def test_all_steps_of_an_operation_come_from_it():
    inputs = keras.Input((4,))
    first, second = layers.Dense(4), layers.Dense(4)
    model = keras.Model(inputs, second(layers.Dropout(0.5)(first(inputs))))

    def call(operation, *args, **kwargs):
        if isinstance(operation, layers.Dropout):
            return args[0]  # nothing in its place
        outputs = operation(*args, **kwargs)
        return ops.tanh(outputs * 2.0) if operation is first else outputs

    rewritten, origins = rewrite_with_origins(model, call)
    found = [(type(operation).__name__, origins.of(operation)) for operation in operations_of(rewritten)]
    assert found == [("Dense", first), ("Multiply", first), ("Tanh", first), ("Dense", second)]


@keras.saving.register_keras_serializable("tests.origins")
class Network(keras.Model):
    """A subclassed model, one layer of which is called twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(4, name="first"), layers.Dense(4, name="second")
        self.normalization = layers.BatchNormalization(name="normalization")

    def build(self, input_shape):
        """Builds all layers on vectors of one length."""
        for layer in (self.first, self.second, self.normalization):
            layer.build(input_shape)

    def call(self, inputs):
        """The first layer twice, and the second with batch normalization."""
        return self.normalization(self.second(ops.relu(self.first(self.first(inputs)))))


def test_a_traced_model():
    model = Network()
    model(np.zeros((1, 4), "float32"))
    traced = trace(unsettled(model))
    flat, flattened = flatten_with_origins(traced)
    folded, folds, after = fold_with_origins(flat)
    origins = after.through(flattened)
    assert [origins.of(layer) for layer in folds] == [model.second]
    found = [origins.of(operation) for operation in operations_of(folded)]
    assert found[0] is model.first
    assert found[1] is next(operation for operation in operations_of(traced) if operation.name.startswith("relu"))
    assert found[2] is model.second
    assert len(found) == 3


def test_copies_of_layers_and_operations():
    model = two_branches()
    copy, origins = copy_with_origins(model)
    assert [origins.of(operation) for operation in operations_of(copy)] == operations_of(model)
    assert origins.of(copy.get_layer("left")) is model.get_layer("left")


def test_what_is_not_known_is_its_own_origin():
    one, two, three = layers.Dense(1), layers.Dense(1), layers.Dense(1)
    origins = Origins([(two, one)])
    assert origins.of(two) is one
    assert origins.of(three) is three
    assert two in origins
    assert three not in origins
    later = Origins([(three, two)]).through(origins)
    assert later.of(three) is one
    assert later.of(two) is one  # shared with the model before
