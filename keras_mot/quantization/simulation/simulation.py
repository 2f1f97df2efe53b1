"""The simulation of an integer model: a Keras model whose weights and activations are rounded as they will be."""

import warnings

import keras
import numpy as np

from keras_mot import targets
from keras_mot._keras import flatten_layers, forget_torch_parameters
from keras_mot._messages import describe
from keras_mot.graph.batch_norm import fold_and_list
from keras_mot.graph.functional import as_functional, is_a, nodes_of
from keras_mot.graph.output_names import keep_output_names, output_names
from keras_mot.graph.rewrite import flatten_and_name, operations_of
from keras_mot.graph.tracing import trace
from keras_mot.layers.activation_quantizer import is_quantized
from keras_mot.layers.attaching import attach, numpy_value, transformed_weights
from keras_mot.layers.copying import copy_model
from keras_mot.layers.finding import find_weights, require_built
from keras_mot.layers.own_weights import MERGE_LORA
from keras_mot.quantization.algorithms.collaborative import with_transforms_read_off
from keras_mot.quantization.lowering.lowering import lower
from keras_mot.quantization.schemes import QuantizationScheme, WeightsScheme
from keras_mot.quantization.simulation.bias_rounding import round_biases
from keras_mot.quantization.simulation.carrying import Carried
from keras_mot.quantization.simulation.placement import place, quantizer_of
from keras_mot.quantization.simulation.settings import settings_of_operations
from keras_mot.quantization.simulation.trained_batch_norm import unfold_batch_norm
from keras_mot.targets import LITERT
from keras_mot.transforms import FakeQuantize, Mask, PaletteTransform


def quantize(model, scheme, fitting, selected, overrides, function, batch_norm_steps=0, target=LITERT):
    """A flat model that computes as its integer form will.

    Args:
        model: what the user gave.
        scheme: a `QuantizationScheme`.
        fitting: a `Fitting`; without data, ranges are left to training.
        selected: function from an operation to whether it shall be in integers, or `None` for all.
        overrides: dictionary from selectors to other settings, see `settings_of_operations`, or `None`.
        function: name of the public function, for messages.
        batch_norm_steps: training steps in which batch normalization follows the batches; `None`: all of them.
        target: the `Target`, or the name of one.

    Returns:
        The model, which shares no variables with `model`.
    """
    _check(model, scheme, selected, function)
    simulation, folds = simulate(model, scheme, selected, overrides, targets.get(target))
    _settle_slopes(simulation)
    fitting.run(simulation)
    if fitting.data is not None:
        round_biases(simulation)
    _warn_of_merged_values(simulation)
    return simulation if batch_norm_steps == 0 else unfold_batch_norm(simulation, folds, batch_norm_steps)


def simulate(model, scheme, selected=None, overrides=None, target=LITERT):
    """The simulation, whose activation quantizers have no ranges yet; arguments as of `quantize`.

    Returns:
        The model, and a dictionary from names of layers to the batch normalizations folded into them.
    """
    target.check(scheme)
    traced = trace(model)
    chosen_by_object = settings_of_operations(traced, scheme, selected, overrides)
    settings = [chosen_by_object.get(operation) for operation in operations_of(traced)]
    if scheme.preserve_sparsity or scheme.preserve_clusters:
        model = with_transforms_read_off(model, scheme)
    carried = Carried(model)
    lowered, origins, joined, folds, chosen = _lowered(carried.plain, settings)
    carried.follow(lambda labelled: _lowered(labelled, settings)[0])

    def origin(operation):
        return origins.get(id(operation), operation).name  # what computes masks has none

    placed, weighted = place(
        lowered,
        scheme,
        lambda operation: origin(operation) in chosen,
        joined,
        lambda operation: chosen[origin(operation)].activation,
        target,
    )
    if not weighted:
        raise ValueError(f"There is nothing to quantize in '{model.name}': no layer with weights has an integer form.")
    schemes = {layer.name: target.scheme_of(layer, chosen[origin(layer)].scheme) for layer in weighted}
    factors = {name: fold.factors() for name, fold in folds.items()}
    simulation = copy_model(placed)
    for layer in simulation.layers:
        for number, found in enumerate(find_weights(layer)[0]):
            stack = carried.transforms(layer.name, number, found)
            quantize = _weight_quantizer(schemes.get(layer.name), found, stack, factors.get(layer.name))
            if quantize is not None:
                stack = [*stack, (quantize, None)]
            if stack:
                attach(found.host, {found.place: [transform for transform, _ in stack]})
            if quantize is not None and quantize.scaled_channels:
                _take_out(factors[layer.name], quantize, found.variable)
            value = np.array(numpy_value(found.variable))
            used = np.broadcast_to(True if quantize is None else quantize.factors_of() > 0, value.shape)
            for transform, fill in stack:
                if fill is not None:
                    fill(transform, value, used)
    forget_torch_parameters(simulation)
    keep_output_names(simulation, output_names(model))
    fit_scales(simulation)
    return simulation, folds


def _lowered(model, settings):
    """The model in the layers that have integer forms.

    Args:
        model: without transforms.
        settings: those of each operation of the traced model, in the order of `operations_of`; `None`: in floats.

    Returns:
        The lowered model, the origins of its operations and which are joined, as of `lower`; the folded batch
        normalizations by layer; and the settings by the name of the operation.
    """
    flat, names = flatten_and_name(trace(model))
    chosen = {name: item for name, item in zip(names, settings, strict=True) if item is not None}
    folded, folds = fold_and_list(flat)
    return *lower(folded, lambda operation: operation.name in chosen), folds, chosen


def _weight_quantizer(scheme, found, stack, factors):
    """The `FakeQuantize` of a weight, or `None` if it stays in floats."""
    if scheme is None:
        return None
    # Values that all channels share stay shared if all have one scale, up to the factors of batch normalization.
    shared = any(isinstance(transform, PaletteTransform) and not transform.per_channel for transform, _ in stack)
    channels = np.prod([found.variable.shape[axis] for axis in found.axes.outputs])
    return FakeQuantize(
        scheme.weight_bits,
        scheme.per_channel and not shared,
        scheme.learned_scales,
        scaled_channels=scheme.per_channel and factors is not None and factors.size == channels,
        rounding=None if any(isinstance(transform, PaletteTransform) for transform, _ in stack) else scheme.rounding,
        name=f"{found.key}_quantize",
    )


def _take_out(factors, quantize, variable):
    """Takes the factors of channels, but not their signs, out of a folded kernel: rounding puts them in again."""
    quantize.scale_channels(np.abs(factors))
    sizes = quantize.factors_of()
    variable.assign(numpy_value(variable) / np.where(sizes > 0, sizes, 1.0))


def fit_scales(simulation):
    """Gives the weights of a quantized model scales that suit their values."""
    for weight in transformed_weights(simulation):
        transform = weight.transform_of(FakeQuantize)
        if transform is not None:
            transform.fit(numpy_value(weight.value_before(transform)))


def _warn_of_merged_values(simulation):
    """Says where shared values are so close to each other that they become one integer."""
    merged = []
    for weight in transformed_weights(simulation):
        quantize, codebook = weight.transform_of(FakeQuantize), weight.transform_of(PaletteTransform)
        if quantize is None or codebook is None or codebook.per_channel:
            continue
        integers, _ = quantize.integers(numpy_value(weight.value_before(quantize)))
        mask = weight.transform_of(Mask)
        if mask is not None:
            integers = integers[numpy_value(mask.mask) > 0]
        left, values = np.count_nonzero(np.bincount(integers.ravel() + quantize.limit)), codebook.unique_values()
        if 0 < left < values:
            merged.append(f"'{weight.path}' ({values} values, {left} integers)")
    if merged:
        warnings.warn(
            f"Some shared values become the same integer in {', '.join(merged)}: a weight with shared values has one "
            "scale, and these lie closer together than a step of it. `cluster_per_channel=True` keeps a scale for each "
            "channel; more `weight_bits` make steps smaller.",
            stacklevel=4,
        )


def _settle_slopes(simulation):
    """Rounds the slopes of each `PReLU` in integers to 8 bits; those that training changes are rounded in the file."""
    for node in nodes_of(simulation):
        layer = node.operation
        if is_a(layer, keras.layers.PReLU) and quantizer_of(node.arguments.keras_tensors[0]) is not None:
            slopes = numpy_value(layer.alpha)
            scale = np.abs(slopes).max() / np.float32(127)
            if scale > 0:
                layer.alpha.assign(np.round(slopes / scale) * scale)


def _check(model, scheme, selected, function):
    """Refuses what cannot be quantized, before any work."""
    _check_built(model, function)
    if isinstance(scheme, WeightsScheme):
        raise TypeError(
            f"`{function}` makes models of integers; {scheme!r} is about the weights of a file. Pass the float model "
            f"to `export_litert(model, path, weights={scheme.weights!r})`."
        )
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(
            f"`scheme` should be a `QuantizationScheme`, such as `INT8`; received {describe(scheme)}. Data are "
            "passed as `calibration_data=...`."
        )
    if selected is not None and (not callable(selected) or isinstance(selected, keras.layers.Layer | type)):
        raise TypeError(
            f"`selected` should be a function from a layer to True or False; received {describe(selected)}."
        )
    if is_quantized(model):
        raise ValueError(f"'{model.name}' is quantized already.")
    for weight in transformed_weights(model):
        for transform in weight.transforms:
            if not isinstance(transform, Mask | PaletteTransform):
                raise ValueError(f"'{weight.path}' carries {transform.name}: strip the model first.")
    for layer in flatten_layers(model):
        _check_layer(layer)
    for weight in model.weights:
        if weight.dtype.startswith(("float", "bfloat")) and not np.isfinite(numpy_value(weight)).all():
            raise ValueError(
                f"Weight '{weight.path}' contains NaN or infinite values: such a model cannot be quantized."
            )


def _check_layer(layer):
    label = f"Layer '{layer.path or layer.name}'"
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(f"{label} is quantized by Keras ({layer.quantization_mode}) already: pass the float model.")
    if getattr(layer, "lora_enabled", False):
        raise ValueError(f"{label}: {MERGE_LORA}.")
    if isinstance(layer, keras.layers.RNN) and layer.stateful:
        raise ValueError(f"{label} is stateful: LiteRT files keep no state. Build it with `stateful=False`.")
    if layer.dtype_policy.variable_dtype != "float32":
        raise ValueError(
            f"{label} has variables of type {layer.dtype_policy.variable_dtype}, which runtimes do not compute with: "
            "build the model with the policy 'float32' or a mixed one, and copy the weights with `set_weights`."
        )


def check_model(model, function):
    """Raises a `TypeError` or `ValueError` naming the public `function` if `model` is no built model with a graph."""
    _check_built(model, function)
    if as_functional(model) is None:
        raise ValueError(
            f"`{function}` reads the graph of sequential and functional models; '{model.name}' is a "
            f"{type(model).__name__}. Make it functional by `keras_mot.graph.trace(model)`."
        )


def _check_built(model, function):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{function}` expects a Keras 3 model (`keras.Model`); received {describe(model)} of type "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    require_built(model, function)
