"""LiteRT for Microcontrollers, by the target that models are quantized for."""

from keras_mot.targets.micro import MICRO
from keras_mot.targets.rules.rules import Rules

MICRO_RULES = Rules(
    name=MICRO.name,
    title="LiteRT for Microcontrollers",
    source="tflite-micro, micro_mutable_op_resolver.h, as of the target 'micro'",
    types=frozenset(("INT8", "INT16", "INT32", "INT64", "BOOL")),
    operators={
        name: (("most_axes", MICRO.most_axes[name]),) if name in MICRO.most_axes else ()
        for name in sorted(MICRO.operators)
    },
    open_sizes=0,
    batch=1,
)
