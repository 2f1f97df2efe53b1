"""LiteRT for Microcontrollers (TFLM): what its kernels compute in integers of 8 bits."""

import dataclasses

from keras_mot.targets.litert import LITERT
from keras_mot.targets.target import register

# The resolver of TFLM (`micro_mutable_op_resolver.h`), less what reads and writes variables or calls other graphs, and
# less RELU6, which is right there only between tensors of one scale.
_OPERATORS = (
    "ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CAST "
    "CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU "
    "EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER "
    "GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOG_SOFTMAX LOGICAL_AND "
    "LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 "
    "PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 "
    "ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNPACK ZEROS_LIKE "
)

MICRO = register(
    dataclasses.replace(
        LITERT,
        name="micro",
        # It has no GELU, and EXP and LOG for floats only: tables stand for these.
        kernels={8: LITERT.kernels[8] - {"gelu", "exponential", "log"}},
        activations={8: LITERT.activations[8]},
        fixed_ranges={8: LITERT.fixed_ranges[8]},
        saturation={8: LITERT.saturation[8]},
        biases={8: LITERT.biases[8]},
        rounded_once=frozenset(),
        open_batch=False,
        floats=False,
        file_type="int8",
        operators=frozenset(_OPERATORS.split()),
        most_axes={"STRIDED_SLICE": 4},
        runtime="micro",
        costs={},
        dynamic={},
        block_sizes={},
    )
)
"""LiteRT for Microcontrollers: batches of one sample, integers of 8 bits in and out, and no floats between."""
