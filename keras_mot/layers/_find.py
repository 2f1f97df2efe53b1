"""Walking a model: where its transformable weights are, and how a saved file names the place."""

import dataclasses

import keras

from keras_mot._keras import is_graph_model, sublayers
from keras_mot._messages import describe
from keras_mot.layers._weights import LeftAlone, OwnWeight, WeightAxes, is_whole_layer, own_weights


@dataclasses.dataclass(frozen=True, eq=False)
class FoundWeight:
    """A transformable weight and its place in a model.

    Args:
        host: the layer whose configuration will carry the transforms: a layer of a sequential or functional
            model, or the outermost layer or subclassed model that creates the owner in its own code.
        owner: the layer during whose call the transforms run.
        owner_path: attribute path from `host` to `owner`, empty if they are the same.
        key: path of the variable within `owner`, such as `"kernel"` or `"cell/recurrent_kernel"`.
        variable: the stored weight.
        axes: what the weight's axes mean.
        lineage: the layers around the variable, from the outermost below the root to the innermost.
    """

    host: keras.layers.Layer
    owner: keras.layers.Layer
    owner_path: str
    key: str
    variable: keras.Variable
    axes: WeightAxes
    lineage: tuple[keras.layers.Layer, ...]

    @property
    def place(self):
        """Path of the variable within the host, as configurations write it."""
        return f"{self.owner_path}/{self.key}" if self.owner_path else self.key


def find_weights(root: keras.layers.Layer) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """All transformable weights of a layer or model, each once, in a stable order.

    Args:
        root: a built layer or model of any kind.

    Returns:
        A pair of lists: `FoundWeight`, and `LeftAlone` for the weights that no table entry covers.
    """
    found, left_alone, seen = [], [], set()
    for host, lineage in hosts(root):
        _search(host, host, "", lineage, found, left_alone, seen)
    return found, left_alone


def hosts(root, lineage=()):
    """Yields (host, lineage) pairs: the layers whose configurations carry transforms, each once."""
    seen = set()

    def visit(layer, lineage):
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if is_graph_model(layer):
            for child in layer.layers:
                yield from visit(child, (*lineage, child))
        else:
            yield layer, lineage or (layer,)

    yield from visit(root, lineage)


def _search(host, layer, path, lineage, found, left_alone, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    below = _whole_layer_weights(layer) if is_whole_layer(layer) else own_weights(layer)
    for weight in below[0]:
        if id(weight.variable) not in seen:
            seen.add(id(weight.variable))
            found.append(FoundWeight(host, layer, path, weight.key, weight.variable, weight.axes, lineage))
    left_alone.extend(below[1])
    if is_whole_layer(layer):
        return
    for name, child in children(layer):
        _search(host, child, f"{path}/{name}" if path else name, (*lineage, child), found, left_alone, seen)


def _whole_layer_weights(layer):
    weights, left_alone = [], []

    def visit(node, prefix):
        own, unlisted = own_weights(node) if node is not layer else ([], [])
        weights.extend(OwnWeight(prefix + weight.key, weight.variable, weight.axes) for weight in own)
        left_alone.extend(unlisted)
        for name, child in children(node):
            visit(child, f"{prefix}{name}/")

    visit(layer, "")
    return weights, left_alone


def children(layer):
    """The direct sub-layers with names that survive a rebuild: attribute names, or positions in a model.

    Layers' own names will not do: a layer created without one is numbered anew in every process.
    """
    if is_graph_model(layer):
        return [(f"layers/{index}", child) for index, child in enumerate(layer.layers)]
    tracked = {id(child) for child in sublayers(layer)}
    names = {}

    def visit(value, name):
        if isinstance(value, keras.layers.Layer):
            if id(value) in tracked:
                names.setdefault(id(value), (name, value))
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{name}/{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                visit(item, f"{name}/{index}")

    # PyTorch keeps sub-modules apart from the other attributes.
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}
    for name, value in sorted(attributes.items()):
        if name not in _BOOKKEEPING and not name.startswith("_self_"):
            visit(value, name)
    return list(names.values())


# Where Keras, and this package, keep track of layers that also have a name of their own.
_BOOKKEEPING = {
    "_layers",
    "_operations",
    "_nodes",
    "_tracker",
    "_weight_transforms",
    "_functional",
    "_modules",
}


def check_layer(layer, function):
    """Raises a `TypeError` naming the public `function` if `layer` is no Keras model or layer."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"`{function}` expects a Keras 3 model or layer (`keras.Model`, `keras.layers.Layer`); received "
            f"{describe(layer)} of type {type(layer).__module__}.{type(layer).__name__}."
        )


def require_built(root, what):
    """Raises a `ValueError` naming the first layer below `root` that has no weights yet.

    Args:
        root: a layer or model.
        what: the name of the calling function, for the message.
    """
    unbuilt = [layer for layer in [root, *root._flatten_layers(include_self=False)] if not layer.built]
    if unbuilt:
        layer = unbuilt[0]
        raise ValueError(
            f"`{what}` needs a built model, whose weights exist; layer '{layer.name}' "
            f"({type(layer).__name__}) is not built. Call the model once on data, or `model.build(input_shape)`."
        )


def left_alone_unknown(left_alone):
    """Those of `left_alone` whose layer class is unknown to the table."""
    return [item for item in left_alone if item.unknown]
