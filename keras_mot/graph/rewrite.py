"""Rewriting a model: every operation is called again, or something else in its place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mot._keras import flatten_layers, run_graph, set_keras_mask, takes_training
from keras_mot.graph.arguments import pass_mask_on, with_masks
from keras_mot.graph.functional import as_functional, operations_between
from keras_mot.graph.names import name_apart
from keras_mot.graph.origins import Origins, copy_with_origins
from keras_mot.layers.copying import new_input


def rewrite(model: keras.Model, call: Callable) -> keras.Model:
    """A functional model without nested models, made by calling `call` for each operation of `model`.

    Args:
        model: a sequential or functional model; the models nested in it are dissolved.
        call: function of (operation, *args, **kwargs), an operation (a layer or one of `keras.ops`) and the new
            symbolic arguments of one of its calls, that returns the new outputs. It may call the operation, or other
            ones, or return one of the arguments. Masks that inputs carry are among the arguments.

    Returns:
        The new model, with the same name and the same structures of inputs and outputs. It shares those layers
        with `model` that `call` called.

    Raises:
        ValueError: if `model` is neither sequential nor functional.
    """
    return rewrite_with_origins(model, call)[0]


def rewrite_with_origins(model: keras.Model, call: Callable) -> tuple[keras.Model, Origins]:
    """What `rewrite` returns, and the `Origins` of its operations in `model`.

    All that was called on the way from the arguments of an operation to what `call` returned for it was made from that
    operation; what two operations share, from the first. What computes masks, and stood in no layer, has no origin.
    """
    origins = Origins()

    def noting(operation, *args, **kwargs):
        outputs = call(operation, *args, **kwargs)
        for made in operations_between((args, kwargs), outputs):
            origins.note(made, operation)
        return outputs

    inputs, outputs = call_again(model, noting)
    return keras.Model(inputs, outputs, name=model.name), origins


def call_again(model: keras.Model, call: Callable) -> tuple[Any, Any]:
    """The structures of new symbolic inputs and outputs between which `rewrite` makes its model."""
    functional = as_functional(model)
    if functional is None:
        raise ValueError(
            f"'{model.name}' is a {type(model).__name__}: only sequential and functional models have a graph."
        )
    inputs = new_inputs(functional)
    return inputs, _run(functional, inputs, call, None)


def new_inputs(model: keras.Model, shapes: Sequence[tuple] | None = None) -> Any:
    """The structure of new symbolic inputs like those of a sequential or functional model.

    Args:
        model: the model.
        shapes: other shapes for them, with the batch's size in front, in their order.
    """
    structure = as_functional(model).input
    if shapes is None:
        return keras.tree.map_structure(new_input, structure)
    inputs = [new_input(*each) for each in zip(keras.tree.flatten(structure), shapes, strict=True)]
    return keras.tree.pack_sequence_as(structure, inputs)


def run_on(model: keras.Model, inputs: Any, call: Callable) -> Any:
    """The outputs of a sequential or functional model on other symbolic inputs; `call` as of `rewrite`."""
    return _run(as_functional(model), inputs, call, None)


def _run(functional, inputs, call, training):
    def step(operation):
        def run(*args, **kwargs):
            nested = as_functional(operation)
            mode = kwargs.get("training") if kwargs.get("training") is not None else training
            if nested is not None:
                inputs = args[0] if args else kwargs["inputs"]
                return _run(nested, masked_inputs(inputs, kwargs.get("mask")), call, mode)
            if mode is not None and takes_training(operation):
                kwargs = {**kwargs, "training": mode}
            kwargs = with_masks(operation, args, kwargs)
            outputs = call(operation, *args, **kwargs)
            pass_mask_on(operation, args, kwargs, outputs)
            return outputs

        return run

    return run_graph(functional, inputs, step)


def masked_inputs(inputs: Any, mask: Any) -> Any:
    """The inputs of a nested model, with the mask that it is called with, or `None`."""
    if mask is None:
        return inputs

    def masked(tensor, own):
        if own is None:
            return tensor
        same = keras.layers.Identity(dtype=tensor.dtype)(tensor)  # others may read the tensor, without this mask
        set_keras_mask(same, own)
        return same

    masks = keras.tree.flatten(mask) if isinstance(mask, (list, tuple, dict)) else [mask]
    tensors = keras.tree.flatten(inputs)
    return keras.tree.pack_sequence_as(inputs, [masked(*pair) for pair in zip(tensors, masks, strict=True)])


def operations_of(model: keras.Model) -> list:
    """The operations (layers and those of `keras.ops`) of a model and of the models nested in it, each once."""
    found = {}

    def walk(functional):
        for operation in functional.operations:
            nested = as_functional(operation)
            if nested is not None:
                walk(nested)
            elif not isinstance(operation, keras.layers.InputLayer):
                found.setdefault(id(operation), operation)

    walk(as_functional(model))
    return list(found.values())


def everything_of(model: keras.Model) -> list:
    """All layers and operations of a model of any kind, and of those within: what remembers calls."""
    found = {id(layer): layer for layer in flatten_layers(model)}
    for layer in list(found.values()):
        if as_functional(layer) is not None:
            found |= {id(operation): operation for operation in as_functional(layer).operations}
    return list(found.values())


def flatten(model: keras.Model) -> keras.Model:
    """A copy of a model without nested models; layers of one name get numbers."""
    return flatten_with_origins(model)[0]


def flatten_with_origins(model: keras.Model, names: Mapping[int, str] | None = None) -> tuple[keras.Model, Origins]:
    """What `flatten` returns, and the `Origins` of its operations in `model` and the models nested in it.

    It may have operations without an origin: those that compute masks.

    Args:
        model: as of `flatten`.
        names: dictionary from ids of operations of `model` to other names that they shall have.
    """
    copy, copied = copy_with_origins(model)
    for operation in operations_of(copy) if names else ():
        operation.name = names.get(id(copied.of(operation)), operation.name)
    name_apart(operations_of(copy), used=[tensor.name for tensor in as_functional(copy).inputs])
    flat, made = rewrite_with_origins(copy, lambda operation, *args, **kwargs: operation(*args, **kwargs))
    return flat, made.through(copied)
