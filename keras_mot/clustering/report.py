"""What is clustered in a model, into how many values, and what is not, and why."""

import dataclasses

import keras
import numpy as np

from keras_mot._entropy import entropy_in_bits
from keras_mot._tables import ShownAsTable
from keras_mot.clustering.cluster import CLUSTERING
from keras_mot.clustering.config import ClusteringConfig, codebook_of
from keras_mot.layers.finding import check_layer
from keras_mot.layers.overview import kinds_caption, overview


@dataclasses.dataclass(frozen=True)
class ClusteredWeight:
    """One clustered weight.

    Args:
        path: path of the weight.
        shape: its shape.
        number_of_clusters: how many different values it, or each of its channels, may have.
        unique_values: how many it has, over all channels.
        entropy: of its values, in bits per weight: what a perfect entropy coder would need.
        preserves_zeros: whether zero is one of the values, and belongs to the weights that are masked.
        step: training steps seen.
        config: its `ClusteringConfig`, or `None` for a codebook without a schedule.
        frozen: whether it is clustered, but neither it nor its values are trained.
    """

    path: str
    shape: tuple[int, ...]
    number_of_clusters: int
    unique_values: int
    entropy: float
    preserves_zeros: bool
    step: int
    config: ClusteringConfig | None
    frozen: bool = False

    @property
    def note(self) -> str:
        """What is special about it, in words; often empty."""
        notes = []
        if self.config is not None and self.config.per_channel:
            notes.append("per channel")
        elif self.unique_values < self.number_of_clusters:
            notes.append(f"only {self.unique_values} different values in use")
        if self.preserves_zeros:
            notes.append("one value is zero")
        if self.frozen:
            notes.append("frozen")
        return ", ".join(notes)


@dataclasses.dataclass(frozen=True)
class ClusteringReport(ShownAsTable):
    """The clustered weights of a model and those left alone; prints as a table.

    Args:
        clustered: tuple of `ClusteredWeight`.
        left_alone: tuple of (path, reason) pairs.
        left_alone_by_kind: tuple of (kind, number of weights, number of their values) of what is left alone in every
            layer, such as biases. With the others, these are all weights of the model.
    """

    clustered: tuple[ClusteredWeight, ...]
    left_alone: tuple[tuple[str, str], ...]
    left_alone_by_kind: tuple[tuple[str, int, int], ...] = ()

    def _table(self):
        rows = [
            (
                row.path,
                "x".join(map(str, row.shape)),
                row.number_of_clusters,
                row.unique_values,
                f"{row.entropy:.2f}",
                row.note,
            )
            for row in self.clustered
        ]
        rows += [(path, "", "-", "", "", f"not clustered: {reason}") for path, reason in self.left_alone]
        return ("weight", "shape", "clusters", "values", "bits per weight", "note"), rows

    def _caption(self):
        return kinds_caption(self.left_alone_by_kind, "clustered") or None


def clustering_report(model: keras.layers.Layer) -> ClusteringReport:
    """Reports what is clustered in a model and what is not.

    Args:
        model: a built model or layer, with clustered weights or without.

    Returns:
        A `ClusteringReport`.

    Raises:
        TypeError: if `model` is not a Keras model or layer.

    Example:

    ```python
    print(clustering_report(cluster_weights(model, 16)))
    ```
    """
    check_layer(model, "clustering_report")
    seen = overview(model, CLUSTERING)
    rows = tuple(_row(weight, id(weight.variable) in seen.frozen) for weight in seen.weights)
    return ClusteringReport(rows, seen.left_alone, seen.by_kind)


def _row(weight, frozen):
    codebook = codebook_of(weight)
    return ClusteredWeight(
        weight.path,
        tuple(weight.variable.shape),
        codebook.number_of_clusters,
        codebook.unique_values(),
        _entropy(codebook),
        codebook.preserve_zeros,
        codebook.step,
        codebook.updater,
        frozen,
    )


def _entropy(codebook):
    """Entropy of the values; equal values of different channels count as one."""
    members = keras.ops.convert_to_numpy(codebook.members).reshape(-1)
    _, groups = np.unique(codebook.palette().reshape(-1), return_inverse=True)
    return entropy_in_bits(np.bincount(groups, weights=members))
