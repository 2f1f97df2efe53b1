"""Android's Neural Networks API (NNAPI), through LiteRT's delegate."""

from keras_mot.targets.rules.rules import Rules

_27, _28, _29, _30 = 27, 28, 29, 30  # Android 8.1 to 11: NNAPI 1.0 to 1.3
_NUMBERS = ("FLOAT32", "FLOAT16", "UINT8", "INT8")
_BYTES_OR_FLOATS = ("input_types", 0, *_NUMBERS)
_OR_INT32 = ("input_types", 0, *_NUMBERS, "INT32")
_FLOATS = ("input_types", 0, "FLOAT32", "FLOAT16")
_ONLY_FLOAT32 = ("input_types", 0, "FLOAT32")
_UNSIGNED = ("before", _29, "input_types", 0, "FLOAT32", "FLOAT16", "UINT8")
_COMPARED = (("since", _28), ("input_types", 0, "FLOAT32", "UINT8", "INT8", "BOOL", "INT32"), ("version", 2))
_ARGUMENT = (("since", _29), _OR_INT32, ("output_types", 0, "INT32"), ("version", 2))
_ELEMENT_WISE = (_BYTES_OR_FLOATS, ("version", 2))
_FLOAT_FUNCTION = (("since", _29), _FLOATS, ("version", 1))
_LOGICAL = (("since", _29), ("input_types", 0, "BOOL"), ("version", 1))
_EXTREME = (("since", _29), ("input_types", 0, "FLOAT32", "UINT8", "INT8", "INT32"), ("version", 3))
_REDUCED = (("since", _29), ("input_types", 0, "FLOAT32", "UINT8", "INT8"), ("version", 2))
_SLOPE = (("since", _29), ("input_types", 0, "FLOAT32", "UINT8", "INT8"), ("version", 1))
_SUMMED = (("since", _29), _ONLY_FLOAT32, ("version", 1))
_CONVOLUTION = (
    ("version", 3),
    ("input_types", 0, *_NUMBERS),
    _UNSIGNED,
    ("before", _29, "one_scale", 1),
    ("before", _29, "weights_like_input"),
    ("before", _29, "rescaled_below_one"),
    ("before", _29, "no_dilation"),
)
_RESIZED = (("version", 3), ("constant", 1), ("before", _30, "plain_corners"), ("input_types", 0, *_NUMBERS))

NNAPI = Rules(
    name="nnapi",
    title="Android NNAPI",
    source="TensorFlow, tensorflow/lite/delegates/nnapi/nnapi_delegate.cc (NNAPIDelegateKernel::Validate, commits "
    "002e5f4 and acdcab5), for the API levels 27 to 30; FULLY_CONNECTED with one scale: LiteRT issue 3596; which of "
    "these a phone's driver takes is the driver's choice",
    types=frozenset(("FLOAT32", "FLOAT16", "INT8", "UINT8", "INT32", "BOOL")),
    operators={
        "ABS": _FLOAT_FUNCTION,
        "ADD": (("version", 2), ("before", _30, *_BYTES_OR_FLOATS), _OR_INT32),
        "ARG_MAX": _ARGUMENT,
        "ARG_MIN": _ARGUMENT,
        "AVERAGE_POOL_2D": (*_ELEMENT_WISE, ("integer_window", 256)),
        "BATCH_TO_SPACE_ND": (("since", _28), ("version", 2), ("no_crops",)),
        "CAST": (("since", _29), ("version", 1), ("input_types", 0, "FLOAT32", "INT32", "UINT8", "INT8")),
        "CONCATENATION": (("version", 2), ("no_activation",), ("most_axes", 4), _BYTES_OR_FLOATS),
        "CONV_2D": (*_CONVOLUTION, ("has_bias", 2)),
        "DENSIFY": (("since", _30), ("constant", 0)),
        "DEPTHWISE_CONV_2D": _CONVOLUTION,
        "DEPTH_TO_SPACE": (("input_types", 0, "FLOAT32", "UINT8", "INT8"),),
        "DEQUANTIZE": (("version", 2), ("input_types", 0, "UINT8", "INT8"), ("before", _29, "input_types", 0, "UINT8")),
        "DIV": (("since", _28), _ONLY_FLOAT32, ("version", 1)),
        "ELU": (("since", _30), _ONLY_FLOAT32, ("version", 1)),
        "EXP": _FLOAT_FUNCTION,
        "EXPAND_DIMS": (("since", _29), _OR_INT32, ("constant", 1), ("version", 1)),
        "FILL": (("since", _30), ("constant", 0), ("version", 1)),
        "FLOOR": (("version", 1),),
        "FULLY_CONNECTED": (
            ("version", 5),
            ("input_types", 0, *_NUMBERS),
            _UNSIGNED,
            ("one_scale", 1),
            ("before", _29, "weights_like_input"),
            ("before", _29, "rescaled_below_one"),
            ("before", _30, "no_kept_axes"),
        ),
        "GATHER": (("since", _29), _OR_INT32, ("input_types", 1, "INT32"), ("version", 2)),
        "HARD_SWISH": (_BYTES_OR_FLOATS,),
        "L2_NORMALIZATION": (("version", 2), ("no_activation",), ("before", _29, *_FLOATS)),
        "L2_POOL_2D": (_FLOATS, ("version", 1), ("before", _29, "no_activation")),
        "LEAKY_RELU": _SLOPE,
        "LOG": _FLOAT_FUNCTION,
        "LOGICAL_AND": _LOGICAL,
        "LOGICAL_NOT": _LOGICAL,
        "LOGICAL_OR": _LOGICAL,
        "LOGISTIC": _ELEMENT_WISE,
        "LOG_SOFTMAX": _SUMMED,
        "MAXIMUM": _EXTREME,
        "MAX_POOL_2D": _ELEMENT_WISE,
        "MEAN": (
            ("since", _28),
            ("version", 2),
            ("before", _29, *_ONLY_FLOAT32),
            ("input_types", 0, "FLOAT32", "UINT8", "INT8"),
            ("same_quantization",),
            ("not_a_scalar",),
        ),
        "MINIMUM": _EXTREME,
        "MUL": (("version", 2), ("before", _30, *_BYTES_OR_FLOATS), _OR_INT32),
        "NEG": (("since", _28), ("input_types", 0, "FLOAT32", "INT32"), ("version", 2)),
        "PACK": (("since", _30), ("input_types", 0, "INT32", "FLOAT32", "INT8"), ("version", 2), ("not_along", -1)),
        "PAD": (("since", _28), ("version", 2), _BYTES_OR_FLOATS, ("before", _29, *_ONLY_FLOAT32)),
        "PADV2": (("since", _29), ("version", 2), _BYTES_OR_FLOATS),
        "POW": _FLOAT_FUNCTION,
        "PRELU": _SLOPE,
        "QUANTIZE": (
            ("since", _29),
            ("version", 2),
            ("before", _30, "output_types", 0, "UINT8"),
            ("from_float_or_byte",),
        ),
        "REDUCE_ANY": (("since", _29), ("version", 2), ("not_a_scalar",)),
        "REDUCE_MAX": _REDUCED,
        "REDUCE_MIN": _REDUCED,
        "REDUCE_PROD": (*_SUMMED, ("not_a_scalar",)),
        "RELU": _ELEMENT_WISE,
        "RELU6": _ELEMENT_WISE,
        "RELU_N1_TO_1": _ELEMENT_WISE,
        "RESHAPE": (("version", 1), _BYTES_OR_FLOATS, ("constant", 1)),
        "RESIZE_BILINEAR": (*_RESIZED, ("before", _29, *_ONLY_FLOAT32), ("before", _29, "square")),
        "RESIZE_NEAREST_NEIGHBOR": (("since", _29), *_RESIZED),
        "RSQRT": _FLOAT_FUNCTION,
        "SELECT": (("since", _28), ("version", 2), ("equal_shapes", 0, 1)),
        "SIN": _FLOAT_FUNCTION,
        "SLICE": (("since", _29), ("version", 2), ("input_types", 0, "FLOAT32", "INT32", "UINT8", "INT8")),
        "SOFTMAX": (("version", 2), _BYTES_OR_FLOATS, ("most_axes", 4), ("before", _29, "axes", 2, 4)),
        "SPACE_TO_BATCH_ND": (("since", _28), ("version", 2)),
        "SPACE_TO_DEPTH": (("version", 2), ("input_types", 0, "FLOAT32", "UINT8", "INT8")),
        "SPLIT": (
            ("since", _29),
            ("version", 3),
            ("constant", 0),
            ("before", _30, "input_types", 1, "FLOAT32", "UINT8", "INT32"),
            ("input_types", 1, "FLOAT32", "UINT8", "INT8", "INT32"),
        ),
        "SPLIT_V": (("since", _30), ("version", 2), ("constant", 1), ("constant", 2)),
        "SQRT": _FLOAT_FUNCTION,
        "SQUARED_DIFFERENCE": (("since", _28), ("version", 2), ("most_axes", 4)),
        "SQUEEZE": (("since", _28), ("version", 1)),
        "STRIDED_SLICE": (("since", _28), ("version", 2)),
        "SUB": (
            ("since", _28),
            ("version", 3),
            ("before", _29, *_FLOATS),
            ("before", _30, *_BYTES_OR_FLOATS),
            _OR_INT32,
            ("most_axes", 4),
        ),
        "SUM": (*_SUMMED, ("not_a_scalar",)),
        "TANH": (("version", 2), ("before", _29, *_FLOATS), _BYTES_OR_FLOATS),
        "TILE": (("since", _29), ("version", 1), ("input_types", 0, "FLOAT32", "INT8", "UINT8", "INT32")),
        "TOPK_V2": (("since", _29), ("version", 2), ("constant", 1)),
        "TRANSPOSE": (("since", _28), ("version", 2), ("constant", 1)),
        "TRANSPOSE_CONV": (("since", _29), ("version", 3), ("constant", 0), ("constant", 1)),
        **{name: _COMPARED for name in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")},
    },
    levels=(_27, _30),
)
