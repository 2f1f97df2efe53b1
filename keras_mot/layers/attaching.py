"""Attaching transforms to a layer's weights, and stripping them.

A transformed layer stays the layer it was: the same object, its class changed to a subclass made on the fly
whose call runs with the weights substituted. Nothing is wrapped, so names, paths, `isinstance` and
`model.layers` stay the same. Stripping writes the transformed weights into the variables and restores the class.
"""

import contextlib
import contextvars
import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_mot._keras import flatten_layers, forget_torch_parameters, is_eager, own_variables, train_only_while
from keras_mot.layers._refusals import guard_models, refused_methods
from keras_mot.layers._substitution import Substitution
from keras_mot.layers._weights import WeightAxes
from keras_mot.layers.finding import check_layer, find_weights
from keras_mot.transforms import WeightTransform
from keras_mot.transforms.base import order_error, updaters_by_reference

_PACKAGE = "keras_mot"
_REGISTERED_NAME = "TransformedLayer"
ANY = "*"
"""The place that stands for every transformable weight of a layer that is not built yet."""
ANY_BUT_DEPTHWISE = "*!depthwise"
"""The same without depthwise kernels."""

_EVALUATED = contextvars.ContextVar("evaluated_weights", default=None)


@contextlib.contextmanager
def evaluated_once(known=None):
    """While open, each transformed weight is computed at its first use only.

    For several eager calls of a model, between which no weight and no transform changes.

    Args:
        known: dictionary from ids of variables to values that are used in place of theirs, or `None`.
    """
    token = _EVALUATED.set({} if known is None else dict(known))
    try:
        yield
    finally:
        _EVALUATED.reset(token)


@dataclasses.dataclass(frozen=True, eq=False)
class TransformedWeight:
    """A weight with the stack of transforms between its stored value and the value that is used.

    Args:
        owner: the layer during whose call the transforms run.
        key: path of the variable within `owner`.
        place: path of the variable within the layer whose configuration carries the transforms.
        variable: the stored weight.
        axes: what the weight's axes mean.
        transforms: tuple of `keras_mot.transforms.WeightTransform`, applied in order.
    """

    owner: keras.layers.Layer
    key: str
    place: str
    variable: keras.Variable
    axes: WeightAxes
    transforms: tuple[WeightTransform, ...]

    @property
    def path(self):
        """The path of the weight in messages and reports: the owner's path and the key."""
        return f"{self.owner.path or self.owner.name}/{self.key}"

    def transform_of(self, kind):
        """The transform of the class `kind` in the stack, or `None`."""
        return next((transform for transform in self.transforms if isinstance(transform, kind)), None)

    def value_before(self, transform=None):
        """The weight as `transform` receives it, or after the whole stack if `transform` is `None`."""
        return self.apply(ops.convert_to_tensor(self.variable.value), transform)

    def apply(self, value, until=None):
        """`value` sent through the stack, up to but without the transform `until`."""
        for transform in self.transforms:
            if transform is until:
                break
            value = transform.call(value)
        return value

    def effective_value(self):
        """The weight that the forward pass uses."""
        known = _EVALUATED.get()
        if known is None:
            return self.value_before(None)
        if id(self.variable) not in known:
            known[id(self.variable)] = self.value_before(None)
        return known[id(self.variable)]

    def frozen_value(self):
        """The weight that stripping leaves."""
        value = ops.convert_to_tensor(self.variable.value)
        for transform in self.transforms:
            value = transform.freeze(value)
        return value


class _TransformedRegularizer(keras.regularizers.Regularizer):
    """Penalises the weight that is used, so that a weight out of use gets no gradient from its penalty."""

    def __init__(self, regularizer, weight):
        self.regularizer = regularizer
        self.weight = weight

    def __call__(self, value):
        return self.regularizer(self.weight.apply(ops.convert_to_tensor(value)))


class TransformedLayer:
    """Mixin of the classes that transformed layers have; the other base is the layer's own class."""

    _keras_mot_transformed = True

    def call(self, *args, **kwargs):
        """The plain layer's call, with the transformed weights in place of the stored ones."""
        with Substitution(self._weight_stacks.weights_in_call, self):
            return super().call(*args, **kwargs)

    def get_config(self):
        """The plain layer's configuration and build state beside those of the transforms."""
        with as_plain_layers(self):
            layer = keras.saving.serialize_keras_object(self)
        layer.pop("compile_config", None)  # the outer object of a saved model has it
        transforms = {
            place: [keras.saving.serialize_keras_object(transform) for transform in stack]
            for place, stack in self._weight_stacks.by_place().items()
        }
        return {"name": self.name, "layer": layer, "transforms": transforms}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The plain layer with its transforms attached again."""
        inner = config["layer"]
        # A parent such as `Bidirectional` renames or reverses a layer by editing the configuration's top level.
        edits = {key: value for key, value in config.items() if key not in ("layer", "transforms")}
        inner = {**inner, "config": {**inner["config"], **edits}}
        layer = keras.saving.deserialize_keras_object(inner, custom_objects)
        transforms = {
            place: [keras.saving.deserialize_keras_object(item, custom_objects) for item in stack]
            for place, stack in config["transforms"].items()
        }
        return attach(layer, transforms)

    def build_from_config(self, config):
        """Nothing: `from_config` has built the layer."""


class _Stacks:
    """What is attached below one layer: kept out of Keras's own tracking, which would see variables twice."""

    def __init__(self):
        self.own = []  # TransformedWeights that this layer owns
        self.hosted = []  # TransformedWeights whose configuration this layer carries
        self.pending = {}  # place -> transforms, while the layer is not built
        self.plain_quantize = None  # Keras's own, which it puts on each layer object

    @property
    def weights_in_call(self):
        # A host substitutes all it hosts: its own code may read a sub-layer's weight without calling it.
        return self.hosted or self.own

    def by_place(self):
        return {**{weight.place: weight.transforms for weight in self.hosted}, **self.pending}


@functools.cache
def _transformed_class(plain_class):
    # Named after the plain class for `summary` and `repr`; all are loaded through one registered name.
    new_class = types.new_class(
        f"Transformed{plain_class.__name__}",
        (TransformedLayer, plain_class),
        exec_body=lambda namespace: namespace.update(
            {
                **refused_methods(plain_class),
                "__module__": __name__,
                "__doc__": plain_class.__doc__,
                "_plain_class": plain_class,
            }
        ),
    )
    return keras.saving.register_keras_serializable(_PACKAGE, _REGISTERED_NAME)(new_class)


# Registers the name, so that `import keras_mot` is all that loading a saved model needs.
_transformed_class(keras.layers.Layer)


def is_transformed(layer: keras.layers.Layer) -> bool:
    """Whether transforms are attached to a weight of `layer`, or hosted by it."""
    return getattr(type(layer), "_keras_mot_transformed", False)


def transformed_weights(root: keras.layers.Layer) -> list[TransformedWeight]:
    """All `TransformedWeight`s below a layer or model, in a stable order."""
    weights = {}
    for layer in flatten_layers(root):
        if is_transformed(layer):
            for weight in layer._weight_stacks.own:
                weights[id(weight.variable)] = weight
    return list(weights.values())


def pending_transforms(root):
    """(layer, transform) pairs for the transforms below `root` that wait for their layer to be built."""
    return [
        (layer, transform)
        for layer in flatten_layers(root)
        if is_transformed(layer)
        for stack in layer._weight_stacks.pending.values()
        for transform in stack
    ]


guard_models(lambda model: bool(transformed_weights(model) or pending_transforms(model)))


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
    if not host.built:
        return _attach_when_built(host, transforms)
    found = {weight.place: weight for weight in find_weights_of_host(host)}
    transforms = _expand_any(transforms, found)
    missing = sorted(set(transforms) - set(found))
    if missing:
        raise ValueError(
            f"Layer '{host.name}' has no transformable weight at {missing}; it has {sorted(found)}. A user's own "
            "layer class must be registered with `keras_mot.layers.register_weights` before a model is loaded."
        )
    # Nothing has changed before all are prepared: what is refused leaves the layer as it was.
    for weight in [prepare(found[place], tuple(stack)) for place, stack in transforms.items()]:
        put_on(host, weight)
    forget_torch_parameters(host)
    return host


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
    with updaters_by_reference():
        configs = [keras.saving.serialize_keras_object(transform) for transform in stack]
        copies = [keras.saving.deserialize_keras_object(config) for config in configs]
    for transform in copies:
        transform.suit(tuple(found.variable.shape), found.axes)
    return copies


def _attach_when_built(host, transforms):
    if getattr(host.build, "_is_default", False):
        raise ValueError(
            f"Layer '{host.name}' ({type(host).__name__}) is not built and has no `build` method of its own: "
            "call it once on data before attaching transforms."
        )
    _ensure_transformed(host)
    host._weight_stacks.pending.update(transforms)
    plain_build = host.build

    @functools.wraps(plain_build)
    def build(*args, **kwargs):
        plain_build(*args, **kwargs)
        host.built = True
        pending = dict(host._weight_stacks.pending)
        host._weight_stacks.pending.clear()
        if pending:
            host.build = plain_build
            attach(host, pending)
            _check_updaters(host)
            initialize(host._weight_stacks.hosted)

    host.build = build
    return host


def _check_updaters(host):
    """Lets each updater refuse weights whose shapes it could not know before they were built."""
    for updater, weights in weights_by_updater(host._weight_stacks.hosted).items():
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


def _ensure_transformed(layer):
    if not is_transformed(layer):
        object.__setattr__(layer, "_weight_stacks", _Stacks())
        layer._weight_stacks.plain_quantize = vars(layer).pop("quantize", None)
        layer.__class__ = _transformed_class(type(layer))


def prepare(found, stack):
    """The weight of a `FoundWeight` with `stack` after the transforms that it has, checked, but not attached yet."""
    owner, variable = found.owner, found.variable
    existing = _existing(owner, variable)
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
            own._path = "/".join([*variable.path.split("/")[:-1], transform.name, own.name])
        for learned in own_variables(transform)[0]:
            train_only_while(learned, lambda: variable.trainable)
    weight = TransformedWeight(owner, found.key, found.place, variable, found.axes, before + stack)
    _check_output(weight)
    return weight


def _existing(owner, variable):
    own = owner._weight_stacks.own if is_transformed(owner) else []
    return next((weight for weight in own if weight.variable is variable), None)


def put_on(host, weight):
    """Attaches a prepared weight: its layer and `host` become transformed ones."""
    owner, variable = weight.owner, weight.variable
    _ensure_transformed(host)
    existing = _existing(owner, variable)
    _ensure_transformed(owner)
    if host is not owner:  # a layer that had transforms of its own before it was wrapped hosts them no more
        stale = owner._weight_stacks.hosted
        stale[:] = [item for item in stale if item is not existing]
    for weights in (owner._weight_stacks.own, host._weight_stacks.hosted):
        if existing in weights:
            weights[weights.index(existing)] = weight
        else:
            weights.append(weight)
    _track(owner)
    if isinstance(variable.regularizer, _TransformedRegularizer):
        variable.regularizer = variable.regularizer.regularizer
    if variable.regularizer is not None:
        variable.regularizer = _TransformedRegularizer(variable.regularizer, weight)


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


def _track(owner):
    """Makes the transforms sub-layers of `owner`, so that Keras counts, saves and loads their variables.

    Always in the order of weights and stacks, in which a layer gets them that is loaded or copied.
    """
    owner._tracker.unlock()
    for transform in getattr(owner, "_weight_transforms", ()):
        owner._tracker.untrack(transform)
    owner._weight_transforms = [transform for weight in owner._weight_stacks.own for transform in weight.transforms]
    owner._tracker.lock()


def _untrack(owner):
    for transform in owner._weight_transforms:
        owner._tracker.untrack(transform)
        for variable in transform.variables:
            if hasattr(owner, "_post_untrack_variable"):
                owner._post_untrack_variable(variable)
    # Attributes set before the layer was swapped are untouched: only what `_track` set goes.
    with contextlib.suppress(AttributeError):
        del owner._weight_transforms
    # TensorFlow's exporter keeps the names of tracked containers.
    tracked = getattr(owner, "_tracked", None)
    if isinstance(tracked, list):
        tracked[:] = [name for name in tracked if name != "_weight_transforms"]


@contextlib.contextmanager
def as_plain_layers(root):
    """Context in which the transformed layers below `root` are the plain ones that they were."""
    swapped = [layer for layer in flatten_layers(root) if is_transformed(layer)]
    classes = [type(layer) for layer in swapped]
    for layer in swapped:
        layer.__class__ = type(layer)._plain_class
    try:
        yield
    finally:
        for layer, layer_class in zip(swapped, classes, strict=True):
            layer.__class__ = layer_class


def strip(root: keras.layers.Layer) -> keras.layers.Layer:
    """Makes transforms permanent and removes them, in place.

    Each transformed weight's variable gets the value that the forward pass used (or that its transforms freeze to, such
    as the nearest centroid after soft clustering); classes, tracking and
    regularizers are restored. A model saved afterwards loads without this package.

    Args:
        root: a layer or model of any kind.

    Returns:
        `root`.

    Raises:
        TypeError: if `root` is not a Keras model or layer.
    """
    check_layer(root, "strip")
    for weight in transformed_weights(root):
        weight.variable.assign(weight.frozen_value())
        if isinstance(weight.variable.regularizer, _TransformedRegularizer):
            weight.variable.regularizer = weight.variable.regularizer.regularizer
    for layer in flatten_layers(root):
        if is_transformed(layer):
            if layer._weight_stacks.own:
                _untrack(layer)
            layer.__class__ = type(layer)._plain_class
            if layer._weight_stacks.plain_quantize is not None:
                object.__setattr__(layer, "quantize", layer._weight_stacks.plain_quantize)
            object.__delattr__(layer, "_weight_stacks")
    forget_torch_parameters(root)
    return root


def numpy_value(tensor):
    """A tensor or variable as a NumPy array to read: without a copy where it lies in the host's memory."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    try:
        return _numpy_views[keras.backend.backend()](tensor)
    except (TypeError, AttributeError, BufferError, RuntimeError, ValueError):
        return np.asarray(ops.convert_to_numpy(tensor))  # on another device, or of a dtype that NumPy lacks


def _tensorflow_view(tensor):
    import tensorflow as tf

    return np.asarray(memoryview(tf.convert_to_tensor(tensor)))


_numpy_views = {
    "tensorflow": _tensorflow_view,
    "jax": np.asarray,
    "torch": lambda tensor: tensor.detach().numpy(),
}
