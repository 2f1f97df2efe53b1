"""Users' plain classes on any axis: they train and strip; only saving asks for a configuration."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_mot.clustering import (
    CentroidInitialization,
    ClusteringConfig,
    ClusteringMethod,
    SharedValues,
    cluster_weights,
    strip_clustering,
)
from keras_mot.layers import transformed_weights
from keras_mot.quantization import RangeEstimator
from keras_mot.sparsity import (
    Criterion,
    Element,
    Granularity,
    Magnitude,
    PruningConfig,
    PruningSchedule,
    WholeModel,
    prune_low_magnitude,
    strip_pruning,
)
from tests.sparsity.models import batches, classifier, compiled, zeros


class Always(PruningSchedule):
    def __init__(self, sparsity):
        self.sparsity = sparsity

    def __call__(self, step):
        return True, self.sparsity


class Weighted(Criterion):
    def __init__(self, factor):
        self.factor = factor

    def scores(self, weight, path, step):
        return self.factor * np.abs(weight)


class Single(Granularity):
    def __init__(self, note):
        self.note = note

    check = Element.check
    unit_count = Element.unit_count
    unit_scores = Element.unit_scores
    expand = Element.expand


class Spread(CentroidInitialization):
    def __init__(self, width):
        self.width = width

    def centroids(self, values, count):
        return np.linspace(-self.width, self.width, count)


class Own(ClusteringMethod):
    def __init__(self, note):
        self.note = note

    codebook = SharedValues.codebook
    average_gradient = True


class Doubled(RangeEstimator):
    def __init__(self, factor):
        self.factor = factor

    def range(self, seen):
        return -self.factor, self.factor


MADE = {
    Always: lambda axis: prune_low_magnitude(classifier(), axis),
    Weighted: lambda axis: prune_low_magnitude(classifier(), Always(0.5), criterion=axis),
    Single: lambda axis: prune_low_magnitude(classifier(), Always(0.5), granularity=axis),
    Spread: lambda axis: cluster_weights(classifier(), 4, axis),
    Own: lambda axis: cluster_weights(classifier(), ClusteringConfig(4, method=axis)),
}


@pytest.mark.parametrize("kind", MADE)
def test_it_trains_and_strips_and_says_what_saving_needs(kind, tmp_path):
    model = compiled(MADE[kind](kind(0.5)))
    model.fit(*batches(2), batch_size=16, verbose=0)
    strip = strip_pruning if kind in (Always, Weighted, Single) else strip_clustering
    plain = strip(model)
    if strip is strip_pruning:
        assert zeros(plain) == [120, 160, 24]
        cluster_weights(model, 4)  # copies the model with its masks
    with pytest.raises(TypeError, match=f"`{'Always' if strip is strip_pruning else kind.__name__}` does not say how"):
        model.save(tmp_path / "m.keras")
    plain.save(tmp_path / "plain.keras")


@pytest.mark.parametrize("kind", [*MADE, Doubled])
def test_those_with_other_settings_are_other_ones(kind):
    assert kind(0.5) == kind(0.5)
    assert hash(kind(0.5)) == hash(kind(0.5))
    assert kind(0.5) != kind(0.25)
    assert kind(np.array([1.0, 2.0])) == kind(np.array([1.0, 2.0]))
    assert kind(np.array([1.0, 2.0])) != kind(np.array([1.0, 3.0]))
    assert kind([1, {"a": {2}}]) == kind([1, {"a": {2}}])
    assert kind([1, {"a": {2}}]) != kind([1, {"a": {3}}])


def test_plain_axes_rank_a_model_together():
    pruned = prune_low_magnitude(
        classifier(),
        Always(0.5),
        scope=WholeModel(),
        overrides={"first": PruningConfig(Always(0.5), scope=WholeModel())},
    )
    assert len({weight.transforms[0].updater for weight in transformed_weights(pruned)}) == 1


@keras.saving.register_keras_serializable("test_plain_axes")
class WithConfig(Weighted):
    def get_config(self):
        return {"factor": self.factor}


@keras.saving.register_keras_serializable("test_plain_axes")
class WithoutSettings(Magnitude):
    """A plain subclass of a dataclass."""


@keras.saving.register_keras_serializable("test_plain_axes")
@dataclasses.dataclass(frozen=True)
class Fields(Weighted):
    """A dataclass without `keras_mot.Config`."""

    factor: float


@pytest.mark.parametrize("criterion", [WithConfig(2.0), WithoutSettings(), Fields(3.0)], ids=lambda c: type(c).__name__)
def test_what_has_a_configuration_is_saved(criterion, tmp_path):
    prune_low_magnitude(classifier(), criterion=criterion).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert transformed_weights(loaded)[0].transforms[0].updater.criterion == criterion


def test_what_cannot_be_compared_is_refused():
    @dataclasses.dataclass
    class Mutable(Criterion):
        factor: float = 1.0

        def scores(self, weight, path, step):
            return np.abs(weight)

    @dataclasses.dataclass(frozen=True)
    class Listed(Spread):
        width: list

    with pytest.raises(TypeError, match=r"`criterion` should be hashable.*frozen dataclass"):
        prune_low_magnitude(classifier(), criterion=Mutable())
    with pytest.raises(TypeError, match=r"`initialization` should be hashable.*frozen dataclass"):
        cluster_weights(classifier(), 4, Listed([1.0]))
