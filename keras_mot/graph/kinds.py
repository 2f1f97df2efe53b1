"""The one table of what an operation is: layers and operations of `keras.ops` alike, by their classes.

What treats kinds of operations alike asks it: placement, lowering, folding, equalization, channels, reference kernels.
A layer of one's own joins by one row, `register_kind(MyLayer, ...)`. Which of the kinds a runtime has integer kernels
for is said by a `keras_mot.targets.Target`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_mot._keras import operation_class
from keras_mot._messages import describe
from keras_mot.graph.functional import is_a
from keras_mot.layers import WeightAxes, WeightSpec, register_weights
from keras_mot.layers.transformed import plain_class

# Roles.
WEIGHTED = "weighted"  # sums of products with a kernel
MOVES = "moves"  # the same numbers, elsewhere, or fewer of them
PADS = "pads"  # the same numbers, and others beyond a border
PICKS = "picks"  # the largest or smallest of several numbers
JOINS = "joins"  # the numbers of several tensors in one
MERGES = "merges"  # tensors (or a tensor and a constant), element by element
ACTIVATION = "activation"  # a function of each element, or of all channels (softmax)
ELEMENTWISE = "element-wise"  # another function of each element, with weights or without
AVERAGES = "averages"  # means of several numbers
REDUCES = "reduces"  # sums of several numbers
PRODUCTS = "products"  # sums of products of two tensors
LOOKS_UP = "looks up"  # rows of a table
NORMALIZES = "normalizes"
ROLES = (
    *(WEIGHTED, MOVES, PADS, PICKS, JOINS, MERGES, ACTIVATION, ELEMENTWISE),
    *(AVERAGES, REDUCES, PRODUCTS, LOOKS_UP, NORMALIZES),
)

# What integers the result of an operation has whose inputs are integers.
OWN = "own"  # those of a range of its own
SAME = "same"  # those of its input, which it moves
ROUNDED = "rounded"  # those of its input, to which it is rounded


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the operations of a class compute.

    Attributes:
        name: of the computation, such as "conv" or "add"; targets name their kernels so. Layers and operations that
            compute the same have one name, though they may differ in what is known of them.
        role: one of `ROLES`.
        ranges: which integers the result has, if there is a kernel for integers: `OWN`, `SAME` or `ROUNDED`.
        rank: number of the positions' axes (2 for images), or `None` where the computation does not depend on it.
        homogeneous: whether f(s * x) = s * f(x) for every s > 0, for each channel by itself if `channels_stay`.
        channels_stay: whether each channel of the result is made of the same channel of the inputs; after flattening,
            of every n-th.
        keeps_constants: whether a channel that is one constant everywhere becomes that constant everywhere.
        fuses: whether kernels compute an activation that follows in one step with it, see `Target.fused`.
        function: of what merges, the function of two NumPy arrays.
        kernel: of what is weighted, the attribute that holds the kernel; its axes are those of `find_weights`.
        bias: the attribute that holds the bias, where there is one.
        condition: function from an operation to whether it computes as this row says; `None` for all.
        steps: function from an operation and the inputs of a call to its outputs, by operations that have kernels: what
            stands for the operation in a quantized model; `None` for what is one step itself.
    """

    name: str
    role: str
    ranges: str = OWN
    rank: int | None = None
    homogeneous: bool = False
    channels_stay: bool = False
    keeps_constants: bool = False
    fuses: bool = False
    function: Callable | None = None
    kernel: str | None = None
    bias: str | None = None
    condition: Callable[[Any], bool] | None = None
    steps: Callable | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(f"`role` should be one of {', '.join(ROLES)}; received {describe(self.role)}.")
        if self.ranges not in (OWN, SAME, ROUNDED):
            raise ValueError(f"`ranges` should be '{OWN}', '{SAME}' or '{ROUNDED}'; received {describe(self.ranges)}.")
        if (self.role == WEIGHTED) != (self.kernel is not None):
            raise ValueError(f"`kernel` belongs to the role '{WEIGHTED}', and to no other; received {self}.")


FUSED_ACTIVATIONS = ("relu", "relu6")
"""What runtimes compute within the operation before it."""

_TABLE = {}  # class -> its rows; the first whose condition holds is that of an operation


def kind_of(operation: Any) -> Kind | None:
    """What an operation is.

    Args:
        operation: a layer, or an operation of `keras.ops`.

    Returns:
        Its row of the table; `None` for classes that are not in it, and for subclasses of those that compute otherwise:
        with a `call`, or another method or property, of their own.
    """
    for known in plain_class(operation).__mro__:
        if known in _TABLE and is_a(operation, known):
            return next((kind for kind in _TABLE[known] if kind.condition is None or kind.condition(operation)), None)
    return None


def is_kind(operation: Any, *names: str) -> bool:
    """Whether an operation is of a kind with one of these names."""
    kind = kind_of(operation)
    return kind is not None and kind.name in names


def has_role(operation: Any, *roles: str) -> bool:
    """Whether an operation is of a kind with one of these roles."""
    kind = kind_of(operation)
    return kind is not None and kind.role in roles


def activation_of(operation: Any) -> str | None:
    """The name of the activation that a layer or operation computes and nothing else, or `None`."""
    kind = kind_of(operation)
    return kind.name if kind is not None and kind.role == ACTIVATION else None


def kernel_of(layer: keras.layers.Layer) -> keras.Variable:
    """The variable that holds the kernel of a weighted layer."""
    return getattr(layer, kind_of(layer).kernel)


def bias_of(layer: keras.layers.Layer) -> keras.Variable | None:
    """The variable that holds the bias of a weighted layer, or `None` if it has none."""
    name = kind_of(layer).bias
    return None if name is None else getattr(layer, name, None)


def register_kind(
    cls: type,
    like: Kind | type,
    *,
    kernel: str | None = None,
    axes: WeightAxes | None = None,
    **changes: Any,
) -> type:
    """Says what the operations of a user's own class are, so that they compute in integers in quantized models.

    A layer with a kernel computes its result from it in one step of the runtime: a product of matrices or a
    convolution, plus a bias perhaps, plus ReLU perhaps (as the attribute `activation`).

    Args:
        cls: a subclass of `keras.layers.Layer` or `keras.Operation`; its subclasses are included if they compute as it
            does.
        like: a layer class of Keras with one row of the table whose integer kernel computes this, too, such as
            `keras.layers.Dense`, or a `Kind`.
        kernel: the attribute that holds the kernel, if it is another than that of `like`.
        axes: what the axes of the kernel mean. It is registered as a weight that can be transformed if this is given;
            otherwise `keras_mot.layers.register_weights` says so, or the class that it inherits from.
        **changes: other attributes of `Kind` that differ from those of `like`.

    Returns:
        `cls`.

    Raises:
        TypeError: if `cls` is no such class, or `like` is neither a class nor a `Kind`.
        ValueError: if `like` has no row, or rows that depend on what an operation is configured to.

    Example:

    ```python
    register_kind(TransposedDense, keras.layers.Dense, kernel="matrix", axes=WeightAxes(inputs=(1,), outputs=(0,)))
    register_kind(Clip, Kind("clip", "element-wise"))
    ```
    """
    if not (isinstance(cls, type) and issubclass(cls, keras.Operation)):
        raise TypeError(f"`cls` should be a subclass of `keras.layers.Layer`; received {describe(cls)}.")
    if not isinstance(like, Kind):
        like = _only_row(like)
    if kernel is not None:
        changes["kernel"] = kernel
    kind = dataclasses.replace(like, **changes)
    if axes is not None:
        register_weights(cls, [WeightSpec(kind.kernel, axes, depthwise=kind.name == "depthwise_conv")])
    _TABLE[cls] = (kind,)
    return cls


def _only_row(like):
    if not isinstance(like, type):
        raise TypeError(f"`like` should be a layer class or a `Kind`; received {describe(like)}.")
    rows = _TABLE.get(like, ())
    if len(rows) != 1 or rows[0].condition is not None:
        what = "what it is depends on how it is configured" if rows else "nothing is known of it"
        raise ValueError(
            f"`like` should be a class of one kind, such as `keras.layers.Dense`; {like.__name__} is not: {what}. "
            "Describe the computation by a `Kind`."
        )
    return rows[0]


def _row(kind, *classes):
    """Adds a row for some classes; a name stands for an operation of `keras.ops`, which may not have it."""
    for cls in classes:
        cls = operation_class(cls) if isinstance(cls, str) else cls
        if cls is not None:
            _TABLE[cls] = (*_TABLE.get(cls, ()), kind)


def _rows_by_rank(kind, *classes):
    """Adds a row for each of the classes that compute the same on positions with 1, 2, ... axes."""
    for rank, cls in enumerate(classes, 1):
        _row(dataclasses.replace(kind, rank=rank), cls)


# Kernels.
_SUMS = Kind("dense", WEIGHTED, fuses=True, kernel="kernel", bias="bias")
_row(_SUMS, layers.Dense)
_rows_by_rank(dataclasses.replace(_SUMS, name="conv"), layers.Conv1D, layers.Conv2D, layers.Conv3D)
_rows_by_rank(
    dataclasses.replace(_SUMS, name="conv_transpose"),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
)
_rows_by_rank(
    dataclasses.replace(_SUMS, name="depthwise_conv", channels_stay=True),
    *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
)
_rows_by_rank(
    dataclasses.replace(_SUMS, name="separable_conv", kernel="pointwise_kernel"),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
)
_row(Kind("embedding", LOOKS_UP), layers.Embedding)
_row(Kind("batch_normalization", NORMALIZES, channels_stay=True), layers.BatchNormalization)

# The same numbers.
_STAYS = Kind("identity", MOVES, SAME, homogeneous=True, channels_stay=True, keeps_constants=True)
_row(
    _STAYS,
    *(layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization),
)
_rows_by_rank(dataclasses.replace(_STAYS, name="crop"), layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
_NEAREST = dataclasses.replace(_STAYS, name="upsample")
_row(dataclasses.replace(_NEAREST, rank=1), layers.UpSampling1D)
_row(
    dataclasses.replace(_NEAREST, rank=2, condition=lambda layer: layer.interpolation == "nearest"), layers.UpSampling2D
)
_row(dataclasses.replace(_NEAREST, rank=3), layers.UpSampling3D)
_row(dataclasses.replace(_STAYS, name="reshape", keeps_constants=False), layers.Flatten, layers.Reshape)
_row(dataclasses.replace(_STAYS, name="repeat"), layers.RepeatVector)
_row(Kind("transpose", MOVES, SAME, homogeneous=True), layers.Permute, "Transpose", "Swapaxes", "Moveaxis")
for _name, _class in (
    *(("reshape", "Reshape"), ("reshape", "Ravel"), ("squeeze", "Squeeze"), ("expand_dims", "ExpandDims")),
    *(("slice", "GetItem"), ("flip", "Flip"), ("tile", "Tile"), ("split", "Split"), ("unstack", "Unstack")),
    *(("repeat", "Repeat"), ("take", "Take")),
):
    _row(Kind(_name, MOVES, SAME, homogeneous=True), _class)
_rows_by_rank(
    Kind("pad", PADS, SAME, homogeneous=True, channels_stay=True),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
)
_row(Kind("pad", PADS, SAME), "Pad")

# One of several numbers, or their mean or sum.
_OF_POSITIONS = {"homogeneous": True, "channels_stay": True, "keeps_constants": True}
_rows_by_rank(
    Kind("max_pool", PICKS, SAME, **_OF_POSITIONS), layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D
)
_rows_by_rank(
    Kind("global_max_pool", PICKS, SAME, **_OF_POSITIONS),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
)
_row(Kind("max_pool", PICKS, SAME, homogeneous=True), "MaxPool")
_row(Kind("max", PICKS, SAME, homogeneous=True), "Max")
_row(Kind("min", PICKS, SAME, homogeneous=True), "Min")
_rows_by_rank(
    Kind("average_pool", AVERAGES, ROUNDED, **_OF_POSITIONS),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
)
_row(Kind("average_pool", AVERAGES, ROUNDED, homogeneous=True), "AveragePool")
_row(
    Kind(
        "resize_bilinear",
        AVERAGES,
        ROUNDED,
        rank=2,
        **_OF_POSITIONS,
        condition=lambda layer: layer.interpolation == "bilinear",
    ),
    layers.UpSampling2D,
)
_row(Kind("resize", AVERAGES, rank=2, **_OF_POSITIONS), layers.UpSampling2D)  # the other interpolations
_rows_by_rank(
    Kind("mean", AVERAGES, OWN, **_OF_POSITIONS),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
)
_row(Kind("mean", AVERAGES, homogeneous=True), "Mean")
_row(Kind("weighted_mean", AVERAGES, homogeneous=True), "Average")
_row(Kind("sum", REDUCES, homogeneous=True), "Sum")

# Several tensors.
_row(Kind("concatenate", JOINS, homogeneous=True), layers.Concatenate, "Concatenate")
_row(Kind("stack", JOINS, homogeneous=True), "Stack")
for _name, _layer, _class, _function, _fuses in (
    ("add", layers.Add, "Add", np.add, True),
    ("subtract", layers.Subtract, "Subtract", np.subtract, True),
    ("multiply", layers.Multiply, "Multiply", np.multiply, True),
    ("maximum", layers.Maximum, "Maximum", np.maximum, False),
    ("minimum", layers.Minimum, "Minimum", np.minimum, False),
):
    _row(Kind(_name, MERGES, channels_stay=True, fuses=_fuses, function=_function), _layer, _class)
_row(Kind("average", MERGES, channels_stay=True), layers.Average)
_row(Kind("divide", MERGES, channels_stay=True), "Divide", "TrueDivide")
_row(Kind("matmul", PRODUCTS), "Matmul")
_row(Kind("dot", PRODUCTS, condition=lambda layer: not layer.normalize), layers.Dot)

# Functions of each element.
_row(Kind("prelu", ELEMENTWISE, homogeneous=True, channels_stay=True), layers.PReLU)
_row(Kind("absolute", ELEMENTWISE, homogeneous=True, channels_stay=True), "Absolute")
_row(Kind("negative", ELEMENTWISE, homogeneous=True, channels_stay=True), "Negative")
_row(Kind("square", ELEMENTWISE, channels_stay=True), "Square")

# Activations: of each, the function of `keras.activations` has its name, and `keras.ops` has the operation.
_OPERATIONS = {
    "linear": None,
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "silu": "Silu",
    "hard_silu": "HardSilu",
    "hard_sigmoid": "HardSigmoid",
    "gelu": "Gelu",
    "elu": "Elu",
    "selu": "Selu",
    "celu": "Celu",
    "mish": None,
    "hard_tanh": "HardTanh",
    "log_sigmoid": "LogSigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "exponential": "Exp",
    "squareplus": "Squareplus",
}
_ACTIVATIONS = {
    name: Kind(
        name,
        ACTIVATION,
        SAME if name == "linear" else OWN,
        homogeneous=name in ("linear", "relu", "leaky_relu"),
        channels_stay=name != "softmax",
        keeps_constants=name == "linear",
    )
    for name in _OPERATIONS
}
ACTIVATION_FUNCTIONS = {getattr(activations, name): name for name in _ACTIVATIONS}
"""The functions of `keras.activations` that are in the table, with the names of their kinds."""


def _add_activations():
    for name, kind in _ACTIVATIONS.items():
        if _OPERATIONS[name] is not None:
            _row(kind, _OPERATIONS[name])
        function = getattr(activations, name)
        condition = functools.partial(lambda function, layer: layer.activation is function, function)
        _row(dataclasses.replace(kind, condition=condition), layers.Activation)
    for name, cls in (("softmax", layers.Softmax), ("leaky_relu", layers.LeakyReLU), ("elu", layers.ELU)):
        _row(_ACTIVATIONS[name], cls)
    for name in ("relu", "relu6", "leaky_relu"):
        condition = functools.partial(lambda name, layer: _form_of_relu(layer) == name, name)
        _row(dataclasses.replace(_ACTIVATIONS[name], condition=condition), layers.ReLU)


def _form_of_relu(layer):
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        return None
    return "leaky_relu" if layer.negative_slope else {None: "relu", 6: "relu6"}.get(layer.max_value)


_add_activations()
