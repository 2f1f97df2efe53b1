"""Channels that go together: chosen by one score, and cut out of a model that computes the same then."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mot._keras import calls_anywhere
from keras_mot.sparsity import prune_channels, remove_pruned_channels

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(4, 8, 8, 4)).astype("float32")
SEQUENCE = RNG.normal(size=(3, 6, 8)).astype("float32")


def with_numbers(model):
    """All weights random, so that nothing is right by being zero or one; variances positive."""
    for variable in model.variables:
        value = RNG.normal(size=variable.shape) * 0.5
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def outputs(model, x):
    return keras.tree.flatten(model.predict(x, verbose=0))


def cut(model, x, sparsity=0.5, **settings):
    """The cut model, once it computes what the one with zeros does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="These layers keep")
        zeroed = prune_channels(model, sparsity, **settings)
    before = outputs(zeroed, x)
    assert all(np.abs(one - other).max() > 1e-3 for one, other in zip(before, outputs(model, x), strict=True))
    small = remove_pruned_channels(zeroed)
    for received, expected in zip(outputs(small, x), before, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    return small


def widths(model):
    return {layer.name: layer.kernel.shape[-1] for layer in model.layers if hasattr(layer, "kernel")}


def residual():
    """A ResNet's stage with PReLU, a grouped convolution and a depthwise one, a permutation, and a gate."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    x = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(x))
    y = layers.Conv2D(24, 1, use_bias=False, name="inner")(x)
    y = layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(y))
    y = layers.Conv2D(24, 3, padding="same", groups=4, name="grouped")(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(ops.abs(y))
    y = layers.BatchNormalization()(layers.Conv2D(16, 1, name="outer")(y))
    x = layers.Add()([x, y])
    x = layers.Add()([x, layers.Conv2D(16, 3, padding="same", name="second")(x)])
    x = x * layers.Dense(16, "sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Permute((2, 1, 3))(layers.MaxPooling2D()(x))
    x = layers.Dense(12, "relu", name="head")(layers.Flatten()(x))
    return with_numbers(keras.Model(inputs, layers.Dense(3, name="last")(x)))


@pytest.fixture(scope="module")
def network():
    return residual()


def test_joined_branches_go_together_and_are_cut_exactly(network):
    before = [ops.convert_to_numpy(each) for each in network.variables]
    small = cut(network, IMAGES)
    expected = {"stem": 8, "inner": 12, "grouped": 12, "outer": 8, "second": 8, "gate": 8, "head": 6, "last": 3}
    assert {name: width for name, width in widths(small).items() if name in expected} == expected
    assert small.get_layer("grouped").kernel.shape == (3, 3, 3, 12)
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    small.compile("sgd", "mse")
    small.fit(IMAGES, outputs(small, IMAGES)[0], verbose=0)


def test_numbers_kept_are_rounded_up(network):
    found = widths(cut(network, IMAGES, 0.7, round_to=8))
    assert [found[name] for name in ("stem", "outer", "gate", "inner", "grouped", "head")] == [8, 8, 8, 8, 8, 8]
    found = widths(cut(network, IMAGES, 0.4, round_to=8))
    assert [found[name] for name in ("stem", "inner", "grouped", "head")] == [16, 16, 16, 8]


def test_shares_by_layer(network):
    found = widths(cut(network, IMAGES, 0.5, overrides={"stem": None, network.get_layer("head"): 0.75}))
    assert [found[name] for name in ("stem", "outer", "second", "gate", "inner", "head")] == [16, 16, 16, 16, 12, 3]
    with pytest.raises(ValueError, match="No layer matches 'steem'"):
        prune_channels(network, 0.5, overrides={"steem": None})


def test_one_score_decides_of_what_is_added():
    """By hand: relative mean squares of both layers, added up."""
    inputs = keras.Input((2,))
    one, other = layers.Dense(3, name="one"), layers.Dense(3, name="other")
    model = keras.Model(inputs, layers.Dense(1)(one(inputs) + other(inputs)))
    one.kernel.assign([[3.0, 1.0, 2.0]] * 2)  # squares 9, 1, 4 of 14
    other.kernel.assign([[0.1, 0.4, 0.2]] * 2)  # 1, 16, 4 of 21: together 0.69, 0.83, 0.48
    zeroed = prune_channels(model, 1 / 3)
    for name in ("one", "other"):
        kernel = ops.convert_to_numpy(zeroed.get_layer(name).kernel)
        assert (kernel != 0).any(axis=0).tolist() == [True, True, False]


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A residual block, made of layers that it calls."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.norm = filters, layers.BatchNormalization()
        self.convolutions = [layers.Conv2D(filters, 3, padding="same") for _ in range(2)]

    def call(self, x):
        first, second = self.convolutions
        return ops.relu(x + second(ops.relu(self.norm(first(x)))))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def test_through_layers_that_are_made_of_others(tmp_path):
    inputs = keras.Input((8, 8, 4))
    x = Block(8, name="two")(Block(8, name="one")(layers.Conv2D(8, 1, name="stem")(inputs)))
    model = with_numbers(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    calls = [len(calls_anywhere(layer)) for layer in model.layers]
    small = cut(model, IMAGES)
    assert [len(calls_anywhere(layer)) for layer in model.layers] == calls  # of the user's model nothing changes
    assert sorted(widths(small).values()) == [2, 4, 4, 4, 4, 4]
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras", custom_objects={})
    np.testing.assert_allclose(outputs(loaded, IMAGES)[0], outputs(small, IMAGES)[0], rtol=1e-6)


def transformer():
    inputs = keras.Input((6, 8))
    attended = layers.MultiHeadAttention(4, 3, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(inputs + attended)
    y = layers.Dense(8, name="down")(layers.Dense(16, "gelu", name="up")(x))
    x = layers.LayerNormalization(name="second_norm")(x + y)
    return with_numbers(keras.Model(inputs, layers.Dense(2, name="last")(layers.GlobalAveragePooling1D()(x))))


def test_whole_heads_go():
    model = transformer()
    small = cut(model, SEQUENCE, round_to=8)
    assert small.get_layer("attention").num_heads == 2  # heads are not rounded
    assert small.get_layer("attention").count_params() < 0.6 * model.get_layer("attention").count_params()
    assert widths(small)["up"] == 8
    assert widths(small)["down"] == 8
    value = ops.convert_to_numpy(prune_channels(model, 0.5).get_layer("attention").variables[4])
    assert (np.abs(value).sum(axis=(0, 2)) == 0).sum() == 2


def test_what_keeps_all_its_channels_is_told_why():
    with pytest.warns(UserWarning, match="These layers keep all their channels") as caught:
        prune_channels(transformer(), 0.5)
    (text,) = [str(each.message) for each in caught if "keep all" in str(each.message)]
    assert "'down' (they are joined with those of 'norm' (LayerNormalization), which has no rule)" in text
    assert "'last'" not in text  # whose channels are the model's outputs, as in every model
    inputs = keras.Input((6, 8))
    recurrent = keras.Model(inputs, layers.Dense(2, name="last")(layers.LSTM(4, name="lstm")(inputs)))
    with pytest.warns(UserWarning, match=r"'last' \(the model returns them\); 'lstm' \(there is no rule for LSTM\)"):
        prune_channels(recurrent, 0.5)


def test_cutting_says_when_nothing_is_cut():
    inputs = keras.Input((6, 8))
    producer = layers.Dense(4, name="producer")
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization(name="norm")(producer(inputs))))
    with pytest.warns(UserWarning, match="Nothing is removed: no channel .* is constant"):
        remove_pruned_channels(model)
    producer.kernel.assign(ops.convert_to_numpy(producer.kernel) * [1, 0, 1, 0])
    with pytest.warns(UserWarning, match=r"constant stay: 'producer' \('norm' \(LayerNormalization\) needs them all"):
        remove_pruned_channels(model)


@pytest.mark.parametrize(
    "slopes",
    [{"shared_axes": [1, 2]}, {"shared_axes": [1, 2, 3]}, {}],
    ids=["by channel", "one", "by position"],
)
def test_constants_behind_prelu(slopes):
    """A channel of zeros with a bias below 0 is that, times its slope, if that is one for all positions."""
    inputs = keras.Input((8, 8, 4))
    first = layers.Conv2D(6, 3, name="first")
    model = with_numbers(keras.Model(inputs, layers.Conv2D(3, 2)(layers.PReLU(**slopes)(first(inputs)))))
    first.kernel.assign(ops.convert_to_numpy(first.kernel) * [1, 0, 1, 0, 1, 0])
    first.bias.assign([0.5, -0.5, 0.5, 0.5, -0.5, -0.3])
    small = remove_pruned_channels(model)
    assert widths(small)["first"] == (3 if slopes else 5)
    np.testing.assert_allclose(outputs(small, IMAGES)[0], outputs(model, IMAGES)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("move", [layers.Permute((3, 1, 2)), lambda x: ops.moveaxis(x, 3, 1), ops.transpose])
def test_channels_are_followed_through_permutations(move):
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = move(x) if move is not ops.transpose else ops.transpose(x, (0, 3, 2, 1))
    model = with_numbers(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    small = cut(model, IMAGES)
    assert widths(small)["first"] == 3
    assert small.layers[-1].kernel.shape == (3 * 36, 2)


def with_channels(data_format, flatten):
    """A network of all kinds of layers with this `data_format`, and a gate."""
    first, inputs = data_format == "channels_first", keras.Input((4, 8, 8))
    axis, own = 1 if first else -1, {"data_format": data_format}
    x = inputs if first else ops.moveaxis(inputs, 1, -1)
    x = layers.Conv2D(8, 3, padding="same", name="stem", **own)(x)
    x = layers.PReLU(shared_axes=(2, 3) if first else (1, 2))(layers.BatchNormalization(axis=axis)(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise", **own)(x)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="branch", **own)(y)])
    gate = layers.Dense(8, "sigmoid", name="gate")(layers.GlobalAveragePooling2D(**own)(x))
    x = layers.Multiply()([x, layers.Reshape((8, 1, 1) if first else (1, 1, 8))(gate)])
    a = layers.SeparableConv2D(6, 3, activation="relu", name="separable", **own)(x)
    b = layers.Conv2D(6, 3, groups=2, name="grouped", **own)(x)
    x = layers.LeakyReLU()(layers.Concatenate(axis=axis)([a, b]))
    x = layers.MaxPooling2D(2, **own)(layers.ZeroPadding2D(1, **own)(x))
    x = layers.Conv2DTranspose(6, 2, name="transposed", **own)(x)
    x = layers.Flatten(**(flatten if first else {}))(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


@pytest.mark.parametrize("flatten", [{}, {"data_format": "channels_first"}], ids=["as it is", "last"])
def test_channels_first_lose_as_many(flatten):
    last, first = (with_numbers(with_channels(name, flatten)) for name in ("channels_last", "channels_first"))
    if keras.backend.backend() == "tensorflow":  # which gets some convolutions with channels first wrong on CPUs
        small = remove_pruned_channels(prune_channels(first, round_to=2))
    else:
        small = cut(first, IMAGES.transpose(0, 3, 1, 2), round_to=2)
    assert small.count_params() < 0.55 * first.count_params()
    assert widths(small) == widths(remove_pruned_channels(prune_channels(last, round_to=2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "`sparsity` should be a share from 0 to below 1; received 1.0"),
        ({"round_to": 0}, "`round_to` should be a positive integer; received 0"),
        ({"overrides": {"last": 2}}, r"`overrides\['last'\]` should be a share"),
    ],
)
def test_bad_numbers(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        prune_channels(network, **arguments)
