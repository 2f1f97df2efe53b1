"""Whether Keras can save a quantized model and load it again: layers of users that stay whole may stand against it."""

import warnings

import keras

from keras_mot._keras import flatten_layers
from keras_mot._messages import shortened
from keras_mot._warnings import warn
from keras_mot.layers.duplicating import is_of_keras
from keras_mot.layers.transformed import plain_class


def warn_of_unsavable(quantized: keras.Model, user_name: str) -> None:
    """Warns of layers that Keras cannot make again from their configuration, and says what to do.

    A whole model of the user's may be saved all the same, where its own configuration makes these layers; the quantized
    model holds them one by one.

    Args:
        quantized: the quantized model.
        user_name: the name of the user's model.
    """
    found = [(layer, _problem_with(layer)) for layer in quantized.layers if not _is_known(layer)]
    listed = "".join(
        f"\n  '{layer.name}' ({plain_class(layer).__name__}): {why}" for layer, why in found if why is not None
    )
    if listed:
        warn(
            f"The quantized '{user_name}' trains and exports, but loads from no `.keras` file: these layers "
            f"of yours cannot be made again from what their `get_config` returns:{listed}\nTo go on later, save its "
            "weights alone, `quantized.save_weights('name.weights.h5')`, quantize the float model again as now, and "
            "`load_weights` into that; or give these layers a `get_config` that returns the arguments of `__init__`."
        )


def _is_known(layer):
    modules = (plain_class(part).__module__ for part in flatten_layers(layer))
    return is_of_keras(layer) or all(module.startswith(("keras.", "keras_mot.")) for module in modules)


def _problem_with(layer):
    """Why a layer cannot be made again; `None` if it can be."""
    classes = {plain_class(part).__name__: plain_class(part) for part in flatten_layers(layer)}
    try:
        with keras.saving.custom_object_scope(classes), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this is a trial
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer), safe_mode=False)
    except Exception as error:  # whatever the user's classes raise
        return shortened(" ".join(str(error).split()), 300)
    return None
