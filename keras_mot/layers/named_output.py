"""An output of a model, called as the user called it."""

import keras


@keras.saving.register_keras_serializable("keras_mot")
class NamedOutput(keras.layers.Layer):
    """Returns its inputs. A functional model calls an output that comes from here by `output_name`.

    Args:
        output_name: that name, which another layer may have as its own.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, output_name: str, **kwargs):
        super().__init__(**kwargs)
        self.output_name = output_name
        self.supports_masking = True
        self.built = True

    def build(self, input_shape):
        """Nothing: there are no weights."""

    def call(self, inputs):
        """The inputs."""
        return inputs

    def compute_output_shape(self, input_shape):
        """The inputs' own."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "output_name": self.output_name}
