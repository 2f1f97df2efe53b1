"""Arm's Ethos-U NPUs, beside a microcontroller that computes what they do not take."""

import dataclasses

from keras_mot.targets.litert import LITERT
from keras_mot.targets.micro import MICRO
from keras_mot.targets.target import register

# What Vela 5.2 places on the NPU (its report of supported operators), and TFLM has no kernel of 8 bits for.
_BY_NPU_ALONE = {"GELU", "EXP", "LOG", "SQUARED_DIFFERENCE", "RSQRT"}

ETHOS_U = register(
    dataclasses.replace(
        MICRO,
        name="ethos-u",
        kernels={8: LITERT.kernels[8]},
        weight_bits=(8,),
        per_channel={8: LITERT.per_channel[8]},
        rounded_once=LITERT.rounded_once,
        operators=MICRO.operators | _BY_NPU_ALONE,
        runtime="litert",
        accelerator="ethos-u55-128",
    )
)
"""Ethos-U55: files as for microcontrollers, which Vela compiles. The NPU has more kernels than TFLM."""

ETHOS_U85 = register(dataclasses.replace(ETHOS_U, name="ethos-u85", accelerator="ethos-u85-256"))
"""The same for Ethos-U85."""
