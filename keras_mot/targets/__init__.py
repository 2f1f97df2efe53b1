"""Targets: what runtimes demand of quantized models."""

from keras_mot.targets.litert import LITERT
from keras_mot.targets.target import BiasForm, Target, get, register
from keras_mot.targets.target import target_of as target_of

__all__ = ["LITERT", "BiasForm", "Target", "get", "register"]
