"""Which models and layers the policy for XNNPACK accepts."""

import keras
import pytest
from keras import layers

from keras_mot.sparsity import ConstantSparsity, PruneForLatencyOnXNNPack, prune_low_magnitude, update_pruning_step
from keras_mot.sparsity.report import pruning_report


def network(stem=True, middle=lambda x: x, pool=True):
    inputs = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1)(inputs) if stem else inputs
    x = layers.Conv2D(8, 3, strides=2, padding="valid" if stem else "same", name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.Conv2D(8, 1, activation="relu", name="pointwise")(x)
    x = middle(x + y)
    x = layers.GlobalAveragePooling2D()(x) if pool else layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_only_pointwise_convolutions_are_pruned():
    pruned = prune_low_magnitude(network(), ConstantSparsity(0.75), pruning_policy=PruneForLatencyOnXNNPack())
    update_pruning_step(pruned, 0)
    assert [(row.path, row.zeros) for row in pruning_report(pruned).pruned] == [("pointwise/kernel", 48)]


def test_a_sequential_model_is_accepted():
    model = keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3, strides=2),
            layers.Conv2D(8, 1),
            layers.GlobalAveragePooling2D(),
        ]
    )
    PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stem": False}, "Could not find a `Conv2D` 3x3 layer with stride 2x2"),
        ({"pool": False}, r"is not supported|Could not find a `GlobalAveragePooling2D`"),
        ({"middle": lambda x: layers.Conv2D(8, 3, name="wide")(x)}, "Layer 'wide'"),
        ({"middle": lambda x: layers.MaxPooling2D(name="pool")(x)}, "Layer 'pool'"),
        ({"middle": lambda x: layers.DepthwiseConv2D(7, name="big")(x)}, "Layer 'big'"),
        ({"middle": lambda x: layers.Activation("gelu", name="gelu")(x)}, "Layer 'gelu'"),
    ],
)
def test_what_the_kernels_cannot_run_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        prune_low_magnitude(network(**settings), pruning_policy=PruneForLatencyOnXNNPack())
