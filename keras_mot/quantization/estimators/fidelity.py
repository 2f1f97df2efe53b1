"""Whether a calibrated model still computes what the float model does: a warning that says where it stops, if not.

Judged are the outputs on calibration data, by their signal-to-noise ratio and by the decisions that follow from them.
"""

import keras
import numpy as np

from keras_mot._warnings import warn
from keras_mot.data.naming import input_name
from keras_mot.graph.agreement import (
    Verdict,
    changed_decisions,
    first_batches,
    noise_and_ratio,
    told,
    worst_of,
)
from keras_mot.graph.kinds import SAME, kind_of
from keras_mot.graph.model_graph import Graph
from keras_mot.graph.output_kinds import PROBABILITIES
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.float_boundary import FloatBoundary
from keras_mot.layers.named_output import NamedOutput
from keras_mot.layers.transformed import transformed_weights
from keras_mot.transforms import FakeQuantize

_LEAST = 10.0  # dB
_FINE = 16.0  # squared steps
# The share of decisions that may change, of probabilities and of other outputs, which may be no decisions at all.
_CHANGED, _CHANGED_OF_LOGITS = 0.03, 0.1
_BLAMED_ON = 32  # samples
_APART = 16.0  # features of one input that differ more in size than this share a scale badly


def warn_if_useless(passes, batches, expected, received, name_of, trained=False, excuse=None):
    """Warns if the outputs of a calibrated model are no longer those of the float model, and says where that begins.

    Args:
        passes: the `Passes` of the model.
        batches: list of the inputs.
        expected: what the float model returns for them, as `Passes.outputs` does.
        received: what the model returns.
        name_of: function from an operation of the model to the name of that of the user's which it was made from.
        trained: whether the model is going to be trained, which makes up for rounded weights.
        excuse: function without arguments that tells whether outputs may differ, since the model is as good; or `None`.
    """
    graph = Graph(passes.model)
    verdicts = [_judged(graph, *each) for each in _by_output(graph, expected, received)]
    worst = worst_of(verdicts)
    if worst is None or (excuse is not None and excuse()):
        return
    again = passes.outputs(batches, rounding=(), floats=True)
    count = len(verdicts)
    first, noisy, second = (each[worst.output :: count] for each in (expected, received, again))
    if noise_and_ratio(first, second)[0] > noise_and_ratio(first, noisy)[0] / 4:
        return  # a model that draws random numbers, which are others in each run
    weights, place = _blamed(passes, first_batches(batches, _BLAMED_ON), worst.output)
    if trained and (weights or place is None):
        return
    warn(
        f"The integer form of '{passes.model.name}' is of little use. On the calibration data, against the float model"
        f", {told(worst, passes.model)}. {_cause(graph, name_of, weights, place, batches)}"
    )


def _by_output(graph, expected, received):
    """Of each output: its number, and the arrays of all batches, in floats and as rounded."""
    count = len(graph.outputs)
    return [(number, expected[number::count], received[number::count]) for number in range(count)]


def _judged(graph, number, expected, received):
    tensor = graph.outputs[number]
    kind, step = _maker(graph, tensor)
    noise, ratio = noise_and_ratio(expected, received)
    size = sum(array.size for array in expected)
    # A step of the output is no fault of what is before it (sigmoid never gets to 1); of probabilities, some are fine.
    fine = step is not None and noise <= size * step**2 * (_FINE if kind in PROBABILITIES else 1.1)
    changed = changed_decisions(kind, tensor, expected, received)
    useless = ratio < _LEAST and not fine
    if changed is not None:
        useless |= changed.above(_CHANGED if kind in PROBABILITIES else _CHANGED_OF_LOGITS)
    return Verdict(number, ratio, changed and changed.share, useless)


def _maker(graph, tensor):
    """The name of the kind of operation that makes an output; and the step of its integers where these are given."""
    call, step = graph.producer(tensor), None
    while call is not None and isinstance(call.operation, ActivationQuantizer | FloatBoundary | NamedOutput):
        if isinstance(call.operation, ActivationQuantizer) and call.operation.fixed is not None:
            step = call.operation.parameters().scale
        call = graph.producer(call.inputs[0])
    kind = None if call is None else kind_of(call.operation)
    return None if kind is None else kind.name, step


def _blamed(passes, batches, number):
    """Where most of the noise begins: whether it is in weights, and the `TransformedWeight` or the quantizer.

    Rounded are the first weights alone, then all weights and the first activations, more and more of them in the order
    of the model, until half of the noise is there. If what was rounded last makes little of it alone, no place is to
    blame but all of them: `None`.
    """
    count = len(passes.model.outputs)
    weights = [weight for weight in transformed_weights(passes.model) if weight.transform_of(FakeQuantize) is not None]
    quantizers = list(passes.quantizers)
    expected = passes.outputs(batches, rounding=(), floats=True)[number::count]

    def noise(rounding, rounded):
        received = passes.outputs(batches, rounding=rounding, floats=rounded)[number::count]
        return noise_and_ratio(expected, received)[0]

    total = noise(quantizers, False)
    half = total / 2
    in_weights = noise((), False) >= half
    places = weights if in_weights else quantizers

    def noise_of(chosen, alone=False):
        if in_weights:
            return noise((), [weight for weight in weights if not any(weight is each for each in chosen)])
        return noise(chosen, alone)

    low, high = 0, len(places)  # of the first `low` there is too little noise, of the first `high` enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if noise_of(places[:middle]) >= half else (middle, high)
    if not places or not noise_of(places[high - 1 : high], alone=True) >= total / 4:
        return in_weights, None
    return in_weights, places[high - 1]


def _cause(graph, name_of, in_weights, place, batches):
    """A sentence on what is to blame, and one on the way out."""
    if place is None:
        where = "rounded weights" if in_weights else "rounded activations"
        return (
            f"No layer alone is to blame: the noise of {where} adds up. Leave some layers in floats by `overrides`, "
            "take more bits (`INT16X8`), or train with `quantize_model`."
        )
    if in_weights:
        name = name_of(place.owner)
        return (
            f"Most of it comes from the weights of layer '{name}'. Leave it in floats, "
            f"`overrides={{'{name}': None}}`, give it more bits, or train with `quantize_model`."
        )
    (call, *_) = graph.calls_of(place)
    low, high = place.parameters().range
    source = graph.producer(call.inputs[0])
    if source is not None:
        names = [name_of(call.operation) for call in (source, *_readers(graph, call.outputs[0]))]
        left = dict.fromkeys(dict.fromkeys(names))
        return (
            f"Most of it comes from the activations of layer '{names[0]}', {2**place.bits} numbers from {low:.3g} to "
            f"{high:.3g}. Leave it and what reads it in floats, `overrides={left}`, have the range chosen otherwise, "
            "`estimator=Percentile()`, or take more bits, `INT16X8`."
        )
    number = next(at for at, tensor in enumerate(graph.inputs) if tensor is call.inputs[0])
    text = (
        f"Most of it comes from input '{input_name(graph.inputs[number])}', {2**place.bits} numbers from {low:.3g} to "
        f"{high:.3g}. "
    )
    sizes = _sizes_of_features([keras.tree.flatten(batch)[number] for batch in batches])
    if len(sizes) > 1 and sizes.max() > _APART * sizes.min():
        return text + (
            f"Its features differ in size by a factor of {sizes.max() / sizes.min():.0f}, and share one scale: "
            "normalize them, in front of the model or by a `Normalization` at its input."
        )
    return text + "Scale it or cut off rare large values in front of the model, or take more bits, `INT16X8`."


def _readers(graph, tensor):
    """The calls that compute with a tensor, on the far side of what moves it."""
    for call in graph.readers(tensor):
        kind = kind_of(call.operation)
        if kind is not None and kind.ranges == SAME:
            for output in call.outputs:
                yield from _readers(graph, output)
        elif not isinstance(call.operation, ActivationQuantizer | FloatBoundary | NamedOutput):
            yield call


def _sizes_of_features(arrays):
    """How much each feature of an input varies, without those that do not."""
    if len({array.shape[1:] for array in arrays}) > 1 or arrays[0].ndim < 2:
        return np.zeros(0)
    rows = np.concatenate(arrays).astype("float64")
    sizes = rows.reshape(-1, rows.shape[-1]).std(axis=0)
    return sizes[sizes > 0]
