"""Attaching transforms to a layer's weights."""

import contextlib
import functools
from collections.abc import Mapping, Sequence

import keras

from keras_mot._keras import (
    flatten_layers,
    forget_torch_parameters,
    has_default_build,
    is_eager,
    own_variables,
    set_path,
    sublayers,
    train_only_while,
)
from keras_mot.layers.finding import check_layer, find_weights
from keras_mot.layers.transformed import (
    become_transformed,
    stacks_of,
    track_transforms,
)
from keras_mot.layers.transformed_weight import TransformedWeight, penalise_effective
from keras_mot.transforms import WeightTransform
from keras_mot.transforms.base import order_error, updaters_by_reference

ANY = "*"
"""The place that stands for every transformable weight of a layer that is not built yet."""
ANY_BUT_DEPTHWISE = "*!depthwise"
"""The same without depthwise kernels."""


def attach(host: keras.layers.Layer, transforms: Mapping[str, Sequence[WeightTransform]]) -> keras.layers.Layer:
    """Attaches stacks of transforms to weights of a layer, in place.

    Args:
        host: a layer, or a subclassed model. If it is not built, the transforms are attached when it is.
        transforms: dictionary from the place of a weight (`FoundWeight.place`, for example `"kernel"`) to the
            list of `WeightTransform`s to append to the weight's stack. The place `"*"` stands for every
            transformable weight of an unbuilt layer, `"*!depthwise"` for all but depthwise kernels; its transforms are
            copied for each.

    Returns:
        `host`, its class changed to a subclass of what it was.

    Raises:
        TypeError: if `host` is not a Keras model or layer.
        ValueError: if a place does not exist, or a transform changes the shape or dtype of its weight.
    """
    check_layer(host, "attach")
    if not host.built and (not set(transforms) - {ANY, ANY_BUT_DEPTHWISE} or _lacks(host, transforms)):
        return _attach_when_built(host, transforms)
    found = {weight.place: weight for weight in find_weights_of_host(host)}
    transforms = _expand_any(transforms, found)
    missing = sorted(set(transforms) - set(found))
    if missing:
        unbuilt = [f"'{layer.name}' ({type(layer).__name__})" for layer in flatten_layers(host) if not layer.built]
        hint = (
            f" Not built yet: {', '.join(unbuilt)}; a `build` of the layer around them should do it." if unbuilt else ""
        )
        raise ValueError(
            f"Layer '{host.name}' has no transformable weight at {missing}; it has {sorted(found)}. A user's own "
            f"layer class must be registered with `keras_mot.layers.register_weights` before a model is loaded.{hint}"
        )
    # Nothing has changed before all are prepared: what is refused leaves the layer as it was.
    for weight in [prepare(found[place], tuple(stack)) for place, stack in transforms.items()]:
        put_on(host, weight)
    forget_torch_parameters(host)
    return host


def attach_or_wait(host: keras.layers.Layer, transforms: Mapping[str, Sequence[WeightTransform]]) -> keras.layers.Layer:
    """`attach` for a layer that was made from its configuration, at once or at its first call.

    A composite layer, without a `build` of its own, counts as built while its sub-layers are not: these are built in
    the first call, which is symbolic where the layer is one of a functional model that is loaded.
    """
    if host.built and _lacks(host, transforms) and any(not layer.built for layer in flatten_layers(host)):
        return _attach_when_called(host, transforms)
    return attach(host, transforms)


def _attach_when_called(host, transforms):
    stacks = become_transformed(host)
    stacks.pending.update(transforms)
    stacks.awaits_call = True
    return host


def attach_pending(host: keras.layers.Layer) -> None:
    """Attaches what has waited for the first call of a composite layer, which has made its weights now."""
    stacks = stacks_of(host)
    pending = dict(stacks.pending)
    stacks.pending.clear()
    stacks.awaits_call = False
    attach(host, pending)
    if ANY in pending or ANY_BUT_DEPTHWISE in pending:  # else the layer is loaded, and its transforms will be
        _check_updaters(host)
        initialize(stacks_of(host).hosted)


def _lacks(host, transforms):
    return bool(set(transforms) - {ANY, ANY_BUT_DEPTHWISE} - {weight.place for weight in find_weights_of_host(host)})


def find_weights_of_host(host):
    """The `FoundWeight`s whose host is `host` itself."""
    return [weight for weight in find_weights(host)[0] if weight.host is host]


def _expand_any(transforms, found):
    expanded = {place: stack for place, stack in transforms.items() if place not in (ANY, ANY_BUT_DEPTHWISE)}
    for anywhere in (ANY, ANY_BUT_DEPTHWISE):
        for place, weight in found.items() if anywhere in transforms else ():
            if place not in expanded and (anywhere == ANY or not weight.depthwise):
                expanded[place] = _copies_for(weight, transforms[anywhere])
    return expanded


def _copies_for(found, stack):
    """Copies of transforms that suit a weight."""
    copies = copy_stack(stack)
    for transform in copies:
        transform.suit(tuple(found.variable.shape), found.axes)
    return copies


def copy_stack(stack: Sequence[WeightTransform]) -> list[WeightTransform]:
    """Copies of transforms that are not built, with the same updaters."""
    with updaters_by_reference():
        configs = [keras.saving.serialize_keras_object(transform) for transform in stack]
        return [keras.saving.deserialize_keras_object(config) for config in configs]


def _attach_when_built(host, transforms):
    if has_default_build(host):
        if is_composite(host):
            return _attach_when_called(host, transforms)
        raise ValueError(
            f"Layer '{host.name}' ({type(host).__name__}) is not built and has no `build` method of its own: "
            "call it once on data before attaching transforms."
        )
    stacks = become_transformed(host)
    stacks.pending.update(transforms)
    plain_build = host.build

    @functools.wraps(plain_build)
    def build(*args, **kwargs):
        plain_build(*args, **kwargs)
        host.built = True
        pending = dict(stacks.pending)
        stacks.pending.clear()
        if pending:
            host.build = plain_build
            attach(host, pending)
            _check_updaters(host)
            initialize(stacks_of(host).hosted)

    host.build = build
    return host


def is_composite(layer: keras.layers.Layer) -> bool:
    """Whether a layer has no `build` of its own, and layers within, which its first call builds."""
    return has_default_build(layer) and not isinstance(layer, keras.Model) and bool(sublayers(layer))


def _check_updaters(host):
    """Lets each updater refuse weights whose shapes it could not know before they were built."""
    for updater, weights in weights_by_updater(stacks_of(host).hosted).items():
        updater.check([(weight.path, tuple(weight.variable.shape), weight.axes) for weight in weights])


def initialize(weights):
    """Lets each updater that starts from the weights' values, as a codebook does, take them.

    Where values cannot be read, as when a layer is built inside of a compiled function, that waits for the update
    before the first training step.
    """
    if not is_eager():
        return
    for updater, members in weights_by_updater(weights).items():
        if hasattr(updater, "initialize"):
            updater.initialize(members)


def weights_by_updater(weights):
    """Dictionary from updater to those of `weights` that have a transform with it."""
    groups = {}
    for weight in weights:
        for transform in weight.transforms:
            if transform.updater is not None:
                groups.setdefault(transform.updater, []).append(weight)
    return groups


def prepare(found, stack):
    """The weight of a `FoundWeight` with `stack` after the transforms that it has, checked, but not attached yet."""
    owner, variable = found.owner, found.variable
    existing = stacks_of(owner).own_weight(variable)
    before = existing.transforms if existing else ()
    refusal = order_error(before + stack)
    if refusal:
        raise ValueError(f"The transforms of weight '{owner.path or owner.name}/{found.key}' cannot be so: {refusal}")
    with contextlib.ExitStack() as scopes:
        for part in (owner.path or owner.name).split("/"):
            scopes.enter_context(keras.name_scope(part))
        for transform in stack:
            if not transform.built:
                transform.axes = found.axes
                transform.build(tuple(variable.shape))
    for transform in stack:
        for own in transform.variables:  # PyTorch lists parameters by path, which must be unique
            set_path(own, "/".join([*variable.path.split("/")[:-1], transform.name, own.name]))
        for learned in own_variables(transform)[0]:
            train_only_while(learned, lambda: variable.trainable)
    weight = TransformedWeight(owner, found.key, found.place, variable, found.axes, before + stack)
    _check_output(weight)
    return weight


def put_on(host, weight):
    """Attaches a prepared weight: its layer and `host` become transformed ones."""
    become_transformed(host).put(weight, hosted=True)
    become_transformed(weight.owner).put(weight, hosted=False)
    if host is not weight.owner:  # a layer that had transforms of its own before it was wrapped hosts them no more
        stacks_of(weight.owner).give_up_hosting(weight.variable)
    track_transforms(weight.owner)
    penalise_effective(weight)


def _check_output(weight):
    result = weight.effective_value()
    variable = weight.variable
    dtype = keras.backend.standardize_dtype(result.dtype)
    if tuple(result.shape) != tuple(variable.shape) or dtype != variable.dtype:
        names = [type(transform).__name__ for transform in weight.transforms]
        raise ValueError(
            f"The transforms {names} must keep the shape and dtype of weight '{weight.path}', "
            f"{tuple(variable.shape)} and {variable.dtype}; they return {tuple(result.shape)} and {dtype}."
        )
