import json

import keras
import pytest
from keras import layers

from keras_mot.quantization import quantize_model
from keras_mot.recipes import PRESETS, recommend
from keras_mot.sparsity import ConstantSparsity, prune_low_magnitude


def dense_network():
    return keras.Sequential(
        [keras.Input((12, 12, 1)), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(1300), layers.Dense(10)]
    )


def separable_network():
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            *(layers.Conv2D(8, 3), layers.DepthwiseConv2D(3), layers.Conv2D(8, 1)),
            *(layers.GlobalAveragePooling2D(), layers.Dense(4)),
        ]
    )


def masked_network():
    inputs = keras.Input((6,))
    x = layers.Embedding(50, 8, mask_zero=True)(inputs)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def convolutional_network():
    return keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(64, 3), layers.Conv2D(64, 3), layers.GlobalMaxPooling2D()]
    )


@pytest.mark.parametrize(
    ("build", "goal", "training", "recipe"),
    [
        (dense_network, "size", True, "deep-compression"),
        (dense_network, "size", False, "int8"),
        (dense_network, "speed", True, "int8"),
        (separable_network, "size", True, "balanced"),
        (separable_network, "micro", True, "int8"),
        (convolutional_network, "size", True, "size"),
        (masked_network, "size", True, "size"),
    ],
)
def test_recipes(build, goal, training, recipe):
    found = recommend(build(), goal, training=training)
    assert found.recipe == recipe
    assert found.recipe in PRESETS
    assert found.target == ("micro" if goal == "micro" else None)
    assert not found.refused
    assert f"--recipe {recipe}" in str(found)
    assert ("--target micro" in str(found)) == (goal == "micro")
    json.dumps(found.to_dict())


def test_it_says_where_the_weights_are():
    found = recommend(dense_network())
    assert found.facts["by_kind"] == {"dense": 800 * 1300 + 1300 * 10, "conv": 72}
    assert "100% of the weights are of the kind 'dense'" in found.reasons[0]
    assert found.facts["weights_in_integers"] == found.facts["weights"]
    assert found.cautions == ()


def test_wide_convolutions_may_lose_channels():
    assert any("PruneChannels" in line for line in recommend(convolutional_network(), "speed").next_steps)
    assert not any("PruneChannels" in line for line in recommend(separable_network(), "speed").next_steps)


def test_what_a_target_refuses_is_said_with_the_layer():
    inputs = keras.Input((4,))
    waves = keras.Model(inputs, layers.Dense(2)(keras.ops.sin(layers.Dense(3)(inputs))))
    found = recommend(waves, "micro")
    assert found.refused
    assert any("(Sin" in line for line in found.cautions), found.cautions
    assert "once that is mended" in str(found)
    assert not recommend(masked_network(), "micro").refused


def test_small_and_recurrent_models_get_a_word_of_warning():
    model = keras.Sequential([keras.Input((6, 2)), layers.GRU(4, name="listener"), layers.Dense(2)])
    small, steps = recommend(model, "micro").cautions
    assert "is small already" in small
    assert "(listener) become their timesteps" in steps
    assert "the arena" in steps
    assert recommend(dense_network()).cautions == ()


def test_embeddings_count_as_integers():
    assert recommend(masked_network()).facts["by_kind"]["embedding"] == 400
    assert not any("no integer form" in line for line in recommend(masked_network()).cautions)


@pytest.mark.parametrize(
    ("model", "goal", "kind", "message"),
    [
        ("model", "size", TypeError, "expects a Keras model"),
        (separable_network, "small", ValueError, "'size', 'speed', 'micro'"),
        (lambda: keras.Sequential([layers.Dense(2)]), "size", ValueError, "built"),
        (lambda: keras.Sequential([keras.Input((2,)), layers.ReLU()]), "size", ValueError, "no weights"),
        (lambda: prune_low_magnitude(separable_network(), ConstantSparsity(0.5, 0)), "size", ValueError, "transforms"),
        (lambda: quantize_model(separable_network()), "size", ValueError, "transforms"),
    ],
)
def test_bad_input(model, goal, kind, message):
    with pytest.raises(kind, match=message):
        recommend(model() if callable(model) else model, goal)
