"""What a layer is called with beside its inputs: what inference ignores, and what changes the result."""

import inspect

import keras

from keras_mot._keras import get_keras_mask, set_keras_mask
from keras_mot.layers.transformed import plain_class

_IGNORED = "training"  # whatever a call in a graph says of it: who runs the model decides


def deciding_arguments(operation, args, kwargs):
    """The arguments of a call that its result in inference depends on, by the names that `call` has for them.

    `training` is left out, and so is what is `None` or `False`, or says the same as nothing. Masks that tensors carry
    are not looked for: `rewrite` has stated them (`with_masks`).

    Args:
        operation: a layer or operation.
        args: its positional arguments.
        kwargs: its other arguments.

    Returns:
        Dictionary of the arguments, in the order of `call`.
    """
    kwargs = {name: value for name, value in kwargs.items() if name != _IGNORED}
    given = _signature(operation).bind(*args, **kwargs).arguments
    return {name: value for name, value in given.items() if name != _IGNORED and not _says_nothing(value)}


def accepts(function, arguments):
    """Whether a function that breaks an operation down has parameters for all of these `deciding_arguments`."""
    parameters = inspect.signature(function).parameters
    return set(arguments) <= set(parameters) or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def are_the_first(operation, arguments):
    """Whether `deciding_arguments` are the first that the call of an operation takes, with none left out between."""
    names = [name for name in _signature(operation).parameters if name != _IGNORED]
    return list(arguments) == names[: len(arguments)]


def accepted_arguments(function, kwargs):
    """`kwargs` without a `training` that the function does not take: Keras passes none on to such a `call`."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.name == _IGNORED or each.kind is each.VAR_KEYWORD for each in parameters):
        return kwargs
    return {name: value for name, value in kwargs.items() if name != _IGNORED}


def without_default_training(operation, kwargs):
    """`kwargs` without a `training` that says what `call` has as its default: Keras notes that in each symbolic call.

    Whoever runs the model decides then.
    """
    if _IGNORED not in kwargs or not isinstance(operation, keras.layers.Layer):
        return kwargs
    parameter = _signature(operation).parameters.get(_IGNORED)
    if parameter is None or parameter.default is not kwargs[_IGNORED]:
        return kwargs
    return {name: value for name, value in kwargs.items() if name != _IGNORED}


def with_masks(operation, args, kwargs):
    """The keyword arguments of a symbolic call, with the masks that its inputs carry.

    A graph remembers such a mask only as something that tensors carry when it runs. Whatever comes to stand between
    a layer that makes a mask and one that reads it would lose it.
    """
    if not isinstance(operation, keras.layers.Layer):
        return kwargs
    signature = _signature(operation)
    given = signature.bind(*args, **{name: value for name, value in kwargs.items() if name in signature.parameters})
    tensors = {name: value for name, value in given.arguments.items() if _holds_tensors(value)}
    names = {name: "mask" if len(tensors) == 1 else f"{name}_mask" for name in tensors}
    found = {}
    for name, value in tensors.items():
        mask = keras.tree.map_structure(get_keras_mask, value)
        missing = _says_nothing(given.arguments.get(names[name]))
        if names[name] in signature.parameters and missing and not _says_nothing(mask):
            found[names[name]] = mask
    return {**kwargs, **found}


def pass_mask_on(operation, args, kwargs, outputs, always=False):
    """Lets what stands for the results of a call carry the masks that the results carried.

    Args:
        operation: the operation.
        args: its positional arguments.
        kwargs: its other arguments, with the masks (`with_masks`).
        outputs: what stands for its results.
        always: whether it was not called at all, so that nothing knows of a mask that it makes itself.
    """
    if not getattr(operation, "supports_masking", False):
        return
    inputs = args[0] if args else kwargs[next(iter(_signature(operation).parameters))]
    mask = kwargs.get("mask")
    mask = keras.tree.map_structure(get_keras_mask, inputs) if mask is None else mask
    if _says_nothing(mask) and not always:
        return
    masks = operation.compute_mask(inputs, None if _says_nothing(mask) else mask)
    for tensor, own in zip(keras.tree.flatten(outputs), keras.tree.flatten(masks), strict=False):
        if own is not None and isinstance(tensor, keras.KerasTensor) and get_keras_mask(tensor) is None:
            set_keras_mask(tensor, own)


def _signature(operation):
    """The signature of the `call` of an operation; a layer with transforms has that of the layer which it was."""
    call = plain_class(operation).call
    return inspect.signature(call.__get__(operation))


def _holds_tensors(value):
    leaves = keras.tree.flatten(value)
    return bool(leaves) and all(isinstance(leaf, keras.KerasTensor) for leaf in leaves)


def _says_nothing(value):
    return all(leaf is None or leaf is False for leaf in keras.tree.flatten(value))
