"""Targets: what runtimes demand of quantized models."""

from keras_mot.targets.costs import Cost, Costs
from keras_mot.targets.ethos_u import ETHOS_U, ETHOS_U85
from keras_mot.targets.litert import LITERT
from keras_mot.targets.micro import MICRO
from keras_mot.targets.target import BiasForm as BiasForm
from keras_mot.targets.target import Target, get, register, target_of

__all__ = ["ETHOS_U", "ETHOS_U85", "LITERT", "MICRO", "Cost", "Costs", "Target", "get", "register", "target_of"]
