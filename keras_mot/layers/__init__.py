"""Attaching weight transforms to layers, and the table of weights that can be transformed."""

from keras_mot.layers import _building  # extends Keras
from keras_mot.layers._weights import WeightAxes, WeightSpec, register_weights
from keras_mot.layers.attaching import attach
from keras_mot.layers.copying import copy_model
from keras_mot.layers.finding import FoundWeight, find_weights
from keras_mot.layers.own_weights import LeftAlone
from keras_mot.layers.stripping import strip
from keras_mot.layers.transform_schedule import TransformSchedule
from keras_mot.layers.transformed import is_transformed, transformed_weights
from keras_mot.layers.transformed_weight import TransformedWeight
from keras_mot.layers.updates import UpdateTransforms, update_due, update_step

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
