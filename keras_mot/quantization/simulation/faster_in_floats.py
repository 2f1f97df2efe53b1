"""Which operations are left in floats since they are faster so, crossings between floats and integers counted."""

import math

from keras_mot._messages import describe
from keras_mot.graph.kinds import LOOKS_UP, MERGES, PRODUCTS, WEIGHTED, has_role, is_kind, kind_of
from keras_mot.quantization.simulation.integer_steps import IntegerSteps
from keras_mot.quantization.simulation.minimum_cut import MinimumCut

PLACEMENTS = ("fast", "integer")
"""Which operations compute in integers: what is faster so, or all that have kernels."""

_WITH_ROOTS = ("layer_normalization", "group_normalization", "rms_normalization", "unit_normalization")
_ALWAYS = 1e30  # nanoseconds: more than any model takes
_LITTLE = 0.01  # of a crossing: what decides between ways of equal cost


def is_fast(placement, target, bits):
    """Whether what is faster in floats is left in floats.

    Args:
        placement: one of `PLACEMENTS`, or `None`: the first, where the target has costs.
        target: a `Target`.
        bits: bits of activations.

    Raises:
        ValueError: if `placement` is something else, or "fast" where the target has no costs.
    """
    if placement is None:
        return bits in target.costs
    if placement not in PLACEMENTS:
        raise ValueError(f"`placement` should be 'fast', 'integer' or None; received {describe(placement)}.")
    if placement == "fast" and bits not in target.costs:
        raise ValueError(
            f"`placement='fast'` needs to know what integers cost: target '{target.name}' has no `costs` for "
            f"activations of {bits} bits. Use `placement='integer'`, or `dataclasses.replace(target, costs=...)`."
        )
    return placement == "fast"


def left_whole(target, bits, fast):
    """A function from an operation to whether it is not broken down.

    That is, since its steps together are slower in integers, or since the target has no kernel for one of them.

    Args:
        target: a `Target`.
        bits: bits of activations.
        fast: what `is_fast` says.
    """
    has_roots = "inverse_root" in target.kernels[bits] or bits in target.tables

    def is_left(operation):
        kind = kind_of(operation)
        if kind is None or kind.name in target.kernels[bits]:
            return False
        slower = fast and target.costs[bits].prefers_floats(target.costs[bits].of(kind.name))
        return slower or (kind.name in _WITH_ROOTS and not has_roots)

    return is_left


def faster_in_floats(model, target, bits, selected, joined, settled=lambda operation: False):
    """The operations that could compute in integers, and are left in floats.

    What makes an output of the model stays in integers, so that files may return these; and so do what has weights,
    for the size of the file, and what shares its range with others, as the timesteps of a recurrent layer do.

    Args:
        model: a lowered model.
        target: a `Target` with costs.
        bits: bits of activations.
        selected: function from an operation to whether it may compute in integers.
        joined: dictionary from ids of operations to keys: those of equal keys share one range.
        settled: function from an operation to whether it has to compute in integers.

    Returns:
        A set of ids of operations.
    """
    costs, is_whole = target.costs[bits], left_whole(target, bits, fast=True)
    steps = IntegerSteps(model, target, bits, selected, joined)

    def stays(operation):
        own = has_role(operation, WEIGHTED, LOOKS_UP) or id(operation) in joined or steps.is_end(operation)
        return own or settled(operation)

    calls = steps.graph.calls
    whole = {id(call.operation) for call in calls if selected(call.operation) and is_whole(call.operation)}
    free = [call for call in calls if steps.ranges(call.operation) is not None and not stays(call.operation)]
    if not whole and not any(costs.prefers_floats(target.cost(call.operation, bits)) for call in free):
        return set()  # without one that gains by itself there is nothing to look for
    cut = MinimumCut()  # the first side is that of integers, the second that of floats
    elements = _elements(steps.graph)
    for call in calls:
        cost = target.cost(call.operation, bits)
        _add_operation(cut, call, steps, cost, elements, stays(call.operation), costs.crossing)
        for tensor in call.outputs:
            _add_tensor(cut, tensor, id(call.operation), steps.graph, _to_cross(costs, elements, tensor))
    for tensor in steps.graph.inputs:
        cut.first_costs(id(tensor), _ALWAYS)
        _add_tensor(cut, tensor, id(tensor), steps.graph, _to_cross(costs, elements, tensor))
    floats = cut.second()
    return whole | {id(call.operation) for call in free if id(call.operation) in floats}


def _add_operation(cut, call, steps, cost, elements, stays, crossing):
    operation = call.operation
    if steps.ranges(operation) is None:
        cut.first_costs(id(operation), _ALWAYS)
    elif stays:
        cut.second_costs(id(operation), _ALWAYS)
    else:
        count = _count(call, elements)
        # Sums are better for floats, and inputs that are rescaled may come as integers.
        little = _LITTLE * crossing if has_role(operation, MERGES) else 0.0
        of_tensors = len(call.inputs) > 1
        cut.first_costs(id(operation), count * (cost.integers + little * of_tensors))
        cut.second_costs(id(operation), count * (cost.floats + little * (not of_tensors)))


def _to_cross(costs, elements, tensor):
    return costs.conversion + costs.crossing * elements[id(tensor)]


def _add_tensor(cut, tensor, producer, graph, cost):
    """A conversion to floats, or to integers, serves all readers that want it."""
    readers = {id(reader.operation) for reader in graph.readers(tensor)}
    if "float" not in str(tensor.dtype) or not readers:
        return
    in_floats, in_integers = (id(tensor), "floats"), (id(tensor), "integers")
    cut.apart_costs(producer, in_floats, cost)
    cut.apart_costs(in_integers, producer, cost)
    for reader in readers:
        cut.apart_costs(in_floats, reader, _ALWAYS)
        cut.apart_costs(reader, in_integers, _ALWAYS)


def _count(call, elements):
    """How many elements a call computes; of products of two tensors, how many multiplications."""
    count = sum(elements[id(tensor)] for tensor in call.outputs)
    if not has_role(call.operation, PRODUCTS) or len(call.inputs) != 2:
        return count
    # (n, k) x (k, m) -> (n, m): the square root of the three sizes' product is n * k * m, for each pair of matrices.
    (result,) = call.outputs
    matrices = count / math.prod(size or 1 for size in result.shape[-2:])
    return math.sqrt(math.prod(elements[id(tensor)] for tensor in (*call.inputs, result)) / matrices)


def _elements(graph):
    """Elements that one sample has of each tensor, by its id; of an axis of no fixed size, one."""
    elements = {id(tensor): _listed(tensor) for tensor in graph.inputs}
    for call in graph.calls:
        given = [elements.get(id(tensor), 1) for tensor in call.inputs]
        # Some of the positions may have gone into the first axis, which else only counts samples.
        rows = max((number / _listed(tensor) for number, tensor in zip(given, call.inputs, strict=True)), default=1)
        for tensor in call.outputs:
            moved = is_kind(call.operation, "reshape") and len(given) == 1
            elements[id(tensor)] = given[0] if moved else rows * _listed(tensor)
    return elements


def _listed(tensor):
    return math.prod(size or 1 for size in tensor.shape[1:])
