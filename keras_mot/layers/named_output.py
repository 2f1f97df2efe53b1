"""An output of a model, called as the user called it."""

import keras

from keras_mot.layers.same_shape import SameShape


@keras.saving.register_keras_serializable("keras_mot")
class NamedOutput(SameShape):
    """Returns its inputs. A functional model calls an output that comes from here by `output_name`.

    Args:
        output_name: that name, which another layer may have as its own.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, output_name: str, **kwargs):
        super().__init__(**kwargs)
        self.output_name = output_name

    def call(self, inputs):
        """The inputs."""
        return inputs

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "output_name": self.output_name}
