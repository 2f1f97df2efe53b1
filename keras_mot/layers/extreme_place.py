"""The place of the largest or smallest number, as converters take it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mot")
class ExtremePlace(keras.layers.Layer):
    """Stands in a model that is exported for `ops.argmax` and `ops.argmin`.

    On TensorFlow, Keras computes them with operations on bits of floats, which tell -0.0 from 0.0 and which no runtime
    has; integers have one 0.

    Args:
        axis: along which they are taken.
        keepdims: whether the axis stays, of length 1.
        smallest: whether it is the place of the smallest number.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, axis: int, keepdims: bool = False, smallest: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.axis, self.keepdims, self.smallest = axis, keepdims, smallest
        self.built = True

    def call(self, inputs):
        """The places, of int32."""
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            function = tf.argmin if self.smallest else tf.argmax
            places = function(inputs, axis=self.axis, output_type="int32")
            return tf.expand_dims(places, self.axis) if self.keepdims else places
        return (ops.argmin if self.smallest else ops.argmax)(inputs, axis=self.axis, keepdims=self.keepdims)

    def compute_output_spec(self, inputs):
        """As of `ops.argmax`."""
        spec = ops.argmax(keras.KerasTensor(inputs.shape, inputs.dtype), axis=self.axis, keepdims=self.keepdims)
        return keras.KerasTensor(spec.shape, "int32")

    def get_config(self):
        """The constructor's arguments."""
        own = {"axis": self.axis, "keepdims": self.keepdims, "smallest": self.smallest}
        return {**super().get_config(), **own}
