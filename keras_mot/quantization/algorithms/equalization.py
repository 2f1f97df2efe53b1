"""Cross-layer equalization: the channels between two layers are rescaled, so that kernels use their integers evenly."""

import collections
import dataclasses

import keras
import numpy as np
from keras import activations, layers

from keras_mot._keras import producer_of
from keras_mot.graph.functional import consumers_of, is_a, nodes_of
from keras_mot.graph.kinds import activation_of
from keras_mot.layers.activation_quantizer import ActivationQuantizer
from keras_mot.layers.attaching import numpy_value, transformed_weights
from keras_mot.layers.finding import FoundWeight, find_weights
from keras_mot.quantization.simulation.placement import WEIGHTED
from keras_mot.transforms import FakeQuantize, PaletteTransform

# f(s * x) = s * f(x) for every s > 0.
_HOMOGENEOUS = ("linear", "relu", "leaky_relu")
_HOMOGENEOUS_FUNCTIONS = (activations.linear, activations.relu, activations.leaky_relu)
# Homogeneous too, and what was in channel i is in channel i, or in every i-th of them.
_CHANNELWISE = (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.Identity, layers.PReLU),
    *(layers.Flatten, layers.Reshape, layers.UpSampling1D, layers.UpSampling2D),
    *(layers.MaxPooling1D, layers.MaxPooling2D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D, layers.Cropping2D),
)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
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
        if pair.first.owner.use_bias:
            pair.first.owner.bias.assign(numpy_value(pair.first.owner.bias) * biases[id(pair)])
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
    return weight.axes.outputs[:1] if isinstance(weight.owner, _DEPTHWISE) else weight.axes.inputs


def _reach(kernel, axes):
    """The largest magnitude in each channel."""
    return np.abs(kernel).max(axis=tuple(axis for axis in range(kernel.ndim) if axis not in axes)).reshape(-1)


def _along(scale, kernel, axes):
    return scale.reshape([length if axis in axes else 1 for axis, length in enumerate(kernel.shape)])


def find_pairs(model: keras.Model) -> list[Pair]:
    """The pairs of layers of a flat functional model that `equalize` rescales the channels between."""
    nodes, consumers = nodes_of(model), consumers_of(model)
    outputs = {id(tensor) for tensor in model.outputs}
    calls = collections.Counter(id(node.operation) for node in nodes)
    pairs = []
    for node in nodes:
        first = node.operation
        if not is_a(first, WEIGHTED) or first.activation not in _HOMOGENEOUS_FUNCTIONS:
            continue
        tensor = node.output_tensors[0]
        channels = tensor.shape[-1]
        while True:
            readers = consumers.get(id(tensor), [])
            alone = calls[id(producer_of(tensor))] == 1 and id(tensor) not in outputs
            if not alone or len(readers) != 1 or not _channels_last(producer_of(tensor)):
                break
            reader = readers[0].operation
            if is_a(reader, WEIGHTED):
                fits = calls[id(reader)] == 1 and _channels_last(reader) and getattr(reader, "groups", 1) == 1
                if fits and tensor.shape[-1] % channels == 0:
                    pair = Pair(*(find_weights(layer)[0][0] for layer in (first, reader)))
                    # Rescaled channels would no longer share their values.
                    if not any(_transform(weight, PaletteTransform) for weight in (pair.first, pair.second)):
                        pairs.append(pair)
                break
            if not _keeps_channels(reader):
                break
            tensor = readers[0].output_tensors[0]
            if not tensor.shape[-1] or tensor.shape[-1] % channels:
                break
    return pairs


def _channels_last(operation):
    return getattr(operation, "data_format", "channels_last") == "channels_last"


def _keeps_channels(operation):
    if isinstance(operation, ActivationQuantizer):
        return operation.fixed is None
    return is_a(operation, _CHANNELWISE) or activation_of(operation) in _HOMOGENEOUS
