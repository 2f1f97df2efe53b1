"""The weights that one layer holds itself: which of them can be transformed, and why the others are left alone.

A user's own layer may say it by a method `transformable_weights()`. TFMOT's `get_prunable_weights()` and
`get_clusterable_weights()` are understood too; a layer that has both may answer differently for the two techniques.
"""

import dataclasses

import keras

from keras_mot._keras import flatten_layers, nothing_frozen, own_variables
from keras_mot.layers._children import key_of
from keras_mot.layers._weights import MATRIX, WeightAxes, as_specs, reason_to_leave, specs_of
from keras_mot.layers.transformed import plain_class
from keras_mot.transforms import WeightTransform

BIASES = "biases"
MERGE_LORA = (
    "LoRA is enabled: build the layer without it (`lora_rank=None`), and give that one the merged kernel, "
    "`plain.kernel.assign(layer.kernel)`"
)
STATE = "statistics and other state that is not trained"
# The techniques that a method speaks for, by the verbs of `Technique`, where a layer has several.
_METHODS = {"get_prunable_weights": "prune", "get_clusterable_weights": "cluster"}


@dataclasses.dataclass(frozen=True, eq=False)
class OwnWeight:
    """A transformable variable that a layer speaks for.

    Args:
        key: attribute path from the layer to the variable.
        variable: the stored weight.
        axes: what the weight's axes mean.
        depthwise: whether it is left alone unless it is asked for, see `WeightSpec`.
        techniques: the verbs of the techniques that the layer offers it to, such as `{"prune"}`; `None` for all.
        below: whether a sub-layer holds the variable.
    """

    key: str
    variable: keras.Variable
    axes: WeightAxes
    depthwise: bool = False
    techniques: frozenset[str] | None = None
    below: bool = False


@dataclasses.dataclass(frozen=True)
class LeftAlone:
    """Variables that no transform applies to, and why.

    Args:
        path: path of the variable, or of the layer that holds them.
        reason: why they are left alone.
        unknown: whether the layer class is unknown to the table (and may deserve registration).
        variables: the variables.
        usual: whether they are of a kind that is left alone in every layer, such as biases: reports only count these.
    """

    path: str
    reason: str
    unknown: bool = False
    variables: tuple[keras.Variable, ...] = ()
    usual: bool = False


def speaks_for_itself(layer):
    """Whether the class of `layer` has an entry in the table or a method that names its weights."""
    return bool(_methods(layer)) or specs_of(layer) is not None


def own_weights(layer):
    """The weights that `layer` itself holds, not its sub-layers; each is in one of the lists.

    Args:
        layer: a built layer.

    Returns:
        A pair of lists, of `OwnWeight` and of `LeftAlone`. The first also has what a method of the layer names of the
        weights of its sub-layers.
    """
    trained, state = own_variables(layer)
    whole = _reason_of_another_form(layer)
    if whole is not None:
        return [], [LeftAlone(layer.path, whole, variables=(*trained, *state))]
    found = _named_by_methods(layer) if _methods(layer) else _listed(layer)
    taken = {id(weight.variable) for weight in found}
    trained, state = ([each for each in group if id(each) not in taken] for group in (trained, state))
    left = _explain(layer, trained, any(not weight.below for weight in found))
    if state:
        left.append(LeftAlone(layer.path, STATE, variables=tuple(state), usual=True))
    return found, left


def _reason_of_another_form(layer):
    if not speaks_for_itself(layer):
        return None
    if getattr(layer, "lora_enabled", False):
        return MERGE_LORA
    mode = getattr(layer, "quantization_mode", None)
    return None if mode is None else f"already quantized by Keras ({mode}): it has no float weight"


def _listed(layer):
    weights = [_as_own(layer, spec) for spec in specs_of(layer) or ()]
    return [weight for weight in weights if weight is not None]


def _as_own(layer, spec):
    variable = _attribute(layer, spec.name)
    if variable is None:
        return None
    return OwnWeight(spec.name, variable, spec.axes.normalized(len(variable.shape)), spec.depthwise)


def _attribute(layer, name):
    for each in (f"_{name}", name):
        if isinstance(getattr(layer, each, None), keras.Variable):
            return getattr(layer, each)
    return None


def _methods(layer):
    if hasattr(layer, "transformable_weights"):
        return ["transformable_weights"]
    return [method for method in _METHODS if hasattr(layer, method)]


def _named_by_methods(layer):
    """What a user's methods return: specs, attribute names, variables, or (name, variable) pairs."""
    found, methods = {}, _methods(layer)
    if not layer.built and not layer.weights:  # the method would look for attributes that there are not yet
        return []
    for method in methods:
        techniques = frozenset([_METHODS[method]]) if len(methods) > 1 else None
        for weight in _returned(layer, method):
            before = found.get(id(weight.variable))
            if before is None:
                found[id(weight.variable)] = dataclasses.replace(weight, techniques=techniques)
            elif techniques is not None:
                both = before.techniques | techniques
                found[id(weight.variable)] = dataclasses.replace(before, techniques=both)
    return list(found.values())


def _returned(layer, method):
    own = {id(variable) for group in own_variables(layer) for variable in group}
    transforms = [part for part in flatten_layers(layer) if isinstance(part, WeightTransform)]
    attached = {id(variable) for transform in transforms for variable in transform.variables}
    axes = {id(weight.variable): weight.axes for weight in _listed(layer)}
    with nothing_frozen(layer):  # a method may well return `trainable_weights`
        items = list(getattr(layer, method)())
    for item in items:
        if isinstance(item, tuple):
            item = item[-1]
        if not isinstance(item, keras.Variable):
            (spec,) = as_specs([item])
            weight = _as_own(layer, spec)
            if weight is not None:
                yield weight
        elif id(item) not in attached:  # `trainable_weights` has the centroids of a codebook, too
            key = key_of(layer, item)
            if key is None:
                raise ValueError(
                    f"`{type(layer).__name__}.{method}()` returned the variable '{item.path}', which neither the layer "
                    "nor a layer below it holds. Return variables of the layer."
                )
            meaning = axes.get(id(item)) or MATRIX.normalized(len(item.shape))
            yield OwnWeight(key, item, meaning, below=id(item) not in own)


def _explain(layer, variables, has_found):
    """`LeftAlone`s for the variables that a layer trains and that are not to be transformed."""
    reason = reason_to_leave(layer)
    name = plain_class(layer).__name__
    if not variables:
        return []
    if not speaks_for_itself(layer):
        unlisted = f"{name} is not in the table: use `keras_mot.layers.register_weights({name}, [...])`"
        return [LeftAlone(layer.path, reason or unlisted, reason is None, tuple(variables))]
    biases = [variable for variable in variables if variable.name == "bias" or variable is _attribute(layer, "bias")]
    others = [variable for variable in variables if all(variable is not bias for bias in biases)]
    left = [LeftAlone(layer.path, BIASES, variables=tuple(biases), usual=True)] if biases else []
    methods = " or ".join(f"`{method}()`" for method in _methods(layer))
    if others and not has_found and not methods:
        missing = f"{name} has none of the weights listed for its class"
        return [*left, LeftAlone(layer.path, missing, variables=tuple(others))]
    unlisted = f"not among the weights listed for its class: use `keras_mot.layers.register_weights({name}, [...])`"
    for variable in others:
        reason = f"not returned by {methods}" if methods else unlisted
        left.append(LeftAlone(variable.path, reason, not methods, (variable,)))
    return left
