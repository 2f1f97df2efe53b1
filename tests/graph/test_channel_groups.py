"""Channel groups: which channels go together, and which are constant."""

import keras
import numpy as np
from keras import layers

from keras_mot.graph.channel_groups import ChannelGroups
from keras_mot.graph.channel_slots import Slots


def assign(layer, kernel, bias):
    """The layer with these weights."""
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)


def test_joined_numbers_are_one():
    slots = Slots()
    first, second = slots.new(3), slots.new(3)
    slots.join(first[:2], second[1:])  # 1 with 5, 2 with 6
    slots.join(second[:2], second[1:])  # 4 with 5, 5 with 6: all of 1, 2, 4, 5, 6 are one
    assert len({slots.root(slot) for slot in (*first[:2], *second)}) == 1
    assert slots.root(first[2]) == first[2]
    assert not slots.stay(np.concatenate([first, second])).any()
    slots.keep(second[:1])
    np.testing.assert_array_equal(slots.stay(np.concatenate([first, second])), [True, True, False, True, True, True])


def test_what_is_added_goes_together():
    inputs = keras.Input((3,))
    left, right, alone = (layers.Dense(2, name=name) for name in ("left", "right", "alone"))
    x = layers.Concatenate()([left(inputs) + right(inputs), alone(inputs)])
    groups = ChannelGroups(keras.Model(inputs, layers.Dense(1, name="last")(x)))
    found = [[(layer.name, number) for layer, number in group] for group in groups.groups()]
    assert found == [
        [("left", 0), ("right", 0)],
        [("left", 1), ("right", 1)],
        [("alone", 0)],
        [("alone", 1)],
    ]
    groups.keep_read()  # `last` reads them all, and none is constant
    assert groups.groups() == []


def test_what_leaves_the_model_or_has_no_rule_stays():
    inputs = keras.Input((4, 3))
    out, normalized, twice, free = (layers.Dense(2) for _ in range(4))
    x = layers.LayerNormalization()(normalized(inputs))
    x = layers.Dense(3)(twice(twice(layers.Dense(2)(x))))
    groups = ChannelGroups(keras.Model(inputs, [out(free(inputs)), x]))
    assert [[layer for layer, _ in group] for group in groups.groups()] == [[free], [free]]


def test_constants_by_hand():
    """A filter without weights gives its bias; ReLU, batch normalization and pooling are followed."""
    inputs = keras.Input((4, 4, 1))
    convolution, norm, last = layers.Conv2D(3, 1, name="a"), layers.BatchNormalization(), layers.Dense(1)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(norm(convolution(inputs))))
    model = keras.Model(inputs, last(x))
    assign(convolution, np.array([[[[0.0, 0.0, 1.0]]]]), [2.0, -3.0, 5.0])
    norm.gamma.assign([0.5, 0.5, 0.5])
    norm.beta.assign([1.0, 1.0, 1.0])
    norm.moving_variance.assign([1.0 - norm.epsilon] * 3)
    groups = ChannelGroups(model)
    np.testing.assert_array_equal(groups.of(convolution.output).constants, [2.0, -3.0, np.nan])
    np.testing.assert_allclose(groups.of(norm.output).constants, [2.0, -0.5, np.nan], rtol=1e-6)
    np.testing.assert_allclose(groups.of(x).constants, [2.0, 0.0, np.nan], rtol=1e-6)
    groups.keep_read()
    assert groups.groups() == [[(convolution, 0)], [(convolution, 1)]]
    np.testing.assert_array_equal(groups.slots.stay(groups.of(x).slots), [False, False, True])


def test_what_a_padded_convolution_sees_at_the_border():
    inputs = keras.Input((4, 4, 1))
    first, padded = layers.Conv2D(2, 1), layers.Conv2D(1, 3, padding="same")
    model = keras.Model(inputs, padded(first(inputs)))
    assign(first, np.zeros((1, 1, 1, 2)), [0.0, 2.0])
    for exact, stays in ((True, [False, True]), (False, [False, False])):
        groups = ChannelGroups(model, exact)
        groups.keep_read()
        np.testing.assert_array_equal(groups.slots.stay(groups.of(first.output).slots), stays)
        assert groups.blocked == ({padded: 1} if exact else {})
