"""Masks and codebooks on their way into a quantized model, whose layers are not those that they were attached to.

Nothing is guessed from values: what puts the values of a weight elsewhere says how (`Move`), and its mask, and which
entry of the palette stands for each value, go the same way.
"""

import dataclasses
from collections.abc import Callable, Iterable

import keras
import numpy as np

from keras_mot._arrays import numpy_value
from keras_mot._warnings import warn
from keras_mot.clustering import ClusteringConfig
from keras_mot.graph.origins import Origins
from keras_mot.layers.finding import FoundWeight, find_weights
from keras_mot.layers.technique import transform_name
from keras_mot.layers.transformed import transformed_weights
from keras_mot.quantization.lowering.lowering import Lowered
from keras_mot.quantization.lowering.moves import Move, unmoved
from keras_mot.transforms import Codebook, Mask, PaletteTransform, WeightTransform

_SPREAD = 1e-4  # of values that are one, beside the largest weight


@dataclasses.dataclass(frozen=True, eq=False)
class CarriedWeight:
    """What a weight brings along beside its values.

    Args:
        mask: boolean array of the weight's shape, or `None`.
        codebook: the `PaletteTransform` that it had, or `None`.
        entries: which entry of the palette stands for each value, integers of the weight's shape; `None` without.
    """

    mask: np.ndarray | None
    codebook: PaletteTransform | None
    entries: np.ndarray | None

    def moved(self, function: Callable[[np.ndarray], np.ndarray]) -> "CarriedWeight":
        """The same where the values are moved to; `function` as of `Move`."""
        mask, entries = (None if array is None else function(array) for array in (self.mask, self.entries))
        return CarriedWeight(mask, self.codebook, entries)

    def transforms(self, found: FoundWeight) -> list[WeightTransform]:
        """New transforms for the weight in the quantized model, still to be built, attached and filled."""
        made = [] if self.mask is None else [Mask(name=transform_name(found, "mask"))]
        return made if self.codebook is None else [*made, _hard(self.codebook, transform_name(found, "codebook"))]

    def fill(self, transforms: Iterable[WeightTransform], value: np.ndarray, used: np.ndarray, path: str) -> None:
        """Gives transforms their state.

        Args:
            transforms: what `transforms` returned, built.
            value: the weight's values.
            used: boolean array of its shape: whether a value matters, since its channel is not multiplied by zero.
            path: of the layer, for a warning.
        """
        for transform in transforms:
            if isinstance(transform, Mask):
                transform.assign(self.mask)
            else:
                self._fill_codebook(transform, value, used, path)

    def _fill_codebook(self, codebook, value, used, path):
        codebook.step, codebook.updated_at = self.codebook.step, self.codebook.updated_at
        palette = np.zeros((codebook.channels, codebook.number_of_clusters), "float64")
        again = 0
        for channel, row in enumerate(palette):
            where = codebook.channel_slice(channel)
            again += not _fill_row(row, self.entries[where][used[where]], value[where][used[where]].astype("float64"))
        if not again:
            codebook.assign(palette, self.entries)
            return
        # Channels have been multiplied by factors of both signs, which no positive scale undoes.
        warn(
            f"The shared values of '{path}' are chosen anew: a batch normalization with negative factors, "
            "or one scale for the whole weight, makes more of them."
        )
        config = codebook.updater or ClusteringConfig(codebook.number_of_clusters, per_channel=codebook.per_channel)
        config.choose_centroids(codebook, value)


def weights_to_carry(model: keras.Model) -> dict[tuple[int, str], CarriedWeight]:
    """The weights of a model with a mask or a codebook, as they are now: by (id(layer), key of the weight in it)."""
    carried = {}
    for weight in transformed_weights(model):
        mask, codebook = weight.transform_of(Mask), weight.transform_of(PaletteTransform)
        if mask or codebook:
            kept = None if mask is None else np.array(numpy_value(mask.mask), bool)
            entries = codebook and codebook.assignments_of(numpy_value(weight.value_before(codebook)))
            carried[id(weight.owner), weight.key] = CarriedWeight(kept, codebook, entries)
    return carried


def carried_through(
    sources: dict[tuple[int, str], CarriedWeight], model: keras.Model, origins: Origins, lowered: Lowered
) -> dict[int, CarriedWeight]:
    """What the weights of a lowered model bring along.

    Args:
        sources: what `weights_to_carry` returned of a first model.
        model: the model before it was lowered, whose weights have the shapes that they had in the first one.
        origins: the `Origins` of its layers in the first model.
        lowered: what became of it.

    Returns:
        Dictionary by id(variable) of the lowered model.
    """
    if not sources:
        return {}
    found = ((weight, sources.get((id(origins.of(weight.owner)), weight.key))) for weight in find_weights(model)[0])
    before = {id(weight.variable): source for weight, source in found if source is not None}
    carried = {}
    for weight in find_weights(lowered.model)[0]:
        move = lowered.moves.get(id(weight.variable), Move(weight.variable, unmoved))
        if id(move.source) in before:
            carried[id(weight.variable)] = before[id(move.source)].moved(move.function)
    return carried


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


def _fill_row(row, entries, values):
    """Sets the values of a channel's palette; returns whether equal weights were still equal."""
    counts = np.bincount(entries, minlength=len(row))
    sums = np.bincount(entries, weights=values, minlength=len(row))
    row[:] = sums / np.maximum(counts, 1)
    return not values.size or np.abs(values - row[entries]).max() <= _SPREAD * np.abs(values).max()
