"""Arm's Ethos-U NPUs, where Vela is not there to say it itself."""

from keras_mot.targets.rules.rules import Rules

_SOURCE = "Arm, Vela 5.2.0, report of supported operators (`vela --supported-ops-report`): {}"
_BYTES = ("INT8", "UINT8", "INT16")
_NOT_32_BITS = ("activation_types", *_BYTES)
_BIAS = (("constant_bias",), ("bias_types", "INT32", "INT64"))
_WEIGHTS = (("weight_types", "INT8", "UINT8"), *_BIAS)
_WINDOW = ("same_window", 8), ("valid_window", 256 * 256, 256)
_STRIDE = ("stride", 1, 3)
_LARGE_STRIDE = ("large_stride_unpadded", 3)
_LIKE_RESULT = ("quantized_like_result",)
_FACTORS = ("resized_by", 2, 4, 8)
_MEAN = (("activation_types", *_BYTES), ("batch", 1), ("constant", 1), ("longest_reduced", 4095))
_U55_FREE = (
    "ABS CONCATENATION EXP HARD_SWISH LEAKY_RELU LOGISTIC PACK PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RELU_0_TO_1 RELU_N1_TO_1 REVERSE_V2 SPLIT SPLIT_V SQUARED_DIFFERENCE TANH TILE UNPACK"
)
_ANY = "ADD EXPAND_DIMS MUL NEG RESHAPE SQUEEZE SUB"

ETHOS_U55 = Rules(
    name="ethos-u55",
    title="Arm Ethos-U55 and U65",
    source=_SOURCE.format("Ethos-U55 and Ethos-U65, LiteRT"),
    types=frozenset(("INT8", "UINT8", "INT16", "INT32")),
    demands=(("one_scale_of_activations",), ("quantized",)),
    exceptions={
        "quantized": frozenset(["ARG_MAX", "EXPAND_DIMS", "MIRROR_PAD", "PAD", "PADV2", "QUANTIZE", "TRANSPOSE"])
    },
    operators={
        **dict.fromkeys(_ANY.split(), ()),
        **dict.fromkeys(_U55_FREE.split(), (_NOT_32_BITS,)),
        "ARG_MAX": (("most_channels", 127), ("along_last_axis",)),
        "AVERAGE_POOL_2D": (_NOT_32_BITS, *_WINDOW, _LARGE_STRIDE),
        "BATCH_MATMUL": (("activation_types", "INT8"),),
        "CONV_2D": (_NOT_32_BITS, *_WEIGHTS, _LARGE_STRIDE),
        "DEPTHWISE_CONV_2D": (_NOT_32_BITS, *_WEIGHTS, _STRIDE),
        "ELU": (("activation_types", "INT8"),),
        "FULLY_CONNECTED": (_NOT_32_BITS, *_WEIGHTS),
        "GELU": (("activation_types", "INT8", "UINT8"),),
        "LOG": (("activation_types", "INT8", "INT16"),),
        "MAXIMUM": (_NOT_32_BITS, _LIKE_RESULT),
        "MAX_POOL_2D": (_NOT_32_BITS, ("valid_window", 256 * 256, 256), _LARGE_STRIDE),
        "MEAN": _MEAN,
        "MINIMUM": (_NOT_32_BITS, _LIKE_RESULT),
        "MIRROR_PAD": (("constant", 1),),
        "PAD": (_NOT_32_BITS, ("constant", 1)),
        "PADV2": (_NOT_32_BITS, ("constant", 1)),
        "RESIZE_BILINEAR": (_NOT_32_BITS, _FACTORS),
        "RESIZE_NEAREST_NEIGHBOR": (_NOT_32_BITS, _FACTORS),
        "RSQRT": (("activation_types", "INT8", "INT16"),),
        "SLICE": (_NOT_32_BITS, ("constant", 1), ("constant", 2)),
        "SOFTMAX": (_NOT_32_BITS, ("most_rows", 65535)),
        "STRIDED_SLICE": (_NOT_32_BITS, ("constant", 1), ("constant", 2), ("constant", 3), ("positive_strides",)),
        "SUM": (),
        "TRANSPOSE": (("constant", 1), ("most_axes", 8)),
        "TRANSPOSE_CONV": (_NOT_32_BITS, *_WEIGHTS, ("stride", 1, 2)),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": (_NOT_32_BITS,),
    },
)

_U85_FREE = (
    "ABS ARG_MAX BATCH_MATMUL CAST CONCATENATION DIV EQUAL EXP GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS "
    "LESS_EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC NOT_EQUAL PACK PRELU QUANTIZE REDUCE_ALL REDUCE_ANY "
    "REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 REVERSE_V2 "
    "SCATTER_ND SELECT SELECT_V2 SPLIT SPLIT_V SQUARED_DIFFERENCE SUM TANH TILE TRANSPOSE "
    "UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)

ETHOS_U85 = Rules(
    name="ethos-u85",
    title="Arm Ethos-U85",
    source=_SOURCE.format("Ethos-U85, LiteRT"),
    types=frozenset(("BOOL", "INT8", "UINT8", "INT16", "INT32")),
    demands=(("one_scale_of_activations",),),
    operators={
        **dict.fromkeys((*_ANY.split(), *_U85_FREE.split()), ()),
        "AVERAGE_POOL_2D": _WINDOW,
        "CONV_2D": _WEIGHTS,
        "DEPTHWISE_CONV_2D": _WEIGHTS,
        "ELU": (("activation_types", "INT8"),),
        "FULLY_CONNECTED": _WEIGHTS,
        "GATHER": (("along_batch_axes",),),
        "GELU": (("activation_types", "INT8", "UINT8"),),
        "LOG": (("activation_types", "INT8", "INT16"),),
        "MAXIMUM": (_LIKE_RESULT,),
        "MAX_POOL_2D": (("valid_window", 256 * 256, 256),),
        "MEAN": _MEAN,
        "MINIMUM": (_LIKE_RESULT,),
        "MIRROR_PAD": (("constant", 1),),
        "PAD": (("constant", 1),),
        "PADV2": (("constant", 1),),
        "RESIZE_BILINEAR": (("resized_by", *(2**power for power in range(1, 11))),),
        "RESIZE_NEAREST_NEIGHBOR": (),
        "RSQRT": (("activation_types", "INT8", "INT16"),),
        "SLICE": (("constant", 1), ("constant", 2)),
        "SOFTMAX": (("most_rows", 65535),),
        "STRIDED_SLICE": (("constant", 1), ("constant", 2), ("constant", 3)),
        "TRANSPOSE_CONV": _WEIGHTS,
    },
)
