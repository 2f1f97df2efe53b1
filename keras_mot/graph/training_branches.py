"""What the `call` of a layer does in training and not in inference: branches on `training` of a user's own."""

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import takes_training
from keras_mot.graph.inner_calls import InnerCalls, UntraceableError, inner_calls


def difference_in_training(layer: keras.layers.Layer, args: tuple, kwargs: dict, inner: InnerCalls) -> str | None:
    """What a layer does in training beyond what it does in inference.

    What the layers within do in training, such as dropout, is theirs, and no difference. Losses that it adds count as
    one, since nothing reads them in inference.

    Args:
        layer: a built layer or model.
        args: positional arguments of its call, with symbolic tensors in them.
        kwargs: the other arguments.
        inner: its `InnerCalls` on these, where `training` is open.

    Returns:
        The difference in words; `None` if there is none, or `training` is decided by the arguments.
    """
    if inner.losses:
        return "its `call` adds a loss"
    if not takes_training(layer) or kwargs.get("training") is not None:
        return None
    try:
        trained = inner_calls(layer, args, {**kwargs, "training": True})
    except UntraceableError as error:
        if error.__cause__ is None:
            return str(error)
        # Such as a value that is computed and assigned, which Keras refuses in words of its own.
        return "its `call` does what cannot be followed, such as changing its own state"
    if trained.losses:
        return "its `call` adds a loss"
    return None if _same_calls(inner, trained) else f"its `call` computes something else, {_listed(inner, trained)}"


def returns_its_input(inner: InnerCalls, args: tuple, kwargs: dict) -> bool:
    """Whether a layer returns the one tensor that it is called on."""
    given = [item for item in keras.tree.flatten((args, kwargs)) if isinstance(item, keras.KerasTensor)]
    if len(args) != 1 or len(given) != 1 or not isinstance(inner.outputs, keras.KerasTensor):
        return False
    return inner.tensors.get(id(inner.outputs)) is args[0]


def _same_calls(first, second):
    forms = [_form(each) for each in (first, second)]
    return len(forms[0]) == len(forms[1]) and all(map(_same, *forms))


def _form(inner):
    """The calls as a flat list of what can be compared, with numbers in place of tensors."""
    numbers = {key: ("input", place) for place, key in enumerate(inner.tensors)}

    def numbered(item):
        return numbers.get(id(item), item) if isinstance(item, keras.KerasTensor) else item

    form = []
    for place, call in enumerate(inner.calls):
        kwargs = {name: value for name, value in call.kwargs.items() if name != "training"}
        # `training` by its position: what it says is no difference by itself.
        given = [
            numbered(item)
            for item in keras.tree.flatten((call.args, kwargs))
            if not (isinstance(call.operation, keras.layers.Layer) and (item is None or isinstance(item, bool)))
        ]
        form += [call.operation, len(given), *given]
        numbers.update({id(tensor): ("result", place, index) for index, tensor in enumerate(call.outputs)})
    return [*form, *map(numbered, keras.tree.flatten(inner.outputs))]


def _same(first, second):
    if first is second:
        return True
    if isinstance(first, keras.Operation) and isinstance(second, keras.Operation):
        if isinstance(first, keras.layers.Layer) or type(first) is not type(second):
            return False
        return all(map(_same, *_settings(first, second)))
    if _is_array(first) and _is_array(second):
        arrays = numpy_value(first), numpy_value(second)
        return arrays[0].shape == arrays[1].shape and bool(np.array_equal(*arrays))
    if _is_array(first) or _is_array(second) or type(first) is not type(second):
        return False
    return bool(first == second)


def _settings(first, second):
    configs = [dict(each.get_config(), name=None) for each in (first, second)]
    flat = [keras.tree.flatten(config) for config in configs]
    return flat if len(flat[0]) == len(flat[1]) else ([0], [1])


def _is_array(item):
    return isinstance(item, np.ndarray | keras.Variable) or keras.ops.is_tensor(item)


def _listed(first, second):
    """The operations of two lists of calls that are not in both, in words."""
    names = [[_name(call.operation) for call in each.calls] for each in (first, second)]
    more = [name for name in dict.fromkeys(names[1]) if names[1].count(name) > names[0].count(name)]
    fewer = [name for name in dict.fromkeys(names[0]) if names[0].count(name) > names[1].count(name)]
    words = [f"with {', '.join(more)}" if more else "", f"without {', '.join(fewer)}" if fewer else ""]
    return ", ".join(filter(None, words)) or "of the same operations"


def _name(operation):
    return f"'{operation.name}'" if isinstance(operation, keras.layers.Layer) else f"`{type(operation).__name__}`"
