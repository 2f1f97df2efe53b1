"""Attaching weight transforms to layers, and the table of weights that can be transformed."""

from keras_mot.layers._attach import TransformedWeight, attach, is_transformed, strip, transformed_weights
from keras_mot.layers._copy import copy_model
from keras_mot.layers._find import FoundWeight, find_weights
from keras_mot.layers._own_weights import LeftAlone
from keras_mot.layers._updates import TransformSchedule, UpdateTransforms, update_due, update_step
from keras_mot.layers._weights import WeightAxes, WeightSpec, register_weights

__all__ = [
    "FoundWeight",
    "LeftAlone",
    "TransformSchedule",
    "TransformedWeight",
    "UpdateTransforms",
    "WeightAxes",
    "WeightSpec",
    "attach",
    "copy_model",
    "find_weights",
    "is_transformed",
    "register_weights",
    "strip",
    "transformed_weights",
    "update_due",
    "update_step",
]
