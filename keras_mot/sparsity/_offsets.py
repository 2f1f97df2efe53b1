"""Where what is added to each channel of a layer's outputs is kept: biases, and means of batch normalizations."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.graph.batch_norm import find_foldable_batch_norms
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import bias_of, kind_of
from keras_mot.second_order import WeightMatrices

_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


class Offsets:
    """The offsets of the layers of a model.

    Args:
        model: a functional model.
    """

    def __init__(self, model: keras.Model):
        self._batch_norms = {id(fold.linear): fold.batch_norm for fold in find_foldable_batch_norms(model)}

    def has(self, weight: WeightMatrices) -> bool:
        """Whether there is a number for each output of a kernel."""
        return self._place(weight) is not None

    def add(self, weight: WeightMatrices, shift: np.ndarray) -> None:
        """Adds to the outputs of a kernel, where there is a place for it.

        Args:
            weight: the kernel.
            shift: float array of shape (groups, columns).
        """
        place = self._place(weight)
        if place is None:
            return
        variable, index, sign = place
        values = np.array(numpy_value(variable))
        values[index] += sign * shift.reshape(values[index].shape)
        variable.assign(values)

    def _place(self, weight):
        """The variable, the part of it, and the sign."""
        layer, count = weight.layer, weight.shape[0] * weight.shape[2]
        if is_a(layer, _CELLS):
            return _place_in_cell(weight)
        kind = kind_of(layer)
        if weight.key == "depthwise_kernel" and kind is not None and kind.name == "separable_conv":
            return None  # a pointwise kernel comes between
        if is_a(layer, keras.layers.EinsumDense):
            bias = layer.bias if _adds_for_each_column(layer) else None
        else:
            bias = None if kind is None else bias_of(layer)
        if bias is not None and int(np.prod(bias.shape)) == count:
            return bias, slice(None), 1
        batch_norm = self._batch_norms.get(id(layer))
        if batch_norm is not None and batch_norm.moving_mean.shape[0] == count:
            return batch_norm.moving_mean, slice(None), -1
        return None


def _place_in_cell(weight):
    cell = weight.layer
    if not cell.use_bias:
        return None
    if len(cell.bias.shape) == 1:
        return cell.bias, weight.part, 1
    return cell.bias, (0 if weight.key == "kernel" else 1, weight.part), 1  # of a GRU that resets after the product


def _adds_for_each_column(layer):
    """Whether the bias of an `EinsumDense` has the axes that the columns and groups of its kernel have, in order."""
    if layer.bias is None:
        return False
    left, result = layer.equation.replace(" ", "").split("->")
    first, kernel = left.split(",")
    made = [letter for letter in kernel.replace("...", "") if letter in result]
    ordered = [letter for letter in made if letter in first] + [letter for letter in made if letter not in first]
    return list(layer.bias_axes or "") == ordered
