"""The stages that recipes are made of."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import ClassVar

import keras

from keras_mot._messages import describe
from keras_mot._numbers import check_whole
from keras_mot.clustering import ClusteringConfig, ExactKMeans, cluster_weights
from keras_mot.layers import copy_model, strip
from keras_mot.recipes._stage import Stage, check_fine_tune, check_overrides, check_skip
from keras_mot.recipes.channel_stages import PruneChannels
from keras_mot.recipes.fine_tuning import FineTune, check_number
from keras_mot.recipes.low_rank_stage import Factorize
from keras_mot.recipes.quantizing_stages import PostTraining, QuantizeAware, StoreWeights
from keras_mot.sparsity import (
    Block,
    Channel,
    ConstantSparsity,
    Element,
    NofM,
    OptimalBrainSurgeon,
    PerLayer,
    PolynomialDecay,
    PruningConfig,
    WholeModel,
    prune_at_once,
    prune_low_magnitude,
    remove_pruned_channels,
)
from keras_mot.sparsity.channels import layers_before_outputs
from keras_mot.sparsity.criteria_by_inputs import layers_of_unknown_inputs
from keras_mot.transforms import Mask, PaletteTransform

REFITTED_ON = 1024  # samples
PRUNING_SHARE = 0.75  # of the training; the rest lets the remaining weights recover


def _check_sparsity(name, value):
    check_number(name, value, 0.0, 1.0)
    if value == 1.0:
        raise ValueError(f"`{name}` should be below 1; received 1.0.")


def _check_include_depthwise(stage):
    if stage.include_depthwise not in (None, True, False):
        raise TypeError(f"`include_depthwise` should be true or false; received {describe(stage.include_depthwise)}.")


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Tune(Stage):
    """Trains the model as it is; with a teacher, distillation alone.

    Args:
        fine_tune: a `FineTune`; without distillation by default: most often it trains the float model itself.
    """

    key: ClassVar[str] = "tune"
    taught: ClassVar[bool] = False

    fine_tune: FineTune = dataclasses.field(default_factory=FineTune)

    def __post_init__(self):
        if not isinstance(self.fine_tune, FineTune):
            raise TypeError(f"`fine_tune` should be a `FineTune`; received {describe(self.fine_tune)}.")

    def apply(self, model, run):
        """A copy."""
        return copy_model(model)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Prune(Stage):
    """Prunes by magnitude, gradually over the first three quarters of the training.

    Args:
        sparsity: share of zeros at the end, in [0, 1).
        initial_sparsity: share of zeros at the start; by default 0.5, or `sparsity` if that is less.
        block: (inputs, outputs) of the blocks that are pruned together, such as (1, 2).
        n_m: (zeros, group) of an N:M pattern, such as (2, 4), which fixes the sparsity.
        channels: whether whole output channels are pruned, but not those of the model's outputs. `RemoveChannels` then
            makes the model smaller.
        scope: "layer", or "model" for one ranking over all weights.
        min_density: with "model", the share of its weights that each layer keeps at least.
        frequency: training steps between two updates of the masks; at most a tenth of the schedule.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` to prune at once.
        include_depthwise: whether depthwise kernels are pruned, too; by default only with `channels`.
        overrides: dictionary from regular expressions of layers to another sparsity for these; not with `n_m`. The
            first that matches applies, after `skip`. Such layers are ranked by themselves, whatever `scope` says.
        refit: whether all is pruned at once, and the weights that are left are solved for by least squares, as
            `keras_mot.sparsity.prune_at_once` does it. With `fine_tune`, training begins from there. With `n_m`, the
            places of zeros are chosen by `OptimalBrainSurgeon`.
    """

    key: ClassVar[str] = "prune"
    kind: ClassVar[str] = Mask.kind

    sparsity: float = 0.5
    initial_sparsity: float | None = None
    block: tuple[int, int] | None = None
    n_m: tuple[int, int] | None = None
    channels: bool = False
    scope: str = "layer"
    min_density: float = 0.02
    frequency: int = 100
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=lambda: FineTune(2, 1e-3))
    include_depthwise: bool | None = None
    overrides: Mapping[str, float] | None = None
    refit: bool = False

    def __post_init__(self):
        for name in ("sparsity", "initial_sparsity"):
            if getattr(self, name) is not None:
                _check_sparsity(name, getattr(self, name))
        if self.initial_sparsity is not None and self.initial_sparsity > self.sparsity:
            raise ValueError(
                f"`initial_sparsity` should be at most `sparsity`, {self.sparsity:g}; received {self.initial_sparsity}."
            )
        for name in ("block", "n_m"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, list | tuple) or len(value) != 2:
                    raise TypeError(f"`{name}` should be two integers; received {describe(value)}.")
                for part in value:
                    check_whole(name, part, 1)
                object.__setattr__(self, name, tuple(value))
        for name in ("channels", "refit"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` should be True or False; received {describe(getattr(self, name))}.")
        if self.refit and self.initial_sparsity is not None:
            raise ValueError("`refit` prunes at once: leave `initial_sparsity` out.")
        if sum(map(bool, (self.block, self.n_m, self.channels))) > 1:
            raise ValueError("`block`, `n_m` and `channels` cannot go together: give one of them.")
        if self.scope not in ("layer", "model"):
            raise ValueError(f"`scope` should be 'layer' or 'model'; received {describe(self.scope)}.")
        check_whole("frequency", self.frequency, 1)
        check_skip(self)
        _check_include_depthwise(self)
        check_fine_tune(self.fine_tune)
        if self.scope == "model":
            WholeModel(self.min_density)
            if self.n_m:
                raise ValueError("`n_m` is the same in every group: it cannot go with `scope` 'model'.")
        check_overrides(self, _check_sparsity)
        if self.overrides and self.n_m:
            raise ValueError("`n_m` fixes the sparsity: it cannot go with `overrides`.")

    def apply(self, model, run):
        """A copy with masks."""
        if self.refit and not run.rehearsing:  # it takes a minute, and masks show what does not fit
            others = self._overrides(model, 0, 1)
            config = PruningConfig(ConstantSparsity(self.sparsity), self._granularity(), scope=self._scope())
            if self.n_m:
                # Within a group it counts what outputs lose; ranked over the model, that says less than magnitudes.
                others |= dict.fromkeys(layers_of_unknown_inputs(model), config)
                config = dataclasses.replace(config, criterion=OptimalBrainSurgeon())
            data = run.calibration(REFITTED_ON)
            settings = {"include_depthwise": self.include_depthwise, "progress": run.progress}
            return prune_at_once(model, data, config, overrides=others, **settings)
        steps = 0 if self.fine_tune is None else int(run.steps(self.fine_tune) * PRUNING_SHARE)
        return self.pruned(model, steps, min(self.frequency, max(1, steps // 10)))

    def pruned(self, model: keras.Model, steps: int, frequency: int) -> keras.Model:
        """A copy with masks.

        Args:
            model: a built model.
            steps: training steps until the sparsity is reached; 0: at once.
            frequency: training steps between two updates of the masks.
        """
        return prune_low_magnitude(
            model,
            self._schedule(self.sparsity, steps, frequency),
            granularity=self._granularity(),
            scope=self._scope(),
            overrides=self._overrides(model, steps, frequency),
            include_depthwise=self.include_depthwise,
        )

    def _schedule(self, sparsity, steps, frequency):
        start = min(0.5, sparsity) if self.initial_sparsity is None else min(self.initial_sparsity, sparsity)
        return PolynomialDecay(start if steps else sparsity, sparsity, 0, max(1, steps), frequency=frequency)

    def _granularity(self):
        if self.channels:
            return Channel()
        if self.n_m:
            return NofM(*self.n_m)
        return Block(self.block) if self.block else Element()

    def _scope(self):
        return WholeModel(self.min_density) if self.scope == "model" else PerLayer()

    def _overrides(self, model, steps, frequency):
        skipped = [*self.skip, *(layers_before_outputs(model) if self.channels else ())]
        others = {
            expression: PruningConfig(self._schedule(sparsity, steps, frequency), self._granularity())
            for expression, sparsity in (self.overrides or {}).items()
        }
        return dict.fromkeys(skipped) | others

    def pruning_epochs(self):
        """The epochs of the schedule."""
        return 0 if self.fine_tune is None or self.refit else -(-3 * self.fine_tune.epochs // 4)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class RemoveChannels(Stage):
    """Removes the channels that pruning made zero: the model becomes smaller, and its masks end here.

    Args:
        exact: as of `keras_mot.sparsity.remove_pruned_channels`.
        fine_tune: a `FineTune`, or `None` for no training.
    """

    key: ClassVar[str] = "remove_channels"
    after_kind: ClassVar[str] = Mask.kind

    exact: bool = True
    fine_tune: FineTune | None = None

    def __post_init__(self):
        if not isinstance(self.exact, bool):
            raise TypeError(f"`exact` should be True or False; received {describe(self.exact)}.")
        check_fine_tune(self.fine_tune)

    def apply(self, model, run):
        """A smaller model without masks."""
        return remove_pruned_channels(strip(model), self.exact)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Cluster(Stage):
    """Clusters weights; zeros of a pruning stage before stay zeros, and are one of the values.

    Args:
        number_of_clusters: how many different values a weight tensor has at most.
        per_channel: whether each output channel has values of its own.
        preserve_sparsity: whether the zeros of a model that was pruned elsewhere stay zeros.
        entropy_weight: how much smaller zipped files are preferred to smaller errors, see `ExactKMeans`; about 0.02.
        frequency: training steps between two assignments of weights to values.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` to cluster only.
        include_depthwise: whether depthwise kernels are clustered, too; by default they are not.
        overrides: dictionary from regular expressions of layers to another number of clusters for these. The first that
            matches applies, after `skip`.
    """

    key: ClassVar[str] = "cluster"
    kind: ClassVar[str] = PaletteTransform.kind

    number_of_clusters: int = 16
    per_channel: bool = False
    preserve_sparsity: bool = False
    entropy_weight: float = 0.0
    frequency: int = 10
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=FineTune)
    include_depthwise: bool | None = None
    overrides: Mapping[str, int] | None = None

    def __post_init__(self):
        for name in ("per_channel", "preserve_sparsity"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` should be true or false; received {describe(getattr(self, name))}.")
        self._config(self.number_of_clusters)
        check_skip(self)
        check_overrides(self, lambda name, value: check_whole(name, value, 2))
        _check_include_depthwise(self)
        check_fine_tune(self.fine_tune)

    def _config(self, number_of_clusters):
        return ClusteringConfig(
            number_of_clusters,
            initialization=ExactKMeans(entropy_weight=self.entropy_weight),
            per_channel=self.per_channel,
            frequency=self.frequency,
        )

    def apply(self, model, run):
        """A copy with codebooks."""
        others = {expression: self._config(number) for expression, number in (self.overrides or {}).items()}
        with warnings.catch_warnings():
            if run.quantizes:  # quantization keeps the values that batch normalization would multiply
                warnings.filterwarnings("ignore", message=".*whose weights are clustered now")
            return cluster_weights(
                model,
                self._config(self.number_of_clusters),
                preserve_sparsity=self.preserve_sparsity,
                overrides=dict.fromkeys(self.skip) | others,
                include_depthwise=self.include_depthwise,
            )


STAGES = {
    stage.key: stage
    for stage in (
        Tune,
        Factorize,
        PruneChannels,
        Prune,
        RemoveChannels,
        Cluster,
        PostTraining,
        StoreWeights,
        QuantizeAware,
    )
}
"""The stages by their names in recipe files."""
