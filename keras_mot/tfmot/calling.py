"""Where quantizers of TFMOT's form are called: on a weight, and on what a layer returns, before our own rounding."""

from typing import Any

import keras

from keras_mot._keras import is_training
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.tfmot.quantizers import Quantizer
from keras_mot.transforms import WeightTransform
from keras_mot.transforms.base import by_reference, resolved


class Variables:
    """What a quantizer gets as `layer`: the layer that holds its variables, with the arguments that Keras 2 had.

    Args:
        layer: the layer.
    """

    def __init__(self, layer: keras.layers.Layer):
        self._layer = layer

    def add_weight(self, name: Any = None, shape: Any = (), dtype: Any = None, initializer: Any = None, **kwargs: Any):
        """A variable of the layer; a name may come first, as in Keras 2."""
        if name is not None and not isinstance(name, str):
            name, shape = None, name
        kwargs = {key: value for key, value in kwargs.items() if key in ("trainable", "regularizer", "constraint")}
        return self._layer.add_weight(
            shape=tuple(shape), initializer=initializer, dtype=dtype or "float32", autocast=False, name=name, **kwargs
        )

    def __getattr__(self, name):
        return getattr(self._layer, name)


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class CalledOnWeight(WeightTransform):
    """Calls a quantizer on a weight.

    Args:
        quantizer: a `Quantizer`.
        **kwargs: arguments of `WeightTransform`.
    """

    def __init__(self, quantizer: Quantizer, **kwargs: Any):
        super().__init__(**kwargs)
        self.quantizer = quantizer
        self._made = {}

    def build(self, weight_shape):
        """Lets the quantizer create its variables."""
        self._made = self.quantizer.build(tuple(weight_shape), self.name, Variables(self)) or {}
        self.built = True

    def call(self, weight):
        """What the quantizer makes of the weight; same shape and dtype."""
        value = keras.ops.reshape(weight, weight.shape)  # a tensor: TensorFlow has a variable here
        return keras.ops.cast(self.quantizer(value, is_training(), weights=self._made), weight.dtype)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "quantizer": by_reference(self.quantizer)}

    @classmethod
    def from_config(cls, config):
        """The transform that `get_config` described."""
        return super().from_config({**config, "quantizer": resolved(config["quantizer"])})


@keras.saving.register_keras_serializable("keras_mot.tfmot")
class CalledOnActivation(ActivationQuantizer):
    """Calls a quantizer on activations, and rounds what it returns.

    Args:
        quantizer: a `Quantizer`.
        **kwargs: arguments of `ActivationQuantizer`.
    """

    def __init__(self, quantizer: Quantizer, **kwargs: Any):
        super().__init__(**kwargs)
        self.quantizer = quantizer
        self._made = {}
        self.built = False

    def build(self, input_shape):
        """Lets the quantizer create its variables."""
        self._made = self.quantizer.build(tuple(input_shape), self.name, Variables(self)) or {}

    def prepared(self, inputs, training=None):
        """What the quantizer makes of the inputs; same shape and dtype."""
        return keras.ops.cast(self.quantizer(inputs, bool(training), weights=self._made), inputs.dtype)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "quantizer": by_reference(self.quantizer)}

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` described."""
        return cls(**{**config, "quantizer": resolved(config["quantizer"])})
