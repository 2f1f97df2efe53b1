"""Cross-layer equalization: the channels between two layers are rescaled, so that kernels use their integers evenly."""

import dataclasses

import keras
import numpy as np
from keras import activations

from keras_mot._arrays import numpy_value
from keras_mot.graph.kinds import WEIGHTED, bias_of, has_role, is_kind, kind_of, kind_of_function
from keras_mot.graph.model_graph import Graph
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.finding import FoundWeight, find_weights
from keras_mot.layers.transformed import transformed_weights
from keras_mot.transforms import FakeQuantize, PaletteTransform

_SWEEPS = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Two layers with weights, the second of which alone reads the channels of the first.

    Args:
        first: the kernel of the layer that makes the channels.
        second: the kernel of the layer that reads them.
    """

    first: FoundWeight
    second: FoundWeight


def equalize(model: keras.Model) -> int:
    """Rescales the channels between layers so that both kernels reach equally far in each, in place.

    Channel i of the first kernel (and its bias) is divided by s_i = sqrt(r1_i / r2_i), and channel i of the second
    multiplied by it, where r1_i and r2_i are their largest magnitudes; over all pairs, until nothing changes (Nagel et
    al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section 4.1).
    What the model computes in floats stays the same: only pairs are taken that nothing but functions f with
    f(s * x) = s * f(x) lies between, such as ReLU and pooling. ReLU6 is none.

    Args:
        model: a functional model without nested models. Batch normalization should be folded.

    Returns:
        How many pairs there are.
    """
    pairs = find_pairs(model)
    values = {}
    for pair in pairs:
        for weight in (pair.first, pair.second):
            values[id(weight.variable)] = numpy_value(weight.variable).astype("float64") * _factors(weight)
    biases = {id(pair): 1.0 for pair in pairs}
    for _ in range(_SWEEPS):
        largest = 0.0
        for pair in pairs:
            scale = _equalize_pair(pair, values)
            biases[id(pair)] = biases[id(pair)] / scale
            largest = max(largest, float(np.abs(np.log(scale)).max()))
        if largest < 1e-3:
            break
    for pair in pairs:
        for weight in (pair.first, pair.second):
            factors = _factors(weight)
            weight.variable.assign(values[id(weight.variable)] / np.where(factors > 0, factors, 1.0))
        bias = bias_of(pair.first.owner)
        if bias is not None:
            bias.assign(numpy_value(bias) * biases[id(pair)])
    return len(pairs)


def _transform(weight, kind):
    """The transform of a class on the weight of a `FoundWeight`, or `None`."""
    attached = (item for item in transformed_weights(weight.owner) if item.variable is weight.variable)
    return next((item.transform_of(kind) for item in attached), None)


def _factors(weight):
    transform = _transform(weight, FakeQuantize)
    return 1.0 if transform is None else transform.factors_of()


def _equalize_pair(pair, values):
    first, second = values[id(pair.first.variable)], values[id(pair.second.variable)]
    outputs, inputs = pair.first.axes.outputs, _input_axes(pair.second)
    made = _reach(first, outputs)
    read = _reach(second, inputs).reshape(-1, made.size).max(axis=0)
    used = (made > 1e-6 * made.max()) & (read > 1e-6 * read.max())
    scale = np.sqrt(np.where(used, made, 1.0) / np.where(used, read, 1.0))
    first /= _along(scale, first, outputs)
    second *= _along(np.tile(scale, second.shape[inputs[0]] // made.size), second, inputs)
    return scale


def _input_axes(weight):
    """The axis of a kernel that numbers the channels that it reads."""
    return weight.axes.outputs[:1] if is_kind(weight.owner, "depthwise_conv") else weight.axes.inputs


def _reach(kernel, axes):
    """The largest magnitude in each channel."""
    return np.abs(kernel).max(axis=tuple(axis for axis in range(kernel.ndim) if axis not in axes)).reshape(-1)


def _along(scale, kernel, axes):
    return scale.reshape([length if axis in axes else 1 for axis, length in enumerate(kernel.shape)])


def find_pairs(model: keras.Model) -> list[Pair]:
    """The pairs of layers of a flat functional model that `equalize` rescales the channels between."""
    graph, pairs = Graph(model), []
    for call in graph.calls:
        pair = _pair_from(graph, call)
        if pair is not None:
            pairs.append(pair)
    return pairs


def _pair_from(graph, call):
    """The pair whose first layer is called there, or `None`."""
    first = _kernel_of(call.operation)
    if first is None or not _is_homogeneous(call.operation):
        return None
    channels = call.outputs[0].shape[-1]
    while len(graph.calls_of(call.operation)) == 1 and _channels_last(call.operation):
        tensor = call.outputs[0]
        call = graph.sole_reader(tensor)
        if call is None or not tensor.shape[-1] or tensor.shape[-1] % channels:
            return None
        second = _kernel_of(call.operation)
        if second is not None:
            fits = len(graph.calls_of(call.operation)) == 1 and _channels_last(call.operation)
            if not fits or getattr(call.operation, "groups", 1) != 1:
                return None
            # Rescaled channels would no longer share their values.
            shared = any(_transform(weight, PaletteTransform) for weight in (first, second))
            return None if shared else Pair(first, second)
        if not _keeps_channels(call.operation):
            return None
    return None


def _is_homogeneous(layer):
    kind = kind_of_function(getattr(layer, "activation", activations.linear))
    return kind is not None and kind.homogeneous


def _kernel_of(layer):
    """The only kernel of a layer that computes sums with one, or `None`."""
    weights = find_weights(layer)[0] if has_role(layer, WEIGHTED) else ()
    return weights[0] if len(weights) == 1 else None


def _channels_last(operation):
    return getattr(operation, "data_format", "channels_last") == "channels_last"


def _keeps_channels(operation):
    if isinstance(operation, ActivationQuantizer):
        return operation.fixed is None
    kind = kind_of(operation)
    # Average pooling would do as well; that going across it helps has not been measured.
    return kind is not None and kind.homogeneous and kind.channels_stay and kind.name != "average_pool"
