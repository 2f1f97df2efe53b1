"""Dense layers and embeddings in integers within a model of floats, whose ranges are found as it runs.

Only what holds their weights is broken down, and a `DynamicQuantizer` stands in front of each dense layer. All else
computes as in the given model.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_mot._keras import producer_of
from keras_mot._warnings import warn
from keras_mot.graph.functional import is_a
from keras_mot.graph.kinds import LOOKS_UP, has_role, kernel_of, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.rewrite import rewrite
from keras_mot.layers.dynamic_quantizer import DynamicQuantizer, DynamicResult
from keras_mot.layers.finding import find_weights
from keras_mot.quantization.lowering.table import is_own_lowering
from keras_mot.quantization.simulation.settings import LayerSettings
from keras_mot.targets import Target

_WITH_PRODUCTS = (
    keras.layers.EinsumDense,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.TimeDistributed,
    keras.layers.RNN,
    keras.layers.SimpleRNN,
    keras.layers.GRU,
    keras.layers.LSTM,
    keras.layers.Bidirectional,
)
_MOST = 10
_MUCH = 1.1  # of what a model of 8 bits throughout takes


def holds_products(operation: Any) -> bool:
    """Whether an operation is broken down for the dense layers in it."""
    return is_a(operation, _WITH_PRODUCTS) or is_own_lowering(operation)


def place_dynamic(
    model: keras.Model,
    chosen: Callable[[Any], LayerSettings | None],
    origin: Callable[[Any], Any],
    target: Target,
) -> tuple[keras.Model, list[keras.layers.Layer]]:
    """Inserts dynamic quantizers into a lowered model.

    Args:
        model: what `lower` returned.
        chosen: function from an operation to its settings, or `None` for floats.
        origin: function from an operation to that of the user's model that it was made from, for messages.
        target: the `Target` whose kernels will compute.

    Returns:
        The model, and the list of its layers whose weights shall be quantized.

    Raises:
        ValueError: if blocks do not divide the inputs of a layer, or the target lacks a kernel for the bits of one.
    """
    graph, weighted, sources = Graph(model), {}, {}
    for call in graph.calls:
        operation, settings = call.operation, chosen(call.operation)
        if settings is not None and _has_kernel(operation, settings.scheme, target):
            weighted[id(operation)] = operation
            sources[id(operation)] = origin(operation)
    _check_blocks([(layer, sources[key], chosen(layer).scheme) for key, layer in weighted.items()])
    names, rounded = {}, {}

    def named(layer, suffix):
        label = f"{layer.name}_{suffix}"
        count = names[label] = names.get(label, -1) + 1
        return f"{label}_{count}" if count else label

    def call(operation, *args, **kwargs):
        if id(operation) not in weighted:
            return operation(*args, **kwargs)
        if has_role(operation, LOOKS_UP):  # which reads indices
            return DynamicResult(target.name, name=named(operation, "result"))(operation(*args, **kwargs))
        (tensor, *rest), kwargs = (args, kwargs) if args else ([kwargs["inputs"]], _without_inputs(kwargs))
        if id(tensor) not in rounded:
            quantizer = DynamicQuantizer(target.name, name=named(producer_of(tensor), "rows"))
            rounded[id(tensor)] = quantizer(tensor), tensor  # the tensor is kept, so that its id stays its own
        outputs = operation(rounded[id(tensor)][0], *rest, **kwargs)
        if is_cut(operation):
            return outputs
        return DynamicResult(target.name, name=named(operation, "result"))(outputs)

    def is_cut(operation):
        """Whether nothing but ReLU reads the results, which kernels compute at once."""
        readers = [
            reader.operation
            for each in graph.calls_of(operation)
            for tensor in each.outputs
            for reader in graph.readers(tensor)
        ]
        kinds = [kind_of(reader) for reader in readers]
        return bool(kinds) and all(kind is not None and kind.name in target.fused for kind in kinds)

    return rewrite(model, call), list(weighted.values())


def warn_of_floats(name: str, model: keras.Model, bits: Mapping[int, int]) -> None:
    """Warns where what stays in floats takes more than the integers save, beside a model of 8 bits throughout.

    Args:
        name: of the user's model.
        model: the lowered one.
        bits: those of a weight, by the ids of layers that get integers.
    """
    sizes = {}
    for call in Graph(model).calls:
        if isinstance(call.operation, keras.layers.Layer):
            for found in find_weights(call.operation)[0]:
                size = math.prod(found.variable.shape)
                sizes[id(found.variable)] = size, bits.get(id(call.operation), 32)
    weights = sum(size for size, _ in sizes.values())
    floats = sum(size for size, each in sizes.values() if each == 32)
    taken = sum(size * each // 8 for size, each in sizes.values())
    if floats and taken > _MUCH * weights:
        warn(
            f"'{name}' keeps {floats:,} of its {weights:,} weights in floats: dynamic ranges are for dense layers and "
            f"embeddings alone. They take {taken:,} bytes; with `INT8` (`--scheme int8` on the command line) all take "
            f"{weights:,}."
        )


def _without_inputs(kwargs):
    return {name: value for name, value in kwargs.items() if name != "inputs"}


def _has_kernel(operation, scheme, target):
    kind = kind_of(operation)
    if kind is None or not isinstance(operation, keras.layers.Layer):
        return False
    target.check(scheme)
    return kind.name in target.dynamic[target.stored_bits(scheme.weight_bits)] and bool(find_weights(operation)[0])


def summed_axis(layer: keras.layers.Layer) -> int:
    """The axis of a dense layer's kernel, or of a table, along which numbers share scales."""
    if has_role(layer, LOOKS_UP):
        return 1
    weight = next(found for found in find_weights(layer)[0] if found.variable is kernel_of(layer))
    return weight.axes.inputs[0]


def _check_blocks(layers):
    """Raises an error that names all layers whose inputs the blocks of their schemes do not divide."""
    lines = []
    for layer, source, scheme in layers:
        (weight, *_) = find_weights(layer)[0]
        length = weight.variable.shape[summed_axis(layer)]
        if scheme.block_size is not None and length % scheme.block_size:
            what = "numbers to a row" if has_role(layer, LOOKS_UP) else "inputs"
            name = getattr(source, "path", None) or source.name
            lines.append(f"  '{name}': {length} {what}, in blocks of {scheme.block_size}")
    if lines:
        lines = list(dict.fromkeys(lines))
        shown = lines[:_MOST] + ([f"  and {len(lines) - _MOST} more"] if len(lines) > _MOST else [])
        raise ValueError(
            "Blocks do not divide what they are cut from:\n"
            + "\n".join(shown)
            + "\nChoose another `block_size`, or give these layers a scheme without blocks, "
            "`overrides={layer: DYNAMIC_INT4}`."
        )
