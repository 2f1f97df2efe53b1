"""What accelerators publish of the files that they take, one table each; `keras_mot.analysis.check` applies them."""

from keras_mot.targets.rules.edgetpu import EDGETPU
from keras_mot.targets.rules.ethos_u import ETHOS_U55, ETHOS_U85
from keras_mot.targets.rules.micro import MICRO_RULES
from keras_mot.targets.rules.nnapi import NNAPI
from keras_mot.targets.rules.rules import Limit, Rules

RULES = {rules.name: rules for rules in (EDGETPU, NNAPI, ETHOS_U55, ETHOS_U85, MICRO_RULES)}
"""The `Rules` by the names of targets."""

__all__ = ["RULES", "Limit", "Rules"]
