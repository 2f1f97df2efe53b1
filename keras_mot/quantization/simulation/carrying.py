"""Masks and codebooks on their way into a quantized model, whose layers are not those that they were attached to.

Quantization breaks layers down and moves their weights about: a separable convolution becomes two, the kernel of a GRU
several dense layers. So that no state has to be guessed back from values, a second copy of the model goes the same
way, with labels in place of weights, which say of each weight what its mask and its codebook make of it.
"""

import dataclasses
import warnings

import keras
import numpy as np

from keras_mot._keras import flatten_layers
from keras_mot.clustering import ClusteringConfig
from keras_mot.layers.attaching import TransformedWeight, numpy_value, transformed_weights
from keras_mot.layers.copying import copy_model
from keras_mot.layers.finding import find_weights
from keras_mot.layers.technique import strip_model, transform_name
from keras_mot.transforms import Codebook, Mask, PaletteTransform

# Marks what is a label still: neither a sum or product of labels nor the zero of another weight has this fraction.
# Small enough labels keep it in 32 bits.
_FRACTION = 0.3125
_SPREAD = 1e-4  # of values that are one, beside the largest weight


@dataclasses.dataclass(frozen=True)
class _Source:
    """A weight with a mask or a codebook, and its labels.

    Args:
        weight: the `TransformedWeight`.
        number: its place among the transformable weights of the model.
        first: the label of its first state: the number of the entry, times two, plus one for what is not masked.
        labels: array of the weight's shape.
    """

    weight: TransformedWeight
    number: int
    first: int
    labels: np.ndarray


class Carried:
    """The masks and codebooks of a model.

    Args:
        model: a model of any kind.

    Attributes:
        plain: the model without transforms; `model` itself if it has none.
    """

    def __init__(self, model):
        self._sources = _sources(model)
        self.plain = strip_model(model, inplace=False) if self._sources else model
        self._labelled = None

    def follow(self, lowered):
        """Sends the labels the way of the weights.

        Args:
            lowered: function from a model to the model in which it shall be quantized, whose layers are named alike for
                any weights.
        """
        if not self._sources:
            return
        labelled = copy_model(self.plain)
        for layer in flatten_layers(labelled):
            if isinstance(layer, keras.layers.BatchNormalization):
                _make_neutral(layer)
        found = find_weights(labelled)[0]
        for weight in found:
            weight.variable.assign(np.zeros(weight.variable.shape))
        for source in self._sources:
            found[source.number].variable.assign(source.labels + _FRACTION)
        self._labelled = {layer.name: find_weights(layer)[0] for layer in lowered(labelled).layers}

    def transforms(self, layer, number, found):
        """The mask and the codebook of a weight of the model that is to be quantized.

        Args:
            layer: name of one of its layers.
            number: of the weight in that layer.
            found: the `FoundWeight`.

        Returns:
            List of (transform, function that fills it once it is built, given the weight's value and which of it is
            used).
        """
        if self._labelled is None:
            return []
        values = numpy_value(self._labelled[layer][number].variable).astype("float64")
        labels = np.round(values - _FRACTION).astype("int64")
        if not labels.size or (np.abs(values - _FRACTION - labels) > 1e-4 + 1e-6 * np.abs(labels)).any():
            return []
        least, most = labels.min(), labels.max()
        source = next((source for source in self._sources if source.first <= least and most < _end(source)), None)
        if source is None:
            return []
        states = labels - source.first
        kept, entries = states % 2 == 1, states // 2
        result = []
        if source.weight.transform_of(Mask):
            result.append((Mask(name=transform_name(found, "mask")), lambda mask, value, used: mask.assign(kept)))
        codebook = source.weight.transform_of(PaletteTransform)
        if codebook:
            result.append((_hard(codebook, transform_name(found, "codebook")), _filler(entries, codebook, found)))
        return result


def _sources(model):
    sources, first = [], 1
    transformed = {id(weight.variable): weight for weight in transformed_weights(model)}
    for number, found in enumerate(find_weights(model)[0] if transformed else ()):
        weight = transformed.get(id(found.variable))
        if weight is None:
            continue
        mask, codebook = weight.transform_of(Mask), weight.transform_of(PaletteTransform)
        if not mask and not codebook:
            continue
        kept = np.ones(weight.variable.shape, bool) if mask is None else np.array(numpy_value(mask.mask))
        entries = np.zeros(kept.shape, "int64")
        if codebook:
            entries = codebook.assignments_of(numpy_value(weight.value_before(codebook))).astype("int64")
        sources.append(_Source(weight, number, first, first + 2 * entries + kept))
        first = _end(sources[-1])
    return sources


def _end(source):
    codebook = source.weight.transform_of(PaletteTransform)
    return source.first + 2 * (codebook.number_of_clusters if codebook else 1)


def _make_neutral(layer):
    """Makes a batch normalization return its inputs."""
    layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
    layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1.0 - layer.epsilon))
    if layer.scale:
        layer.gamma.assign(np.ones(layer.gamma.shape))
    if layer.center:
        layer.beta.assign(np.zeros(layer.beta.shape))


def _hard(codebook, name):
    """A codebook like another, which is not a soft one."""
    return Codebook(
        codebook.number_of_clusters,
        per_channel=codebook.per_channel,
        preserve_zeros=codebook.preserve_zeros,
        average_gradient=getattr(codebook, "average_gradient", True),
        updater=codebook.updater if isinstance(codebook, Codebook) else None,
        name=name,
    )


def _filler(entries, source, found):
    def fill(codebook, value, used):
        codebook.step, codebook.updated_at = source.step, source.updated_at
        palette = np.zeros((codebook.channels, codebook.number_of_clusters), "float64")
        again = 0
        for channel, row in enumerate(palette):
            where = codebook.channel_slice(channel)
            again += not _fill_row(row, entries[where][used[where]], value[where][used[where]].astype("float64"))
        if not again:
            codebook.assign(palette, entries)
            return
        # Channels have been multiplied by factors of both signs, which no positive scale undoes.
        warnings.warn(
            f"The shared values of '{found.owner.path}' are chosen anew: a batch normalization with negative factors, "
            "or one scale for the whole weight, makes more of them.",
            stacklevel=2,
        )
        config = codebook.updater or ClusteringConfig(codebook.number_of_clusters, per_channel=codebook.per_channel)
        config.choose_centroids(codebook, value)

    return fill


def _fill_row(row, entries, values):
    """Sets the values of a channel's palette; returns whether equal weights were still equal."""
    counts = np.bincount(entries, minlength=len(row))
    sums = np.bincount(entries, weights=values, minlength=len(row))
    row[:] = sums / np.maximum(counts, 1)
    return not values.size or np.abs(values - row[entries]).max() <= _SPREAD * np.abs(values).max()
