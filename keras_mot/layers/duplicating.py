"""Copies of layers whose configuration does not say how to make them: attribute by attribute.

Many classes of users have no `get_config`, or one that forgets arguments. Keras then rebuilds another layer, or none.
"""

import copy
import sys
import types

import keras
import numpy as np

from keras_mot._keras import (
    attributes_of,
    copy_of_variable,
    distribution_strategy,
    flatten_layers,
    is_graph_model,
    lock_tracking,
    own_variables,
    raw_variables,
    seed_generators,
    set_raw_parameter,
    shell_of,
    sublayers,
    track_in_order,
)
from keras_mot.layers.attaching import attach_or_wait, copy_stack
from keras_mot.layers.transformed import plain_class, stacks_of
from keras_mot.layers.transformed_weight import penalise_stored
from keras_mot.transforms import WeightTransform


def is_of_keras(layer: keras.layers.Layer) -> bool:
    """Whether the class of a layer, and of each within it, is Keras's own: then configurations say all."""
    parts = flatten_layers(layer) if isinstance(layer, keras.layers.Layer) else [layer]
    return all(plain_class(part).__module__.startswith("keras.") for part in parts if not _is_transform(part))


def rebuilt_alike(source: keras.layers.Layer, copied: keras.layers.Layer) -> bool:
    """Whether a copy that was made from a configuration is what it should be, as far as can be seen from outside.

    Args:
        source: a layer.
        copied: the copy, which need not be built.

    Returns:
        Whether the classes of the layers within agree, and all attributes that are numbers, texts, functions or arrays.
    """
    pairs = [_plain_parts(layer) for layer in (source, copied)]
    if [plain_class(part) for part in pairs[0]] != [plain_class(part) for part in pairs[1]]:
        return False
    return all(_same_attributes(*pair) for pair in zip(*pairs, strict=True) if not is_of_keras(pair[0]))


def is_unwritable(value) -> bool:
    """Whether something is a callable that Keras has no form to save for: a `functools.partial`, a bound method, ..."""
    if not callable(value) or isinstance(value, type | types.FunctionType | keras.Operation):
        return False
    return not hasattr(value, "get_config")


def _same_attributes(source, copied):
    others = attributes_of(copied)
    for name, value in attributes_of(source).items():
        if name.startswith("_") or name in ("built", "name"):
            continue
        if is_unwritable(value) and others.get(name) is not value:
            return False
        told = isinstance(value, bool | int | float | str | types.FunctionType | np.ndarray)
        if (told or keras.ops.is_tensor(value)) and not (name in others and _same(value, others[name])):
            return False
    return True


def _same(first, second):
    if isinstance(first, types.FunctionType):
        return getattr(first, "__code__", first) is getattr(second, "__code__", second)
    if isinstance(first, bool | int | float | str):
        return type(first) is type(second) and first == second
    arrays = [np.asarray(keras.ops.convert_to_numpy(value)) for value in (first, second)]
    return arrays[0].shape == arrays[1].shape and bool(np.all(arrays[0] == arrays[1]))


def duplicate(layer: keras.layers.Layer, copies: dict, copy_part) -> keras.layers.Layer:
    """A copy of a layer with equal attributes and variables of its own, transforms included.

    Args:
        layer: a layer or subclassed model.
        copies: dictionary from ids of layers to pairs (copy, original) of what is copied already, such as a layer whose
            variables this one reads; the layers within `layer` are added.
        copy_part: function that copies a layer of Keras's own, or a model with a graph, from its configuration.

    Returns:
        The copy.
    """
    parts = _plain_parts(layer)
    memo = {id(shared): shared for shared in (*sys.modules.values(), distribution_strategy(layer))}
    for each, original in list(copies.values()):
        if isinstance(original, keras.layers.Layer):  # and no operation of `keras.ops`
            _note(memo, original, each)
    made = []
    for part in parts:
        if id(part) in memo:
            continue
        by_config = _from_config(part, copy_part) if part is not layer else None
        if by_config is None:
            memo[id(part)] = shell_of(part, plain_class(part))
            made.append(part)
            continue
        _note(memo, part, by_config)
    for part in made:
        for variable in _variables_of(part):
            if id(variable) not in memo:
                memo[id(variable)] = _copy_variable(variable)
    for part in made:
        _fill(memo[id(part)], part, memo)
    for part in parts:
        copies.setdefault(id(part), (memo[id(part)], part))
        hosted = stacks_of(part).by_place()
        if hosted and part in made:
            attach_or_wait(memo[id(part)], {place: copy_stack(stack) for place, stack in hosted.items()})
    return memo[id(layer)]


def _plain_parts(layer):
    return [part for part in flatten_layers(layer) if not _is_transform(part)]


def _from_config(part, copy_part):
    """The copy of a part that Keras knows by itself; `None` where that is none."""
    if is_graph_model(part):
        return copy_part(part)
    if not is_of_keras(part):
        return None
    try:
        copied = copy_part(part)
    except Exception:
        return None
    pairs = [
        [
            (plain_class(inner), [tuple(variable.shape) for variable in _variables_of(inner)])
            for inner in _plain_parts(each)
        ]
        for each in (part, copied)
    ]
    return copied if pairs[0] == pairs[1] else None


def _variables_of(part):
    """The variables that a layer itself holds, with those of its generators of random numbers."""
    trained, state = own_variables(part)
    return [*trained, *state, *(generator.state for generator in seed_generators(part))]


def _note(memo, original, copied):
    """Notes what stands for a layer and its variables, and for those of the layers within."""
    for old, new in zip(_plain_parts(original), _plain_parts(copied), strict=False):
        memo[id(old)] = new
        variables = _variables_of(old), _variables_of(new)
        if len(variables[0]) == len(variables[1]):  # else the copy is not built
            memo.update({id(first): second for first, second in zip(*variables, strict=True)})


def _copy_variable(variable):
    result = copy_of_variable(variable, np.array(keras.ops.convert_to_numpy(variable)))
    penalise_stored(result)
    return result


def _fill(target, source, memo):
    for name, value in attributes_of(source).items():
        if not isinstance(value, keras.optimizers.Optimizer):
            setattr(target, name, _copied(value, memo))
    if keras.backend.backend() == "torch":
        for name, value in raw_variables(source).items():
            set_raw_parameter(target, name, copy.deepcopy(value, memo), source)
    trained, state = ([memo[id(variable)] for variable in group] for group in own_variables(source))
    track_in_order(target, trained, state, [memo[id(part)] for part in sublayers(source) if not _is_transform(part)])
    if source.built:
        lock_tracking(target)


def _copied(value, memo):
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, keras.KerasTensor | types.ModuleType | type):
        return value
    if isinstance(value, types.FunctionType):
        return _copied_function(value, memo)
    if type(value) in (list, tuple, set) or isinstance(value, list):
        items = [_copied(item, memo) for item in value]
        return list(items) if isinstance(value, list) else type(value)(items)
    if isinstance(value, dict):
        return {key: _copied(item, memo) for key, item in value.items()}
    if isinstance(value, keras.metrics.Metric):
        memo[id(value)] = type(value).from_config(value.get_config())
        return memo[id(value)]
    return copy.deepcopy(value, memo)


def _copied_function(function, memo):
    """A function that reads copies where its closure holds what is copied; else itself."""
    contents = [cell.cell_contents for cell in function.__closure__ or ()]
    if not any(id(content) in memo for content in contents):
        return function
    cells = tuple(types.CellType(memo.get(id(content), content)) for content in contents)
    result = types.FunctionType(
        *(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    )
    result.__kwdefaults__ = function.__kwdefaults__
    return result


def _is_transform(part):
    return isinstance(part, WeightTransform)
