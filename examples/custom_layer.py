# ruff: noqa: D102
"""Pruning layers of one's own, by registration or by a method. Runs on any backend."""

import keras
import numpy as np

import keras_mot as kmot


@keras.saving.register_keras_serializable("example")
class LowRankDense(keras.layers.Layer):
    """A dense layer whose kernel is a product of two thin matrices."""

    def __init__(self, units, rank, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rank = units, rank

    def build(self, input_shape):
        self.left = self.add_weight(name="left", shape=(input_shape[-1], self.rank))
        self.right = self.add_weight(name="right", shape=(self.rank, self.units))

    def call(self, inputs):
        return inputs @ self.left @ self.right

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rank": self.rank}


# Registration, for any class, also one from another package. By default the last two axes of a weight are
# its inputs and outputs; `WeightSpec` says otherwise.
kmot.layers.register_weights(LowRankDense, ["left", "right"])


@keras.saving.register_keras_serializable("example")
class Scorer(keras.layers.Layer):
    """A layer that says itself what can be pruned. Its weight has outputs before inputs."""

    def build(self, input_shape):
        self.scores = self.add_weight(name="scores", shape=(3, input_shape[-1]))

    def call(self, inputs):
        return keras.ops.einsum("bi,oi->bo", inputs, self.scores)

    def transformable_weights(self):
        axes = kmot.layers.WeightAxes(inputs=(1,), outputs=(0,))
        return [kmot.layers.WeightSpec("scores", axes)]


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).standard_normal((256, 20)).astype("float32")
model = keras.Sequential([keras.Input((20,)), LowRankDense(16, rank=8), Scorer()])

pruned = kmot.sparsity.prune_low_magnitude(model, kmot.sparsity.ConstantSparsity(0.75))
pruned.compile("adam", "mse")
pruned.fit(x, x[:, :3], epochs=2, verbose=0)
print(kmot.sparsity.pruning_report(pruned))
small = kmot.sparsity.strip_pruning(pruned)
print([type(layer).__name__ for layer in small.layers], f"{kmot.analysis.sparsity(small):.1%} zeros")
