"""Products with arrays and variables of a layer's own, as layers that hold these as kernels.

A user's layer that computes `ops.matmul(inputs, self.kernel) + self.bias` does what `Dense` does. Whatever else is done
with a variable is done with its value, a constant.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mot._arrays import numpy_value
from keras_mot._keras import operation_class

_CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
_DEPTHWISE = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}


@dataclasses.dataclass(frozen=True, eq=False)
class Lifted:
    """A layer to be made from what a user's layer computes with an array.

    Args:
        build: function from keyword arguments (`name`, and perhaps `use_bias`) to the layer.
        name: of the operation that it stands for.
        weights: its weights, arrays.
        trained: of each of these, whether it is the value of a variable that is trained, or made of such, and no
            constant.
    """

    build: Callable[..., keras.layers.Layer]
    name: str
    weights: tuple[np.ndarray, ...]
    trained: tuple[bool, ...]

    def make(self, name: str, inputs: keras.KerasTensor) -> keras.layers.Layer:
        """The layer, built for a symbolic input."""
        layer = self.build(name=name, use_bias=True) if len(self.weights) == 2 else self.build(name=name)
        layer.build(inputs.shape)
        layer.set_weights(self.weights)
        layer.trainable = any(self.trained)
        if any(self.trained) and not all(self.trained):
            for variable, trained in zip(layer.weights, self.trained, strict=True):
                variable.trainable = trained
        return layer

    def is_made_as(self, other: "Lifted") -> bool:
        """Whether another one has the same weights."""
        return len(self.weights) == len(other.weights) and all(map(np.array_equal, self.weights, other.weights))


def lifted(inner: Any) -> Any:
    """The `InnerCalls` of a layer with a `Lifted` in place of products with constants, and without variables.

    Args:
        inner: the `InnerCalls`.
    """
    readers = {}
    for call in inner.calls:
        for item in keras.tree.flatten((call.args, call.kwargs)):
            readers.setdefault(id(item), []).append(call)
    returned = {id(item) for item in keras.tree.flatten(inner.outputs)}
    trained = {id(item) for item in inner.trained}
    calls, done, fixed = [], set(), {id(variable): variable for variable in inner.fixed}
    kept, sizes = set(), set()  # ids of variables that layers have; sizes of what layers have that was made of some
    for call in inner.calls:
        if id(call) in done:
            continue
        if _is(call.operation, "Cast") and call.args[0].dtype == call.outputs[0].dtype:
            call = dataclasses.replace(call, operation=_the_same)
        made = _as_layer(call, trained) if isinstance(call.operation, keras.Operation) else None
        if made is None:
            for item in keras.tree.flatten((call.args, call.kwargs)):
                if isinstance(item, keras.Variable):
                    fixed[id(item)] = item
            calls.append(_of_constants(call))
            continue
        layer, source, values = made
        (output,) = call.outputs
        follower = readers.get(id(output), ())
        if len(follower) == 1 and id(output) not in returned:
            bias = None if _is_channels_first(call.operation) else _bias_of(follower[0], layer, trained)
            if bias is not None:
                done.add(id(follower[0]))
                (output,) = follower[0].outputs
                weights = (*layer.weights, np.atleast_1d(_array(bias)).reshape(-1))
                layer = dataclasses.replace(
                    layer, weights=weights, trained=(*layer.trained, _is_trained(bias, trained))
                )
                values = (*values, bias)
        kept.update(id(item) for item in values if isinstance(item, keras.Variable))
        sizes.update(int(np.prod(item.shape)) for item in values if id(item) in trained)
        calls.append(type(call)(layer, (source,), {}, (output,)))

    def is_kept(variable):
        return id(variable) in kept or int(np.prod(variable.shape)) in sizes

    fixed = tuple(variable for variable in fixed.values() if not is_kept(variable))
    outputs = keras.tree.map_structure(constant, inner.outputs)
    return dataclasses.replace(inner, calls=tuple(calls), fixed=fixed, outputs=outputs)


def _the_same(tensor):
    """What takes the place of an operation that does nothing."""
    return tensor


def _of_constants(call):
    """The call with arrays in place of variables and tensors of the backend, which copies and files can hold."""
    args, kwargs = (keras.tree.map_structure(constant, item) for item in (call.args, call.kwargs))
    return dataclasses.replace(call, args=args, kwargs=kwargs)


def constant(item):
    return _array(item) if isinstance(item, keras.Variable) or ops.is_tensor(item) else item


def _as_layer(call, trained):
    """The layer that does what a call of an operation of `keras.ops` does, its input, and its weights; or `None`.

    Args:
        call: the `InnerCall`.
        trained: ids of the arrays that are made of variables that are trained.
    """
    operands = [*call.args, *call.kwargs.values()]
    if len(operands) != 2:
        return None
    rule = next((rule for name, rule in _RULES.items() if _is(call.operation, name)), None)
    if rule is None:
        return None
    source, kernel = operands if rule is not _embedding else operands[::-1]
    if not isinstance(source, keras.KerasTensor) or not _is_array(kernel) or None in source.shape[1:][-1:]:
        return None
    made = rule(call.operation, source, tuple(kernel.shape), call.outputs[0])
    if made is None:
        return None
    layer = Lifted(made, type(call.operation).__name__.lower(), (_array(kernel),), (_is_trained(kernel, trained),))
    return layer, source, (kernel,)


def _is_trained(item, trained):
    """Whether something is a variable that is trained, or made of the value of one."""
    return item.trainable if isinstance(item, keras.Variable) else id(item) in trained


def _is_channels_first(operation):
    return hasattr(operation, "data_format") and _settings(operation)["data_format"] == "channels_first"


def _dense(operation, source, shape, output):
    if len(shape) != 2 or len(source.shape) < 2:
        return None
    return lambda name, use_bias=False: layers.Dense(shape[1], use_bias=use_bias, name=name)


def _tensordot(operation, source, shape, output):
    axes, last = operation.axes, len(source.shape) - 1
    if not isinstance(axes, int):
        first, second = map(tuple, axes)
        axes = 1 if first in ((last,), (-1,)) and second in ((0,), (-2,)) else None
    return _dense(operation, source, shape, output) if axes == 1 else None


def _einsum(operation, source, shape, output):
    probe = layers.EinsumDense(operation.subscripts, output_shape=tuple(output.shape[1:]))
    try:
        probe.build(source.shape)
    except Exception:  # of a form that the layer does not have
        return None
    if tuple(probe.kernel.shape) != shape:
        return None
    return lambda name: layers.EinsumDense(operation.subscripts, output_shape=tuple(output.shape[1:]), name=name)


def _convolution(operation, source, shape, output):
    rank = len(shape) - 2
    settings = _settings(operation)
    channels = source.shape[1 if settings["data_format"] == "channels_first" else -1]
    if rank not in _CONVOLUTIONS or channels is None:
        return None
    settings |= {"filters": shape[-1], "kernel_size": shape[:-2], "groups": channels // shape[-2]}
    return lambda name, use_bias=False: _CONVOLUTIONS[rank](**settings, use_bias=use_bias, name=name)


def _depthwise(operation, source, shape, output):
    rank, settings = len(shape) - 2, _settings(operation)
    if rank not in _DEPTHWISE:
        return None
    settings |= {"depth_multiplier": shape[-1], "kernel_size": shape[:-2]}
    return lambda name, use_bias=False: _DEPTHWISE[rank](**settings, use_bias=use_bias, name=name)


def _embedding(operation, source, shape, output):
    if len(shape) != 2 or operation.axis != 0 or "int" not in str(source.dtype):
        return None
    return lambda name: layers.Embedding(*shape, name=name)


def _settings(operation):
    return {
        "strides": operation.strides,
        "padding": operation.padding,
        "data_format": operation.data_format or keras.config.image_data_format(),
        "dilation_rate": operation.dilation_rate,
    }


_RULES = {
    "Matmul": _dense,
    "Dot": _dense,
    "Tensordot": _tensordot,
    "Einsum": _einsum,
    "Conv": _convolution,
    "DepthwiseConv": _depthwise,
    "Take": _embedding,
}


def _bias_of(call, layer, trained):
    """What a call adds to each channel of what the layer returns; `None` if it does something else."""
    if not _is(call.operation, "Add") or layer.name in ("einsum", "take") or len(call.args) != 2 or call.kwargs:
        return None
    arrays = [item for item in call.args if _is_array(item)]
    channels = layer.weights[0].shape[-1] * (layer.weights[0].shape[-2] if layer.name == "depthwiseconv" else 1)
    if len(arrays) != 1 or (all(layer.trained) and not _is_trained(arrays[0], trained)):
        return None  # a constant beside a trained kernel would be trained, too
    shape = tuple(arrays[0].shape) or (1,)
    (source,) = (item for item in call.args if item is not arrays[0])
    fits = int(np.prod(shape)) == channels == shape[-1] and len(shape) <= len(source.shape)
    return arrays[0] if fits else None


def _is(operation, name):
    known = operation_class(name)
    return known is not None and type(operation) is known


def _is_array(item):
    return isinstance(item, (np.ndarray, keras.Variable)) or ops.is_tensor(item)


def _array(item):
    """A copy that stays as it is: the value of a variable, seen as an array, may change with that."""
    return np.array(numpy_value(item))
