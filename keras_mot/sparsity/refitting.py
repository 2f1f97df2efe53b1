"""Refitting: what is left of pruned layers makes up for what is gone, by least squares, without any training.

For each layer in turn, the weights that its mask leaves are solved for: its outputs on what reaches it in the pruned
model, whose layers before it have been refitted, are to be those of the original model (Hubara et al., 2021,
"Accelerated Sparse Neural Training", arXiv:2102.08124, and Frantar and Alistarh, 2022, "Optimal Brain Compression",
arXiv:2208.11580, prune and correct layers so).
"""

from typing import Any

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._keras import flatten_layers, forget_compilation
from keras_mot._messages import describe
from keras_mot._numbers import is_number, is_whole
from keras_mot._warnings import warn
from keras_mot.graph import trace
from keras_mot.graph.agreement import outputs_to_judge_by, set_apart, warn_if_lost
from keras_mot.graph.functional import as_functional
from keras_mot.graph.kinds import LOOKS_UP, has_role
from keras_mot.layers import copy_model, find_weights, strip, transformed_weights
from keras_mot.layers.finding import check_layer, require_built
from keras_mot.layers.transformed import is_transformed
from keras_mot.second_order import are_few, least_squares, matrices_of, thinned, visit_in_order, warn_of_few_samples
from keras_mot.sparsity._elimination import chosen_places
from keras_mot.sparsity._least_squares import masked_least_squares
from keras_mot.sparsity._offsets import Offsets
from keras_mot.sparsity._samples import affordable, input_batches
from keras_mot.sparsity.granularity import NofM
from keras_mot.transforms import Mask

_WAY_OUT = (
    "Train it from here, with its masks; prune less; or leave out, by `overrides`, the layers that "
    "`keras_mot.analysis.sensitivity` finds to lose most."
)


def refit(
    model: keras.Model,
    calibration_data: Any,
    *,
    reference: keras.Model | None = None,
    samples: int = 1024,
    damping: float = 0.01,
    batch_size: int = 64,
    move_zeros: bool = False,
    inplace: bool = False,
    progress: bool | None = None,
) -> keras.Model:
    """Solves for the weights that pruning has left, so that the model computes what it did before, as nearly as it can.

    It needs no labels and no training: some hundred to some thousand typical inputs, which are run through the model
    and the original side by side. Zeros stay zeros, whatever mask they come from. Biases, or the means of batch
    normalizations, take up what the mean of each channel has moved by. Embeddings stay as pruning left them: an output
    is a row itself, so there is nothing in it to solve for; the layers behind make up for them as for any other.

    Args:
        model: a model from `prune_low_magnitude` whose masks have been chosen, before or after training; or a
            plain model with zeros, for which `reference` is needed. Of any kind that can be traced.
        calibration_data: inputs as arrays, a tuple of them and labels, or an iterable of batches.
        reference: the model to be approximated, with the same layers. By default, what `model` is without its masks.
        samples: how many samples of the data are used, at most. Fewer, but 128, where their activations would take more
            than a gigabyte: those at one place of the graph are in memory.
        damping: ridge towards the original weights, as a share of the mean square of a layer's inputs.
        batch_size: how many samples are run at a time.
        move_zeros: whether the zeros of N:M patterns are first moved within their groups, where the rest makes up for
            them better there. Layers for which that would take minutes keep theirs.
        inplace: whether to change the given model itself.
        progress: whether to show a progress bar; by default, on a terminal.

    Returns:
        A model like `model`, its masks still attached, not compiled, that shares no variables with it: to be stripped
        by `strip_pruning`, or to be trained from there.

    Warns of pruned layers that are left as they are, since what their weights are multiplied by is not known, of
    layers with fewer rows of inputs than weights for an output, and if the outputs are of no use any more: a quarter
    of the decisions are others, or noise has half of the signal's energy. Every eighth batch of the data is kept for
    that, if there are four.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if nothing is pruned, weights are clustered or quantized, the reference has other layers, or the
            data do not fit the model.

    Example:

    ```python
    pruned = prune_low_magnitude(model, ConstantSparsity(0.5), scope=WholeModel())
    update_pruning_step(pruned, steps=0)  # prunes at once
    small = strip_pruning(refit(pruned, x_train[:1024]))
    ```
    """
    check_layer(model, "refit")
    require_built(model, "refit")
    _check_numbers(damping=damping, samples=samples, batch_size=batch_size)
    _check_stacks(model)
    plain = strip(copy_model(model), inplace=True)
    original = _original(model, reference)
    masks = _masks(model, plain)
    if not masks:
        raise ValueError(
            f"Nothing in '{model.name}' is pruned: its weights have no zeros. Choose masks first: "
            "`update_pruning_step(pruned, steps=0)` after `prune_low_magnitude`, or training."
        )
    _start_from(plain, original, masks)
    groups = _groups(model, plain) if move_zeros else {}
    paths = _paths(model if reference is None else reference)  # the layers of copies may have other names
    _fit(plain, original, masks, groups, paths, calibration_data, samples, damping, batch_size, progress)
    result = model if inplace else copy_model(model)
    _take_over(result, plain, masks)
    if groups:
        _move_masks(result, plain, masks, groups)
    if inplace:
        forget_compilation(result)
    return result


def _check_numbers(damping, **whole):
    if not is_number(damping) or not 0 <= damping < np.inf:
        raise ValueError(f"`damping` should be a number from 0, such as 0.01; received {describe(damping)}.")
    for name, value in whole.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f"`{name}` should be a positive integer; received {describe(value)}.")


def _check_stacks(model):
    for weight in transformed_weights(model):
        others = [type(each).__name__ for each in weight.transforms if not isinstance(each, Mask)]
        if others:
            raise ValueError(
                f"Weight '{weight.path}' has {others}: refitting would leave its shared values or integers. Refit "
                "after pruning, before clustering and quantizing."
            )


def _original(model, reference):
    """A plain model that computes what is to be approximated, which nobody else uses."""
    if reference is None:
        if not any(weight.transform_of(Mask) for weight in transformed_weights(model)):
            raise ValueError(
                f"'{model.name}' has no masks, and so no values under them: give the model that it was before it was "
                "pruned, `reference=...`."
            )
        result = copy_model(model)
        for weight in transformed_weights(result):
            mask = weight.transform_of(Mask)
            mask.assign(np.ones(mask.mask.shape, "bool"))
        return strip(result, inplace=True)
    check_layer(reference, "refit")
    require_built(reference, "refit")
    result = strip(copy_model(reference), inplace=True) if _has_transforms(reference) else copy_model(reference)
    return result


def _has_transforms(model):
    return any(is_transformed(layer) for layer in flatten_layers(model))


def _masks(model, plain):
    """Dictionary from the ids of variables of the plain model to the masks of the weights that have zeros."""
    attached = {id(weight.variable): weight.transform_of(Mask) for weight in transformed_weights(model)}
    found = {}
    for weight, own in zip(find_weights(model)[0], find_weights(plain)[0], strict=True):
        mask = attached.get(id(weight.variable))
        values = numpy_value(own.variable) != 0 if mask is None else numpy_value(mask.mask)
        if not values.all():
            found[id(own.variable)] = np.array(values)
    return found


def _start_from(plain, original, masks):
    """Gives all but the pruned weights the values of the original, which biases and statistics belong to."""
    if [variable.shape for variable in plain.variables] != [variable.shape for variable in original.variables]:
        raise ValueError(
            f"`reference` should have the layers and weights of '{plain.name}', with other values perhaps; it has "
            f"{len(original.variables)} variables, or others: {len(plain.variables)} are expected."
        )
    for own, other in zip(plain.variables, original.variables, strict=True):
        if id(own) not in masks:
            own.assign(np.array(numpy_value(other)))


def _groups(model, plain):
    """Dictionary from the ids of variables of the plain model to the numbers of the groups of weights with patterns."""
    attached, found = {id(weight.variable): weight.transform_of(Mask) for weight in transformed_weights(model)}, {}
    for weight, own in zip(find_weights(model)[0], find_weights(plain)[0], strict=True):
        pattern = getattr(getattr(attached.get(id(weight.variable)), "updater", None), "granularity", None)
        if isinstance(pattern, NofM):
            shape = tuple(weight.variable.shape)
            units = pattern.unit_scores(np.zeros(shape), weight.axes).shape
            numbers = np.arange(int(np.prod(units)) // units[2]).reshape(units[0], units[1], 1, units[3])
            found[id(own.variable)] = pattern.expand(np.broadcast_to(numbers, units), shape, weight.axes)
    return found


def _paths(model):
    return [each.path for layer in flatten_layers(model) for each in matrices_of(layer)]


def _fit(plain, original, masks, groups, paths, data, samples, damping, batch_size, progress):
    """Solves for the weights of the plain model, in place; where zeros move, the masks change."""
    functional = as_functional(trace(plain))
    judged, batches = set_apart(input_batches(functional, data, batch_size, affordable(functional, samples)))
    weights, partners = (
        [thinned(each, len(batches)) for layer in flatten_layers(each_model) for each in matrices_of(layer)]
        for each_model in (plain, original)
    )
    _warn_of_unknown(plain, weights, masks)
    reference = as_functional(trace(original))
    expected = outputs_to_judge_by(reference, judged)
    offsets = Offsets(functional)
    partner_of = dict(zip(map(id, weights), zip(partners, paths, strict=True), strict=True))
    few = []

    def visit(weight, moments):
        if not moments.count:
            return
        wanted, path = partner_of[id(weight)]
        before = weight.to_matrices(numpy_value(weight.variable)).astype("float64")
        goal = wanted.to_matrices(numpy_value(wanted.variable)).astype("float64")
        after = before
        if id(weight.variable) in masks:
            centered = moments.centered(consumed=True) if offsets.has(weight) else moments
            mask = weight.to_matrices(masks[id(weight.variable)])
            if are_few(moments):
                few.append(path)
            after = np.stack([_solved(centered, mask[group], goal, group, damping) for group in range(len(goal))])
            if id(weight.variable) in groups:
                numbers = weight.to_matrices(groups[id(weight.variable)])
                after, mask = _with_moved_zeros(centered, mask, goal, numbers, after, damping)
                masks[id(weight.variable)] = weight.from_matrices(mask, masks[id(weight.variable)])
            kernel = weight.from_matrices(after, numpy_value(weight.variable))
            weight.variable.assign(kernel.astype(numpy_value(weight.variable).dtype))
        shift = np.einsum("gr,grc->gc", moments.first_crossed, goal) - np.einsum("gr,grc->gc", moments.first, after)
        offsets.add(weight, shift / moments.count)

    shown = {"title": "refitting", "progress": progress}
    visit_in_order(functional, weights, batches, visit, reference=reference, reference_weights=partners, **shown)
    warn_of_few_samples(few)
    zeros = 1 - np.mean(np.concatenate([mask.ravel() for mask in masks.values()]))
    warn_if_lost(functional, judged, expected, f"'{plain.name}' with {zeros:.0%} of zeros in its weights", _WAY_OUT)


def _solved(moments, mask, goal, group, damping):
    """The weights of a group, with zeros where the mask of the group has them."""
    products = moments.cross[group].astype("float64") @ goal[group]
    return masked_least_squares(moments.second[group], products, mask, goal[group], damping)


def _with_moved_zeros(moments, mask, goal, numbers, after, damping):
    """The weights and the mask, with those columns whose zeros are better elsewhere."""
    after, mask = after.copy(), mask.copy()
    for group in range(len(goal)):
        second = moments.second[group]
        change = moments.cross[group].astype("float64") @ goal[group] - second @ goal[group]
        free = goal[group] + least_squares(second, change, damping).value  # without any zeros
        places = chosen_places(second, free, mask[group], numbers[group], damping)
        other = _solved(moments, places, goal, group, damping)
        errors = [np.sum((second @ off) * off, axis=0) for off in (after[group] - free, other - free)]
        better = errors[1] < errors[0]
        after[group][:, better], mask[group][:, better] = other[:, better], places[:, better]
    return after, mask


def _warn_of_unknown(plain, weights, masks):
    known = {id(each.variable) for each in weights}
    unknown = [weight for weight in find_weights(plain)[0] if id(weight.variable) not in known]
    unknown = [weight for weight in unknown if id(weight.variable) in masks]
    looked_up = [weight.path for weight in unknown if has_role(weight.owner, LOOKS_UP)]
    left = [weight.path for weight in unknown if not has_role(weight.owner, LOOKS_UP)]
    if looked_up:
        warn(
            f"Rows of a table are looked up one by one, and what is left of a row cannot make up for what is gone: "
            f"{looked_up} stay as pruning left them, and the layers behind make up for what they can. If outputs lose "
            "too much, leave the table out, or factorize it."
        )
    if left:
        warn(f"Not refitted, since what multiplies these weights is not known: {left}. They stay as pruning left them.")


def _take_over(result, plain, masks):
    """Gives a model with masks, or without, the weights that the plain one has; what is masked keeps what is stored."""
    transforms = [transform for weight in transformed_weights(result) for transform in weight.transforms]
    own = {id(variable) for transform in transforms for variable in transform.variables}
    targets = [variable for variable in result.variables if id(variable) not in own]
    for source, target in zip(plain.variables, targets, strict=True):
        values = np.array(numpy_value(source))
        if id(source) in masks:
            values = np.where(masks[id(source)], values, numpy_value(target))
        target.assign(values)


def _move_masks(result, plain, masks, groups):
    """Sets the masks whose zeros have moved."""
    attached = {id(weight.variable): weight.transform_of(Mask) for weight in transformed_weights(result)}
    for weight, own in zip(find_weights(result)[0], find_weights(plain)[0], strict=True):
        if id(own.variable) in groups and id(own.variable) in masks:
            attached[id(weight.variable)].assign(masks[id(own.variable)])
