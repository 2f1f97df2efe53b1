"""Models in which layers that are made of others are replaced by these, as deep as it goes."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mot._keras import flatten_layers, own_name, run_graph, takes_training
from keras_mot.graph._exact_shapes import Nothing, exact_shapes
from keras_mot.graph._lifting import Lifted, constant, lifted
from keras_mot.graph._unrolling import first_states, is_unrollable, result_of, timesteps_of
from keras_mot.graph.arguments import pass_mask_on, with_masks, without_default_training
from keras_mot.graph.functional import as_functional, is_a
from keras_mot.graph.inner_calls import UntraceableError, inner_calls, reason_of
from keras_mot.graph.kinds import kind_of
from keras_mot.graph.names import model_between
from keras_mot.graph.origins import Origins
from keras_mot.graph.rewrite import masked_inputs, new_inputs, operations_of
from keras_mot.graph.tracing import UnknownInputsError, symbolic_inputs
from keras_mot.graph.training_branches import difference_in_training, returns_its_input
from keras_mot.layers import is_transformed
from keras_mot.layers.in_training import ActivityPenalty, InTraining
from keras_mot.layers.transformed import plain_class


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedModel:
    """A functional model that computes what another does, without layers that are made of others.

    Attributes:
        model: the model, which shares layers and variables with the other one.
        origins: the `Origins` of the layers that stand for what a layer does with its own variables, in this layer.
        names: dictionary from the id of an operation to the name that it shall have in a copy, by its place.
        around: dictionary from the id of an operation to the layers that it was called in, the outermost first.
        closed: list of (layer, reason) of those that could not be taken apart.
        fixed: the variables of the other model that have become constants of this one.
        read: the variables of the other model whose values were read in the calls of layers, constants or not.
        lost: list of (layer, what it does in training alone, in its own `call`, in words): this is not in the model.
    """

    model: keras.Model
    origins: Origins = dataclasses.field(default_factory=Origins)
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    around: dict[int, tuple] = dataclasses.field(default_factory=dict)
    closed: list[tuple] = dataclasses.field(default_factory=list)
    fixed: dict[int, keras.Variable] = dataclasses.field(default_factory=dict)
    read: dict[int, keras.Variable] = dataclasses.field(default_factory=dict)
    lost: list[tuple] = dataclasses.field(default_factory=list)

    def layers_around(self, operation: Any) -> tuple:
        """The layers that an operation was called in, the outermost first."""
        return self.around.get(id(operation), ())


def open_model(
    model: keras.Model,
    stays: Callable[[Any], bool] = lambda operation: False,
    data: Any = None,
    trained: bool = False,
    left: Callable[[Any], bool] = lambda operation: False,
    shapes: Sequence[tuple] | None = None,
) -> OpenedModel:
    """Calls what a model's layers call, instead of the layers, until there is nothing to take apart any more.

    Taken apart are subclassed models, and layers of classes outside Keras that have no row in the table of kinds, with
    whatever layers they hold; of Keras's own, `Lambda` and the wrappers around one layer. What cannot be traced stays
    one operation, and so does a layer with weight transforms.

    Args:
        model: a built model.
        stays: function from a layer to whether it is one operation for other reasons than its kind.
        data: as of `symbolic_inputs`.
        trained: whether the result is going to be trained: what a layer does in training alone is kept if it returns
            its input in inference, and listed as `lost` otherwise.
        left: function from a layer to whether it stays one operation if it does something in training alone.
        shapes: what the shapes of the inputs of a functional model become, where it leaves sizes open; the batch's size
            stands in front.

    Returns:
        An `OpenedModel`; its model is the given one if nothing in it can be taken apart, and its inputs stay.

    Raises:
        ValueError: if the inputs of a subclassed model are not known, or its `call` cannot be traced.
    """
    functional = as_functional(model)
    opening = _Opening(stays, trained=trained, left=left)
    if functional is not None and shapes is None and not any(map(opening.changes, operations_of(model))):
        return OpenedModel(model)
    try:
        return _opened(model, opening, data, shapes)
    except UnknownInputsError:
        raise
    except Exception:
        # What comes of an array in the place of a tensor may be more than what reads it can take.
        return _opened(model, _Opening(stays, False, trained, left), data, shapes)


def _opened(model, opening, data, shapes):
    functional = as_functional(model)
    with exact_shapes(flatten_layers(model)):
        if functional is not None:
            inputs = new_inputs(model, shapes)
            outputs = opening.run(functional, inputs, None, ())
        else:
            inputs = symbolic_inputs(model, data)
            outputs = opening.root(model, inputs)
            inputs = inputs[0] if len(inputs) == 1 else inputs
    opening.result = dataclasses.replace(opening.result, model=model_between(inputs, outputs, model.name))
    return opening.result


# Keras's own layers that are made of others, or of operations that may have rows in the table of kinds.
_OPENED = tuple(
    getattr(keras.layers, name)
    for name in ("Wrapper", "Lambda", "Pipeline", "ReversibleEmbedding")
    if hasattr(keras.layers, name)
)


_MERGES = {
    keras.layers.Add: ops.add,
    keras.layers.Subtract: ops.subtract,
    keras.layers.Multiply: ops.multiply,
    keras.layers.Maximum: ops.maximum,
    keras.layers.Minimum: ops.minimum,
}


class _LeftWholeError(UntraceableError):
    """A layer is not to be taken apart."""


class _Opening:
    """Calls operations again, or those within them.

    Args:
        stays: as of `open_model`.
        constants: whether layers are taken apart that return arrays, whatever their inputs are.
        trained: as of `open_model`.
        left: as of `open_model`.
    """

    def __init__(self, stays, constants=True, trained=False, left=lambda operation: False):
        self._stays, self._constants, self._trained, self._left = stays, constants, trained, left
        self._closed = {}  # id of a layer -> the layer: what could not be taken apart
        self._made = {}  # (id of a layer, position within) -> (what was lifted there, the layer that was made of it)
        self._kept = []  # operations whose ids are keys, those among them that no tensor leads to any more
        self.result = OpenedModel(None)

    def changes(self, operation):
        """Whether an operation, or what it calls for each timestep, may be taken apart."""
        return self.opens(operation) or self._is_distributed(operation) or is_unrollable(operation, self.opens)

    def _is_distributed(self, operation):
        return is_a(operation, keras.layers.TimeDistributed) and self.opens(operation.layer)

    def opens(self, operation):
        """Whether an operation may be taken apart."""
        if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.InputLayer):
            return False
        if as_functional(operation) is not None or id(operation) in self._closed or is_transformed(operation):
            return False
        if isinstance(operation, keras.Model):
            return True
        if kind_of(operation) is not None or self._stays(operation):
            return False
        own = plain_class(operation)
        if own.__module__.startswith("keras_mot."):
            return False
        return own_name(own) is None or isinstance(operation, _OPENED)

    def root(self, model, inputs):
        """The outputs of a subclassed model; `inputs` are the arguments of its `call`."""
        try:
            return self._within(model, tuple(inputs), {}, None, ())
        except UntraceableError as error:
            raise ValueError(
                f"'{model.name}' is a {type(model).__name__} whose `call` cannot be traced: {error}. Let it use layers "
                "and `keras.ops` alone, without looking at values."
            ) from error

    def run(self, functional, inputs, mode, around):
        """The outputs of a functional model on other inputs."""
        return run_graph(functional, inputs, lambda operation: functools.partial(self._call, operation, mode, around))

    def _call(self, operation, mode, around, *args, **kwargs):
        nested = as_functional(operation)
        kwargs = without_default_training(operation, kwargs)
        mode = kwargs.get("training") if kwargs.get("training") is not None else mode
        if nested is not None:
            inputs = args[0] if args else kwargs["inputs"]
            inside = (*around, operation) if around else ()
            return self.run(nested, masked_inputs(inputs, kwargs.get("mask")), mode, inside)
        if mode is not None and takes_training(operation):
            kwargs = {**kwargs, "training": mode}
        kwargs = with_masks(operation, args, kwargs)
        if self._distributes(operation, args, kwargs):
            together = ops.reshape(args[0], (-1, *args[0].shape[2:]))
            outputs = self._call(operation.layer, mode, (*around, operation), together)
            return ops.reshape(outputs, (-1, args[0].shape[1], *outputs.shape[1:]))
        unrolled = is_unrollable(operation, self.opens) and id(operation) not in self._closed
        if self.opens(operation) or (unrolled and timesteps_of(operation, args, kwargs) is not None):
            try:
                run = self._unrolled if unrolled else self._within
                outputs = run(operation, args, kwargs, mode, (*around, operation))
                pass_mask_on(operation, args, kwargs, outputs, always=True)
                return outputs
            except _LeftWholeError:
                self._closed[id(operation)] = operation
            except UntraceableError as error:
                self._closed[id(operation)] = operation
                self.result.closed.append((operation, str(error)))
        outputs = self._step(operation, args, kwargs, around)
        pass_mask_on(operation, args, kwargs, outputs)
        return outputs

    def _distributes(self, operation, args, kwargs):
        """Whether an operation calls a layer that may be taken apart, for all timesteps, which are one batch then."""
        if not self._is_distributed(operation) or kwargs.get("mask") is not None:
            return False
        return len(args) == 1 and isinstance(args[0], keras.KerasTensor) and None not in args[0].shape[1:]

    def _unrolled(self, layer, args, kwargs, mode, around):
        """The results of a recurrent layer, by what its cell calls at each timestep."""
        steps, outputs = timesteps_of(layer, args, kwargs), []
        states = first_states(layer, steps[0], kwargs.get("initial_state"))
        single = not isinstance(layer.cell.state_size, list | tuple)
        for inputs in steps:
            output, states = self._within(layer.cell, (inputs, states), {}, mode, (*around, layer.cell))
            states = [states] if single and isinstance(states, keras.KerasTensor) else states
            outputs.append(output)
        return result_of(layer, outputs, states)

    def _within(self, layer, args, kwargs, mode, around):
        """The results of a layer, by what it calls."""
        try:
            return self._replayed(layer, args, kwargs, mode, around)
        except UntraceableError:
            raise
        except Exception as error:
            raise UntraceableError(reason_of(error, (args, kwargs))) from error

    def _replayed(self, layer, args, kwargs, mode, around):
        recorded = inner_calls(layer, args, kwargs)
        in_training = difference_in_training(layer, args, kwargs, recorded) if self._trained else None
        if in_training is not None:
            if around and returns_its_input(recorded, args, kwargs):
                return self._in_training(layer, around)(args[0])
            if around and self._left(layer):
                raise _LeftWholeError
            if all(known is not layer for known, _ in self.result.lost):
                self.result.lost.append((layer, in_training))
        self.result.read.update({id(variable): variable for variable in recorded.fixed})
        inner = lifted(recorded)
        if not self._constants and any(isinstance(item, np.ndarray) for item in keras.tree.flatten(inner.outputs)):
            raise UntraceableError("what its `call` returns does not depend on its inputs")
        tensors = dict(inner.tensors)

        def real(item):
            return tensors[id(item)] if isinstance(item, keras.KerasTensor) else item

        for position, call in enumerate(inner.calls):
            args, kwargs = (keras.tree.map_structure(real, item) for item in (call.args, call.kwargs))
            operation = call.operation
            if isinstance(operation, Lifted):
                operation = self._layer(layer, position, operation, args[0], around)
            if isinstance(operation, keras.Operation):
                outputs = self._call(operation, mode, around, *args, **kwargs)
            else:
                outputs = operation(*args, **kwargs)
            for symbol, tensor in zip(call.outputs, keras.tree.flatten(outputs), strict=True):
                tensors[id(symbol)] = tensor
        self.result.fixed.update({id(variable): variable for variable in inner.fixed})
        return self._penalised(layer, around, keras.tree.map_structure(real, inner.outputs))

    def _penalised(self, layer, around, outputs):
        """The outputs of a layer behind what adds the penalty on them that Keras takes for this layer in training."""
        penalty = getattr(layer, "activity_regularizer", None)
        if not self._trained or penalty is None or not around:
            return outputs
        if (id(layer), "penalty") not in self._made:
            made = ActivityPenalty(penalty, name=_name(around, "penalty"))
            self._made[id(layer), "penalty"] = layer, made
            self.result.origins.note(made, layer)
        return keras.tree.map_structure(self._made[id(layer), "penalty"][1], outputs)

    def _layer(self, layer, position, wanted, inputs, around):
        """The layer for something lifted: the same one wherever the layer around it is called."""
        found, made = self._made.get((id(layer), position), (None, None))
        if found is None or not wanted.is_made_as(found):
            made = wanted.make(_name(around, wanted.name), inputs)
            self._made[id(layer), position] = wanted, made
            self.result.origins.note(made, layer)
        return made

    def _in_training(self, layer, around):
        """What does in training what a layer does, wherever that is called, and nothing in inference."""
        if (id(layer), InTraining) not in self._made:
            made = InTraining(layer, name=_name(around[:-1], layer.name), dtype=layer.dtype_policy)
            self._made[id(layer), InTraining] = layer, made
            self.result.origins.note(made, layer)
        return self._made[id(layer), InTraining][1]

    def _step(self, operation, args, kwargs, around):
        if around and id(operation) not in self.result.around:
            self._kept.append(operation)
            self.result.around[id(operation)] = around
            own = isinstance(operation, keras.layers.Layer)
            made = operation in self.result.origins
            name = operation.name if own else type(operation).__name__.lower()
            self.result.names[id(operation)] = name if made else _name(around, name)
        merge = next((_MERGES[each] for each in type(operation).__mro__ if each in _MERGES), None)
        if merge is not None and any(isinstance(item, np.ndarray) for item in args[0]):
            return functools.reduce(merge, args[0])  # the layer would take the rows of the array for those of the batch
        outputs = operation(*args, **kwargs)
        if any(isinstance(item, Nothing) for item in keras.tree.flatten(outputs)):
            raise UntraceableError(f"'{operation.name}', a layer in it, returns `None` beside its results")
        return keras.tree.map_structure(constant, outputs)  # what depends on no input


def _name(around, name):
    return "_".join([*(layer.name for layer in around), name])
