"""What a layer holds: its sub-layers and variables, each with a name that survives a rebuild."""

import keras

from keras_mot._keras import BOOKKEEPING, is_graph_model, own_variables, sublayers
from keras_mot.transforms import WeightTransform


def children(layer):
    """The direct sub-layers that Keras tracks, transforms aside, as (name, sub-layer) pairs.

    A name is an attribute's (with an index or key, in a container), or a position in a model. A sub-layer that no
    attribute leads to is named by its position among those that Keras tracks. Layers' own names will not do: a layer
    created without one is numbered anew in every process. The name is `None` for a member of a set: sets have no order,
    and Keras itself cannot tell their members apart when it loads a model.
    """
    tracked = [child for child in sublayers(layer) if not isinstance(child, WeightTransform)]
    if is_graph_model(layer):
        named = {f"layers/{index}": child for index, child in enumerate(layer.layers)}
        attributes = []
    else:
        attributes = sorted(_attributes(layer).items())
        known = {id(child) for child in tracked}
        named = {name: child for name, child in _named(attributes, keras.layers.Layer) if id(child) in known}
    reached = {id(child) for child in named.values()}
    in_sets = {id(item) for _, value in attributes if isinstance(value, set) for item in value}
    others = [
        (None if id(child) in in_sets else f"_layers/{index}", child)
        for index, child in enumerate(tracked)
        if id(child) not in reached
    ]
    return [*named.items(), *others]


def key_of(layer, variable):
    """The path of attributes from `layer` to a variable that it or a layer below it holds; `None` if none does.

    Variables of transforms are not looked for.
    """
    for name, value in _named(_attributes(layer).items(), keras.Variable):
        if value is variable:
            return name.removeprefix("_")
    own = [id(each) for group in own_variables(layer) for each in group]
    if id(variable) in own:
        return f"weights/{own.index(id(variable))}"
    for name, child in children(layer):
        below = key_of(child, variable)
        if below is not None:
            return f"{name}/{below}"
    return None


def _attributes(layer):
    # PyTorch keeps sub-modules apart from the other attributes.
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}
    return {
        name: value
        for name, value in attributes.items()
        if name not in _BOOKKEEPING and not name.startswith("_self_unconditional_")
    }


def _named(attributes, kind):
    """(name, object) pairs of the objects of class `kind` in attributes and containers: each once, and each name."""
    found, names = {}, set()

    def visit(value, name):
        if isinstance(value, kind):
            if id(value) not in found and name not in names:
                found[id(value)] = (name, value)
                names.add(name)
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{name}/{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                visit(item, f"{name}/{index}")

    for name, value in attributes:
        visit(value, name)
    return list(found.values())


# TensorFlow has more of them, `_self_unconditional_...`, and this package one of its own.
_BOOKKEEPING = BOOKKEEPING | {"_weight_transforms"}
