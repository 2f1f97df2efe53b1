"""What the `call` of a layer does: the layers and operations of `keras.ops` that it calls on its inputs."""

import dataclasses
import itertools
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import (
    call_of,
    counted_losses,
    flatten_layers,
    get_keras_mask,
    no_gradients,
    operation_class,
    symbolic_operands,
    takes_training,
)
from keras_mot._messages import shortened
from keras_mot.graph import _open_batch
from keras_mot.graph._tensorflow_functions import translated
from keras_mot.graph.arguments import accepted_arguments


@dataclasses.dataclass(frozen=True, eq=False)
class InnerCall:
    """One call within a layer's.

    Attributes:
        operation: the layer, or a new operation of `keras.ops` like the one that was called.
        args: its positional arguments, with symbolic tensors in them that stand for the real ones.
        kwargs: its other arguments.
        outputs: the symbolic tensors that stand for its results.
    """

    operation: Any
    args: tuple
    kwargs: dict
    outputs: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class InnerCalls:
    """The calls within one call of a layer.

    Attributes:
        calls: the `InnerCall`s in the order in which they run.
        tensors: dictionary from the id of a symbolic tensor in them to the argument of the layer that it stands for.
        outputs: what the layer returns, with symbolic tensors in it that stand for results.
        fixed: the variables whose values have become constants of the calls.
        losses: how many losses the layer adds.
        trained: the arrays in the calls that change with variables that are trained.
        kept: what must live as long as ids are used.
    """

    calls: tuple[InnerCall, ...]
    tensors: dict[int, Any]
    outputs: Any
    fixed: tuple[keras.Variable, ...] = ()
    losses: int = 0
    trained: tuple = ()
    kept: tuple = ()


_LOOPS = tuple(
    filter(None, map(operation_class, ("Scan", "WhileLoop", "ForiLoop", "AssociativeScan", "Map", "VectorizedMap")))
)


class UntraceableError(ValueError):
    """A layer cannot be taken apart; says why."""


def inner_calls(layer: keras.layers.Layer, args: tuple, kwargs: dict) -> InnerCalls:
    """Runs the `call` of a layer once on symbolic tensors; the layer itself stays as it is.

    Where that fails because `call` computes with the size of the batch, it is run again with a size that is known, and
    what depends on that size is stated without it, if it can be.

    Args:
        layer: a built layer or model.
        args: positional arguments of the call, with symbolic tensors in them.
        kwargs: the other arguments.

    Returns:
        An `InnerCalls`.

    Raises:
        UntraceableError: if the calls do not say all of what the layer does.
    """
    if takes_training(layer) and "training" not in kwargs:
        kwargs = {**kwargs, "training": None}  # who runs the model decides, whatever the default is
    kwargs = accepted_arguments(layer.call, kwargs)
    try:
        return _with_trained(_recorded(layer, args, kwargs), layer, args, kwargs)
    except UntraceableError:
        raise
    except Exception as error:
        if not _open_batch.is_open((args, kwargs)):
            raise UntraceableError(reason_of(error, (args, kwargs))) from error
        reason = error
    first = None
    for multiple in _open_batch.multiples(args, kwargs):
        try:
            return _of_all_batches(layer, args, kwargs, multiple)
        except UntraceableError:
            raise
        except Exception as error:
            first = error if first is None else first
    if isinstance(first, _open_batch.FixedBatchError):
        raise UntraceableError(f"its `call` computes with the size of the batch ({first})") from reason
    raise UntraceableError(reason_of(first, (args, kwargs))) from reason


def _of_all_batches(layer, args, kwargs, multiple):
    """The calls in a layer on batches of known size, stated for all sizes."""
    closed = _open_batch.closed(args, kwargs, multiple=multiple)
    recorded = _recorded(layer, *closed)
    other = _recorded(layer, *_open_batch.closed(args, kwargs, other=True, multiple=multiple))
    _open_batch.check_same_numbers(recorded, other)
    return _open_batch.opened(_with_trained(recorded, layer, *closed), (args, kwargs))


def reason_of(error: Exception, arguments: tuple[tuple, dict]) -> str:
    """Why a layer cannot be taken apart, from what was raised when it was called with some arguments."""
    shapes = [item.shape for item in keras.tree.flatten(arguments) if isinstance(item, keras.KerasTensor)]
    if any(None in shape[1:] for shape in shapes):
        return (
            f"its `call` computes with sizes that are open ({shapes[0]}): call the model on a `keras.Input` of fixed "
            "sizes, `keras.Model(inputs, model(inputs))`, and quantize that"
        )
    return f"its `call` cannot be traced ({type(error).__name__}: {shortened(' '.join(str(error).split()), 400)})"


class _Recording(keras.StatelessScope):
    """A scope in which no variable changes, that notes which ones are read.

    Args:
        values: pairs of a variable and the value that it has in the scope; by default, all have their own.
    """

    def __init__(self, values=()):
        super().__init__(list(values), collect_losses=True)
        self.read, self._given = {}, dict(self.state_mapping)

    def has_changes(self):
        """Whether a variable was given another value in the scope."""
        given = self._given
        return any(key not in given or given[key] is not value for key, value in self.state_mapping.items())

    def get_current_value(self, variable):
        """The value that the variable was given in the scope."""
        value = super().get_current_value(variable)
        self.read.setdefault(id(variable), variable)
        return value


def _with_trained(recorded, layer, args, kwargs):
    """The `InnerCalls` with the arrays that change with trained variables: found by calling with other values."""
    variables = [variable for variable in recorded.fixed if variable.trainable and "float" in variable.dtype]
    leaves = [_leaves(call) for call in recorded.calls]
    if not variables or not any(map(_is_value, itertools.chain.from_iterable(leaves))):
        return recorded
    generator = np.random.default_rng(0)
    others = []
    for variable in variables:
        value = numpy_value(variable) + generator.uniform(0.5, 1.0, variable.shape)
        others.append((variable, keras.ops.convert_to_tensor(value.astype("float32"), dtype=variable.dtype)))
    try:
        changed = [_leaves(call) for call in _recorded(layer, args, kwargs, others).calls]
    except Exception:  # a `call` may refuse values
        return recorded
    if list(map(len, changed)) != list(map(len, leaves)):
        return recorded
    pairs = zip(*map(itertools.chain.from_iterable, (leaves, changed)), strict=True)
    trained = tuple(first for first, second in pairs if _is_value(first) and not _is_same(first, second))
    return dataclasses.replace(recorded, trained=trained)


def _leaves(call):
    return keras.tree.flatten((call.args, call.kwargs))


def _is_value(item):
    array = isinstance(item, np.ndarray) or keras.ops.is_tensor(item)
    return array and not isinstance(item, keras.Variable)


def _is_same(first, second):
    return np.array_equal(numpy_value(first), numpy_value(second), equal_nan=True)


def _recorded(layer, args, kwargs, values=()):
    known = {id(each) for each in flatten_layers(layer)}
    unbuilt = {id(each) for each in flatten_layers(layer) if not each.built}
    scope = _Recording(values)
    with no_gradients(), symbolic_operands(), translated(), counted_losses(layer) as losses, scope:
        outputs = layer.call(*args, **kwargs)
    if scope.has_changes():
        raise UntraceableError("its `call` draws random numbers, or changes its own state")
    given = [item for item in keras.tree.flatten((args, kwargs)) if isinstance(item, keras.KerasTensor)]
    given += [mask for mask in map(get_keras_mask, given) if mask is not None]
    nodes = list(calls_between(given, outputs))
    for node in nodes:
        check_functions(node)
        if not isinstance(node.operation, keras.layers.Layer) or not node.operation.variables:
            continue
        if id(node.operation) not in known:
            raise UntraceableError(f"its `call` uses '{node.operation.name}', a layer that it does not hold")
        if id(node.operation) in unbuilt:
            raise UntraceableError(
                f"'{node.operation.name}', a layer in it, had no weights yet: call the model once on a batch of data"
            )
    return InnerCalls(
        calls=tuple(_inner_call(node) for node in nodes),
        tensors={id(tensor): tensor for tensor in given},
        outputs=outputs,
        fixed=tuple(scope.read.values()),
        losses=len(losses),
        kept=(given, nodes),
    )


def _inner_call(node):
    operation = node.operation
    if not isinstance(operation, keras.layers.Layer):
        for name in ("newshape", "shape"):
            if None in keras.tree.flatten(getattr(operation, name, ())):
                raise TypeError(f"`{name}` of an operation '{type(operation).__name__}' is open")
        try:
            operation = type(operation).from_config(operation.get_config())
        except Exception as error:
            raise UntraceableError(f"`keras.ops` has no form of '{type(operation).__name__}' to save") from error
    return InnerCall(operation, tuple(node.arguments.args), dict(node.arguments.kwargs), tuple(node.output_tensors))


def check_functions(node: Any) -> None:
    """Raises an `UntraceableError` if a call is given functions: those may read tensors that no argument shows."""
    operation = node.operation
    if isinstance(operation, keras.layers.Layer):
        return
    given = [*keras.tree.flatten((node.arguments.args, node.arguments.kwargs)), *vars(operation).values()]
    if any(isinstance(item, types.FunctionType | types.MethodType) for item in given):
        loop = isinstance(operation, _LOOPS)
        way = "; write the loop in Python, where the number of steps is known" if loop else ""
        raise UntraceableError(f"its `call` hands functions to '{type(operation).__name__}' of `keras.ops`{way}")


def calls_between(inputs: Any, outputs: Any) -> Iterator[Any]:
    """Yields the calls (nodes) on the way from structures of symbolic tensors to others, in the order they run."""
    seen = {id(tensor) for tensor in keras.tree.flatten(inputs)}
    waiting = [(tensor, False) for tensor in reversed(keras.tree.flatten(outputs))]
    found = set()
    while waiting:
        tensor, ready = waiting.pop()
        if not isinstance(tensor, keras.KerasTensor):
            continue
        call = call_of(tensor)
        if ready:
            if id(call) not in found:
                found.add(id(call))
                yield call
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            if not call.input_tensors:  # an input of a model, which no argument has brought here
                raise UntraceableError("it uses a tensor of the model that is none of its arguments")
            waiting.append((tensor, True))
            waiting += [(source, False) for source in reversed(call.input_tensors)]
