"""Large weights go through TensorFlow's converter as stand-ins, and are written into the file that comes out.

The converter keeps ten copies and more of each constant. Of a constant with one value throughout it keeps the value. So
each large kernel is traced as such a constant, with a value of its own by which it is found again; the operator that
reads it says in which order its numbers lie in the file.

That holds for kernels that nothing is computed with before they are read. A batch normalization that the converter
would fold into a kernel is folded here. All other weights are converted as they are.

The quantized weights of a model in integers go through in the same way, whatever their size; their stand-ins are marks
(see `marking`) and stay in the file: what makes integers of it knows the weights by them.
"""

import dataclasses

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot.export.litert.litert_file import parse_model
from keras_mot.export.litert.marking import KERNELS, mark_of_weight, number_of_weight, weights_of_file
from keras_mot.graph.batch_norm import find_foldable_batch_norms, folded_bias, kernel_factors

_LEAST_SIZE = 8192
_STEPS = 1024  # the values of float16 between 1 and 2: as many stand-ins can be told apart
# What lies between a kernel and the operation that reads it, and leaves its numbers in their order.
_RESHAPING = ("Identity", "Reshape", "ExpandDims", "Squeeze")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Operation of TensorFlow -> (position of the kernel, operator of LiteRT).
_READERS = {
    "MatMul": (1, "FULLY_CONNECTED"),
    "Conv2D": (1, "CONV_2D"),
    "DepthwiseConv2dNative": (1, "DEPTHWISE_CONV_2D"),
    "Conv2DBackpropInput": (1, "TRANSPOSE_CONV"),
    "GatherV2": (0, "GATHER"),
}
_ORDERS = {operator: order for operator, (_, order) in KERNELS.items()}


@dataclasses.dataclass(eq=False)
class StandIn:
    """A weight and what stands for it.

    Attributes:
        variable: the weight.
        value: of all numbers of the stand-in.
        factors: what the weight is multiplied by, an array that broadcasts to it; `None`: nothing.
        operator: name of the operator of LiteRT that reads it; known once it has been traced.
        view: (shape in which it is read, order of the axes in the file).
    """

    variable: keras.Variable
    value: float
    factors: np.ndarray | None = None
    operator: str | None = None
    view: tuple | None = None

    def rows(self, start, stop):
        """The numbers that belong into the file, from one index of the first axis there to another."""
        shape, order = self.view
        values = numpy_value(self.variable)
        if self.factors is not None:
            values, factors = np.broadcast_arrays(values, self.factors)
            values, factors = (array.reshape(shape).transpose(order)[start:stop] for array in (values, factors))
            return values * factors
        return values.reshape(shape).transpose(order)[start:stop]

    @property
    def number(self):
        """Of a mark, the number of the weight."""
        return number_of_weight(np.float32([self.value]))

    @property
    def shape(self):
        """The shape in the file."""
        shape, order = self.view
        return tuple(shape[axis] for axis in order)


class StandIns:
    """The stand-ins of a model, and its other weights whose values change with them.

    Args:
        model: a Keras model without weight transforms.
        left: ids of variables that shall be converted as they are.
        marked: variables whose stand-ins are the marks of quantized weights.

    Attributes:
        filled: the stand-ins in whose place the file gets weights in floats.
        marks: those that stay.
    """

    def __init__(self, model, left=(), marked=()):
        numbers = {id(v): (number, v) for number, v in enumerate(marked)}
        self.marks = [StandIn(v, mark_of_weight(number)) for number, v in numbers.values() if id(v) not in left]
        large = [v for v in model.variables if v.dtype == "float32" and len(v.shape) > 1 and _size(v) >= _LEAST_SIZE]
        large = [v for v in large if id(v) not in left and id(v) not in numbers]
        large = sorted(large, key=_size, reverse=True)[: _STEPS - 1]
        self.filled = [StandIn(v, 1.0 + number / _STEPS) for number, v in enumerate(large, 1)]
        self._others = {}  # id of a variable -> (the variable, the value that it is to have)
        for fold in find_foldable_batch_norms(model) if large else ():
            self._fold(fold)

    def __iter__(self):
        return iter((*self.filled, *self.marks))

    def __len__(self):
        return len(self.filled) + len(self.marks)

    def _fold(self, fold):
        kernel = getattr(fold.linear, "kernel", None)
        stand_in = next((stand_in for stand_in in self.filled if stand_in.variable is kernel), None)
        if stand_in is None:
            return
        batch_norm = fold.batch_norm
        stand_in.factors = kernel_factors(fold).astype("float32")
        shape = batch_norm.moving_mean.shape
        neutral = {"moving_mean": np.zeros(shape), "moving_variance": np.full(shape, 1.0 - batch_norm.epsilon)}
        if batch_norm.scale:
            neutral["gamma"] = np.ones(shape)
        if batch_norm.center:
            neutral["beta"] = folded_bias(fold)
        else:
            neutral["moving_mean"] = -folded_bias(fold)
        for name, value in neutral.items():
            self._set(getattr(batch_norm, name), value)
        if fold.linear.use_bias:
            self._set(fold.linear.bias, np.zeros(fold.linear.bias.shape))

    def _set(self, variable, value):
        self._others[id(variable)] = variable, np.asarray(value, "float32")

    def scope(self):
        """A scope in which the model is traced: its weights read as their stand-ins.

        Returns:
            The scope; the constants of the stand-ins; and pairs of all variables that read as constants and these.
        """
        import tensorflow as tf

        mapping = [(variable, tf.constant(value)) for variable, value in self._others.values()]
        constants = []
        for stand_in in self:
            constants.append(tf.constant(stand_in.value, shape=stand_in.variable.shape, dtype="float32"))
            mapping.append((stand_in.variable, constants[-1]))
        return keras.StatelessScope(state_mapping=mapping), constants, mapping

    def find_readers(self, constants):
        """Notes what reads each stand-in in the traced graph; returns the ids of variables that must not have one."""
        unknown = set()
        for stand_in, constant in zip(self, constants, strict=True):
            uses = {_use(*reader) for reader in _readers(constant)}
            if len(uses) != 1 or None in uses:
                unknown.add(id(stand_in.variable))
            else:
                stand_in.operator, *view = uses.pop()
                stand_in.view = tuple(view)
        return unknown

    def lost_marks(self, content):
        """The ids of the variables whose marks are not found where they belong in a file; it is of no use then."""
        numbers = set(weights_of_file(parse_model(content)).values()) if self.marks else set()
        return {id(mark.variable) for mark in self.marks if mark.number not in numbers}


def _size(variable):
    return int(np.prod(variable.shape))


def _readers(tensor, transposed=False):
    """(operation, position of the input, the tensor, whether it is transposed) of all that reads a tensor.

    It may be read in another shape, or, with two axes, transposed.
    """
    for operation in tensor.consumers():
        position = next(number for number, item in enumerate(operation.inputs) if item is tensor)
        if operation.type in _RESHAPING and position == 0 and not transposed:
            yield from _readers(operation.outputs[0])
        elif operation.type == "Identity":
            yield from _readers(operation.outputs[0], transposed)
        elif operation.type == "Transpose" and position == 0 and len(tensor.shape) == 2:
            if _constant(operation.inputs[1]) == [1, 0]:
                yield from _readers(operation.outputs[0], not transposed)
            else:
                yield operation, position, tensor, transposed
        elif operation.type in _CALLS:
            yield from _readers(_called(operation).inputs[position], transposed)
        else:
            yield operation, position, tensor, transposed


def _constant(tensor):
    """The values of a constant in a graph, or `None`."""
    from tensorflow.python.framework.tensor_util import constant_value

    values = constant_value(tensor)
    return None if values is None else values.tolist()


def _called(operation):
    """The graph of the function that an operation calls, as Keras does for convolutions in groups."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    name = operation.get_attr("f").name
    functions = operation.graph.as_graph_def().library.function
    return function_def_to_graph(next(item for item in functions if item.signature.name == name))


def _use(operation, position, tensor, transposed):
    """(operator of LiteRT, shape, order of axes), or `None` if it is not known what the converter makes of it."""
    where, operator = _READERS.get(operation.type, (None, None))
    order, shape = _ORDERS.get(operator, ()), tuple(tensor.shape)
    if position != where or len(shape) != len(order) or None in shape:
        return None
    if operation.type == "MatMul":
        if operation.get_attr("transpose_a"):
            return None
        if transposed != operation.get_attr("transpose_b"):
            return operator, shape[::-1] if transposed else shape, (0, 1)
        shape = shape[::-1] if transposed else shape
    elif transposed:
        return None
    if operation.type == "GatherV2" and operation.get_attr("batch_dims"):
        return None
    if operation.type == "DepthwiseConv2dNative":
        shape = (1, *shape[:2], shape[2] * shape[3])
    return operator, shape, order
