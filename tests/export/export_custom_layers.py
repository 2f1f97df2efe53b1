"""Layers of a user's own, in a module that a second process can import."""

import keras


@keras.saving.register_keras_serializable(package="export_tests")
class Doubling(keras.layers.Layer):
    def call(self, x):
        return keras.ops.multiply(x, 2.0)


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return keras.ops.multiply(x, 2.0)


@keras.saving.register_keras_serializable("export_custom_layers")
class Sampling(keras.layers.Layer):
    """What a variational autoencoder draws, in inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * log_variance) * noise


@keras.saving.register_keras_serializable("export_custom_layers")
class AddedLoss(keras.layers.Layer):
    """Adds a loss that is a loop in TensorFlow, and hands the predictions on."""

    def call(self, labels, predictions):
        ops, count = keras.ops, keras.ops.shape(labels)[0]
        lengths = ops.full((count,), predictions.shape[1], dtype="int32")
        sizes = ops.full((count,), labels.shape[1], dtype="int32")
        self.add_loss(ops.mean(ops.ctc_loss(ops.cast(labels, "int32"), predictions, sizes, lengths)))
        return predictions
