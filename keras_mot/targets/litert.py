"""LiteRT, the runtime formerly called TensorFlow Lite, as far as quantized models depend on it."""

from keras_mot.targets.costs import Cost, Costs
from keras_mot.targets.target import BiasForm, Target, register
from keras_mot.transforms.grid import Grid

_WEIGHTED = frozenset(("dense", "conv", "conv_transpose", "depthwise_conv"))
_KERNELS = _WEIGHTED.union(
    ("embedding", "identity", "crop", "upsample", "reshape", "repeat", "transpose", "squeeze", "expand_dims", "slice"),
    (
        "flip",
        "roll",
        "tile",
        "split",
        "unstack",
        "take",
        "pad",
        "max_pool",
        "global_max_pool",
        "max",
        "min",
        "average_pool",
    ),
    ("resize_bilinear", "mean", "weighted_mean", "sum", "concatenate", "stack", "add", "subtract", "multiply"),
    ("maximum", "minimum", "matmul", "dot", "prelu", "absolute"),
    ("linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "softmax", "silu", "hard_silu", "hard_sigmoid"),
    ("gelu", "elu", "exponential", "log", "log_softmax", "clip", "argmax", "argmin", "compare", "where"),
)
_DYNAMIC = frozenset(("dense", "embedding"))
# These kernels take activations of 8 bits alone, or compute something else of 16 (sums).
_ONLY_8_BITS = {"sum", "prelu", "elu", "gelu", "log", "log_softmax", "argmax", "argmin"}
_LARGEST = 32767 / 32768

# Measured by `benchmarks/operator_costs.py`, one thread of a Xeon with AVX-512, LiteRT 2.3: nanoseconds for each
# element or multiplication. Left out are sums and products of elements: they differ by less than it takes to get to
# floats and back. So are layers with weights, which gain by a factor of 2.5 to 3.2.
_NORMALIZATION = Cost(0.7, 3.0)
_COSTS = Costs(
    {
        "softmax": Cost(0.26, 2.1),
        "matmul": Cost(0.011, 0.2),
        "dot": Cost(0.011, 0.2),
        "transpose": Cost(0.23, 0.08),
        "concatenate": Cost(0.28, 0.09),
        "sigmoid": Cost(0.16, 0.06),
        "tanh": Cost(0.15, 0.06),
        # Between two conversions, XNNPACK computes floats of these as one table: most of the time is theirs.
        "gelu": Cost(0.05, 0.41),
        "exponential": Cost(0.05, 0.37),
        "log": Cost(0.05, 0.3),
        "absolute": Cost(0.05, 4.0),
        "layer_normalization": _NORMALIZATION,
        "group_normalization": _NORMALIZATION,
        "rms_normalization": _NORMALIZATION,
        "unit_normalization": _NORMALIZATION,
    },
    table=Cost(0.05, 4.9),
    crossing=0.035,
    conversion=200.0,
)

LITERT = register(
    Target(
        name="litert",
        kernels={8: _KERNELS, 16: _KERNELS - _ONLY_8_BITS},
        activations={8: Grid(8, symmetric=False, narrow=False), 16: Grid(16)},
        ranks=(None, 1, 2),
        fused=("relu", "relu6"),
        fixed_ranges={
            8: {
                **{"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)},
                "log_softmax": (-255 / 16, 0.0),
            },
            16: dict.fromkeys(("sigmoid", "softmax", "tanh"), (-_LARGEST, _LARGEST)),
        },
        saturation={8: {"sigmoid": 8.0, "tanh": 4.0}, 16: {"sigmoid": 12.0, "tanh": 6.0}},
        weight_bits=(4, 8),
        per_channel={4: _WEIGHTED, 8: _WEIGHTED},
        # With 8 bits, the rest of 32 bits is for the sum.
        biases={8: BiasForm(32, 2**30), 16: BiasForm(64)},
        rounded_once=frozenset({"dense"}),
        tables=frozenset({8}),
        costs={8: _COSTS},
        # Of blocks, there are kernels for 4 bits: XNNPACK's for dense layers, LiteRT's own for rows of tables.
        dynamic={4: _DYNAMIC, 8: _DYNAMIC},
        block_sizes={4: (32, 64, 128, 256)},
    )
)
"""LiteRT: kernels of XNNPACK, and its reference kernels, which LiteRT for Microcontrollers has too."""
