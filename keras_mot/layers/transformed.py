"""The class that a layer with transforms has: a subclass, made on the fly, of what it was.

A transformed layer stays the layer it was: the same object, its class changed to a subclass whose call runs with the
weights substituted. Nothing is wrapped, so names, paths, `isinstance` and `model.layers` stay the same.
"""

import contextlib
import functools
import types

import keras

from keras_mot._keras import flatten_layers, forget_attribute, open_tracking, unpickling_with, untrack
from keras_mot.layers._refusals import guard_exports, guard_models, refused_methods
from keras_mot.layers._substitution import Substitution
from keras_mot.layers.transformed_weight import TransformedWeight

_PACKAGE = "keras_mot"
_REGISTERED_NAME = "TransformedLayer"


class TransformedLayer:
    """Mixin of the classes that transformed layers have; the other base is the layer's own class."""

    _keras_mot_transformed = True

    def call(self, *args, **kwargs):
        """The plain layer's call, with the transformed weights in place of the stored ones."""
        with Substitution(self._weight_stacks.weights_in_call, self):
            return super().call(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        """The plain layer's; before its first call, transforms are attached to the weights that calling makes."""
        if not self._weight_stacks.awaits_call:
            return super().__call__(*args, **kwargs)
        from keras_mot.layers.attaching import attach_pending

        # On symbolic tensors, so that no step of a training runs, or is traced, without the transforms.
        positional, named = keras.tree.map_structure(_symbolic, (args, kwargs))
        result = super().__call__(*positional, **named)
        attach_pending(self)
        given = any(isinstance(value, keras.KerasTensor) for value in keras.tree.flatten((args, kwargs)))
        return result if given else super().__call__(*args, **kwargs)

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
        from keras_mot.layers.attaching import attach_or_wait  # which makes layers of this class

        inner = config["layer"]
        # A parent such as `Bidirectional` renames or reverses a layer by editing the configuration's top level.
        edits = {key: value for key, value in config.items() if key not in ("layer", "transforms")}
        inner = {**inner, "config": {**inner["config"], **edits}}
        layer = keras.saving.deserialize_keras_object(inner, custom_objects)
        transforms = {
            place: [keras.saving.deserialize_keras_object(item, custom_objects) for item in stack]
            for place, stack in config["transforms"].items()
        }
        return attach_or_wait(layer, transforms)

    def build_from_config(self, config):
        """Nothing: `from_config` has built the layer."""

    def __reduce__(self):
        """As Keras pickles models; unpickling calls the plain class, which has a name that can be looked up."""
        return unpickling_with(plain_class(self)), super().__reduce__()[1]


def _symbolic(value):
    if isinstance(value, keras.KerasTensor) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return value
    return keras.KerasTensor(tuple(value.shape), keras.backend.standardize_dtype(value.dtype))


class Stacks:
    """What is attached below one layer: kept out of Keras's own tracking, which would see variables twice."""

    def __init__(self):
        self.own = []  # TransformedWeights that this layer owns
        self.hosted = []  # TransformedWeights whose configuration this layer carries
        self.pending = {}  # place -> transforms, while the layer is not built
        self.awaits_call = False  # whether it is the first call that makes the weights of what is pending
        self.plain_quantize = None  # Keras's own, which it puts on each layer object

    @property
    def weights_in_call(self):
        """The `TransformedWeight`s to substitute while the layer is called."""
        # A host substitutes all it hosts: its own code may read a sub-layer's weight without calling it.
        return self.hosted or self.own

    def by_place(self):
        """Dictionary from places to the transforms that the layer's configuration carries."""
        return {**{weight.place: weight.transforms for weight in self.hosted}, **self.pending}

    def own_weight(self, variable):
        """The `TransformedWeight` of a variable that this layer owns; `None` if it has none."""
        return next((weight for weight in self.own if weight.variable is variable), None)

    def put(self, weight, hosted):
        """Notes a weight, in place of what there was for its variable, as owned or as hosted."""
        weights = self.hosted if hosted else self.own
        for place, known in enumerate(weights):
            if known.variable is weight.variable:
                weights[place] = weight
                return
        weights.append(weight)

    def give_up_hosting(self, variable):
        """Forgets that this layer's configuration carries the transforms of a variable."""
        self.hosted[:] = [weight for weight in self.hosted if weight.variable is not variable]


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


def plain_class(thing: object) -> type:
    """The class of a layer or operation: of one with transforms, that of the layer without them."""
    return getattr(type(thing), "_plain_class", type(thing))


def stacks_of(layer):
    """The `Stacks` of a layer; empty ones that nothing keeps for a plain layer."""
    return layer._weight_stacks if is_transformed(layer) else Stacks()


def become_transformed(layer):
    """Changes the class of a plain layer to that of one with transforms; returns its `Stacks`."""
    if not is_transformed(layer):
        object.__setattr__(layer, "_weight_stacks", Stacks())
        layer._weight_stacks.plain_quantize = vars(layer).pop("quantize", None)
        layer.__class__ = _transformed_class(type(layer))
    return layer._weight_stacks


def become_plain(layer):
    """Gives a transformed layer its own class back, and lets it forget its transforms."""
    stacks = layer._weight_stacks
    if stacks.own:
        transforms = list(layer._weight_transforms)
        for transform in transforms:
            untrack(layer, transform)
        variables = [variable for transform in transforms for variable in transform.variables]
        forget_attribute(layer, "_weight_transforms", variables)
    layer.__class__ = plain_class(layer)
    if stacks.plain_quantize is not None:
        object.__setattr__(layer, "quantize", stacks.plain_quantize)
    object.__delattr__(layer, "_weight_stacks")


def track_transforms(layer):
    """Makes the transforms sub-layers of their layer, so that Keras counts, saves and loads their variables.

    Always in the order of weights and stacks, in which a layer gets them that is loaded or copied.
    """
    with open_tracking(layer):
        for transform in getattr(layer, "_weight_transforms", ()):
            untrack(layer, transform)
        layer._weight_transforms = [transform for weight in stacks_of(layer).own for transform in weight.transforms]


def transformed_weights(root: keras.layers.Layer) -> list[TransformedWeight]:
    """All `TransformedWeight`s below a layer or model, in a stable order."""
    weights = {}
    for layer in flatten_layers(root):
        for weight in stacks_of(layer).own:
            weights[id(weight.variable)] = weight
    return list(weights.values())


def pending_transforms(root):
    """(layer, transform) pairs for the transforms below `root` that wait for their layer to be built."""
    return [
        (layer, transform)
        for layer in flatten_layers(root)
        for stack in stacks_of(layer).pending.values()
        for transform in stack
    ]


def _has_transforms(model):
    return bool(transformed_weights(model) or pending_transforms(model))


guard_models(_has_transforms)
guard_exports(_has_transforms)


@contextlib.contextmanager
def as_plain_layers(root):
    """Context in which the transformed layers below `root` are the plain ones that they were."""
    swapped = [layer for layer in flatten_layers(root) if is_transformed(layer)]
    classes = [type(layer) for layer in swapped]
    for layer in swapped:
        layer.__class__ = plain_class(layer)
    try:
        yield
    finally:
        for layer, layer_class in zip(swapped, classes, strict=True):
            layer.__class__ = layer_class
