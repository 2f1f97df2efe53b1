"""A weight with its transforms: what the forward pass, penalties and stripping make of the stored value."""

import contextlib
import contextvars
import dataclasses

import keras
from keras import ops

from keras_mot.layers._weights import WeightAxes
from keras_mot.transforms import WeightTransform

_EVALUATED = contextvars.ContextVar("evaluated_weights", default=None)


@contextlib.contextmanager
def evaluated_once(known=None):
    """While open, each transformed weight is computed at its first use only.

    For several eager calls of a model, between which no weight and no transform changes.

    Args:
        known: dictionary from ids of variables to values that are used in place of theirs, or `None`.
    """
    token = _EVALUATED.set({} if known is None else dict(known))
    try:
        yield
    finally:
        _EVALUATED.reset(token)


@dataclasses.dataclass(frozen=True, eq=False)
class TransformedWeight:
    """A weight with the stack of transforms between its stored value and the value that is used.

    Args:
        owner: the layer during whose call the transforms run.
        key: path of the variable within `owner`.
        place: path of the variable within the layer whose configuration carries the transforms.
        variable: the stored weight.
        axes: what the weight's axes mean.
        transforms: tuple of `keras_mot.transforms.WeightTransform`, applied in order.
    """

    owner: keras.layers.Layer
    key: str
    place: str
    variable: keras.Variable
    axes: WeightAxes
    transforms: tuple[WeightTransform, ...]

    @property
    def path(self):
        """The path of the weight in messages and reports: the owner's path and the key."""
        return f"{self.owner.path or self.owner.name}/{self.key}"

    def transform_of(self, kind):
        """The transform of the class `kind` in the stack, or `None`."""
        return next((transform for transform in self.transforms if isinstance(transform, kind)), None)

    def value_before(self, transform=None):
        """The weight as `transform` receives it, or after the whole stack if `transform` is `None`."""
        return self.apply(ops.convert_to_tensor(self.variable.value), transform)

    def apply(self, value, until=None):
        """`value` sent through the stack, up to but without the transform `until`."""
        for transform in self.transforms:
            if transform is until:
                break
            value = transform.call(value)
        return value

    def effective_value(self):
        """The weight that the forward pass uses."""
        known = _EVALUATED.get()
        if known is None:
            return self.value_before(None)
        if id(self.variable) not in known:
            known[id(self.variable)] = self.value_before(None)
        return known[id(self.variable)]

    def frozen_value(self):
        """The weight that stripping leaves."""
        value = ops.convert_to_tensor(self.variable.value)
        for transform in self.transforms:
            value = transform.freeze(value)
        return value


class TransformedRegularizer(keras.regularizers.Regularizer):
    """Penalises the weight that is used, so that a weight out of use gets no gradient from its penalty."""

    def __init__(self, regularizer, weight):
        self.regularizer = regularizer
        self.weight = weight

    def __call__(self, value):
        """The penalty on what the transforms make of a stored value."""
        value = ops.convert_to_tensor(value)
        for transform in self.weight.transforms:
            value = transform.penalised(value)
        return self.regularizer(value)


def penalise_effective(weight):
    """Lets the penalty on a weight, if it has one, be that on what its transforms make of it."""
    penalise_stored(weight.variable)
    if weight.variable.regularizer is not None:
        weight.variable.regularizer = TransformedRegularizer(weight.variable.regularizer, weight)


def penalise_stored(variable):
    """Gives a variable back the penalty that it had without transforms."""
    if isinstance(variable.regularizer, TransformedRegularizer):
        variable.regularizer = variable.regularizer.regularizer
