"""Layers of a user's own, in a module that a second process can import."""

import keras


@keras.saving.register_keras_serializable(package="export_tests")
class Doubling(keras.layers.Layer):
    def call(self, x):
        return keras.ops.multiply(x, 2.0)


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return keras.ops.multiply(x, 2.0)
