"""Reading subclassed models: the graph of what their `call` does."""

import inspect
from typing import Any

import keras
import numpy as np

from keras_mot._keras import build_shapes, flatten_layers
from keras_mot._messages import describe
from keras_mot.graph.arguments import accepted_arguments
from keras_mot.graph.functional import as_functional
from keras_mot.graph.inner_calls import calls_between, check_functions
from keras_mot.graph.names import model_between
from keras_mot.graph.rewrite import call_again

_OF_TEXTS = (keras.layers.TextVectorization, keras.layers.StringLookup)


def trace(model: keras.Model, data: Any = None) -> keras.Model:
    """A functional model that computes what a subclassed model does, with the same layers.

    The model's `call` runs once on symbolic tensors, and so do those of the subclassed models within. That finds what
    is made of layers and of `keras.ops`; a `call` that looks at values, or uses the functions of one backend, has no
    such graph.

    Args:
        model: a built model. Sequential and functional models are returned as they are, if all models within are, too.
        data: arrays that the model takes, if it takes texts or integers beside floats: Keras remembers no types.

    Returns:
        A functional model of the same name that shares layers and variables with `model`. Where layers of several
        models within have one name, they keep it: `flatten` makes a copy with different ones, which can be saved.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if its inputs are not known (call it on a batch first), or its `call` cannot be traced.

    Example:

    ```python
    functional = keras_mot.graph.trace(my_subclassed_model)
    folded = keras_mot.graph.fold_batch_norm(functional)
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`trace` expects a Keras model; received {describe(model)}.")
    try:
        traced = _traced(model, data)
    except UnknownInputsError:
        raise
    except Exception as error:
        raise ValueError(
            f"'{model.name}' is a {type(model).__name__} whose `call` cannot be traced: {error} Let it use layers and "
            "`keras.ops` alone, without looking at values."
        ) from error
    kept = {id(variable) for variable in traced.variables}
    lost = [variable.path for variable in model.variables if id(variable) not in kept]
    if lost and traced is not model:
        raise ValueError(f"'{model.name}' uses variables that belong to no layer, {lost}: put them into a layer.")
    return traced


def _traced(model, data=None):
    if as_functional(model) is None:
        inputs = symbolic_inputs(model, data)
        outputs = model.call(*inputs)
        for node in calls_between(inputs, outputs):
            check_functions(node)
        model = model_between(inputs[0] if len(inputs) == 1 else inputs, outputs, model.name)
    if _opaque_models(model):
        return _traced(model_between(*call_again(model, _call_within), model.name))
    return model


def symbolic_inputs(model: keras.Model, data: Any = None) -> list:
    """New symbolic inputs for each positional argument of the `call` of a built subclassed model.

    Args:
        model: the model.
        data: arrays that it takes, if there are such: a list or tuple of them for several arguments. They say what
            Keras does not remember: types, and the shapes of all arguments but the first.
    """
    names = _required(model)
    arrays = list(data) if isinstance(data, list | tuple) else [data]
    if len(names) > 1 and len(arrays) == len(names) and all(map(_is_array, arrays)):
        return [
            keras.Input(batch_shape=(None, *np.shape(array)[1:]), dtype=_dtype(array, model), name=name)
            for name, array in zip(names, arrays, strict=True)
        ]
    try:
        specs = input_specs(model)
    except UnknownInputsError:
        # A call that cannot be traced, as of lookups on JAX, is not remembered.
        if not _is_array(data):
            raise
        specs = [keras.InputSpec(shape=(None, *np.shape(data)[1:]))]
    one = len(keras.tree.flatten(specs)) == 1
    if data is None and one and any(isinstance(layer, _OF_TEXTS) for layer in flatten_layers(model)):
        specs = keras.tree.map_structure(lambda spec: keras.InputSpec(shape=spec.shape, dtype="string"), specs)
    if len(specs) == 1:
        specs = [_typed_as(specs[0], arrays[0], model)]
    return [_inputs(structure) for structure in specs]


def _typed_as(structure, data, model):
    """Specifications, those in a dictionary too, with the types of the arrays that stand for them in the data."""
    if isinstance(structure, dict) and isinstance(data, dict):
        return {key: _typed_as(value, data.get(key), model) for key, value in structure.items()}
    if isinstance(structure, keras.InputSpec) and _is_array(data):
        return keras.InputSpec(shape=structure.shape, dtype=_dtype(data, model))
    return structure


def _is_array(item):
    return hasattr(item, "shape") and hasattr(item, "dtype") and len(item.shape) > 0


def _dtype(array, model):
    """The type of an input for an array: texts and integers stay such, these of 32 bits; of floats, the model's."""
    if getattr(array.dtype, "kind", None) in ("O", "S", "U") or "string" in str(array.dtype):
        return "string"
    integers = keras.backend.is_int_dtype(keras.backend.standardize_dtype(array.dtype))
    return "int32" if integers else keras.backend.standardize_dtype(model.input_dtype)


def _required(model):
    """The names of the arguments that a model cannot be called without."""
    return [
        parameter.name
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]


def _inputs(structure):
    """Symbolic inputs; those of a dictionary have the names of its keys."""
    if isinstance(structure, dict):
        return {key: keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=key) for key, spec in structure.items()}
    return keras.tree.map_structure(lambda spec: keras.Input(batch_shape=spec.shape, dtype=spec.dtype), structure)


def _call_within(operation, *args, **kwargs):
    if isinstance(operation, keras.Model):
        return operation.call(*args, **accepted_arguments(operation.call, kwargs))
    return operation(*args, **kwargs)


def _opaque_models(model):
    """The models in the graph of a functional one that are neither sequential nor functional."""
    found = []
    for operation in as_functional(model).operations:
        if as_functional(operation) is not None:
            found += _opaque_models(operation)
        elif isinstance(operation, keras.Model):
            found.append(operation)
    return found


class UnknownInputsError(ValueError):
    """The inputs of a model are not known."""


def input_specs(model: keras.Model) -> list:
    """The inputs of a built subclassed model, as far as Keras remembers them: the shapes of its arguments, no dtypes.

    Returns:
        A structure of `keras.InputSpec` for each positional argument of `call`, of open batch size.

    Raises:
        ValueError: if the model was never called on data, or takes several arguments.
    """
    shapes = build_shapes(model)
    if not shapes:
        raise UnknownInputsError(
            f"The inputs of the subclassed model '{model.name}' are not known. Call the model once on a batch of data "
            f"before, or, for an export, pass `input_signature=keras.InputSpec(shape=(None, ...), dtype='float32')` (a "
            f"list or a dictionary of them for several inputs)."
        )
    dtype = keras.backend.standardize_dtype(model.input_dtype)
    structures = [_specs_of_shapes(shape, dtype) for shape in shapes.values()]
    required = _required(model)
    if len(required) > len(structures):
        raise UnknownInputsError(
            f"The subclassed model '{model.name}' takes several arguments, {required}, of which Keras "
            f"remembers the shape of the first alone. Give calibration data as a list of arrays, one for each, let "
            f"`call` take one list or dictionary of inputs, or wrap the model in a functional one: "
            f"keras.Model([a, b], model(a, b)), a keras.Input for each."
        )
    return structures


def _specs_of_shapes(shapes, dtype):
    if isinstance(shapes, dict):
        return {key: _specs_of_shapes(value, dtype) for key, value in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.InputSpec(shape=(None, *shapes[1:]), dtype=dtype)
    return [_specs_of_shapes(value, dtype) for value in shapes]
