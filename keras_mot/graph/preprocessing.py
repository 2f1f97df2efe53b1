"""Splitting a model behind the layers that look things up: what runs before a runtime, and what runs in it."""

from typing import Any

import keras
from keras import layers

from keras_mot._keras import flatten_layers, producer_of
from keras_mot._messages import describe
from keras_mot.data.naming import input_name
from keras_mot.graph.functional import as_functional
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.names import model_between
from keras_mot.graph.rewrite import operations_of, rewrite
from keras_mot.graph.tracing import trace

LOOKUPS = (
    *(layers.TextVectorization, layers.StringLookup, layers.IntegerLookup, layers.Hashing, layers.HashedCrossing),
)
"""Layers that look up texts or numbers in a table, or hash them: runtimes have no kernels for them."""


def is_lookup(operation: Any) -> bool:
    """Whether an operation is a layer that looks texts or numbers up, hashes or counts them."""
    counts = isinstance(operation, layers.CategoryEncoding) and operation.output_mode != "one_hot"
    return counts or isinstance(operation, LOOKUPS)


def has_lookups(model: Any) -> bool:
    """Whether a sequential or functional model, or one nested in it, has layers that look things up."""
    if not isinstance(model, keras.Model) or as_functional(model) is None:
        return False
    return any(map(is_lookup, operations_of(model)))


def calls_lookups(model: Any) -> bool:
    """Whether a subclassed model has layers that look things up, which its `call` calls."""
    subclassed = isinstance(model, keras.Model) and as_functional(model) is None
    return subclassed and any(map(is_lookup, flatten_layers(model)))


def split_preprocessing(model: keras.Model, at: Any = ()) -> tuple[keras.Model, keras.Model]:
    """A model in two: up to the layers that look things up, and behind them.

    `TextVectorization`, `StringLookup`, `IntegerLookup`, `Hashing`, `HashedCrossing`, and `CategoryEncoding` that
    counts ("multi_hot", "count"), have no kernels in LiteRT and other runtimes. What they compute belongs into the
    program around the runtime; the second model can be exported.

    Args:
        model: a built model; subclassed ones are read by `trace`. It may have several inputs, and several such layers.
        at: layers, or names of layers, behind which the model is split beside these.

    Returns:
        The first model, and the second, which takes what the first returns: `second(first(x))` is `model(x)`. They
        share the layers of `model`. What is read on both sides, and inputs that need no preprocessing, the first hands
        on.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if there is nothing to split at, or weights stand in front of it.

    Example:

    ```python
    preprocessing, network = keras_mot.graph.split_preprocessing(model)
    keras_mot.export.export_litert(network, "network.tflite")
    ids = preprocessing(texts)  # or the same look-up in the program that runs the file
    ```
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`split_preprocessing` expects a Keras model; received {describe(model)}.")
    asked = [at] if isinstance(at, str | keras.layers.Layer) else list(at)
    flat = trace(model)
    if any(as_functional(operation) is not None for operation in as_functional(flat).operations):
        flat = rewrite(flat, lambda operation, *args, **kwargs: operation(*args, **kwargs))
    graph = Graph(flat)

    def ends(operation):
        return is_lookup(operation) or any(operation is each or operation.name == each for each in asked)

    first = _up_to(graph, [call for call in graph.calls if ends(call.operation)])
    if not first:
        raise ValueError(
            f"'{model.name}' has no layer that looks things up, such as TextVectorization, StringLookup or "
            f"Hashing{_of_names(asked)}: there is nothing to split at."
        )
    weighted = [call.operation.name for call in first if getattr(call.operation, "trainable_weights", ())]
    if weighted:
        raise ValueError(
            f"'{model.name}' cannot be split: the layer '{weighted[0]}', in front of what looks things up, has weights "
            "that are trained."
        )
    inside, border = {id(call) for call in first}, {}
    readers = [tensor for call in graph.calls if id(call) not in inside for tensor in call.inputs]
    for tensor in (*readers, *graph.outputs):
        if graph.producer(tensor) is None or id(graph.producer(tensor)) in inside:
            border.setdefault(id(tensor), tensor)
    border = dict(sorted(border.items(), key=lambda item: _first_input(graph, item[1])))
    tensors = list(border.values())
    one = len(tensors) == 1
    results = [_handed_on(tensor) if graph.producer(tensor) is None else tensor for tensor in tensors]
    preprocessing = model_between(flat.input, results[0] if one else results, f"{model.name}_preprocessing")
    inputs = _new_inputs(graph, tensors)
    outputs = _run(graph, inside, dict(zip(border, inputs, strict=True)), flat.output)
    return preprocessing, model_between(inputs[0] if one else inputs, outputs, model.name)


def _first_input(graph, tensor):
    """The place of the first input of the model that a tensor is made from."""
    places = {id(each): place for place, each in enumerate(graph.inputs)}
    source = graph.producer(tensor)
    reached = [tensor] if source is None else [each for call in _up_to(graph, [source]) for each in call.inputs]
    return min((places[id(each)] for each in reached if id(each) in places), default=len(places))


def _handed_on(tensor):
    """An input as an output: Keras before 3.13 copies no model with one that nothing reads."""
    return tensor if tensor.dtype == "string" else keras.layers.Identity(dtype=tensor.dtype)(tensor)


def _of_names(asked):
    return f", and none that is asked for, {asked}" if asked else ""


def _up_to(graph, ends):
    """The calls that some calls depend on, these among them."""
    found, waiting = {}, list(ends)
    while waiting:
        call = waiting.pop()
        if id(call) not in found:
            found[id(call)] = call
            waiting += filter(None, map(graph.producer, call.inputs))
    return list(found.values())


def _new_inputs(graph, tensors):
    used, inputs = set(), []
    for tensor in tensors:
        name = input_name(tensor) if graph.producer(tensor) is None else producer_of(tensor).name
        while name in used:
            name += "_"
        used.add(name)
        inputs.append(keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name))
    return inputs


def _run(graph, left_out, known, outputs):
    """The outputs of a graph on new tensors in place of some of its own."""

    def new(item):
        return known.get(id(item), item) if isinstance(item, keras.KerasTensor) else item

    for call in graph.calls:
        if id(call) in left_out:
            continue
        args, kwargs = keras.tree.map_structure(new, (call.args, dict(call.kwargs)))
        returned = keras.tree.flatten(call.operation(*args, **kwargs))
        known.update((id(old), tensor) for old, tensor in zip(call.outputs, returned, strict=True))
    return keras.tree.map_structure(new, outputs)
