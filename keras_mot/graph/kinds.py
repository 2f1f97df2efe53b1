"""The one table of what an operation is: layers and operations of `keras.ops` alike, by their classes.

What treats kinds of operations alike asks it: placement, lowering, folding, equalization, channels, reference kernels.
A layer of one's own joins by one row, `register_kind(MyLayer, ...)`. Which of the kinds a runtime has integer kernels
for is said by a `keras_mot.targets.Target`.
"""

import dataclasses
from typing import Any

import keras

from keras_mot._messages import describe, nearest
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
    ROLES,
    ROUNDED,
    SAME,
    WEIGHTED,
    Kind,
)
from keras_mot.graph._kind_rows import OF_FUNCTIONS, TABLE
from keras_mot.graph.functional import is_a
from keras_mot.layers import WeightAxes, WeightSpec, register_weights
from keras_mot.layers.transformed import plain_class

__all__ = [
    "ACTIVATION",
    "AVERAGES",
    "ELEMENTWISE",
    "JOINS",
    "LOOKS_UP",
    "MERGES",
    "MOVES",
    "NORMALIZES",
    "OWN",
    "PADS",
    "PICKS",
    "PRODUCTS",
    "REDUCES",
    "ROLES",
    "ROUNDED",
    "SAME",
    "WEIGHTED",
    "Kind",
    "bias_of",
    "has_role",
    "is_kind",
    "kernel_of",
    "kind_of",
    "kind_of_function",
    "register_kind",
]


def kind_of(operation: Any) -> Kind | None:
    """What an operation is.

    Args:
        operation: a layer, or an operation of `keras.ops`.

    Returns:
        Its row of the table; `None` for classes that are not in it, and for subclasses of those that compute otherwise:
        with a `call`, or another method or property, of their own.
    """
    for known in plain_class(operation).__mro__:
        if known in TABLE and is_a(operation, known):
            return next((kind for kind in TABLE[known] if kind.condition is None or kind.condition(operation)), None)
    return None


def is_kind(operation: Any, *names: str) -> bool:
    """Whether an operation is of a kind with one of these names."""
    kind = kind_of(operation)
    return kind is not None and kind.name in names


def has_role(operation: Any, *roles: str) -> bool:
    """Whether an operation is of a kind with one of these roles."""
    kind = kind_of(operation)
    return kind is not None and kind.role in roles


def kind_of_function(function: Any) -> Kind | None:
    """What a function of `keras.activations` computes, such as the `activation` of a layer; `None` for others."""
    return OF_FUNCTIONS.get(function)


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
        TypeError: if `cls` is no such class, `like` is neither a class nor a `Kind`, or `Kind` has no such attribute.
        ValueError: if `like` has no row, or rows that depend on what an operation is configured to.

    Example:

    ```python
    register_kind(TransposedDense, keras.layers.Dense, kernel="matrix", axes=WeightAxes(inputs=(1,), outputs=(0,)))
    register_kind(Magnitude, Kind("absolute", "element-wise"))  # one kernel of LiteRT
    register_kind(SquaredReLU, Kind("squared_relu", "activation", steps=lambda layer, x: ops.relu(x) * ops.relu(x)))
    ```
    """
    if not (isinstance(cls, type) and issubclass(cls, keras.Operation)):
        raise TypeError(f"`cls` should be a subclass of `keras.layers.Layer`; received {describe(cls)}.")
    if not isinstance(like, Kind):
        like = _only_row(like)
    if kernel is not None:
        changes["kernel"] = kernel
    fields = [field.name for field in dataclasses.fields(Kind)]
    for name in changes:
        if name not in fields:
            raise TypeError(f"`register_kind` has no argument '{name}'.{nearest(name, ('axes', *fields))}")
    kind = dataclasses.replace(like, **changes)
    if axes is not None:
        register_weights(cls, [WeightSpec(kind.kernel, axes, depthwise=kind.name == "depthwise_conv")])
    TABLE[cls] = (kind,)
    return cls


def _only_row(like):
    if not isinstance(like, type):
        raise TypeError(f"`like` should be a layer class or a `Kind`; received {describe(like)}.")
    rows = TABLE.get(like, ())
    if len(rows) != 1 or rows[0].condition is not None:
        what = "what it is depends on how it is configured" if rows else "nothing is known of it"
        raise ValueError(
            f"`like` should be a class of one kind, such as `keras.layers.Dense`; {like.__name__} is not: {what}. "
            "Describe the computation by a `Kind`."
        )
    return rows[0]
