"""Rewriting a model: every operation is called again, or something else in its place."""

from collections.abc import Callable

import keras

from keras_mot.graph._functional import as_functional
from keras_mot.layers._copy import copy_model, new_input


def rewrite(model: keras.Model, call: Callable) -> keras.Model:
    """A functional model without nested models, made by calling `call` for each operation of `model`.

    Args:
        model: a sequential or functional model; the models nested in it are dissolved.
        call: function of (operation, *args, **kwargs), an operation (a layer or one of `keras.ops`) and the new
            symbolic arguments of one of its calls, that returns the new outputs. It may call the operation, or other
            ones, or return one of the arguments.

    Returns:
        The new model, with the same name and the same structures of inputs and outputs. It shares those layers
        with `model` that `call` called.

    Raises:
        ValueError: if `model` is neither sequential nor functional.
    """
    functional = as_functional(model)
    if functional is None:
        raise ValueError(
            f"'{model.name}' is a {type(model).__name__}: only sequential and functional models have a graph."
        )
    inputs = keras.tree.map_structure(new_input, functional.input)
    return keras.Model(inputs, _run(functional, inputs, call, None), name=model.name)


def _run(functional, inputs, call, training):
    def step(operation):
        def run(*args, **kwargs):
            nested = as_functional(operation)
            mode = kwargs.get("training") if kwargs.get("training") is not None else training
            if nested is not None:
                return _run(nested, args[0] if args else kwargs["inputs"], call, mode)
            if mode is not None and getattr(operation, "_call_has_training_arg", False):
                kwargs = {**kwargs, "training": mode}
            return call(operation, *args, **kwargs)

        return run

    return functional._run_through_graph(inputs, operation_fn=step)


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


def flatten(model: keras.Model) -> keras.Model:
    """A copy of a model without nested models; layers of one name get numbers."""
    return flatten_with_origins(model)[0]


def flatten_with_origins(model: keras.Model) -> tuple[keras.Model, dict]:
    """What `flatten` returns, and where its operations come from.

    Returns:
        The flat model; and a dictionary from the id of each of its operations to the operation of `model` that it is a
        copy of. Its own order tells nothing: a flat model lists operations by depth, over all that was nested.
    """
    copy = copy_model(model)
    pairs = list(zip(operations_of(copy), operations_of(model), strict=True))  # two models of one structure
    names = set(getattr(as_functional(copy), "input_names", ()))
    for operation in operations_of(copy):
        name, number = operation.name, 1
        while name in names:
            name, number = f"{operation.name}_{number}", number + 1
        names.add(name)
        if name != operation.name:
            operation.name = name
    flat = rewrite(copy, lambda operation, *args, **kwargs: operation(*args, **kwargs))
    return flat, {id(copied): given for copied, given in pairs}
