"""What a user's layer does in training alone, such as dropping paths or adding noise."""

import keras

from keras_mot.layers.same_shape import SameShape


@keras.saving.register_keras_serializable("keras_mot")
class InTraining(SameShape):
    """A layer in training, and nothing in inference, where that layer returns its input.

    Args:
        layer: the layer; its `call` takes `training`.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs, training=None):
        """What the layer returns in training; otherwise the inputs."""
        return self.layer(inputs, training=True) if training else inputs

    def get_config(self):
        """The arguments of the constructor."""
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` describes."""
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


@keras.saving.register_keras_serializable("keras_mot")
class ActivityPenalty(SameShape):
    """Returns its inputs, and adds a penalty on them in training, as the `activity_regularizer` of a layer does.

    Args:
        regularizer: a Keras regularizer, or what `keras.regularizers.get` makes one of.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, regularizer, **kwargs):
        super().__init__(activity_regularizer=keras.regularizers.get(regularizer), **kwargs)

    def call(self, inputs):
        """The inputs; Keras adds the penalty."""
        return inputs

    def get_config(self):
        """The arguments of the constructor."""
        regularizer = keras.regularizers.serialize(self.activity_regularizer)
        config = {name: value for name, value in super().get_config().items() if name != "activity_regularizer"}
        return {**config, "regularizer": regularizer}
