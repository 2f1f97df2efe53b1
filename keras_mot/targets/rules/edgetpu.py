"""Coral's Edge TPU."""

from keras_mot.targets.rules.rules import Rules

_FREE = (
    "ADD EXPAND_DIMS L2_NORMALIZATION LOGISTIC MAXIMUM MINIMUM MUL QUANTIZE RELU RELU6 RELU_N1_TO_1 RESHAPE RSQRT "
    "SLICE SPACE_TO_DEPTH SQUEEZE SUB SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM"
)
_NOT_OVER_BATCH = ("not_over_batch",)

EDGETPU = Rules(
    name="edgetpu",
    title="Coral Edge TPU",
    source="Coral, 'TensorFlow models on the Edge TPU' (coral.ai/docs/edgetpu/models-intro): the table of supported "
    "operations, for runtime version 14 (Edge TPU Compiler 16.0)",
    types=frozenset(("INT8", "UINT8")),
    demands=(("inner_axes", 3), ("constant_weights",)),
    operators={
        **dict.fromkeys(_FREE.split(), ()),
        "AVERAGE_POOL_2D": (("no_activation",),),
        "CONCATENATION": (("no_activation",), ("constants_are_zero",)),
        "CONV_2D": (("equal_dilation",),),
        "DEPTHWISE_CONV_2D": (("equal_dilation",),),
        "FULLY_CONNECTED": (("default_weights_format",), ("vector_result",)),
        "MAX_POOL_2D": (("no_activation",),),
        "MEAN": (_NOT_OVER_BATCH, ("depth_multiple_if_reduced", 4)),
        "PACK": (("not_along", 0),),
        "PAD": (("batch_unpadded",),),
        "PRELU": (("slope_of_last_axis",),),
        "REDUCE_MAX": (_NOT_OVER_BATCH,),
        "REDUCE_MIN": (_NOT_OVER_BATCH,),
        "RESIZE_BILINEAR": (("most_axes", 4),),
        "RESIZE_NEAREST_NEIGHBOR": (("most_axes", 4),),
        "SOFTMAX": (("vector_input",), ("most_elements", 16_000)),
        "SPLIT": (("not_split_over_batch",),),
        "STRIDED_SLICE": (("unit_strides",), ("no_ellipsis",), ("no_new_axis",)),
        "SUM": (_NOT_OVER_BATCH,),
    },
    open_sizes=0,
    in_one_part=True,
)
