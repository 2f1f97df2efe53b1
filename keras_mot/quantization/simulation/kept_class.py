"""The class of a quantized model: that of the user's model, if it says how models are trained."""

import keras

from keras_mot._warnings import warn
from keras_mot.graph.functional import as_functional
from keras_mot.layers.transformed import plain_class

_TRAINING = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")


def of_class_of(model: keras.Model, quantized: keras.Model) -> keras.Model:
    """A quantized model, of the class of the user's one if this trains in its own way and can be made of a graph.

    Warns if it trains in its own way and cannot be.

    Args:
        model: the user's model.
        quantized: a functional model.
    """
    own = [each for each in plain_class(model).__mro__ if not each.__module__.startswith("keras.src.")]
    methods = [name for name in _TRAINING if any(name in vars(each) for each in own if issubclass(each, keras.Model))]
    if not methods:
        return quantized
    makes_itself = any("__init__" in vars(each) for each in own if issubclass(each, keras.Model))
    if as_functional(model) is model and not makes_itself:
        return plain_class(model)(quantized.input, quantized.output, name=quantized.name)
    warn(
        f"The quantized model is a plain functional one, without the {' and '.join(methods)} of "
        f"{plain_class(model).__name__}: it trains as `compile` says. To train it in the other way, give it to a model "
        "that has these methods and calls it."
    )
    return quantized
