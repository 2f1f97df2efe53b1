"""The simulation of an integer model: a Keras model whose weights and activations are rounded as they will be."""

import dataclasses

import numpy as np

from keras_mot import targets
from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers, forget_torch_parameters, forgetting_calls
from keras_mot._memory import free_discarded
from keras_mot.graph.batch_norm import fold_with_origins
from keras_mot.graph.batch_norm_parts import move_before_concatenations
from keras_mot.graph.channels_last import with_channels_last
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import is_kind, kernel_of
from keras_mot.graph.logarithms import before_logarithms
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.origins import Origins, copy_with_origins
from keras_mot.graph.output_names import output_names, with_output_names
from keras_mot.graph.preprocessing import calls_lookups, has_lookups, is_lookup
from keras_mot.graph.rewrite import everything_of
from keras_mot.graph.tracing import trace
from keras_mot.layers.finding import find_weights
from keras_mot.layers.float_boundary import FASTER, WIDE
from keras_mot.layers.technique import strip_model
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.algorithms.collaborative import read_off_transforms
from keras_mot.quantization.lowering.lowering import lower
from keras_mot.quantization.lowering.moves import Move
from keras_mot.quantization.simulation.behind_lookups import LookedUp, joined, split
from keras_mot.quantization.simulation.bias_rounding import round_biases
from keras_mot.quantization.simulation.carrying import carried_through, weights_to_carry
from keras_mot.quantization.simulation.checks import check, check_built, check_placement
from keras_mot.quantization.simulation.dynamic import holds_products, place_dynamic, warn_of_floats
from keras_mot.quantization.simulation.dynamic_fitting import fit_dynamic
from keras_mot.quantization.simulation.faster_in_floats import faster_in_floats, left_whole
from keras_mot.quantization.simulation.integers_only import check_integers
from keras_mot.quantization.simulation.kept_class import of_class_of
from keras_mot.quantization.simulation.known_sizes import shapes_of_data, waiting_for_sizes, with_known_sizes
from keras_mot.quantization.simulation.opened import flat_copy, warn_of
from keras_mot.quantization.simulation.placement import place, quantizer_of
from keras_mot.quantization.simulation.saving import warn_of_unsavable
from keras_mot.quantization.simulation.settings import left_in_floats, settings_of_operations
from keras_mot.quantization.simulation.sources import hand_on, note_sources
from keras_mot.quantization.simulation.trained_batch_norm import unfold_batch_norm
from keras_mot.quantization.simulation.weights import (
    attach_transforms,
    fit_scales,
    scheme_of,
    warn_of_merged_values,
)
from keras_mot.targets import LITERT
from keras_mot.transforms.grid import Grid


def quantize(model, scheme, fitting, selected, overrides, function, batch_norm_steps=0, target=LITERT, placement=None):
    """A flat model that computes as its integer form will.

    Args:
        model: what the user gave.
        scheme: a `QuantizationScheme`.
        fitting: a `Fitting`; without data, ranges are left to training.
        selected: function from an operation to whether it shall be in integers, or `None` for all.
        overrides: dictionary from selectors to other settings, see `settings_of_operations`, or `None`.
        function: name of the public function, for messages.
        batch_norm_steps: training steps in which batch normalization follows the batches; `None`: all of them.
        target: the `Target` that will run the integer form, or its name.
        placement: "fast", "integer", or `None` for what suits the target.

    Returns:
        The model, which shares no variables with `model`.
    """
    if calls_lookups(model):
        check_built(model, function)
        with forgetting_calls(everything_of(model)):
            traced = _traced(model, fitting.calibration.data, function)
            return quantize(traced, scheme, fitting, selected, overrides, function, batch_norm_steps, target, placement)
    if has_lookups(model):
        with forgetting_calls(everything_of(model)):
            preprocessing, behind, copy = split(model)
            data = fitting.calibration.data
            if data is not None:
                data = LookedUp(model, preprocessing, data, fitting.calibration.batch_size)
                fitting = dataclasses.replace(fitting, calibration=dataclasses.replace(fitting.calibration, data=data))
            quantized = quantize(
                behind, scheme, fitting, selected, overrides, function, batch_norm_steps, target, placement
            )
            return joined(copy, quantized, model)
    check(model, scheme, selected, function)
    target = targets.get(target)
    target.check(scheme)
    fast = check_placement(placement, target, scheme, fitting.calibration)
    shapes, fitting = shapes_of_data(model, fitting)
    simulation, folds, name_of = simulate(
        model, scheme, selected, overrides, target, fitting.data, fast, fitting.trained, shapes
    )
    if batch_norm_steps == 0:
        folds = None  # which hold the kernels as they were
    free_discarded(model)
    if scheme.is_dynamic:
        fit_dynamic(simulation, fitting)
    else:
        _round_slopes(simulation)
        fitting.run(simulation, name_of)
        if fitting.data is not None:
            round_biases(simulation)
    warn_of_merged_values(simulation)
    unfolded = simulation if folds is None else unfold_batch_norm(simulation, folds, batch_norm_steps)
    result = of_class_of(model, unfolded)
    if result is not simulation:
        hand_on(simulation, result)
    if fitting.trained:
        warn_of_unsavable(result, model.name)
    return result


def _traced(model, data, function):
    """A functional model of a subclassed one that looks things up, to be split there."""
    try:
        return trace(model, data)
    except ValueError as error:
        lookup = next(layer for layer in flatten_layers(model) if is_lookup(layer))
        raise ValueError(
            f"'{model.name}' looks things up in its `call` ('{lookup.name}', {type(lookup).__name__}), which has no "
            f"kernel, and cannot be split there: {error} Give `{function}` the network behind it: make the model "
            "functional, `keras.Model(inputs, model(inputs))` with a `keras.Input` of the right type for each input, "
            "and use `keras_mot.graph.split_preprocessing`, or call the lookup in a model of its own."
        ) from error


def simulate(
    model, scheme, selected=None, overrides=None, target=LITERT, data=None, fast=False, trained=False, shapes=None
):
    """The simulation, whose activation quantizers have no ranges yet; arguments as of `quantize`.

    With `fast`, what is faster in floats on the target is left in floats. The shapes are those of the inputs in the
    data, where the model leaves sizes open.

    Returns:
        The model; a dictionary from its layers to the batch normalizations that are a part of their scales; and a
        function from its operations to the names of those of the given model that they were made from.
    """
    plain, given, sources = _without_transforms(model, scheme)
    left = left_in_floats(overrides)
    flat = flat_copy(plain, given, data, None, trained, left)
    settings = settings_of_operations(flat.operations, scheme, selected, overrides, flat.around)
    waiting = [] if shapes is None else waiting_for_sizes(flat, settings, shapes)
    if waiting:
        flat = with_known_sizes(flat, flat_copy(plain, given, data, shapes, trained, left), waiting)
        settings = settings_of_operations(flat.operations, scheme, selected, overrides, flat.around)
    warn_of(flat, model, settings.is_in_floats, trained)
    turned, turns = with_channels_last(flat.model)
    parted, parts = move_before_concatenations(
        turned, lambda operation: settings.get(flat.origins.of(turns.of(operation))) is not None
    )
    turned_in_plain = turns.through(flat.in_plain)
    origins_of_parted = parts.through(turns).through(flat.origins)

    def shall_fold(linear, batch_norm):
        left = [settings.is_left(origins_of_parted.of(layer)) for layer in (linear, batch_norm)]
        return left != [False, True]  # a batch normalization that alone is left in floats

    folded, folds, made = fold_with_origins(parted, shall_fold, consumed=True)
    origins = made.through(origins_of_parted)
    lowered = _lowered(folded, scheme, target, fast, lambda operation: settings.get(origins.of(operation)) is not None)

    def chosen(operation):
        return settings.get(origins.of(lowered.origins.of(operation)))

    def user(operation):
        return origins.of(lowered.origins.of(operation))

    if scheme.is_dynamic:
        placed, weighted = place_dynamic(lowered.model, chosen, user, target)
        warn_of_floats(model.name, lowered.model, {id(each): chosen(each).scheme.weight_bits for each in weighted})
    else:
        placed, weighted = _placed(lowered, scheme, model, target, fast, chosen, user)
    if not weighted:
        raise ValueError(f"There is nothing to quantize in '{model.name}': {_nothing(scheme)}.")
    schemes = {id(layer): scheme_of(layer, chosen(layer).scheme, target, data is not None) for layer in weighted}
    carried = carried_through(sources, folded, made.through(parts.through(turned_in_plain)), lowered)
    simulation, copied = copy_with_origins(placed)
    keys = {id(found.variable): found.key for found in find_weights(folded)[0]}
    left = _round_weights(simulation, copied, chosen, schemes, lowered.moves, folds, carried, keys, trained)
    forget_torch_parameters(simulation)
    fit_scales(simulation)

    def origin(operation):
        return origins.of(lowered.origins.of(copied.of(operation)))

    simulation = with_output_names(simulation, output_names(model))
    note_sources(simulation, model, origin, settings.is_in_floats, flat.closed, flat.around)
    # No more than names: operations would keep the models in between, with their weights.
    names = {operation.name: origin(operation).name for operation in as_functional(simulation).operations}
    return simulation, left, lambda operation: names.get(operation.name, operation.name)


def _nothing(scheme):
    if scheme.is_dynamic:
        return "it has no dense layer and no embedding that kernels with dynamic ranges compute"
    return "no layer with weights has an integer form"


def _lowered(folded, scheme, target, fast, in_integers):
    """The folded model with the operations of `in_integers` broken down into steps that the target has kernels for."""
    if scheme.is_dynamic:
        return lower(folded, lambda operation: in_integers(operation) and holds_products(operation), target.fused)
    whole = left_whole(target, scheme.activation_bits, fast)
    masks = not fast and {"where", "softmax"} <= target.kernels[scheme.activation_bits]

    def broken_down(operation):
        return in_integers(operation) and not whole(operation)

    return lower(folded, broken_down, target.fused, scheme.activation_bits, fast, masks)


def _placed(lowered, scheme, model, target, fast, chosen, user):
    """The lowered model with activation quantizers, and the list of its layers whose weights shall be quantized.

    Args:
        lowered: what `lower` returned.
        scheme: as of `quantize`.
        model: what the user gave.
        target: the `Target`.
        fast: whether what is faster in floats on the target is left in floats.
        chosen: function from an operation of the lowered model to its settings, `None` for floats.
        user: function from an operation of it to that of the given model.
    """

    def is_wide(operation):
        return id(operation) in wide and not chosen(operation).asked

    def in_integers(operation):
        return chosen(operation) is not None and not is_wide(operation)

    graph = Graph(lowered.model)
    wide = before_logarithms(graph) if scheme.activation_bits == 8 else set()
    floats = {id(call.operation): WIDE for call in graph.calls if chosen(call.operation) and is_wide(call.operation)}
    if fast:
        faster = faster_in_floats(
            lowered.model,
            target,
            scheme.activation_bits,
            in_integers,
            lowered.joined,
            lambda operation: chosen(operation) is not None and chosen(operation).config is not None,
        )
        floats |= dict.fromkeys(faster, FASTER)
    placed, weighted = place(
        lowered.model,
        scheme,
        lambda operation: chosen(operation) is not None,
        lowered.joined,
        lambda operation: chosen(operation).activation,
        target,
        floats,
    )
    if not target.floats:
        check_integers(placed, model, target, scheme.activation_bits, chosen, user, floats)
    return placed, weighted


def _round_weights(simulation, copied, chosen, schemes, moves, folds, carried, keys, trained):
    """Attaches transforms to the weights of a copy; returns which batch normalization is in the scales of which layer.

    Args:
        simulation: the copy of the placed model.
        copied: its `Origins` there.
        chosen: function from an operation of the placed model to its settings.
        schemes: by the id of a layer of the placed model, the scheme of its weights.
        moves: by the id of a variable there, the `Move` that made it.
        folds: by layers of the folded model, the batch normalization that they took over.
        carried: by the id of a variable of the placed model, the masks and palettes that come with it.
        keys: by the id of a variable of the folded model, the name of its place in the layer.
        trained: whether the model is going to be trained.
    """
    by_kernel = {id(kernel_of(layer)): fold for layer, fold in folds.items()}
    left = {}
    for layer in simulation.layers:
        source = copied.of(layer)
        own = chosen(source)
        variables = {found.place: found.variable for found in find_weights(source)[0]}
        for found in find_weights(layer)[0]:
            variable = variables[found.place]
            moved_from = moves.get(id(variable), Move(variable)).source
            fold = by_kernel.get(id(moved_from))
            factors = None if fold is None else fold.factors()
            asked = [] if own is None else own.transforms_of(keys.get(id(moved_from)))
            carry = carried.get(id(variable))
            quantize_weight = attach_transforms(found, schemes.get(id(source)), carry, factors, asked, trained)
            if fold is not None and quantize_weight is not None:
                left[layer] = fold
    return left


def _without_transforms(model, scheme):
    """A plain model with the weights that another is used with; its `Origins` there; and what its weights had.

    Masks and codebooks that the scheme asks for are read off first.
    """
    preserved = scheme.preserve_sparsity or scheme.preserve_clusters
    if not preserved and not transformed_weights(model):
        return model, Origins(), {}
    plain, origins = copy_with_origins(model)
    if preserved:
        read_off_transforms(plain, scheme)
    sources = weights_to_carry(plain)
    return strip_model(plain, inplace=True), origins, sources


def _round_slopes(simulation):
    """Rounds the slopes of each `PReLU` in integers to 8 bits; those that training changes are rounded in the file."""
    grid = Grid(8)
    for call in Graph(simulation).calls:
        if is_kind(call.operation, "prelu") and quantizer_of(call.inputs[0]) is not None:
            slopes = numpy_value(call.operation.alpha)
            scale = grid.scale_of(np.abs(slopes).max())
            call.operation.alpha.assign(grid.integers(slopes / scale) * scale)
