"""The rows of the table of kinds: what each class of layers, and of operations of `keras.ops`, computes."""

import dataclasses
import functools

import numpy as np
from keras import activations, layers

from keras_mot._keras import operation_class
from keras_mot.graph._elementwise import divides_a_number, has_numbers, is_of_each_element, is_of_one_tensor
from keras_mot.graph._forms import casts_floats, crops_only, pads_least, pads_zeros, resizes_by
from keras_mot.graph._kind import (
    ACTIVATION,
    AVERAGES,
    ELEMENTWISE,
    JOINS,
    LOOKS_UP,
    MERGES,
    MOVES,
    NORMALIZES,
    OWN,
    PADS,
    PICKS,
    PRODUCTS,
    REDUCES,
    ROUNDED,
    SAME,
    WEIGHTED,
    Kind,
)
from keras_mot.layers.in_training import ActivityPenalty, InTraining
from keras_mot.layers.inverse_root import InverseRoot
from keras_mot.layers.masked_softmax import MaskedScores

TABLE = {}
"""Class -> its rows; the first whose condition holds is that of an operation."""


def _row(kind, *classes):
    """Adds a row for some classes; a name stands for an operation of `keras.ops`, which may not have it."""
    for cls in classes:
        cls = operation_class(cls) if isinstance(cls, str) else cls
        if cls is not None:
            TABLE[cls] = (*TABLE.get(cls, ()), kind)


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
for _name, _layer, _class in (
    ("layer_normalization", layers.LayerNormalization, "LayerNorm"),
    ("group_normalization", layers.GroupNormalization, None),
    ("rms_normalization", layers.RMSNormalization, "RMSNorm"),
    ("unit_normalization", layers.UnitNormalization, "Normalize"),
):
    _row(Kind(_name, NORMALIZES), _layer, *([] if _class is None else [_class]))
_row(Kind("inverse_root", ELEMENTWISE, channels_stay=True, table=True), InverseRoot)

# The same numbers.
_STAYS = Kind("identity", MOVES, SAME, homogeneous=True, channels_stay=True, keeps_constants=True)
_row(
    _STAYS,
    *(layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout, layers.ActivityRegularization),
)
# What augments images in training alone.
_row(
    _STAYS,
    *(
        getattr(layers, _name)
        for _name in (
            *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomShear", "RandomContrast"),
            *("RandomBrightness", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomColorDegeneration"),
            *("RandomGrayscale", "RandomInvert", "RandomPosterization", "RandomSharpness", "RandomGaussianBlur"),
            *(
                "RandomErasing",
                "RandomPerspective",
                "RandomElasticTransform",
                "RandAugment",
                "AugMix",
                "MixUp",
                "CutMix",
            ),
            *("Solarization",),
        )
        if hasattr(layers, _name)
    ),
)
_row(_STAYS, InTraining, ActivityPenalty, "StopGradient", "Copy")
_row(dataclasses.replace(_STAYS, condition=casts_floats), "Cast")
_row(dataclasses.replace(_STAYS, name="crop", condition=crops_only), layers.CenterCrop)
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
    *(("repeat", "Repeat"), ("take", "Take"), ("roll", "Roll")),
):
    _row(Kind(_name, MOVES, SAME, homogeneous=True), _class)
_rows_by_rank(
    Kind("pad", PADS, SAME, homogeneous=True, channels_stay=True),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
)
_row(Kind("pad", PADS, SAME, condition=pads_zeros), "Pad")
_row(Kind("pad", PADS, ROUNDED, condition=pads_least), "Pad")
_row(Kind("pad", PADS), "Pad")

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
_row(Kind("argmax", PICKS), "Argmax")
_row(Kind("argmin", PICKS), "Argmin")
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
for _interpolation, _kind in (
    ("bilinear", Kind("resize_bilinear", AVERAGES, ROUNDED, homogeneous=True, channels_stay=True)),
    ("nearest", Kind("upsample", MOVES, SAME, homogeneous=True, channels_stay=True)),
):
    _condition = functools.partial(resizes_by, _interpolation)
    _row(dataclasses.replace(_kind, rank=2, condition=_condition), layers.Resizing, "Resize")
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
_row(Kind("quotient", ELEMENTWISE, channels_stay=True, table=True, condition=divides_a_number), "Divide", "TrueDivide")
_row(Kind("divide", MERGES, channels_stay=True), "Divide", "TrueDivide")
_row(Kind("compare", MERGES), "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual")
_row(Kind("where", MERGES), "Where", MaskedScores)
_row(Kind("glu", MERGES), "Glu")
_row(Kind("matmul", PRODUCTS), "Matmul")
_row(Kind("dot", PRODUCTS, condition=lambda layer: not layer.normalize), layers.Dot)

# Functions of each element.
_row(Kind("prelu", ELEMENTWISE, homogeneous=True, channels_stay=True), layers.PReLU)
_row(Kind("absolute", ELEMENTWISE, homogeneous=True, channels_stay=True, table=True), "Absolute", "Abs", "Fabs")
_row(Kind("negative", ELEMENTWISE, homogeneous=True, channels_stay=True), "Negative")
_row(Kind("square", ELEMENTWISE, channels_stay=True), "Square")
_row(Kind("log", ELEMENTWISE, channels_stay=True, table=True), "Log")
_row(Kind("clip", ACTIVATION, channels_stay=True, condition=has_numbers), "Clip")
for _name in (
    *("Sqrt", "Rsqrt", "Reciprocal", "Cbrt", "Expm1", "Exp2", "Log1p", "Log2", "Log10", "Erf", "Erfc"),
    *("Sinh", "Cosh", "Sinc", "Arcsin", "Arccos", "Arctan", "Arcsinh", "Arccosh", "Arctanh"),
    *("Sign", "Floor", "Ceil", "Round", "Trunc", "Deg2rad", "Rad2deg", "NanToNum"),
):
    _row(Kind(_name.lower(), ELEMENTWISE, channels_stay=True, table=True), _name)
# Their numbers may be of many periods, and integers of 8 bits then as good as random.
for _name in ("Sin", "Cos", "Tan"):
    _row(Kind("periodic", ELEMENTWISE, channels_stay=True), _name)
# Of a tensor and a number.
for _name in ("Power", "Mod", "Fmod", "FloorDivide", "Arctan2", "Logaddexp", "Hypot"):
    _row(Kind(_name.lower(), ELEMENTWISE, channels_stay=True, table=True, condition=is_of_one_tensor), _name)

# Activations: of each, the function of `keras.activations` has its name, and `keras.ops` has the operation.
_OPERATIONS = {
    "linear": None,
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
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
    "soft_shrink": "SoftShrink",
    "hard_shrink": "HardShrink",
    "tanh_shrink": "TanhShrink",
    "threshold": "Threshold",
    "sparse_plus": "SparsePlus",
    "sparse_sigmoid": "SparseSigmoid",
}
_OF_ALL_CHANNELS = ("softmax", "log_softmax")
_ACTIVATIONS = {
    name: Kind(
        name,
        ACTIVATION,
        SAME if name == "linear" else OWN,
        homogeneous=name in ("linear", "relu", "leaky_relu"),
        channels_stay=name not in _OF_ALL_CHANNELS,
        keeps_constants=name == "linear",
        table=name not in ("linear", *_OF_ALL_CHANNELS),
    )
    for name in _OPERATIONS
    if hasattr(activations, name)
}
OF_FUNCTIONS = {getattr(activations, name): kind for name, kind in _ACTIVATIONS.items()}
"""Function of `keras.activations` -> what it computes."""
# Forms that differ from those that kernels compute.
_OTHER_FORM = Kind("other_form", ACTIVATION, channels_stay=True, table=True)


def _add_activations():
    for name, kind in _ACTIVATIONS.items():
        if name == "elu":
            kind = dataclasses.replace(kind, condition=lambda operation: operation.alpha == 1.0)
        if name in _OF_ALL_CHANNELS:
            kind = dataclasses.replace(kind, condition=lambda operation: operation.axis == -1)
        if _OPERATIONS[name] is not None:
            _row(kind, _OPERATIONS[name])
        function = getattr(activations, name)
        condition = functools.partial(lambda function, layer: layer.activation is function, function)
        _row(dataclasses.replace(kind, condition=condition), layers.Activation)
    _row(_OTHER_FORM, "Elu")
    _row(
        dataclasses.replace(_OTHER_FORM, condition=lambda layer: is_of_each_element(layer.activation)),
        layers.Activation,
    )
    _row(dataclasses.replace(_ACTIVATIONS["softmax"], condition=lambda layer: layer.axis == -1), layers.Softmax)
    _row(_ACTIVATIONS["leaky_relu"], layers.LeakyReLU)
    _row(dataclasses.replace(_ACTIVATIONS["elu"], condition=lambda layer: layer.alpha == 1.0), layers.ELU)
    _row(_OTHER_FORM, layers.ELU)
    for name in ("relu", "relu6", "leaky_relu"):
        condition = functools.partial(lambda name, layer: _form_of_relu(layer) == name, name)
        _row(dataclasses.replace(_ACTIVATIONS[name], condition=condition), layers.ReLU)
    _row(dataclasses.replace(_OTHER_FORM, name="relu_form"), layers.ReLU)


def _form_of_relu(layer):
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        return None
    return "leaky_relu" if layer.negative_slope else {None: "relu", 6: "relu6"}.get(layer.max_value)


_add_activations()
