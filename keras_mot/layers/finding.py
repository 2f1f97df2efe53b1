"""Walking a model: where its transformable weights are, and how a saved file names the place."""

import contextlib
import dataclasses

import keras

from keras_mot._keras import Functional, Sequential, flatten_layers, functional_of, is_graph_model
from keras_mot._messages import describe
from keras_mot._warnings import warn
from keras_mot.layers._children import children
from keras_mot.layers._weights import WeightAxes, is_whole_layer
from keras_mot.layers.own_weights import LeftAlone, own_weights, speaks_for_itself


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
        depthwise: whether the weight is left alone unless it is asked for, see `WeightSpec`.
        techniques: the verbs of the techniques that a method of the owner offers it to; `None` for all.
    """

    host: keras.layers.Layer
    owner: keras.layers.Layer
    owner_path: str
    key: str
    variable: keras.Variable
    axes: WeightAxes
    lineage: tuple[keras.layers.Layer, ...]
    depthwise: bool = False
    techniques: frozenset[str] | None = None

    @property
    def path(self):
        """The path of the weight in messages and reports: the owner's path and the key."""
        return f"{self.owner.path or self.owner.name}/{self.key}"

    @property
    def place(self):
        """Path of the variable within the host, as configurations write it."""
        return f"{self.owner_path}/{self.key}" if self.owner_path else self.key


def find_weights(root: keras.layers.Layer) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """All transformable weights of a layer or model, each once, in a stable order.

    Args:
        root: a built layer or model of any kind.

    Returns:
        A pair of lists: `FoundWeight`, and `LeftAlone` with the reason for each of the others. Together they
        stand for all of `root.weights`, but for the variables of transforms.

    Raises:
        TypeError: if `root` is not a Keras model or layer.
    """
    check_layer(root, "find_weights")
    search = _Search()
    for layer, lineage in _layers_with_config(root):
        if is_graph_model(layer):
            search.leave(own_weights(layer)[1])
        else:
            search.visit(layer, layer, "", lineage)
    return search.found, [item for item in map(search.without_found, search.left_alone) if item is not None]


def _layers_with_config(root):
    """Yields (layer, lineage) pairs: the layers whose configurations carry transforms, and the graph models around."""
    seen = set()

    def visit(layer, lineage):
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield layer, lineage or (layer,)
        if is_graph_model(layer):
            for _, child in children(layer):
                yield from visit(child, (*lineage, child))

    yield from visit(root, ())


class _Search:
    """A walk down from hosts. Each layer is visited once, and each variable found once."""

    def __init__(self):
        self.found, self.left_alone = [], []
        self._seen = set()  # ids of layers
        self._taken = set()  # ids of variables that are found
        self._left = set()  # ids of variables that are left alone

    def visit(self, host, layer, path, lineage):
        """Searches `layer`, which is at `path` below `host`."""
        if id(layer) in self._seen:
            return
        self._seen.add(id(layer))
        if is_whole_layer(layer):
            self._take(host, layer, path, lineage, self._weights_below(layer))
            return
        own, left_alone = own_weights(layer)
        self._take(host, layer, path, lineage, [weight for weight in own if not weight.below])
        self.leave(left_alone)
        for name, child in children(layer):
            if name is None:
                self._leave_member_of_set(child)
            else:
                self.visit(host, child, f"{path}/{name}" if path else name, (*lineage, child))
        # A sub-layer's own entry in the table goes first: it knows the axes.
        self._take(host, layer, path, lineage, [weight for weight in own if weight.below])

    def leave(self, items):
        """Notes what is left alone; a variable that several layers hold, once."""
        for item in items:
            variables = tuple(each for each in item.variables if id(each) not in self._left)
            self._left.update(id(each) for each in variables)
            if variables or not item.variables:
                self.left_alone.append(dataclasses.replace(item, variables=variables))

    def without_found(self, item):
        """A `LeftAlone` without what a layer further up has named; `None` if nothing remains."""
        variables = tuple(each for each in item.variables if id(each) not in self._taken)
        return dataclasses.replace(item, variables=variables) if variables or not item.variables else None

    def _take(self, host, owner, path, lineage, weights):
        for weight in weights:
            if id(weight.variable) in self._taken:
                continue
            self._taken.add(id(weight.variable))
            self.found.append(
                FoundWeight(
                    *(host, owner, path, weight.key, weight.variable, weight.axes, lineage),
                    depthwise=weight.depthwise,
                    techniques=weight.techniques,
                )
            )

    def _weights_below(self, layer):
        own, left_alone = own_weights(layer)
        weights = [weight for weight in own if not weight.below]
        self.leave(left_alone)
        for name, child in children(layer):
            if name is None:
                self._leave_member_of_set(child)
                continue
            for weight in self._weights_below(child):
                weights.append(dataclasses.replace(weight, key=f"{name}/{weight.key}"))
        return weights + [weight for weight in own if weight.below]

    def _leave_member_of_set(self, layer):
        if layer.weights:
            reason = "it is held in a set, which has no order to find it by: hold it in a list or as an attribute"
            self.leave([LeftAlone(layer.path or layer.name, reason, True, tuple(layer.weights))])


def check_layer(layer, function):
    """Raises a `TypeError` naming the public `function` if `layer` is no Keras model or layer."""
    if not isinstance(layer, keras.layers.Layer):
        hint = ""
        if isinstance(layer, keras.KerasTensor):
            hint = f" That is what a layer returns: write `{function}(layer)(x)`, not `{function}(layer(x))`."
        raise TypeError(
            f"`{function}` expects a Keras 3 model or layer (`keras.Model`, `keras.layers.Layer`); received "
            f"{describe(layer)} of type {type(layer).__module__}.{type(layer).__name__}.{hint}"
        )


def require_built(root, what):
    """Raises a `ValueError` if `root` has no weights yet; builds, or warns of, layers within that have none.

    Args:
        root: a layer or model.
        what: the name of the calling function, for the message.
    """
    if not root.built:
        raise ValueError(f"`{what}` needs a built model, whose weights exist; {_how_to_build(root, what)}")
    if _unbuilt(root) and isinstance(root, Functional | Sequential):
        # Such as a composite layer in `TimeDistributed`, which has shapes without being called.
        functional = functional_of(root) if isinstance(root, Sequential) else root
        with contextlib.suppress(Exception):
            root(keras.tree.map_structure(_zeros, functional.input), training=False)
    unbuilt = _unbuilt(root)
    if unbuilt and not root.variables:
        raise ValueError(
            f"`{what}` needs a built model, whose weights exist; layer '{unbuilt[0].name}' "
            f"({type(unbuilt[0]).__name__}) is not built. Call the model once on data, or `model.build(input_shape)`."
        )
    if unbuilt:
        names = [layer.path or layer.name for layer in unbuilt]
        warn(
            f"{len(names)} layers of '{root.name}' were never called and have no weights, such as '{names[0]}': they "
            "are left alone. If the model uses them, call it once on data first."
        )


def _unbuilt(root):
    """Layers without the weights that they are to have; others, such as lookup tables, need none."""
    return [layer for layer in flatten_layers(root) if not layer.built and speaks_for_itself(layer)]


def _zeros(tensor):
    return keras.ops.zeros([size or 1 for size in tensor.shape], tensor.dtype)


def _how_to_build(root, what):
    inner = [(name, layer) for name, layer in children(root) if layer.built and layer.weights]
    if isinstance(root, keras.Model) and type(root).call is keras.Model.call and inner:
        names = ", ".join(f"`{name}` ({type(layer).__name__})" for name, layer in inner)
        first = inner[0][0]
        return (
            f"'{root.name}' ({type(root).__name__}) has no `call`, which alone could build it. Take the networks "
            f"within, {names}: `{what}(model.{first}, ...)`, give the result to a new {type(root).__name__} (or write "
            f"`model.{first} = ...`), and train that; its `fit` updates what is within. Then strip `model.{first}`."
        )
    return (
        f"layer '{root.name}' ({type(root).__name__}) is not built. Call the model once on data, or "
        "`model.build(input_shape)`."
    )


def left_alone_unknown(left_alone):
    """Those of `left_alone` whose layer class is unknown to the table."""
    return [item for item in left_alone if item.unknown]
