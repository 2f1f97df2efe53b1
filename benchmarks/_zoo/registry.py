"""What an architecture of the zoo is, and the list of them."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

register = keras.saving.register_keras_serializable("zoo")
"""Registers a class of the zoo with Keras. Some are left unregistered on purpose: `custom_objects` names those."""

ARCHITECTURES = {}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A small model with random weights, and what goes with it.

    Attributes:
        name: of the function that builds it.
        domain: "vision", "text", "audio", "series", "tables", "generative", "recommender", "applications" or "hub".
        function: builds the model, with weights as initialisers draw them.
        data: function from (count, generator) to inputs, as the model takes them.
        traits: what is unusual of it, such as "composite" or "lookup".
        decides: whether the last axis of its output holds scores of classes, of which the largest decides.
        custom_objects: classes that loading needs.
        train: function (model, inputs) that trains one step and returns the loss; by default `compile` and `fit` on
            targets of the outputs' shapes.
        backends: on which it can be built.
        quick: whether it is one of the tenth that the test suite takes.
        seconds: limit of a cell, as a multiple of the runner's.
    """

    name: str
    domain: str
    function: Callable
    data: Callable
    traits: tuple[str, ...] = ()
    decides: bool = False
    custom_objects: Any = None
    train: Callable | None = None
    backends: tuple[str, ...] = ("tensorflow", "jax", "torch")
    quick: bool = False
    seconds: float = 1.0

    def build(self, seed=0):
        """The model, with random weights of a kind that keeps activations alive."""
        keras.utils.set_random_seed(seed)
        model = self.function()
        return settled(model, self.inputs(32, seed=1))

    def inputs(self, count, seed=2):
        return self.data(count, np.random.default_rng(seed))


def architecture(domain, data, *traits, **options):
    """Enters the function that builds a model into the list."""

    def enter(function):
        name = function.__name__.rstrip("_")
        if name in ARCHITECTURES:
            raise ValueError(f"Two architectures are called {name}.")
        ARCHITECTURES[name] = Architecture(name, domain, function, data, traits, **options)
        return function

    return enter


def settled(model, inputs):
    """Gives a model statistics of real activations, and biases, gains and shifts that are not those of the start.

    Without, half of the branches of a random network are dead or drown the others, and an error of
    rounding says nothing.
    """
    generator = np.random.default_rng(3)
    if not model.built:
        model(_tensors(inputs), training=False)
    for variable in model.weights:
        name, shape = variable.path.split("/")[-1], variable.shape
        if name == "gamma" and not np.ptp(_numpy(variable)):
            # A layer scale begins near nothing, and its branch would count for nothing.
            size = 0.5 if np.abs(_numpy(variable)).max() < 1e-2 else _numpy(variable)
            variable.assign(size * generator.uniform(0.8, 1.2, shape))
        elif name in ("beta", "bias") and "float" in variable.dtype and not np.any(_numpy(variable)):
            variable.assign(generator.normal(0.0, 0.1, shape))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if norms:
        _estimate(model, norms, inputs)
    _spread(model, inputs)
    return model


def _spread(model, inputs):
    """Scales and centres the last kernel that is called, so that outputs differ from sample to sample."""
    called = []

    def wrapped(layer, call):
        def observed(values, *args, **kwargs):
            activation, layer.activation = layer.activation, keras.activations.linear
            try:
                called.append((layer, _numpy(call(values, *args, **kwargs))))
            finally:
                layer.activation = activation
            return call(values, *args, **kwargs)

        return observed

    kinds = keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D
    found = [layer for layer in model._flatten_layers() if isinstance(layer, kinds) and hasattr(layer, "activation")]
    with _calls(found, wrapped):
        model(_tensors(inputs), training=False)
    if not called:
        return
    layer, values = called[-1]
    means = values.mean(tuple(range(values.ndim - 1)))
    factor = float(np.clip(1.5 / max((values - means).std(), 1e-6), 0.05, 30.0))
    layer.kernel.assign(_numpy(layer.kernel) * factor)
    if layer.bias is not None:
        layer.bias.assign((_numpy(layer.bias) - means) * factor)


@contextlib.contextmanager
def _calls(found, wrapped):
    """Replaces the `call` of layers for a while."""
    for layer in found:
        object.__setattr__(layer, "call", wrapped(layer, layer.call))
    try:
        yield
    finally:
        for layer in found:
            object.__delattr__(layer, "call")


def _estimate(model, norms, inputs):
    """Sets the statistics of batch normalization to those of the inputs, wherever it lies and however it is called."""
    seen = {}

    def wrapped(layer, call):
        @functools.wraps(call)
        def observed(values, *args, **kwargs):
            array = _numpy(values)
            axes = tuple(axis for axis in range(array.ndim) if axis != layer.axis % array.ndim)
            if id(layer) not in seen:
                seen[id(layer)] = True
                layer.moving_mean.assign(array.mean(axes))
                layer.moving_variance.assign(array.var(axes) + 1e-3)
            return call(values, *args, **kwargs)

        return observed

    with _calls(norms, wrapped):
        model(_tensors(inputs), training=False)


def _numpy(value):
    return keras.ops.convert_to_numpy(value)


def _tensors(inputs):
    """Arrays as a model takes them when it is called; strings stay as TensorFlow wants them."""

    def convert(array):
        if array.dtype.kind in "USO":
            import tensorflow as tf

            return tf.constant(array.tolist())
        return keras.ops.convert_to_tensor(array)

    return keras.tree.map_structure(convert, inputs)
