"""Attaching weight transforms to layers, and the table of weights that can be transformed."""

from keras_mot.layers._weights import WeightAxes, WeightSpec, register_weights
from keras_mot.layers.attaching import TransformedWeight, attach, is_transformed, strip, transformed_weights
from keras_mot.layers.copying import copy_model
from keras_mot.layers.finding import FoundWeight, find_weights
from keras_mot.layers.own_weights import LeftAlone
from keras_mot.layers.updates import TransformSchedule, UpdateTransforms, update_due, update_step

__all__ = [
    "TransformSchedule",
    "UpdateTransforms",
    "WeightAxes",
    "WeightSpec",
    "attach",
    "copy_model",
    "register_weights",
    "strip",
    "transformed_weights",
    "update_step",
]
